//go:build unix

package e2e

import (
	"bytes"
	gocmp "cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nats-io/nats.go"

	"github.com/rollcall-events/rollcall/internal/test/checker"
	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
	"github.com/rollcall-events/rollcall/internal/test/wait"
	"github.com/rollcall-events/rollcall/schemas"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// The tests mostly wait for their processes: more of them at a time than there are processors.
	if err := flag.Set("test.parallel", strconv.Itoa(max(8, runtime.GOMAXPROCS(0)))); err != nil {
		panic(err)
	}
	os.Exit(Main(m))
}

const (
	tenant = 886
	big    = int64(9007199254740993)    // 2^53 + 1: a float64 can't hold it
	most   = int64(9223372036854775807) // 2^63 - 1
	// clocks is how far the process's clock, which never jumps, may be from the test's.
	clocks = 25 * time.Millisecond
	// interval is the timeline's, from one sweep to the next.
	interval = 100 * time.Millisecond
)

func TestTimelineEmbedded(t *testing.T) {
	t.Parallel()
	env, url := Embedded(t)
	timeline(t, env, url, nil)
}

func TestTimelineExternal(t *testing.T) {
	t.Parallel()
	server := NewNATSServer(t, "")
	server.Start()
	timeline(t, map[string]string{"ROLLCALL_NATS_URL": server.URL}, server.URL, server)
}

// A world is everything that a timeline plays in.
type world struct {
	t      *testing.T
	vendor *Vendor
	env    map[string]string
	nc     *nats.Conn
	live   *Recorder
	proc   *Process

	agents map[int64]*agent  // as their last events left them
	seq    uint64            // of the last message that has been compared
	mark   schemas.Watermark // the last that was settled
	wm     Msg
	used   map[int64]bool
	starts int // of rollcall
	// what notBefore has to be for whatever changed while rollcall was down; zero: it was not
	restart time.Time
}

// An agent is one as its last event left it.
type agent struct {
	revision        uint64
	online, removed bool
	time            time.Time
}

// A step is one of the script: what happens to the tenant, and what that makes. Whether each
// message says exactly what happened is the checker's to judge, in the end.
type step struct {
	name     string
	do       func() // between two requests
	want     []string
	gone     bool   // agents that the listing does not show are removed
	sweeps   int    // complete sweeps to wait for; 0 means one, or two where agents are gone
	missing  int    // agents that are, in the end, and are held
	rejected int    // rows that are, in the end
	health   string // what it has to be in the end; empty: ok
	// sinceOwn: notBefore is not that of the restart but the time of the state before (the last
	// watermark had missed something).
	sinceOwn bool
}

