package checker

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
	"github.com/rollcall-events/rollcall/schemas"
)

func mustPass(t *testing.T, stream Stream, truth Truth, opt Options) *Report {
	t.Helper()
	r := Check(stream, truth, opt)
	if err := r.Err(); err != nil {
		t.Error(err)
	}
	return r
}

func mustReport(t *testing.T, want Rule, stream Stream, truth Truth, opt Options) {
	t.Helper()
	r := Check(stream, truth, opt)
	if !slices.ContainsFunc(r.Violations, func(v Violation) bool { return v.Rule == want }) {
		t.Errorf("no breach of %s was reported: %v", want, r.Err())
	}
}

// What the pages showed counts, not what was true; and the truth again where it lasts.
func TestLyingPages(t *testing.T) {
	w := newWorld(t, 7)
	w.doSweep(nil)
	id := w.sim.IDs()[1]
	_, listed := w.sim.Agent(id)
	if !listed {
		t.Fatal("not listed")
	}
	lie := func(page int, rows []isdpsim.Row) []isdpsim.Row {
		for i, r := range rows {
			if r.ID == id {
				row, err := isdpsim.Patch(r.JSON,
					isdpsim.Fields{"onlineStatus": "1", "areaName": `"nowhere"`})
				if err != nil {
					t.Fatal(err)
				}
				rows[i].JSON = row
			}
		}
		return rows
	}
	w.pass(time.Second)
	w.doSweep(lie)
	w.pass(time.Second)
	w.doSweep(nil)
	w.pass(time.Second)
	w.doSweep(nil)
	stream := Stream{Live: w.live, Stored: stored(w.live)}
	mustPass(t, stream, w.truth(), strict())
}

// Rows that can't be used leave their agent as it is, and a nameless one suspends removals.
func TestRejectedRows(t *testing.T) {
	w := newWorld(t, 7)
	step := func(do func()) {
		w.pass(400 * time.Millisecond)
		do()
		w.pass(400 * time.Millisecond)
		w.doSweep(nil)
	}
	w.doSweep(nil)
	ids := w.sim.IDs()
	step(func() { w.sim.Edit(ids[0], isdpsim.Fields{"onlineStatus": "null"}) })
	step(func() { w.sim.Edit(ids[1], isdpsim.Fields{"tenantId": "5"}) })
	step(func() { w.sim.Add(json.RawMessage(`{"agentId": "who", "onlineStatus": 1}`)) })
	step(func() { w.sim.Remove(ids[2]) })
	for range 4 {
		step(func() {})
	}
	stream := Stream{Live: w.live, Stored: stored(w.live)}
	if r := mustPass(t, stream, w.truth(), strict()); r.Stats.Removals != 0 {
		t.Errorf("%d removals", r.Stats.Removals)
	}
}

// A state that nobody could see during an outage need not be in the stream, and must be where there
// was none.
func TestOutage(t *testing.T) {
	w := newWorld(t, 7)
	w.doSweep(nil)
	id := w.sim.IDs()[0]
	from := w.now
	w.pass(time.Second)
	w.sim.Edit(id, isdpsim.Fields{"areaName": `"for two seconds"`})
	w.pass(2 * time.Second)
	w.sim.Edit(id, isdpsim.Fields{"areaName": `"for good"`})
	w.pass(time.Second)
	out := Interval{from, w.now}
	for range 6 {
		w.doSweep(nil)
		w.pass(100 * time.Millisecond)
	}
	stream := Stream{Live: w.live, Stored: stored(w.live)}
	mustReport(t, RuleLasted, stream, w.truth(), strict())
	opt := strict()
	opt.Outages = []Interval{out}
	mustPass(t, stream, w.truth(), opt)
}

// The broker forgets the end of the stream, and rollcall goes on above it, or does not know.
func TestRollback(t *testing.T) {
	for _, remembers := range []bool{true, false} {
		w := newWorld(t, 7)
		w.doSweep(nil)
		id := w.sim.IDs()[0]
		change := func(area string) {
			w.pass(100 * time.Millisecond)
			w.sim.Edit(id, isdpsim.Fields{"areaName": area})
			w.doSweep(nil)
		}
		change(`"one"`)
		kept := len(w.live)
		was, done := *w.roster[id], w.done
		change(`"two"`)
		change(`"three"`)
		lost := slices.Clone(w.live[kept:])
		from := was.last.Time

		w.live = w.live[:kept]
		rev := w.roster[id].last.Data.Revision
		w.roster[id], w.done = &was, done
		if remembers {
			was.last.Data.Revision = rev
		}
		to := w.now
		change(`"four"`)
		for range 6 {
			w.pass(200 * time.Millisecond)
			w.doSweep(nil)
		}
		stream := Stream{Live: slices.Concat(w.live[:kept], lost, w.live[kept:]),
			Stored: stored(w.live)}
		opt := strict()
		opt.Outages = []Interval{{from, to}}
		mustReport(t, RuleStream, stream, w.truth(), opt)
		opt.Rollback = Remembered
		if remembers {
			if r := mustPass(t, stream, w.truth(), opt); r.Stats.Lost != len(lost) {
				t.Errorf("%d messages lost, want %d", r.Stats.Lost, len(lost))
			}
		} else {
			mustReport(t, RuleRevision, stream, w.truth(), opt)
		}
		opt.Rollback = Forgotten
		mustPass(t, stream, w.truth(), opt)
		mustPass(t, Stream{Stored: stored(w.live)}, w.truth(), opt)
	}
}

