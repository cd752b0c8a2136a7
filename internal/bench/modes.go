package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rollcall-events/rollcall/schemas"
)

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
	if _, err := w.startRollcall(settings{"ROLLCALL_POLL_INTERVAL": w.rarely().String()}); err != nil {
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
	if err := w.stopRollcall("start"); err != nil {
		return err
	}
	if _, err := w.startRollcall(nil); err != nil {
		return err
	}
	m, err := w.wholeSweep(ctx)
	if err != nil {
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

// rateUntil is how many events a second there were, one an agent, from the first answer since the
// tenant's mark.
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

// polling measures sweeps that find no change worth an event: rollcall's, the client's, and what
// the broker has of them.
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
	return w.profile(ctx, mode, profileSeconds, func(ctx context.Context) error {
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

func medianMS(d []time.Duration) float64 { return median(inMS(d)) }

func inMS(d []time.Duration) []float64 {
	v := make([]float64, len(d))
	for i := range d {
		v[i] = ms(d[i])
	}
	return v
}

// churn measures how long changes take: at the pace at which everything else is measured, and at
// one at which the rate limit makes a sweep last two seconds, where it would be shorter.
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
			w.add(mode+".commit.p99", percentile(inMS(took), 0.99))
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
	err = w.profile(ctx, mode, profileSeconds, func(context.Context) error {
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

// mass measures what happens when everyone flips at once.
func (w *world) mass(ctx context.Context) error {
	if err := w.stopRollcall("end"); err != nil {
		return err
	}
	if _, err := w.startRollcall(settings{"ROLLCALL_POLL_INTERVAL": w.rarely().String()}); err != nil {
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
		err := w.profile(ctx, "mass", profileSeconds+int(w.rarely().Seconds()), func(ctx context.Context) error {
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

// massChange flips every agent, and returns how many events a second that made, and how many
// microseconds of rollcall's CPU each took, the reading of its page included.
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

// restart measures how long it takes from the end of one process until the next one's first
// complete sweep.
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
