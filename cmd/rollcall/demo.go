package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/rollcall-events/rollcall/internal/natsd"
	"github.com/rollcall-events/rollcall/internal/scenario"
	"github.com/rollcall-events/rollcall/internal/setting"
	"github.com/rollcall-events/rollcall/internal/tenantsim"
	"github.com/rollcall-events/rollcall/internal/watch"
	"github.com/rollcall-events/rollcall/schemas"
)

const (
	demoInterval = time.Second // between sweeps
	demoRate     = 50.0        // requests a second: the tenant is ours

	mostAgents = 200_000 // 1.5 KB each
	mostChurn  = 10_000  // changes a second
)

// demonstration is what the command line says of the demo.
type demonstration struct {
	script       string           // a file
	scenario     *scenario.Script // what it says; nil: there is none
	simOnly      bool
	simListen    string
	seed         uint64
	agents       int
	churn, speed float64
}

func demoCommand() *cobra.Command { return new(demonstration).command() }

// command fills d from the command line, and runs it.
func (d *demonstration) command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Runs the whole thing on this machine, with a simulated tenant and nothing to set",
		Long: `Runs a simulated ISDP+ tenant, the embedded NATS server, the board and rollcall on
this machine. Its data is in a temporary directory, which goes away with it.

The tenant's agents change by chance: the same --seed and --agents give the same
agents and the same changes, one after the other, but never at the same instants.

With --script they change as a scenario says: a YAML file, such as those in
examples/scenarios. docs/consumers.md says what may stand in it.`,
		Example: `  rollcall demo --agents 2000 --churn 10
  rollcall demo --script examples/scenarios/staleness.yaml
  rollcall demo --sim-only --script my-test.yaml --speed 4`,
		SuggestFor: []string{"example", "sim", "simulate", "try"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("seed") {
				d.seed = uint64(time.Now().UnixNano()) % 1_000_000 // easy to type again
			}
			if err := errors.Join(d.read(cmd.Flags().Changed), d.validate()); err != nil {
				return err
			}
			return d.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.BoolVar(&d.simOnly, "sim-only", false,
		"serve the simulated tenant alone, for tests of your own")
	f.StringVar(&d.simListen, "sim-listen", "127.0.0.1:0",
		"let the simulated tenant listen on `HOST:PORT`; port 0 takes a free one")
	f.StringVar(&d.script, "script", "", "play the scenario in `FILE` instead of chance")
	_ = cmd.MarkFlagFilename("script", "yaml", "yml") // it fails only where there is no such flag
	f.Uint64Var(&d.seed, "seed", 0, "begin the tenant's chance with `N` (default: by the clock)")
	f.IntVar(&d.agents, "agents", scenario.DefaultAgents, "`N` agents at the start")
	f.Float64Var(&d.churn, "churn", 1, "`X` changes a second, on average; 0 for none")
	f.Float64Var(&d.speed, "speed", 1, "let the tenant's time pass `X` times as fast: "+
		"changes come that much sooner")
	return cmd
}

// validate reports everything that can't be used.
func (d *demonstration) validate() error {
	var errs []error
	bad := func(flag, value, want string) {
		errs = append(errs, &setting.Error{Field: flag, Value: value, Want: want})
	}
	host, port, err := net.SplitHostPort(d.simListen)
	loopback := host == "" || host == "localhost" || net.ParseIP(host).IsLoopback()
	if err != nil || !loopback || !isPort(port) {
		bad("--sim-listen", d.simListen, "an address of this machine alone and a port, such as "+
			"127.0.0.1:8180")
	}
	if d.agents < 0 || d.agents > mostAgents {
		bad("--agents", fmt.Sprint(d.agents), fmt.Sprintf("0 to %d", mostAgents))
	}
	churnOK, speedOK := d.churn >= 0 && d.churn <= mostChurn, d.speed > 0 && d.speed <= mostChurn
	if !churnOK {
		bad("--churn", fmt.Sprint(d.churn), fmt.Sprintf("0 to %d changes a second", mostChurn))
	}
	if !speedOK {
		bad("--speed", fmt.Sprint(d.speed), fmt.Sprintf("a factor above 0, at most %d", mostChurn))
	}
	if churnOK && speedOK && d.pace() > mostChurn {
		bad("--churn times --speed", fmt.Sprint(d.pace()),
			fmt.Sprintf("at most %d changes a second", mostChurn))
	}
	return errors.Join(errs...)
}

