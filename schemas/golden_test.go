package schemas

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool(
	"update",
	false,
	"write the goldens that don't exist yet, and what is new of the schemas; what is there is "+
		"kept for ever",
)

const goldenDir = "testdata/v1"

// wire is what all messages on the wire can do.
type wire interface {
	AppendJSON([]byte) []byte
	json.Unmarshaler
}

// plain gives the messages that encoding/json decodes by itself an UnmarshalJSON.
type plain[T any] struct {
	v   *T
	enc func(*T, []byte) []byte
}

func (p plain[T]) AppendJSON(b []byte) []byte   { return p.enc(p.v, b) }
func (p plain[T]) UnmarshalJSON(b []byte) error { return json.Unmarshal(b, p.v) }

func watermark(w Watermark) wire { return plain[Watermark]{&w, (*Watermark).AppendJSON} }
func health(h Health) wire       { return plain[Health]{&h, (*Health).AppendJSON} }

func unobserved(u Unobserved) wire {
	return plain[Unobserved]{&u, (*Unobserved).AppendJSON}
}

// empty returns an empty message of the kind that the golden's name begins with.
func empty(t *testing.T, golden string) wire {
	t.Helper()
	switch kind, _, _ := strings.Cut(golden, "-"); kind {
	case "event":
		return new(Event)
	case "watermark":
		return watermark(Watermark{})
	case "health":
		return health(Health{})
	case "unobserved":
		return unobserved(Unobserved{})
	default:
		t.Fatalf("golden %s is of no kind", golden)
		return nil
	}
}

func clock(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		panic(err)
	}
	return t
}

// vendorAgent is an agent with every field that was documented when version 1 began, as in the
// vendor's example. A new field does not go here, since goldens never change: write a new golden.
func vendorAgent() Agent {
	return Agent{
		AgentID: 17813, TenantID: 886, OnlineStatus: 1,
		UserID:              new(int64(90210)),
		AgentCode:           new("1f0c7a52-6c1e-4f0b-9a5e-0d8a4f2b7c11"),
		AgentAccount:        new("zhangwei01"),
		AgentName:           new("张伟"),
		Type:                new("10"),
		ProductType:         new("Wireless"),
		DeliveryScene:       new("站点勘测"),
		BusinessType:        new("FTTx"),
		AreaName:            new("深圳"),
		CityID:              new(""),
		IsArea:              new(int64(1)),
		Capacity:            new(int64(3)),
		DeleteFlag:          new(int64(0)),
		AgentSignInTime:     new(int64(1795334695000)),
		AgentSignInDate:     new(int64(1795305600000)),
		CreatedBy:           new(int64(1001)),
		LastUpdatedBy:       new(int64(1002)),
		CreateName:          new("李娜"),
		LastUpdateName:      new("王芳"),
		CreationTimestamp:   new(int64(1616486694000)),
		LastUpdateTimestamp: new(int64(1795334695000)),
		CreationDate:        new("2021-03-23T08:04:54.000+00:00"),
		LastUpdateDate:      new("2026-11-22T08:04:54.000+00:00"),
		AppName:             new("isdp"),
		EntityName:          new("OpenAgent"),
	}
}

// with returns the vendor's agent, changed.
func with(change func(*Agent)) Agent {
	a := vendorAgent()
	change(&a)
	return a
}

func offlineAgent() Agent { return with(func(a *Agent) { a.OnlineStatus = 0 }) }
func deletedAgent() Agent { return with(func(a *Agent) { a.DeleteFlag = new(int64(1)) }) }

