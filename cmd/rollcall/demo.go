package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"github.com/rollcall-events/rollcall/internal/natsd"
	"github.com/rollcall-events/rollcall/internal/tenantsim"
	"github.com/rollcall-events/rollcall/schemas"
)

const (
	demoChurn        = 1.0         // changes a second
	demoInterval     = time.Second // between sweeps
	demoRate         = 50.0        // requests a second: the tenant is ours
	demoSummaryEvery = 15 * time.Second
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
	told := newOutput(stdout, stop) // it is made to be looked at: where nobody does any more, it ends
	defer told.end(flushTimeout)

	s, warnings, err := demoSettings(sim.URL)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		fmt.Fprintln(stderr, "rollcall: warning:", w)
	}
	if !isSet("ROLLCALL_LOG_LEVEL") {
		s.LogLevel = slog.LevelWarn // what happens is told in words
	}
	log := newLogger(stderr, s)
	takeStandardLog(log)
	if !isSet("ROLLCALL_DATA_DIR") && s.embedded() {
		dir, err := os.MkdirTemp("", "rollcall-demo-")
		if err != nil {
			return fmt.Errorf("make a temporary data directory (set ROLLCALL_DATA_DIR to choose one): %w", err)
		}
		defer os.RemoveAll(dir)
		s.DataDir = dir
	}
	o, err := openOperators(s, log, true)
	if err != nil {
		return err
	}
	o.stderr, _ = stderr.(*output)
	return o.during(ctx, func(ctx context.Context) error {
		broker, err := openBroker(ctx, s, o, log)
		if errors.Is(err, natsd.ErrListen) && !isSet("ROLLCALL_NATS_LISTEN") {
			s.NATSListen = "127.0.0.1:0"
			broker, err = openBroker(ctx, s, o, log)
		}
		if err != nil {
			return ended(ctx, err)
		}
		defer broker.close()

		t := &teller{out: told}
		if err := t.follow(broker.nc); err != nil {
			return err
		}
		printWelcome(told, sim.URL, broker.url, o.url(), s)
		if err := broker.during(ctx, func(ctx context.Context) error { return serve(ctx, s, broker.nc, o, log) }); err != nil {
			return err
		}
		fmt.Fprintln(told, "\nStopped. Everything that was seen is published.")
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
	if !isSet("ROLLCALL_POLL_INTERVAL") {
		s.PollInterval = demoInterval
	}
	if !isSet("ROLLCALL_RATE_LIMIT") {
		s.RateLimit = demoRate
	}
	return s, warnings, nil
}

func printTenant(w io.Writer, url string) {
	fmt.Fprintf(w, `A simulated ISDP+ tenant of 340 agents, about one change a second. Point rollcall, or anything of your own, at it:

  ROLLCALL_ISDP_URL=%s
  ROLLCALL_ISDP_CLIENT_ID=%s
  ROLLCALL_ISDP_CLIENT_SECRET=%s
  ROLLCALL_ISDP_USERNAME=%s
  ROLLCALL_ISDP_PASSWORD=%s

Ctrl-C ends it.
`, url, tenantsim.DemoClientID, tenantsim.DemoClientSecret, tenantsim.DemoUsername, tenantsim.DemoPassword)
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
	watch := "go run ./cmd/rollcall watch"
	if s.NATSURL.reveal() == "" && s.NATSListen != "127.0.0.1:4222" {
		watch = "ROLLCALL_NATS_URL=" + natsURL + " " + watch
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

`, simURL, s.PollInterval, natsURL, where, pages, watch, cli, cli, schemas.Stream, tenantsim.FirstID, cli, schemas.Stream)
}

// A teller is a subscriber like any other: it tells in a line each what the log says.
type teller struct {
	out      io.Writer
	baseline int // events of the first sweep, which are told as one line
	online   int
	told     time.Time
}

// follow tells everything that is committed from now on.
func (t *teller) follow(nc *nats.Conn) error {
	_, err := nc.Subscribe(schemas.StoredPrefix+">", t.message) // one goroutine, in order
	if err != nil {
		return fmt.Errorf("subscribe to the log: %w", err)
	}
	return nc.Flush()
}

func (t *teller) message(m *nats.Msg) {
	subject, err := schemas.ParseSubject(m.Subject)
	if err != nil {
		return
	}
	switch subject.Kind {
	case schemas.KindOnline, schemas.KindOffline, schemas.KindUpdated:
		var e schemas.Event
		if json.Unmarshal(m.Data, &e) == nil {
			t.event(&e)
		}
	case schemas.KindWatermark:
		var w schemas.Watermark
		if json.Unmarshal(m.Data, &w) == nil {
			t.watermark(&w)
		}
	case schemas.KindHealth:
		var h schemas.Health
		if json.Unmarshal(m.Data, &h) == nil && h.State != schemas.HealthOK {
			fmt.Fprintf(t.out, "%s  health   %s: %s %s\n", h.Since.Local().Format(time.TimeOnly), h.State, h.Reason, h.Detail)
		}
	}
}

func (t *teller) event(e *schemas.Event) {
	if e.Data.Reason == schemas.Baseline {
		t.baseline++
		if e.Data.Online {
			t.online++
		}
		return
	}
	fmt.Fprintln(t.out, line(e))
}

// line tells an event in words.
func line(e *schemas.Event) string {
	a := &e.Data.Agent
	name := ""
	if a.AgentName != nil {
		name = *a.AgentName
	}
	what := string(e.Data.Reason)
	switch e.Data.Reason {
	case schemas.Status:
		if !e.Data.PreviousSince.IsZero() {
			state := map[bool]string{true: "offline", false: "online"}[e.Data.Online]
			what = fmt.Sprintf("had been seen %s for %v", state, e.Data.Since.Sub(e.Data.PreviousSince).Round(time.Second))
		}
	case schemas.Fields:
		var changed []string
		for _, c := range e.Data.Changes {
			if slices.Contains(schemas.DefaultQuiet, c.Field) {
				continue
			}
			changed = append(changed, fmt.Sprintf("%s %s → %s", c.Field, orNone(c.From), orNone(c.To)))
		}
		what = strings.Join(changed, ", ")
	}
	return fmt.Sprintf("%s  %-7s  %d  %s  r%d  %s", e.Time.Local().Format("15:04:05.000"), strings.TrimPrefix(string(e.Type), "agent."),
		a.AgentID, name, e.Data.Revision, what)
}

func orNone(v json.RawMessage) string {
	if v == nil {
		return "(none)"
	}
	return string(v)
}

func (t *teller) watermark(w *schemas.Watermark) {
	if w.Sweep == 0 || w.InProgress != nil {
		return
	}
	if t.baseline > 0 {
		fmt.Fprintf(t.out, "%s  baseline %d agents, %d of them online; from now on a line an event\n",
			w.CompletedAt.Local().Format("15:04:05.000"), t.baseline, t.online)
		t.baseline, t.told = 0, w.CompletedAt
		return
	}
	if w.CompletedAt.Sub(t.told) >= demoSummaryEvery {
		t.told = w.CompletedAt
		fmt.Fprintf(t.out, "%s  watermark: sweep %d took %v; %d agents, %d online, %d missing, %d rejected; all of it published\n",
			w.CompletedAt.Local().Format("15:04:05.000"), w.Sweep, w.CompletedAt.Sub(w.StartedAt).Round(time.Millisecond),
			w.Agents, w.Online, w.Missing, w.Rejected)
	}
}
