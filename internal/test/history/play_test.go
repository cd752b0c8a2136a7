package history

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/rollcall-events/rollcall/schemas"
)

// A play writes the history of a tenant, made by chance, to a real stream, as the contract has it.
// It plays a vendor, and the least rollcall: one that reads the whole listing at once. What takes
// that hours takes the play milliseconds.
type play struct {
	t      *testing.T
	ctx    context.Context
	js     jetstream.JetStream
	rand   *rand.Rand
	tenant int64
	ttl    string
	taken  int // how many agents there have been

	listed map[int64]*schemas.Agent // the vendor's
	polled []string                 // none: all in one listing

	known     map[int64]*known
	published map[int64]schemas.Event // each agent's last one
	sweep     uint64
	commits   int
	replica   int
	done      *schemas.Watermark // the last complete sweep's, as published
	ended     *schemas.Watermark // the last complete sweep's, published or not
	nextBy    time.Time          // the last watermark's
	passed    bool               // a nextBy passed since
	reason    schemas.HealthReason
	asked     schemas.HealthReason // to be told with the next commit
	waiting   []func()             // commits that wait for the broker
	away      bool                 // it is not there
	last      string               // the last commit's id
	clock     time.Time
	stored    []stored
	counts    map[string]int
}

// known is what rollcall knows of an agent.
type known struct {
	e      schemas.Event // the last one
	seen   time.Time     // when the request was sent that last showed the agent as it is
	looked bool          // by this replica
	absent int
}

// stored is when the broker stored the messages up to a sequence.
type stored struct {
	seq uint64
	at  time.Time
}

const (
	beat   = time.Second
	stale  = 20 * time.Second // from the end of a sweep to staleAfter
	silent = 30 * time.Second // from a watermark to its nextBy
)

// opening is when plays begin: by their own clock, which is behind all others, a play's hours take
// as long as it takes to write them.
var opening = time.Date(2026, 3, 28, 21, 0, 0, 0, time.UTC)

var types = []string{"0", "1", "10", "no type"}

func newPlay(t *testing.T, js jetstream.JetStream, tenant int64, seed uint64, ttl string) *play {
	p := &play{t: t, ctx: t.Context(), js: js, rand: rand.New(rand.NewPCG(seed, 15)),
		tenant: tenant, ttl: ttl, listed: map[int64]*schemas.Agent{}, known: map[int64]*known{},
		published: map[int64]schemas.Event{}, counts: map[string]int{}, clock: opening}
	for range 6 {
		p.add()
	}
	return p
}

// rest lets some time pass, and says what time it is. No two moments are in the same millisecond.
func (p *play) rest(d time.Duration) time.Time {
	p.clock = p.clock.Add(d + 3*time.Millisecond + time.Duration(p.rand.IntN(1000_000)))
	return p.clock
}

// inOrder goes through a map so that chance alone decides.
func inOrder[V any](m map[int64]V) iter.Seq2[int64, V] {
	return func(yield func(int64, V) bool) {
		for _, id := range slices.Sorted(maps.Keys(m)) {
			if v, ok := m[id]; ok && !yield(id, v) {
				return
			}
		}
	}
}

// one is any of the agents that are listed; nil: there is none.
func (p *play) one() *schemas.Agent {
	if len(p.listed) == 0 {
		return nil
	}
	ids := slices.Sorted(maps.Keys(p.listed))
	return p.listed[ids[p.rand.IntN(len(ids))]]
}

// change lets the vendor change something.
func (p *play) change() {
	a := p.one()
	n := p.rand.IntN(20)
	switch {
	case a == nil || n == 0:
		p.add()
	case n < 9:
		a.OnlineStatus = 1 - a.OnlineStatus
	case n < 11:
		a.AreaName = pick(p.rand, nil, ptr("east"), ptr("west"), ptr(""))
	case n == 11:
		a.Capacity = pick(p.rand, nil, ptr(int64(0)), ptr(int64(3)), ptr(int64(12)))
	case n == 12:
		a.Type = pick(p.rand, nil, &types[0], &types[1], &types[2], &types[3])
	case n == 13: // quiet
		a.LastUpdateTimestamp = ptr(p.rand.Int64N(1 << 40))
		a.Other = []schemas.Field{{Name: "remark",
			Value: json.RawMessage(fmt.Sprint(p.rand.IntN(9)))}}
	case n == 14:
		a.Other = nil
	case n < 17:
		a.DeleteFlag = pick(p.rand, nil, ptr(int64(0)), ptr(int64(1)))
	default: // it leaves, or another one is there again
		delete(p.listed, a.AgentID)
		for id, k := range inOrder(p.known) {
			if p.listed[id] == nil && p.rand.IntN(3) == 0 {
				again := k.e.Data.Agent
				again.OnlineStatus = int64(p.rand.IntN(2))
				again.DeleteFlag = nil
				p.listed[id] = &again
				break
			}
		}
	}
}

