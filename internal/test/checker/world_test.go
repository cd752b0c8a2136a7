package checker

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
	"github.com/rollcall-events/rollcall/schemas"
)

const tenant = 886

// A world is a simulated tenant and the least publisher that keeps the contract: one that reads
// whole snapshots, and writes a list of messages instead of a stream. It shares the wire types with
// rollcall and nothing with the checker.
type world struct {
	t     testing.TB
	now   time.Time
	sim   *isdpsim.Tenant
	pages []isdpsim.PageAnswer

	glances bool      // each sweep ends with one
	glanced time.Time // when the last one began; zero: there was none

	live []Message

	sweep  uint64
	commit int
	roster map[int64]*known
	done   *schemas.Watermark // the last complete sweep's
	nextBy time.Time          // the last watermark's
	stale  bool               // nextBy passed since the last complete sweep

	health *schemas.Health      // to be told with the next commit
	reason schemas.HealthReason // told since the last complete sweep
}

// known is what the publisher knows of an agent.
type known struct {
	last   schemas.Event
	seen   time.Time // when the request was sent that last showed it as it is
	absent int
}

const perPage = 3

func newWorld(t testing.TB, agents int) *world {
	w := &world{t: t, now: time.Date(2026, 11, 22, 8, 0, 0, 123456789, time.UTC),
		roster: map[int64]*known{}}
	w.sim = isdpsim.New(isdpsim.Config{Agents: agents, Seed: 7, Now: func() time.Time {
		return w.now
	}})
	return w
}

func (w *world) pass(d time.Duration) { w.now = w.now.Add(d) }

// shownPage is one page as it was read.
type shownPage struct {
	sent, read time.Time
	rows       []isdpsim.Row
}

// look reads a listing page by page, online -1: the whole one, 1: that of those who are online; lie
// may change what a page shows.
func (w *world) look(online int,
	lie func(page int, rows []isdpsim.Row) []isdpsim.Row) []shownPage {
	listing := func() (rows []isdpsim.Row) {
		for _, r := range w.sim.Listing() {
			a, _, err := packed.Decode(r.JSON, tenant)
			if online != 1 || err == nil && a.Online() {
				rows = append(rows, r)
			}
		}
		return rows
	}
	var out []shownPage
	for page := 0; page == 0 || page*perPage < len(listing()); page++ {
		sent := w.now
		w.pass(3 * time.Millisecond)
		all := listing()
		rows := slices.Clone(all[min(page*perPage, len(all)):min((page+1)*perPage, len(all))])
		if lie != nil {
			rows = lie(page, rows)
		}
		w.pages = append(w.pages, isdpsim.PageAnswer{Request: len(w.pages) + 1, Time: w.now,
			Page: page, PageSize: perPage,
			Type: -1, Online: online, Pos: page, Total: len(all), Rows: rows})
		w.pass(4 * time.Millisecond)
		out = append(out, shownPage{sent, w.now, rows})
	}
	return out
}

var quiet = map[string]bool{"lastUpdateTimestamp": true, "lastUpdateDate": true,
	"lastUpdatedBy": true, "lastUpdateName": true,
	"agentSignInTime": true, "agentSignInDate": true}

// ail tells a reason of health with the next commit; "": that all is well.
func (w *world) ail(reason schemas.HealthReason) {
	w.health = &schemas.Health{TenantID: tenant, State: schemas.HealthFailing, Reason: reason,
		Since: schemas.FloorTime(w.now)}
	if reason == "" {
		w.health.State = schemas.HealthOK
	} else {
		w.reason = reason
	}
}

// cutOff makes a sweep that ends after its pages, and publishes what they show.
func (w *world) cutOff() {
	w.sweep++
	var events []schemas.Event
	for _, p := range w.look(-1, nil) {
		for _, r := range p.rows {
			row, _, err := packed.Decode(r.JSON, tenant)
			if err != nil {
				w.t.Fatal(err)
			}
			if e, ok := w.observe(row.Unpack(), p.sent, p.read); ok {
				events = append(events, e)
			}
		}
	}
	w.publish(events, nil)
}

// doSweep makes one complete sweep and publishes it, each page with changes in a commit of its own.
func (w *world) doSweep(lie func(page int, rows []isdpsim.Row) []isdpsim.Row) {
	w.sweep++
	started := w.now
	pages := w.look(-1, lie)
	if w.glances {
		w.glanced = w.now
		pages = append(pages, w.look(1, nil)...)
	}
	met := map[int64]bool{}
	rejected, missing, nameless := 0, 0, false
	for _, p := range pages {
		var events []schemas.Event
		for _, r := range p.rows {
			row, _, err := packed.Decode(r.JSON, tenant)
			if bad := (*packed.RowError)(nil); errors.As(err, &bad) {
				rejected++
				met[bad.AgentID] = true
				nameless = nameless || !bad.HasID
				continue
			}
			a := row.Unpack()
			met[a.AgentID] = true
			if e, ok := w.observe(a, p.sent, p.read); ok {
				events = append(events, e)
			}
		}
		if len(events) > 0 {
			w.publish(events, nil)
		}
	}
	var events []schemas.Event
	for _, id := range slices.Sorted(maps.Keys(w.roster)) {
		k := w.roster[id]
		if met[id] || nameless || k.last.Data.Reason == schemas.Removed {
			k.absent = 0
			continue
		}
		if k.absent++; k.absent < 2 {
			missing++
			continue
		}
		events = append(events, w.next(k, k.last.Data.Agent, schemas.Removed, nil, k.seen, w.now))
	}
	mark := &schemas.Watermark{TenantID: tenant, Sweep: w.sweep,
		StartedAt:   schemas.FloorTime(started),
		CompletedAt: schemas.CeilTime(w.now),
		StaleAfter:  schemas.CeilTime(w.now.Add(3 * time.Second)), Missing: missing,
		Rejected: rejected}
	w.publish(events, mark)
}

