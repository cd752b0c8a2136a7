package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// leaseTTL is that of the processes that are killed.
const leaseTTL = 5 * time.Second

// A bench is a run.
type bench struct {
	options
	self    string // bench's own binary
	roleEnv []string
	dir     string
	report  *report
	stderr  io.Writer
	began   time.Time
}

// A world is what one size is measured in.
type world struct {
	*bench
	n        int
	interval time.Duration // between sweeps that are measured
	sweeps   int           // in one measurement
	tenant   *tenant
	client   *floorClient
	broker   *broker
	rollcall *process
	pages    string // where rollcall serves its own
	floor    *floor
	states   []logged // as they were read last
}

// measure measures everything that the options say. What it returns may lack what came after an
// error.
func measure(ctx context.Context, o options, stderr io.Writer) (*report, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "rollcall-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if o.profiles != "" {
		if err := os.MkdirAll(o.profiles, 0o755); err != nil {
			return nil, fmt.Errorf("make the profiles' directory: %w", err)
		}
	}
	b := &bench{options: o, self: self, roleEnv: []string{roleVariable + "=1"}, dir: dir, stderr: stderr, began: time.Now()}
	for _, p := range []struct {
		path      *string
		name, pkg string
	}{{&b.rollcall, "rollcall", "./cmd/rollcall"}, {&b.nats, "nats-server", "github.com/nats-io/nats-server/v2"}} {
		if *p.path != "" {
			if *p.path, err = filepath.Abs(*p.path); err != nil {
				return nil, err
			}
			continue
		}
		b.say("building %s", p.name)
		if *p.path, err = build(ctx, dir, p.name, p.pkg); err != nil {
			return nil, err
		}
	}
	b.report = newReport(o)
	for _, n := range o.sizes {
		w := &world{bench: b, n: n}
		w.interval, w.sweeps = w.pace()
		err := w.measure(ctx)
		w.end()
		if err != nil {
			b.report.finish()
			return b.report, fmt.Errorf("%d agents: %w", n, err)
		}
	}
	b.report.finish()
	return b.report, nil
}

// roleVariable has a test binary know that it is to be one of bench's own processes.
const roleVariable = "BENCH_ROLE"

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.stderr, "%6.1fs  %s\n", time.Since(b.began).Seconds(), fmt.Sprintf(format, args...))
}

// pace is how often sweeps begin, and how many make one measurement: long enough to count, short
// enough to take turns.
func (w *world) pace() (interval time.Duration, sweeps int) {
	switch {
	case w.quick:
		return 20 * time.Millisecond, 5
	case w.n < 2_000:
		return 50 * time.Millisecond, 100
	case w.n < 50_000:
		return 100 * time.Millisecond, 10
	case w.n < 500_000:
		return 250 * time.Millisecond, 3
	default:
		return time.Second, 2
	}
}

func (w *world) wants(mode string) bool { return slices.Contains(w.modes, mode) }

func (w *world) add(what string, v float64) { w.report.add(w.n, what, v) }

func (w *world) end() {
	w.rollcall.kill()
	w.broker.end()
	if w.client != nil {
		w.client.kill()
	}
	if w.tenant != nil {
		w.tenant.kill()
	}
}

func (w *world) measure(ctx context.Context) (err error) {
	w.say("%d agents: preparing pages", w.n)
	if w.tenant, err = startTenant(w.self, w.roleEnv, w.n); err != nil {
		return err
	}
	if w.client, err = startClient(w.self, w.roleEnv, w.tenant.url, w.concurrency); err != nil {
		return err
	}
	starts := 1
	if w.wants("start") {
		starts = w.rounds
	}
	for round := range starts {
		if err := w.firstStart(ctx, round); err != nil {
			return fmt.Errorf("first start: %w", err)
		}
	}
	for _, m := range []struct {
		mode string
		do   func(context.Context) error
	}{{"static", w.static}, {"drift", w.drift}, {"churn", w.churn}, {"mass", w.mass}, {"restart", w.restart}} {
		if !w.wants(m.mode) {
			continue
		}
		if err := m.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", m.mode, err)
		}
	}
	return w.stopRollcall("end")
}

// settings are rollcall's, besides those that make it find everything.
type settings map[string]string

