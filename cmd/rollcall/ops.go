package main

import (
	"context"
	"errors"
	"io"
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

// A daemon is a rollcall at work: what its settings say, and the side of it that its operators see.
// That is there before anything else, so that it can say what the start waits for.
type daemon struct {
	*ops.Process
	settings *settings
	registry *prometheus.Registry
	pages    net.Listener // nil: none
	probes   net.Listener // nil: none
	profiles bool
	log      *slog.Logger
	stderr   *output // where the log goes; nil: not known

	nc    atomic.Pointer[nats.Conn]    // nil: not connected yet
	board atomic.Pointer[http.Handler] // nil: nobody knows the tenant yet
}

// newDaemon opens the listeners that the settings name. stderr is where the log goes. With spare, a
// listener that is there by default moves to a free port where its own is taken.
func newDaemon(s *settings, log *slog.Logger, stderr io.Writer, spare bool) (*daemon, error) {
	d := &daemon{Process: ops.NewProcess(s.Instance, nil), settings: s,
		registry: prometheus.NewRegistry(), log: log}
	d.stderr, _ = stderr.(*output)
	version, commit := build()
	ops.Register(d.registry, version, commit, d.nc.Load)
	promauto.With(d.registry).NewCounterFunc(prometheus.CounterOpts{
		Name: "rollcall_dropped_log_lines_total",
		Help: "Lines of the log that were dropped, since whoever reads them did not keep up " +
			"or could not be written to.",
	}, func() float64 {
		if d.stderr == nil {
			return 0
		}
		return float64(d.stderr.lost())
	})
	var err error
	if addr := s.HTTPListen; addr != "" {
		const variable = "ROLLCALL_HTTP_LISTEN"
		d.pages, err = ops.Listen(variable, addr, ", or to off")
		if errors.Is(err, ops.ErrInUse) && spare && !s.env.isSet("ROLLCALL_HTTP_LISTEN") {
			d.pages, err = ops.Listen(variable, "127.0.0.1:0", ", or to off")
		}
		if err != nil {
			return nil, err
		}
		d.profiles = s.LogLevel <= slog.LevelDebug && ops.OnLoopback(d.pages)
		if log.Info("serving pages", "url", d.url()); !ops.OnLoopback(d.pages) {
			log.Warn("pages are served beyond loopback, without a password and under any Host: "+
				"let only a proxy with a login reach them", "addr", d.pages.Addr())
		}
		if d.profiles {
			log.Debug("profiles can be taken from this machine, since the level is debug",
				"url", d.url()+ops.PathPprof[1:])
		}
	}
	if addr := s.OpsListen; addr != "" {
		if d.probes, err = ops.Listen("ROLLCALL_OPS_LISTEN", addr, ""); err != nil {
			if d.pages != nil {
				_ = d.pages.Close()
			}
			return nil, err
		}
		log.Info("serving probes and scrapers", "addr", d.probes.Addr())
	}
	return d, nil
}

// url is where a browser on this machine finds the pages; "" where there are none.
func (d *daemon) url() string {
	if d.pages == nil {
		return ""
	}
	addr, ok := d.pages.Addr().(*net.TCPAddr)
	if !ok || addr.IP.IsUnspecified() {
		addr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: addr.Port}
	}
	return "http://" + addr.String() + "/"
}

// during serves while do runs, and until it has returned: a stop can be watched.
func (d *daemon) during(ctx context.Context, do func(context.Context) error) error {
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	var servers sync.WaitGroup
	serve := func(ln net.Listener, opts ops.Options) {
		if ln == nil {
			return
		}
		opts.Process, opts.Metrics, opts.Logger = d.Process, d.registry, d.log
		servers.Go(func() {
			if err := ops.Serve(serving, ln, ops.Handler(opts), d.log); err != nil {
				d.log.Error("pages are served no longer; polling and publishing go on", "err", err)
			}
		})
	}
	local := d.pages != nil && ops.OnLoopback(d.pages)
	serve(d.pages, ops.Options{Board: d, LocalOnly: local, Profiles: d.profiles})
	serve(d.probes, ops.Options{})
	defer servers.Wait()
	defer stop()
	defer context.AfterFunc(ctx, d.Stopping)()
	defer d.watchEnd(ctx)()
	err := do(ctx)
	d.Ending("answering the last requests for pages")
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
func (d *daemon) watchEnd(ctx context.Context) (stop func()) {
	ended := make(chan struct{})
	unwatch := context.AfterFunc(ctx, func() {
		late := time.NewTimer(endWithin)
		defer late.Stop()
		select {
		case <-ended:
		case <-late.C:
			what, unpublished := d.Unfinished()
			d.log.Error("the end takes too long: ending without it; "+
				"the next start publishes every difference that still stands",
				"waitingFor", what, "unpublished", unpublished)
			endNow <- lateFlush
		}
	})
	return func() { close(ended); unwatch() }
}

// ServeHTTP serves the board.
func (d *daemon) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := ops.Starting(d.Process)
	if b := d.board.Load(); b != nil {
		h = *b
	}
	h.ServeHTTP(w, r)
}

// show lets others see the tenant's agents, on the board and by questions, until the returned
// function has been called.
func (d *daemon) show(ctx context.Context, b *broker, js jetstream.JetStream, tenant int64) func() {
	questions := d.questions(b.nc, js, tenant)
	// It goes on while what was seen is being published.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	if d.pages != nil {
		pages := board.New(board.Config{Tenant: tenant, JetStream: js,
			Instance: d.settings.Instance, Quiet: d.settings.QuietFields,
			API: questions.Handler(), Logger: d.log})
		var h http.Handler = pages
		d.board.Store(&h)
		running.Go(func() {
			if err := pages.Run(ctx); err != nil {
				d.log.Error("the board shows nothing any more; polling and publishing go on",
					"err", err)
			}
		})
	}
	if d.settings.Query {
		running.Go(func() { d.answer(ctx, b, questions) })
		if err := questions.Refuse(b.nc); err != nil {
			d.log.Warn("questions with a mistake may get no answer", "err", err)
		}
	}
	if d.pages != nil || d.settings.Query {
		running.Go(func() {
			if err := questions.Run(ctx); err != nil {
				d.log.Error("questions are answered with what was known last, as untrusted; "+
					"polling and publishing go on", "err", err)
			}
		})
	}
	return func() {
		cancel()
		running.Wait()
	}
}

// connected lets operators see the connection to NATS.
func (d *daemon) connected(nc *nats.Conn) {
	d.nc.Store(nc)
	cfg := d.settings.publisher(0, d.log) // nobody knows the tenant yet
	d.Connected(nc, publisher.NewReader(nc, cfg).Status)
}

// ofTenant is a registerer for metrics that have to say whose they are.
func (d *daemon) ofTenant(tenant int64) prometheus.Registerer {
	labels := prometheus.Labels{"tenant": strconv.FormatInt(tenant, 10)}
	return prometheus.WrapRegistererWith(labels, d.registry)
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
