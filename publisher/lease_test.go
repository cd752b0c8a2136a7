package publisher

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/internal/test/natstest"
	"github.com/rollcall-events/rollcall/schemas"
)

// A replica that leads until it is told to stop.
type replica struct {
	p       *Publisher
	nc      *nats.Conn
	leading chan context.Context // gets the context when it leads
	stop    context.CancelFunc
	done    chan error
}

func startReplica(t *testing.T, url, name string, change func(*Config)) *replica {
	t.Helper()
	r := &replica{nc: natstest.Connect(t, url), leading: make(chan context.Context, 1),
		done: make(chan error, 1)}
	cfg := config()
	cfg.Instance, cfg.LeaseTTL = name, 2*time.Second
	if change != nil {
		change(&cfg)
	}
	var err error
	if r.p, err = Open(t.Context(), r.nc, cfg); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	r.stop = stop
	go func() {
		r.done <- r.p.Lead(ctx, func(ctx context.Context) error {
			r.leading <- ctx
			<-ctx.Done()
			return context.Cause(ctx)
		})
	}()
	t.Cleanup(stop)
	return r
}

func (r *replica) waitLeading(t *testing.T) context.Context {
	t.Helper()
	select {
	case ctx := <-r.leading:
		return ctx
	case err := <-r.done:
		t.Fatalf("Lead returned %v", err)
	case <-time.After(20 * time.Second):
		t.Fatal("it does not get the lease")
	}
	return nil
}

// bucket is the bucket, and what the lease says in it.
func bucket(t *testing.T, nc *nats.Conn) (jetstream.KeyValue, func() Holder) {
	t.Helper()
	js, _ := jetstream.New(nc)
	kv, err := js.KeyValue(t.Context(), schemas.Bucket)
	if err != nil {
		t.Fatal(err)
	}
	return kv, func() Holder {
		e, err := kv.Get(t.Context(), schemas.LeaseKey(tenant))
		if err != nil {
			t.Fatal(err)
		}
		var h Holder
		if err := json.Unmarshal(e.Value(), &h); err != nil {
			t.Fatal(err)
		}
		return h
	}
}

// The second replica stands by until the first gives the lease up, and then gets it at once.
func TestLeaseHandedOver(t *testing.T) {
	t.Parallel()
	url, _ := natstest.Start(t, "")
	a := startReplica(t, url, "a", nil)
	a.waitLeading(t)
	b := startReplica(t, url, "b", nil)
	kv, says := bucket(t, b.nc)
	if h := says(); h.Instance != "a" {
		t.Errorf("the lease names %q", h.Instance)
	}
	renewals, err := kv.Watch(t.Context(), schemas.LeaseKey(tenant), jetstream.UpdatesOnly())
	if err != nil {
		t.Fatal(err)
	}
	for range 4 { // three make a TTL: a holder that lives keeps it longer
		<-renewals.Updates()
	}
	select {
	case <-b.leading:
		t.Fatal("both lead")
	default:
	}
	a.stop()
	released := time.Now()
	if err := <-a.done; !errors.Is(err, context.Canceled) {
		t.Errorf("Lead returned %v", err)
	}
	b.waitLeading(t)
	t.Logf("handed over in %v", time.Since(released))
	if h := says(); h.Instance != "b" {
		t.Errorf("the lease names %q", h.Instance)
	}
}

// An asking dialer's connections call asked once, just before the lease is asked for.
type asking struct {
	once  sync.Once
	asked func()
}

func (d *asking) Dial(network, address string) (net.Conn, error) {
	c, err := net.Dial(network, address)
	return &askingConn{c, d}, err
}

type askingConn struct {
	net.Conn
	d *asking
}

func (c *askingConn) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("PUB "+leaseSubject(tenant))) {
		c.d.once.Do(c.d.asked)
	}
	return c.Conn.Write(b)
}

