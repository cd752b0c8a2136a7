package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/rollcall-events/rollcall/internal/natsdial"
	"github.com/rollcall-events/rollcall/internal/setting"
	"github.com/rollcall-events/rollcall/internal/watch"
	"github.com/rollcall-events/rollcall/schemas"
)

// watchFlags are the command line of rollcall watch.
type watchFlags struct {
	tenant, agent, kind  string
	events, agents, json bool
}

func watchCommand() *cobra.Command {
	var f watchFlags
	cmd := &cobra.Command{
		DisableFlagsInUseLine: true,

		Use:   "watch [--tenant N] [--type 10] [--agent ID] [--events|--agents] [--json]",
		Short: "Shows who is on duty, then every change, and how far that can be believed",
		Long: `Shows who is on duty: first the state, as the log has it, then a line for
every change as it is committed. It reads the stream ` + schemas.Stream + ` at
ROLLCALL_NATS_URL or, where that is empty, of the embedded server at
ROLLCALL_NATS_LISTEN, and changes nothing.

  (neither)  the agents on duty, then every change of any agent
  --agents   every agent, on duty or not, then each one that changes, as it
             then is
  --events   no state, but every event from now on, also where this end is slow;
             the other two may show the latest of several quick changes of an
             agent, and say how many they left out

The last line of a terminal tells how old the picture is, and turns red when it
is STALE: then rollcall, NATS or the vendor is away, and nobody knows who is on
duty. Lines of their own tell when that begins (STALE) and ends (FRESH), when
the vendor's listing can't be read (FAILING), when removals are held back
(HOLDING), and when the log can't be read (LOST) and can again (BACK). With
--json what is no message of the log is told on standard error.

How long somebody has been on duty counts from when rollcall first saw it.
Times are in the local zone. NO_COLOR turns colours off. Ctrl-C ends it.`,
		Example: `  rollcall watch
  rollcall watch --type 10 --agents
  rollcall watch --agent 17813
  rollcall watch --json | jq -r 'select(.subject | startswith("agent.state."))
                                 | .message.data | [.agent.agentName, .online] | @tsv'
  rollcall watch --events --json | jq -c 'select(.message.type == "agent.offline")
                                          | .message.data.agent.agentId'`,
		Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runWatch(cmd.Context(), f, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().StringVar(&f.tenant, "tenant", "", "tenant `N`; needed where the log has several")
	cmd.Flags().StringVar(&f.kind, "type", "", "only agents of business type `T`: 0 safety, 1 quality,\n2 patrol, 10 video call, _ none")
	cmd.Flags().StringVar(&f.agent, "agent", "", "only the agent with the `ID`, on duty or not")
	cmd.Flags().BoolVar(&f.events, "events", false, "every event from now on, and no state")
	cmd.Flags().BoolVar(&f.agents, "agents", false, "every agent, on duty or not")
	cmd.Flags().BoolVar(&f.json, "json", false, "the messages of the log themselves: states (with --events\nthe events), watermark and health, a line each:\n{\"subject\", \"seq\", \"message\"}")
	return cmd
}

// config is what the flags ask for. All that can't be used is told at once.
func (f *watchFlags) config() (watch.Config, error) {
	cfg := watch.Config{JSON: f.json, Type: f.kind}
	var errs []error
	bad := func(flag, value, want string) {
		errs = append(errs, &setting.Error{Field: flag, Value: shortened(value), Want: want})
	}
	if f.tenant != "" {
		n, err := strconv.ParseInt(f.tenant, 10, 64)
		if err != nil || n < 1 {
			bad("--tenant", f.tenant, "a tenant's number, such as 886")
		}
		cfg.Tenant = n
	}
	if f.agent != "" {
		n, err := strconv.ParseInt(f.agent, 10, 64)
		if err != nil {
			bad("--agent", f.agent, "an agentId, such as 17813")
		}
		cfg.Agent = &n
	}
	if f.kind != "" {
		_, err := schemas.ParseSubject(schemas.EventSubject(schemas.Online, 1, f.kind, 1))
		if err != nil {
			bad("--type", f.kind, "a business type: 0 safety, 1 quality, 2 patrol, 10 video call, or _ for none")
		}
	}
	switch {
	case f.events && f.agents:
		bad("--events and --agents", "", "one of the two: the events without the state, or the agents")
	case f.events:
		cfg.Show = watch.Events
	case f.agents:
		cfg.Show = watch.Agents
	}
	return cfg, errors.Join(errs...)
}

// runWatch watches until ctx ends or nobody reads any more.
func runWatch(ctx context.Context, f watchFlags, stdout, stderr io.Writer) error {
	cfg, wrong := f.config()
	s, warnings, err := loadSettings(withoutVendor)
	for _, w := range warnings {
		fmt.Fprintln(stderr, "rollcall: warning:", w)
	}
	if err := errors.Join(wrong, err); err != nil {
		return err
	}
	servers, where, err := s.watched()
	if err != nil {
		return err
	}
	signal.Ignore(syscall.SIGPIPE) // a write to a pipe that nobody reads is an error, and a good end
	nc, err := connectWatch(ctx, servers)
	if err != nil {
		return ended(ctx, s.unconnected(where, err))
	}
	defer nc.Close()
	cfg.Where, cfg.Out, cfg.Notes = where, stdout, stderr
	onTerminal(&cfg, stdout)
	done := make(chan error, 1)
	go func() { done <- watch.Run(ctx, nc, cfg) }()
	select {
	case err = <-done:
	case <-ctx.Done():
		select {
		case err = <-done:
		case <-time.After(time.Second): // it waits for a pipe that is full: whoever reads it has stopped
		}
	}
	return err
}

// watched is where the log to watch is: for the client, and a name for people.
func (s *settings) watched() (servers *natsdial.Servers, where string, err error) {
	if s.embedded() {
		host, port, err := net.SplitHostPort(s.NATSListen)
		if err != nil || anyPort(s.NATSListen) {
			return nil, "", &setting.Error{Field: "ROLLCALL_NATS_LISTEN", Value: s.NATSListen,
				Want: "the port that the embedded server listens on, or ROLLCALL_NATS_URL: any port will not do to find it"}
		}
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
			host = "127.0.0.1"
		}
		where = "nats://" + net.JoinHostPort(host, port)
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
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})) // what matters shows in the reading
}

