package publisher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

// kvStream is the stream behind the bucket.
const kvStream = "KV_" + schemas.Bucket

// A lease says who polls a tenant: a key of the bucket that the server lets expire (per-message
// TTL, NATS ADR-43). It keeps replicas from polling beside one another; what keeps them out of the
// log is the fence. So a holder that can't reach the broker goes on, and stops only when it learns
// that another one holds the lease.
type lease struct {
	p     *Publisher
	kv    jetstream.KeyValue
	key   string
	value []byte // names this replica, and this taking of the lease

	mu  sync.Mutex
	rev uint64 // the key's revision that is ours; guarded by mu
}

// holder is what the key holds.
type holder struct {
	Instance string    `json:"instance"`
	ID       string    `json:"id"` // of this taking of the lease
	Since    time.Time `json:"since"`
}

// Lead waits until this replica holds the tenant's lease, calls lead, and gives the lease up when
// lead has returned. The context that lead gets ends with ctx, or with the cause [ErrLeaseLost] as
// soon as another replica is known to hold the lease. Lead returns what lead returned, or ctx's
// error where the lease was never ours.
func (p *Publisher) Lead(ctx context.Context, lead func(context.Context) error) error {
	value, err := json.Marshal(holder{p.cfg.Instance, nuid.Next(), time.Now().UTC().Truncate(time.Millisecond)})
	if err != nil {
		return fmt.Errorf("publisher: encode the lease: %w", err)
	}
	l := &lease{p: p, key: schemas.LeaseKey(p.cfg.Tenant), value: value}
	if err := l.acquire(ctx); err != nil {
		return fmt.Errorf("publisher: wait for the lease of tenant %d: %w", p.cfg.Tenant, err)
	}
	p.lease = l

	leading, lose := context.WithCancelCause(ctx)
	defer lose(nil)
	// The lease is kept until lead has returned: what it does after ctx has ended still needs it.
	keeping, stop := context.WithCancel(context.WithoutCancel(ctx))
	var kept sync.WaitGroup
	kept.Go(func() { l.keep(keeping, lose) })
	p.leads(true)
	err = lead(leading)
	p.leads(false)
	p.succeeds() // its trouble is another's now
	stop()
	kept.Wait()
	l.release(context.WithoutCancel(ctx))
	return err
}

// leads records whether this replica leads.
func (p *Publisher) leads(is bool) {
	p.leading.Store(is)
	p.metrics.leader.Set(map[bool]float64{true: 1}[is])
}

// acquire waits until the lease is ours.
func (l *lease) acquire(ctx context.Context) error {
	told := ""
	try := func() (err error) {
		if l.kv, err = l.p.prepareBucket(ctx); err != nil { // it may have gone since the log was opened
			return final(err)
		}
		for {
			if err := l.p.checkServer(); err != nil { // it may be another one than before
				return final(err)
			}
			err := l.take(ctx)
			if !errors.Is(err, jetstream.ErrKeyExists) {
				return err
			}
			h, seq, err := l.look(ctx)
			switch {
			case err != nil:
				return err
			case seq == 0: // it went just now
				continue
			case l.p.cfg.Exclusive: // nobody else can be there: it is an earlier process's
				return l.put(ctx, seq)
			}
			if told != h.ID {
				told = h.ID
				l.p.log.Info("standing by", "tenant", l.p.cfg.Tenant, "leader", h.Instance)
			}
			if err := l.wait(ctx); err != nil {
				return err
			}
		}
	}
	retry := backoff.NewExponentialBackOff(backoff.WithInitialInterval(100*time.Millisecond), backoff.WithMaxInterval(2*time.Second),
		backoff.WithMaxElapsedTime(0)) // a standby waits; ctx ends this
	failures := 0
	return backoff.RetryNotify(try, backoff.WithContext(retry, ctx), func(err error, _ time.Duration) {
		failures++
		level := l.p.log.Debug
		if failures == 3 || failures%20 == 0 {
			level = l.p.log.Warn
		}
		level("nobody can tell whose the lease is, trying again",
			"tenant", l.p.cfg.Tenant, "tries", failures, "err", plain(err))
	})
}