// observe makes the event that a row gives rise to.
func (w *world) observe(a schemas.Agent, sent, read time.Time) (schemas.Event, bool) {
	k := w.roster[a.AgentID]
	reason := schemas.Appeared
	if w.done == nil {
		reason = schemas.Baseline
	}
	switch {
	case k == nil && !a.There():
		return schemas.Event{}, false
	case k == nil:
		k = &known{}
		w.roster[a.AgentID] = k
		e := w.next(k, a, reason, nil, time.Time{}, read)
		k.seen = sent
		return e, true
	case k.last.Data.Reason == schemas.Removed && !a.There():
		return schemas.Event{}, false
	}
	was := k.last.Data
	changes := schemas.Changes(&was.Agent, &a)
	significant := slices.ContainsFunc(changes, func(c schemas.Change) bool {
		return schemas.Listed(c.Field) && !quiet[c.Field]
	})
	switch {
	case was.Reason == schemas.Removed:
		reason = schemas.Appeared
	case !a.There():
		reason = schemas.Removed
	case a.Online() != was.Online:
		reason = schemas.Status
	case significant:
		reason = schemas.Fields
	default:
		k.seen = sent
		return schemas.Event{}, false
	}
	before := k.seen
	if was.Reason == schemas.Removed {
		before = w.done.StartedAt
	}
	e := w.next(k, a, reason, changes, before, read)
	k.seen = sent
	return e, true
}

func (w *world) next(k *known, a schemas.Agent, reason schemas.Reason, changes []schemas.Change,
	before, at time.Time) schemas.Event {
	was := k.last.Data
	e := schemas.Event{Type: schemas.Updated, Time: schemas.CeilTime(at), Data: schemas.EventData{
		Revision: was.Revision + 1, Reason: reason, Sweep: w.sweep,
		Online: reason != schemas.Removed && a.Online(),
		Since:  was.Since, Agent: a, Changes: changes}}
	if !before.IsZero() {
		e.Data.NotBefore = schemas.FloorTime(before)
	}
	if was.Revision == 0 || was.Online != e.Data.Online {
		e.Data.Since, e.Data.PreviousSince = e.Time, was.Since
	}
	switch {
	case e.Data.Online && !was.Online:
		e.Type = schemas.Online
	case !e.Data.Online && was.Online:
		e.Type = schemas.Offline
	}
	k.last = e
	return e
}