// startRollcall starts rollcall, and returns the moment before it did.
func (w *world) startRollcall(more settings) (time.Time, error) {
	addr, err := freeAddr()
	if err != nil {
		return time.Time{}, err
	}
	w.pages = "http://" + addr
	s := settings{
		"ROLLCALL_ISDP_URL":           w.tenant.url,
		"ROLLCALL_ISDP_CLIENT_ID":     "bench",
		"ROLLCALL_ISDP_CLIENT_SECRET": "bench-secret",
		"ROLLCALL_ISDP_USERNAME":      "bench-user",
		"ROLLCALL_ISDP_PASSWORD":      "bench-password",
		"ROLLCALL_NATS_URL":           w.broker.url,
		"ROLLCALL_NATS_MAX_BYTES":     strconv.Itoa(4<<30 + w.n*20<<10),
		"ROLLCALL_LEASE_TTL":          "120s", // it must bear being stopped
		"ROLLCALL_INSTANCE":           "bench",
		"ROLLCALL_HTTP_LISTEN":        addr,
		"ROLLCALL_CONCURRENCY":        strconv.Itoa(w.concurrency),
		"ROLLCALL_RATE_LIMIT":         "1000000",
		"ROLLCALL_POLL_INTERVAL":      w.interval.String(),
		"ROLLCALL_POLL_TIMEOUT":       "30m", // it must bear being stopped
		"ROLLCALL_REQUEST_TIMEOUT":    "5m",
	}
	if w.profiles != "" {
		s["ROLLCALL_LOG_LEVEL"] = "debug"
	}
	var env []string
	for _, m := range []settings{s, more} {
		for k, v := range m {
			env = append(env, k+"="+v) // of two of the same name the last one counts
		}
	}
	began := time.Now()
	w.rollcall, err = start("rollcall", w.bench.rollcall, env, false)
	return began, err
}

// stopRollcall notes the process's memory, under the name of what it has been through, and ends it.
func (w *world) stopRollcall(life string) error {
	if w.rollcall == nil {
		return nil
	}
	if err := w.noteMemory(life); err != nil {
		return err
	}
	err := w.rollcall.signal(syscall.SIGTERM)
	w.rollcall = nil
	return err
}

func (w *world) noteMemory(life string) error {
	now, peak, err := memory(w.rollcall.cmd.Process.Pid)
	if err != nil {
		return err
	}
	w.add("rss."+life, now)
	w.add("peak."+life, peak)
	return nil
}

// rarely is so long an interval that the sweep which shows a lot is the only one until all of that
// has been published.
func (w *world) rarely() time.Duration {
	if w.quick {
		return 200 * time.Millisecond
	}
	return max(2*time.Second, time.Duration(w.n)*300*time.Microsecond)
}

// sweep waits until a complete sweep has been published. It may have been under way already.
func (w *world) sweep(ctx context.Context) (mark, error) {
	w.broker.drain()
	return w.broker.await(ctx, w.rollcall, (*mark).complete)
}

// wholeSweep waits until a complete sweep has been published that begins from now on.
func (w *world) wholeSweep(ctx context.Context) (mark, error) {
	began := time.Now()
	return w.broker.await(ctx, w.rollcall, func(m *mark) bool { return m.complete() && m.StartedAt.After(began) })
}

// alone runs do while rollcall is stopped.
func (w *world) alone(do func() error) error {
	if w.rollcall == nil {
		return do()
	}
	if err := w.rollcall.pause(); err != nil {
		return fmt.Errorf("stop rollcall: %w", err)
	}
	err := do()
	if rerr := w.rollcall.resume(); rerr != nil {
		return errors.Join(err, fmt.Errorf("continue rollcall: %w", rerr))
	}
	return err
}

// profileSeconds is how long a profile lasts, beside what it has to wait for.
const profileSeconds = 10

// profile takes profiles of rollcall while do is done, again and again for some seconds, where
// profiles are wanted.
func (w *world) profile(ctx context.Context, mode string, seconds int, do func(context.Context) error) error {
	if w.profiles == "" {
		return nil
	}
	ended := make(chan error, 1)
	go func() {
		ended <- w.fetch(ctx, fmt.Sprintf("/debug/pprof/profile?seconds=%d", seconds), mode+"-cpu.pprof")
	}()
	for began := time.Now(); time.Since(began) < time.Duration(seconds)*time.Second; {
		if err := do(ctx); err != nil {
			return err
		}
	}
	if err := <-ended; err != nil {
		return err
	}
	return cmp.Or(
		w.fetch(ctx, "/debug/pprof/heap", mode+"-heap.pprof"),
		w.fetch(ctx, "/debug/pprof/allocs", mode+"-allocs.pprof"),
		w.fetch(ctx, "/metrics", mode+"-metrics.txt"),
	)
}

func (w *world) fetch(ctx context.Context, what, name string) error {
	path := filepath.Join(w.profiles, fmt.Sprintf("%d-%s", w.n, name))
	fail := func(err error) error { return fmt.Errorf("fetch %s for %s: %w", what, path, err) }
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.pages+what, nil)
	if err != nil {
		return fail(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fail(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fail(errors.New(resp.Status))
	}
	f, err := os.Create(path)
	if err != nil {
		return fail(err)
	}
	_, err = io.Copy(f, resp.Body)
	if err := errors.Join(err, f.Close()); err != nil {
		return fail(err)
	}
	return nil
}

// newReport begins a report.
func newReport(o options) *report {
	return &report{
		Machine:     fmt.Sprintf("%d cores, %s, %s, %s", runtime.NumCPU(), cpuModel(), kernel(), runtime.Version()),
		Began:       time.Now().UTC().Truncate(time.Second),
		LoadBefore:  load(),
		Rounds:      o.rounds,
		Modes:       o.modes,
		Concurrency: o.concurrency,
		sizes:       o.sizes,
		samples:     make(map[sampleKey][]float64),
	}
}