func timeline(t *testing.T, where map[string]string, url string, server *NATSServer) {
	w := &world{
		t: t, vendor: NewVendor(t, isdpsim.Config{Agents: 60, Seed: 1}), nc: Connect(t, url),
		live:   Record(t, url),
		agents: make(map[int64]*agent), used: make(map[int64]bool),
	}
	w.env = Settings(w.vendor.Env(), where,
		map[string]string{"ROLLCALL_POLL_INTERVAL": interval.String()})
	v := w.vendor

	// Rows to begin with that are unlike the others.
	v.Edit(w.offline(), isdpsim.Fields{"tenantId": ""}) // the token's, then
	v.Edit(w.offline(), isdpsim.Fields{"type": "10", "cityId": "440300",
		"agentId": quoted(w.last()), "deleteFlag": "null"})
	odd := w.offline()
	v.Edit(odd, isdpsim.Fields{
		"agentName": `"\u738b \"<&>\" \u2028\t\ud83d\ude00/\/"`, "areaName": `""`,
		"capacity": `"7"`, "cityId": "null",
		"odd":            `{"b" :  1.50e+3,"a":"\u0026\/ \u4e00<>", "a": 12345678901234567890.0 }`,
		"odd \"name\"\n": `[ ]`, "zz": "null",
	})
	bigRow := must(isdpsim.Patch(v.NewRow(big), isdpsim.Fields{"onlineStatus": "1"}))
	v.Add(bigRow)
	deletedFirst := v.Add(must(isdpsim.Patch(v.NewRow(700001),
		isdpsim.Fields{"onlineStatus": "1", "deleteFlag": "1"})))
	var baseline []string
	for _, row := range v.Listing() {
		switch {
		case row.ID == deletedFirst:
		case online(row.JSON):
			baseline = append(baseline, w.line(row.ID, 1, "online baseline"))
		default:
			baseline = append(baseline, w.line(row.ID, 1, "updated baseline"))
		}
	}

	w.start()
	w.play(step{name: "baseline", do: func() {}, want: baseline})
	w.play(step{name: "nothing happens", do: func() {}, sweeps: 2})

	in, out := w.offline(), w.online()
	w.play(step{name: "sign-in and sign-out", do: func() {
		v.SetOnline(in, true)
		v.SetOnline(out, false)
	},
		want: []string{w.line(in, 2, "online status"), w.line(out, 2, "offline status")}})
	w.play(step{name: "and back", do: func() { v.SetOnline(in, false); v.SetOnline(out, true) },
		want: []string{w.line(in, 3, "offline status"), w.line(out, 3, "online status")}})
	w.play(step{name: "onlineStatus alone, and one that is neither 0 nor 1", do: func() {
		v.Edit(in, isdpsim.Fields{"onlineStatus": "1"})
		v.Edit(out, isdpsim.Fields{"onlineStatus": "2"})
	}, want: []string{w.line(in, 4, "online status"), w.line(out, 4, "offline status")}})
	w.play(step{name: "a flip between sweeps", do: func() {
		v.SetOnline(in, false)
		v.SetOnline(in, true)
	}})

	edited := w.offline()
	w.play(step{name: "edits", do: func() {
		v.Edit(edited, isdpsim.Fields{"capacity": "77", "lastUpdateName": `"someone"`})
		v.Edit(in, isdpsim.Fields{"agentName": `"\u0000\u001f\b 王\\"`})
	}, want: []string{w.line(edited, 2, "updated fields"), w.line(in, 5, "updated fields")}})
	w.play(step{name: "quiet edits alone", do: func() {
		v.Edit(edited, isdpsim.Fields{"lastUpdateTimestamp": "1", "agentSignInTime": "2",
			"version": "99", "new": `{ "x":1}`})
		v.Edit(odd, isdpsim.Fields{"odd": "", "lastUpdateDate": `"x"`, "lastUpdatedBy": "12",
			"agentSignInDate": "3"})
	}})
	w.play(step{name: "quiet edits followed by another", do: func() {
		v.Edit(edited, isdpsim.Fields{"capacity": "78"})
		v.SetOnline(odd, true)
	}, want: []string{w.line(edited, 3, "updated fields"), w.line(odd, 2, "online status")}})
	w.play(step{name: "a quiet edit taken back, and another", do: func() {
		v.Edit(edited, isdpsim.Fields{"new": "", "capacity": "79"})
	},
		want: []string{w.line(edited, 4, "updated fields")}})
	w.play(step{name: "the same in other words", do: func() {
		v.Edit(edited, isdpsim.Fields{"capacity": `"79"`, "onlineStatus": `"0"`,
			"tenantId": `"886"`, "type": "10"})
		row, _ := v.Agent(in)
		v.Replace(in, reordered(row))
	}})

	nulls := w.offline()
	w.play(step{name: "null to a value", do: func() {
		v.Edit(nulls,
			isdpsim.Fields{"productType": `"6G"`, "areaName": `""`, "businessType": "null"})
	},
		want: []string{w.line(nulls, 2, "updated fields")}})
	w.play(step{name: "a value to null, absent, unusable", do: func() {
		v.Edit(nulls, isdpsim.Fields{"productType": "null", "agentCode": "",
			"capacity": `{"rooms":3}`, "isArea": `"yes"`})
	}, want: []string{w.line(nulls, 3, "updated fields")}})

	for i, typ := range []string{`"1"`, `"a.b"`, `""`, "null", `"Video-10"`} {
		w.play(step{name: "type " + typ, do: func() { v.Edit(nulls, isdpsim.Fields{"type": typ}) },
			want: []string{w.line(nulls, uint64(4+i), "updated fields")}})
	}

	const newOn, newOff = 800001, 800002
	w.play(step{name: "appearances", do: func() {
		v.Add(must(isdpsim.Patch(v.NewRow(newOn), isdpsim.Fields{"onlineStatus": "1"})))
		v.Add(must(isdpsim.Patch(v.NewRow(newOff), isdpsim.Fields{"onlineStatus": "0"})))
		v.Add(must(isdpsim.Patch(v.NewRow(most),
			isdpsim.Fields{"onlineStatus": "1", "agentId": quoted(most)})))
	}, want: []string{w.line(newOn, 1, "online appeared"), w.line(newOff, 1, "updated appeared"),
		w.line(most, 1, "online appeared")}})
	w.play(step{name: "ids beyond 2^53", do: func() {
		v.SetOnline(big, false)
		v.Edit(most, isdpsim.Fields{"userId": "9007199254740995"})
	},
		want: []string{w.line(big, 2, "offline status"), w.line(most, 2, "updated fields")}})
	w.play(step{name: "first seen deleted, then undeleted", do: func() { v.Undelete(deletedFirst) },
		want: []string{w.line(deletedFirst, 1, "online appeared")}})

	flagOn, flagOff := w.online(), w.offline()
	w.play(step{name: "removed by deleteFlag", do: func() { v.Delete(flagOn, flagOff) },
		want: []string{w.line(flagOn, 2, "offline removed"),
			w.line(flagOff, 2, "updated removed")}})
	w.play(step{name: "changes of deleted agents", do: func() {
		v.Edit(flagOn, isdpsim.Fields{"capacity": "55"})
		v.SetOnline(flagOff, true)
		v.Remove(flagOn)
	}, gone: true})
	w.play(step{name: "back from deletion, one from outside the listing", do: func() {
		v.Undelete(flagOn, flagOff)
		v.Restore(flagOn)
	}, want: []string{w.line(flagOn, 3, "online appeared"), w.line(flagOff, 3, "online appeared")}})
	w.play(step{name: "deleted and signed out at once", do: func() {
		v.Edit(flagOn, isdpsim.Fields{"deleteFlag": `"1"`, "onlineStatus": "0"})
	},
		want: []string{w.line(flagOn, 4, "offline removed")}})
	w.play(step{name: "back, and not online", do: func() {
		v.Edit(flagOn, isdpsim.Fields{"deleteFlag": ""})
	},
		want: []string{w.line(flagOn, 5, "updated appeared")}})

	goneOn, goneOff := w.online(), w.offline()
	w.play(step{name: "quiet edits before they leave", do: func() {
		v.Edit(goneOn, isdpsim.Fields{"version": "1234"})
	}})
	w.play(step{name: "removed by absence", do: func() { v.Remove(goneOn, goneOff) }, gone: true,
		want: []string{w.line(goneOn, 2, "offline removed"),
			w.line(goneOff, 2, "updated removed")}})
	w.play(step{name: "a removed agent stays removed", do: func() {
		v.Edit(goneOff, isdpsim.Fields{"capacity": "1234"})
	}, gone: true})
	w.play(step{name: "back from absence", do: func() { v.Restore(goneOn, goneOff) },
		want: []string{w.line(goneOn, 3, "online appeared"),
			w.line(goneOff, 3, "updated appeared")}})

	w.missesOne()
	w.tooManyMissing()
	w.badRecords()
	w.outage()

	w.play(step{name: "two changes of one agent at once", do: func() {
		v.SetOnline(edited, true)
		v.Edit(edited, isdpsim.Fields{"capacity": "80", "agentAccount": `"moved"`})
	}, want: []string{w.line(edited, 5, "online status")}})
	w.play(step{name: "many at once", do: func() {
		for _, row := range v.Listing() {
			v.Edit(row.ID, isdpsim.Fields{"appName": `"renamed"`})
		}
	}, want: w.everyone("updated fields")})

	w.pause(in)
	w.terminate(in, edited, goneOn)
	w.killed(in, edited)
	if server != nil {
		w.brokerKilled(server, in, edited)
	}
	w.terminateQuietly()
	w.judge()
}

