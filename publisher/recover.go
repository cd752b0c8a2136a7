package publisher

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/schemas"
)

// readTimeout bounds the wait for the next message while the log is read. A server that finds that
// a state has been replaced since the consumer was created stands still until something new comes
// (seen with nats-server 2.15.2): reading anew helps.
const readTimeout = 4 * time.Second

// forgottenSweeps is how many sweeps may have been since the last one that changed anything, where
// the watermark that said so can't be read any more: sweep numbers go on above them.
const forgottenSweeps = 1 << 20

// consumerPrefix begins the names of rollcall's own consumers. The embedded server keeps readers'
// hands off these.
const consumerPrefix = "rollcall-"

// Recovered is what the log says of a tenant, besides the states.
type Recovered struct {
	Watermark *schemas.Watermark // nil: none, none that can be read, or one that vouches for a commit of which a part is missing
	Health    *schemas.Health    // nil: none
	LastSweep uint64             // the highest sweep number found
	Agents    int                // how many agents have a state

	lackingStates []lackingState // states that are older than their agent's last event, or missing
}

// A lackingState is what an agent's state has to be: its last event.
type lackingState struct {
	agent int64
	body  []byte
}

// TakeOver reads what the log says of the tenant, and shuts every earlier writer out with a first
// watermark of our own, the one that first makes of what was read. From then on Commit may be
// called. state is called with the state of every agent, which it may keep; where it is called
// twice for an agent, the later call is right.
//
// After an error nothing may be committed until a later call succeeds. Whoever leads (see
// [Publisher.Lead]) asks for the lease before writing, so that of two replicas which both think
// that they lead only one shuts the other out: the other gets [ErrLeaseLost].
func (p *Publisher) TakeOver(
	ctx context.Context, state func(*packed.State), first func(*Recovered) schemas.Watermark,
) (*Recovered, error) {
	began := time.Now()
	r, err := p.recover(ctx, state)
	if err != nil {
		p.fails(began, err)
		return nil, fmt.Errorf("publisher: read tenant %d from the log: %w", p.cfg.Tenant, err)
	}
	if err := p.shutOut(ctx, r, first(r)); err != nil {
		return nil, err
	}
	return r, nil
}

// recover reads what the log says, and makes it the position that the next commit expects. What was
// read may have moved on by the end: then that commit is refused.
func (p *Publisher) recover(ctx context.Context, state func(*packed.State)) (*Recovered, error) {
	reconnects := p.nc.Stats().Reconnects
	if err := p.prepare(ctx); err != nil { // the server may have come back without what it had
		return nil, err
	}
	s := &reading{p: p, state: state, from: 1, revisions: make(map[int64]uint64), lacking: make(map[int64][]byte)}
	t := p.cfg.Tenant

	// The watermark is the last message of every commit: a replica that has it has all that came
	// before. So the three are read together, and the watermark that came with the states is the
	// one that the fence expects.
	err := p.read(ctx, jetstream.OrderedConsumerConfig{
		DeliverPolicy:  jetstream.DeliverLastPerSubjectPolicy,
		FilterSubjects: []string{fmt.Sprintf("agent.state.%d.*", t), schemas.WatermarkSubject(t), schemas.HealthSubject(t)},
	}, func(m jetstream.Msg, seq uint64) {
		switch m.Subject() {
		case schemas.WatermarkSubject(t):
			s.watermark(m, seq)
		case schemas.HealthSubject(t):
			s.health(m, seq)
		default:
			s.stateMessage(m, seq)
		}
	})
	if err != nil {
		return nil, err
	}
	// Whatever stands above the last whole commit is a torn one: its events are the truth, and
	// their states lack.
	if s.doubtful {
		s.from = 1
	}
	err = p.read(ctx, jetstream.OrderedConsumerConfig{
		DeliverPolicy:  jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:    s.from,
		FilterSubjects: eventFilters(t),
	}, func(m jetstream.Msg, seq uint64) {
		e, sweep, err := readEvent(m, t)
		if err != nil {
			p.log.Error("an event in the log is none", "subject", m.Subject(), "seq", seq, "err", err)
			return
		}
		if id := e.Agent.AgentID(); e.Revision > s.revisions[id] {
			s.lacking[id] = m.Data()
			s.found(e, sweep)
		}
	})
	if err != nil {
		return nil, err
	}
	for id, body := range s.lacking {
		s.lackingStates = append(s.lackingStates, lackingState{id, body})
	}
	if n := len(s.lacking); n > 0 {
		p.log.Warn("the log has events whose states it lacks: they count, and the states are written anew", "agents", n)
	}
	switch w := s.Watermark; {
	case s.at.seq == 0:
	case w == nil:
		s.LastSweep += forgottenSweeps
	case w.Commit.Messages > 1:
		whole, err := p.whole(ctx, s.at.seq, w.Commit.Messages)
		if err != nil {
			return nil, fmt.Errorf("look whether the last commit is whole: %w", err)
		}
		if !whole {
			p.log.Error("the last commit in the log is torn, so nobody can tell up to which sweep everything is published", "seq", s.at.seq, "sweep", w.Sweep)
			s.Watermark = nil
		}
	}
	s.Agents = len(s.revisions)
	p.gaps = nil
	p.advance(s.at)
	p.reconnects = reconnects
	return &s.Recovered, nil
}

// A reading is what Recover has found so far.
type reading struct {
	Recovered
	p         *Publisher
	state     func(*packed.State)
	at        position
	from      uint64           // where to look for events that are newer than their states
	doubtful  bool             // a state is none: all events have to be looked at
	revisions map[int64]uint64 // of the agents found so far
	lacking   map[int64][]byte // the last events of agents whose state is older
}

