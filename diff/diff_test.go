package diff

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/schemas"
)

const tenant = 886

var start = time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)

// at is a time, in seconds after the start.
func at(seconds float64) time.Time {
	return start.Add(time.Duration(seconds * float64(time.Second)))
}

// agent is an offline agent of type 10 with the given alterations.
func agent(id int64, with ...func(*schemas.Agent)) schemas.Agent {
	a := schemas.Agent{AgentID: id, TenantID: tenant, Type: new("10"), AgentName: new("张伟")}
	for _, f := range with {
		f(&a)
	}
	return a
}

func on(a *schemas.Agent)      { a.OnlineStatus = 1 }
func deleted(a *schemas.Agent) { a.DeleteFlag = new(int64(1)) }

func status(n int64) func(*schemas.Agent) { return func(a *schemas.Agent) { a.OnlineStatus = n } }
func name(s string) func(*schemas.Agent)  { return func(a *schemas.Agent) { a.AgentName = &s } }
func kind(s string) func(*schemas.Agent)  { return func(a *schemas.Agent) { a.Type = &s } }
func signedIn(n int64) func(*schemas.Agent) {
	return func(a *schemas.Agent) { a.AgentSignInTime = &n }
}
func stray(name, value string) func(*schemas.Agent) {
	return func(a *schemas.Agent) {
		a.Other = append(a.Other, schemas.Field{Name: name, Value: json.RawMessage(value)})
	}
}

func fieldChange(field, from, to string) schemas.Change {
	c := schemas.Change{Field: field}
	if from != "" {
		c.From = json.RawMessage(from)
	}
	if to != "" {
		c.To = json.RawMessage(to)
	}
	return c
}

