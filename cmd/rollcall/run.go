package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/internal/clock"
	"github.com/rollcall-events/rollcall/internal/engine"
	"github.com/rollcall-events/rollcall/internal/listing"
	"github.com/rollcall-events/rollcall/internal/setting"
	"github.com/rollcall-events/rollcall/poller"
	"github.com/rollcall-events/rollcall/poller/isdp"
	"github.com/rollcall-events/rollcall/publisher"
)

// runDaemon is the daemon: from the environment to the end of ctx.
func runDaemon(ctx context.Context, stderr io.Writer) error {
	signal.Ignore(syscall.SIGPIPE) // that nobody reads the log any more is no reason to end
	s, warnings, err := loadSettings(withVendor)
	if err != nil {
		for _, w := range warnings {
			fmt.Fprintln(stderr, "rollcall: warning:", w)
		}
		return err
	}
	log := newLogger(stderr, s)
	takeStandardLog(log)
	for _, w := range warnings {
		log.Warn(w)
	}
	d, err := newDaemon(s, log, stderr, false)
	if err != nil {
		return err
	}
	return d.during(ctx, func(ctx context.Context) error {
		broker, err := d.openBroker(ctx)
		if err != nil {
			return ended(ctx, err)
		}
		defer broker.close()
		return broker.during(ctx, func(ctx context.Context) error {
			return d.serve(ctx, broker)
		})
	})
}

