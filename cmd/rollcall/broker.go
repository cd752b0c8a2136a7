package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rollcall-events/rollcall/internal/natsd"
)

// A broker is the NATS server that holds the log: an embedded one, or the one that the settings name.
type broker struct {
	nc    *nats.Conn
	url   string // where clients on this machine find it, without user info
	close func()
}

// openBroker starts the embedded server or connects to the one that the settings name, and tells operators of the connection.
func openBroker(ctx context.Context, s *settings, o *operators, log *slog.Logger) (*broker, error) {
	open := func() (*broker, error) { return embeddedBroker(s, log) }
	if !s.embedded() {
		open = func() (*broker, error) { return remoteBroker(ctx, s, o, log) }
	}
	b, err := open()
	if err == nil {
		o.connected(b.nc, s)
	}
	return b, err
}

func embeddedBroker(s *settings, log *slog.Logger) (*broker, error) {
	srv, err := natsd.Start(s.natsd(log))
	if err != nil {
		return nil, s.inVariables("natsd", err)
	}
	nc, err := srv.Connect(connectOptions(s, log)...)
	if err != nil {
		srv.Shutdown()
		return nil, err
	}
	log.Info("the embedded NATS server is ready", "url", srv.ClientURL(), "dir", s.DataDir.value)
	return &broker{nc: nc, url: srv.ClientURL(), close: func() {
		nc.Close()
		srv.Shutdown()
	}}, nil
}

// remoteBroker connects, and goes on trying until ctx ends: a broker that is away comes back.
func remoteBroker(ctx context.Context, s *settings, o *operators, log *slog.Logger) (*broker, error) {
	opts, err := s.natsOptions()
	if err != nil {
		return nil, err
	}
	opts = append(connectOptions(s, log), opts...)
	var nc *nats.Conn
	try := func() (err error) {
		nc, err = nats.Connect(s.NATSURL.value.reveal(), opts...)
		return err
	}
	tell := func(err error) {
		err = connectHint(err)
		o.Waiting("the connection to NATS", err)
		log.Warn("can't connect to NATS yet, trying again", "err", err)
	}
	if err := retry(ctx, try, tell); err != nil {
		return nil, fmt.Errorf("connect to NATS (ROLLCALL_NATS_URL): %w", err)
	}
	url := connectedURL(nc)
	log.Info("connected to NATS", "url", url, "version", nc.ConnectedServerVersion())
	return &broker{nc: nc, url: url, close: nc.Close}, nil
}

func connectOptions(s *settings, log *slog.Logger) []nats.Option {
	return []nats.Option{
		nats.Name("rollcall " + s.Instance.value),
		nats.MaxReconnects(-1),    // the default gives up after 60 tries
		nats.ReconnectBufSize(-1), // half a batch from before must never surprise anyone
		nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectJitter(100*time.Millisecond, 500*time.Millisecond),
		nats.PingInterval(10 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.Timeout(5 * time.Second),
		nats.IgnoreAuthErrorAbort(), // permissions may come back as well
		nats.DisconnectErrHandler(func(nc *nats.Conn, err error) {
			if !nc.IsClosed() {
				log.Warn("lost the connection to NATS; what is seen meanwhile is kept", "err", err)
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) { log.Info("reconnected to NATS", "url", connectedURL(nc)) }),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			if sub != nil {
				log.Warn("NATS reports an error", "subject", sub.Subject, "err", err)
				return
			}
			log.Warn("NATS reports an error", "err", err)
		}),
	}
}

// connectedURL is where the server is, without user info: the user in it may be a token, which the client would show.
func connectedURL(nc *nats.Conn) string { return shownURL(nc.ConnectedUrl()) }

// connectHint says what to do about the errors that a first connection meets.
func connectHint(err error) error {
	switch {
	case errors.Is(err, nats.ErrNoServers):
		return fmt.Errorf("%w: is it running, and is ROLLCALL_NATS_URL right?", err)
	case errors.Is(err, nats.ErrAuthorization):
		return fmt.Errorf("%w: check ROLLCALL_NATS_CREDS_FILE, ROLLCALL_NATS_NKEY_FILE or the user in ROLLCALL_NATS_URL", err)
	}
	return err
}
