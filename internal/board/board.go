// Package board serves one page that shows who is on duty, what has just happened, and whether that
// can be trusted.
//
// It is a consumer of the stream like any other: [Board.Run] follows the states of one tenant with
// package follow. Each open page gets all of them first and then every change, as server-sent
// events. So it works on a standby as well as on the leader. While no page is open, the stream is
// not read at all.
//
// All pages are sent the same bytes, encoded once. A page that reads slowly skips revisions, never
// the newest, and costs no memory for what it has not read. One that does not read at all is
// dropped.
//
// The board can only be read: it answers GET and HEAD. The vendor's values reach the document as
// text.
package board

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/schemas"
	"github.com/rollcall-events/rollcall/schemas/follow"
)

// Config is what a Board needs to know.
type Config struct {
	Tenant    int64               // whose agents are shown
	JetStream jetstream.JetStream // has the stream; its connection should reconnect for ever
	Instance  string              // this replica's name, to tell whether it leads; may be empty
	MaxPages  int                 // how many pages may be open at a time; 0: 200
	Quiet     schemas.Quiet       // fields whose changes are not worth a line
	API       http.Handler        // serves /api/; nil: nothing does
	Logger    *slog.Logger        // nil: discard
}

// Paces of the board. Tests shorten them.
type paces struct {
	gap    time.Duration // at least that between two messages to a page
	beat   time.Duration // at most that, so that a page notices a lost connection
	linger time.Duration // how long the stream is followed after the last page was closed
	stall  time.Duration // a page that takes no byte for so long is dropped
}

var defaultPaces = paces{
	gap: 100 * time.Millisecond, beat: 2 * time.Second,
	linger: 30 * time.Second, stall: 15 * time.Second,
}

// A Board is the page and what it needs. It is an [http.Handler] for the paths /, /worker.js,
// /events, /day and /agents/, and for /api/, which it passes on. A proxy may show them below any
// path, if it cuts that path off.
type Board struct {
	cfg     Config
	paces   paces
	mux     *http.ServeMux
	site    *site
	wanted  chan struct{} // holds a token when Run is to follow the stream
	ended   chan struct{} // closed when Run has ended
	reading chan struct{} // holds a token for each history that is being read
	lastDay lastDay

	mu        sync.Mutex // guards what follows
	hub       *hub       // what the pages are shown; replaced when it is no longer followed
	pages     int        // open ones
	lastLeft  time.Time  // when the last page was closed
	following bool       // Run follows the stream into hub, or has been asked to
}

// New returns the board of a tenant. It shows agents while [Board.Run] runs.
func New(cfg Config) *Board {
	if cfg.MaxPages == 0 {
		cfg.MaxPages = 200
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	b := &Board{
		cfg: cfg, paces: defaultPaces, mux: http.NewServeMux(), site: newSite(cfg.Tenant, read),
		wanted: make(chan struct{}, 1), ended: make(chan struct{}), reading: make(chan struct{}, 4),
		lastDay: lastDay{turn: make(chan struct{}, 1)},
		hub:     newHub(cfg),
	}
	b.routes()
	return b
}

func (b *Board) routes() {
	b.mux.HandleFunc("GET /", nothing)
	b.mux.HandleFunc("GET /{$}", b.site.page)
	b.mux.HandleFunc("GET /worker.js", b.site.sharedWorker)
	b.mux.HandleFunc("GET /events", b.events)
	b.mux.HandleFunc("GET /day", b.day)
	b.mux.HandleFunc("GET /agents/{id}/day", b.ofAgent(b.agentsDay))
	b.mux.HandleFunc("GET /agents/{id}/history", b.ofAgent(b.history))
	if b.cfg.API != nil {
		b.mux.Handle("GET /api/", b.cfg.API)
	}
}

// Run follows the stream for the open pages until ctx ends, and then returns nil. It returns an
// error if the connection to NATS is closed for good. Its end closes every open page's stream, so
// it should end before the HTTP server is shut down. It may be called once.
func (b *Board) Run(ctx context.Context) error {
	defer close(b.ended)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-b.wanted:
		}
		b.mu.Lock()
		h := b.hub
		b.mu.Unlock()
		if err := b.follow(ctx, h); ctx.Err() != nil {
			return nil
		} else if err != nil {
			return fmt.Errorf("board: %w", err)
		}
	}
}