func (p *play) add() {
	p.taken++
	id := int64(p.taken)
	if p.taken%5 == 0 {
		id += 1 << 53
	}
	a := &schemas.Agent{AgentID: id, TenantID: p.tenant, OnlineStatus: int64(p.rand.IntN(2)),
		AgentName: ptr(fmt.Sprintf("agent %d", p.taken)),
		Type:      &types[p.rand.IntN(len(types))], Capacity: ptr(int64(p.rand.IntN(5)))}
	p.listed[id] = a
}

func ptr[T any](v T) *T { return &v }

func pick[T any](r *rand.Rand, all ...T) T { return all[r.IntN(len(all))] }

// isPolled reports whether a listing that is polled shows the agent.
func (p *play) isPolled(a *schemas.Agent) bool {
	return len(p.polled) == 0 || a.Type != nil && slices.Contains(p.polled, *a.Type)
}

// look makes a sweep. One that is cut off has read only a part.
func (p *play) look(complete bool) {
	p.sweep++
	sent := p.rest(beat)
	var rows []schemas.Agent
	for _, a := range inOrder(p.listed) {
		if p.isPolled(a) && (complete || p.rand.IntN(2) == 0) {
			rows = append(rows, *a)
		}
	}
	read := p.rest(beat)
	var events []schemas.Event
	for _, a := range rows {
		if e, ok := p.observe(a, sent, read); ok {
			events = append(events, e)
		}
	}
	for len(events) > 0 && (!complete || p.rand.IntN(2) == 0) {
		n := 1 + p.rand.IntN(len(events))
		p.send(events[:n], nil)
		events = events[n:]
	}
	if !complete {
		p.counts["cut off"]++
		return
	}
	over := p.rest(beat)
	missing := 0
	for id, k := range inOrder(p.known) {
		a := &k.e.Data.Agent
		switch {
		case k.e.Data.Reason == schemas.Removed || !p.isPolled(a):
		case slices.ContainsFunc(rows, func(r schemas.Agent) bool { return r.AgentID == id }):
			k.absent = 0
		default:
			if k.absent++; k.absent < 2 {
				missing++
				continue
			}
			p.counts["gone"]++
			events = append(events, p.next(k, *a, schemas.Removed, nil, p.before(k), over))
		}
	}
	mark := &schemas.Watermark{Sweep: p.sweep, Polled: p.polled,
		StartedAt:   schemas.FloorTime(sent),
		CompletedAt: schemas.CeilTime(over),
		StaleAfter:  schemas.CeilTime(over.Add(stale)), Missing: missing}
	p.ended = mark
	p.send(events, mark)
}

// before is when the agent was last seen as it is.
func (p *play) before(k *known) time.Time {
	switch {
	case k.looked:
		return k.seen
	case p.ended == nil || p.ended.Missing > 0 ||
		len(p.ended.Polled) > 0 && !slices.Contains(p.ended.Polled, k.e.Data.Agent.TypeToken()):
		return k.e.Time
	}
	return p.ended.StartedAt
}