// publish makes one commit. mark is the sweep's watermark; nil: it goes on.
func (w *world) publish(events []schemas.Event, mark *schemas.Watermark) {
	w.commit++
	w.stale = w.stale || w.done != nil && w.now.After(w.nextBy)
	m := schemas.Watermark{TenantID: tenant}
	var gap *schemas.Unobserved
	switch {
	case mark != nil:
		m = *mark
		if w.done != nil && (w.stale || mark.CompletedAt.After(w.done.StaleAfter)) {
			gap = &schemas.Unobserved{TenantID: tenant, From: w.done.StartedAt, To: mark.StartedAt,
				Sweep: mark.Sweep, Health: w.reason}
		}
		w.done, w.stale, w.reason = mark, false, ""
	case w.done != nil:
		m = *w.done
	}
	if mark == nil {
		m.InProgress = &schemas.InProgress{Sweep: w.sweep}
	}
	w.nextBy = schemas.FloorTime(w.now.Add(15 * time.Second))
	m.NextBy = w.nextBy
	if !w.glanced.IsZero() {
		m.GlancedAt = schemas.FloorTime(w.glanced)
	}
	m.Agents, m.Online, m.Types = 0, 0, map[string]schemas.TypeCounts{}
	for _, k := range w.roster {
		if k.last.Data.Reason == schemas.Removed {
			continue
		}
		a := &k.last.Data.Agent
		n := m.Types[a.TypeToken()]
		m.Agents++
		n.Agents++
		if k.last.Data.Online {
			m.Online++
			n.Online++
			if a.Capacity != nil {
				n.Capacity += *a.Capacity
			}
		}
		m.Types[a.TypeToken()] = n
	}
	var out []Message
	for _, e := range events {
		out = append(out, Message{Subject: e.Subject(), Body: e.AppendJSON(nil),
			Header: map[string][]string{"Content-Type": {schemas.ContentTypeEvent},
				"Nats-TTL": {"168h"}}})
	}
	for _, e := range events {
		out = append(out, Message{Subject: schemas.StateSubject(tenant, e.Data.Agent.AgentID),
			Body: e.AppendJSON(nil),
			Header: map[string][]string{"Content-Type": {schemas.ContentTypeEvent},
				"Nats-Rollup": {"sub"}}})
	}
	if gap != nil {
		out = append(out, Message{Subject: schemas.UnobservedSubject(tenant),
			Body: gap.AppendJSON(nil), Header: map[string][]string{
				"Content-Type": {schemas.ContentTypeJSON}, "Nats-TTL": {"168h"}}})
	}
	if w.health != nil {
		out = append(out, Message{Subject: schemas.HealthSubject(tenant),
			Body: w.health.AppendJSON(nil), Header: map[string][]string{
				"Content-Type": {schemas.ContentTypeJSON}, "Nats-Rollup": {"sub"}}})
		w.health = nil
	}
	m.Instance, m.Commit = "test-1",
		schemas.Commit{ID: fmt.Sprint("commit-", w.commit), Messages: len(out) + 1}
	out = append(out, Message{Subject: schemas.WatermarkSubject(tenant), Body: m.AppendJSON(nil),
		Header: map[string][]string{"Content-Type": {schemas.ContentTypeJSON},
			"Nats-Rollup": {"sub"}}})
	for i := range out {
		out[i].Seq, out[i].Time = uint64(len(w.live)+1), w.now
		if len(out) > 1 {
			out[i].Header["Nats-Batch-Id"] = []string{m.Commit.ID}
			out[i].Header["Nats-Batch-Sequence"] = []string{fmt.Sprint(i + 1)}
		}
		w.live = append(w.live, out[i])
	}
}

// stored is what a stream keeps of the messages.
func stored(live []Message) []Message {
	var out []Message
	for i, m := range live {
		rolledUp := slices.ContainsFunc(live[i+1:], func(o Message) bool {
			return o.Subject == m.Subject
		})
		if m.isKept() || !rolledUp {
			out = append(out, m)
		}
	}
	return out
}

func (w *world) truth() Truth { return Truth{History: w.sim.History(), Pages: w.pages} }

// strict is how a world's log is checked.
func strict() Options {
	return Options{Tenant: tenant, Interval: 100 * time.Millisecond, Bound: 500 * time.Millisecond,
		RemovalBound: 900 * time.Millisecond, Quiescent: true}
}

// lived is a world with a bit of everything in it, at rest.
func lived(t testing.TB) *world {
	w := newWorld(t, 10)
	w.doSweep(nil)
	w.glances = true
	ids := w.sim.IDs()
	a, b, c, d := ids[0], ids[1], ids[2], ids[9]
	step := func(do func()) {
		w.pass(100 * time.Millisecond)
		do()
		w.pass(100 * time.Millisecond)
		w.doSweep(nil)
	}
	for range 2 {
		step(func() { w.sim.SetOnline(a, true) })
		step(func() { w.sim.SetOnline(a, false) })
	}
	// quiet
	step(func() {
		w.sim.Edit(b, isdpsim.Fields{"lastUpdateTimestamp": "1700000000000", "remark": `"x"`})
	})
	step(func() {
		w.sim.Edit(b, isdpsim.Fields{"areaName": `"东"`, "userId": `"12"`,
			"ext": `{"a" : [1, 2.50]}`, "cityId": ""})
	})
	step(func() { w.sim.SetOnline(c, true) })
	step(func() { w.sim.Remove(c) })
	step(func() {})
	step(func() {})
	step(func() { w.sim.Restore(c) })
	step(func() { w.sim.Delete(d) })
	step(func() {})
	step(func() { w.sim.Undelete(d) })
	step(func() { w.sim.AddAgent() })
	step(func() { w.pass(4 * time.Second) })  // staleAfter passes
	step(func() { w.pass(20 * time.Second) }) // nextBy too
	step(func() {
		w.pass(20 * time.Second)
		w.ail(schemas.Unreachable)
		w.cutOff()
		w.pass(time.Second)
		w.cutOff()
		w.ail("")
	})
	for range 8 {
		step(func() { w.sim.Churn(2) })
	}
	for range 4 {
		step(func() {})
	}
	return w
}

// edit gives the event with a sequence, and the states that repeat it, another body.
func edit(t testing.TB, live []Message, seq uint64, change func(*schemas.Event)) []Message {
	live = slices.Clone(live)
	old := live[seq-1].Body
	var e schemas.Event
	if err := e.UnmarshalJSON(old); err != nil {
		t.Fatal(err)
	}
	change(&e)
	for i := range live {
		if bytes.Equal(live[i].Body, old) {
			live[i].Body = e.AppendJSON(nil)
			if live[i].isEvent() {
				live[i].Subject = e.Subject()
			}
		}
	}
	return live
}
