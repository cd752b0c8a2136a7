//go:build unix

package soak

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/internal/test/checker"
	"github.com/rollcall-events/rollcall/internal/test/e2e"
	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
	"github.com/rollcall-events/rollcall/internal/test/wait"
)

const (
	firstTenant = 886
	leaseTTL    = 2 * time.Second // as in e2e.Settings
	churn       = 40              // changes a second and tenant

	// A state that lasts for bound while complete sweeps are published at least every mostGap is
	// certain to be in the stream.
	bound        = 3 * time.Second
	removalBound = 6 * time.Second
	mostGap      = time.Second
	// mostExit is how long SIGTERM may take: the 10 seconds that rollcall allows itself, and some
	// for a busy machine.
	mostExit = 12 * time.Second
	// clocks is how far a process's clock, which never jumps, may be from the test's.
	clocks = 25 * time.Millisecond
)

// A layout is what there is of each part.
type layout struct {
	nodes    int // nats-server processes; 0: the embedded server, 3: a cluster
	tenants  int // 0: one
	replicas int // of each tenant; 0: one
	agents   int // of each tenant; 0: 120

	// glances says that sweeps take longer than the interval, so that there are glances beside
	// them, and that changes are as rare as these need.
	glances bool
}

// A world is the parts of one run, and what was done to them.
type world struct {
	t       *testing.T
	layout  layout
	seed    uint64
	rand    *rand.Rand
	nodes   []*e2e.NATSServer
	url     string // of all nodes, or of the embedded server
	dir     string // the embedded server's store
	tenants []*tenant
	nc      *nats.Conn
	live    *checker.Recording
	news    chan struct{} // something has been committed
	lossy   bool          // the recording may have holes
	ahead   time.Duration // by how much the leader's clock is ahead of the test's
	rest    context.CancelFunc

	mu     sync.Mutex
	begun  time.Time
	story  []string
	counts map[string]int
	stats  checker.Stats
	broken int // violations
}

// A tenant is one simulated tenant, and the replicas that poll it.
type tenant struct {
	id       int64
	vendor   *e2e.Vendor
	replicas []*replica
	stored   []checker.Message // the stream, as it was judged
	trouble  int               // faults until the vendor behaves again
}

// A replica is a rollcall that is started again and again.
type replica struct {
	name  string
	env   map[string]string
	proc  *e2e.Process   // the latest
	procs []*e2e.Process // all of them
	pages atomic.Int64   // requests for pages so far

	gate    sync.RWMutex // read-locked by each of its requests, on arrival
	waiting atomic.Int64 // requests that arrived at a closed gate
}

// newWorld builds the parts; nothing but the nats-servers and the tenants runs yet. again is the
// command that does the same.
func newWorld(t *testing.T, l layout, seed uint64, again string) *world {
	t.Helper()
	l.tenants, l.replicas = max(1, l.tenants), max(1, l.replicas)
	if l.agents == 0 {
		l.agents = 120
	}
	w := &world{
		t: t, layout: l, seed: seed, rand: rand.New(rand.NewPCG(seed, 0)),
		news:  make(chan struct{}, 1),
		begun: time.Now(), counts: map[string]int{},
	}
	t.Cleanup(func() {
		if t.Failed() {
			w.mu.Lock()
			defer w.mu.Unlock()
			t.Logf("seed %d; once more: %s\nwhat was done:\n%s", seed, again,
				strings.Join(w.story, "\n"))
			w.keep()
		}
	})
	broker := w.startBroker()
	// Started first, so that it misses nothing from the start on.
	w.nc = e2e.Connect(t, w.url)
	for i := range l.tenants {
		w.tenants = append(w.tenants, w.newTenant(firstTenant+int64(i), broker))
	}
	return w
}

// startBroker starts the nats-servers and returns the settings that lead to them.
func (w *world) startBroker() map[string]string {
	w.t.Helper()
	if w.layout.nodes == 0 {
		env, url := e2e.Embedded(w.t)
		w.url, w.dir = url, env["ROLLCALL_DATA_DIR"]
		return env
	}
	w.nodes = newNodes(w.t, w.layout.nodes)
	urls := make([]string, len(w.nodes))
	for i, n := range w.nodes {
		urls[i] = n.URL
	}
	w.url = strings.Join(urls, ",")
	return map[string]string{"ROLLCALL_NATS_URL": w.url,
		"ROLLCALL_NATS_REPLICAS": fmt.Sprint(w.layout.nodes)}
}