// observe makes the event that a row gives rise to.
func (p *play) observe(a schemas.Agent, sent, read time.Time) (schemas.Event, bool) {
	k := p.known[a.AgentID]
	if k == nil {
		if !a.There() {
			return schemas.Event{}, false
		}
		k = &known{}
		p.known[a.AgentID] = k
		reason, before := schemas.Appeared, time.Time{}
		switch {
		case p.ended == nil:
			reason = schemas.Baseline
		case len(p.ended.Polled) == 0 ||
			len(p.polled) > 0 && slices.Contains(p.ended.Polled, *a.Type):
			before = p.ended.StartedAt // else it may have been there, where nobody looked
		}
		e := p.next(k, a, reason, nil, before, read)
		k.seen, k.looked = sent, true
		return e, true
	}
	was := k.e.Data
	if was.Reason == schemas.Removed && !a.There() {
		return schemas.Event{}, false
	}
	k.absent = 0
	changes := schemas.Changes(&was.Agent, &a)
	reason := schemas.Fields
	switch {
	case was.Reason == schemas.Removed:
		reason = schemas.Appeared
	case !a.There():
		reason = schemas.Removed
	case a.Online() != was.Online:
		reason = schemas.Status
	case !slices.ContainsFunc(changes, func(c schemas.Change) bool {
		return schemas.Listed(c.Field) && c.Field != "lastUpdateTimestamp"
	}):
		k.seen, k.looked = sent, true
		return schemas.Event{}, false
	}
	before := p.before(k)
	if reason == schemas.Fields && !k.looked {
		before = k.e.Time
	}
	e := p.next(k, a, reason, changes, before, read)
	k.seen, k.looked = sent, true
	return e, true
}

