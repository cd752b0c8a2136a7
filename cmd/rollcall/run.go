package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/signal"
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
	o, err := openOperators(s, log, false)
	if err != nil {
		return err
	}
	o.stderr, _ = stderr.(*output)
	return o.during(ctx, func(ctx context.Context) error {
		broker, err := openBroker(ctx, s, o, log)
		if err != nil {
			return ended(ctx, err)
		}
		defer broker.close()
		return broker.during(ctx, func(ctx context.Context) error { return serve(ctx, s, broker.nc, o, log) })
	})
}

// serve polls one tenant and publishes to nc until ctx ends.
func serve(ctx context.Context, s *settings, nc *nats.Conn, o *operators, log *slog.Logger) error {
	vendorConfig, pollerConfig, now := s.vendor(log), s.poller(log), clock.New(nil)
	vendorConfig.Now, pollerConfig.Now = now.Now, now.Now
	vendorConfig.Metrics, pollerConfig.Metrics = o.registry, o.registry
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
	if known := s.TenantID; known != 0 {
		hide = o.showing(ctx, js, s, known)
	}
	tenant, err := whoseToken(ctx, vendor, s, o, log)
	if err != nil {
		return ended(ctx, err)
	}
	if s.TenantID == 0 {
		hide = o.showing(ctx, js, s, tenant)
	}
	publisherConfig, cfg := s.publisher(tenant, log), s.engine(tenant, log)
	publisherConfig.Metrics, cfg.Metrics = o.ofTenant(tenant), o.ofTenant(tenant)
	cfg.Now, cfg.Follow, cfg.MaxBody = now.Now, now.Follow, func() int { return publisher.MaxBody(nc) }
	cfg.Expect = source.Expect
	pub, err := openLog(ctx, nc, publisherConfig, o, log)
	if err != nil {
		return ended(ctx, err)
	}
	log.Info("ready; asking for the lease", "tenant", tenant, "url", s.ISDPURL, "interval", cfg.Interval, "instance", s.Instance)
	loop := engine.New(cfg, source, pub)
	o.Running(tenant, pub, loop)
	for {
		err := pub.Lead(ctx, loop.Run)
		switch {
		case errors.Is(err, publisher.ErrLeaseLost): // stand by
		case errors.Is(err, engine.ErrNoAnswers):
			log.Warn("the vendor does not answer this replica: giving up the lease, in case it answers "+
				"another one", "tenant", tenant, "err", err)
			stayOut(ctx, pub, publisherConfig.LeaseTTL)
		case ctx.Err() != nil && errors.Is(err, ctx.Err()):
			log.Info("stopped while standing by")
			return nil
		case err != nil:
			return err
		default:
			log.Info("stopped: everything that was seen is published")
			return nil
		}
	}
}

// stayOut returns when this replica may ask for the lease again that it has given up: after two
// TTLs where another one has taken it, or when that one has given it up too; after half of one
// where nobody wants it. (A standby hears of it at once.)
func stayOut(ctx context.Context, pub *publisher.Publisher, ttl time.Duration) {
	begun := time.Now()
	taken := false
	for {
		wait := ttl / 2
		if taken {
			wait = 2 * ttl
		}
		if left := wait - time.Since(begun); left <= 0 {
			return
		}
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
			taken = true
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
	// logPatience is how long one try to open the log may take: a request that a cluster gets
	// before it has a leader is never answered.
	logPatience = 3 * time.Second
)

// whoseToken says which tenant is polled. Where that is configured, a vendor that is away does not
// keep rollcall from starting and saying so; where it isn't, nothing can start before the first
// token.
func whoseToken(ctx context.Context, vendor *isdp.Client, s *settings, o *operators, log *slog.Logger) (int64, error) {
	const waiting = "the vendor's first token"
	o.Waiting(waiting, nil)
	configured := s.TenantID
	if configured != 0 {
		attempt, cancel := context.WithTimeout(ctx, tenantPatience)
		defer cancel()
		if _, err := vendor.Tenant(attempt); ctx.Err() != nil {
			return 0, ctx.Err()
		} else if errors.Is(err, isdp.ErrTenant) {
			return 0, &setting.Error{Field: "ROLLCALL_TENANT_ID", Value: fmt.Sprint(configured), Want: "the tenant of the credentials, or nothing: " + err.Error()}
		} else if err != nil {
			log.Warn("no token yet to confirm the tenant with; going on with ROLLCALL_TENANT_ID", "tenant", configured, "err", err)
		}
		return configured, nil
	}
	var tenant int64
	try := func() (err error) {
		tenant, err = vendor.Tenant(ctx)
		if errors.Is(err, isdp.ErrTenant) {
			return backoff.Permanent(&setting.Error{Field: "ROLLCALL_TENANT_ID", Want: "the tenant's number, since the token does not name one"})
		}
		return err
	}
	// The poller spaces its requests itself, and asks rarely where credentials are refused.
	err := retry(ctx, try, func(err error) {
		o.Waiting(waiting+", which says whose agents these are", err)
		var pe *listing.Error
		if errors.As(err, &pe) && pe.Class == listing.Credentials {
			return // the poller has told it, once
		}
		log.Warn("no token yet, so nobody can tell which tenant to poll; ROLLCALL_TENANT_ID would", "err", err)
	})
	return tenant, err
}

// openLog prepares the log, trying until it can be told that trying is of no use.
func openLog(ctx context.Context, nc *nats.Conn, cfg publisher.Config, o *operators, log *slog.Logger) (*publisher.Publisher, error) {
	o.Waiting("the log", nil)
	var pub *publisher.Publisher
	try := func() (err error) {
		attempt, cancel := context.WithTimeout(ctx, logPatience)
		defer cancel()
		pub, err = publisher.Open(attempt, nc, cfg)
		var setup *publisher.SetupError
		if errors.As(err, &setup) {
			return backoff.Permanent(err)
		}
		return err
	}
	return pub, retry(ctx, try, func(err error) {
		o.Waiting("the log", err)
		log.Warn("the log can't be opened yet, trying again", "err", err)
	})
}

// retry tries until it works, ctx ends, or the error is permanent.
func retry(ctx context.Context, try func() error, tell func(error)) error {
	wait := backoff.NewExponentialBackOff(backoff.WithInitialInterval(250*time.Millisecond), backoff.WithMaxInterval(10*time.Second),
		backoff.WithMaxElapsedTime(0)) // a daemon waits for what it needs
	return backoff.RetryNotify(try, backoff.WithContext(wait, ctx), func(err error, _ time.Duration) { tell(err) })
}