// start starts rollcall, and lets it reach the vendor when the plain subscriber is there.
func (w *world) start() {
	w.t.Helper()
	release := w.vendor.Hold()
	defer release()
	w.starts++
	w.env["ROLLCALL_INSTANCE"] = w.instance()
	w.proc = Rollcall(w.t, w.env)
	w.live.Ready(w.t)
}

// instance is the name of the rollcall that runs now.
func (w *world) instance() string { return fmt.Sprintf("e2e-%d", w.starts) }

// takenOver returns the first watermark of the rollcall that runs now: it repeats the figures that
// the last one left.
func (w *world) takenOver() schemas.Watermark {
	w.t.Helper()
	for _, m := range w.live.Through(w.t, w.wm.Seq) {
		var mark schemas.Watermark
		if m.Tokens()[1] != "watermark" || m.Seq <= w.seq {
			continue
		}
		if err := json.Unmarshal([]byte(m.Body), &mark); err != nil {
			w.t.Fatalf("%s: %v", m.Body, err)
		}
		if mark.Instance == w.instance() {
			if mark.InProgress == nil || mark.Commit.Messages != 1 {
				w.t.Errorf("not a watermark that takes over: %s", m.Body)
			}
			return mark
		}
	}
	w.t.Fatalf("no watermark of %s after message %d", w.instance(), w.seq)
	return schemas.Watermark{}
}

// play plays a step, waits until the stream says that it has been seen, and compares.
func (w *world) play(s step) {
	w.t.Helper()
	begun := time.Now()
	w.vendor.Atomically(s.do)
	w.settled(s, begun, time.Now())
}