// strange is what the vendor documents nowhere, sorted by name.
func strange() []Field {
	return []Field{
		{"", json.RawMessage(`"a field without a name"`)},
		{"\"quoted\"\n", json.RawMessage(`-0.0E+00`)},
		{"AgentId", json.RawMessage(`"17813"`)},
		{"big", json.RawMessage(`123456789012345678901234567890`)},
		{"escapes", json.RawMessage(`"\u5f20\u4f1f \/ \ud83d\ude00 \ud800 \t \b"`)},
		{"exponent", json.RawMessage(`1e5`)},
		{"false", json.RawMessage(`false`)},
		{"html", json.RawMessage(`"<a href='x'>&amp;</a>"`)},
		{"line", json.RawMessage("\"a\u2028b\u2029c\"")},
		{"list", json.RawMessage("[ 1,\t2 ,\r\n  {\"b\" : 1.0, \"a\":[]} ]")},
		{"null", json.RawMessage(`null`)},
		{"one", json.RawMessage(`1.0`)},
		{"precise", json.RawMessage(`9007199254740993`)},
		{"twice", json.RawMessage(`{"k":1,"k":2}`)},
		{"字段", json.RawMessage(`"值"`)},
	}
}

var (
	read   = clock("2026-11-22T08:04:55.123Z")
	asked  = clock("2026-11-22T08:04:50.101Z")
	before = clock("2026-11-21T17:30:02.007Z")
)