func TestEvent(t *testing.T) {
	// What was last published: revision 7, at 100 s, in that online state since 40 s.
	state := func(a schemas.Agent, removed bool) *State {
		return &State{Revision: 7, Online: a.Online() && !removed, Removed: removed, Time: at(100),
			Since: at(40), Agent: packed.Pack(&a)}
	}
	there := func(with ...func(*schemas.Agent)) *State { return state(agent(1, with...), false) }
	removed := func(with ...func(*schemas.Agent)) *State { return state(agent(1, with...), true) }
	// What is read: at 200 s, and not yet so at 190 s.
	read := func(a *schemas.Agent) *change {
		return &change{id: 1, agent: pack(a), sweep: 12, time: at(200),
			past: past{notBefore: at(190)}}
	}
	row := func(with ...func(*schemas.Agent)) *change { return read(new(agent(1, with...))) }
	baseline := func(o *change) *change {
		o.baseline, o.notBefore = true, time.Time{}
		return o
	}
	type event struct {
		Type          schemas.EventType
		Reason        schemas.Reason
		Online        bool
		Since         time.Time
		PreviousSince time.Time
		Agent         schemas.Agent
		Changes       []schemas.Change
	}
	offline := fieldChange("onlineStatus", "1", "0")
	online := fieldChange("onlineStatus", "0", "1")
	gone := fieldChange("deleteFlag", "", "1")
	back := fieldChange("deleteFlag", "1", "")

	for _, tc := range []struct {
		name string
		prev *State
		obs  *change
		want *event // nil: none
	}{
		{"baseline offline", nil, baseline(row()),
			&event{schemas.Updated, schemas.Baseline, false, at(200), time.Time{}, agent(1), nil}},
		{"baseline online", nil, baseline(row(on)),
			&event{schemas.Online, schemas.Baseline, true, at(200), time.Time{}, agent(1, on),
				nil}},
		{"appeared offline", nil, row(),
			&event{schemas.Updated, schemas.Appeared, false, at(200), time.Time{}, agent(1), nil}},
		{"appeared online", nil, row(on),
			&event{schemas.Online, schemas.Appeared, true, at(200), time.Time{}, agent(1, on),
				nil}},
		{"appeared with a status that is none", nil, row(status(7)),
			&event{schemas.Updated, schemas.Appeared, false, at(200), time.Time{},
				agent(1, status(7)), nil}},
		{"first seen deleted", nil, row(deleted), nil},
		{"first seen deleted and online", nil, baseline(row(deleted, on)), nil},
		{"never seen", nil, read(nil), nil},

		{"signed in", there(), row(on),
			&event{schemas.Online, schemas.Status, true, at(200), at(40), agent(1, on),
				[]schemas.Change{online}}},
		{"signed out", there(on), row(),
			&event{schemas.Offline, schemas.Status, false, at(200), at(40), agent(1),
				[]schemas.Change{offline}}},
		{"online to an unknown status", there(on), row(status(2)),
			&event{schemas.Offline, schemas.Status, false, at(200), at(40), agent(1, status(2)),
				[]schemas.Change{fieldChange("onlineStatus", "1", "2")}}},
		{"offline to an unknown status", there(), row(status(2)),
			&event{schemas.Updated, schemas.Fields, false, at(40), time.Time{}, agent(1, status(2)),
				[]schemas.Change{fieldChange("onlineStatus", "0", "2")}}},
		{"unknown status to online", there(status(-1)), row(on),
			&event{schemas.Online, schemas.Status, true, at(200), at(40), agent(1, on),
				[]schemas.Change{fieldChange("onlineStatus", "-1", "1")}}},
		{"signed out and edited", there(on), row(name("b")),
			&event{schemas.Offline, schemas.Status, false, at(200), at(40), agent(1, name("b")),
				[]schemas.Change{fieldChange("agentName", `"张伟"`, `"b"`), offline}}},
		{"edited while online", there(on), row(on, name("b")),
			&event{schemas.Updated, schemas.Fields, true, at(40), time.Time{},
				agent(1, on, name("b")),
				[]schemas.Change{fieldChange("agentName", `"张伟"`, `"b"`)}}},
		{"delete flag of no meaning", there(),
			row(func(a *schemas.Agent) { a.DeleteFlag = new(int64(0)) }),
			&event{schemas.Updated, schemas.Fields, false, at(40), time.Time{},
				agent(1, func(a *schemas.Agent) { a.DeleteFlag = new(int64(0)) }),
				[]schemas.Change{fieldChange("deleteFlag", "", "0")}}},
		{"nothing", there(on), row(on), nil},

		{"quiet alone", there(), row(signedIn(5)), nil},
		{"stray alone", there(), row(stray("x", "1")), nil},
		{"quiet, stray and significant, by name", there(stray("a", "1"), stray("m", "[1]")),
			row(name(""), signedIn(5), stray("m", "[ 1]"), stray("z", `""`)),
			&event{schemas.Updated, schemas.Fields, false, at(40), time.Time{},
				agent(1, name(""), signedIn(5), stray("m", "[ 1]"), stray("z", `""`)),
				[]schemas.Change{
					fieldChange("a", "1", ""), fieldChange("agentName", `"张伟"`, `""`),
					fieldChange("agentSignInTime", "", "5"), fieldChange("m", "[1]", "[ 1]"),
					fieldChange("z", "", `""`)}}},

		{"deleted while online", there(on), row(on, deleted),
			&event{schemas.Offline, schemas.Removed, false, at(200), at(40), agent(1, on, deleted),
				[]schemas.Change{gone}}},
		{"deleted while offline", there(), row(deleted),
			&event{schemas.Updated, schemas.Removed, false, at(40), time.Time{}, agent(1, deleted),
				[]schemas.Change{gone}}},
		{"deleted and signed out at once", there(on), row(deleted),
			&event{schemas.Offline, schemas.Removed, false, at(200), at(40), agent(1, deleted),
				[]schemas.Change{gone, offline}}},
		{"gone while online", there(on), read(nil),
			&event{schemas.Offline, schemas.Removed, false, at(200), at(40), agent(1, on), nil}},
		{"gone while offline", there(), read(nil),
			&event{schemas.Updated, schemas.Removed, false, at(40), time.Time{}, agent(1), nil}},
		{"removed, still gone", removed(), read(nil), nil},
		{"removed, still deleted, edited", removed(deleted), row(deleted, name("b"), on), nil},

		{"back online after absence, as it was", removed(on), row(on),
			&event{schemas.Online, schemas.Appeared, true, at(200), at(40), agent(1, on), nil}},
		{"back offline after absence, as it was", removed(on), row(),
			&event{schemas.Updated, schemas.Appeared, false, at(40), time.Time{}, agent(1),
				[]schemas.Change{offline}}},
		{"back online after deletion", removed(deleted), row(on),
			&event{schemas.Online, schemas.Appeared, true, at(200), at(40), agent(1, on),
				[]schemas.Change{back, online}}},
		{"back offline after deletion, quiet fields listed", removed(deleted), row(signedIn(9)),
			&event{schemas.Updated, schemas.Appeared, false, at(40), time.Time{},
				agent(1, signedIn(9)),
				[]schemas.Change{fieldChange("agentSignInTime", "", "9"), back}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := clone(tc.prev)
			got, ok := new(Rules).event(tc.prev, tc.obs)
			if ok != (tc.want != nil) {
				t.Fatalf("an event: %t, want %t: %+v", ok, tc.want != nil, got)
			}
			if d := cmp.Diff(before, tc.prev); d != "" {
				t.Errorf("the state was altered:\n%s", d)
			}
			if !ok {
				return
			}
			w := schemas.Event{Type: tc.want.Type, Time: at(200), Data: schemas.EventData{
				Revision: 1, Reason: tc.want.Reason, Sweep: 12, Online: tc.want.Online,
				NotBefore: tc.obs.notBefore,
				Since:     tc.want.Since, PreviousSince: tc.want.PreviousSince,
				Agent:   tc.want.Agent,
				Changes: tc.want.Changes,
			}}
			if tc.prev != nil {
				w.Data.Revision = 8
			}
			if d := cmp.Diff(w, got); d != "" {
				t.Errorf("event (-want +got):\n%s", d)
			}
			want := &State{Revision: w.Data.Revision, Online: w.Data.Online,
				Removed: w.Data.Reason == schemas.Removed,
				Time:    at(200), Since: w.Data.Since, Agent: packed.Pack(&w.Data.Agent)}
			if d := cmp.Diff(want, packed.StateOf(&got)); d != "" {
				t.Errorf("state (-want +got):\n%s", d)
			}
		})
	}
}