// settled waits for a watermark of sweeps that began after end, and compares the stream since the
// last time with the script. begun and end are around what happened.
func (w *world) settled(s step, begun, end time.Time) {
	w.t.Helper()
	sweeps := s.sweeps
	if sweeps == 0 {
		sweeps = 1
		if s.gone {
			sweeps = 2
		}
	}
	before := w.mark
	w.complete(s.name, end)
	if w.starts > 1 && before.Instance != w.instance() {
		mark := w.takenOver()
		if mark.Sweep < before.Sweep || mark.StartedAt.Before(before.StartedAt) ||
			w.mark.Sweep <= mark.Sweep {
			w.t.Errorf("%s: taken over with %+v after %+v", s.name, mark, before)
		}
		w.restart = mark.StartedAt
	}
	for range sweeps - 1 {
		w.complete(s.name, w.mark.CompletedAt)
	}

	var events []*schemas.Event
	got := []string{}
	for _, m := range ReadStream(w.t, w.nc, w.seq+1, "agent.online.>", "agent.offline.>",
		"agent.updated.>") {
		if m.Seq > w.wm.Seq {
			w.t.Errorf("%s: an event after the watermark that says that all is published: %s",
				s.name, m.Body)
			continue
		}
		e := &schemas.Event{}
		if err := json.Unmarshal([]byte(m.Body), e); err != nil {
			w.t.Fatalf("%s: %v\n%s", s.name, err, m.Body)
		}
		if b := string(e.AppendJSON(nil)); b != m.Body {
			w.t.Errorf("%s: an event in other bytes than schemas writes:\n%s\n%s", s.name, m.Body,
				b)
		}
		events = append(events, e)
		got = append(got, w.line(e.Data.Agent.AgentID, e.Data.Revision,
			strings.TrimPrefix(string(e.Type), "agent.")+" "+string(e.Data.Reason)))
	}
	slices.Sort(got)
	if d := cmp.Diff(slices.Sorted(slices.Values(s.want)), got, cmpopts.EquateEmpty()); d != "" {
		w.t.Fatalf("%s: events (-script +stream):\n%s", s.name, d)
	}
	for _, e := range events {
		w.event(s, e, begun, end)
	}

	agents, online := 0, 0
	for _, a := range w.agents {
		if !a.removed {
			agents++
		}
		if a.online {
			online++
		}
	}
	m := w.mark
	if m.Agents != agents || m.Online != online || m.Missing != s.missing ||
		m.Rejected != s.rejected || m.Instance != w.instance() {
		w.t.Errorf("%s: want %d agents, %d online, %d missing, %d rejected, by %s: %s", s.name,
			agents, online, s.missing, s.rejected,
			w.instance(), w.wm.Body)
	}
	took := m.CompletedAt.Sub(m.StartedAt)
	if d := m.StaleAfter.Sub(m.CompletedAt); d < 3*interval ||
		d > 3*max(interval, took)+10*time.Millisecond {
		w.t.Errorf("%s: stale %v after a sweep that took %v, every %v", s.name, d, took, interval)
	}
	w.healthIs(s.name, gocmp.Or(s.health, "ok"))
	w.seq, w.restart = w.wm.Seq, time.Time{}
	if w.t.Failed() {
		w.t.FailNow()
	}
}

// event compares an event's times with when it happened.
func (w *world) event(s step, e *schemas.Event, begun, end time.Time) {
	w.t.Helper()
	d := &e.Data
	fail := func(format string, args ...any) {
		w.t.Helper()
		w.t.Errorf("%s: %s: %s", s.name, e.ID(), fmt.Sprintf(format, args...))
	}
	prev := gocmp.Or(w.agents[d.Agent.AgentID], &agent{})
	if e.Time.Before(begun.Add(-clocks)) || e.Time.After(time.Now().Add(clocks)) {
		fail("its time %v is not between that of the change (%v to %v) and now", e.Time, begun, end)
	}
	switch want := w.restart; {
	case d.NotBefore.IsZero():
	case want.IsZero():
		if d.NotBefore.After(end.Add(clocks)) {
			fail("notBefore %v is after the change (%v to %v)", d.NotBefore, begun, end)
		}
	default:
		// the quiet fields may have been others
		if (s.sinceOwn || d.Reason == schemas.Fields) && prev.revision > 0 {
			want = prev.time
		}
		if !d.NotBefore.Equal(want) {
			fail("notBefore after a restart is %v, want %v", d.NotBefore, want)
		}
	}
	if d.Sweep > w.mark.Sweep {
		fail("sweep %d, and the last complete one is %d", d.Sweep, w.mark.Sweep)
	}
	w.agents[d.Agent.AgentID] = &agent{d.Revision, d.Online, d.Reason == schemas.Removed, e.Time}
}

