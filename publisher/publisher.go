// Package publisher is the log: one JetStream stream that holds every tenant's events, states,
// watermarks and health, and is written in fenced atomic commits only.
//
// A commit is one atomic batch: events, the states they lead to, health where it changed, and last
// the tenant's watermark, which expects the watermark before it
// (Nats-Expected-Last-Subject-Sequence). That is the fence: whoever commits has seen the commit
// before, and everybody else is refused by the log itself. A commit that was sent is immutable
// until it is resolved: it is sent again with the same bytes and the same expectation until a
// leader read of the watermark shows that it is in the log, or that somebody else's is. So nothing
// is committed twice, whatever becomes of the acknowledgements.
//
// Ordering: the messages of a commit follow one another in the stream, and commits follow one
// another in the order of Commit's calls. A commit can't be pipelined.
package publisher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/schemas"
)

// MaxChanges is how many changed agents fit into one commit: an event and a state each, health and
// the watermark, within the server's default limit of 1000 messages an atomic batch.
const MaxChanges = (maxMessages - 2) / 2

const maxMessages = 1000

// Errors of Commit that the caller decides upon. All others, a *[SetupError] excepted, mean that
// the commit is not resolved.
var (
	// ErrSuperseded: somebody else has committed, or the log is not what it was. The commit is not
	// in the log, but for what a server that ran full may have stored of it. Recover, and form it
	// anew.
	ErrSuperseded = errors.New("the log has moved on without us")
	// ErrTampered: the commit is in the log, and so is a message about the tenant's agents that no
	// commit brought. Recover, which puts right what it can.
	ErrTampered = errors.New("somebody else writes to the log")
	// ErrTooLarge: the server takes no batch of that size. Nothing of the commit is in the log.
	// Form smaller ones.
	ErrTooLarge = errors.New("the server refuses a batch of this size")
	// ErrMaxBody: an event of the commit is larger than [MaxBody], which has become smaller with a
	// new connection. Nothing of the commit is in the stream. Form it anew.
	ErrMaxBody = errors.New("an event is larger than the server takes now")
)

// SetupError is an error that waiting does not mend: the server, the stream or the bucket is not
// what rollcall needs.
type SetupError struct{ Err error }

func (e *SetupError) Error() string { return e.Err.Error() }
func (e *SetupError) Unwrap() error { return e.Err }

// final has whoever tries again give up where that is of no use.
func final(err error) error {
	if errors.As(err, new(*SetupError)) {
		return backoff.Permanent(err)
	}
	return err
}

// Publisher writes one tenant's part of the log. Its methods must not be called concurrently, but
// for those that are called within Lead.
type Publisher struct {
	nc    *nats.Conn
	js    jetstream.JetStream
	cfg   Config
	log   *slog.Logger
	lease *lease // set by Lead

	metrics *metrics
	leading atomic.Bool
	trouble trouble

	last position // the last commit that we know of: what the next one expects
	gaps []gap    // between our commits, where it is not yet known that only other tenants have written

	// What was true when the log was last known to stand at last: when one of them has moved, it is
	// looked at before the next commit, since a broker that has lost data may hold somebody else's
	// watermark at the very sequence that we expect.
	checked    time.Time // on the monotonic clock
	checkedAt  time.Time // by the machine's clock, which goes on while the machine sleeps
	reconnects uint64
}

// position is where a tenant's watermark stands in the log.
type position struct {
	seq    uint64 // 0: there is none
	commit string // the id of the commit that it ended; empty: unknown
}

// Open prepares the log on the server that nc is connected to: it creates the stream and the bucket
// where they are missing and Manage says so, and checks them where they exist. A *[SetupError] is
// final; other errors may pass.
func Open(ctx context.Context, nc *nats.Conn, cfg Config) (*Publisher, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("publisher: %w", err)
	}
	p := &Publisher{nc: nc, js: js, cfg: cfg, log: cfg.Logger}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if err := p.prepare(ctx); err != nil {
		return nil, fmt.Errorf("publisher: %w", err)
	}
	p.metrics = newMetrics(cfg.Metrics) // last, so that Open can be called again
	return p, nil
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