// wait returns when the key has gone, or may have.
func (l *lease) wait(ctx context.Context) error {
	// A watch can stall when the bucket's leader changes: look again once a TTL.
	ctx, cancel := context.WithTimeout(ctx, l.p.cfg.LeaseTTL)
	defer cancel()
	w, err := l.kv.Watch(ctx, l.key)
	if err != nil {
		return fmt.Errorf("watch the lease: %w", err)
	}
	defer func() { _ = w.Stop() }()
	there := false
	for {
		select {
		case e, ok := <-w.Updates():
			switch {
			case !ok:
				return nil
			case e == nil: // all that was there has been told
				if !there {
					return nil
				}
			case e.Operation() != jetstream.KeyValuePut:
				return nil
			default:
				there = true
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// take creates the key where nobody holds it, and fails with ErrKeyExists where somebody does.
func (l *lease) take(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	rev, err := l.kv.Create(ctx, l.key, l.value, jetstream.KeyTTL(l.p.cfg.LeaseTTL))
	if err != nil {
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
	m := nats.NewMsg("$KV." + schemas.Bucket + "." + l.key)
	m.Data = l.value
	m.Header.Set(headerTTL, strconv.FormatInt(int64(l.p.cfg.LeaseTTL/time.Second), 10))
	m.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(rev, 10))
	ack, err := l.p.js.PublishMsg(ctx, m, jetstream.WithRetryAttempts(0))
	if err != nil {
		return fmt.Errorf("renew the lease: %w", plain(err))
	}
	l.rev = ack.Sequence
	return nil
}

// look asks the bucket's leader who holds the lease; sequence 0: nobody.
func (l *lease) look(ctx context.Context) (holder, uint64, error) {
	m, err := l.p.leaderGet(ctx, kvStream, map[string]string{"last_by_subj": "$KV." + schemas.Bucket + "." + l.key})
	if errors.Is(err, errNoMessage) {
		return holder{}, 0, nil
	}
	if err != nil {
		return holder{}, 0, fmt.Errorf("look who holds the lease: %w", plain(err))
	}
	if len(m.Data) == 0 { // a marker: released, or expired
		return holder{}, 0, nil
	}
	var h holder
	if json.Unmarshal(m.Data, &h) != nil {
		h.Instance = "unknown"
	}
	return h, m.Seq, nil
}

// confirm renews the lease, and says whose it is: nil where it is ours, [ErrLeaseLost] where it is
// another's. Any other error means that nobody can tell.
func (l *lease) confirm(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.put(ctx, l.rev)
	if errors.Is(err, jetstream.ErrNoStreamResponse) { // the bucket may be gone
		if _, err := l.p.prepareBucket(ctx); err != nil {
			return err
		}
		err = l.put(ctx, l.rev)
	}
	var api *jetstream.APIError
	if err == nil || !errors.As(err, &api) || api.ErrorCode != jetstream.JSErrCodeStreamWrongLastSequence &&
		api.ErrorCode != jetstream.JSErrCodeStreamWrongLastSequenceConstant {
		return err
	}
	h, seq, err := l.look(ctx)
	switch {
	case err != nil:
		return err
	case seq == 0:
		if err := l.take(ctx); err != nil {
			return err // if another one was quicker, the next look tells
		}
		l.p.log.Warn("the lease had lapsed and nobody else had it: taken again", "tenant", l.p.cfg.Tenant)
		return nil
	case l.ours(h): // a renewal whose acknowledgement was lost
		return l.put(ctx, seq)
	default:
		return fmt.Errorf("%w: %s", ErrLeaseLost, h.Instance)
	}
}

func (l *lease) ours(h holder) bool {
	var mine holder
	return json.Unmarshal(l.value, &mine) == nil && mine.ID == h.ID
}

// keep renews the lease three times a TTL until ctx ends, or until it is lost.
func (l *lease) keep(ctx context.Context, lose context.CancelCauseFunc) {
	tick := time.NewTicker(l.p.cfg.LeaseTTL / 3)
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
			l.p.log.Warn("the lease can't be renewed; going on, since the log refuses whoever is not the leader", "tenant", l.p.cfg.Tenant, "err", err)
		case err == nil && away:
			l.p.log.Info("the lease is renewed again", "tenant", l.p.cfg.Tenant)
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
		return l.kv.Purge(ctx, l.key, jetstream.LastRevision(rev), jetstream.PurgeTTL(leaseMarkerTTL))
	}
	err := purge(l.rev)
	if err != nil { // a renewal may have been on its way when the end came
		h, seq, lookErr := l.look(ctx)
		if lookErr == nil && (seq == 0 || !l.ours(h)) {
			return // there is nothing to give up
		}
		if lookErr == nil {
			err = purge(seq)
		}
	}
	if err != nil {
		l.p.log.Debug("the lease was not given up; it expires by itself", "tenant", l.p.cfg.Tenant, "err", err)
	}
}