// complete waits for the watermark of a complete sweep, with nothing in progress, that began after
// a time.
func (w *world) complete(what string, after time.Time) {
	w.t.Helper()
	before := w.mark
	wait.Eventually(w.t, what+": the watermark of a later sweep", func() bool {
		if !w.proc.Running() {
			w.t.Fatalf("%s: rollcall has ended: exit %d", what, w.proc.Wait())
		}
		m, ok := Last(w.nc, schemas.WatermarkSubject(tenant))
		if !ok {
			return false
		}
		var mark schemas.Watermark
		if err := json.Unmarshal([]byte(m.Body), &mark); err != nil {
			w.t.Fatalf("%s: %v", m.Body, err)
		}
		if mark.Sweep == 0 || mark.InProgress != nil || !mark.StartedAt.After(after) {
			return false
		}
		w.mark, w.wm = mark, m
		return true
	})
	if w.mark.Sweep <= before.Sweep {
		w.t.Errorf("%s: sweep %d after sweep %d", what, w.mark.Sweep, before.Sweep)
	}
}

// healthIs waits until the health message says "state" or "state reason".
func (w *world) healthIs(what, want string) {
	w.t.Helper()
	wait.Eventually(w.t, what+": health "+want, func() bool {
		m, ok := Last(w.nc, schemas.HealthSubject(tenant))
		var h schemas.Health
		return ok && json.Unmarshal([]byte(m.Body), &h) == nil &&
			strings.TrimSpace(string(h.State)+" "+string(h.Reason)) == want
	})
}

// missesOne makes one complete sweep miss an agent, which is not enough.
func (w *world) missesOne() {
	w.t.Helper()
	id := w.online()
	begun := time.Now()
	var visits atomic.Int32
	back := make(chan struct{})
	w.vendor.SetFault(isdpsim.OnPage(0, isdpsim.Meanwhile(func(v *isdpsim.Tenant) {
		switch visits.Add(1) { // each the first request of a sweep
		case 1:
			v.Remove(id)
		case 2:
			v.Restore(id)
			close(back)
		}
	})))
	select {
	case <-back:
	case <-time.After(wait.Patience):
		w.t.Fatal("waited in vain for two sweeps")
	}
	w.vendor.SetFault(nil)
	s := step{name: "missing from one sweep"}
	from := w.seq
	w.settled(s, begun, time.Now())
	if !slices.ContainsFunc(w.live.Through(w.t, w.seq), func(m Msg) bool {
		var mark schemas.Watermark
		return m.Seq > from && m.Tokens()[1] == "watermark" &&
			json.Unmarshal([]byte(m.Body), &mark) == nil && mark.Missing == 1
	}) {
		w.t.Errorf("%s: no watermark has told of it", s.name)
	}
}

// tooManyMissing takes more than half of the listing away, and brings it back.
func (w *world) tooManyMissing() {
	w.t.Helper()
	ids := w.vendor.IDs()[:40]
	w.play(step{name: "too many missing", do: func() {
		w.vendor.Remove(ids...)
	}, gone: true, sweeps: 4, missing: 40, health: "holding missing"})
	w.play(step{name: "all back", do: func() { w.vendor.Restore(ids...) }})
}

// badRecords puts rows into the listing that can't be used.
func (w *world) badRecords() {
	w.t.Helper()
	v := w.vendor
	spoilt, gone, changed := w.online(), w.offline(), w.offline()
	changes := w.agents[changed].revision
	var unnamed []int64
	w.play(step{name: "rejected records", do: func() {
		v.Edit(spoilt, isdpsim.Fields{"onlineStatus": `"maybe"`, "capacity": "33"})
		v.Add(must(isdpsim.Patch(v.NewRow(900001), isdpsim.Fields{"tenantId": "887"})))
		v.Add(must(isdpsim.Patch(v.NewRow(900002),
			isdpsim.Fields{"photo": `"` + strings.Repeat("x", 900_000) + `"`})))
		v.Edit(changed, isdpsim.Fields{"capacity": "41"})
	}, want: []string{w.line(changed, changes+1, "updated fields")}, sweeps: 3, rejected: 3})
	w.play(step{name: "an appearance beside rejected records", do: func() {
		v.Add(must(isdpsim.Patch(v.NewRow(800003), isdpsim.Fields{"onlineStatus": "1"})))
	}, want: []string{w.line(800003, 1, "online appeared")}, rejected: 3})
	w.play(step{name: "a removal beside rejected records", do: func() {
		v.Remove(gone)
	}, gone: true, rejected: 3,
		want: []string{w.line(gone, 2, "updated removed")}})
	w.play(step{name: "a return beside rejected records", do: func() {
		v.Restore(gone)
	}, rejected: 3,
		want: []string{w.line(gone, 3, "updated appeared")}})
	w.play(step{name: "rows that nobody can name", do: func() {
		for _, row := range []string{`"garbage"`, `{"onlineStatus":1}`,
			`{"agentId":"x1","onlineStatus":1}`, `null`} {
			unnamed = append(unnamed, v.Add(json.RawMessage(row)))
		}
		v.Remove(gone)
		v.Edit(changed, isdpsim.Fields{"capacity": "42"})
	}, gone: true, sweeps: 4, rejected: 7, health: "holding unidentified",
		want: []string{w.line(changed, changes+2, "updated fields")}})
	w.play(step{name: "an appearance beside rows that nobody can name", do: func() {
		v.Add(must(isdpsim.Patch(v.NewRow(800004), isdpsim.Fields{"onlineStatus": "1"})))
	}, want: []string{w.line(800004, 1, "online appeared")}, rejected: 7,
		health: "holding unidentified"})
	w.play(step{name: "and without them", do: func() {
		v.Remove(unnamed...)
	}, gone: true, rejected: 3,
		want: []string{w.line(gone, 4, "updated removed")}})
	w.play(step{name: "a spoilt row is mended", do: func() {
		v.Edit(spoilt, isdpsim.Fields{"onlineStatus": "1"})
		v.Remove(900001)
		v.Edit(900002, isdpsim.Fields{"photo": "", "onlineStatus": "0"})
	}, want: []string{w.line(spoilt, 2, "updated fields"), w.line(900002, 1, "updated appeared")}})
	for _, reason := range []string{"syntax", "agentId", "onlineStatus", "tenant", "size"} {
		if !slices.ContainsFunc(w.proc.Logged("record rejected"), func(l LogLine) bool {
			return l["reason"] == reason && l["page"] != nil && l["index"] != nil &&
				l.Level() == "WARN"
		}) {
			w.t.Errorf("no record logged as rejected for its %s, with page and index", reason)
		}
	}
}