func clone(s *State) *State {
	if s == nil {
		return nil
	}
	c := *s
	return &c
}

func TestEventTimes(t *testing.T) {
	for _, tc := range []struct {
		name            string
		published       float64 // negative: nothing
		notBefore, read float64 // negative notBefore: nobody looked
		wantNB, want    float64
	}{
		{"whole", 10, 20, 30, 20, 30},
		{"rounded outwards", 10, 20.0019, 30.0011, 20.001, 30.002},
		{"within a millisecond", 10, 30.0011, 30.0012, 30.001, 30.002},
		{"the clock went back", 50, 20, 30, 20, 50},
		{"the last look is another clock's", 10, 40, 30, 30, 30},
		{"so are both", 35, 40, 30, 35, 35},
		{"first seen, the last look is another clock's", -1, 40, 30, 30, 30},
		{"nobody looked", -1, -1, 30, -1, 30},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var prev *State
			if tc.published >= 0 {
				prev = &State{Revision: 1, Time: at(tc.published), Since: at(5),
					Agent: packed.Pack(new(agent(1)))}
			}
			o := &change{id: 1, agent: packed.Pack(new(agent(1, on))), time: at(tc.read)}
			var want time.Time
			if tc.notBefore >= 0 {
				o.notBefore, want = at(tc.notBefore), at(tc.wantNB)
			}
			e, ok := new(Rules).event(prev, o)
			if !ok || !e.Time.Equal(at(tc.want)) || !e.Data.Since.Equal(at(tc.want)) ||
				!e.Data.NotBefore.Equal(want) {
				t.Errorf("%t, time %v, since %v, not before %v; want %v, %v", ok, e.Time,
					e.Data.Since, e.Data.NotBefore, at(tc.want), want)
			}
		})
	}
}

