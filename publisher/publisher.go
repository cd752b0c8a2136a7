// Package publisher reads and writes the stream: one JetStream stream that holds every tenant's
// events, states, watermarks, health and unobserved intervals, and that is written in fenced atomic
// commits only.
//
// A commit is one atomic batch: events, the states they lead to, health where it changed, an
// unobserved interval where a sweep ended one, and last the tenant's watermark, which expects the
// watermark before it (Nats-Expected-Last-Subject-Sequence). That is the fence: whoever commits has
// seen the commit before, and everybody else is refused by the stream itself. A commit that was
// sent is immutable until it is resolved: it is sent again with the same bytes and the same
// expectation until the stream's leader shows a watermark that says that it is stored, or that
// somebody else's is. So nothing is committed twice, whatever becomes of the acknowledgements.
//
// Ordering: the messages of a commit follow one another in the stream, and commits follow one
// another in the order of Commit's calls. Commits can't be pipelined.
//
// The parts: a [Reader] reads the stream (reader.go, recover.go), a writer writes it (writer.go,
// failing.go), and the lease keeps replicas from polling beside one another (lease.go). What the
// stream and the bucket have to be is in stream.go. An [Alarm] (alarm.go) is beside all of that.
package publisher

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/nats-io/nats.go"

	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/internal/setting"
	"github.com/rollcall-events/rollcall/schemas"
)

// MaxChanges is how many changed agents fit into one commit: an event and a state each, health, an
// unobserved interval and the watermark, within the server's default limit of 1000 messages an
// atomic batch.
const MaxChanges = (maxMessages - 3) / 2

const maxMessages = 1000

// Errors of Commit that the caller decides upon. All others, a *[SetupError] excepted, mean that
// the commit is not resolved.
var (
	// ErrSuperseded: somebody else has committed, or the stream is not what it was. The commit is
	// not in the stream, but for what a server that ran full may have stored of it. Take over
	// again, and form it again.
	ErrSuperseded = errors.New("the stream has moved on without us")
	// ErrTampered: the commit is in the stream, and so is a message about the tenant's agents that
	// no commit brought. Take over again, which puts right what it can.
	ErrTampered = errors.New("somebody else writes to the stream")
	// ErrTooLarge: the server takes no batch of that size. Nothing of the commit is in the stream.
	// Form smaller ones.
	ErrTooLarge = errors.New("the server refuses a batch of this size")
	// ErrMaxBody: an event of the commit is larger than [MaxBody], which has become smaller with a
	// new connection. Nothing of the commit is in the stream. Form it again.
	ErrMaxBody = errors.New("an event is larger than the server takes now")
)

// SetupError is an error that waiting does not mend: the server, the stream or the bucket is not
// what rollcall needs.
type SetupError struct {
	Err  error
	Hint string // what to do; may name fields of Config in braces, see [setting.Text]
}

func (e *SetupError) Error() string {
	if e.Hint == "" {
		return e.Err.Error()
	}
	return e.Err.Error() + ": " + setting.Text(e.Hint)
}

func (e *SetupError) Unwrap() error { return e.Err }

// final ends whoever tries again where that is of no use.
func final(err error) error {
	if errors.As(err, new(*SetupError)) || errors.Is(err, ErrSuperseded) {
		return backoff.Permanent(err)
	}
	return err
}

// Publisher writes one tenant's part of the stream. Its methods must not be called concurrently,
// but for those of its Reader, Leading and Failing, and those that are called within Lead.
type Publisher struct {
	*Reader
	*writer
	lease   *lease // the one that Lead holds, or held last; nil: none
	leading atomic.Bool
}

// Open prepares the stream on the server that nc is connected to: it creates the stream and the
// bucket where they are missing and Manage says so, and checks them where they exist. A
// *[SetupError] is final; other errors may pass.
func Open(ctx context.Context, nc *nats.Conn, cfg Config) (*Publisher, error) {
	r := NewReader(nc, cfg)
	if err := prepare(ctx, r); err != nil {
		return nil, fmt.Errorf("publisher: %w", err)
	}
	// The metrics come last, so that Open can be called again.
	return &Publisher{Reader: r, writer: &writer{Reader: r, metrics: newMetrics(cfg.Metrics)}}, nil
}

