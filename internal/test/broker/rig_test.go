package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/diff"
	"github.com/rollcall-events/rollcall/internal/engine"
	"github.com/rollcall-events/rollcall/internal/listing"
	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/internal/test/checker"
	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
	"github.com/rollcall-events/rollcall/internal/test/wait"
	"github.com/rollcall-events/rollcall/poller"
	"github.com/rollcall-events/rollcall/poller/isdp"
	"github.com/rollcall-events/rollcall/publisher"
	"github.com/rollcall-events/rollcall/schemas"
)

var (
	long    = flag.Bool("long", false, "more points, longer delays, everything several times")
	verbose = flag.Bool("rollcall.log", false, "show what rollcall logs, also of tests that pass")
)

// side runs cases beside one another, since most of them mostly wait. (t.Parallel would run as many
// as there are processors.)
func side[T any](t *testing.T, cases []T, name func(T) string, run func(*testing.T, T)) {
	t.Helper()
	free := make(chan struct{}, 32)
	var all sync.WaitGroup
	for _, c := range cases {
		free <- struct{}{}
		all.Go(func() {
			defer func() { <-free }()
			t.Run(name(c), func(t *testing.T) { run(t, c) })
		})
	}
	all.Wait()
}

// A broker is a nats-server in this process that can be stopped, and started again on its store.
type broker struct {
	t    testing.TB
	opts func() *server.Options
	dir  string

	mu sync.Mutex
	s  *server.Server
	at string // its address, always the same
}

// newBroker starts a server; conf is configuration of its own, may be empty.
func newBroker(t testing.TB, conf string) *broker {
	t.Helper()
	b := &broker{t: t, dir: t.TempDir()}
	b.opts = func() *server.Options {
		o := &server.Options{}
		if conf != "" {
			if err := o.ProcessConfigString(conf); err != nil {
				t.Fatal(err)
			}
		}
		o.Host, o.Port, o.JetStream, o.NoLog, o.NoSigs, o.StoreDir = "127.0.0.1",
			server.RANDOM_PORT, true, true, true, b.dir
		return o
	}
	b.start()
	t.Cleanup(b.stop)
	return b
}

func (b *broker) start() {
	b.t.Helper()
	o := b.opts()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.at != "" {
		o.Port = mustPort(b.at)
	}
	var s *server.Server
	for range 50 { // the port may be on loan to somebody's outgoing connection
		var err error
		if s, err = server.NewServer(o); err != nil {
			b.t.Fatalf("new nats-server: %v", err)
		}
		go s.Start()
		if s.ReadyForConnections(5 * time.Second) {
			break
		}
		s.Shutdown()
		s = nil
	}
	if s == nil {
		b.t.Fatal("the nats-server does not become ready")
	}
	b.s, b.at = s, s.Addr().String()
}

func mustPort(addr string) int {
	_, p, _ := net.SplitHostPort(addr)
	n, err := strconv.Atoi(p)
	if err != nil {
		panic(err)
	}
	return n
}

func (b *broker) addr() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.at
}

func (b *broker) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.s != nil {
		b.s.Shutdown()
		b.s.WaitForShutdown()
		b.s = nil
	}
}

// connect connects past all proxies.
func (b *broker) connect(opts ...nats.Option) *nats.Conn {
	b.t.Helper()
	nc, err := nats.Connect("nats://"+b.addr(),
		append([]nats.Option{nats.MaxReconnects(-1), nats.ReconnectWait(10 * time.Millisecond),
			nats.ReconnectJitter(0, 0), nats.ReconnectBufSize(-1), nats.IgnoreDiscoveredServers(),
			nats.IgnoreAuthErrorAbort(),
			nats.Timeout(wait.Patience),
			nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})}, opts...)...)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(nc.Close)
	return nc
}

// A rig is a tenant, a broker, and whoever polls the one and writes to the other.
type rig struct {
	t      *testing.T
	sim    *isdpsim.Tenant
	gate   sync.RWMutex // read-locked by every request under way
	vendor string
	b      *broker
	nc     *nats.Conn // past all proxies
	rec    *checker.Recording
	opt    checker.Options
	procs  []*process
	agents []int64        // at the start
	online map[int64]bool // as at the start
	flips  map[int64]int  // that a living process has seen, by agent
	engine func(*engine.Config)
	pub    func(*publisher.Config)
	poll   func(*isdp.Config, *poller.Config)
}