func (p *play) next(k *known, a schemas.Agent, reason schemas.Reason, changes []schemas.Change,
	before, at time.Time) schemas.Event {
	was := k.e.Data
	e := schemas.Event{Type: schemas.Updated, Time: schemas.CeilTime(at), Data: schemas.EventData{
		Revision: was.Revision + 1, Reason: reason, Sweep: p.sweep,
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
	if p.rand.IntN(4) == 0 { // as if all of it did not fit into a message
		e.Data.Changes = slices.DeleteFunc(slices.Clone(changes), func(c schemas.Change) bool {
			return !schemas.Listed(c.Field)
		})
		e.Data.ChangesTruncated = len(e.Data.Changes) < len(changes)
	}
	k.e = e
	p.counts[string(reason)]++
	return e
}

// send makes a commit, now or when the broker is back; mark nil: the sweep goes on.
func (p *play) send(events []schemas.Event, mark *schemas.Watermark) {
	sweep := p.sweep
	p.waiting = append(p.waiting, func() { p.commit(slices.Clone(events), mark, sweep) })
	if !p.away {
		p.flush()
	}
}

func (p *play) flush() {
	for _, do := range p.waiting {
		do()
		p.rest(beat)
	}
	p.waiting = nil
}

// commit publishes one batch.
func (p *play) commit(events []schemas.Event, mark *schemas.Watermark, sweep uint64) {
	p.commits++
	now := p.rest(0) // no message is stored before it has been made
	p.passed = p.passed || p.done != nil && now.After(p.nextBy)
	var w schemas.Watermark
	var gaps []schemas.Unobserved
	switch {
	case mark != nil:
		w = *mark
		if p.done != nil {
			gap := schemas.Unobserved{TenantID: p.tenant, From: p.done.StartedAt,
				To: mark.StartedAt, Sweep: mark.Sweep}
			if p.passed || mark.CompletedAt.After(p.done.StaleAfter) {
				whole := gap
				whole.Health = p.reason
				gaps = append(gaps, whole)
				p.counts["unobserved"]++
			}
			for _, t := range mark.Polled {
				if len(p.done.Polled) > 0 && !slices.Contains(p.done.Polled, t) {
					gap.Types = append(gap.Types, t)
				}
			}
			if gap.Types != nil {
				gaps = append(gaps, gap)
				p.counts["types added"]++
			}
		}
		p.done, p.passed, p.reason = mark, false, ""
	case p.done != nil:
		w = *p.done
	}
	if mark == nil && sweep > w.Sweep {
		w.InProgress = &schemas.InProgress{Sweep: sweep}
	}
	w.TenantID, w.Instance = p.tenant, fmt.Sprintf("replica-%d", p.replica)
	p.nextBy = schemas.CeilTime(now.Add(silent))
	w.NextBy = p.nextBy
	p.count(&w, events)

	var batch []*nats.Msg
	add := func(subject string, body []byte, header ...string) {
		m := nats.NewMsg("rollcall.log." + subject[len("agent."):])
		m.Data = body
		for i := 0; i < len(header); i += 2 {
			m.Header.Set(header[i], header[i+1])
		}
		batch = append(batch, m)
	}
	for _, e := range events {
		add(e.Subject(), e.AppendJSON(nil), "Content-Type", schemas.ContentTypeEvent,
			"Nats-TTL", p.ttl)
	}
	last := map[int64]*schemas.Event{}
	for i := range events {
		last[events[i].Data.Agent.AgentID] = &events[i]
	}
	for id, e := range inOrder(last) {
		add(schemas.StateSubject(p.tenant, id), e.AppendJSON(nil),
			"Content-Type", schemas.ContentTypeEvent, "Nats-Rollup", "sub")
	}
	if p.asked != "" {
		h := schemas.Health{TenantID: p.tenant, State: schemas.HealthFailing, Reason: p.asked,
			Since: schemas.FloorTime(now)}
		if p.asked == "ok" {
			h.State, h.Reason = schemas.HealthOK, ""
		} else {
			p.reason = p.asked
		}
		p.asked = ""
		add(schemas.HealthSubject(p.tenant), h.AppendJSON(nil),
			"Content-Type", schemas.ContentTypeJSON, "Nats-Rollup", "sub")
	}
	for _, g := range gaps {
		add(schemas.UnobservedSubject(p.tenant), g.AppendJSON(nil),
			"Content-Type", schemas.ContentTypeJSON, "Nats-TTL", p.ttl)
	}
	p.last = fmt.Sprintf("%d-%d", p.tenant, p.commits)
	w.Commit = schemas.Commit{ID: p.last, Messages: len(batch) + 1}
	add(schemas.WatermarkSubject(p.tenant), w.AppendJSON(nil),
		"Content-Type", schemas.ContentTypeJSON, "Nats-Rollup", "sub")
	if len(batch) == 1 {
		ack, err := p.js.PublishMsg(p.ctx, batch[0])
		if err != nil {
			p.t.Fatal(err)
		}
		p.stored = append(p.stored, stored{ack.Sequence, now})
		return
	}
	ack, err := jetstreamext.PublishMsgBatch(p.ctx, p.js, batch)
	if err != nil {
		p.t.Fatal(err)
	}
	p.stored = append(p.stored, stored{ack.Sequence, now})
}

// count counts the published agents, these events included.
func (p *play) count(w *schemas.Watermark, events []schemas.Event) {
	for _, e := range events {
		p.published[e.Data.Agent.AgentID] = e
	}
	w.Types = map[string]schemas.TypeCounts{}
	for _, e := range p.published {
		a := &e.Data.Agent
		if e.Data.Reason == schemas.Removed {
			continue
		}
		n := w.Types[a.TypeToken()]
		w.Agents++
		n.Agents++
		if e.Data.Online {
			w.Online++
			n.Online++
			if a.Capacity != nil {
				n.Capacity += *a.Capacity
			}
		}
		w.Types[a.TypeToken()] = n
	}
}

// act does one thing, by chance.
func (p *play) act() {
	for range p.rand.IntN(5) {
		p.change()
	}
	switch n := p.rand.IntN(30); {
	case n < 17:
		p.look(true)
	case n < 20:
		p.look(false)
	case n == 20: // the vendor is away
		if p.waiting == nil && p.done != nil {
			p.asked = schemas.Unreachable
			p.send(nil, nil)
			p.rest(stale + silent)
			p.asked = "ok"
			p.counts["outage"]++
		}
		p.look(true)
	case n == 21:
		p.rest(stale)
		p.look(false)
		p.look(true)
	case n < 25: // the replica is killed
		p.counts["killed"]++
		p.kill(n == 22)
	case n == 25: // the broker is away
		p.away = true
		p.counts["broker away"]++
		for range 2 + p.rand.IntN(4) {
			p.change()
			p.look(p.rand.IntN(4) > 0)
			p.rest(silent / 3)
		}
		p.away = false
		p.flush()
	case n < 28: // other types are polled from now on
		p.kill(false)
		all := []string{"0", "1", "10"}
		switch n := len(p.polled); {
		case n == 0:
			p.polled = all[p.rand.IntN(3):]
		case n == 3 || p.rand.IntN(4) == 0:
			p.polled = nil
		default:
			p.polled = all[2-n:]
		}
		p.look(true)
	default:
		p.rest(silent + beat)
	}
}

// kill ends the replica, and another one takes over, later or at once.
func (p *play) kill(later bool) {
	if later {
		p.rest(silent + stale)
	}
	p.replica++
	for _, k := range p.known {
		k.looked, k.absent = false, 0
	}
	p.sweep++
	p.send(nil, nil) // it takes the stream over
}