// newNodes starts nats-servers, several of them as a cluster.
func newNodes(t *testing.T, n int) []*e2e.NATSServer {
	t.Helper()
	routes := make([]string, n)
	ports := make([]int, n)
	for i := range routes {
		ports[i] = e2e.FreePort(t)
		routes[i] = fmt.Sprintf("nats-route://127.0.0.1:%d", ports[i])
	}
	nodes := make([]*e2e.NATSServer, n)
	var started sync.WaitGroup
	for i := range nodes {
		extra := ""
		if n > 1 {
			extra = fmt.Sprintf(
				"server_name: %s\ncluster { name: soak, listen: \"127.0.0.1:%d\", routes: [%s] }\n",
				nodeName(i), ports[i], strings.Join(routes, ", "))
		}
		nodes[i] = e2e.NewNATSServer(t, extra)
		started.Go(nodes[i].Start) // none is ready before the others
	}
	started.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return nodes
}

func nodeName(i int) string { return fmt.Sprintf("n%d", i) }

// churnRate is how many changes a tenant makes a second.
func (w *world) churnRate() float64 {
	if w.layout.glances {
		return churn / 10
	}
	return churn
}

func (w *world) newTenant(id int64, broker map[string]string) *tenant {
	w.t.Helper()
	t := &tenant{id: id, vendor: e2e.NewVendor(w.t, isdpsim.Config{
		Agents: w.layout.agents, TenantID: id, Seed: w.seed, Churn: w.churnRate(),
	})}
	for i := range w.layout.replicas {
		r := &replica{name: fmt.Sprintf("%d%c", id, 'a'+i)}
		// A way of its own to the tenant, so that its requests can be told from the others'.
		srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
			if strings.HasSuffix(req.URL.Path, "/findOnlineAgent") {
				r.pages.Add(1)
			}
			if !r.gate.TryRLock() {
				r.waiting.Add(1)
				r.gate.RLock()
				r.waiting.Add(-1)
			}
			r.gate.RUnlock()
			t.vendor.ServeHTTP(rw, req)
		}))
		w.t.Cleanup(func() {
			srv.CloseClientConnections()
			srv.Close()
		})
		r.env = e2e.Settings(t.vendor.Env(), broker, map[string]string{
			"ROLLCALL_ISDP_URL": srv.URL, "ROLLCALL_INSTANCE": r.name,
			"ROLLCALL_POLL_TIMEOUT": "3s", "ROLLCALL_REQUEST_TIMEOUT": "2s",
		})
		if w.layout.glances {
			r.env["ROLLCALL_RATE_LIMIT"], r.env["ROLLCALL_PAGE_SIZE"] = "50", "10"
		}
		t.replicas = append(t.replicas, r)
	}
	return t
}