// follow keeps h like the stream until ctx ends or nobody looks any more.
func (b *Board) follow(ctx context.Context, h *hub) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	paced := make(chan struct{})
	go func() {
		defer close(paced)
		defer cancel()
		h.pace(ctx, b.paces, b.idle)
	}()
	roster := follow.New(b.cfg.Tenant)
	interrupted := false
	err := roster.Run(ctx, b.cfg.JetStream, func(u follow.Update) {
		switch unusable := new(follow.MessageError); {
		case errors.As(u.Err, &unusable):
			b.cfg.Logger.Warn("the board skips a message in the stream that it can't use",
				"err", u.Err)
		case u.Err != nil && !interrupted: // each further attempt would say the same
			interrupted = true
			b.cfg.Logger.Warn("the board can't read the stream, so open pages are out of date; "+
				"trying again", "err", u.Err)
		case u.Anew && interrupted:
			interrupted = false
			b.cfg.Logger.Info("the board reads the stream again")
		}
		h.take(roster, u)
	})
	cancel()
	<-paced
	if errors.Is(err, nats.ErrConnectionClosed) {
		return err
	}
	return nil
}

// idle reports whether nobody has looked for a while. The hub is then dropped: the next page begins
// a new one.
func (b *Board) idle() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pages > 0 || time.Since(b.lastLeft) < b.paces.linger {
		return false
	}
	b.hub, b.following = newHub(b.cfg), false
	return true
}

// enter counts a page in, unless there are too many, and out when leave is called.
func (b *Board) enter() (h *hub, leave func(), ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pages >= b.cfg.MaxPages {
		return nil, nil, false
	}
	b.pages++
	if !b.following {
		b.following = true
		b.wanted <- struct{}{} // empty: its last token was taken before following was unset
	}
	return b.hub, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.pages--
		b.lastLeft = time.Now()
	}, true
}

// ServeHTTP implements [http.Handler].
func (b *Board) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", b.site.policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	if !ownHost(r) {
		http.Error(w, refusedHost(r.Host), http.StatusMisdirectedRequest)
		return
	}
	// A page of another site can't read an answer, but could hold all the streams open.
	site, mode := r.Header.Get("Sec-Fetch-Site"), r.Header.Get("Sec-Fetch-Mode")
	if site == "cross-site" && mode != "navigate" {
		http.Error(w, "Not for pages of other sites.", http.StatusForbidden)
		return
	}
	b.mux.ServeHTTP(w, r)
}

// ownHost refuses what a browser was tricked into asking of a loopback address under another site's
// name (DNS rebinding). Names that reach other addresses can't be known here.
func ownHost(r *http.Request) bool {
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		if at, err := netip.ParseAddrPort(local.String()); err == nil && !at.Addr().IsLoopback() {
			return true
		}
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
	return err == nil && ip.IsLoopback()
}

// refusedHost says what to do about a name that is refused: mostly it is a proxy's.
func refusedHost(host string) string {
	return fmt.Sprintf("rollcall does not answer to the name %q here. Over loopback it answers to "+
		"localhost, 127.… and [::1] only, so that no other site can read it through a browser. "+
		"A proxy on this machine has to send one of these as Host (nginx: proxy_set_header Host "+
		"localhost;).", cut(host, maxText))
}

// nothing answers for a path that there is not, most likely since a proxy sends its own.
func nothing(w http.ResponseWriter, r *http.Request) {
	http.Error(w, fmt.Sprintf("There is nothing at %q. The board is at /. A proxy that shows it "+
		"below a path has to cut off that path before it asks rollcall (nginx: proxy_pass with a "+
		"/ at its end).", cut(r.URL.Path, maxText)), http.StatusNotFound)
}
