package publisher

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/rollcall-events/rollcall/schemas"
)

// ErrLeaseLost: another replica polls the tenant. Nothing more may be written, and what was not yet
// committed is for the other one to find.
var ErrLeaseLost = errors.New("another replica holds the lease")

// A lease says who polls a tenant: a key of the bucket that the server lets expire (per-message
// TTL, NATS ADR-43). It keeps replicas from polling beside one another; what keeps them out of the
// stream is the fence. So a holder that can't reach the server goes on, and stops only when it
// learns that another one holds the lease.
type lease struct {
	*Reader
	kv   jetstream.KeyValue // set once the bucket is there
	mine Holder             // this replica, and this taking of the lease

	asked bool // the key was asked for, and no answer came: it may be ours

	mu  sync.Mutex
	rev uint64 // the key's revision that is ours; guarded by mu once the lease is held
}

// Holder is who holds a lease, as the key says it.
type Holder struct {
	Instance string    `json:"instance"`
	ID       string    `json:"id"`    // of this taking of the lease
	Since    time.Time `json:"since"` // when it was taken
}

// leaseSubject is the subject behind the key of a tenant's lease.
func leaseSubject(tenant int64) string {
	return "$KV." + schemas.Bucket + "." + schemas.LeaseKey(tenant)
}

func (l *lease) key() string { return schemas.LeaseKey(l.cfg.Tenant) }

// value is what the key holds while the lease is ours.
func (l *lease) value() []byte {
	b, _ := json.Marshal(l.mine) // strings and a time of this century: it can't fail
	return b
}

// Lead waits until this replica holds the tenant's lease, calls lead, and gives the lease up when
// lead has returned. The context that lead gets ends with ctx, or with the cause [ErrLeaseLost] as
// soon as another replica is known to hold the lease. Lead returns what lead returned, or ctx's
// error where the lease was never ours.
func (p *Publisher) Lead(ctx context.Context, lead func(context.Context) error) error {
	now := time.Now().UTC().Truncate(time.Millisecond)
	l := &lease{Reader: p.Reader, mine: Holder{p.cfg.Instance, nuid.Next(), now}}
	if err := l.acquire(ctx); err != nil {
		if l.asked {
			l.release(context.WithoutCancel(ctx))
		}
		return fmt.Errorf("publisher: wait for the lease of tenant %d: %w", p.cfg.Tenant, err)
	}
	p.lease = l

	leading, lose := context.WithCancelCause(ctx)
	defer lose(nil)
	// The lease is kept until lead has returned: what it does after ctx has ended still needs it.
	keeping, stop := context.WithCancel(context.WithoutCancel(ctx))
	var kept sync.WaitGroup
	kept.Go(func() { l.keep(keeping, lose) })
	p.leading.Store(true)
	p.metrics.leader.Set(1)
	err := lead(leading)
	p.leading.Store(false)
	p.metrics.leader.Set(0)
	p.succeeds() // its trouble is another's now
	stop()
	kept.Wait()
	l.release(context.WithoutCancel(ctx))
	return err
}

// Leading reports whether this replica leads. It may be called at any time, from any goroutine.
func (p *Publisher) Leading() bool { return p.leading.Load() }

// acquire waits until the lease is ours.
func (l *lease) acquire(ctx context.Context) error {
	leader := "" // as it was last logged
	try := func() (err error) {
		if l.kv, err = prepareBucket(ctx, l.Reader); err != nil { // it may have gone meanwhile
			return final(err)
		}
		for {
			if err := l.checkServer(); err != nil { // it may be another one than before
				return final(err)
			}
			err := l.take(ctx)
			if !errors.Is(err, jetstream.ErrKeyExists) {
				return err
			}
			h, seq, err := l.Lease(ctx)
			switch {
			case err != nil:
				return err
			case seq == 0: // it went just now
				continue
			case h.ID == l.mine.ID, // an earlier try whose answer was lost
				l.cfg.Exclusive: // nobody else can be there: it is an earlier process's
				return l.put(ctx, seq)
			}
			if leader != h.ID {
				leader = h.ID
				l.log.Info("standing by", "tenant", l.cfg.Tenant, "leader", h.Instance)
			}
			if err := l.wait(ctx); err != nil {
				return err
			}
		}
	}
	// A standby waits: ctx ends this.
	retry := backoff.NewExponentialBackOff(backoff.WithInitialInterval(100*time.Millisecond),
		backoff.WithMaxInterval(2*time.Second), backoff.WithMaxElapsedTime(0))
	failures := 0
	notify := func(err error, _ time.Duration) {
		failures++
		level := l.log.Debug
		if failures == 3 || failures%20 == 0 {
			level = l.log.Warn
		}
		level("can't tell who holds the lease, so this replica can't lead: trying again",
			"tenant", l.cfg.Tenant, "tries", failures, "err", plain(err))
	}
	return backoff.RetryNotify(try, backoff.WithContext(retry, ctx), notify)
}