// serve polls one tenant and publishes to the broker until ctx ends.
func (d *daemon) serve(ctx context.Context, b *broker) error {
	s, nc, now := d.settings, b.nc, clock.New(nil)
	vendorConfig, pollerConfig := s.vendor(d.log), s.poller(d.log)
	vendorConfig.Now, pollerConfig.Now = now.Now, now.Now
	vendorConfig.Metrics, pollerConfig.Metrics = d.registry, d.registry
	vendorConfig.MaxRowBytes = func() int { return publisher.MaxAgentBytes(nc) }
	vendor, err := isdp.New(vendorConfig)
	if err != nil {
		return err
	}
	source, err := poller.New(pollerConfig, vendor)
	if err != nil {
		return err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	hide := func() {}
	defer func() { hide() }()
	if s.TenantID != 0 {
		hide = d.show(ctx, b, js, s.TenantID)
	}
	tenant, err := d.tenant(ctx, vendor)
	if err != nil {
		return ended(ctx, err)
	}
	if s.TenantID == 0 {
		hide = d.show(ctx, b, js, tenant)
	}

	publisherConfig, cfg := s.publisher(tenant, d.log), s.engine(tenant, d.log)
	publisherConfig.Metrics, cfg.Metrics = d.ofTenant(tenant), d.ofTenant(tenant)
	cfg.Now, cfg.Follow, cfg.Expect = now.Now, now.Follow, source.Expect
	cfg.MaxBody = func() int { return publisher.MaxBody(nc) }
	cfg.Pace = func() time.Duration {
		return time.Duration(min(1/vendor.Rate(), 3600) * float64(time.Second))
	}
	pub, err := d.openStream(ctx, nc, publisherConfig)
	if err != nil {
		return ended(ctx, err)
	}
	alarm, err := publisher.NewAlarm(nc, publisherConfig)
	if err != nil {
		return err
	}
	cfg.Published = alarm.PutOff
	var alarms sync.WaitGroup
	// The last watermark comes after ctx has ended.
	alarming, stopAlarm := context.WithCancel(context.WithoutCancel(ctx))
	alarms.Go(func() { alarm.Run(alarming) })
	defer alarms.Wait()
	defer stopAlarm()
	d.log.Info("ready; asking for the lease",
		"tenant", tenant, "url", s.ISDPURL, "interval", cfg.Interval, "instance", s.Instance)
	loop := engine.New(cfg, source, pub)
	d.Running(tenant, pub, loop)
	for {
		err := pub.Lead(ctx, loop.Run)
		switch {
		case errors.Is(err, publisher.ErrLeaseLost): // stand by
		case errors.Is(err, engine.ErrNoAnswers):
			d.log.Warn("the vendor does not answer this replica: giving up the lease, "+
				"in case it answers another one", "tenant", tenant, "err", err)
			stayOut(ctx, pub, publisherConfig.LeaseTTL)
		case ctx.Err() != nil && errors.Is(err, ctx.Err()):
			d.log.Info("stopped while standing by")
			return nil
		case err != nil:
			return err
		default:
			d.log.Info("stopped: everything that was seen is published")
			return nil
		}
	}
}

// stayOut returns when this replica may ask again for the lease that it has given up: after two
// TTLs where another one has taken it, or when that one has given it up too; after half of one
// where nobody wants it. (A standby hears of it at once.)
func stayOut(ctx context.Context, pub *publisher.Publisher, ttl time.Duration) {
	begun := time.Now()
	wait, taken := ttl/2, false
	for time.Since(begun) < wait {
		select {
		case <-time.After(ttl / 10):
		case <-ctx.Done():
			return
		}
		look, cancel := context.WithTimeout(ctx, ttl/2)
		st := pub.Status(look)
		cancel()
		switch {
		case st.Leader != "":
			wait, taken = 2*ttl, true
		case taken && st.Lease == nil:
			return
		}
	}
}

// ended hides an error that only says that ctx has: nothing was under way yet.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

const (
	// tenantPatience is how long a start waits for a token that confirms the configured tenant.
	tenantPatience = 10 * time.Second
	// streamPatience is how long one try to open the stream may take: a request that a cluster gets
	// before it has a leader is never answered.
	streamPatience = 3 * time.Second
)

// tenant says whose agents are polled. Where that is configured, a vendor that is away does not
// keep rollcall from starting and saying so; where it isn't, nothing can start before the first
// token.
func (d *daemon) tenant(ctx context.Context, vendor *isdp.Client) (int64, error) {
	const waiting = "the vendor's first token"
	d.Waiting(waiting, nil)
	if configured := d.settings.TenantID; configured != 0 {
		attempt, cancel := context.WithTimeout(ctx, tenantPatience)
		defer cancel()
		_, err := vendor.Tenant(attempt)
		switch {
		case ctx.Err() != nil:
			return 0, ctx.Err()
		case errors.Is(err, isdp.ErrTenant):
			return 0, &setting.Error{Field: "TenantID", Value: fmt.Sprint(configured),
				Want: "the tenant of the credentials, or nothing: " + err.Error()}
		case err != nil:
			d.log.Warn("no token yet to confirm the tenant with; going on with ROLLCALL_TENANT_ID",
				"tenant", configured, "err", err)
		}
		return configured, nil
	}
	var tenant int64
	try := func() (err error) {
		tenant, err = vendor.Tenant(ctx)
		if errors.Is(err, isdp.ErrTenant) {
			return backoff.Permanent(&setting.Error{Field: "TenantID",
				Want: "the tenant's number, since the token does not name one"})
		}
		return err
	}
	// The poller spaces its requests itself, and asks rarely where credentials are refused.
	err := retry(ctx, try, func(err error) {
		d.Waiting(waiting+", which says whose agents these are", err)
		if e, ok := errors.AsType[*listing.Error](err); ok && e.Class == listing.Credentials {
			return // the poller has logged it, once
		}
		d.log.Warn("no token yet, so nobody can tell which tenant to poll; "+
			"ROLLCALL_TENANT_ID would", "err", err)
	})
	return tenant, err
}

// openStream prepares the stream, trying until it is clear that trying is of no use.
func (d *daemon) openStream(
	ctx context.Context, nc *nats.Conn, cfg publisher.Config,
) (pub *publisher.Publisher, err error) {
	d.Waiting("the stream", nil)
	try := func() (err error) {
		attempt, cancel := context.WithTimeout(ctx, streamPatience)
		defer cancel()
		pub, err = publisher.Open(attempt, nc, cfg)
		if _, final := errors.AsType[*publisher.SetupError](err); final {
			return backoff.Permanent(err)
		}
		return err
	}
	err = retry(ctx, try, func(err error) {
		d.Waiting("the stream", err)
		d.log.Warn("the stream can't be opened yet, so nothing is polled or published; "+
			"trying again", "err", err)
	})
	return pub, err
}

// retry tries until it works, ctx ends, or the error is permanent.
func retry(ctx context.Context, try func() error, report func(error)) error {
	wait := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(250*time.Millisecond), backoff.WithMaxInterval(10*time.Second),
		backoff.WithMaxElapsedTime(0)) // a daemon waits for what it needs
	return backoff.RetryNotify(try, backoff.WithContext(wait, ctx),
		func(err error, _ time.Duration) { report(err) })
}
