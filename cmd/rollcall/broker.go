package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/nats-io/nats.go"

	"github.com/rollcall-events/rollcall/internal/natsd"
	"github.com/rollcall-events/rollcall/internal/natsdial"
)

// A broker is the NATS server that holds the stream: an embedded one, or the one that the settings
// name.
type broker struct {
	nc     *nats.Conn
	url    string       // where clients on this machine find it, without user info
	failed <-chan error // gets what only a new process mends
	close  func()

	// connect makes another connection.
	connect func(context.Context, ...nats.Option) (*nats.Conn, error)
}

// during runs do. Where the broker fails for good meanwhile, it ends do's context, and returns why
// besides do's own error.
func (b *broker) during(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	why := make(chan error, 1)
	go func() {
		defer close(why)
		select {
		case err := <-b.failed:
			why <- err
			cancel()
		case <-ctx.Done():
		}
	}()
	err := do(ctx)
	if errors.Is(err, nats.ErrConnectionClosed) { // failed knows the reason, or will in an instant
		defer time.AfterFunc(time.Second, cancel).Stop()
		return cmp.Or(<-why, err)
	}
	cancel()
	return errors.Join(<-why, err)
}

// openBroker starts the embedded server or connects to the one that the settings name.
func (d *daemon) openBroker(ctx context.Context) (*broker, error) {
	open := d.embeddedBroker
	if !d.settings.embedded() {
		open = d.remoteBroker
	}
	b, err := open(ctx)
	if err == nil {
		d.connected(b.nc)
	}
	return b, err
}

// embeddedBroker starts the embedded server. Where its disk is full, it waits for room until ctx
// ends. The recovery of a large store can't be cut short: when ctx ends, it is left behind, and
// ends with the process. Nothing is lost by that, as nothing is by any other end.
func (d *daemon) embeddedBroker(ctx context.Context) (*broker, error) {
	s, log := d.settings, d.log
	var srv *natsd.Server
	// To replace an agent's state, nats-server reads the block of its store that holds the old one,
	// into a buffer of 8 MB. Blocks that are used every ten seconds stay in memory; under steady
	// churn these are nearly all. (Seen with 2.15.2, which has no setting for it.) To let the heap
	// grow by half of that would be to pay for nothing: little becomes garbage.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(20)
	}
	log.Info("starting the embedded NATS server: recovering the store", "dir", s.DataDir)
	try := func() (err error) {
		d.Waiting("the embedded NATS server, which is recovering the store in "+s.DataDir, nil)
		if srv, err = start(ctx, s.natsd(log)); err != nil && !errors.Is(err, natsd.ErrNoRoom) {
			return backoff.Permanent(err)
		}
		return err
	}
	var seen repeated
	report := func(err error) {
		d.Waiting("room on the disk of ROLLCALL_DATA_DIR", err)
		// The error's figures change from try to try.
		if n, ok := seen.worth(natsd.ErrNoRoom.Error()); ok {
			log.Warn("the embedded NATS server can't be started yet, "+
				"so nothing is polled or published; trying again", "err", err, "leftOut", n)
		}
	}
	if err := retry(ctx, try, report); err != nil {
		return nil, err
	}
	reconnected := nats.ReconnectHandler(func(*nats.Conn) {
		// The client itself does not know the URL.
		log.Info("reconnected to the embedded NATS server", "url", srv.ClientURL())
	})
	nc, err := srv.Connect(append(connectOptions(s, log), reconnected)...)
	if err != nil {
		srv.Shutdown()
		return nil, err
	}
	log.Info("the embedded NATS server is ready", "url", srv.ClientURL(), "dir", s.DataDir)
	return &broker{nc: nc, url: srv.ClientURL(), failed: srv.Failed(), close: func() {
		d.Ending("closing the embedded NATS server")
		nc.Close()
		srv.Shutdown()
	}, connect: func(_ context.Context, opts ...nats.Option) (*nats.Conn, error) {
		return srv.Connect(opts...)
	}}, nil
}

// start starts the embedded server or, where ctx ends before that is done, leaves it behind.
func start(ctx context.Context, cfg natsd.Config) (*natsd.Server, error) {
	type result struct {
		srv *natsd.Server
		err error
	}
	done := make(chan result, 1)
	go func() {
		srv, err := natsd.Start(cfg)
		done <- result{srv, err}
	}()
	select {
	case r := <-done:
		return r.srv, r.err
	case <-ctx.Done():
		go func() {
			if r := <-done; r.err == nil {
				r.srv.Shutdown()
			}
		}()
		return nil, ctx.Err()
	}
}