func (s *reading) watermark(m jetstream.Msg, seq uint64) {
	s.at = position{seq, "unreadable"}
	w, err := decodeWatermark(m.Data(), s.p.cfg.Tenant)
	if err != nil {
		s.p.log.Error("the watermark in the log is none: reading all events that the log still has", "seq", seq, "err", err)
		return
	}
	s.at.commit, s.Watermark = w.Commit.ID, w
	s.LastSweep = max(s.LastSweep, w.LastSweep())
	s.from = seq + 1 - min(seq, uint64(w.Commit.Messages))
}

// maxSweep is a number that no sweep reaches.
const maxSweep = 1 << 53

// decodeWatermark reads a watermark, and refuses what rollcall would not have written.
func decodeWatermark(data []byte, tenant int64) (*schemas.Watermark, error) {
	var w schemas.Watermark
	if err := json.Unmarshal(data, &w); err != nil {
		return nil, err
	}
	complete := w.Sweep > 0
	switch {
	case w.TenantID != tenant:
		return nil, errors.New("it is another tenant's")
	case w.Commit.ID == "" || w.Commit.Messages < 1:
		return nil, errors.New("it names no commit")
	case w.LastSweep() > maxSweep:
		return nil, errors.New("there can't have been so many sweeps")
	case w.StartedAt.IsZero() == complete || w.CompletedAt.IsZero() == complete || w.StaleAfter.IsZero() == complete:
		return nil, errors.New("it lacks times, or has some before any complete sweep")
	}
	return &w, nil
}

func (s *reading) health(m jetstream.Msg, seq uint64) {
	var h schemas.Health
	if err := json.Unmarshal(m.Data(), &h); err != nil || h.TenantID != s.p.cfg.Tenant {
		s.p.log.Error("the health message in the log is none; it will be written anew", "seq", seq, "err", err)
		return
	}
	s.Health = &h
}

func (s *reading) stateMessage(m jetstream.Msg, seq uint64) {
	state, sweep, err := readEvent(m, s.p.cfg.Tenant)
	if err == nil {
		s.found(state, sweep)
		return
	}
	s.p.log.Error("a state in the log is none: reading all events that the log still has", "subject", m.Subject(), "seq", seq, "err", err)
	s.doubtful = true
}

func (s *reading) found(state *packed.State, sweep uint64) {
	s.revisions[state.Agent.AgentID()] = state.Revision
	s.LastSweep = max(s.LastSweep, sweep)
	s.state(state)
}

// shutOut shuts every earlier writer out with a watermark of our own, and completes what a torn
// commit left undone.
func (p *Publisher) shutOut(ctx context.Context, r *Recovered, w schemas.Watermark) error {
	if p.lease != nil {
		if err := p.lease.confirm(ctx); err != nil {
			return fmt.Errorf("publisher: take over the log of tenant %d: %w", p.cfg.Tenant, err)
		}
	}
	r.lackingStates = slices.DeleteFunc(r.lackingStates, func(s lackingState) bool {
		size, limit := len(s.body), MaxBody(p.nc)
		if size > limit {
			p.log.Error("a state that the stream lacks is larger than the server takes, and stays as it was until the agent's next event; "+
				"raise the server's max_payload", "agent", s.agent, "bytes", size, "limit", limit)
		}
		return size > limit
	})
	for {
		n := min(len(r.lackingStates), maxMessages-1)
		msgs, id := p.messages(Batch{Watermark: w}, r.lackingStates[:n])
		if err := p.commit(ctx, msgs, id); err != nil {
			return err
		}
		if r.lackingStates = r.lackingStates[n:]; len(r.lackingStates) == 0 {
			return nil
		}
	}
}

// read delivers every message that the consumer finds now.
func (p *Publisher) read(ctx context.Context, cfg jetstream.OrderedConsumerConfig, each func(m jetstream.Msg, seq uint64)) error {
	cfg.InactiveThreshold = time.Minute
	cfg.NamePrefix = consumerPrefix + rand.Text() // which nobody can guess, to ask for its messages
	c, err := p.js.OrderedConsumer(ctx, schemas.Stream, cfg)
	if err != nil {
		return fmt.Errorf("create a consumer: %w", err)
	}
	info := c.CachedInfo()
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = p.js.DeleteConsumer(ctx, schemas.Stream, c.CachedInfo().Name) // it would go by itself
	}()
	if info.NumPending == 0 {
		return nil
	}
	messages, err := c.Messages(jetstream.PullMaxMessages(readAhead))
	if err != nil {
		return fmt.Errorf("consume: %w", err)
	}
	defer messages.Stop()
	// One timer for all messages: a context for each would cost more than most of them.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stuck := time.AfterFunc(readTimeout, func() { cancel(fmt.Errorf("the server sent nothing for %v", readTimeout)) })
	defer stuck.Stop()
	for {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return fmt.Errorf("wait for the next message: %w", err)
		}
		stuck.Reset(readTimeout)
		meta, err := m.Metadata()
		if err != nil {
			return fmt.Errorf("read a message's metadata: %w", err)
		}
		each(m, meta.Sequence.Stream)
		if meta.NumPending == 0 {
			return nil
		}
	}
}

// readAhead is how many messages the server may send before more are asked for.
const readAhead = 2000

func eventFilters(tenant int64) []string {
	var out []string
	for _, t := range []schemas.EventType{schemas.Online, schemas.Offline, schemas.Updated} {
		out = append(out, fmt.Sprintf("%s.%d.>", t, tenant))
	}
	return out
}
