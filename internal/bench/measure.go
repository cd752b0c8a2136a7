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
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rollcall-events/rollcall/schemas"
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

// measure measures everything that the options say. What it returns may lack what came after an error.
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

// pace is how often sweeps begin, and how many make one measurement: long enough to count, short enough to take turns.
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

// firstStart starts rollcall on an empty log.
func (w *world) firstStart(ctx context.Context, round int) (err error) {
	if err := w.stopRollcall("start"); err != nil {
		return err
	}
	w.broker.end()
	w.broker, err = startBroker(ctx, w.nats, filepath.Join(w.dir, fmt.Sprintf("nats-%d-%d", w.n, round)))
	if err != nil {
		return err
	}
	if err := w.tenant.ask("mark", nil); err != nil {
		return err
	}
	if _, err := w.startRollcall(nil); err != nil {
		return err
	}
	all, err := w.broker.await(ctx, w.rollcall, func(m *mark) bool { return m.Agents == w.n })
	if err != nil {
		return err
	}
	cpu, err := w.rollcall.cpu()
	if err != nil {
		return err
	}
	rate, err := w.rateUntil(all)
	if err != nil {
		return err
	}
	w.add("start.rate", rate)
	w.add("start.cpu", perAgent(cpu, w.n))
	m, err := w.wholeSweep(ctx)
	if err != nil {
		return err
	}
	if err := w.noteMemory("start"); err != nil {
		return err
	}
	return w.alone(func() error {
		_, states, err := w.broker.readStates(ctx, true)
		if err != nil {
			return err
		}
		if len(states) != w.n {
			return fmt.Errorf("the log has %d states", len(states))
		}
		w.states = states
		body := m.Watermark.AppendJSON(nil)
		if w.floor, err = newFloor(ctx, w.broker, body); err != nil {
			return err
		}
		took, cpu, err := w.floor.batches(ctx, states)
		if err != nil {
			return err
		}
		w.add("floor.new.rate", float64(w.n)/took.Seconds())
		w.add("floor.new.cpu", perAgent(cpu, w.n))
		w.say("first start: %.0f events/s, batches %.0f", rate, float64(w.n)/took.Seconds())
		return nil
	})
}

// rateUntil is how many events a second there were, one an agent, from the first answer since the tenant's mark.
func (w *world) rateUntil(m mark) (float64, error) {
	var first int64
	if err := w.tenant.ask("first", &first); err != nil {
		return 0, err
	}
	return float64(w.n) / m.at.Sub(time.Unix(0, first)).Seconds(), nil
}

func perAgent(d time.Duration, n int) float64 { return float64(d.Nanoseconds()) / 1000 / float64(n) }