// outage makes the vendor fail in three ways; what changes meanwhile is published afterwards.
func (w *world) outage() {
	w.t.Helper()
	v := w.vendor
	on := w.online()
	for _, c := range []struct {
		health string
		fault  isdpsim.Fault
	}{
		{"failing unusable", isdpsim.HTML()},
		{"failing unreachable", isdpsim.Status(503)},
		{"failing inconsistent", isdpsim.TotalCountOff(5)},
	} {
		begun := time.Now()
		v.SetFault(isdpsim.OnAgents(c.fault))
		w.healthIs(c.health, c.health)
		v.SetFault(nil)
		w.settled(step{name: c.health + ", and ok again"}, begun, time.Now())
	}
	// A page of three comes without rows: fewer agents than the guard would hold back, in more
	// sweeps than a removal takes.
	begun := time.Now()
	incomplete := func() int { return len(w.proc.Logged("sweep incomplete")) }
	before := incomplete()
	v.SetFault(isdpsim.OnPage(1, isdpsim.Rows(func([]isdpsim.Row) []isdpsim.Row { return nil })))
	w.healthIs("one page of three is empty", "failing inconsistent")
	wait.Eventually(w.t, "incomplete sweeps", func() bool { return incomplete() >= before+5 })
	v.Atomically(func() { v.SetOnline(on, false) })
	end := time.Now()
	v.SetFault(nil)
	w.settled(step{name: "a sign-out during an outage",
		want: []string{w.line(on, w.agents[on].revision+1, "offline status")}}, begun, end)
	v.RevokeTokens()
	begun = time.Now()
	w.settled(step{name: "a revoked token"}, begun, begun)
}

// pause stops the process, and lets it go on.
func (w *world) pause(id int64) {
	w.t.Helper()
	r := w.agents[id].revision
	w.proc.Pause()
	begun := time.Now()
	// Requests that it has sent may still be under way: they are answered first.
	w.vendor.Atomically(func() { w.vendor.SetOnline(id, !w.agents[id].online) })
	end := time.Now()
	w.proc.Continue()
	w.settled(step{name: "paused and continued", want: []string{w.line(id, r+1, w.flipped(id))}},
		begun, end)
}

func (w *world) flipped(id int64) string {
	if w.agents[id].online {
		return "offline status"
	}
	return "online status"
}

