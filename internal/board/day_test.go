package board

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/internal/test/natstest"
	"github.com/rollcall-events/rollcall/schemas"
)

// The last day comes from the stream: who was on duty by type and area, and what nobody knows.
func TestDay(t *testing.T) {
	url, _ := natstest.Start(t, t.TempDir())
	js, err := jetstream.New(natstest.Connect(t, url))
	if err != nil {
		t.Fatal(err)
	}
	_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: schemas.Stream,
		Subjects: []string{"agent.>"}})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Truncate(time.Millisecond)
	ago := func(hours float64) time.Time {
		return now.Add(-time.Duration(hours * float64(time.Hour)))
	}
	publish := func(subject string, body []byte) {
		if _, err := js.Publish(t.Context(), subject, body); err != nil {
			t.Fatal(err)
		}
	}
	agents := map[int64][]struct { // on and off in turn
		hours float64
		on    bool
	}{
		1: {{30, true}, {10, false}, {2, true}},
		2: {{30, false}, {5, true}, {5 - 1./60, false}, {4, true}},
	}
	long := "华东" + strings.Repeat("东", maxText)
	area := cut(long, maxText) // as rows have it
	types, areas := map[int64]string{1: "10", 2: "0"}, map[int64]*string{1: new(long), 2: nil}
	for id, states := range agents {
		for i, s := range states {
			kind, reason, rev := schemas.Offline, schemas.Status, uint64(i+1)
			if s.on {
				kind = schemas.Online
			}
			e := schemas.Event{Type: kind, Time: ago(s.hours), Data: schemas.EventData{
				Revision: rev, Sweep: rev, Online: s.on, Since: ago(s.hours), Reason: reason,
				NotBefore: ago(s.hours).Add(-time.Second),
				Agent: schemas.Agent{AgentID: id, TenantID: tenant, Type: new(types[id]),
					AreaName: areas[id]}}}
			if s.on {
				e.Data.Agent.OnlineStatus = 1
			}
			if i == 0 {
				e.Data.Reason, e.Data.NotBefore = schemas.Baseline, time.Time{}
				if !s.on {
					e.Type = schemas.Updated
				}
			} else {
				e.Data.PreviousSince = ago(states[i-1].hours)
				e.Data.Changes = []schemas.Change{{Field: "onlineStatus",
					From: json.RawMessage{"10"[e.Data.Agent.OnlineStatus]},
					To:   json.RawMessage{"01"[e.Data.Agent.OnlineStatus]}}}
			}
			publish(e.Subject(), e.AppendJSON(nil))
			publish(schemas.StateSubject(tenant, id), e.AppendJSON(nil))
		}
	}
	u := schemas.Unobserved{TenantID: tenant, Sweep: 6, From: ago(8), To: ago(7)}
	publish(schemas.UnobservedSubject(tenant), u.AppendJSON(nil))
	w := schemas.Watermark{TenantID: tenant, Sweep: 7, StartedAt: now, CompletedAt: now,
		StaleAfter: now.Add(time.Hour), NextBy: now.Add(time.Hour), Agents: 2}
	publish(schemas.WatermarkSubject(tenant), w.AppendJSON(nil))

	srv := serve(t, New(Config{Tenant: tenant, JetStream: js, Instance: "one"}))
	get := func(path string, answer any) {
		t.Helper()
		r, err := http.Get(srv + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		if err != nil || r.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s %s %v", path, r.Status, body, err)
		}
		if err := json.Unmarshal(body, answer); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}

	var d day
	get("/day", &d)
	end := d.From + int64(d.Points-1)*d.Step
	if from := ago(24).UnixMilli(); d.From < from || d.From > from+2*d.Step ||
		end > time.Now().UnixMilli() || end < now.UnixMilli()-d.Step {
		t.Errorf("points from %d to %d, every %d", d.From, end, d.Step)
	}
	on := func(k kind, hours float64) (n int) {
		at := int((ago(hours).UnixMilli() - d.From) / d.Step) // the point just before that
		for _, s := range d.On {
			for _, c := range s.Changes {
				if s.kind == k && c[0] <= at {
					n += c[1]
				}
			}
		}
		return n
	}
	for _, c := range []struct {
		kind
		hours float64
		want  int
	}{
		{kind{"10", area}, 23.9, 1}, {kind{"10", area}, 10.1, 1}, {kind{"10", area}, 9.8, 0},
		{kind{"10", area}, 2.2, 0}, {kind{"10", area}, 1.8, 1}, {kind{"10", area}, 0, 1},
		{kind{"0", ""}, 23.9, 0}, {kind{"0", ""}, 4.5, 0}, {kind{"0", ""}, 3.8, 1},
		{kind{"0", ""}, 0, 1},
	} {
		if got := on(c.kind, c.hours); got != c.want {
			t.Errorf("%v were on duty %g hours ago: %d, want %d", c.kind, c.hours, got, c.want)
		}
	}
	if diff := cmp.Diff([]span{
		{"0", ago(8).UnixMilli(), ago(7).UnixMilli()},
		{"10", ago(8).UnixMilli(), ago(7).UnixMilli()},
	}, d.Unknown); diff != "" {
		t.Errorf("what nobody knows:\n%s", diff)
	}

	type interval struct {
		From, To int64
		State    string
	}
	var of struct {
		From, To  int64
		Intervals []interval
	}
	get("/agents/1/day", &of)
	if diff := cmp.Diff([]interval{
		{of.From, ago(10).UnixMilli(), "on"}, {ago(10).UnixMilli(), ago(8).UnixMilli(), "off"},
		{ago(8).UnixMilli(), ago(7).UnixMilli(), "unknown"},
		{ago(7).UnixMilli(), ago(2).UnixMilli(), "off"}, {ago(2).UnixMilli(), of.To, "on"},
	}, of.Intervals); diff != "" {
		t.Errorf("agent 1:\n%s", diff)
	}
	get("/agents/3/day", &of)
	if len(of.Intervals) != 0 {
		t.Errorf("an agent that nobody knows: %v", of.Intervals)
	}

	// The day of all is read once for a while.
	publish(schemas.WatermarkSubject(tenant), w.AppendJSON(nil))
	if err := js.DeleteStream(t.Context(), schemas.Stream); err != nil {
		t.Fatal(err)
	}
	var again day
	get("/day", &again)
	if diff := cmp.Diff(d, again, cmp.AllowUnexported(series{})); diff != "" {
		t.Errorf("read anew:\n%s", diff)
	}
	r, err := http.Get(srv + "/agents/1/day")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("without a stream: %s", r.Status)
	}
}

// serve serves a board that follows nothing.
func serve(t *testing.T, b *Board) (url string) {
	srv := httptest.NewServer(b)
	t.Cleanup(srv.Close)
	return srv.URL
}
