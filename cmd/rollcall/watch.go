package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/rollcall-events/rollcall/internal/check"
	"github.com/rollcall-events/rollcall/internal/natsdial"
	"github.com/rollcall-events/rollcall/internal/setting"
	"github.com/rollcall-events/rollcall/internal/watch"
	"github.com/rollcall-events/rollcall/schemas"
)

func watchCommand() *cobra.Command {
	var cfg watch.Config
	var context string
	cmd := &cobra.Command{
		DisableFlagsInUseLine: true,

		Use:   "watch [--tenant N] [--type T] [--context C]",
		Short: "Shows who is on duty, then every change, and whether that can be trusted",
		Long: `Shows the agents on duty, then a line for every change as it is committed. It
reads the stream ` + schemas.Stream + ` at ROLLCALL_NATS_URL or, where that is not set, of the
embedded server at ROLLCALL_NATS_LISTEN, and changes nothing.

On a terminal the last line says how old the picture is. It turns red when the
picture is STALE: then rollcall, NATS or the vendor is down, and nobody knows
who is on duty. Other lines say when that begins (STALE) and ends (FRESH), when
the vendor's listing can't be read (FAILING), when removals are held back
(HOLDING), and when the stream can't be read (LOST) and can again (BACK).

With --type it shows and counts the agents of those types only.`,
		Example: `  rollcall watch --type video
  rollcall watch --type safety,quality`,
		SuggestFor: []string{"follow", "show", "tail", "top"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runWatch(cmd.Context(), context, cfg, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	tenantFlag(cmd, &cfg.Tenant)
	typeFlag(cmd, &cfg.Types)
	contextFlag(cmd, &context)
	return cmd
}

// runWatch watches until ctx ends or nobody reads stdout any more.
func runWatch(
	ctx context.Context, natsContext string, cfg watch.Config, stdout, stderr io.Writer,
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
	nc, err := connectWatch(ctx, servers)
	if err != nil {
		return ended(ctx, s.unconnected(where, err))
	}
	defer nc.Close()
	cfg.Server, cfg.Out = where, stdout
	onTerminal(&cfg, stdout)
	done := make(chan error, 1)
	go func() { done <- watch.Run(ctx, nc, cfg) }()
	select {
	case err = <-done:
	case <-ctx.Done():
		select {
		case err = <-done:
		case <-time.After(time.Second): // it waits for a reader that has stopped
		}
	}
	return err
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

// connectWatch connects once: who watches wants to know at once that there is nothing to see. Later
// it reconnects for ever.
func connectWatch(ctx context.Context, servers *natsdial.Servers) (*nats.Conn, error) {
	return servers.Connect(ctx,
		nats.Name("rollcall watch"),
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
	case errors.Is(err, nats.ErrNoServers):
		return fmt.Errorf("no NATS server at %s: "+
			"is it running, and is ROLLCALL_NATS_URL right?", where)
	}
	return fmt.Errorf("connect to NATS at %s: %w", where, natsdial.Advise(err))
}

// onTerminal says what the terminal can do, if stdout is one.
func onTerminal(cfg *watch.Config, stdout io.Writer) {
	f, ok := stdout.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return
	}
	cfg.Width = func() int {
		columns, _, err := term.GetSize(int(f.Fd()))
		if err != nil || columns < 1 {
			return 80
		}
		return columns
	}
	// Windows sets no TERM; its newer terminal, which knows the sequences, WT_SESSION.
	kind := os.Getenv("TERM")
	cfg.Live = kind != "" && kind != "dumb" ||
		runtime.GOOS == "windows" && os.Getenv("WT_SESSION") != ""
	cfg.Color = cfg.Live && os.Getenv("NO_COLOR") == ""
}