// The broker forgets only the end of a commit, its watermark; who goes on does not know, and a
// recording with holes has missed what stands there now.
func TestForgottenWatermark(t *testing.T) {
	w := newWorld(t, 7)
	w.doSweep(nil)
	change := func(agent int, area string) {
		w.pass(100 * time.Millisecond)
		w.sim.Edit(w.sim.IDs()[agent], isdpsim.Fields{"areaName": area})
		w.doSweep(nil)
	}
	change(0, `"one"`)
	done, from := w.done, w.now
	state := w.live[len(w.live)-3]
	w.ail("")
	w.doSweep(nil)
	at := len(w.live) - 1
	lost := w.live[at]
	w.live, w.done = w.live[:at], done
	w.sweep-- // whose watermark is lost
	to := w.now
	change(1, `"three"`)
	s := &specimen{t: t, live: w.live, store: stored, truth: w.truth(), opt: strict()}
	state.Header = maps.Clone(state.Header)
	state.Header["Nats-Batch-Id"] = s.live[at].Header["Nats-Batch-Id"]
	state.Time = s.live[at].Time
	s.live = slices.Insert(s.live, at, state) // made whole again
	s.renumber()
	w.live = s.live
	for range 3 {
		change(0, `"four"`)
		change(0, `"five"`)
	}
	stream := Stream{Stored: stored(w.live),
		Live: slices.Concat(w.live[:at], []Message{lost}, w.live[at+1:])}
	s.opt.Outages = []Interval{{from, to}}
	s.opt.Rollback, s.opt.Torn, s.opt.LossyLive = Forgotten, true, true
	mustPass(t, stream, w.truth(), s.opt)
}

// A store that ran full cuts a commit off; the next one brings the states that lack.
func TestTornCommit(t *testing.T) {
	w := lived(t)
	s := &specimen{t: t, live: slices.Clone(w.live), store: stored, truth: w.truth(),
		opt: strict()}
	from, to := s.commitOf(s.find("updated", "fields", 2, 0))
	state := s.live[from+1]
	repair := 0
	for i := to; repair == 0; i++ {
		if s.live[i].isEvent() {
			repair = i + 1
		}
	}
	state.Header = maps.Clone(state.Header)
	state.Header["Nats-Batch-Id"] = s.live[repair].Header["Nats-Batch-Id"]
	s.live = slices.Insert(s.live, repair, state)
	s.live = slices.Delete(s.live, from+1, to)
	s.renumber()
	stream := Stream{Live: s.live, Stored: stored(s.live)}
	mustReport(t, RuleCommit, stream, s.truth, s.opt)
	s.opt.Torn = true
	mustPass(t, stream, s.truth, s.opt)
}

// Every complete sweep ends with a watermark of its own, before any change of the next one.
func TestCompletionStatedByTheNextCommit(t *testing.T) {
	w := lived(t)
	s := &specimen{t: t, live: slices.Clone(w.live), store: stored, truth: w.truth(),
		opt: strict()}
	_, to := s.commitOf(s.find("updated", "fields", 2, 0))
	s.without(to, to+1) // the plain watermark; the next commit repeats its figures
	mustReport(t, RuleWatermark, Stream{Live: s.live, Stored: stored(s.live)}, s.truth, s.opt)
}

// An event leaves the stream when its time is over.
func TestExpiry(t *testing.T) {
	w := lived(t)
	kept := slices.DeleteFunc(stored(w.live), func(m Message) bool {
		return m.isEvent() && m.Seq < 80
	})
	truth, opt := w.truth(), strict()
	stream := Stream{Live: w.live, Stored: kept, ReadAt: w.now.Add(167 * time.Hour)}
	mustReport(t, RuleStream, stream, truth, opt)
	stream.ReadAt = w.now.Add(169 * time.Hour)
	mustPass(t, stream, truth, opt)
	opt.Bound = 0
	mustReport(t, RuleRevision, Stream{Stored: kept}, truth, opt)
	opt.Expired = true
	mustPass(t, Stream{Stored: kept}, truth, opt)
}

func TestHolesInTheRecording(t *testing.T) {
	w := lived(t)
	live := slices.DeleteFunc(slices.Clone(w.live), func(m Message) bool { return m.Seq%7 == 3 })
	stream, opt := Stream{Live: live, Stored: stored(w.live)}, strict()
	mustReport(t, RuleCommit, stream, w.truth(), opt)
	opt.LossyLive = true
	mustPass(t, stream, w.truth(), opt)
}

