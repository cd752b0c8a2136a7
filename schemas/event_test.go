package schemas

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// sound is an event that decodes; the tests below spoil it.
const sound = `{"specversion":"1.0","type":"agent.online","source":"/isdp/tenants/886",` +
	`"subject":"17813","id":"886-17813-42",` +
	`"time":"2026-11-22T08:04:55.123Z","datacontenttype":"application/json",` +
	`"dataschema":"urn:rollcall:agent-event:v1",` +
	`"data":{"revision":42,"reason":"status","sweep":1807,"online":true,` +
	`"notBefore":"2026-11-22T08:04:50.101Z",` +
	`"since":"2026-11-22T08:04:55.123Z","previousSince":"2026-11-21T17:30:02.007Z",` +
	`"agent":{"agentId":17813,"tenantId":886,"onlineStatus":1},` +
	`"changes":[{"field":"onlineStatus","from":0,"to":1}]}}`

func TestEventUnmarshalRefuses(t *testing.T) {
	var e Event
	if err := e.UnmarshalJSON([]byte(sound)); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, old, new, want string }{
		{"cut off", `}}`, `}`, "unexpected end"},
		{"another specversion", `"1.0"`, `"2.0"`, "specversion"},
		{"no specversion", `"specversion":"1.0",`, ``, "specversion"},
		{"another type", `agent.online`, `agent.busy`, "unknown type"},
		{"a state is no type", `agent.online`, `agent.state`, "unknown type"},
		{"no type", `"type":"agent.online",`, ``, "unknown type"},
		{"online, but not", `"online":true`, `"online":false`, "online false"},
		{"offline, but online", `agent.online`, `agent.offline`, "online true"},
		{"no revision", `"revision":42,`, ``, "no revision"},
		{"revision 0", `"revision":42`, `"revision":0`, "no revision"},
		{"revision null", `"revision":42`, `"revision":null`, "no revision"},
		{"revision below 0", `"revision":42`, `"revision":-1`, "revision"},
		{"revision too large", `"revision":42`, `"revision":18446744073709551616`, "revision"},
		{"another revision", `"revision":42`, `"revision":43`, "revision 43"},
		{"no time", `"time":"2026-11-22T08:04:55.123Z",`, ``, "no time"},
		{"time null", `"time":"2026-11-22T08:04:55.123Z"`, `"time":null`, "no time"},
		{"time empty", `"time":"2026-11-22T08:04:55.123Z"`, `"time":""`, "time"},
		{"no since", `"since":"2026-11-22T08:04:55.123Z",`, ``, "since"},
		{
			"since within the zero time's millisecond",
			`"since":"2026-11-22T08:04:55.123Z"`,
			`"since":"0001-01-01T00:00:00.0009Z"`,
			"since",
		},
		{
			"time beyond 9999",
			`"time":"2026-11-22T08:04:55.123Z"`,
			`"time":"9999-12-31T23:59:59.999-01:00"`,
			"year",
		},
		{"notBefore before 1", `2026-11-22T08:04:50.101Z`, `0001-01-01T00:00:00.000+01:00`, "year"},
		{"another id", `886-17813-42`, `886-17813-41`, "id"},
		{"no id", `"id":"886-17813-42",`, ``, "id"},
		{"another source", `/isdp/tenants/886`, `/isdp/tenants/887`, "source"},
		{"no source", `"source":"/isdp/tenants/886",`, ``, "source"},
		{"another subject", `"subject":"17813"`, `"subject":"17814"`, "subject"},
		{"subject as a number", `"subject":"17813"`, `"subject":17813`, "subject"},
		{"another agent", `"agentId":17813`, `"agentId":17814`, "agent 17814"},
		{"another tenant", `"tenantId":886`, `"tenantId":887`, "tenant 887"},
		{"no tenant", `"tenantId":886,`, ``, "tenant 0"},
		{"agent without status", `,"onlineStatus":1}`, `}`, "onlineStatus"},
		{"agent without id", `"agentId":17813,`, ``, "agentId"},
		{"agent null", `{"agentId":17813,"tenantId":886,"onlineStatus":1}`, `null`, "no agent"},
		{"no agent", `"agent":{"agentId":17813,"tenantId":886,"onlineStatus":1},`, ``, "no agent"},
		{"no data", sound[strings.Index(sound, `,"data":`):], `}`, "no agent"},
		{"changes are no list", `[{"field":"onlineStatus","from":0,"to":1}]`, `{}`, "changes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if n := strings.Count(sound, tt.old); n == 0 {
				t.Fatalf("%s is not in the event", tt.old)
			}
			e := Event{Type: Updated}
			err := e.UnmarshalJSON([]byte(strings.Replace(sound, tt.old, tt.new, 1)))
			if err == nil ||
				!strings.Contains(strings.ToLower(err.Error()), strings.ToLower(tt.want)) {
				t.Errorf("error %v, want one about %q", err, tt.want)
			}
			if e.Type != Updated || e.Data.Revision != 0 {
				t.Error("the event was altered")
			}
		})
	}
	if err := new(Event).UnmarshalJSON([]byte(
		`{"id":"0-0-1","specversion":"1.0","type":"agent.updated","source":"/isdp/tenants/0",` +
			`"subject":"0",` +
			`"time":"2026-11-22T08:04:55.123Z","data":{"revision":1,` +
			`"since":"2026-11-22T08:04:55.123Z"}}`)); err == nil {
		t.Error("an event without an agent passes as one of agent 0")
	}
}

