package publisher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/rollcall-events/rollcall/schemas"
)

// readTimeout bounds the wait for the next message while the log is read.
const readTimeout = 10 * time.Second

// consumerPrefix begins the names of rollcall's own consumers. The embedded server keeps readers' hands off these.
const consumerPrefix = "rollcall-"

// Recovered is what the log says of a tenant, besides the states.
type Recovered struct {
	Watermark *schemas.Watermark // nil: none, or none that can be read
	Health    *schemas.Health    // nil: none
	LastSweep uint64             // the highest sweep number found
	Agents    int                // how many agents have a state

	lacking []schemas.Event // events whose state is older: a torn commit
}

// Recover reads what the log says of the tenant and makes it the position that the next commit expects. state is called with
// the last event of every agent; where it is called twice for an agent, the later call is right. What was read may have moved
// on by the end: then the next commit is refused, and the caller begins again.
func (p *Publisher) Recover(ctx context.Context, state func(*schemas.Event)) (*Recovered, error) {
	r, err := p.recover(ctx, state)
	if err != nil {
		return nil, fmt.Errorf("publisher: read tenant %d from the log: %w", p.cfg.Tenant, err)
	}
	return r, nil
}

func (p *Publisher) recover(ctx context.Context, state func(*schemas.Event)) (*Recovered, error) {
	r := &Recovered{}
	at := position{}
	from := uint64(1) // where a torn commit can begin
	reconnects := p.nc.Stats().Reconnects
	revisions := make(map[int64]uint64)
	t := p.cfg.Tenant

	// The watermark is the last message of every commit: a replica that has it has all that came before. So the three are read
	// together, and the watermark that came with the states is the one that the fence expects.
	err := p.read(ctx, jetstream.OrderedConsumerConfig{
		DeliverPolicy:  jetstream.DeliverLastPerSubjectPolicy,
		FilterSubjects: []string{fmt.Sprintf("agent.state.%d.*", t), schemas.WatermarkSubject(t), schemas.HealthSubject(t)},
	}, func(m jetstream.Msg, seq uint64) {
		switch m.Subject() {
		case schemas.WatermarkSubject(t):
			var w schemas.Watermark
			at, from = position{seq, "unreadable"}, seq+1
			if err := json.Unmarshal(m.Data(), &w); err != nil || w.TenantID != t || w.Commit.Messages < 1 {
				p.log.Error("the watermark in the log can't be read; going on from the states", "seq", seq, "err", err)
				return
			}
			at.commit, r.Watermark = w.Commit.ID, &w
			r.LastSweep = max(r.LastSweep, w.LastSweep())
			from = seq + 1 - min(seq, uint64(w.Commit.Messages))
		case schemas.HealthSubject(t):
			var h schemas.Health
			if err := json.Unmarshal(m.Data(), &h); err != nil || h.TenantID != t {
				p.log.Error("the health message in the log can't be read; it will be written anew", "seq", seq, "err", err)
				return
			}
			r.Health = &h
		default:
			e, err := decodeEvent(m, t)
			if err != nil {
				p.log.Error("a state in the log can't be read, and counts as no agent", "subject", m.Subject(), "seq", seq, "err", err)
				return
			}
			id := e.Data.Agent.AgentID
			if _, ok := revisions[id]; !ok {
				r.Agents++
			}
			revisions[id] = e.Data.Revision
			r.LastSweep = max(r.LastSweep, e.Data.Sweep)
			state(e)
		}
	})
	if err != nil {
		return nil, err
	}

	// Whatever stands above the last whole commit is a torn one: its events are the truth, and their states lack.
	lacking := make(map[int64]schemas.Event)
	err = p.read(ctx, jetstream.OrderedConsumerConfig{
		DeliverPolicy:  jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:    max(from, 1),
		FilterSubjects: eventFilters(t),
	}, func(m jetstream.Msg, seq uint64) {
		e, err := decodeEvent(m, t)
		if err != nil {
			p.log.Error("an event in the log can't be read", "subject", m.Subject(), "seq", seq, "err", err)
			return
		}
		id := e.Data.Agent.AgentID
		if e.Data.Revision <= revisions[id] {
			return
		}
		if _, ok := revisions[id]; !ok {
			r.Agents++
		}
		revisions[id] = e.Data.Revision
		r.LastSweep = max(r.LastSweep, e.Data.Sweep)
		lacking[id] = *e
		state(e)
	})
	if err != nil {
		return nil, err
	}
	for _, e := range lacking {
		r.lacking = append(r.lacking, e)
	}
	if len(r.lacking) > 0 {
		p.log.Warn("the log ends in a commit that is torn: its events count, and their states are written anew", "agents", len(r.lacking))
	}
	p.advance(at)
	p.reconnects = reconnects
	return r, nil
}

// TakeOver shuts every earlier writer out with a watermark of our own, and completes what a torn commit left undone. Whoever
// leads (see [Publisher.Lead]) asks for the lease first, so that of two replicas which both think that they lead only one
// shuts the other out: the other gets [ErrLeaseLost].
func (p *Publisher) TakeOver(ctx context.Context, r *Recovered, w schemas.Watermark) error {
	if p.lease != nil {
		if err := p.lease.confirm(ctx); err != nil {
			return fmt.Errorf("publisher: take over the log of tenant %d: %w", p.cfg.Tenant, err)
		}
	}
	for {
		n := min(len(r.lacking), maxMessages-1)
		msgs, id := p.messages(Batch{Watermark: w}, r.lacking[:n])
		if err := p.commit(ctx, msgs, id); err != nil {
			return err
		}
		if r.lacking = r.lacking[n:]; len(r.lacking) == 0 {
			return nil
		}
	}
}

// read delivers every message that the consumer finds now.
func (p *Publisher) read(ctx context.Context, cfg jetstream.OrderedConsumerConfig, each func(m jetstream.Msg, seq uint64)) error {
	cfg.InactiveThreshold = time.Minute
	cfg.NamePrefix = consumerPrefix + nuid.Next()
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
	messages, err := c.Messages()
	if err != nil {
		return fmt.Errorf("consume: %w", err)
	}
	defer messages.Stop()
	for {
		m, err := p.next(ctx, messages)
		if err != nil {
			return fmt.Errorf("wait for the next message: %w", err)
		}
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

func (p *Publisher) next(ctx context.Context, messages jetstream.MessagesContext) (jetstream.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	return messages.Next(jetstream.NextContext(ctx))
}

func eventFilters(tenant int64) []string {
	var out []string
	for _, t := range []schemas.EventType{schemas.Online, schemas.Offline, schemas.Updated} {
		out = append(out, fmt.Sprintf("%s.%d.>", t, tenant))
	}
	return out
}

func decodeEvent(m jetstream.Msg, tenant int64) (*schemas.Event, error) {
	var e schemas.Event
	if err := json.Unmarshal(m.Data(), &e); err != nil {
		return nil, err
	}
	s, err := schemas.ParseSubject(m.Subject())
	if err != nil {
		return nil, err
	}
	if s.Tenant != tenant || e.Data.Agent.TenantID != tenant || e.Data.Agent.AgentID != s.AgentID {
		return nil, errors.New("it is not the agent's that its subject names")
	}
	return &e, nil
}