// unconnected says why there is no connection, and what to do.
func (s *settings) unconnected(where string, err error) error {
	switch {
	case s.embedded() && errors.Is(err, nats.ErrNoServers):
		return fmt.Errorf("no NATS server at %s (ROLLCALL_NATS_LISTEN): is rollcall, or rollcall demo, running on this machine? For a server of your own, set ROLLCALL_NATS_URL", where)
	case errors.Is(err, nats.ErrNoServers):
		return fmt.Errorf("no NATS server at %s: is it running, and is ROLLCALL_NATS_URL right?", where)
	}
	return fmt.Errorf("connect to NATS at %s: %w", where, natsdial.Advise(err))
}

// onTerminal says what the terminal can do, if stdout is one.
func onTerminal(cfg *watch.Config, stdout io.Writer) {
	f, ok := stdout.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return
	}
	cfg.Terminal = true
	cfg.Width = func() int {
		columns, _, err := term.GetSize(int(f.Fd()))
		if err != nil || columns < 1 {
			return 80
		}
		return columns
	}
	// Windows sets no TERM; its newer terminal, which knows the sequences, WT_SESSION.
	kind := os.Getenv("TERM")
	cfg.Live = kind != "" && kind != "dumb" || runtime.GOOS == "windows" && os.Getenv("WT_SESSION") != ""
	cfg.Color = cfg.Live && os.Getenv("NO_COLOR") == ""
}