// newRig builds a tenant of its own on a broker; nil: one of its own.
func newRig(t *testing.T, b *broker, agents int, tenant int64) *rig {
	t.Helper()
	return newRigOf(t, b, isdpsim.Config{Agents: agents, TenantID: tenant, Seed: 7})
}

func newRigOf(t *testing.T, b *broker, cfg isdpsim.Config) *rig {
	t.Helper()
	if b == nil {
		b = newBroker(t, "")
	}
	r := &rig{t: t, b: b, online: make(map[int64]bool), flips: make(map[int64]int)}
	r.sim = isdpsim.New(cfg)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.gate.RLock()
		defer r.gate.RUnlock()
		r.sim.ServeHTTP(w, q)
	}))
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
	})
	r.vendor = srv.URL
	r.agents = r.sim.IDs()
	for _, row := range r.sim.Listing() {
		r.online[row.ID] = bytes.Contains(row.JSON, []byte(`"onlineStatus":1`))
	}
	r.nc = b.connect()
	var err error
	if r.rec, err = checker.Record(b.connect(), 0); err != nil {
		t.Fatal(err)
	}
	r.opt = checker.Options{Tenant: r.sim.TenantID(), Quiescent: true,
		Interval: 300 * time.Millisecond}
	t.Cleanup(func() {
		for _, p := range r.procs {
			p.die()
		}
		for _, p := range r.procs {
			if p.cancel != nil {
				<-p.ended
			}
		}
		if t.Failed() || *verbose {
			r.tell()
		}
	})
	return r
}

// tell shows what the processes logged.
func (r *rig) tell() {
	for _, p := range r.procs {
		r.t.Logf("%s:\n%s", p.name, p.log.tail(120))
	}
}

// change does something to the tenant between two requests: no answer shows a part of it.
func (r *rig) change(do func(*isdpsim.Tenant)) {
	r.gate.Lock()
	defer r.gate.Unlock()
	do(r.sim)
}

// flip signs agents in that are not online, and the others out.
func (r *rig) flip(ids ...int64) {
	r.change(func(t *isdpsim.Tenant) {
		for _, id := range ids {
			row, _ := t.Agent(id)
			t.SetOnline(id, !bytes.Contains(row, []byte(`"onlineStatus":1`)))
		}
	})
}

// seenFlip flips the agents and waits until the process has seen it: the flips can be lost no more.
func (r *rig) seenFlip(p *process, ids ...int64) {
	r.t.Helper()
	r.flip(ids...)
	p.sees()
	for _, id := range ids {
		r.flips[id]++
	}
}

// A process is one run of rollcall: what dies at once and starts anew.
type process struct {
	r      *rig
	name   string
	proxy  *proxy
	nc     *nats.Conn
	log    *logs
	cancel context.CancelFunc
	ended  chan struct{}
	err    error // what it ended with
	dead   bool
	source *source
	hooks  hooks
}

// hooks are called by the engine's goroutines at the seams between its parts.
type hooks struct {
	mu     sync.Mutex
	before func(publisher.Batch) error             // before a commit
	after  func(publisher.Batch, error) error      // after it
	took   func(*publisher.Recovered, error) error // after it was taken over
}

func (h *hooks) set(do func(*hooks)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	do(h)
}

// A seam is the publisher, with the hooks around it.
type seam struct {
	*publisher.Publisher
	h *hooks
}

func (s seam) Commit(ctx context.Context, b publisher.Batch) error {
	s.h.mu.Lock()
	before, after := s.h.before, s.h.after
	s.h.mu.Unlock()
	if before != nil {
		if err := before(b); err != nil {
			return err
		}
	}
	err := s.Publisher.Commit(ctx, b)
	if after != nil {
		err = after(b, err)
	}
	return err
}

func (s seam) TakeOver(ctx context.Context, state func(*packed.State),
	first func(*publisher.Recovered) (w schemas.Watermark, lapsed bool),
) (*publisher.Recovered, error) {
	r, err := s.Publisher.TakeOver(ctx, state, first)
	s.h.mu.Lock()
	hook := s.h.took
	s.h.mu.Unlock()
	if hook != nil {
		err = hook(r, err)
	}
	return r, err
}

