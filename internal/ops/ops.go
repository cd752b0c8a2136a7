// Package ops serves what operators see over HTTP: whether rollcall lives (/healthz), whether it is
// ready and why not (/readyz), and its metrics (/metrics).
//
// [Process] knows the state of the process from its start on, before the vendor or NATS have
// answered. [Handler] makes pages of it, and [Serve] serves them on a listener of [Listen]. They
// hold no secret, and no name or account of a person, so probes and scrapers may see them.
package ops

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof" // also registers itself with http.DefaultServeMux, which nothing here serves
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/rollcall-events/rollcall/internal/setting"
)

// Paths of the pages.
const (
	PathHealth  = "/healthz"
	PathReady   = "/readyz"
	PathMetrics = "/metrics"
	PathPprof   = "/debug/pprof/" // only where Options.Profiles lets it
)

// writeTimeout is how long an answer may take in all, profiles aside.
const writeTimeout = 15 * time.Second

// Options say what a handler serves, and to whom.
type Options struct {
	Process *Process
	Metrics prometheus.Gatherer
	Logger  *slog.Logger // nil: discard

	// Board is served at every other path; nil: nothing is. It limits itself how long its answers
	// take.
	Board http.Handler
	// LocalOnly refuses requests whose Host is not localhost or a loopback address. It is for
	// listeners on loopback: any page in the operator's browser could otherwise read them, through
	// a name that resolves to 127.0.0.1.
	LocalOnly bool
	// Profiles serves [PathPprof] to callers on loopback. Set it only with LocalOnly.
	Profiles bool
}

// Handler returns the pages. They answer GET and HEAD only.
func Handler(o Options) http.Handler {
	log := o.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	mux := http.NewServeMux()
	mux.Handle(PathHealth, within(http.HandlerFunc(healthz)))
	mux.Handle(PathReady, within(http.HandlerFunc(o.Process.readyz)))
	mux.Handle(PathMetrics, within(promhttp.HandlerFor(o.Metrics, promhttp.HandlerOpts{
		ErrorLog:            errorLog{log},
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: 8,
	})))
	if o.Board != nil {
		mux.Handle("/", o.Board)
	}
	if o.Profiles && o.LocalOnly {
		mux.Handle(PathPprof, fromLoopback(http.HandlerFunc(pprof.Index)))
		mux.Handle(PathPprof+"cmdline", fromLoopback(http.HandlerFunc(pprof.Cmdline)))
		mux.Handle(PathPprof+"profile", fromLoopback(http.HandlerFunc(pprof.Profile)))
		mux.Handle(PathPprof+"symbol", fromLoopback(http.HandlerFunc(pprof.Symbol)))
		mux.Handle(PathPprof+"trace", fromLoopback(http.HandlerFunc(pprof.Trace)))
	}
	var h http.Handler = readOnly(oneSlash(mux))
	if o.LocalOnly {
		h = localOnly(h)
	}
	return h
}

type errorLog struct{ log *slog.Logger }

// Println implements promhttp.Logger.
func (l errorLog) Println(v ...any) {
	l.log.Error("some metrics can't be served; polling and publishing go on",
		"err", strings.TrimSpace(fmt.Sprintln(v...)))
}

func healthz(w http.ResponseWriter, _ *http.Request) {
	plain(w)
	_, _ = w.Write([]byte("ok\n"))
}

// Starting is served in the board's place until the tenant is known.
func Starting(p *Process) http.Handler {
	return within(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			http.NotFound(w, r)
			return
		}
		plain(w)
		w.Header().Set("Retry-After", "2")
		w.Header().Set("Refresh", "2") // a browser comes back by itself
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = fmt.Fprintf(w, "rollcall is starting, and shows the board as soon as it knows the "+
			"tenant.\n\n%s\n", p.Readiness(r.Context()).Summary())
	}))
}

func (p *Process) readyz(w http.ResponseWriter, r *http.Request) {
	state := p.Readiness(r.Context())
	body, err := json.MarshalIndent(state, "", "  ")
	if err != nil {
		http.Error(w, "the answer can't be encoded", http.StatusInternalServerError)
		return
	}
	secure(w, "application/json")
	if !state.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = w.Write(append(body, '\n'))
}

func plain(w http.ResponseWriter) { secure(w, "text/plain; charset=utf-8") }

func secure(w http.ResponseWriter, contentType string) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
}

// oneSlash takes //events for /events: so asks a proxy that cuts off a path without its last slash.
// A mux would redirect that, to a path that is another's at the proxy.
func oneSlash(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "//") {
			r = r.Clone(r.Context())
			r.URL.Path, r.URL.RawPath = "/"+strings.TrimLeft(r.URL.Path, "/"), ""
		}
		next.ServeHTTP(w, r)
	})
}

// readOnly lets GET and HEAD through.
func readOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// within bounds how long an answer may take.
func within(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Only the writers of tests have no deadline.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
		next.ServeHTTP(w, r)
	})
}

// localOnly lets requests through whose Host is this machine itself.
func localOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !localHost(r.Host) {
			// What is wanted stands apart from what somebody else has written.
			http.Error(w, fmt.Sprintf("rollcall does not answer to the name %.200q here. ", r.Host)+
				setting.Text("It listens on loopback, and answers to localhost and 127.0.0.1 or "+
					"[::1] only, so that no other site can read it through a browser. A proxy on "+
					"this machine has to send one of these as Host (nginx: proxy_set_header Host "+
					"localhost;). {HTTPListen} says where else to listen, {OpsListen} where to "+
					"serve probes and scrapers."), http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// localHost reports whether the value of a Host header names this machine by itself, with or
// without a port.
func localHost(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	} else if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		name = host[1 : len(host)-1]
	}
	addr, err := netip.ParseAddr(name)
	return strings.ToLower(name) == "localhost" || err == nil && addr.Unmap().IsLoopback()
}

// fromLoopback lets callers on this machine through, but not what a proxy on it says that it
// forwards.
func fromLoopback(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, err := netip.ParseAddrPort(r.RemoteAddr)
		h := r.Header
		proxied := h.Get("Forwarded")+h.Get("X-Forwarded-For")+h.Get("Via") != ""
		if err != nil || !from.Addr().Unmap().IsLoopback() || proxied {
			http.NotFound(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}
