package main

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rollcall-events/rollcall/schemas"
)

// firstStart starts rollcall on an empty stream.
func (w *world) firstStart(ctx context.Context, round int) {
	w.stopRollcall("start")
	w.broker.end()
	w.broker = startBroker(w.nats, fmt.Sprintf("%s/nats-%d-%d", w.dir, w.n, round))
	w.tenant.ask("mark", nil)
	w.startRollcall("start", w.rarely())
	all := w.await(ctx, func(m *mark) bool { return m.Agents == w.n })
	cpu, rate := w.rollcall.cpu(), w.rateUntil(all)
	w.add("start.rate", rate)
	w.add("start.cpu", micros(cpu)/float64(w.n))
	w.startRollcall("start", nil)
	m := w.wholeSweep(ctx)
	w.alone(func() {
		_, w.states = w.broker.readStates(ctx, true)
		if len(w.states) != w.n {
			must(fmt.Errorf("the stream has %d states", len(w.states)))
		}
		w.floor = newFloor(ctx, w.broker, m.Watermark.AppendJSON(nil))
		least := w.batches(ctx, "floor.new")
		w.say("first start: %.0f events/s, batches %.0f", rate, least)
	})
}

// batches measures the floor of a change of everybody.
func (w *world) batches(ctx context.Context, name string) (rate float64) {
	rate, cpu := w.floor.batches(ctx, w.states)
	w.add(name+".rate", rate)
	w.add(name+".cpu", cpu)
	return rate
}

// rateUntil is how many events a second there were, one an agent, from the first answer since the
// tenant's mark.
func (w *world) rateUntil(m mark) float64 {
	var first int64
	w.tenant.ask("first", &first)
	return float64(w.n) / m.at.Sub(time.Unix(0, first)).Seconds()
}

// static measures sweeps that find nothing changed.
func (w *world) static(ctx context.Context) { w.polling(ctx, "static") }

func (w *world) drift(ctx context.Context) {
	w.tenant.ask("drift?n=1", nil)
	w.polling(ctx, "drift")
	w.tenant.ask("drift?n=0", nil)
}

// polling measures sweeps that find no change worth an event: rollcall's, and the client's.
func (w *world) polling(ctx context.Context, mode string) {
	for range w.rounds {
		w.sweep(ctx)
		before := w.rollcall.cpu()
		var walls []float64
		for range w.sweeps {
			m := w.await(ctx, (*mark).complete)
			walls = append(walls, millis(m.took()))
		}
		cpu := millis(w.rollcall.cpu()-before) / float64(w.sweeps)
		w.add(mode+".cpu", cpu)
		w.add(mode+".wall", median(walls))
		w.say("%s: a sweep takes %.2f ms of CPU and %.1f ms", mode, cpu, median(walls))
		w.alone(func() {
			cpu, walls := w.client.sweeps(w.sweeps, w.interval)
			w.add(mode+".client.cpu", cpu)
			w.add(mode+".client.wall", median(walls))
		})
	}
	w.noteMemory(mode)
}

// churn measures how long changes take: at the pace at which everything else is measured, and at
// one at which the rate limit makes a sweep last two seconds, where it would be shorter.
func (w *world) churn(ctx context.Context) {
	const paced = 2 * time.Second
	lasted := w.latencies(ctx, "churn")
	if w.quick || w.n < 2_000 || lasted > paced {
		return
	}
	limit := strconv.Itoa(w.n / pageSize / int(paced/time.Second))
	w.startRollcall("churn", settings{"ROLLCALL_RATE_LIMIT": limit})
	w.latencies(ctx, "paced")
	w.startRollcall("paced", nil)
}

// arrivals are when events have arrived, by agent.
type arrivals struct {
	mu sync.Mutex
	at map[int64][]time.Time
	n  int
}

func (a *arrivals) add(m *nats.Msg) {
	now := time.Now()
	id, err := agentOf(m.Subject)
	if err != nil {
		return // match misses it
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at[id] = append(a.at[id], now)
	a.n++
}

// take returns the first n events, or as many as have come after a while: a subscription's messages
// may be behind those of another.
func (a *arrivals) take(n int) map[int64][]time.Time {
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		a.mu.Lock()
		if a.n >= n || time.Since(began) > 10*time.Second {
			defer a.mu.Unlock()
			at := a.at
			a.at, a.n = make(map[int64][]time.Time), 0
			return at
		}
		a.mu.Unlock()
	}
}

