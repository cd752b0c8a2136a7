//go:build unix

package vendor

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/rollcall-events/rollcall/diff"
	"github.com/rollcall-events/rollcall/internal/engine"
	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/internal/test/checker"
	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
	"github.com/rollcall-events/rollcall/internal/test/natstest"
	"github.com/rollcall-events/rollcall/internal/test/wait"
	"github.com/rollcall-events/rollcall/poller"
	"github.com/rollcall-events/rollcall/poller/isdp"
	"github.com/rollcall-events/rollcall/publisher"
	"github.com/rollcall-events/rollcall/schemas"
)

const tenant = 886

// A setup is how a rig differs from the others; zero values are its defaults.
type setup struct {
	seed   uint64
	agents int // 33: seven pages
	// changes a second; 20. Below zero: agents sign in and out, 25 times a second, and no more
	churn          float64
	interval       time.Duration // 150ms
	glances        bool          // beside sweeps, at a rate at which these take longer
	requestTimeout time.Duration // 5s
	tokenTTL       time.Duration // half an hour
	invalidToken   int           // the HTTP status of the XML; 200
	maxMissing     float64       // 0.5
	missingHold    time.Duration // an hour
	types          []int
	maxPayload     int // of the server, in bytes; its default
	maxRow         int // maxRowBytes
}

// pageSize and the limits are the same for all rigs.
const (
	pageSize    = 5
	concurrency = 4
	rateLimit   = 200.0 // requests a second
	glanceRate  = 40.0  // where there are glances
	maxRowBytes = 16 << 10
)

// A rig is rollcall but for its process: a simulated tenant over HTTP, poller, engine, publisher, a
// nats-server.
type rig struct {
	t     *testing.T
	setup setup
	now   func() time.Time // everybody's clock: one wall-clock reading and the monotonic clock
	began time.Time

	sim    *isdpsim.Tenant
	url    string
	door   *door
	nc     *nats.Conn
	live   *checker.Recording
	logged *syncBuffer

	stopChurn func()
	stop      func() error // of rollcall

	injected atomic.Int64 // faults that met a request
	mend     func()       // ends what a fault began; nil: nothing

	mu     sync.Mutex
	marks  []schemas.Watermark // as they came
	health []schemas.Health
}

// rate is how many requests a second are allowed.
func (s *setup) rate() float64 {
	if s.glances {
		return glanceRate
	}
	return rateLimit
}

// newRig starts everything and waits for the first complete sweep.
func newRig(t *testing.T, s setup) *rig {
	t.Helper()
	s.agents = cmp.Or(s.agents, 33)
	s.churn = cmp.Or(s.churn, 20)
	s.maxRow = cmp.Or(s.maxRow, maxRowBytes)
	s.interval = cmp.Or(s.interval, 150*time.Millisecond)
	s.requestTimeout = cmp.Or(s.requestTimeout, 5*time.Second)
	s.maxMissing = cmp.Or(s.maxMissing, 0.5)
	s.missingHold = cmp.Or(s.missingHold, time.Hour)
	began := time.Now()
	r := &rig{t: t, setup: s, began: began, now: func() time.Time {
		return began.Add(time.Since(began))
	}, logged: &syncBuffer{}}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d; the last watermark is %s, health %s; rollcall wrote:\n%s", s.seed,
				brief(r.mark()), brief(r.lastHealth()), r.logged.tail(80))
		}
	})

	r.sim = isdpsim.New(isdpsim.Config{
		Agents: s.agents, Seed: s.seed, Churn: s.churn, TokenTTL: s.tokenTTL,
		InvalidTokenStatus: s.invalidToken,
		Now:                r.now,
	})
	srv := httptest.NewUnstartedServer(r.sim)
	r.door = &door{Listener: srv.Listener, open: map[net.Conn]bool{}}
	srv.Listener = r.door
	srv.Start()
	r.url = srv.URL
	t.Cleanup(func() {
		srv.CloseClientConnections() // of what may hang, by a fault
		srv.Close()
	})

	// 0: its default
	url, _ := natstest.StartOptions(t, &server.Options{MaxPayload: int32(s.maxPayload)})
	r.nc = natstest.Connect(t, url)
	watching := natstest.Connect(t, url)
	var err error
	if r.live, err = checker.Record(watching, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := watching.Subscribe(fmt.Sprintf("agent.*.%d", tenant), r.heard); err != nil {
		t.Fatal(err)
	}
	if err := watching.Flush(); err != nil {
		t.Fatal(err)
	}
	r.start()
	r.swept(time.Time{})
	r.waitHealth(schemas.HealthOK, "")
	return r
}