// A replica that ends while it asks for the lease gives up what it may have got.
func TestLeaseAskedForAtTheEnd(t *testing.T) {
	t.Parallel()
	url, _ := natstest.Start(t, "")
	ctx, end := context.WithCancel(t.Context())
	defer end()
	nc, err := nats.Connect(url, nats.SetCustomDialer(&asking{asked: end}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	cfg := config()
	cfg.LeaseTTL = time.Hour
	p, err := Open(t.Context(), nc, cfg)
	if err != nil {
		t.Fatal(err)
	}
	led := func(ctx context.Context) error { return ctx.Err() } // the answer may have been quicker
	if err := p.Lead(ctx, led); !errors.Is(err, context.Canceled) {
		t.Errorf("Lead returned %v", err)
	}
	js, _ := jetstream.New(nc)
	kv, err := js.KeyValue(t.Context(), schemas.Bucket)
	if err != nil {
		t.Fatal(err)
	}
	h, err := kv.History(t.Context(), schemas.LeaseKey(tenant))
	if err != nil || len(h) != 1 || h[0].Operation() != jetstream.KeyValuePurge {
		t.Errorf("the lease was not given up: %v, %v", h, err)
	}
}

// A replica that dies holds the lease for its TTL, and no longer.
func TestLeaseExpires(t *testing.T) {
	t.Parallel()
	url, _ := natstest.Start(t, "")
	a := startReplica(t, url, "a", nil)
	a.waitLeading(t)
	a.nc.Close()
	died := time.Now()
	b := startReplica(t, url, "b", nil)
	b.waitLeading(t)
	t.Logf("taken over %v after the death, with a TTL of 2s", time.Since(died))
}

// A holder that finds another one in its place stops, can't write, and can't take the stream back.
func TestLeaseLost(t *testing.T) {
	url, _ := natstest.Start(t, "")
	a := startReplica(t, url, "a", nil)
	leading := a.waitLeading(t)
	r, err := a.p.recover(t.Context(), func(*packed.State) {})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.p.shutOut(t.Context(), r, Batch{}); err != nil {
		t.Fatal(err)
	}
	kv, says := bucket(t, a.nc)
	if _, err := kv.Put(t.Context(), schemas.LeaseKey(tenant),
		[]byte(`{"instance":"b","id":"other"}`)); err != nil {
		t.Fatal(err)
	}
	if err := a.p.shutOut(t.Context(), r, Batch{}); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("TakeOver without the lease: %v", err)
	}
	<-leading.Done()
	if err := <-a.done; !errors.Is(err, ErrLeaseLost) {
		t.Errorf("Lead returned %v", err)
	}
	if h := says(); h.Instance != "b" {
		t.Errorf("the lease names %q", h.Instance)
	}
}

// A lease that lapsed with nobody else in it is taken again; one whose renewal was stored without
// our knowing goes on.
func TestLeaseKept(t *testing.T) {
	url, _ := natstest.Start(t, "")
	a := startReplica(t, url, "a", nil)
	leading := a.waitLeading(t)
	kv, says := bucket(t, a.nc)
	if err := kv.Purge(t.Context(), schemas.LeaseKey(tenant)); err != nil {
		t.Fatal(err)
	}
	if err := a.p.lease.confirm(t.Context()); err != nil {
		t.Errorf("after the lease had gone: %v", err)
	}
	// what a lost answer leaves
	if _, err := kv.Put(t.Context(), schemas.LeaseKey(tenant), a.p.lease.value()); err != nil {
		t.Fatal(err)
	}
	if err := a.p.lease.confirm(t.Context()); err != nil {
		t.Errorf("after a lost answer: %v", err)
	}
	if leading.Err() != nil || says().Instance != "a" {
		t.Errorf("it no longer leads: %v, %+v", leading.Err(), says())
	}
}

// A renewal that was stored without our knowing, as when the end came while it was on its way, does
// not keep the lease from being given up.
func TestLeaseGivenUpAfterLostAnswer(t *testing.T) {
	url, _ := natstest.Start(t, "")
	a := startReplica(t, url, "a", func(c *Config) { c.LeaseTTL = time.Hour })
	a.waitLeading(t)
	kv, _ := bucket(t, a.nc)
	if _, err := kv.Put(t.Context(), schemas.LeaseKey(tenant), a.p.lease.value()); err != nil {
		t.Fatal(err)
	}
	a.stop()
	<-a.done
	e, err := kv.Get(t.Context(), schemas.LeaseKey(tenant))
	if !errors.Is(err, jetstream.ErrKeyNotFound) {
		t.Errorf("the lease is still there: %s, %v", e.Value(), err)
	}
}

// That there is no connection is said in plain words, by the lease and by what is said of commits.
func TestLeaseAway(t *testing.T) {
	url, stop := natstest.Start(t, "")
	a := startReplica(t, url, "a", func(c *Config) { c.LeaseTTL = time.Hour })
	a.waitLeading(t)
	lost := a.nc.StatusChanged(nats.RECONNECTING)
	stop()
	<-lost
	l := a.p.lease
	_, _, looked := l.Lease(t.Context())
	for what, err := range map[string]error{
		"renew": l.confirm(t.Context()), "take": l.take(t.Context()), "look": looked,
		"commit": a.p.advise(fmt.Errorf("commit: %w", a.nc.Publish("subject", nil))),
	} {
		if !errors.Is(err, errAway) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// removable makes the bucket in memory. nats-server removes the files of a stream when it has
// already taken it off its list: one of that name that is created at this moment loses its own.
func removable(t *testing.T, url string) {
	t.Helper()
	js, _ := jetstream.New(natstest.Connect(t, url))
	if _, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: schemas.Bucket,
		Storage: jetstream.MemoryStorage, LimitMarkerTTL: leaseMarkerTTL}); err != nil {
		t.Fatal(err)
	}
}

// A standby gets the lease also where the bucket has gone meanwhile, and with it whoever led.
func TestLeaseBucketGone(t *testing.T) {
	url, _ := natstest.Start(t, "")
	removable(t, url)
	a := startReplica(t, url, "a", nil)
	a.waitLeading(t)
	b := startReplica(t, url, "b", nil)
	js, _ := jetstream.New(b.nc)
	if err := js.DeleteKeyValue(t.Context(), schemas.Bucket); err != nil {
		t.Fatal(err)
	}
	a.nc.Close()
	b.waitLeading(t)
}

// A leader whose bucket has gone makes it anew.
func TestLeaseBucketMadeAnew(t *testing.T) {
	url, _ := natstest.Start(t, "")
	removable(t, url)
	a := startReplica(t, url, "a", nil)
	leading := a.waitLeading(t)
	js, _ := jetstream.New(a.nc)
	if err := js.DeleteKeyValue(t.Context(), schemas.Bucket); err != nil {
		t.Fatal(err)
	}
	if err := a.p.lease.confirm(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, says := bucket(t, a.nc); says().Instance != "a" || leading.Err() != nil {
		t.Errorf("it no longer leads: %v, %+v", leading.Err(), says())
	}
}

// With a store of its own a restarted process does not wait for its predecessor's lease.
func TestLeaseExclusive(t *testing.T) {
	url, _ := natstest.Start(t, "")
	a := startReplica(t, url, "a", func(c *Config) { c.LeaseTTL = time.Hour })
	a.waitLeading(t)
	a.nc.Close()
	b := startReplica(t, url, "b", func(c *Config) { c.LeaseTTL, c.Exclusive = time.Hour, true })
	b.waitLeading(t)
}
