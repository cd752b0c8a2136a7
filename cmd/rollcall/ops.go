package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/rollcall-events/rollcall/internal/board"
	"github.com/rollcall-events/rollcall/internal/ops"
	"github.com/rollcall-events/rollcall/publisher"
)

// operators is the side of a process that its operators see. It is there before anything else, so
// that it can tell what the start waits for.
type operators struct {
	*ops.Process
	registry *prometheus.Registry
	pages    net.Listener // nil: none
	probes   net.Listener // nil: none
	profiles bool
	log      *slog.Logger
	stderr   *output // where the log goes; nil: not known. Set it before during

	nc    atomic.Pointer[nats.Conn]    // nil: not connected yet
	board atomic.Pointer[http.Handler] // nil: nobody knows the tenant yet
}

// openOperators opens the listeners that the settings name. With spare, one that is there by
// default moves to a free port where its own is taken.
func openOperators(s *settings, log *slog.Logger, spare bool) (*operators, error) {
	o := &operators{Process: ops.NewProcess(s.Instance, nil), registry: prometheus.NewRegistry(), log: log}
	version, commit := build()
	ops.Register(o.registry, version, commit, o.nc.Load)
	promauto.With(o.registry).NewCounterFunc(prometheus.CounterOpts{
		Name: "rollcall_dropped_log_lines_total",
		Help: "Lines of the log that were dropped, since whoever reads them did not keep up " +
			"or could not be written to.",
	}, func() float64 {
		if o.stderr == nil {
			return 0
		}
		return float64(o.stderr.lost())
	})
	var err error
	if addr := s.HTTPListen; addr != "" {
		const variable = "ROLLCALL_HTTP_LISTEN"
		o.pages, err = ops.Listen(variable, addr, ", or to off")
		if errors.Is(err, ops.ErrInUse) && spare && !isSet("ROLLCALL_HTTP_LISTEN") {
			o.pages, err = ops.Listen(variable, "127.0.0.1:0", ", or to off")
		}
		if err != nil {
			return nil, err
		}
		o.profiles = s.LogLevel <= slog.LevelDebug && ops.OnLoopback(o.pages)
		log.Info("serving pages", "url", o.url())
		if o.profiles {
			log.Debug("profiles can be taken from this machine, since the level is debug", "url", o.url()+ops.PathPprof[1:])
		}
	}
	if addr := s.OpsListen; addr != "" {
		if o.probes, err = ops.Listen("ROLLCALL_OPS_LISTEN", addr, ""); err != nil {
			if o.pages != nil {
				_ = o.pages.Close()
			}
			return nil, err
		}
		log.Info("serving probes and scrapers", "addr", o.probes.Addr())
	}
	return o, nil
}

// url is where a browser on this machine finds the pages; "" where there are none.
func (o *operators) url() string {
	if o.pages == nil {
		return ""
	}
	addr, ok := o.pages.Addr().(*net.TCPAddr)
	if !ok || addr.IP.IsUnspecified() {
		addr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: addr.Port}
	}
	return "http://" + addr.String() + "/"
}

// during serves while do runs, and until it has returned: a stop can be watched.
func (o *operators) during(ctx context.Context, do func(context.Context) error) error {
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	var servers sync.WaitGroup
	serve := func(ln net.Listener, opts ops.Options) {
		if ln == nil {
			return
		}
		opts.Process, opts.Metrics, opts.Logger = o.Process, o.registry, o.log
		servers.Go(func() {
			if err := ops.Serve(serving, ln, ops.Handler(opts), o.log); err != nil {
				o.log.Error("pages are served no longer; polling and publishing go on", "err", err)
			}
		})
	}
	serve(o.pages, ops.Options{Board: o, LocalOnly: o.pages != nil && ops.OnLoopback(o.pages), Profiles: o.profiles})
	serve(o.probes, ops.Options{})
	defer servers.Wait()
	defer stop()
	defer context.AfterFunc(ctx, o.Stopping)()
	defer o.watchEnd(ctx)()
	err := do(ctx)
	o.Ending("answering the last requests for pages")
	return err
}

const (
	// endWithin is how long an end may take, but for the last lines of the log …
	endWithin = 9300 * time.Millisecond
	// … which then get less time than usual: ten seconds are what was promised in all.
	lateFlush = 400 * time.Millisecond
)

// watchEnd ends the process where its end takes too long: nothing should be able to hold it up, and
// this is for what can. The returned function ends the watch.
func (o *operators) watchEnd(ctx context.Context) (stop func()) {
	ended := make(chan struct{})
	unwatch := context.AfterFunc(ctx, func() {
		late := time.NewTimer(endWithin)
		defer late.Stop()
		select {
		case <-ended:
		case <-late.C:
			what, unpublished := o.Unfinished()
			o.log.Error("the end takes too long: ending without it; "+
				"the next start publishes every difference that still stands",
				"waitingFor", what, "unpublished", unpublished)
			endNow <- lateFlush
		}
	})
	return func() { close(ended); unwatch() }
}

// ServeHTTP serves the board.
func (o *operators) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := ops.Starting(o.Process)
	if b := o.board.Load(); b != nil {
		h = *b
	}
	h.ServeHTTP(w, r)
}

// showing serves the tenant's board until the returned function has been called.
func (o *operators) showing(ctx context.Context, js jetstream.JetStream, s *settings, tenant int64) (stop func()) {
	if o.pages == nil {
		return func() {}
	}
	b := board.New(board.Config{Tenant: tenant, JetStream: js, Instance: s.Instance, Quiet: s.QuietFields, Logger: o.log})
	var h http.Handler = b
	o.board.Store(&h)
	// It goes on while what was seen is being published.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() {
		if err := b.Run(ctx); err != nil {
			o.log.Error("the board shows nothing any more; polling and publishing go on", "err", err)
		}
	})
	return func() {
		cancel()
		running.Wait()
	}
}

// connected tells of the connection to NATS.
func (o *operators) connected(nc *nats.Conn, s *settings) {
	o.nc.Store(nc)
	cfg := s.publisher(0, o.log) // nobody knows the tenant yet
	o.Connected(nc, func(ctx context.Context) publisher.Status { return publisher.Look(ctx, nc, cfg) })
}

// ofTenant is a registerer for metrics that have to say whose they are.
func (o *operators) ofTenant(tenant int64) prometheus.Registerer {
	return prometheus.WrapRegistererWith(prometheus.Labels{"tenant": strconv.FormatInt(tenant, 10)}, o.registry)
}

// build says what was built, of which commit.
func build() (v, c string) {
	v, c = version, commit
	if info, ok := debug.ReadBuildInfo(); ok {
		if v == "" {
			v = strings.TrimPrefix(info.Main.Version, "v") // of a build from a tag
		}
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && c == "" {
				c = s.Value
			}
		}
	}
	if v == "" {
		v = "(devel)"
	}
	if c == "" {
		c = "unknown"
	}
	return v, c
}
