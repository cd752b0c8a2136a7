package publisher

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/internal/setting"
)

// trouble is since when nothing could be committed, and why.
type trouble struct {
	mu    sync.Mutex
	since time.Time // zero: commits succeed, as far as any was tried; guarded by mu
	err   error     // of the last try; guarded by mu
}

// Failing says since when this replica, while it leads, has tried in vain to commit or to read what
// it must know for that, and what came of the last try, with what to do about it; a zero time: the
// last commit is in the stream. Commits that were refused one after another, each for good, count
// as one trouble. It may be called at any time, from any goroutine.
func (p *writer) Failing() (since time.Time, err error) {
	p.trouble.mu.Lock()
	since, err = p.trouble.since, p.trouble.err
	p.trouble.mu.Unlock()
	if err != nil {
		err = p.advise(err)
	}
	return since, err
}

// fails records that a commit, or what goes before it, has failed. began is when it was first
// tried.
func (p *writer) fails(began time.Time, err error) {
	if errors.Is(err, context.Canceled) ||
		errors.Is(err, ErrTooLarge) || errors.Is(err, ErrMaxBody) {
		return // nobody waits for it any more; others are formed in its place
	}
	p.trouble.mu.Lock()
	defer p.trouble.mu.Unlock()
	p.trouble.err = err
	if p.trouble.since.IsZero() {
		p.trouble.since = began
		p.metrics.failing.Set(float64(began.UnixMilli()) / 1000)
	}
}

// succeeds records that a commit is in the stream, or that this replica leads no longer.
func (p *writer) succeeds() {
	p.trouble.mu.Lock()
	defer p.trouble.mu.Unlock()
	if !p.trouble.since.IsZero() {
		p.trouble.since, p.trouble.err = time.Time{}, nil
		p.metrics.failing.Set(0)
	}
}

// Error codes of the server for what is full (nats-server, jetstream_errors_generated.go).
const (
	codeAccountFull     jetstream.ErrorCode = 10002
	codeInsufficient    jetstream.ErrorCode = 10023
	codeMemoryFull      jetstream.ErrorCode = 10028
	codeStorageFull     jetstream.ErrorCode = 10047
	codeStoreFailed     jetstream.ErrorCode = 10077
	codeUnavailable     jetstream.ErrorCode = 10008
	codeBatchIncomplete jetstream.ErrorCode = 10176
)

var errAway = errors.New("not connected to NATS")

// plain says that there is no connection, where the client says it in words of its own: it keeps
// nothing that is sent meanwhile, and so calls its buffer full.
func plain(err error) error {
	if errors.Is(err, nats.ErrReconnectBufExceeded) {
		return errAway
	}
	return err
}

// advise says what to do about a commit that fails again and again while there is a connection.
func (p *writer) advise(err error) error {
	err = plain(err)
	if !p.nc.IsConnected() || errors.Is(err, ErrSuperseded) {
		return err
	}
	// Silence is all that a store which can't be written shows (seen with nats-server 2.15.2).
	do := "see the NATS server's log and disk; " +
		"a nats-server whose disk was full writes again only after a restart"
	if p.cfg.Exclusive {
		do = setting.Text("see whether the disk of {DataDir} is full; " +
			"the embedded server starts again by itself once it has room")
	}
	var api *jetstream.APIError
	if errors.As(err, &api) {
		switch api.ErrorCode {
		case codeStoreFailed:
			do = "the stream is full, or its store is: " +
				"raise its limit (nats stream edit --max-bytes), or make room"
			if p.cfg.Exclusive { // which lets nobody edit its stream
				do = "the stream is full, or its disk is: make room on the disk; " +
					"docs/operations.md (Room for the stream) says how to raise the stream's limit"
			}
		case codeAccountFull, codeInsufficient, codeMemoryFull, codeStorageFull:
			do = "raise the limit of the account or of the server, or make room"
		case codeUnavailable, codeBatchIncomplete:
		default:
			return err
		}
	} else if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, nats.ErrTimeout) &&
		!errors.Is(err, nats.ErrNoResponders) && !errors.Is(err, jetstream.ErrNoStreamResponse) {
		return err
	}
	return fmt.Errorf("%w: %s", err, do)
}