// start runs rollcall, and the tenant's churn, until stop.
func (r *rig) start() {
	log := slog.New(slog.NewTextHandler(r.logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	client, err := isdp.New(isdp.Config{
		BaseURL: r.url, ClientID: isdpsim.DemoClientID, ClientSecret: isdpsim.DemoClientSecret,
		Username: isdpsim.DemoUsername, Password: isdpsim.DemoPassword, Types: r.setup.types,
		RequestTimeout: r.setup.requestTimeout, PageSize: pageSize, RateLimit: r.setup.rate(),
		MaxRowBytes: func() int { return r.setup.maxRow }, Logger: log, Now: r.now,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	var types []string
	for _, typ := range r.setup.types {
		types = append(types, fmt.Sprint(typ))
	}
	polling := poller.Config{Types: types, Concurrency: concurrency, Logger: log, Now: r.now}
	if r.setup.glances {
		polling.GlanceAfter = r.setup.interval
	}
	source, err := poller.New(polling, client)
	if err != nil {
		r.t.Fatal(err)
	}
	pub, err := publisher.Open(r.t.Context(), r.nc, publisher.Config{
		Tenant: tenant, Instance: "rig", Replicas: 1, Manage: true, EventsMaxAge: time.Hour,
		MaxBytes: 256 << 20,
		LeaseTTL: 10 * time.Second, Logger: log,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	cfg := engine.Config{
		Tenant: tenant, Interval: r.setup.interval,
		Rules: diff.Rules{
			RemoveAfter: 2, MaxMissing: r.setup.maxMissing, MissingHold: r.setup.missingHold,
			BufferEvents: 100_000, Types: types,
		}, MaxBody: func() int {
			return publisher.MaxBody(r.nc)
		}, Logger: log, Now: r.now,
		Expect: source.Expect,
	}
	if err := cfg.Validate(); err != nil {
		r.t.Fatal(err)
	}

	var wg sync.WaitGroup
	churning, stopChurn := context.WithCancel(context.Background())
	churned := make(chan struct{})
	go func() {
		defer close(churned)
		if r.setup.churn < 0 {
			r.flips(churning)
			return
		}
		_ = r.sim.Run(churning)
	}()
	r.stopChurn = func() { stopChurn(); <-churned }

	running, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	var runErr error
	wg.Go(func() {
		defer close(ended)
		runErr = pub.Lead(running, engine.New(cfg, source, pub).Run)
	})
	r.stop = sync.OnceValue(func() error {
		cancel()
		select {
		case <-ended:
			return runErr
		case <-time.After(wait.Patience):
			return errors.New("rollcall has not ended")
		}
	})
	r.t.Cleanup(func() { r.stopChurn(); _ = r.stop() })
}

// flips lets agents sign in and out, by turns, until ctx ends.
func (r *rig) flips(ctx context.Context) {
	tick := time.NewTicker(40 * time.Millisecond)
	defer tick.Stop()
	random := rand.New(rand.NewPCG(r.setup.seed, 4))
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		listing := r.sim.Listing()
		row := listing[random.IntN(len(listing))]
		if a, _, err := packed.Decode(row.JSON, tenant); err == nil {
			r.sim.SetOnline(row.ID, !a.Online())
		}
	}
}

// heard takes a watermark or a health message in.
func (r *rig) heard(m *nats.Msg) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch m.Subject {
	case schemas.WatermarkSubject(tenant):
		var w schemas.Watermark
		if json.Unmarshal(m.Data, &w) == nil {
			r.marks = append(r.marks, w)
		}
	case schemas.HealthSubject(tenant):
		var h schemas.Health
		if json.Unmarshal(m.Data, &h) == nil {
			r.health = append(r.health, h)
		}
	}
}

// heardHealth and heardMarks are what came so far.
func (r *rig) heardHealth() []schemas.Health {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.health)
}

func (r *rig) heardMarks() []schemas.Watermark {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.marks)
}

// mark is the last watermark; health the last health message.
func (r *rig) mark() schemas.Watermark {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.marks) == 0 {
		return schemas.Watermark{}
	}
	return r.marks[len(r.marks)-1]
}

func (r *rig) lastHealth() schemas.Health {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.health) == 0 {
		return schemas.Health{}
	}
	return r.health[len(r.health)-1]
}