// read reads the scenario. Where the command line says something else, that counts.
func (d *demonstration) read(onCommandLine func(flag string) bool) error {
	if !onCommandLine("script") {
		return nil
	}
	text, err := os.ReadFile(d.script)
	if err != nil {
		return &setting.Error{Field: "--script", Value: d.script,
			Want: fmt.Sprintf("a scenario's file, such as examples/scenarios/flapping.yaml (%v)",
				err)}
	}
	agents := -1
	if onCommandLine("agents") {
		agents = d.agents
	}
	s, err := scenario.Parse(d.script, text, agents)
	if err != nil {
		return err
	}
	if line := s.LosesStream(); line > 0 {
		env, _, err := loadSettings(withoutVendor)
		if err != nil {
			return err
		}
		want := ""
		switch {
		case d.simOnly:
			want = "the whole demo for this: leave --sim-only out"
		case !env.embedded() || env.env.isSet("ROLLCALL_DATA_DIR"):
			want = "the demo's own stream for this, since it is deleted: leave ROLLCALL_NATS_URL " +
				"and ROLLCALL_DATA_DIR unset"
		}
		if want != "" {
			return &setting.Error{Field: fmt.Sprintf("%s:%d: stream", d.script, line), Want: want}
		}
	}
	if agents < 0 && s.Agents >= 0 {
		d.agents = s.Agents
	}
	if s.Seed != nil && !onCommandLine("seed") {
		d.seed = *s.Seed
	}
	if !onCommandLine("churn") {
		d.churn = s.Churn
	}
	d.scenario = s
	return nil
}

// play plays the scenario, where there is one, until it is over or ctx ends.
func (d *demonstration) play(ctx context.Context, t *tenantsim.Tenant, v *scenario.Vendor,
	w io.Writer, loseStream func(context.Context) error) error {
	if d.scenario == nil {
		return nil
	}
	return d.scenario.Play(ctx, scenario.Stage{Tenant: t, Vendor: v, Seed: d.seed, Speed: d.speed,
		LoseStream: loseStream, Tell: func(text string) {
			fmt.Fprintf(w, "%s  SCRIPT   %s\n", time.Now().Format(time.TimeOnly), text)
		}})
}

// pace is how many changes a second there are by the clock.
func (d *demonstration) pace() float64 { return d.churn * d.speed }

// tenant says in words what is simulated.
func (d *demonstration) tenant() string {
	changes := "no changes"
	switch pace := d.pace(); {
	case pace == 1:
		changes = "about one change a second"
	case pace > 1:
		changes = fmt.Sprintf("about %s changes a second", threeDigits(pace))
	case pace > 0:
		changes = fmt.Sprintf("about one change in %s s", threeDigits(1/pace))
	}
	if d.scenario != nil {
		script := fmt.Sprintf("a scenario of %v, %s", d.scenario.Lasts(), d.script)
		if d.speed != 1 {
			script += fmt.Sprintf(", at %v times its speed", d.speed)
		}
		if d.pace() > 0 {
			script += ", and " + changes
		}
		changes = script
	}
	return fmt.Sprintf("%d agents, %s, seed %d", d.agents, changes, d.seed)
}

// threeDigits writes a number with three digits and no exponent.
func threeDigits(x float64) string {
	if x >= 100 {
		return fmt.Sprintf("%.0f", x)
	}
	return fmt.Sprintf("%.3g", x)
}

// run runs the simulated tenant and, unless simOnly, all of rollcall against it, until ctx ends.
func (d *demonstration) run(ctx context.Context, stdout, stderr io.Writer) error {
	signal.Ignore(syscall.SIGPIPE)
	agents := d.agents
	if agents == 0 {
		agents = -1 // none
	}
	tenant := tenantsim.New(tenantsim.Config{Agents: agents, Churn: d.pace(), Seed: d.seed})
	vendor := scenario.NewVendor(tenant)
	sim, err := tenantsim.Listen(d.simListen, vendor)
	if err != nil {
		return err
	}
	// The tenant outlives rollcall, so that the end is as orderly as the beginning.
	simulating, stopSimulating := context.WithCancel(context.WithoutCancel(ctx))
	simulation, simulating := errgroup.WithContext(simulating)
	simulation.Go(func() error { return sim.Serve(simulating) })
	simulation.Go(func() error { return tenant.Run(simulating) })
	defer func() {
		stopSimulating()
		_ = simulation.Wait()
	}()

	if d.simOnly {
		printTenant(stdout, sim.URL, d.tenant()) // whoever has read that may go
		simulation.Go(func() error { return d.play(simulating, tenant, vendor, stdout, nil) })
		select {
		case <-ctx.Done():
			return nil
		case <-simulating.Done():
			return context.Cause(simulating)
		}
	}

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	out := newOutput(stdout, stop) // where nobody reads it any more, the demo ends
	defer out.end(flushTimeout)

	s, warnings, err := demoSettings(sim.URL, d.agents)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		fmt.Fprintln(stderr, "rollcall: warning:", w)
	}
	if !s.env.isSet("ROLLCALL_LOG_LEVEL") {
		s.LogLevel = slog.LevelWarn // the lines of watch say what happens
	}
	log := newLogger(stderr, s)
	takeStandardLog(log)
	if !s.env.isSet("ROLLCALL_DATA_DIR") && s.embedded() {
		dir, err := os.MkdirTemp("", "rollcall-demo-")
		if err != nil {
			return fmt.Errorf("make a data directory (or name one in ROLLCALL_DATA_DIR): %w", err)
		}
		defer os.RemoveAll(dir)
		s.DataDir = dir
	}
	daemon, err := newDaemon(s, log, stderr, true)
	if err != nil {
		return err
	}
	return daemon.during(ctx, func(ctx context.Context) error {
		broker, err := daemon.openBroker(ctx)
		if errors.Is(err, natsd.ErrListen) && !s.env.isSet("ROLLCALL_NATS_LISTEN") {
			s.NATSListen = "127.0.0.1:0"
			broker, err = daemon.openBroker(ctx)
		}
		if err != nil {
			return ended(ctx, err)
		}
		defer broker.close()

		printWelcome(out, sim.URL, d.tenant(), broker.url, daemon.url(), s)
		watching, stopWatching := context.WithCancel(context.WithoutCancel(ctx))
		defer stopWatching()
		var watcher errgroup.Group
		watcher.Go(func() error {
			return watch.Run(watching, broker.nc, watch.Config{
				Tenant: tenant.TenantID(), Await: true, NoTable: true,
				Server: broker.url, Out: out,
			})
		})
		err = broker.during(ctx, func(ctx context.Context) error {
			ctx, stop := context.WithCancel(ctx)
			defer stop()
			var player errgroup.Group
			player.Go(func() error {
				err := d.play(ctx, tenant, vendor, out, func(ctx context.Context) error {
					return deleteStream(ctx, broker.nc)
				})
				if err != nil {
					stop()
				}
				return err
			})
			err := daemon.serve(ctx, broker)
			stop()
			return errors.Join(err, player.Wait())
		})
		stopWatching()
		if err := errors.Join(err, watcher.Wait()); err != nil {
			return err
		}
		fmt.Fprintln(out, "\nStopped. Everything that was seen is published.")
		return nil
	})
}