// remoteBroker connects, and goes on trying until ctx ends: a broker that is away comes back.
func (d *daemon) remoteBroker(ctx context.Context) (*broker, error) {
	s, log := d.settings, d.log
	servers, opts := s.natsServers(log), connectOptions(s, log)
	failed := make(chan error, 1)
	opts = append(opts, nats.ClosedHandler(func(nc *nats.Conn) {
		// The client has given the connection up for good, after an error that it knows no way to
		// deal with. (When the end closes it, nobody asks any more.)
		why := fmt.Errorf("the connection to NATS was closed for good (%w): start rollcall again, "+
			"which connects anew; what is not published is read again from the vendor",
			cmp.Or(nc.LastError(), nats.ErrConnectionClosed))
		select {
		case failed <- why:
		default: // the reason is there already
		}
	}))
	var nc *nats.Conn
	try := func() (err error) {
		nc, err = servers.Connect(ctx, opts...)
		return err
	}
	var seen repeated
	report := func(err error) {
		err = natsdial.Advise(err)
		d.Waiting("the connection to NATS", err)
		if n, ok := seen.worth(err.Error()); ok {
			log.Warn("can't connect to NATS yet, trying again", "err", err, "leftOut", n)
		}
	}
	if err := retry(ctx, try, report); err != nil {
		return nil, fmt.Errorf("connect to NATS (ROLLCALL_NATS_URL): %w", err)
	}
	url := connectedURL(nc)
	log.Info("connected to NATS", "url", url, "version", nc.ConnectedServerVersion())
	return &broker{nc: nc, url: url, failed: failed, connect: servers.Connect, close: func() {
		d.Ending("closing the connection to NATS")
		nc.Close()
	}}, nil
}

func connectOptions(s *settings, log *slog.Logger) []nats.Option {
	var away, others repeated
	tellAway := func(err error) {
		err = natsdial.Advise(err)
		if n, ok := away.worth(err.Error()); ok {
			log.Warn("can't reconnect to NATS yet, trying again; what is seen meanwhile is kept",
				"err", err, "leftOut", n)
		}
	}
	return append(lasting(s),
		nats.DisconnectErrHandler(func(nc *nats.Conn, err error) {
			if !nc.IsClosed() {
				log.Warn("lost the connection to NATS; what is seen meanwhile is kept", "err", err)
				go refusals(nc, tellAway)
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			log.Info("reconnected to NATS", "url", connectedURL(nc))
		}),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) {
			if errors.Is(err, natsdial.ErrPending) {
				return // it is given more time; where that was of no use, that is logged
			}
			tellAway(err)
		}),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			if sub != nil {
				err = fmt.Errorf("subscription to %s: %w", sub.Subject, err)
			}
			err = natsdial.Advise(err)
			if n, ok := others.worth(err.Error()); ok {
				log.Warn("NATS reports an error", "err", err, "leftOut", n)
			}
		}),
	)
}

// lasting are the options of a connection that is there for as long as the process.
func lasting(s *settings) []nats.Option {
	return []nats.Option{
		nats.Name("rollcall " + s.Instance),
		nats.MaxReconnects(-1),    // the default gives up after 60 tries
		nats.ReconnectBufSize(-1), // half a batch from before must never surprise anyone
		nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectJitter(100*time.Millisecond, 500*time.Millisecond),
		nats.PingInterval(10 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.Timeout(5 * time.Second),
		// The client holds its lock while it writes: to a server that reads nothing, for a minute
		// by default.
		nats.FlusherTimeout(5 * time.Second),
		nats.ReconnectOnFlusherError(),
		nats.IgnoreAuthErrorAbort(), // permissions may come back as well
	}
}

// refusals reports, until the connection is there again or closed, what comes of tries that reach a
// server and get no further: TLS that does not come about, a greeting that is none. The client
// calls ReconnectErrHandler only where no server is reached. Refused credentials it gives to
// ErrorHandler.
func refusals(nc *nats.Conn, report func(error)) {
	changed := nc.StatusChanged()
	defer nc.RemoveStatusListener(changed)
	for !nc.IsConnected() && !nc.IsClosed() {
		err := nc.LastError()
		switch {
		case err == nil:
		case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired),
			errors.Is(err, nats.ErrAuthRevoked), errors.Is(err, nats.ErrAccountAuthExpired):
		default:
			report(err)
		}
		<-changed // also when it is closed
	}
}

// connectedURL is where the server is, without user info: the user in it may be a token, which the
// client would show.
func connectedURL(nc *nats.Conn) string { return shownURL(nc.ConnectedUrl()) }