// TakeOver reads what the stream says of the tenant, and shuts every earlier writer out with a
// first watermark of our own, the one that first makes of what was read; lapsed is [Batch]'s. From
// then on Commit may be called. state is called with the state of every agent, which it may keep;
// where it is called twice for an agent, the later call is right.
//
// After an error nothing may be committed until a later call succeeds. Whoever leads (see
// [Publisher.Lead]) asks for the lease before writing, so that of two replicas which both think
// that they lead only one shuts the other out: the other gets [ErrLeaseLost].
func (p *Publisher) TakeOver(
	ctx context.Context, state func(*packed.State),
	first func(*Recovered) (w schemas.Watermark, lapsed bool),
) (*Recovered, error) {
	began := time.Now()
	r, err := p.recover(ctx, state)
	if err != nil {
		p.fails(began, err)
		return nil, fmt.Errorf("publisher: read tenant %d from the stream: %w", p.cfg.Tenant, err)
	}
	w, lapsed := first(r)
	if err := p.shutOut(ctx, r, Batch{Watermark: w, Lapsed: lapsed}); err != nil {
		return nil, err
	}
	return r, nil
}

// recover reads the stream, and has the next commit expect what was read. That may have moved on
// by the end: then the commit is refused.
func (p *Publisher) recover(ctx context.Context, state func(*packed.State)) (*Recovered, error) {
	reconnects := p.nc.Stats().Reconnects
	if err := prepare(ctx, p.Reader); err != nil { // the server may be back without what it had
		return nil, err
	}
	r, at, err := p.read(ctx, state)
	if err != nil {
		return nil, err
	}
	p.begin(at, r.Watermark, reconnects)
	return r, nil
}

// shutOut shuts every earlier writer out with a watermark of our own, and completes what a torn
// commit left undone.
func (p *Publisher) shutOut(ctx context.Context, r *Recovered, b Batch) error {
	if p.lease != nil {
		if err := p.lease.confirm(ctx); err != nil {
			return fmt.Errorf("publisher: take over the stream of tenant %d: %w", p.cfg.Tenant, err)
		}
	}
	for {
		states := make(map[int64][]byte)
		for agent, body := range r.behind {
			if len(states) == maxMessages-1 {
				break
			}
			delete(r.behind, agent)
			if limit := MaxBody(p.nc); len(body) > limit {
				p.log.Error("a missing state is larger than the server takes, so readers see an "+
					"old one until the agent's next event: raise the server's max_payload",
					"agent", agent, "bytes", len(body), "limit", limit)
				continue
			}
			states[agent] = body
		}
		msgs, id := p.messages(b, states)
		if err := p.commit(ctx, msgs, id); err != nil {
			return err
		}
		p.arrived(&b)
		b.Lapsed = b.Lapsed || p.late
		if len(r.behind) == 0 {
			p.late = b.Lapsed
			return nil
		}
	}
}

const (
	// headerBytes is above what headers and NATS's own framing take.
	headerBytes = 4 << 10
	// restBytes is above what an event holds besides its agent and its changes.
	restBytes = 4 << 10

	// MinPayload is the least max_payload of a server that rollcall works with, in bytes: there, an
	// agent may have 5 KiB, several times what is usual. NATS's own default is 1 MiB.
	MinPayload = 32 << 10
)

// MaxBody is how large an event may be on this connection, in bytes. It changes with the server
// that nc is connected to.
func MaxBody(nc *nats.Conn) int { return int(nc.MaxPayload()) - headerBytes }

// MaxAgentBytes is how large an agent's encoding may be so that its events fit: an event carries
// the agent, and in its changes at most the old and the new value of every field. It changes as
// [MaxBody] does.
func MaxAgentBytes(nc *nats.Conn) int { return MaxBody(nc)/3 - restBytes }

// publishSubject is where to publish what shall be stored under the subject.
func publishSubject(stored string) string {
	return schemas.LogPrefix + stored[len(schemas.StoredPrefix):]
}