// A source is the poller, and remembers its complete sweeps.
type source struct {
	*poller.Poller
	mu       sync.Mutex
	complete time.Time // when the last complete sweep had begun
	sweeps   int
}

func (s *source) Sweep(ctx context.Context, emit func(*listing.Page)) listing.Verdict {
	began := time.Now()
	v := s.Poller.Sweep(ctx, emit)
	s.mu.Lock()
	defer s.mu.Unlock()
	if v.Complete {
		s.complete = began
		s.sweeps++
	}
	return v
}

func (s *source) last() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.complete
}

// newProcess makes a process that has not yet been started, so that its proxy can be given rules.
func (r *rig) newProcess() *process {
	r.t.Helper()
	p := &process{r: r, name: fmt.Sprintf("process-%d", len(r.procs)+1), ended: make(chan struct{})}
	p.log = &logs{}
	p.proxy = newProxy(r.t, r.b.addr)
	r.procs = append(r.procs, p)
	return p
}

// start is newProcess, started.
func (r *rig) start() *process {
	p := r.newProcess()
	p.start()
	return p
}

func (p *process) start() {
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	r := p.r
	logger := slog.New(slog.NewTextHandler(p.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	cfg := isdp.Config{BaseURL: r.vendor, ClientID: isdpsim.DemoClientID,
		ClientSecret: isdpsim.DemoClientSecret,
		Username:     isdpsim.DemoUsername, Password: isdpsim.DemoPassword,
		TenantID: r.sim.TenantID(),
		PageSize: 25, RateLimit: 100_000, Logger: logger,
		// polling begins when there is a connection
		MaxRowBytes: func() int { return publisher.MaxAgentBytes(p.nc) }}
	poll := poller.Config{Concurrency: 2, Logger: logger}
	if r.poll != nil {
		r.poll(&cfg, &poll)
	}
	client, err := isdp.New(cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	pl, err := poller.New(poll, client)
	if err != nil {
		r.t.Fatal(err)
	}
	p.source = &source{Poller: pl}
	pub := publisher.Config{Tenant: r.sim.TenantID(), Instance: p.name, Replicas: 1, Manage: true,
		EventsMaxAge: time.Hour,
		MaxBytes:     64 << 20, LeaseTTL: 2 * time.Second, Exclusive: true, Logger: logger}
	if r.pub != nil {
		r.pub(&pub)
	}
	eng := engine.Config{Tenant: r.sim.TenantID(), Interval: 300 * time.Millisecond,
		Rules: diff.Rules{
			RemoveAfter: 2, MaxMissing: 0.9, MissingHold: time.Hour, BufferEvents: 100_000,
		}, Grace: time.Second, Logger: logger, MaxBody: func() int {
			return publisher.MaxBody(p.nc)
		}}
	if r.engine != nil {
		r.engine(&eng)
	}
	go func() {
		defer close(p.ended)
		p.err = p.run(ctx, eng, pub)
	}()
}

// run is what cmd/rollcall does with a broker that is away at first.
func (p *process) run(ctx context.Context, eng engine.Config, cfg publisher.Config) error {
	retry := func(what string, try func() error) error {
		for {
			err := try()
			var setup *publisher.SetupError
			if err == nil || errors.As(err, &setup) {
				return err
			}
			cfg.Logger.Warn("can't "+what+" yet, trying again", "err", err)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	err := retry("connect", func() (err error) {
		opts := []nats.Option{nats.MaxReconnects(-1), nats.ReconnectBufSize(-1),
			nats.ReconnectWait(10 * time.Millisecond),
			nats.ReconnectJitter(0, 0), nats.IgnoreDiscoveredServers(),
			nats.Timeout(2 * time.Second), nats.IgnoreAuthErrorAbort(),
			nats.Timeout(wait.Patience),
			nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})}
		p.nc, err = nats.Connect(p.proxy.url(), opts...)
		return err
	})
	if err != nil {
		return err
	}
	defer p.nc.Close()
	context.AfterFunc(ctx, func() { // a dead process says no more
		if p.isDead() {
			p.nc.Close()
		}
	})
	var pub *publisher.Publisher
	err = retry("open the stream", func() (err error) {
		attempt, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		pub, err = publisher.Open(attempt, p.nc, cfg)
		return err
	})
	if err != nil {
		return err
	}
	poll := engine.New(eng, p.source, seam{pub, &p.hooks}).Run
	for {
		err := pub.Lead(ctx, poll)
		if !errors.Is(err, publisher.ErrLeaseLost) {
			return err
		}
	}
}

func (p *process) isDead() bool {
	p.hooks.mu.Lock()
	defer p.hooks.mu.Unlock()
	return p.dead
}

// die ends the process at once: nothing that it sends passes any more.
func (p *process) die() {
	if p.cancel == nil {
		return
	}
	p.proxy.cut()
	p.hooks.mu.Lock()
	p.dead = true
	p.hooks.mu.Unlock()
	p.cancel()
	p.proxy.release()
}

// stop ends the process as a signal does, and returns what it ended with. That not everything could
// be published within its grace period is nobody's fault.
func (p *process) stop() error {
	p.r.t.Helper()
	p.cancel()
	select {
	case <-p.ended:
	case <-time.After(wait.Patience):
		p.r.t.Fatalf("%s does not end", p.name)
	}
	return p.err
}

// running fails the test where the process has ended by itself.
func (p *process) running() {
	p.r.t.Helper()
	select {
	case <-p.ended:
		p.r.t.Fatalf("%s has ended by itself: %v", p.name, p.err)
	default:
	}
}

// sees waits until a sweep that began after now has been complete.
func (p *process) sees() {
	p.r.t.Helper()
	now := time.Now()
	wait.Eventually(p.r.t, "a complete sweep", func() bool {
		p.running()
		return p.source != nil && p.source.last().After(now)
	})
}

// stored reads the last message on a subject; nil: none, or none to be had.
func (r *rig) stored(subject string) *nats.Msg {
	m, err := r.nc.Request("$JS.API.DIRECT.GET."+schemas.Stream+"."+subject, nil, 2*time.Second)
	if err != nil || m.Header.Get("Nats-Subject") == "" {
		return nil
	}
	return m
}

func (r *rig) watermark() (w schemas.Watermark, seq uint64) {
	m := r.stored(schemas.WatermarkSubject(r.sim.TenantID()))
	if m == nil || json.Unmarshal(m.Data, &w) != nil {
		return schemas.Watermark{}, 0
	}
	seq, _ = strconv.ParseUint(m.Header.Get("Nats-Sequence"), 10, 64)
	return w, seq
}

func (r *rig) healthState() schemas.HealthState {
	var h schemas.Health
	if m := r.stored(schemas.HealthSubject(r.sim.TenantID())); m != nil {
		_ = json.Unmarshal(m.Data, &h)
	}
	return h.State
}

// settle waits until the stream says that all that is true now has been published.
func (r *rig) settle(p *process) {
	r.t.Helper()
	now := time.Now()
	wait.Eventually(r.t, "a complete sweep in the stream", func() bool {
		p.running()
		w, _ := r.watermark()
		return w.Instance == p.name && w.StartedAt.After(now) && w.InProgress == nil &&
			w.Missing == 0 && r.healthState() == schemas.HealthOK
	})
}

// finish lets the tenant rest, ends the process, and judges the stream.
func (r *rig) finish(p *process) *checker.Report {
	r.t.Helper()
	r.settle(p)
	if err := p.stop(); err != nil && !errors.As(err, new(*engine.UnpublishedError)) {
		r.t.Errorf("%s ended with %v", p.name, err)
	}
	return r.check()
}

// check judges the stream that nobody writes any more.
func (r *rig) check() *checker.Report {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wait.Patience)
	defer cancel()
	stored, err := checker.Read(ctx, r.nc, r.sim.TenantID())
	if err != nil {
		r.t.Fatal(err)
	}
	if len(stored) == 0 {
		r.t.Fatal("the stream is empty")
	}
	if !r.opt.LossyLive {
		last := stored[len(stored)-1].Seq
		wait.Eventually(r.t, "the recording to be complete", func() bool {
			return slices.ContainsFunc(r.rec.Messages(), func(m checker.Message) bool {
				return m.Seq >= last
			})
		})
	}
	log, truth := checker.Stream{Stored: stored, Live: r.rec.Messages()}, checker.TruthOf(r.sim)
	if r.opt.Expired {
		log.ReadAt = time.Now()
	}
	report := checker.Check(log, truth, r.opt)
	if !r.opt.LossyLive {
		// A sweep whose end is still waiting when the next has ended without news leaves its
		// watermark to that one. So absence is judged by what the pages showed, as where not every
		// watermark is known.
		report.Violations = slices.DeleteFunc(report.Violations, func(v checker.Violation) bool {
			return v.Rule == checker.RuleAbsence
		})
		opt := r.opt
		opt.LossyLive = true
		again := checker.Check(log, truth, opt)
		report.Violations = append(report.Violations, slices.DeleteFunc(again.Violations,
			func(v checker.Violation) bool { return v.Rule != checker.RuleAbsence })...)
	}
	// Health was ok when all was published (see settle), and a busy machine may have failed a sweep
	// since.
	report.Violations = slices.DeleteFunc(report.Violations, func(v checker.Violation) bool {
		return v.Rule == checker.RuleFinal && v.Agent == 0
	})
	if r.opt.Rollback != checker.NoRollback {
		// A watermark that was lost while its sequence is not used again looks as if a later one
		// had replaced it.
		report.Violations = slices.DeleteFunc(report.Violations, func(v checker.Violation) bool {
			return v.Rule == checker.RuleWatermark && strings.Contains(v.Text, "the one before it")
		})
	}
	if r.opt.Foreign != nil {
		// Where the watermark itself has been destroyed nobody can say any more which sweep was
		// complete: until the next one is, none is claimed to have been.
		none := make(map[uint64]bool)
		for _, m := range log.Live {
			if strings.HasPrefix(m.Subject, "agent.watermark.") &&
				bytes.Contains(m.Body, []byte(`"sweep":0,`)) {
				none[m.Seq] = true
			}
		}
		report.Violations = slices.DeleteFunc(report.Violations, func(v checker.Violation) bool {
			return v.Rule == checker.RuleWatermark && none[v.Seq] &&
				!strings.Contains(v.Text, "agents")
		})
	}
	if err := report.Err(); err != nil {
		r.t.Error(err)
	}
	if dir := os.Getenv("BROKERTEST_DUMP"); dir != "" && r.t.Failed() {
		r.dump(dir, stored)
	}
	return report
}

func (r *rig) dump(dir string, stored []checker.Message) {
	var b bytes.Buffer
	for _, m := range stored {
		fmt.Fprintf(&b, "%d %s %v %s\n", m.Seq, m.Subject, m.Header, m.Body)
	}
	_ = os.WriteFile(filepath.Join(dir, strings.ReplaceAll(r.t.Name(), "/", "_")+".log"), b.Bytes(),
		0o600)
}

// allFlips checks that the stream has every flip that a living process has seen: once, and in
// order, which the alternation says.
func (r *rig) allFlips() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wait.Patience)
	defer cancel()
	stored, err := checker.Read(ctx, r.nc, r.sim.TenantID())
	if err != nil {
		r.t.Fatal(err)
	}
	got := make(map[int64]int)
	for _, m := range stored {
		tokens := strings.Split(m.Subject, ".")
		if tokens[1] == "online" || tokens[1] == "offline" {
			id, _ := strconv.ParseInt(tokens[4], 10, 64)
			got[id]++
		}
	}
	wrong := 0
	for id, flips := range r.flips {
		want := flips
		if r.online[id] {
			want++ // its baseline
		}
		if got[id] != want {
			if wrong++; wrong <= 5 {
				r.t.Errorf("agent %d went on or off %d times, and the stream says %d times", id,
					want,
					got[id])
			}
		}
	}
	if wrong > 5 {
		r.t.Errorf("and %d agents more", wrong-5)
	}
}

// stream is the stream, for what no process does.
func (r *rig) stream() jetstream.Stream {
	r.t.Helper()
	s, err := r.js().Stream(r.t.Context(), schemas.Stream)
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

func (r *rig) js() jetstream.JetStream {
	js, err := jetstream.New(r.nc)
	if err != nil {
		r.t.Fatal(err)
	}
	return js
}

// logs is what a process logged. Safe for concurrent use.
type logs struct {
	mu    sync.Mutex
	lines []string
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(b))
	return len(b), nil
}

func (l *logs) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.lines, func(s string) bool { return strings.Contains(s, text) })
}

func (l *logs) count(text string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.lines {
		n += strings.Count(s, text)
	}
	return n
}

func (l *logs) tail(n int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines[max(0, len(l.lines)-n):], "")
}