// wait returns when the key has gone, or may have.
func (l *lease) wait(ctx context.Context) error {
	// A watch can stall when the bucket's leader changes: look again once a TTL.
	ctx, cancel := context.WithTimeout(ctx, l.cfg.LeaseTTL)
	defer cancel()
	w, err := l.kv.Watch(ctx, l.key())
	if err != nil {
		return fmt.Errorf("watch the lease: %w", err)
	}
	defer func() { _ = w.Stop() }()
	there := false
	for {
		select {
		case e, ok := <-w.Updates():
			switch {
			case !ok, e == nil && !there: // nil: that was all that was there
				return nil
			case e != nil && e.Operation() != jetstream.KeyValuePut:
				return nil
			}
			there = true
		case <-ctx.Done():
			return nil
		}
	}
}

// take creates the key where nobody holds it, and fails with ErrKeyExists where somebody does.
func (l *lease) take(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	rev, err := l.kv.Create(ctx, l.key(), l.value(), jetstream.KeyTTL(l.cfg.LeaseTTL))
	if err != nil {
		l.asked = l.asked || ctx.Err() != nil
		return fmt.Errorf("take the lease: %w", plain(err))
	}
	l.rev = rev
	return nil
}

// put writes the key over its revision rev, with a full TTL. (The client's own Update would take
// the TTL off.)
func (l *lease) put(ctx context.Context, rev uint64) error {
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	m := nats.NewMsg(leaseSubject(l.cfg.Tenant))
	m.Data = l.value()
	m.Header.Set(jetstream.MsgTTLHeader, strconv.FormatInt(int64(l.cfg.LeaseTTL/time.Second), 10))
	m.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(rev, 10))
	ack, err := l.js.PublishMsg(ctx, m, jetstream.WithRetryAttempts(0))
	if err != nil {
		return fmt.Errorf("renew the lease: %w", plain(err))
	}
	l.rev = ack.Sequence
	return nil
}

// confirm renews the lease, and says whose it is: nil where it is ours, [ErrLeaseLost] where it is
// another's. Any other error means that nobody can tell.
func (l *lease) confirm(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.put(ctx, l.rev)
	if errors.Is(err, jetstream.ErrNoStreamResponse) { // the bucket may be gone
		if _, err := prepareBucket(ctx, l.Reader); err != nil {
			return err
		}
		err = l.put(ctx, l.rev)
	}
	var api *jetstream.APIError
	if !errors.As(err, &api) || api.ErrorCode != jetstream.JSErrCodeStreamWrongLastSequence &&
		api.ErrorCode != jetstream.JSErrCodeStreamWrongLastSequenceConstant {
		return err
	}
	h, seq, err := l.Lease(ctx)
	switch {
	case err != nil:
		return err
	case seq == 0:
		if err := l.take(ctx); err != nil {
			return err // if another one was quicker, the next look tells
		}
		l.log.Warn("the lease had lapsed and nobody else had it: taken again",
			"tenant", l.cfg.Tenant)
		return nil
	case h.ID == l.mine.ID: // a renewal whose acknowledgement was lost
		return l.put(ctx, seq)
	default:
		return fmt.Errorf("%w: %s", ErrLeaseLost, h.Instance)
	}
}

// keep renews the lease three times a TTL until ctx ends, or until it is lost.
func (l *lease) keep(ctx context.Context, lose context.CancelCauseFunc) {
	tick := time.NewTicker(l.cfg.LeaseTTL / 3)
	defer tick.Stop()
	away := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := l.confirm(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, ErrLeaseLost):
			lose(err)
			return
		case err != nil && !away:
			l.log.Warn("the lease can't be renewed; going on, "+
				"since the stream refuses whoever is not the leader",
				"tenant", l.cfg.Tenant, "err", err)
		case err == nil && away:
			l.log.Info("the lease is renewed again", "tenant", l.cfg.Tenant)
		}
		away = err != nil
	}
}

// release gives the lease up, if it is still ours.
func (l *lease) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	l.mu.Lock()
	defer l.mu.Unlock()
	purge := func(rev uint64) error {
		return l.kv.Purge(ctx, l.key(),
			jetstream.LastRevision(rev), jetstream.PurgeTTL(leaseMarkerTTL))
	}
	// Where its revision is not known, one that nobody has: that is refused, after what is still on
	// its way has arrived. (To the client, 0 means whatever is there.)
	err := purge(cmp.Or(l.rev, math.MaxInt64))
	if err != nil { // a renewal may have been on its way when the end came
		h, seq, lookErr := l.Lease(ctx)
		if lookErr == nil && (seq == 0 || h.ID != l.mine.ID) {
			return // there is nothing to give up
		}
		if lookErr == nil {
			err = purge(seq)
		}
	}
	if err != nil {
		l.log.Debug("the lease was not given up; it expires by itself",
			"tenant", l.cfg.Tenant, "err", err)
	}
}
