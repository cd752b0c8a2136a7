package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/rollcall-events/rollcall/internal/test/process"
)

// leaseTTL is that of the processes that are killed.
const leaseTTL = 5 * time.Second

// A bench is a run.
type bench struct {
	options
	dir    string
	report *report
	stderr io.Writer
	began  time.Time
}

// A world is what one size is measured in.
type world struct {
	*bench
	n        int
	interval time.Duration // between sweeps that are measured
	sweeps   int           // in one measurement
	tenant   *tenant
	client   *client
	broker   *broker
	rollcall *proc
	floor    *floor
	states   []state // as they were read last
}

// measure measures everything that the options say, into the report.
func measure(ctx context.Context, o options, r *report, stderr io.Writer) (err error) {
	defer caught(&err, "measure")
	dir := get(os.MkdirTemp("", "rollcall-bench-"))
	defer os.RemoveAll(dir)
	b := &bench{options: o, dir: dir, report: r, stderr: stderr, began: time.Now()}
	if b.rollcall == "" {
		b.rollcall = get(process.Build(ctx, dir, "./cmd/rollcall"))
	}
	sizes := !slices.Equal(o.modes, []string{glancesMode})
	if b.nats == "" && sizes {
		b.nats = get(process.Build(ctx, dir, "github.com/nats-io/nats-server/v2"))
	}
	for _, n := range o.sizes {
		if !sizes {
			break
		}
		if err := b.size(ctx, n); err != nil {
			return err
		}
	}
	if slices.Contains(o.modes, glancesMode) {
		return b.glances(ctx)
	}
	return nil
}

func (b *bench) say(format string, args ...any) {
	at := time.Since(b.began).Seconds()
	fmt.Fprintf(b.stderr, "%6.1fs  %s\n", at, fmt.Sprintf(format, args...))
}

// size measures all modes with n agents.
func (b *bench) size(ctx context.Context, n int) (err error) {
	defer caught(&err, fmt.Sprintf("%d agents", n))
	w := &world{bench: b, n: n}
	defer w.end()
	w.interval, w.sweeps = w.pace()
	w.say("%d agents: preparing pages", n)
	w.tenant = startTenant(n)
	w.client = get(newClient(w.tenant.url))
	starts := 1
	if slices.Contains(w.modes, "start") {
		starts = w.rounds
	}
	for round := range starts {
		w.firstStart(ctx, round)
	}
	modes := map[string]func(context.Context){
		"static": w.static, "drift": w.drift, "churn": w.churn, "mass": w.mass,
		"restart": w.restart, historyMode: w.history,
	}
	for _, name := range append(allModes[1:], historyMode) {
		if slices.Contains(w.modes, name) {
			modes[name](ctx)
		}
	}
	w.stopRollcall("end")
	return nil
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

// rarely is so long an interval that the sweep which shows a lot is the only one until all of that
// has been published.
func (w *world) rarely() settings {
	interval := max(2*time.Second, time.Duration(w.n)*300*time.Microsecond)
	if w.quick {
		interval = 200 * time.Millisecond
	}
	return settings{"ROLLCALL_POLL_INTERVAL": interval.String()}
}

func (w *world) add(what string, v float64) { w.report.add(w.n, what, v) }

func (w *world) end() {
	if w.rollcall != nil {
		w.rollcall.Kill()
	}
	w.broker.end()
	if w.tenant != nil {
		w.tenant.Kill()
	}
}

// settings are rollcall's, besides those that make it find everything.
type settings map[string]string

// vendorSettings are those that name the tenant and its credentials.
func vendorSettings(url string) settings {
	return settings{
		"ROLLCALL_ISDP_URL":           url,
		"ROLLCALL_ISDP_CLIENT_ID":     credentials.ClientID,
		"ROLLCALL_ISDP_CLIENT_SECRET": credentials.ClientSecret,
		"ROLLCALL_ISDP_USERNAME":      credentials.Username,
		"ROLLCALL_ISDP_PASSWORD":      credentials.Password,
	}
}

// startRollcall starts rollcall, after it has ended the one that runs (life: what that one has been
// through), and returns the moment before the start.
func (w *world) startRollcall(life string, more settings) time.Time {
	w.stopRollcall(life)
	addr := freeAddr()
	s := vendorSettings(w.tenant.url)
	maps.Copy(s, settings{
		"ROLLCALL_NATS_URL":        w.broker.url,
		"ROLLCALL_NATS_MAX_BYTES":  strconv.Itoa(4<<30 + w.n*20<<10),
		"ROLLCALL_LEASE_TTL":       "120s", // it must bear being stopped
		"ROLLCALL_INSTANCE":        "bench",
		"ROLLCALL_HTTP_LISTEN":     addr,
		"ROLLCALL_CONCURRENCY":     strconv.Itoa(inFlight),
		"ROLLCALL_RATE_LIMIT":      "1000000",
		"ROLLCALL_POLL_INTERVAL":   w.interval.String(),
		"ROLLCALL_POLL_TIMEOUT":    "30m", // it must bear being stopped
		"ROLLCALL_REQUEST_TIMEOUT": "5m",
	})
	if w.debug {
		s["ROLLCALL_LOG_LEVEL"] = "debug" // which also turns the profiles on
		w.say("rollcall is at http://%s/debug/pprof/", addr)
	}
	maps.Copy(s, more)
	began := time.Now()
	p := start(w.bench.rollcall, s)
	w.rollcall = &p
	return began
}

// stopRollcall notes the process's memory, under the name of what it has been through, and ends it.
func (w *world) stopRollcall(life string) {
	if w.rollcall == nil {
		return
	}
	w.noteMemory(life)
	p := w.rollcall
	w.rollcall = nil
	p.end(syscall.SIGTERM)
}

func (w *world) noteMemory(life string) {
	w.add("peak."+life, peakMemory(w.rollcall.pid()))
}

// await returns the next watermark that is wanted.
func (w *world) await(ctx context.Context, want func(*mark) bool) mark {
	return w.broker.await(ctx, *w.rollcall, want)
}

// sweep waits until a complete sweep has been published. It may have been under way already.
func (w *world) sweep(ctx context.Context) mark {
	w.broker.drain()
	return w.await(ctx, (*mark).complete)
}

// wholeSweep waits until a complete sweep has been published that begins from now on.
func (w *world) wholeSweep(ctx context.Context) mark {
	return w.sweepAfter(ctx, time.Now())
}

func (w *world) sweepAfter(ctx context.Context, began time.Time) mark {
	return w.await(ctx, func(m *mark) bool { return m.complete() && m.StartedAt.After(began) })
}

// alone runs do while rollcall is stopped.
func (w *world) alone(do func()) {
	must(w.rollcall.Signal(syscall.SIGSTOP))
	do()
	must(w.rollcall.Signal(syscall.SIGCONT))
}
