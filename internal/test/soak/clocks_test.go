//go:build unix

package soak

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rollcall-events/rollcall/diff"
	"github.com/rollcall-events/rollcall/internal/engine"
	"github.com/rollcall-events/rollcall/internal/test/checker"
	"github.com/rollcall-events/rollcall/internal/test/e2e"
	"github.com/rollcall-events/rollcall/internal/test/wait"
	"github.com/rollcall-events/rollcall/poller"
	"github.com/rollcall-events/rollcall/poller/isdp"
	"github.com/rollcall-events/rollcall/publisher"
)

// An inner is a replica within the test's own process, whose clock can be wrong.
type inner struct {
	*replica
	ahead time.Duration
	nc    *nats.Conn
	stop  context.CancelFunc
	done  chan error
}

func (w *world) startInner(tn *tenant, in *inner) {
	w.t.Helper()
	w.note("start %s, %v ahead", in.name, in.ahead)
	in.nc = e2e.Connect(w.t, w.url)
	start := time.Now()
	now := func() time.Time { return start.Add(in.ahead).Add(time.Since(start)) }
	client, err := isdp.New(isdp.Config{
		BaseURL: in.env["ROLLCALL_ISDP_URL"], ClientID: in.env["ROLLCALL_ISDP_CLIENT_ID"],
		ClientSecret: in.env["ROLLCALL_ISDP_CLIENT_SECRET"],
		Username:     in.env["ROLLCALL_ISDP_USERNAME"], Password: in.env["ROLLCALL_ISDP_PASSWORD"],
		PageSize: 25, RateLimit: 1000, Now: now,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	source, err := poller.New(poller.Config{Concurrency: 4, Now: now}, client)
	if err != nil {
		w.t.Fatal(err)
	}
	log, err := publisher.Open(w.t.Context(), in.nc, publisher.Config{
		Tenant: tn.id, Instance: in.name, Replicas: 1, Manage: true, EventsMaxAge: time.Hour,
		MaxBytes: 64 << 20, LeaseTTL: leaseTTL,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	poll := engine.New(engine.Config{
		Tenant: tn.id, Interval: 100 * time.Millisecond,
		Rules: diff.Rules{
			RemoveAfter: 2, MaxMissing: 0.5, MissingHold: time.Minute, BufferEvents: 10_000,
		},
		Grace: 500 * time.Millisecond, Now: now,
	}, source, log)
	ctx, stop := context.WithCancel(context.Background())
	in.stop, in.done = stop, make(chan error, 1)
	go func() {
		for {
			err := log.Lead(ctx, poll.Run)
			if !errors.Is(err, publisher.ErrLeaseLost) {
				in.done <- err
				return
			}
		}
	}()
	w.t.Cleanup(func() {
		stop()
		if in.nc != nil {
			in.nc.Close()
		}
	})
}

// end ends it, in good order or as if it had been cut off from the broker for ever.
func (in *inner) end(t *testing.T, gently bool) {
	t.Helper()
	if !gently {
		in.nc.Close()
	}
	in.stop()
	select {
	case err := <-in.done:
		var unpublished *engine.UnpublishedError
		cut := errors.As(err, &unpublished) || errors.Is(err, nats.ErrConnectionClosed)
		if err != nil && !errors.Is(err, context.Canceled) && (gently || !cut) {
			t.Errorf("%s: %v", in.name, err)
		}
	case <-time.After(wait.Patience):
		t.Fatalf("%s does not end", in.name)
	}
}

// TestClocks: two replicas whose clocks disagree by twenty minutes take over from one another, both
// ways, in good order and not.
func TestClocks(t *testing.T) {
	t.Parallel()
	const wrong = 10 * time.Minute
	w := newWorld(t, layout{nodes: 1, replicas: 2}, 1,
		"go test ./internal/test/soak -run TestClocks")
	w.record()
	w.churn()
	tn := w.tenants[0]
	leader, standby := &inner{replica: tn.replicas[0], ahead: wrong},
		&inner{replica: tn.replicas[1], ahead: -wrong}
	w.startInner(tn, leader)
	w.leads(tn, leader.replica)
	for i := range 4 {
		w.ahead = leader.ahead
		w.startInner(tn, standby)
		for range 3 {
			w.swept(tn.id, time.Now(), leader.name)
		}
		w.note("%s ends", leader.name)
		leader.end(t, i < 2)
		leader, standby = standby, leader
		w.leads(tn, leader.replica)
	}
	w.ahead = leader.ahead
	w.settle()
	leader.end(t, true)
	w.judge(func(o *checker.Options) {
		o.Skew, o.Bound, o.LossyLive = 2*wrong+clocks, 0, false
	})
	t.Log(summary(w.stats))
}
