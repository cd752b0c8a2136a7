package broker

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-events/rollcall/diff"
	"github.com/rollcall-events/rollcall/internal/engine"
	"github.com/rollcall-events/rollcall/internal/listing"
	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/publisher"
	"github.com/rollcall-events/rollcall/schemas"
)

// A crowd is a tenant without HTTP, whose agents flip at random.
type crowd struct {
	// guards the agents: a sweep may read them at the very instant at which they flip
	mu     sync.Mutex
	agents []schemas.Agent
	rand   *rand.Rand
}

func newCrowd(n int) *crowd {
	c := &crowd{agents: make([]schemas.Agent, n), rand: rand.New(rand.NewPCG(3, 1))}
	name, typ := strings.Repeat("x", 400), "10" // about as large as real ones
	for i := range c.agents {
		c.agents[i] = schemas.Agent{AgentID: int64(i + 1), TenantID: 886, Type: &typ,
			AgentName: &name}
	}
	return c
}

func (c *crowd) flip(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for range n {
		a := &c.agents[c.rand.IntN(len(c.agents))]
		a.OnlineStatus = 1 - a.OnlineStatus
	}
}

func (c *crowd) online() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.agents {
		n += int(c.agents[i].OnlineStatus)
	}
	return n
}

func (c *crowd) Sweep(_ context.Context, emit func(*listing.Page)) listing.Verdict {
	c.mu.Lock()
	page := &listing.Page{Sent: time.Now()}
	for i := range c.agents {
		page.Agents = append(page.Agents, packed.Pack(&c.agents[i])) // each row is decoded anew
	}
	c.mu.Unlock()
	time.Sleep(50 * time.Millisecond)
	page.Read = time.Now()
	emit(page)
	return listing.Verdict{Complete: true, StartedAt: page.Sent, EndedAt: time.Now(),
		Agents: len(page.Agents)}
}

// An absent is a stream whose broker is away until it comes back.
type absent struct {
	back chan struct{}

	mu     sync.Mutex
	online map[int64]bool
	events int
	marks  int
}

func (a *absent) TakeOver(_ context.Context, _ func(*packed.State),
	first func(*publisher.Recovered) (w schemas.Watermark, lapsed bool),
) (*publisher.Recovered, error) {
	r := &publisher.Recovered{}
	first(r)
	return r, nil
}

func (a *absent) Late() bool { return false }

func (a *absent) Commit(ctx context.Context, b publisher.Batch) error {
	select {
	case <-a.back:
	case <-ctx.Done():
		return ctx.Err()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range b.Events {
		if a.online[e.Data.Agent.AgentID] == e.Data.Online && e.Type != schemas.Updated {
			return fmt.Errorf("agent %d is told twice to be online=%t", e.Data.Agent.AgentID,
				e.Data.Online)
		}
		a.online[e.Data.Agent.AgentID] = e.Data.Online
	}
	a.events += len(b.Events)
	a.marks++
	return nil
}

// An hour without the broker, at twenty changes a second: memory does not grow once the buffer is
// full, and in the end everybody's state is right.
func TestHourOfChurn(t *testing.T) {
	const agents, perSweep, limit = 300, 100, 2000
	synctest.Test(t, func(t *testing.T) {
		tenant := newCrowd(agents)
		log := &absent{back: make(chan struct{}), online: make(map[int64]bool)}
		out := &logs{}
		e := engine.New(engine.Config{Tenant: 886, Interval: 5 * time.Second,
			Rules: diff.Rules{
				RemoveAfter: 2, MaxMissing: 1, BufferEvents: limit,
			},
			Logger: slog.New(slog.NewTextHandler(out, nil))},
			tenant, log)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- e.Run(ctx) }()

		heap := func() float64 {
			runtime.GC()
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return float64(m.HeapAlloc) / 1e6
		}
		churn := func(d time.Duration) {
			for range d / (5 * time.Second) {
				tenant.flip(perSweep)
				time.Sleep(5 * time.Second)
			}
		}
		time.Sleep(time.Second)
		before := heap()
		churn(6 * time.Minute) // the buffer is full several times over
		full := heap()
		churn(54 * time.Minute)
		hour := heap()
		t.Logf("heap: %.1f MB at first, %.1f MB after 6 minutes, %.1f MB after an hour", before,
			full, hour)
		// Without a bound it would be ten times as much after an hour as after six minutes, and
		// thirty times the full buffer.
		if grown, allowed := hour-before, 4*max(1, full-before); grown > allowed {
			t.Errorf("the heap grew by %.1f MB in an hour, and by %.1f MB in the first 6 minutes",
				grown, full-before)
		}

		close(log.back)
		time.Sleep(time.Minute)
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if !out.has("the buffer is full") {
			t.Error("folding was not logged")
		}
		online := 0
		for _, is := range log.online {
			if is {
				online++
			}
		}
		if want := tenant.online(); online != want {
			t.Errorf("%d agents are online in the log, and %d in truth", online, want)
		}
		// flips that cancel out within the buffer make none
		if log.events < agents || log.events > 2*limit+2*agents {
			t.Errorf("%d events were published of %d changes, with room for %d", log.events,
				720*perSweep, limit)
		}
		t.Logf("%d changes, %d events in %d commits", 720*perSweep, log.events, log.marks)
	})
}