func TestForeignMessages(t *testing.T) {
	w := lived(t)
	forged := Message{Seq: uint64(len(w.live) + 1), Subject: schemas.StateSubject(tenant, 1),
		Body: []byte("{")}
	stream, opt := Stream{Live: append(slices.Clone(w.live), forged)}, strict()
	mustReport(t, RuleCommit, stream, w.truth(), opt)
	opt.Foreign = func(m Message) bool { return m.Seq == forged.Seq }
	mustPass(t, stream, w.truth(), opt)
}

func TestEmptyLog(t *testing.T) {
	w := lived(t)
	opt := strict()
	opt.Until = w.now
	mustReport(t, RuleLasted, Stream{}, w.truth(), opt)
	mustReport(t, RuleFinal, Stream{}, w.truth(), opt)
	mustReport(t, RuleSetup, Stream{}, Truth{}, Options{})
}

func TestStory(t *testing.T) {
	w := lived(t)
	s := &specimen{t: t, live: slices.Clone(w.live), store: stored, truth: w.truth(),
		opt: strict()}
	s.without(s.commitOf(s.find("online", "status", 2, 0)))
	err := Check(Stream{Live: s.live}, s.truth, s.opt).Err()
	if err == nil {
		t.Fatal("nothing was reported")
	}
	for _, want := range []string{"revision 4 comes after revision 2", "tenant: signedIn",
		"#1 revision 1 online (baseline, sweep 1)", "onlineStatus 0→1"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in\n%v", want, err)
		}
	}
}

// The checker's normalisation and rollcall's were written apart. Where they differ, the contract
// has to say who is right.
func TestNormalisationAgrees(t *testing.T) {
	r := newRules(Options{Tenant: tenant}.withDefaults())
	rows := []string{
		`{}`, `[]`, `null`, `x`, `{"agentId":1}`, `{"agentId":"x","onlineStatus":1}`,
		`{"agentId":1.5,"onlineStatus":1}`,
		`{"agentId":9223372036854775808,"onlineStatus":1}`,
		`{"agentId":1,"onlineStatus":1,"tenantId":5}`,
		`{"agentId":1,"onlineStatus":null}`, `{"agentId":1,"onlineStatus":true}`,
		`{"agentId":1,"onlineStatus":""}`,
		`{"agentId":"9007199254740993","onlineStatus":"1","tenantId":null}`,
		`{"agentId":1e3,"onlineStatus":1.0,"userId":" 12 ","isArea":"0.0","capacity":"1e2",` +
			`"createdBy":[1],"deleteFlag":"1"}`,
		`{"agentId":1,"onlineStatus":2,"type":10,"areaName":"","cityId":null,"agentName":1.50,` +
			`"agentCode":false,"appName":{}}`,
		`{"agentId":1,"onlineStatus":1,"x":null,"y":[ 1,  {"a" : "\u0041"} ],` +
			`"z":12345678901234567890.10,"AgentId":7,"tenantId":"886"}`,
		`{"agentId":1,"agentId":2,"onlineStatus":1,` +
			`"creationDate":"2021-03-23T08:04:54.000+00:00","x":1,"x":2}`,
		` { "agentId" : 1 , "onlineStatus" : -1 , "agentName" : "a\"\\\u5f20\ud800<&>" } `,
	}
	for _, row := range append(rows, string(isdpsim.New(isdpsim.Config{}).NewRow(5))) {
		got := r.lenient(json.RawMessage(row))
		a, _, err := packed.Decode([]byte(row), tenant)
		if (err == nil) != (got.row != nil) {
			t.Errorf("%s: verdict %v here, %v there", row, got.verdict, err)
			continue
		}
		if err != nil {
			continue
		}
		want, err := r.exact(new(a.Unpack()).AppendJSON(nil))
		if err != nil || !want.same(got.row) {
			t.Errorf("%s: they differ in %q (%v)", row, want.differing(got.row), err)
		}
	}
}

func TestMembers(t *testing.T) {
	ms, err := members(
		[]byte(" { \"a\\u0062\\\"\" :{\"x\":[1,\"}\"]} ,\"ab\\\\\":-1.5e3,\n\"\":\"\\\\\"\t} "))
	want := []member{{`ab"`, json.RawMessage(`{"x":[1,"}"]}`)}, {`ab\`, json.RawMessage(`-1.5e3`)},
		{``, json.RawMessage(`"\\"`)}}
	if err != nil || !slices.EqualFunc(ms, want, func(a, b member) bool {
		return a.name == b.name && string(a.value) == string(b.value)
	}) {
		t.Errorf("%q, %v", ms, err)
	}
	for _, bad := range []string{``, `[]`, `{`, `{"a":1}{}`, `null`} {
		if ms, err := members([]byte(bad)); err == nil {
			t.Errorf("%s: %q", bad, ms)
		}
	}
}