// goldens are the messages whose encodings are kept. Each has its file; names begin with the kind.
var goldens = map[string]func() wire{
	"event-baseline-online": func() wire {
		return &Event{Type: Online, Time: read, Data: EventData{
			Revision: 1, Reason: Baseline, Sweep: 1, Online: true, Since: read,
			Agent: vendorAgent()}}
	},
	"event-baseline-not-online": func() wire {
		return &Event{Type: Updated, Time: read, Data: EventData{
			Revision: 1, Reason: Baseline, Sweep: 1, Since: read, Agent: offlineAgent()}}
	},
	"event-appeared-online": func() wire {
		return &Event{Type: Online, Time: read, Data: EventData{
			Revision: 1, Reason: Appeared, Sweep: 1807, Online: true, NotBefore: asked, Since: read,
			Agent: vendorAgent()}}
	},
	"event-appeared-not-online": func() wire {
		return &Event{Type: Updated, Time: read, Data: EventData{
			Revision: 1, Reason: Appeared, Sweep: 1807, NotBefore: asked, Since: read,
			Agent: offlineAgent()}}
	},
	"event-status-online": func() wire {
		from := with(func(a *Agent) {
			a.OnlineStatus, a.LastUpdateTimestamp = 0, new(int64(1795248295000))
			a.AgentSignInTime, a.AgentSignInDate = nil, nil
		})
		to := vendorAgent()
		return &Event{Type: Online, Time: read, Data: EventData{
			Revision: 42, Reason: Status, Sweep: 1807, Online: true,
			NotBefore: asked, Since: read, PreviousSince: before, Agent: to,
			Changes: Changes(&from, &to)}}
	},
	"event-contract": func() wire {
		from := with(func(a *Agent) { a.OnlineStatus, a.ProductType = 0, nil })
		to := vendorAgent()
		return &Event{Type: Online, Time: read, Data: EventData{
			Revision: 42, Reason: Status, Sweep: 1807, Online: true,
			NotBefore: asked, Since: read, PreviousSince: before, Agent: to,
			Changes: Changes(&from, &to)}}
	},
	"event-status-offline": func() wire {
		from, to := vendorAgent(), offlineAgent()
		return &Event{Type: Offline, Time: read, Data: EventData{
			Revision: 43, Reason: Status, Sweep: 1808,
			NotBefore: asked, Since: read, PreviousSince: before, Agent: to,
			Changes: Changes(&from, &to)}}
	},
	"event-fields": func() wire {
		from := with(func(a *Agent) {
			a.Other = []Field{
				{"gone", json.RawMessage(`{ "x": 1 }`)},
				{"mood", json.RawMessage(`null`)},
			}
		})
		to := with(func(a *Agent) {
			a.AgentName, a.CityID, a.Capacity = new(`张"伟"`), nil, new(int64(-9223372036854775808))
			a.AreaName = new("")
			a.Other = []Field{
				{"mood", json.RawMessage(`"<good> & 好"`)},
				{"new", json.RawMessage(`1.0`)},
			}
		})
		return &Event{Type: Updated, Time: read, Data: EventData{
			Revision: 44, Reason: Fields, Sweep: 1809, Online: true,
			NotBefore: asked, Since: before, Agent: to, Changes: Changes(&from, &to)}}
	},
	"event-fields-not-online": func() wire {
		from := with(func(a *Agent) { a.OnlineStatus, a.Type = 0, new("0") })
		to := offlineAgent()
		return &Event{Type: Updated, Time: read, Data: EventData{
			Revision: 44, Reason: Fields, Sweep: 1809,
			NotBefore: asked, Since: before, Agent: to, Changes: Changes(&from, &to)}}
	},
	"event-removed-absent": func() wire {
		return &Event{Type: Offline, Time: read, Data: EventData{
			Revision: 45, Reason: Removed, Sweep: 1811, NotBefore: asked, Since: read,
			PreviousSince: before, Agent: vendorAgent()}}
	},
	"event-removed-absent-not-online": func() wire {
		return &Event{Type: Updated, Time: read, Data: EventData{
			Revision: 45, Reason: Removed, Sweep: 1811, NotBefore: asked, Since: before,
			Agent: offlineAgent()}}
	},
	"event-removed-deleted": func() wire {
		from, to := vendorAgent(), deletedAgent()
		return &Event{Type: Offline, Time: read, Data: EventData{
			Revision: 45, Reason: Removed, Sweep: 1811,
			NotBefore: asked, Since: read, PreviousSince: before, Agent: to,
			Changes: Changes(&from, &to)}}
	},
	"event-removed-deleted-not-online": func() wire {
		from := offlineAgent()
		to := with(func(a *Agent) { a.OnlineStatus, a.DeleteFlag = 0, new(int64(1)) })
		return &Event{Type: Updated, Time: read, Data: EventData{
			Revision: 45, Reason: Removed, Sweep: 1811, NotBefore: asked, Since: before, Agent: to,
			Changes: Changes(&from, &to)}}
	},
	"event-return-online": func() wire {
		from, to := deletedAgent(), vendorAgent()
		return &Event{Type: Online, Time: read, Data: EventData{
			Revision: 46, Reason: Appeared, Sweep: 1900, Online: true,
			NotBefore: asked, Since: read, PreviousSince: before, Agent: to,
			Changes: Changes(&from, &to)}}
	},
	"event-return-not-online": func() wire {
		return &Event{Type: Updated, Time: read, Data: EventData{
			Revision: 46, Reason: Appeared, Sweep: 1900, NotBefore: asked, Since: before,
			Agent: offlineAgent()}}
	},
	"event-undocumented": func() wire {
		from := vendorAgent()
		to := with(func(a *Agent) { a.AreaName, a.Other = new("东莞"), strange() })
		return &Event{Type: Updated, Time: read, Data: EventData{
			Revision: 2, Reason: Fields, Sweep: 1807, Online: true,
			NotBefore: asked, Since: before, Agent: to, Changes: Changes(&from, &to)}}
	},
	"event-changes-truncated": func() wire {
		from := with(func(a *Agent) { a.OnlineStatus = 0 })
		to := with(func(a *Agent) { a.Other = []Field{{"note", json.RawMessage(`"…"`)}} })
		e := &Event{Type: Online, Time: read, Data: EventData{
			Revision: 3, Reason: Status, Sweep: 1807, Online: true,
			NotBefore: asked, Since: read, PreviousSince: before, Agent: to,
			Changes: Changes(&from, &to)}}
		e.Data.TruncateChanges()
		return e
	},
	"event-strings": func() wire {
		a := vendorAgent()
		a.Type = new("no token")
		a.AgentName = new("<a>&'</a> \u2028\u2029\u007f 😀")
		a.AgentAccount = new("\"\\/ \u2028 <&> \b\f\n\r\t\x00\x1f\u2029")
		a.AreaName = new("")
		return &Event{Type: Online, Time: read, Data: EventData{
			Revision: 1, Reason: Baseline, Sweep: 1, Online: true, Since: read, Agent: a}}
	},
	"event-large-ids": func() wire {
		from := Agent{AgentID: 9223372036854775807, TenantID: 9007199254740993}
		to := from
		to.OnlineStatus, to.UserID = 1, new(int64(-9223372036854775808))
		return &Event{Type: Online, Time: read, Data: EventData{
			Revision: 18446744073709551615, Reason: Status, Sweep: 9007199254740993, Online: true,
			NotBefore: asked, Since: read, PreviousSince: before, Agent: to,
			Changes: Changes(&from, &to)}}
	},
	"event-least": func() wire {
		return &Event{Type: Updated, Time: clock("2026-11-22T09:04:55+01:00"), Data: EventData{
			Revision: 1, Reason: Baseline, Sweep: 1, Since: clock("2026-11-22T08:04:55.0009999Z"),
			Agent: Agent{AgentID: 1, TenantID: 1}}}
	},

	"watermark": func() wire {
		return watermark(Watermark{
			TenantID: 886, Sweep: 1807, StartedAt: asked, CompletedAt: read,
			StaleAfter: clock("2026-11-22T08:05:10.123Z"),
			Agents:     340, Online: 52, Instance: "host-1",
			Commit: Commit{ID: "9fK2", Messages: 21}})
	},
	"watermark-polled": func() wire {
		return watermark(Watermark{
			TenantID: 886, Sweep: 1807, Polled: []string{"0", "10"}, StartedAt: asked,
			CompletedAt: read,
			StaleAfter: clock(
				"2026-11-22T08:05:10.123Z",
			), Agents: 340, Online: 52, Instance: "host-1",
			Commit: Commit{ID: "9fK4", Messages: 1}})
	},
	"watermark-glanced": func() wire {
		return watermark(Watermark{
			TenantID: 886, Sweep: 1807, GlancedAt: clock("2026-11-22T08:05:03.500Z"),
			StartedAt: asked, CompletedAt: read, StaleAfter: clock("2026-11-22T08:07:10.123Z"),
			NextBy: clock("2026-11-22T08:05:20.000Z"), Agents: 340, Online: 52, Instance: "host-1",
			Commit: Commit{ID: "9fK5", Messages: 1}, InProgress: &InProgress{Sweep: 1808},
		})
	},
	"watermark-types": func() wire {
		return watermark(Watermark{
			TenantID: 886, Sweep: 1807, Polled: []string{"0", "10"},
			Types: map[string]TypeCounts{
				"10": {Agents: 120, Online: 31, Capacity: 64},
				"0":  {Agents: 219, Online: 21}, "_": {Agents: 1},
			},
			StartedAt: asked, CompletedAt: read, StaleAfter: clock("2026-11-22T08:05:10.123Z"),
			NextBy: clock("2026-11-22T08:05:10.123Z"), Agents: 340, Online: 52, Instance: "host-1",
			Commit: Commit{ID: "9fK6", Messages: 1}})
	},
	"watermark-in-progress": func() wire {
		return watermark(Watermark{
			TenantID: 886, Sweep: 1807, StartedAt: asked, CompletedAt: read,
			StaleAfter: clock("2026-11-22T08:05:10.123Z"),
			Agents:     341, Online: 53, Missing: 2, Rejected: 1, Instance: "host-1",
			Commit:     Commit{ID: "9fK3", Messages: 3},
			InProgress: &InProgress{Sweep: 1808}})
	},
	"watermark-before-any-complete-sweep": func() wire {
		return watermark(Watermark{
			TenantID: 9007199254740993, Agents: 50, Online: 7, Instance: "主机<1>",
			Commit:     Commit{ID: "9fK1", Messages: 101},
			InProgress: &InProgress{Sweep: 1}})
	},

	"health-ok": func() wire { return health(Health{TenantID: 886, State: HealthOK, Since: read}) },
	"health-failing": func() wire {
		return health(Health{TenantID: 886, State: HealthFailing, Since: read, Reason: Unreachable,
			Detail: `page 3: Post "https://isdp.example/openapi/v1/openTask/findOnlineAgent": ` +
				`context deadline exceeded`})
	},
	"unobserved": func() wire {
		return unobserved(Unobserved{TenantID: 886, From: asked, To: read, Sweep: 1807})
	},
	"unobserved-health": func() wire {
		return unobserved(Unobserved{TenantID: 886, From: asked, To: read, Sweep: 1807,
			Health: Unreachable})
	},
	"unobserved-types": func() wire {
		return unobserved(Unobserved{TenantID: 886, From: asked, To: read, Sweep: 1807,
			Types: []string{"2"}})
	},

	"health-holding": func() wire {
		return health(
			Health{
				TenantID: 886,
				State:    HealthHolding,
				Since:    read,
				Reason:   MissingMany,
				Detail:   "201 of 340 agents are missing",
			},
		)
	},
}