func TestQuiet(t *testing.T) {
	significant := []string{
		"userId", "agentCode", "agentAccount", "agentName", "type", "productType", "deliveryScene",
		"businessType", "areaName", "cityId",
		// deleteFlag and onlineStatus say more
		"isArea", "capacity", "createdBy", "createName", "creationTimestamp", "creationDate",
		"appName", "entityName",
	}
	quiet := []string{"lastUpdateTimestamp", "lastUpdateDate", "lastUpdatedBy", "lastUpdateName",
		"agentSignInTime", "agentSignInDate"}
	undocumented := []string{"x", "AgentName", ""}
	with := func(field string) schemas.Agent {
		b, err := json.Marshal(map[string]any{"agentId": 1, "onlineStatus": 0, field: 5})
		if err != nil {
			t.Fatal(err)
		}
		p, dropped, err := packed.Decode(b, tenant)
		if err != nil || dropped != 0 {
			t.Fatalf("%s: dropped %d, error %v", b, dropped, err)
		}
		return p.Unpack()
	}
	for _, tc := range []struct {
		name  string
		list  []string
		quiet func(string) bool
	}{
		{"default", nil, func(f string) bool { return !slices.Contains(significant, f) }},
		{"none", []string{}, func(string) bool { return false }},
		{"undocumented only", []string{"*"},
			func(f string) bool { return slices.Contains(undocumented, f) }},
		{"replaced", []string{"agentName", "x"},
			func(f string) bool { return f == "agentName" || f == "x" }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			rules := &Rules{Quiet: tc.list}
			bare := schemas.Agent{AgentID: 1, TenantID: tenant}
			for _, f := range slices.Concat(significant, quiet, undocumented) {
				a := with(f)
				for _, pair := range [][2]*schemas.Agent{{&bare, &a}, {&a, &bare}} {
					prev := &State{Revision: 1, Time: at(0), Since: at(0),
						Agent: packed.Pack(pair[0])}
					c := &change{id: 1, agent: packed.Pack(pair[1]), time: at(1)}
					if _, ok := rules.event(prev, c); ok == tc.quiet(f) {
						t.Errorf("%q: an event %t", f, ok)
					}
					r := NewRoster(*rules)
					load(r, map[int64]*State{1: prev}, nil)
					p := toldPage{Sweep: 1, Sent: at(1), Read: at(1),
						Agents: []packed.Agent{c.agent}}
					if got := observe(r, p); len(got) == 1 == tc.quiet(f) {
						t.Errorf("%q: observed %d", f, len(got))
					}
				}
			}
		})
	}
}

func TestFold(t *testing.T) {
	fold := func(changes ...change) *change {
		r := NewRoster(Rules{})
		for _, c := range changes {
			r.push([]change{c})
		}
		r.foldOldest(len(changes))
		if len(r.queue) != 1 {
			t.Fatalf("folded into %+v", r.queue)
		}
		return &r.queue[0].change
	}
	a, b, c := agent(1), agent(1, on), agent(1, on, name("c"))
	prev := &State{Revision: 3, Time: at(0), Since: at(0), Agent: packed.Pack(&a)}
	obs := func(a *schemas.Agent, notBefore, time float64) change {
		return change{id: 1, agent: pack(a), sweep: uint64(time), time: at(time),
			past: past{notBefore: at(notBefore)}}
	}
	for _, tc := range []struct {
		name string
		prev *State
		obs  []change
		want string // type and reason; "" for none
	}{
		{"there and back", prev, []change{obs(&b, 10, 20), obs(&a, 30, 40)}, ""},
		{"gone and back", prev, []change{obs(nil, 10, 20), obs(&a, 30, 40)}, ""},
		{"back, but for a quiet field", prev,
			[]change{obs(&b, 10, 20), obs(new(agent(1, signedIn(4))), 30, 40)}, ""},
		{"came and went", nil, []change{obs(&b, 10, 20), obs(nil, 30, 40)}, ""},
		{"signed in, then edited", prev, []change{obs(&b, 10, 20), obs(&c, 30, 40)},
			"agent.online status"},
		{"edited, signed out, deleted",
			&State{Revision: 3, Online: true, Time: at(0), Since: at(0), Agent: packed.Pack(&b)},
			[]change{obs(&c, 10, 15), obs(&a, 16, 20), obs(new(agent(1, deleted)), 30, 40)},
			"agent.offline removed"},
		{"signed out, removed, back",
			&State{Revision: 3, Online: true, Time: at(0), Since: at(0), Agent: packed.Pack(&b)},
			[]change{obs(&a, 10, 15), obs(nil, 16, 20), obs(&c, 30, 40)}, "agent.updated fields"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			last := fold(tc.obs...)
			if !last.notBefore.Equal(at(10)) || !last.time.Equal(at(40)) || last.sweep != 40 {
				t.Errorf("folded into %+v", last)
			}
			e, ok := new(Rules).event(tc.prev, last)
			got := ""
			if ok {
				got = string(e.Type) + " " + string(e.Data.Reason)
			}
			if got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
	second := fold(change{id: 1, agent: packed.Pack(&a), time: at(20), past: past{baseline: true}},
		change{id: 1, agent: packed.Pack(&b), time: at(40), past: past{notBefore: at(10)}})
	if e, ok := new(Rules).event(nil, second); !ok || e.Data.Reason != schemas.Baseline ||
		!e.Data.NotBefore.IsZero() {
		t.Errorf("first seen in the baseline: %t, %+v", ok, e.Data)
	}
}

// packed packs an agent; nil: none.
func pack(a *schemas.Agent) packed.Agent {
	if a == nil {
		return ""
	}
	return packed.Pack(a)
}
