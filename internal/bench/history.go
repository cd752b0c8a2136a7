package main

import (
	"context"
	"fmt"
	"math"
	"os/exec"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/schemas"
)

const historyMode = "history" // a day of events, and what is asked about it

// questions are the commands that are measured: from has the beginning of the day, at its middle.
var questions = []struct {
	name string
	args func(from, at string, agent int64) []string
}{
	{"roster --at", func(_, at string, _ int64) []string { return []string{"roster", "--at", at} }},
	{"report --by agent", func(from, _ string, _ int64) []string {
		return []string{"report", "--from", from}
	}},
	{"report --by hour", func(from, _ string, _ int64) []string {
		return []string{"report", "--from", from, "--by", "hour"}
	}},
	{"history", func(from, _ string, agent int64) []string {
		return []string{"history", fmt.Sprint(agent), "--from", from}
	}},
}

// history has every agent flip twenty times, which is a long day, and asks about it.
func (w *world) history(ctx context.Context) {
	flips := 20
	if w.quick {
		flips = 2
	}
	w.startRollcall("end", nil)
	began := w.wholeSweep(ctx).CompletedAt
	middle := began
	for i := range flips {
		w.tenant.ask("flipall", nil)
		var online int
		w.tenant.ask("online", &online)
		m := w.await(ctx, func(m *mark) bool {
			return m.Online == online && m.complete() && m.StartedAt.After(middle)
		})
		if i < flips/2 {
			middle = m.CompletedAt
		}
	}
	w.stopRollcall("history")
	from, at := began.Format(time.RFC3339Nano), middle.Format(time.RFC3339Nano)
	for range w.rounds {
		w.add("history.states", millis(w.read(ctx, jetstream.DeliverLastPerSubjectPolicy,
			schemas.StateFilter(tenantID))))
		w.add("history.events", millis(w.read(ctx, jetstream.DeliverAllPolicy,
			schemas.EventFilters(tenantID)...)))
		for _, q := range questions {
			w.ask(ctx, q.name, q.args(from, at, w.states[0].agent)...)
		}
	}
	w.startRollcall("history", nil)
}

// ask runs a command of rollcall's, and measures its time and its memory.
func (w *world) ask(ctx context.Context, name string, args ...string) {
	cmd := exec.CommandContext(ctx, w.bench.rollcall, args...)
	cmd.Env = []string{"ROLLCALL_NATS_URL=" + w.broker.url}
	began := time.Now()
	out, err := cmd.Output()
	took := time.Since(began)
	// Since rollcall does not run, the last seconds are not trusted, which is no mistake.
	if len(out) == 0 {
		must(fmt.Errorf("%s has no answer: %w", name, err))
	}
	used := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	w.add(name, millis(took))
	w.add(name+".cpu", millis(cpu))
	w.add(name+".memory", float64(used.Maxrss)*1024)
	w.say("%s: %v, %v of CPU, %.1f MB, %d bytes of answer", name, took, cpu,
		float64(used.Maxrss)*1024/1e6, len(out))
}

// read reads messages and throws them away.
func (w *world) read(
	ctx context.Context, from jetstream.DeliverPolicy, filters ...string,
) time.Duration {
	runtime.GC()
	began := time.Now()
	c := get(w.broker.js.OrderedConsumer(ctx, schemas.Stream, jetstream.OrderedConsumerConfig{
		DeliverPolicy: from, FilterSubjects: filters}))
	messages := get(c.Messages(jetstream.PullMaxMessages(10_000)))
	defer messages.Stop()
	for n := 1; ; n++ {
		m := get(messages.Next(jetstream.NextContext(ctx)))
		if get(m.Metadata()).NumPending == 0 {
			took := time.Since(began)
			w.say("%d messages in %v", n, took)
			return took
		}
	}
}

func (s size) history() {
	for _, q := range questions {
		floor := s.median("history.events")
		if q.name == "history" {
			floor = math.NaN() // it reads a few
		}
		s.row(q.name+", 20 events an agent", "ms", s.median(q.name), floor, nil)
		s.row(q.name+", its CPU", "ms", s.median(q.name+".cpu"), math.NaN(), nil)
		if m := s.of(q.name + ".memory"); len(m) > 0 {
			s.row(q.name+", peak memory", "MB", slices.Max(m)/1e6, math.NaN(), nil)
		}
	}
}