// deleteStream deletes the stream, for rollcall to begin it anew.
func deleteStream(ctx context.Context, nc *nats.Conn) error {
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	if err := js.DeleteStream(ctx, schemas.Stream); err != nil {
		return fmt.Errorf("delete the stream %s: %w", schemas.Stream, err)
	}
	return nil
}

// demoSettings are the environment's, with a simulated tenant and the demo's pace where nothing
// else was asked for.
func demoSettings(url string, agents int) (*settings, []string, error) {
	s, warnings, err := loadSettings(withoutVendor)
	if err != nil {
		return nil, warnings, err
	}
	s.ISDPURL = url
	s.ISDPClientID = newSecret(tenantsim.DemoClientID)
	s.ISDPClientSecret = newSecret(tenantsim.DemoClientSecret)
	s.ISDPUsername = newSecret(tenantsim.DemoUsername)
	s.ISDPPassword = newSecret(tenantsim.DemoPassword)
	s.ISDPTypes, s.ISDPCAFile, s.TenantID = nil, "", 0
	if !s.env.isSet("ROLLCALL_POLL_INTERVAL") {
		s.PollInterval = demoInterval
	}
	if !s.env.isSet("ROLLCALL_RATE_LIMIT") {
		pages := float64(agents) / tenantsim.MaxPageSize
		s.RateLimit = max(demoRate, 2*pages/s.PollInterval.Seconds())
	}
	return s, warnings, nil
}

func printTenant(w io.Writer, url, tenant string) {
	fmt.Fprintf(w, `A simulated ISDP+ tenant of %s.
Point rollcall, or anything of your own, at it:

  ROLLCALL_ISDP_URL=%s
  ROLLCALL_ISDP_CLIENT_ID=%s
  ROLLCALL_ISDP_CLIENT_SECRET=%s
  ROLLCALL_ISDP_USERNAME=%s
  ROLLCALL_ISDP_PASSWORD=%s

Ctrl-C ends it.
`, tenant, url, tenantsim.DemoClientID, tenantsim.DemoClientSecret, tenantsim.DemoUsername,
		tenantsim.DemoPassword)
}

func printWelcome(w io.Writer, simURL, tenant, natsURL, pagesURL string, s *settings) {
	where := "the NATS server of ROLLCALL_NATS_URL"
	if s.embedded() {
		where = fmt.Sprintf("embedded, its store in %s", s.DataDir)
	}
	pages := "none (ROLLCALL_HTTP_LISTEN is off)"
	if pagesURL != "" {
		pages = pagesURL + "   open it in a browser; also readyz, metrics, healthz"
	}
	follow := "go run ./cmd/rollcall watch"
	if s.NATSURL.reveal() == "" && s.NATSListen != "127.0.0.1:4222" {
		follow = "ROLLCALL_NATS_URL=" + natsURL + " " + follow
	}
	cli := "go run github.com/nats-io/natscli/nats@v0.5.1 -s " + natsURL
	fmt.Fprintf(w, `rollcall demo: everything on this machine, nothing to set. Ctrl-C ends it.

  tenant   %s   simulated: %s
  polling  every %v
  NATS     %s   %s
  board    %s

Try in another terminal, nothing to install:

  %s
  %s sub 'agent.online.>'
  %s stream get %s --last-for agent.state.886.%d
  %s stream info %s

`, simURL, tenant, s.PollInterval, natsURL, where, pages,
		follow, cli, cli, schemas.Stream, tenantsim.FirstID, cli, schemas.Stream)
}