func goldenPath(name string) string { return filepath.Join(goldenDir, name+".json") }

func TestGoldensEncode(t *testing.T) {
	for name, message := range goldens {
		t.Run(name, func(t *testing.T) {
			got := message().AppendJSON(nil)
			if *update {
				createGolden(t, goldenPath(name), got)
			}
			want, err := os.ReadFile(goldenPath(name))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("version 1 is changed\n got: %s\nwant: %s", got, want)
			}
			if !json.Valid(got) {
				t.Errorf("no valid JSON: %s", got)
			}
			// Appending leaves alone what is there.
			if got := message().AppendJSON([]byte("{")); string(got) != "{"+string(want) {
				t.Errorf("appended to {: %s", got)
			}
		})
	}
}

// createGolden never replaces a file.
func createGolden(t *testing.T, path string, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestGoldensDecode(t *testing.T) {
	files := readGoldens(t, "")
	for name, b := range files {
		t.Run(name, func(t *testing.T) {
			if _, ok := goldens[name]; !ok {
				t.Error(
					"no message encodes to this golden: whatever version 1 said must go on being " +
						"tested",
				)
			}
			m := empty(t, name)
			if err := m.UnmarshalJSON(b); err != nil {
				t.Fatal(err)
			}
			if got := m.AppendJSON(nil); !bytes.Equal(got, b) {
				t.Errorf("decoded and encoded again\n got: %s\nwant: %s", got, b)
			}
		})
	}
	if len(files) < len(goldens) {
		t.Errorf("%d goldens for %d messages", len(files), len(goldens))
	}
}

// readGoldens returns the goldens of one kind by name.
func readGoldens(t testing.TB, kind string) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob(goldenPath(kind + "*"))
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string][]byte)
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimSuffix(filepath.Base(p), ".json")] = b
	}
	if len(files) == 0 {
		t.Fatalf("no goldens in %s", goldenDir)
	}
	return files
}