// record begins to record what is committed. The server has to be there.
func (w *world) record() {
	w.t.Helper()
	wait.Eventually(w.t, "a connection to NATS", func() bool {
		w.started()
		return w.nc.IsConnected() && w.nc.FlushTimeout(time.Second) == nil
	})
	var err error
	if w.live, err = checker.Record(w.nc, 0); err != nil {
		w.t.Fatal(err)
	}
	_, err = w.nc.Subscribe("agent.>", func(*nats.Msg) {
		select {
		case w.news <- struct{}{}:
		default:
		}
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// churn makes the tenants change until rest.
func (w *world) churn() {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, t := range w.tenants {
		running.Go(func() { _ = t.vendor.Run(ctx) })
	}
	w.rest = func() {
		cancel()
		running.Wait()
	}
	w.t.Cleanup(w.rest)
}

// note tells what is being done, for the story.
func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.story = append(w.story, fmt.Sprintf("%s (%6.2fs) %s", time.Now().UTC().Format("15:04:05.000"),
		time.Since(w.begun).Seconds(),
		fmt.Sprintf(format, args...)))
}

func (w *world) count(kind string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts[kind]++
}

func (w *world) replicas() []*replica {
	var all []*replica
	for _, t := range w.tenants {
		all = append(all, t.replicas...)
	}
	return all
}

func (w *world) start(rs ...*replica) {
	w.t.Helper()
	for _, r := range rs {
		w.note("start %s", r.name)
		r.proc = e2e.Rollcall(w.t, r.env)
		r.procs = append(r.procs, r.proc)
	}
}

// alive fails the test where the replica has ended by itself.
func (w *world) alive(r *replica) {
	w.t.Helper()
	if !r.proc.Running() {
		w.t.Fatalf("%s ended by itself: exit %d", r.name, r.proc.Wait())
	}
}

// started fails the test where a rollcall has refused its settings.
func (w *world) started() {
	w.t.Helper()
	for _, r := range w.replicas() {
		if r.proc != nil && !r.proc.Running() && r.proc.Wait() == 2 {
			w.t.Fatalf("%s does not start: %s", r.name, r.proc.Stderr())
		}
	}
}

func (w *world) kill(rs ...*replica) {
	w.t.Helper()
	for _, r := range rs {
		w.alive(r)
		w.note("SIGKILL %s", r.name)
		w.count("SIGKILL rollcall")
		r.proc.Kill()
	}
}

// term ends a replica with SIGTERM. mayFail: the broker was not there all the time.
func (w *world) term(r *replica, mayFail bool) {
	w.t.Helper()
	w.alive(r)
	w.note("SIGTERM %s", r.name)
	w.count("SIGTERM rollcall")
	kept := len(r.proc.Logged("the lease was not given up"))
	code, took := r.proc.Terminate()
	w.note("%s is gone, exit %d after %v", r.name, code, took.Round(time.Millisecond))
	if code != 0 && !(mayFail && code == 1) || took > mostExit {
		w.t.Errorf("SIGTERM %s: exit %d after %v", r.name, code, took)
	}
	if !mayFail && len(r.proc.Logged("the lease was not given up")) > kept {
		w.t.Errorf("SIGTERM %s: it did not give its lease up", r.name)
	}
}

func (w *world) killNode(n *e2e.NATSServer) {
	w.t.Helper()
	w.note("SIGKILL nats-server %s", n.URL)
	w.count("SIGKILL nats-server")
	w.lossy = true
	n.Kill()
}

func (w *world) startNode(n *e2e.NATSServer) {
	w.t.Helper()
	w.note("start nats-server %s", n.URL)
	n.Start()
	w.note("nats-server %s is ready", n.URL)
}

// A mark is a watermark, read.
type mark struct {
	Sweep      uint64
	StartedAt  time.Time
	Missing    int
	Instance   string
	InProgress *struct{ Sweep uint64 }
	Commit     struct{ Messages uint64 }
}

// mark reads a tenant's watermark; false: it can't be had just now.
func (w *world) mark(tenant int64) (mark, uint64, bool) {
	var m mark
	msg, ok := e2e.Last(w.nc, fmt.Sprintf("agent.watermark.%d", tenant))
	if !ok {
		return m, 0, false
	}
	if err := json.Unmarshal([]byte(msg.Body), &m); err != nil {
		w.t.Fatalf("watermark at %d: %v", msg.Seq, err)
	}
	return m, msg.Seq, true
}

// swept waits until a tenant's complete sweep begun after t is in the stream, of an instance unless
// that is empty, and returns the sequence of its watermark.
func (w *world) swept(tenant int64, after time.Time, instance string) (seq uint64) {
	w.t.Helper()
	after = after.Add(w.ahead)
	wait.Eventually(w.t, fmt.Sprintf("a complete sweep of tenant %d by %q begun after %s", tenant,
		instance, after.UTC().Format("15:04:05.000")), func() bool {
		w.started()
		m, at, ok := w.mark(tenant)
		seq = at
		return ok && m.Sweep > 0 && m.StartedAt.After(after.Add(clocks)) &&
			(instance == "" || m.Instance == instance)
	})
	return seq
}

// settle ends all trouble and waits until the tenants have been seen at rest.
func (w *world) settle() {
	w.t.Helper()
	for _, t := range w.tenants {
		t.vendor.SetFault(nil)
	}
	w.rest()
	at := time.Now().Add(w.ahead)
	w.note("rest")
	for _, t := range w.tenants {
		wait.Eventually(w.t, fmt.Sprintf("tenant %d to be seen at rest", t.id), func() bool {
			m, _, ok := w.mark(t.id)
			if !ok || m.Sweep == 0 || !m.StartedAt.After(at.Add(clocks)) || m.Missing > 0 ||
				m.InProgress != nil {
				return false
			}
			h, ok := e2e.Last(w.nc, fmt.Sprintf("agent.health.%d", t.id))
			return !ok || strings.Contains(h.Body, `"state":"ok"`)
		})
	}
	w.note("seen at rest")
}

// finish settles and judges.
func (w *world) finish(change func(*checker.Options)) {
	w.t.Helper()
	w.settle()
	w.judge(change)
}

// judge ends every process, and has the checker judge the stream of each tenant. change, if any,
// alters its options.
func (w *world) judge(change func(*checker.Options)) {
	w.t.Helper()
	if len(w.nodes) > 0 {
		w.current() // or else some could not say goodbye
	}
	for _, r := range w.replicas() {
		if r.proc != nil {
			w.term(r, false)
		}
	}
	nc := w.nc
	if w.layout.nodes == 0 {
		nc = e2e.OpenStore(w.t, w.dir)
	} else {
		w.current()
	}
	var live []checker.Message
	if w.live != nil {
		live = w.live.Messages()
		if dropped, foreign := w.live.Dropped(); dropped+foreign > 0 {
			w.t.Errorf("the recording left out %d messages, and %d were not the stream's", dropped,
				foreign)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), wait.Patience)
	defer cancel()
	for _, t := range w.tenants {
		stored, err := checker.Read(ctx, nc, t.id)
		if err != nil {
			w.t.Fatal(err)
		}
		opt := checker.Options{
			Tenant: t.id, Bound: bound, RemovalBound: removalBound, Outages: t.outages(w.begun),
			Quiescent: true, Skew: clocks, Interval: 200 * time.Millisecond,
			LossyLive: w.lossy || w.layout.nodes == 0,
		}
		if change != nil {
			change(&opt)
		}
		t.stored = stored
		report := checker.Check(checker.Stream{Stored: stored, Live: live, ReadAt: time.Now()},
			checker.TruthOf(t.vendor.Tenant), opt)
		if err := report.Err(); err != nil {
			w.t.Errorf("tenant %d, seed %d: %v", t.id, w.seed, err)
		}
		if w.layout.glances && !slices.ContainsFunc(stored, func(m checker.Message) bool {
			return strings.HasPrefix(m.Subject, "agent.watermark.") &&
				strings.Contains(string(m.Body), `"glancedAt":`)
		}) {
			w.t.Errorf("tenant %d, seed %d: no glance was over", t.id, w.seed)
		}
		w.broken += len(report.Violations) + report.More
		add(&w.stats, report.Stats)
		t.clean(w.t)
	}
}

// keep writes what a failed test's processes wrote, and the logs that were judged, to a directory,
// to be looked into.
func (w *world) keep() {
	dir, err := os.MkdirTemp("", fmt.Sprintf("soak-%d-", w.seed))
	if err != nil {
		w.t.Log(err)
		return
	}
	for _, t := range w.tenants {
		var b strings.Builder
		for _, m := range t.stored {
			fmt.Fprintf(&b, "%d %s %s %s %s\n", m.Seq, m.Time.UTC().Format("15:04:05.000"),
				m.Subject, m.Header, m.Body)
		}
		w.write(dir, fmt.Sprintf("log-%d", t.id), b.String())
		for _, r := range t.replicas {
			for i, p := range r.procs {
				w.write(dir, fmt.Sprintf("%s-%02d", r.name, i), p.Stderr())
			}
		}
	}
	w.t.Logf("the log and what every process wrote are kept in %s", dir)
}

func (w *world) write(dir, name, text string) {
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		w.t.Log(err)
	}
}

func add(sum *checker.Stats, s checker.Stats) {
	sum.Messages += s.Messages
	sum.Events += s.Events
	sum.Agents += s.Agents
	sum.Commits += s.Commits
	sum.WholeCommits += s.WholeCommits
	sum.Watermarks += s.Watermarks
	sum.CompleteSweeps += s.CompleteSweeps
	sum.Removals += s.Removals
	sum.Changes += s.Changes
	sum.Pages += s.Pages
	sum.Lasting += s.Lasting
	sum.Final += s.Final
}

// clean checks that no process of the tenant's has panicked, raced, told a secret, or found the
// stream other than it should be.
func (t *tenant) clean(tb testing.TB) {
	tb.Helper()
	for _, r := range t.replicas {
		for _, p := range r.procs {
			p.NoSecrets(t.vendor.Secrets()...)
			for _, bad := range []string{"panic: ", "DATA RACE", "fatal error: "} {
				if strings.Contains(p.Stderr(), bad) {
					tb.Errorf("%s wrote %q", r.name, bad)
				}
			}
			for _, l := range p.Log() {
				if l.Level() == "ERROR" {
					tb.Errorf("%s logged an error: %v", r.name, l)
				}
			}
		}
	}
}

// outages are the stretches in which no complete sweep can be relied on to be published.
func (t *tenant) outages(begun time.Time) []checker.Interval {
	type point struct {
		at    time.Time
		epoch int // of one process, that reads the stream again now and then
	}
	points := []point{{begun, -1}}
	epochs := 0
	for _, r := range t.replicas {
		for _, p := range r.procs {
			ended := map[uint64]time.Time{} // complete sweeps of this epoch
			published := uint64(0)
			flush := func() {
				for sweep, at := range ended {
					if sweep <= published {
						points = append(points, point{at, epochs})
					}
				}
				clear(ended)
				published = 0
				epochs++
			}
			for _, l := range p.Log() {
				sweep, _ := l["sweep"].(float64)
				switch l.Message() {
				case "took over the stream":
					flush()
				case "sweep complete":
					at, err := time.Parse(time.RFC3339Nano, fmt.Sprint(l["time"]))
					if err == nil {
						ended[uint64(sweep)] = at
					}
				case "committed":
					published = max(published, uint64(sweep))
				}
			}
			flush()
		}
	}
	slices.SortFunc(points, func(a, b point) int { return a.at.Compare(b.at) })
	var out []checker.Interval
	for i := 1; i < len(points); i++ {
		a, b := points[i-1], points[i]
		if a.epoch != b.epoch || b.at.Sub(a.at) > mostGap {
			out = append(out, checker.Interval{From: a.at.Add(-clocks), To: b.at.Add(clocks)})
		}
	}
	return out
}

// holder is who holds a tenant's lease; "": nobody, or the bucket can't be read just now.
func (w *world) holder(tenant int64) string {
	e := w.lease(tenant)
	if e == nil {
		return ""
	}
	var h struct{ Instance string }
	_ = json.Unmarshal(e.Value(), &h)
	return h.Instance
}

// renewed is when a tenant's lease was last renewed.
func (w *world) renewed(tenant int64) time.Time {
	if e := w.lease(tenant); e != nil {
		return e.Created()
	}
	return time.Time{}
}

func (w *world) lease(tenant int64) jetstream.KeyValueEntry {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	js, err := jetstream.New(w.nc)
	if err != nil {
		return nil
	}
	kv, err := js.KeyValue(ctx, "rollcall")
	if err != nil {
		return nil
	}
	e, err := kv.Get(ctx, fmt.Sprintf("lease.%d", tenant))
	if err != nil {
		return nil
	}
	return e
}

// summary is one line on what was checked.
func summary(s checker.Stats) string {
	return fmt.Sprintf(
		"%d messages, %d events of %d agents, %d removals, %d commits (%d whole), %d watermarks, "+
			"%d lasting states, %d agents at rest, of %d changes and %d pages",
		s.Messages, s.Events, s.Agents, s.Removals, s.Commits, s.WholeCommits, s.Watermarks,
		s.Lasting, s.Final, s.Changes, s.Pages)
}

// tally is the counts by kind, for people.
func tally(counts map[string]int) string {
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%s %d", kind, counts[kind]))
	}
	return strings.Join(parts, ", ")
}
