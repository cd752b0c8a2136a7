package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rollcall-events/rollcall/internal/check"
	"github.com/rollcall-events/rollcall/internal/natsdial"
	"github.com/rollcall-events/rollcall/internal/setting"
)

// withStream connects a command that reads the stream, and does it until that is done or ctx ends.
// Its error is nil where ctx has ended.
func withStream(
	ctx context.Context, command, natsContext string, stderr io.Writer,
	do func(nc *nats.Conn, where string) error,
) error {
	s, warnings, err := loadSettingsIn(natsContext, withoutVendor)
	for _, w := range warnings {
		fmt.Fprintln(stderr, "rollcall: warning:", w)
	}
	if err != nil {
		return err
	}
	servers, where, err := s.watched()
	if err != nil {
		return err
	}
	signal.Ignore(syscall.SIGPIPE) // so that such a write is an error
	nc, err := connectReader(ctx, servers, command)
	if err != nil {
		return ended(ctx, s.unconnected(where, err))
	}
	defer nc.Close()
	done := make(chan error, 1)
	go func() { done <- do(nc, where) }()
	select {
	case err = <-done:
	case <-ctx.Done():
		select {
		case err = <-done:
		case <-time.After(time.Second): // it waits for a reader that has stopped
		}
	}
	return ended(ctx, err)
}

// watched is where the stream is: for the client, and a name for people.
func (s *settings) watched() (servers *natsdial.Servers, where string, err error) {
	if s.embedded() {
		if anyPort(s.NATSListen) {
			return nil, "", &setting.Error{Field: "ROLLCALL_NATS_LISTEN", Value: s.NATSListen,
				Want: "the port that the embedded server listens on, or ROLLCALL_NATS_URL: " +
					"any port will not do to find it"}
		}
		where = "nats://" + check.Reach(s.NATSListen)
		return natsdial.At(where), where, nil
	}
	var names []string
	for server := range strings.SplitSeq(s.NATSURL.reveal(), ",") {
		server = strings.TrimSpace(server)
		if !strings.Contains(server, "://") {
			server = "nats://" + server
		}
		if u, err := url.Parse(server); err == nil {
			names = append(names, u.Scheme+"://"+u.Host)
		}
	}
	return s.natsServers(slog.New(slog.DiscardHandler)), strings.Join(names, ","), nil
}

// connectReader connects once: who reads wants to know at once that there is nothing to see. Later
// it reconnects for ever.
func connectReader(
	ctx context.Context, servers *natsdial.Servers, command string,
) (*nats.Conn, error) {
	return servers.Connect(ctx,
		nats.Name("rollcall "+command),
		nats.MaxReconnects(-1),
		nats.ReconnectBufSize(-1),
		nats.ReconnectWait(250*time.Millisecond),
		nats.ReconnectJitter(100*time.Millisecond, 500*time.Millisecond),
		nats.PingInterval(5*time.Second),
		nats.MaxPingsOutstanding(2),
		nats.Timeout(5*time.Second),
		nats.IgnoreAuthErrorAbort(),
		// What matters shows in the reading.
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
}

// unconnected says why there is no connection, and what to do.
func (s *settings) unconnected(where string, err error) error {
	switch {
	case s.embedded() && errors.Is(err, nats.ErrNoServers):
		return fmt.Errorf("no NATS server at %s (ROLLCALL_NATS_LISTEN): is rollcall, or rollcall "+
			"demo, running on this machine? For a server of your own, set ROLLCALL_NATS_URL", where)
	case errors.Is(err, nats.ErrNoServers) && s.NATSContext != "":
		return fmt.Errorf("no NATS server at %s: is it running, and is the url in the context %s "+
			"right?", where, s.NATSContext)
	case errors.Is(err, nats.ErrNoServers):
		return fmt.Errorf("no NATS server at %s: "+
			"is it running, and is ROLLCALL_NATS_URL right?", where)
	}
	return fmt.Errorf("connect to NATS at %s: %w", where, natsdial.Advise(err))
}