// The contract's rules that hold for each event by itself.
func TestGoldenEventsFollowTheContract(t *testing.T) {
	for name, b := range readGoldens(t, "event-") {
		t.Run(name, func(t *testing.T) {
			var e Event
			if err := e.UnmarshalJSON(b); err != nil {
				t.Fatal(err)
			}
			d := &e.Data
			if there := d.Reason != Removed; d.Online != (there && d.Agent.Online()) {
				t.Errorf(
					"online is %t with reason %s, onlineStatus %d",
					d.Online,
					d.Reason,
					d.Agent.OnlineStatus,
				)
			}
			if d.Revision == 1 && len(d.Changes) > 0 {
				t.Error("changes at revision 1")
			}
			if ends := e.Type != Updated; ends != d.Since.Equal(e.Time) && d.Revision > 1 {
				t.Errorf("%s with since %v, time %v", e.Type, d.Since, e.Time)
			}
			if ended := e.Type != Updated && d.Revision > 1; ended == d.PreviousSince.IsZero() {
				t.Errorf(
					"%s at revision %d with previousSince %v",
					e.Type,
					d.Revision,
					d.PreviousSince,
				)
			}
			prev, err := Revert(&d.Agent, d.Changes)
			if err != nil {
				t.Fatal(err)
			}
			if d.Reason == Status && prev.Online() == d.Agent.Online() {
				t.Error("the changes of a status event don't change it")
			}
		})
	}
}
