package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rollcall-events/rollcall/internal/natsd"
	"github.com/rollcall-events/rollcall/internal/tenantsim"
	"github.com/rollcall-events/rollcall/internal/watch"
	"github.com/rollcall-events/rollcall/schemas"
)

const (
	demoChurn    = 1.0         // changes a second
	demoInterval = time.Second // between sweeps
	demoRate     = 50.0        // requests a second: the tenant is ours
)

// runDemo runs the simulated tenant and, unless simOnly, all of rollcall against it, until ctx
// ends.
func runDemo(ctx context.Context, stdout, stderr io.Writer, simListen string, simOnly bool) error {
	signal.Ignore(syscall.SIGPIPE)
	tenant := tenantsim.New(tenantsim.Config{Churn: demoChurn, Seed: uint64(time.Now().UnixNano())})
	sim, err := tenantsim.Listen(simListen, tenant)
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

	if simOnly {
		printTenant(stdout, sim.URL) // whoever has read that may go
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

	s, warnings, err := demoSettings(sim.URL)
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
	d, err := newDaemon(s, log, stderr, true)
	if err != nil {
		return err
	}
	return d.during(ctx, func(ctx context.Context) error {
		broker, err := d.openBroker(ctx)
		if errors.Is(err, natsd.ErrListen) && !s.env.isSet("ROLLCALL_NATS_LISTEN") {
			s.NATSListen = "127.0.0.1:0"
			broker, err = d.openBroker(ctx)
		}
		if err != nil {
			return ended(ctx, err)
		}
		defer broker.close()

		printWelcome(out, sim.URL, broker.url, d.url(), s)
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
			return d.serve(ctx, broker.nc)
		})
		stopWatching()
		if err := errors.Join(err, watcher.Wait()); err != nil {
			return err
		}
		fmt.Fprintln(out, "\nStopped. Everything that was seen is published.")
		return nil
	})
}

// demoSettings are the environment's, with a simulated tenant and the demo's pace where nothing
// else was asked for.
func demoSettings(url string) (*settings, []string, error) {
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
		s.RateLimit = demoRate
	}
	return s, warnings, nil
}

func printTenant(w io.Writer, url string) {
	fmt.Fprintf(w, `A simulated ISDP+ tenant of 340 agents, about one change a second.
Point rollcall, or anything of your own, at it:

  ROLLCALL_ISDP_URL=%s
  ROLLCALL_ISDP_CLIENT_ID=%s
  ROLLCALL_ISDP_CLIENT_SECRET=%s
  ROLLCALL_ISDP_USERNAME=%s
  ROLLCALL_ISDP_PASSWORD=%s

Ctrl-C ends it.
`, url, tenantsim.DemoClientID, tenantsim.DemoClientSecret, tenantsim.DemoUsername,
		tenantsim.DemoPassword)
}

func printWelcome(w io.Writer, simURL, natsURL, pagesURL string, s *settings) {
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

  tenant   %s   simulated: 340 agents, about one change a second
  polling  every %v
  NATS     %s   %s
  board    %s

Try in another terminal, nothing to install:

  %s
  %s sub 'agent.online.>'
  %s stream get %s --last-for agent.state.886.%d
  %s stream info %s

`, simURL, s.PollInterval, natsURL, where, pages,
		follow, cli, cli, schemas.Stream, tenantsim.FirstID, cli, schemas.Stream)
}