// terminate ends rollcall in good order, changes things while it is away, and starts it again on
// the same store.
func (w *world) terminate(flips, edited, gone int64) {
	w.t.Helper()
	w.terminateQuietly()
	w.start()
	w.settled(step{name: "restarted, and nothing has happened", sweeps: 2}, time.Now(), time.Now())

	w.terminateQuietly()
	v := w.vendor
	quiet := w.offline()
	flag := w.online()
	back, _ := v.Agent(flag)
	want := []string{
		w.line(flips, w.agents[flips].revision+1, w.flipped(flips)),
		w.line(edited, w.agents[edited].revision+1, "updated fields"),
		w.line(gone, w.agents[gone].revision+1, "offline removed"),
		w.line(flag, w.agents[flag].revision+1, "offline removed"),
		w.line(800010, 1, "online appeared"),
	}
	begun := time.Now()
	v.Atomically(func() {
		v.SetOnline(flips, !w.agents[flips].online)
		v.Edit(edited, isdpsim.Fields{"capacity": "91", "version": "5"})
		v.Edit(quiet, isdpsim.Fields{"version": "6", "lastUpdateTimestamp": "7"})
		v.SetOnline(quiet, true)
		v.SetOnline(quiet, false)
		v.Remove(gone)
		v.Delete(flag)
		v.Add(must(isdpsim.Patch(v.NewRow(800010), isdpsim.Fields{"onlineStatus": "1"})))
		v.Add(must(isdpsim.Patch(v.NewRow(800011), isdpsim.Fields{"deleteFlag": "1"})))
	})
	w.start()
	w.settled(step{name: "restarted after changes", gone: true, want: want}, begun, time.Now())
	w.play(step{name: "quiet edits before the restart", do: func() {
		v.Edit(quiet, isdpsim.Fields{"capacity": "17"})
	},
		want: []string{w.line(quiet, w.agents[quiet].revision+1, "updated fields")}})
	w.play(step{name: "returns after the restart", do: func() {
		v.Restore(gone)
		v.Replace(flag, back)
		v.Undelete(800011)
	}, want: []string{
		w.line(gone, w.agents[gone].revision+1, "online appeared"),
		w.line(flag, w.agents[flag].revision+1, "online appeared"),
		w.line(800011, 1, map[bool]string{true: "online appeared",
			false: "updated appeared"}[isOnline(v, 800011)]),
	}})
}

// terminateQuietly ends rollcall in good order.
func (w *world) terminateQuietly() {
	w.t.Helper()
	code, took := w.proc.Terminate()
	if code != 0 || took > 10*time.Second {
		w.t.Errorf("SIGTERM: exit %d after %v", code, took)
	}
	w.proc.NoSecrets(w.vendor.Secrets()...)
	for _, l := range w.proc.Log() {
		if l.Level() == "ERROR" {
			w.t.Errorf("logged as an error: %v", l)
		}
	}
	for raw := range strings.Lines(w.proc.Stderr()) {
		if !json.Valid([]byte(raw)) {
			w.t.Errorf("not a line of JSON in the log: %.300s", raw)
		}
	}
	if out := w.proc.Stdout(); out != "" {
		w.t.Errorf("the daemon wrote to standard output: %s", out)
	}
}

// quiet makes requests wait until release is called, and returns when all that rollcall has seen is
// published and has come to the plain subscriber: what is killed then was not about to say more.
func (w *world) quiet() (release func()) {
	w.t.Helper()
	release = w.vendor.Hold()
	wait.Eventually(w.t, "all that was seen to be published", func() bool {
		seen, published := w.proc.Logged("sweep complete"), w.proc.Logged("committed")
		return seen[len(seen)-1]["sweep"] == published[len(published)-1]["sweep"]
	})
	m, ok := Last(w.nc, schemas.WatermarkSubject(tenant))
	if !ok {
		w.t.Fatal("no watermark")
	}
	w.live.Through(w.t, m.Seq)
	return release
}

// killed ends rollcall with SIGKILL where the last sweep had rejected a row, so that its watermark
// bounds nothing.
func (w *world) killed(flips, edited int64) {
	w.t.Helper()
	v := w.vendor
	w.play(step{name: "a rejected record before a crash", do: func() {
		v.Add(must(isdpsim.Patch(v.NewRow(900003), isdpsim.Fields{"tenantId": "1"})))
	},
		rejected: 1})
	release := w.quiet()
	w.proc.Kill()
	release()
	w.proc.NoSecrets(v.Secrets()...)
	want := []string{
		w.line(flips, w.agents[flips].revision+1, w.flipped(flips)),
		w.line(edited, w.agents[edited].revision+1, "updated fields"),
		w.line(800020, 1, "online appeared"),
	}
	begun := time.Now()
	v.Atomically(func() {
		v.SetOnline(flips, !w.agents[flips].online)
		v.Edit(edited, isdpsim.Fields{"capacity": "92"})
		v.Add(must(isdpsim.Patch(v.NewRow(800020), isdpsim.Fields{"onlineStatus": "1"})))
	})
	w.start()
	w.settled(step{name: "restarted after a crash", want: want, sinceOwn: true, rejected: 1}, begun,
		time.Now())
	w.play(step{name: "the rejected record goes", do: func() { v.Remove(900003) }})
}