func ms(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

// static measures sweeps that find nothing changed.
func (w *world) static(ctx context.Context) error { return w.polling(ctx, "static") }

func (w *world) drift(ctx context.Context) error {
	if err := w.tenant.ask("drift?n=1", nil); err != nil {
		return err
	}
	err := w.polling(ctx, "drift")
	return errors.Join(err, w.tenant.ask("drift?n=0", nil))
}

// polling measures sweeps that find no change worth an event: rollcall's, the client's, and what the broker has of them.
func (w *world) polling(ctx context.Context, mode string) error {
	for range w.rounds {
		period, err := w.sweepsOf(ctx, mode)
		if err != nil {
			return err
		}
		err = w.alone(func() error {
			cpu, walls, err := w.client.sweep(w.sweeps, w.interval)
			if err != nil {
				return err
			}
			w.add(mode+".client.cpu", ms(cpu))
			w.add(mode+".client.wall", medianMS(walls))
			// The broker is never quite idle: as often as rollcall publishes one, no oftener.
			const longEnough = 10 * time.Second
			cpu, err = w.floor.watermarks(ctx, min(w.sweeps, max(1, int(longEnough/period))), period)
			w.add(mode+".floor.broker", ms(cpu))
			return err
		})
		if err != nil {
			return err
		}
	}
	if err := w.noteMemory(mode); err != nil {
		return err
	}
	return w.profile(ctx, mode, func(ctx context.Context) error {
		_, err := w.sweep(ctx)
		return err
	})
}

// usage is what has been used so far.
type usage struct {
	at          time.Time
	cpu, broker time.Duration
	messages    uint64 // in the log
}

func (w *world) usage(ctx context.Context) (u usage, err error) {
	var err1, err2 error
	u.at = time.Now()
	u.cpu, err1 = w.rollcall.cpu()
	u.broker, err2 = w.broker.cpu()
	s, err3 := w.broker.js.Stream(ctx, schemas.Stream)
	if err := errors.Join(err1, err2, err3); err != nil {
		return u, fmt.Errorf("look at what has been used: %w", err)
	}
	u.messages = s.CachedInfo().State.LastSeq
	return u, nil
}

// sweepsOf measures rollcall's own sweeps, and returns how often one came.
func (w *world) sweepsOf(ctx context.Context, mode string) (period time.Duration, err error) {
	if _, err := w.sweep(ctx); err != nil {
		return 0, err
	}
	before, err := w.usage(ctx)
	if err != nil {
		return 0, err
	}
	var walls []time.Duration
	for range w.sweeps {
		m, err := w.broker.await(ctx, w.rollcall, (*mark).complete)
		if err != nil {
			return 0, err
		}
		walls = append(walls, m.CompletedAt.Sub(m.StartedAt))
	}
	after, err := w.usage(ctx)
	if err != nil {
		return 0, err
	}
	n := time.Duration(w.sweeps)
	cpu := (after.cpu - before.cpu) / n
	w.add(mode+".cpu", ms(cpu))
	w.add(mode+".wall", medianMS(walls))
	w.add(mode+".broker", ms((after.broker-before.broker)/n))
	w.add(mode+".messages", float64(after.messages-before.messages)/float64(w.sweeps))
	w.say("%s: a sweep takes %.2f ms of CPU and %.1f ms", mode, ms(cpu), medianMS(walls))
	return after.at.Sub(before.at) / n, nil
}

func medianMS(d []time.Duration) float64 {
	v := make([]float64, len(d))
	for i := range d {
		v[i] = ms(d[i])
	}
	return median(v)
}

// churn measures how long changes take: at the pace at which everything else is measured, and at one at which the rate limit
// makes a sweep last two seconds, where it would be shorter.
func (w *world) churn(ctx context.Context) error {
	const paced = 2 * time.Second
	lasted, err := w.latencies(ctx, "churn")
	if err != nil || w.quick || w.n < 2_000 || lasted > paced {
		return err
	}
	if err := w.stopRollcall("churn"); err != nil {
		return err
	}
	limit := settings{"ROLLCALL_RATE_LIMIT": strconv.Itoa(int(float64(w.n/pageSize) / paced.Seconds()))}
	if _, err := w.startRollcall(limit); err != nil {
		return err
	}
	if _, err := w.latencies(ctx, "paced"); err != nil {
		return err
	}
	if err := w.stopRollcall("paced"); err != nil {
		return err
	}
	_, err = w.startRollcall(nil)
	return err
}

const (
	churnRate = 25 // flips a second
	churnFor  = 8 * time.Second
)

// latencies measures how long changes take, and returns how long the last sweep lasted.
func (w *world) latencies(ctx context.Context, mode string) (lasted time.Duration, err error) {
	var last mark
	arrived := make(map[int64][]time.Time)
	var mu sync.Mutex
	for _, kind := range []schemas.Kind{schemas.KindOnline, schemas.KindOffline} {
		sub, err := w.broker.nc.Subscribe(schemas.StoredPrefix+string(kind)+".>", func(m *nats.Msg) {
			at := time.Now()
			id, err := strconv.ParseInt(m.Subject[strings.LastIndexByte(m.Subject, '.')+1:], 10, 64)
			if err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			arrived[id] = append(arrived[id], at)
		})
		if err != nil {
			return 0, err
		}
		defer func() { _ = sub.Unsubscribe() }()
	}
	rate, lasting := churnRate, churnFor
	if w.quick {
		rate, lasting = 50, 200*time.Millisecond
	}
	flips := int(lasting.Seconds() * float64(rate))
	for range w.rounds {
		err := w.alone(func() error {
			took, err := w.floor.singles(ctx, w.states, flips)
			if err != nil {
				return err
			}
			w.add(mode+".commit", medianMS(took))
			return nil
		})
		if err != nil {
			return 0, err
		}
		if _, err := w.sweep(ctx); err != nil {
			return 0, err
		}
		for range flips {
			began := time.Now()
			if err := w.tenant.ask("flip?n=1", nil); err != nil {
				return 0, err
			}
			time.Sleep(time.Until(began.Add(time.Second / time.Duration(rate))))
		}
		if last, err = w.wholeSweep(ctx); err != nil { // everything has been read and published
			return 0, err
		}
		var news []shown
		if err := w.tenant.ask("shown", &news); err != nil {
			return 0, err
		}
		for began := time.Now(); time.Since(began) < 10*time.Second; time.Sleep(time.Millisecond) {
			mu.Lock() // a subscription's messages may be behind those of another
			n := 0
			for _, at := range arrived {
				n += len(at)
			}
			mu.Unlock()
			if n >= len(news) {
				break
			}
		}
		mu.Lock()
		delays, err := match(news, arrived)
		clear(arrived)
		mu.Unlock()
		if err != nil {
			return 0, err
		}
		w.add(mode+".p50", percentile(delays, 0.50))
		w.add(mode+".p99", percentile(delays, 0.99))
		w.say("%s: p50 %.2f ms, p99 %.2f ms", mode, percentile(delays, 0.50), percentile(delays, 0.99))
	}
	err = w.profile(ctx, mode, func(context.Context) error {
		time.Sleep(time.Second / churnRate)
		return w.tenant.ask("flip?n=1", nil)
	})
	if err != nil {
		return 0, err
	}
	if w.profiles != "" { // nobody is to meet these flips again
		if _, err := w.wholeSweep(ctx); err != nil {
			return 0, err
		}
		if err := w.tenant.ask("shown", nil); err != nil {
			return 0, err
		}
	}
	return last.CompletedAt.Sub(last.StartedAt), w.noteMemory(mode)
}

// match is how many milliseconds after an answer that showed an agent's flip its event arrived.
func match(news []shown, arrived map[int64][]time.Time) ([]float64, error) {
	var delays []float64
	for _, s := range news {
		at := arrived[s.Agent]
		if len(at) == 0 {
			return nil, fmt.Errorf("agent %d has flipped, and there was no event", s.Agent)
		}
		delays = append(delays, ms(at[0].Sub(time.Unix(0, s.At))))
		arrived[s.Agent] = at[1:]
	}
	for agent, at := range arrived {
		if len(at) > 0 {
			return nil, fmt.Errorf("agent %d has not flipped, and there was an event", agent)
		}
	}
	return delays, nil
}

// mass measures what happens when everyone flips at once. The interval is long, so that the sweep that shows it is the only one.
func (w *world) mass(ctx context.Context) error {
	if err := w.stopRollcall("end"); err != nil {
		return err
	}
	interval := max(2*time.Second, time.Duration(w.n)*300*time.Microsecond)
	if w.quick {
		interval = 200 * time.Millisecond
	}
	if _, err := w.startRollcall(settings{"ROLLCALL_POLL_INTERVAL": interval.String()}); err != nil {
		return err
	}
	for range w.rounds {
		if _, err := w.sweep(ctx); err != nil {
			return err
		}
		rate, cpu, err := w.massChange(ctx)
		if err != nil {
			return err
		}
		w.add("mass.rate", rate)
		w.add("mass.cpu", cpu)
		w.say("mass: %.0f events/s, %.1f µs of CPU an event", rate, cpu)
		err = w.alone(func() error {
			_, states, err := w.broker.readStates(ctx, true)
			if err != nil {
				return err
			}
			w.states = states
			took, cpu, err := w.floor.batches(ctx, states)
			if err != nil {
				return err
			}
			w.add("floor.mass.rate", float64(w.n)/took.Seconds())
			w.add("floor.mass.cpu", perAgent(cpu, w.n))
			return nil
		})
		if err != nil {
			return err
		}
	}
	if w.profiles != "" {
		if _, err := w.sweep(ctx); err != nil {
			return err
		}
		err := w.profile(ctx, "mass", func(ctx context.Context) error {
			_, _, err := w.massChange(ctx)
			return err
		})
		if err != nil {
			return err
		}
	}
	if err := w.stopRollcall("mass"); err != nil {
		return err
	}
	_, err := w.startRollcall(nil)
	return err
}

// massChange flips every agent, and returns how many events a second that made, and how many microseconds of rollcall's CPU each
// took, the reading of its page included.
func (w *world) massChange(ctx context.Context) (rate, cpu float64, err error) {
	if err := errors.Join(w.tenant.ask("flipall", nil), w.tenant.ask("mark", nil)); err != nil {
		return 0, 0, err
	}
	var online int
	if err := w.tenant.ask("online", &online); err != nil {
		return 0, 0, err
	}
	before, err := w.rollcall.cpu()
	if err != nil {
		return 0, 0, err
	}
	last, err := w.broker.await(ctx, w.rollcall, func(m *mark) bool { return m.Online == online && m.complete() })
	if err != nil {
		return 0, 0, err
	}
	after, err := w.rollcall.cpu()
	if err != nil {
		return 0, 0, err
	}
	rate, err = w.rateUntil(last)
	return rate, perAgent(after-before, w.n), err
}

// restart measures how long it takes from the end of one process until the next one's first complete sweep.
func (w *world) restart(ctx context.Context) error {
	lease := settings{"ROLLCALL_LEASE_TTL": leaseTTL.String()}
	if err := w.stopRollcall("end"); err != nil {
		return err
	}
	if _, err := w.startRollcall(lease); err != nil {
		return err
	}
	if _, err := w.sweep(ctx); err != nil {
		return err
	}
	kinds := []struct {
		name   string
		signal syscall.Signal
	}{{"term", syscall.SIGTERM}, {"kill", syscall.SIGKILL}}
	if w.quick {
		kinds = kinds[:1]
	}
	for range w.rounds {
		for _, k := range kinds {
			if err := w.restartOnce(ctx, k.name, k.signal, lease); err != nil {
				return err
			}
		}
	}
	return w.noteMemory("restart")
}

func (w *world) restartOnce(ctx context.Context, name string, signal syscall.Signal, lease settings) error {
	killed := time.Now()
	if err := w.rollcall.signal(signal); err != nil {
		return err
	}
	var events []string
	sub, err := w.broker.nc.Subscribe(schemas.StoredPrefix+"*."+strconv.Itoa(tenantID)+".*.*", func(m *nats.Msg) {
		events = append(events, m.Subject) // all on one goroutine, and read once the watermark behind them has arrived
	})
	if err != nil {
		return err
	}
	defer func() { _ = sub.Unsubscribe() }()
	var flipped []int64
	if err := w.tenant.ask(fmt.Sprintf("flip?n=%d", min(10, w.n)), &flipped); err != nil {
		return err
	}
	w.broker.drain()
	began, err := w.startRollcall(lease)
	if err != nil {
		return err
	}
	if signal == syscall.SIGKILL {
		began = killed
	}
	first, err := w.broker.await(ctx, w.rollcall, func(m *mark) bool { return m.complete() && m.StartedAt.After(began) })
	if err != nil {
		return err
	}
	if err := w.broker.nc.Flush(); err != nil {
		return err
	}
	if err := sub.Unsubscribe(); err != nil {
		return err
	}
	w.add("restart."+name, ms(first.at.Sub(began)))
	w.add("restart."+name+".events", float64(len(events)-len(flipped)))
	w.say("restart after %v: %.0f ms, %d events", signal, ms(first.at.Sub(began)), len(events))
	if err := w.tenant.ask("shown", nil); err != nil {
		return err
	}
	return w.alone(func() error {
		took, _, err := w.broker.readStates(ctx, false)
		if err != nil {
			return err
		}
		_, walls, err := w.client.sweep(1, 0)
		if err != nil {
			return err
		}
		w.add("restart."+name+".floor", ms(took)+medianMS(walls))
		w.add("states.read", ms(took))
		return nil
	})
}

// profile takes profiles of rollcall while do is done, again and again for some seconds, where profiles are wanted.
func (w *world) profile(ctx context.Context, mode string, do func(context.Context) error) error {
	if w.profiles == "" {
		return nil
	}
	const seconds = 10
	ended := make(chan error, 1)
	go func() {
		ended <- w.fetch(ctx, fmt.Sprintf("/debug/pprof/profile?seconds=%d", seconds), mode+"-cpu.pprof")
	}()
	for began := time.Now(); time.Since(began) < seconds*time.Second; {
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