func TestEventUnmarshalAccepts(t *testing.T) {
	tests := []struct {
		name, old, new string
		want           func(*Event) // how the event then differs; nil: not at all
	}{
		{
			"fields of a later build",
			`"data":{`,
			`"traceparent":"00-1","later":{"a":[1]},"data":{"later":null,`,
			nil,
		},
		{"fields of a later build in a change", `{"field":`, `{"later":1,"field":`, nil},
		{
			"a reason of a later build",
			`"status"`,
			`"merged"`,
			func(e *Event) { e.Data.Reason = "merged" },
		},
		{
			"no changes",
			`,"changes":[{"field":"onlineStatus","from":0,"to":1}]`,
			``,
			func(e *Event) { e.Data.Changes = nil },
		},
		{
			"changes null",
			`[{"field":"onlineStatus","from":0,"to":1}]`,
			`null`,
			func(e *Event) { e.Data.Changes = nil },
		},
		{
			"another zone",
			`"time":"2026-11-22T08:04:55.123Z"`,
			`"time":"2026-11-22T16:04:55.123+08:00"`,
			nil,
		},
		{
			"more digits",
			`"time":"2026-11-22T08:04:55.123Z"`,
			`"time":"2026-11-22T08:04:55.123999999Z"`,
			nil,
		},
		{"fewer digits", `"time":"2026-11-22T08:04:55.123Z"`, `"time":"2026-11-22T08:04:55Z"`,
			func(e *Event) { e.Time = clock("2026-11-22T08:04:55Z") }},
		{
			"no notBefore",
			`"notBefore":"2026-11-22T08:04:50.101Z",`,
			``,
			func(e *Event) { e.Data.NotBefore = time.Time{} },
		},
		{
			"from null is not absent",
			`"from":0`,
			`"from":null`,
			func(e *Event) { e.Data.Changes[0].From = json.RawMessage(`null`) },
		},
		{
			"white space",
			`{"field":"onlineStatus","from":0,"to":1}`,
			" {\n\"field\" : \"onlineStatus\" , \"from\":\t0 , \"to\" : 1 } ",
			nil,
		},
		{
			"an agent's unusable fields are left out",
			`"onlineStatus":1}`,
			`"onlineStatus":1,"userId":"x"}`,
			nil,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var want, got Event
			if err := json.Unmarshal([]byte(sound), &want); err != nil {
				t.Fatal(err)
			}
			if tt.want != nil {
				tt.want(&want)
			}
			if err := json.Unmarshal([]byte(strings.Replace(sound, tt.old, tt.new, 1)),
				&got); err != nil {
				t.Fatal(err)
			}
			if g, w := string(got.AppendJSON(nil)), string(want.AppendJSON(nil)); g != w {
				t.Errorf("\n got: %s\nwant: %s", g, w)
			}
			if !got.Time.Equal(want.Time) || got.Time.Location() != time.UTC {
				t.Errorf("time %v, want %v", got.Time, want.Time)
			}
		})
	}
}