func brief(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// swept waits for the watermark of a complete sweep that began after a moment, and returns it.
func (r *rig) swept(after time.Time) (w schemas.Watermark) {
	r.t.Helper()
	wait.Eventually(r.t, "a complete sweep that began after "+after.Format("15:04:05.000"),
		func() bool {
			w = r.mark()
			return w.Sweep > 0 && w.StartedAt.After(after)
		})
	return w
}

// sweeps waits for n of them, one after the other.
func (r *rig) sweeps(n int) (w schemas.Watermark) {
	r.t.Helper()
	w.StartedAt = r.now()
	for range n {
		w = r.swept(w.StartedAt)
	}
	return w
}

// waitHealth waits until the health message says so.
func (r *rig) waitHealth(state schemas.HealthState, reason schemas.HealthReason) {
	r.t.Helper()
	wait.Eventually(r.t, fmt.Sprintf("health %s %s", state, reason), func() bool {
		h := r.lastHealth()
		return h.State == state && h.Reason == reason
	})
}

// inject installs a hook whose faults are counted.
func (r *rig) inject(h isdpsim.Hook) {
	if h == nil {
		r.sim.SetFault(nil)
		return
	}
	r.sim.SetFault(func(q isdpsim.Request) isdpsim.Fault {
		f := h(q)
		if f != nil {
			r.injected.Add(1)
		}
		return f
	})
}

// asked says how many requests came to an endpoint since a moment.
func (r *rig) asked(endpoint isdpsim.Endpoint, since time.Time) (n int) {
	for _, q := range r.sim.Requests() {
		if q.Endpoint == endpoint && q.Time.After(since) {
			n++
		}
	}
	return n
}

// quiesce lets the tenant come to rest, faults and changes both, and waits until all of it is
// published.
func (r *rig) quiesce() {
	r.t.Helper()
	r.inject(nil)
	r.door.set(false)
	r.stopChurn()
	rest := r.now()
	wait.Eventually(r.t, "rest", func() bool {
		w, h := r.mark(), r.lastHealth()
		return w.StartedAt.After(rest) && w.Missing == 0 && h.State == schemas.HealthOK
	})
}

// finish stops rollcall and judges all that it wrote.
func (r *rig) finish(opt checker.Options) checker.Stats {
	r.t.Helper()
	if err := r.stop(); err != nil {
		r.t.Errorf("rollcall ended with %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), wait.Patience)
	defer cancel()
	stored, err := checker.Read(ctx, r.nc, tenant)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := r.live.Wait(ctx, stored[len(stored)-1].Seq); err != nil {
		r.t.Fatal(err)
	}
	log := checker.Stream{Stored: stored, Live: r.live.Messages()}
	truth := checker.TruthOf(r.sim)

	opt.Tenant, opt.Types, opt.MaxPayload, opt.MaxRowBytes, opt.Quiescent = tenant, r.setup.types,
		r.setup.maxPayload, r.setup.maxRow, true
	opt.Interval = r.setup.interval
	opt.MaxMissing, opt.MissingHold = r.setup.maxMissing, r.setup.missingHold
	opt.Bound, opt.RemovalBound = 3*time.Second, cmp.Or(opt.RemovalBound, 4*time.Second)
	opt.Outages = append(opt.Outages, r.gaps()...)
	report := checker.Check(log, truth, opt)
	if err := report.Err(); err != nil {
		r.t.Errorf("seed %d: %v", r.setup.seed, err)
	}
	return report.Stats
}

// stalled reports whether a health message says only that no sweep has completed in the time that
// one should take, which at these intervals a busy machine is enough for.
func stalled(h schemas.Health) bool {
	return strings.HasPrefix(h.Detail,
		"no complete sweep within")
}

// gaps are the stretches in which no sweep completed, by the stream itself: from when rollcall
// could begin, or one began, to the end of the next.
func (r *rig) gaps() (out []checker.Interval) {
	last := r.began
	for _, w := range r.heardMarks() {
		if w.Sweep == 0 || !w.StartedAt.After(last) {
			continue
		}
		if w.CompletedAt.Sub(last) > 700*time.Millisecond {
			out = append(out, checker.Interval{From: last, To: w.CompletedAt})
		}
		last = w.StartedAt
	}
	return out
}

// wantTruth fails the test where an agent was said to be offline that, by the tenant's history,
// never was in the time in which the event places that.
func (r *rig) wantTruth() {
	r.t.Helper()
	type span struct {
		from, to time.Time
		online   bool
	}
	spans := map[int64][]span{}
	for _, c := range r.sim.History() {
		id, online := c.ID, false
		if c.After != nil {
			if a, _, err := packed.Decode(c.After, tenant); err == nil {
				id, online = a.AgentID(), a.Online()
			}
		}
		if s := spans[id]; len(s) > 0 {
			s[len(s)-1].to = c.Time
		}
		spans[id] = append(spans[id], span{from: c.Time, online: online})
	}
	for _, m := range r.live.Messages() {
		if !strings.HasPrefix(m.Subject, "agent.offline.") {
			continue
		}
		var e schemas.Event
		if err := e.UnmarshalJSON(m.Body); err != nil {
			r.t.Fatal(err)
		}
		from, to := e.Data.NotBefore.Add(-time.Millisecond), e.Time.Add(time.Millisecond)
		if !slices.ContainsFunc(spans[e.Data.Agent.AgentID], func(s span) bool {
			return !s.online && !s.from.After(to) && (s.to.IsZero() || !s.to.Before(from))
		}) {
			r.t.Errorf("seed %d: agent %d was never offline from %v to %v, and #%d says so (%s)",
				r.setup.seed,
				e.Data.Agent.AgentID, e.Data.NotBefore, e.Time, m.Seq, e.Data.Reason)
		}
	}
}

// wantLimits fails the test where the tenant was asked more than allowed: at once, in a time, for
// tokens. abandons says that requests were given up, which the tenant counts as under way until it
// has noticed.
func (r *rig) wantLimits(abandons bool) {
	r.t.Helper()
	s := r.sim.Stats()
	if s.MaxInFlight > concurrency && !abandons {
		r.t.Errorf("%d requests under way at a time, want %d at the most", s.MaxInFlight,
			concurrency)
	}
	// Requests are spread evenly when they are sent; on their way they can bunch, as many as are
	// under way at a time.
	const window = 500 * time.Millisecond
	all := r.sim.Requests()
	r.wantRate(all, window, int(r.setup.rate()*window.Seconds())+1+2*concurrency, "requests")
	tokens := slices.DeleteFunc(all, func(q isdpsim.Request) bool {
		return q.Endpoint != isdpsim.TokenEndpoint
	})
	r.wantRate(tokens, time.Second, 4, "token requests")
	r.wantRate(tokens, 10*time.Second, 24, "token requests")
}

func (r *rig) wantRate(requests []isdpsim.Request, window time.Duration, most int, what string) {
	r.t.Helper()
	for first, last := 0, 0; last < len(requests); last++ {
		for requests[last].Time.Sub(requests[first].Time) > window {
			first++
		}
		if n := last - first + 1; n > most {
			r.t.Errorf("seed %d: %d %s within %v, want %d at the most", r.setup.seed, n, what,
				window, most)
			return
		}
	}
}

// A door is a listener that can be shut: then connections, those that are open too, are closed at
// once.
type door struct {
	net.Listener

	mu   sync.Mutex
	shut bool
	open map[net.Conn]bool
}

func (d *door) Accept() (net.Conn, error) {
	for {
		c, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		d.mu.Lock()
		if !d.shut {
			d.open[c] = true
			d.mu.Unlock()
			return &visitor{c, d}, nil
		}
		d.mu.Unlock()
		_ = c.Close()
	}
}

// set shuts or opens the door.
func (d *door) set(shut bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.shut = shut; shut {
		for c := range d.open {
			_ = c.Close()
		}
		clear(d.open)
	}
}

// A visitor is a connection that the door lets in.
type visitor struct {
	net.Conn
	door *door
}

func (v *visitor) Close() error {
	v.door.mu.Lock()
	delete(v.door.open, v.Conn)
	v.door.mu.Unlock()
	return v.Conn.Close()
}

// NetConn is for the simulated tenant, which resets connections.
func (v *visitor) NetConn() net.Conn { return v.Conn }

// A syncBuffer collects what is logged.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (b *syncBuffer) tail(n int) string {
	lines := strings.SplitAfter(b.String(), "\n")
	lines = slices.DeleteFunc(lines, func(l string) bool {
		return strings.Contains(l, "msg=committed") || strings.Contains(l, "msg=\"sweep complete\"")
	})
	return strings.Join(lines[max(0, len(lines)-n):], "")
}