// latencies measures how long changes take, and returns how long the last sweep lasted.
func (w *world) latencies(ctx context.Context, mode string) (lasted time.Duration) {
	arrived := &arrivals{at: make(map[int64][]time.Time)}
	for _, kind := range []schemas.Kind{schemas.KindOnline, schemas.KindOffline} {
		sub := w.broker.subscribe(schemas.StoredPrefix+string(kind)+".>", arrived.add)
		defer func() { _ = sub.Unsubscribe() }()
	}
	rate, flips := 25, 200 // a second, in all
	if w.quick {
		rate, flips = 50, 10
	}
	for range w.rounds {
		w.alone(func() {
			took := w.floor.singles(ctx, w.states, flips)
			w.add(mode+".commit", median(took))
			w.add(mode+".commit.p99", percentile(took, 0.99))
		})
		w.sweep(ctx)
		for range flips {
			began := time.Now()
			w.tenant.ask("flip?n=1", nil)
			time.Sleep(time.Until(began.Add(time.Second / time.Duration(rate))))
		}
		m := w.wholeSweep(ctx) // everything has been read and published
		lasted = m.took()
		var news []shown
		w.tenant.ask("shown", &news)
		delays := get(match(news, arrived.take(len(news))))
		p50, p99 := percentile(delays, 0.50), percentile(delays, 0.99)
		w.add(mode+".p50", p50)
		w.add(mode+".p99", p99)
		w.say("%s: p50 %.2f ms, p99 %.2f ms", mode, p50, p99)
	}
	w.noteMemory(mode)
	return lasted
}

// match is how many milliseconds after an answer that showed an agent's flip its event arrived.
func match(news []shown, arrived map[int64][]time.Time) ([]float64, error) {
	var delays []float64
	for _, s := range news {
		at := arrived[s.Agent]
		if len(at) == 0 {
			return nil, fmt.Errorf("agent %d has flipped, and there was no event", s.Agent)
		}
		delays = append(delays, millis(at[0].Sub(time.Unix(0, s.At))))
		arrived[s.Agent] = at[1:]
	}
	for agent, at := range arrived {
		if len(at) > 0 {
			return nil, fmt.Errorf("agent %d has not flipped, and there was an event", agent)
		}
	}
	return delays, nil
}

// mass measures what happens when everyone flips at once.
func (w *world) mass(ctx context.Context) {
	w.startRollcall("end", w.rarely())
	for range w.rounds {
		w.sweep(ctx)
		w.tenant.ask("flipall", nil)
		w.tenant.ask("mark", nil)
		var online int
		w.tenant.ask("online", &online)
		before := w.rollcall.cpu()
		last := w.await(ctx, func(m *mark) bool { return m.Online == online && m.complete() })
		cpu, rate := micros(w.rollcall.cpu()-before)/float64(w.n), w.rateUntil(last)
		w.add("mass.rate", rate)
		w.add("mass.cpu", cpu) // the reading of the page included
		w.say("mass: %.0f events/s, %.1f µs of CPU an event", rate, cpu)
		w.alone(func() {
			_, w.states = w.broker.readStates(ctx, true)
			w.batches(ctx, "floor.mass")
		})
	}
	w.startRollcall("mass", nil)
}

// restart measures how long it takes from the end of one process until the next one's first
// complete sweep.
func (w *world) restart(ctx context.Context) {
	lease := settings{"ROLLCALL_LEASE_TTL": leaseTTL.String()}
	w.startRollcall("end", lease)
	w.sweep(ctx)
	for range w.rounds {
		w.restartOnce(ctx, "term", syscall.SIGTERM, lease)
		if !w.quick {
			w.restartOnce(ctx, "kill", syscall.SIGKILL, lease)
		}
	}
	w.noteMemory("restart")
}

func (w *world) restartOnce(ctx context.Context, name string, end syscall.Signal, more settings) {
	killed := time.Now()
	w.rollcall.end(end)
	w.rollcall = nil
	var events atomic.Int64 // those that had come when the watermark behind them came
	subject := fmt.Sprintf("%s*.%d.*.*", schemas.StoredPrefix, tenantID)
	sub := w.broker.subscribe(subject, func(*nats.Msg) { events.Add(1) })
	var flipped []int64
	w.tenant.ask(fmt.Sprintf("flip?n=%d", min(10, w.n)), &flipped)
	w.broker.drain()
	began := w.startRollcall("", more)
	if end == syscall.SIGKILL {
		began = killed
	}
	first := w.sweepAfter(ctx, began)
	must(w.broker.nc.Flush())
	must(sub.Unsubscribe())
	took := millis(first.at.Sub(began))
	w.add("restart."+name, took)
	w.add("restart."+name+".events", float64(int(events.Load())-len(flipped)))
	w.say("restart after %v: %.0f ms, %d events", end, took, events.Load())
	w.tenant.ask("shown", nil)
	w.alone(func() {
		took, _ := w.broker.readStates(ctx, false)
		_, walls := w.client.sweeps(1, 0)
		w.add("restart."+name+".floor", millis(took)+walls[0])
	})
}