func TestEventTypeAndOnline(t *testing.T) {
	for _, tt := range []struct {
		typ    EventType
		online bool
		ok     bool
	}{
		{Online, true, true}, {Online, false, false},
		{Offline, false, true}, {Offline, true, false},
		{Updated, true, true}, {Updated, false, true},
	} {
		e := Event{
			Type: tt.typ,
			Time: read,
			Data: EventData{Revision: 1, Online: tt.online, Since: read, Agent: vendorAgent()},
		}
		var got Event
		if err := got.UnmarshalJSON(e.AppendJSON(nil)); (err == nil) != tt.ok {
			t.Errorf("%s with online %t: error %v", tt.typ, tt.online, err)
		}
	}
}

// The Marshal methods agree with AppendJSON where nothing has to be compacted or escaped.
func TestMarshalJSON(t *testing.T) {
	for name, b := range readGoldens(t, "") {
		if name == "event-undocumented" || name == "event-fields" || name == "event-strings" ||
			name == "watermark-before-any-complete-sweep" {
			continue
		}
		var v any
		switch kind, _, _ := strings.Cut(name, "-"); kind {
		case "event":
			v = new(Event)
		case "watermark":
			v = new(Watermark)
		case "health":
			v = new(Health)
		case "unobserved":
			v = new(Unobserved)
		}
		if err := json.Unmarshal(b, v); err != nil {
			t.Fatal(err)
		}
		if got, err := json.Marshal(v); err != nil || string(got) != string(b) {
			t.Errorf("%s: %v\n got: %s\nwant: %s", name, err, got, b)
		}
	}
}

func TestLastSweep(t *testing.T) {
	for _, tt := range []struct {
		w    Watermark
		want uint64
	}{
		{Watermark{}, 0},
		{Watermark{Sweep: 7}, 7},
		{Watermark{InProgress: &InProgress{Sweep: 1}}, 1},
		{Watermark{Sweep: 7, InProgress: &InProgress{Sweep: 9}}, 9},
		{Watermark{Sweep: 7, InProgress: &InProgress{Sweep: 3}}, 7},
	} {
		if got := tt.w.LastSweep(); got != tt.want {
			t.Errorf(
				"sweep %d, in progress %v: %d, want %d",
				tt.w.Sweep,
				tt.w.InProgress,
				got,
				tt.want,
			)
		}
	}
}

func TestWatermarkUnmarshal(t *testing.T) {
	var w Watermark
	err := json.Unmarshal(
		[]byte(
			`{"tenantId":9007199254740993,"sweep":18446744073709551615,"later":[1],`+
				`"inProgress":null}`,
		),
		&w,
	)
	if err != nil || w.TenantID != 9007199254740993 || w.Sweep != 18446744073709551615 ||
		!w.StartedAt.IsZero() ||
		w.InProgress != nil {
		t.Errorf("%+v, error %v", w, err)
	}
}

func TestFloorAndCeilTime(t *testing.T) {
	for _, tt := range []struct{ in, floor, ceil string }{
		{"2026-11-22T08:04:55.123Z", "2026-11-22T08:04:55.123Z", "2026-11-22T08:04:55.123Z"},
		{"2026-11-22T08:04:55.123000001Z", "2026-11-22T08:04:55.123Z", "2026-11-22T08:04:55.124Z"},
		{"2026-11-22T08:04:55.999999999Z", "2026-11-22T08:04:55.999Z", "2026-11-22T08:04:56Z"},
		{"2026-11-22T16:04:55.5005+08:00", "2026-11-22T08:04:55.5Z", "2026-11-22T08:04:55.501Z"},
		{"1969-12-31T23:59:59.9999Z", "1969-12-31T23:59:59.999Z", "1970-01-01T00:00:00Z"},
		{"0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"},
	} {
		if got := FloorTime(clock(tt.in)); !got.Equal(clock(tt.floor)) {
			t.Errorf("FloorTime(%s) = %v, want %s", tt.in, got, tt.floor)
		}
		if got := CeilTime(clock(tt.in)); !got.Equal(clock(tt.ceil)) {
			t.Errorf("CeilTime(%s) = %v, want %s", tt.in, got, tt.ceil)
		}
	}
	// Equal times compare equal with == once the monotonic reading is gone.
	if now := time.Now(); FloorTime(now) != FloorTime(now.Round(0)) ||
		CeilTime(now) != CeilTime(now.Round(0)) {
		t.Error("a monotonic reading is kept")
	}
}