// brokerKilled kills the nats-server, changes things while it is away, and starts it again on the
// same store.
func (w *world) brokerKilled(server *NATSServer, flips, edited int64) {
	w.t.Helper()
	v := w.vendor
	r := w.agents[flips].revision
	now := w.flipped(flips)
	release := w.quiet()
	server.Kill()
	release()
	begun := time.Now()
	v.Atomically(func() {
		v.SetOnline(flips, !w.agents[flips].online)
		v.Edit(edited, isdpsim.Fields{"capacity": "93"})
	})
	end := time.Now()
	// It goes on polling meanwhile: a sweep that began after the change has ended when the one
	// after it begins.
	sweeps := v.Stats().PageRequests + 3*len(v.Listing())/25 + 3
	wait.Eventually(w.t, "sweeps without a broker", func() bool {
		return v.Stats().PageRequests >= sweeps
	})
	// The plain subscriber is back before rollcall writes: while it is paused nothing is.
	w.proc.Pause()
	server.Start()
	w.live.Ready(w.t)
	w.proc.Continue()
	w.settled(step{name: "the broker was killed", want: []string{
		w.line(flips, r+1, now), w.line(edited, w.agents[edited].revision+1, "updated fields"),
	}}, begun, end)
}

// judge has the checker compare all that there is: the stream, the plain subscription, the tenant's
// history and the pages that it showed.
func (w *world) judge() {
	w.t.Helper()
	nc := w.nc
	if dir := w.env["ROLLCALL_DATA_DIR"]; dir != "" { // its server went with it
		nc = OpenStore(w.t, dir)
	}
	ctx, cancel := context.WithTimeout(context.Background(), wait.Patience)
	defer cancel()
	stored, err := checker.Read(ctx, nc, tenant)
	if err != nil {
		w.t.Fatal(err)
	}
	end := stored[len(stored)-1].Seq
	w.live.Through(w.t, end)
	live := w.live.Messages()
	report := checker.Check(checker.Stream{Stored: stored, Live: live},
		checker.TruthOf(w.vendor.Tenant), checker.Options{
			Tenant: tenant, MaxMissing: 0.5, MissingHold: time.Hour, Quiescent: true, Skew: clocks,
		})
	if err := report.Err(); err != nil {
		w.t.Error(err)
	}
	events := uint64(0)
	for _, a := range w.agents {
		events += a.revision
	}
	if s := report.Stats; uint64(s.Events) != events || s.Agents != len(w.agents) ||
		s.WholeCommits != s.Commits {
		w.t.Errorf("%d events of %d agents, and the script made %d of %d; %d of %d commits whole",
			s.Events, s.Agents, events, len(w.agents),
			s.WholeCommits, s.Commits)
	}
	for _, m := range live {
		for _, s := range w.vendor.Secrets() {
			if bytes.Contains(m.Body, []byte(s)) {
				w.t.Errorf("a secret in the stream, on %s", m.Subject)
			}
		}
	}
	w.t.Logf("%+v", report.Stats)
}

// online and offline choose an agent of the first listing that no step has used.
func (w *world) online() int64  { return w.choose(true) }
func (w *world) offline() int64 { return w.choose(false) }

func (w *world) choose(on bool) int64 {
	w.t.Helper()
	for _, row := range w.vendor.Listing() {
		if a := w.agents[row.ID]; a != nil && (a.removed || a.revision > 2) || w.used[row.ID] ||
			row.ID >= isdpsim.FirstID+60 {
			continue
		}
		if online(row.JSON) == on {
			w.used[row.ID] = true
			return row.ID
		}
	}
	w.t.Fatalf("no agent left that is online: %t", on)
	return 0
}

// last is the agent chosen next, for fields that repeat its id.
func (w *world) last() int64 {
	var id int64
	for used := range w.used {
		id = max(id, used)
	}
	return id
}

func (w *world) line(id int64, revision uint64, what string) string {
	return fmt.Sprintf("%d r%d agent.%s", id, revision, what)
}

// everyone expects an event of every agent that is there.
func (w *world) everyone(what string) []string {
	var lines []string
	for id, a := range w.agents {
		if !a.removed {
			lines = append(lines, w.line(id, a.revision+1, what))
		}
	}
	return lines
}

// isOnline reports whether the tenant shows an agent as online.
func isOnline(v *Vendor, id int64) bool {
	row, _ := v.Agent(id)
	return online(row)
}

func online(row json.RawMessage) bool {
	var fields struct {
		OnlineStatus json.Number
	}
	return json.Unmarshal(row, &fields) == nil && fields.OnlineStatus == "1"
}

func must(row json.RawMessage, err error) json.RawMessage {
	if err != nil {
		panic(err)
	}
	return row
}

func quoted(n int64) string { return strconv.Quote(strconv.FormatInt(n, 10)) }

// reordered is the same object with its members in another order and other white space.
func reordered(row json.RawMessage) json.RawMessage {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(row, &fields); err != nil {
		panic(err)
	}
	var names []string
	for name := range fields {
		names = append(names, name)
	}
	slices.Sort(names)
	slices.Reverse(names)
	out := "{ "
	for i, name := range names {
		if i > 0 {
			out += "\n, "
		}
		out += strconv.Quote(name) + " :\t" + string(fields[name])
	}
	return json.RawMessage(out + " }")
}
