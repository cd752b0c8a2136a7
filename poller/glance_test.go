package poller_test

import (
	"cmp"
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-events/rollcall/internal/listing"
	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/internal/tenantsim"
	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
)

// A shift is what happens in a tenant while it is polled: who signs in and out when, and when the
// poller finds out.
type shift struct {
	agents, online int
	size           int           // of a page
	rate           float64       // requests a second
	every          time.Duration // flips, on average
	burst          int           // at a time
	length         time.Duration
	glances        bool
	hook           isdpsim.Hook
	lag            time.Duration // of the filter by who is online
	fresh          bool          // … whose rows say what is true now all the same
	ignored        bool          // the filter is
}

// lagging is a filter that goes by another tenant, where everything happens later.
func lagging(sim, later *isdpsim.Tenant, fresh bool, online int) isdpsim.Hook {
	return func(r isdpsim.Request) isdpsim.Fault {
		if r.Endpoint != isdpsim.AgentsEndpoint || r.Online != 1 {
			return nil
		}
		return func(p *isdpsim.Plan) {
			f := later.Find(tenantsim.Query{Page: r.Page, Size: r.PageSize, Type: -1,
				Online: online})
			for i := range f.Rows {
				if fresh {
					f.Rows[i].JSON, _ = sim.Agent(f.Rows[i].ID)
				}
			}
			p.Rows = append(p.Rows, func([]isdpsim.Row) []isdpsim.Row { return f.Rows })
			p.Total = append(p.Total, func(int) int { return f.Total })
		}
	}
}

// A found is what came of it.
type found struct {
	in, out []time.Duration // from the sign-in, or sign-out, to the page that shows it
	// states that pages say and the tenant has not had since the page was asked for
	false_   int
	sweeps   []time.Duration // complete ones
	broken   int             // incomplete ones
	requests int
	glances  int // requests for those who are online
	glanced  time.Time
}

func mean(ds ...[]time.Duration) (m time.Duration) {
	n := 0
	for _, d := range ds {
		for _, v := range d {
			m += v
			n++
		}
	}
	if n == 0 {
		return 0
	}
	return m / time.Duration(n)
}

func (s shift) run(t *testing.T) (f found) {
	t.Helper()
	const interval = 5 * time.Second
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(1, 2))
		sim := isdpsim.New(isdpsim.Config{Agents: s.agents})
		ids := sim.IDs()
		for i, id := range random.Perm(len(ids)) {
			sim.SetOnline(ids[id], i < s.online)
		}
		later := isdpsim.New(isdpsim.Config{Agents: s.agents})
		for _, id := range ids {
			row, _ := sim.Agent(id)
			later.Replace(id, row)
		}
		hooks := []isdpsim.Hook{isdpsim.OnAgents(isdpsim.Delay(50 * time.Millisecond))}
		if s.lag > 0 {
			hooks = append(hooks, lagging(sim, later, s.fresh, 1))
		}
		if s.ignored {
			hooks = append(hooks, lagging(sim, sim, true, -1))
		}
		if s.hook != nil {
			hooks = append(hooks, s.hook)
		}
		sim.SetFault(isdpsim.Hooks(hooks...))
		p := direct(t, sim, func(c *settings) {
			c.PageSize, c.RateLimit = s.size, s.rate
			if s.glances {
				c.GlanceAfter = interval
			}
		})
		var mu sync.Mutex
		is, known := make(map[int64]bool), make(map[int64]bool)
		flipped := make(map[int64]time.Time) // not found yet
		last := make(map[int64]time.Time)
		for _, id := range ids {
			row, _ := sim.Agent(id)
			a, _, err := packed.Decode(row, 0)
			if err != nil {
				t.Fatal(err)
			}
			is[id] = a.Online()
		}
		ctx, stop := context.WithTimeout(t.Context(), s.length)
		defer stop()
		end, _ := ctx.Deadline()
		var flips sync.WaitGroup
		flips.Go(func() {
			there := s.online
			for {
				select {
				case <-ctx.Done():
					return
				case <-time.After(time.Duration(random.ExpFloat64() * float64(s.every) * float64(
					s.burst))):
				}
				mu.Lock()
				for range s.burst {
					in := random.Float64() < 0.5+5*float64(s.online-there)/float64(s.agents)
					in = in && there < s.agents || there == 0
					id := ids[random.IntN(len(ids))]
					for is[id] == in {
						id = ids[random.IntN(len(ids))]
					}
					sim.SetOnline(id, in)
					time.AfterFunc(s.lag, func() { later.SetOnline(id, in) })
					if is[id] = in; in {
						there++
					} else {
						there--
					}
					last[id] = time.Now()
					if _, pending := flipped[id]; pending || known[id] == in {
						delete(flipped, id)
					} else {
						flipped[id] = time.Now()
					}
				}
				mu.Unlock()
			}
		})
		for n := 0; ctx.Err() == nil; n++ {
			began := time.Now()
			v := p.Sweep(ctx, func(page *listing.Page) {
				mu.Lock()
				defer mu.Unlock()
				if !page.GlancedAt.IsZero() {
					f.glanced = page.GlancedAt
				}
				for _, a := range page.Agents {
					id, on := a.AgentID(), a.Online()
					was, seen := known[id]
					if known[id] = on; !seen || was == on {
						continue
					}
					if on != is[id] && last[id].Before(page.Sent) {
						f.false_++
					}
					if at, ok := flipped[id]; ok && on == is[id] {
						delete(flipped, id)
						if on {
							f.in = append(f.in, time.Since(at))
						} else {
							f.out = append(f.out, time.Since(at))
						}
					}
				}
			})
			switch {
			case time.Until(end) < 2*time.Minute: // it may have had too little time
			case v.Complete:
				f.sweeps = append(f.sweeps, v.EndedAt.Sub(v.StartedAt))
			default:
				f.broken++
				t.Log(v.Err)
			}
			select {
			case <-time.After(interval - time.Since(began)):
			case <-ctx.Done():
			}
		}
		flips.Wait()
		for _, r := range sim.Requests() {
			if f.requests++; r.Endpoint == isdpsim.AgentsEndpoint && r.Online == 1 {
				f.glances++
			}
		}
	})
	return f
}

// Changes are found in half the time, with the same requests, and sweeps go on. Pages are a tenth
// of the vendor's, and so are the tenants: that is the same in requests, and costs less to decode.
func TestGlances(t *testing.T) {
	for name, tc := range map[string]struct {
		shift
		mean time.Duration
	}{
		"340 agents": {shift{agents: 34, online: 5, rate: 1, every: 5 * time.Second},
			2600 * time.Millisecond},
		"2,000 agents": {shift{agents: 200, online: 30, rate: 1, every: 5 * time.Second},
			10 * time.Second},
		"10,000 agents": {shift{agents: 1000, online: 150, rate: 10, every: time.Second,
			length: 15 * time.Minute}, 5 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			s := tc.shift
			s.burst, s.size, s.length = 1, 5, cmp.Or(s.length, 30*time.Minute)
			alone := s.run(t)
			s.glances = true
			f := s.run(t)
			t.Logf("alone: mean %v (in %v, out %v) of %d, sweep %v", mean(alone.in, alone.out),
				mean(alone.in), mean(alone.out),
				len(alone.in)+len(alone.out), mean(alone.sweeps))
			t.Logf("glances: mean %v (in %v, out %v) of %d, sweep %v, %d of %d requests",
				mean(f.in, f.out), mean(f.in), mean(f.out),
				len(f.in)+len(f.out), mean(f.sweeps), f.glances, f.requests)
			if m := mean(f.in, f.out); m > tc.mean {
				t.Errorf("a change was found after %v on average, want at most %v", m, tc.mean)
			}
			if mean(f.sweeps) > 3*mean(alone.sweeps) {
				t.Errorf("a sweep took %v, and %v alone", mean(f.sweeps), mean(alone.sweeps))
			}
			if f.false_ > 0 || f.broken > 0 {
				t.Errorf("%d false states, %d incomplete sweeps", f.false_, f.broken)
			}
			if f.requests > alone.requests+alone.requests/50 || 2*f.glances > f.requests+2 {
				t.Errorf("%d of %d requests went to glances, and there were %d without", f.glances,
					f.requests, alone.requests)
			}
		})
	}
}

// Whatever the tenant does, glances are no worse than sweeps alone by more than a tenth.
func TestGlancesNeverWorse(t *testing.T) {
	for name, s := range map[string]shift{
		"many flips":      {online: 5, every: 100 * time.Millisecond},
		"bursts":          {online: 5, every: time.Second, burst: 50},
		"a third online":  {online: 11, every: 5 * time.Second},
		"most are online": {online: 20, every: time.Second},
		"everybody":       {online: 34, every: 10 * time.Second},
		"next to nobody":  {online: 1, every: 10 * time.Second},
		"a quick vendor":  {online: 5, every: time.Second, rate: 2},
		"the filter lags": {online: 5, every: 2 * time.Second, lag: 10 * time.Second},
		"… with true rows": {online: 5, every: 2 * time.Second, lag: 10 * time.Second,
			fresh: true},
		"the filter is ignored": {online: 5, every: 2 * time.Second, ignored: true},
		"the filter is refused": {online: 5, every: 2 * time.Second,
			hook: filtered(isdpsim.StateCode("400", "no"))},
		"the filter fails": {online: 5, every: 2 * time.Second,
			hook: filtered(isdpsim.Status(500))},
		"the filter is slow": {online: 5, every: 2 * time.Second,
			hook: filtered(isdpsim.Delay(20 * time.Second))},
		"nobody is online by it": {online: 5, every: 2 * time.Second,
			hook: filtered(isdpsim.EmptyListing())},
	} {
		t.Run(name, func(t *testing.T) {
			s.agents, s.size, s.rate, s.burst = cmp.Or(s.agents, 34), cmp.Or(s.size, 5),
				cmp.Or(s.rate, 1), cmp.Or(s.burst, 1)
			s.length = max(10*time.Minute, min(600*s.every, 40*time.Minute))
			alone := s.run(t)
			s.glances = true
			f := s.run(t)
			t.Logf("alone: mean %v of %d, sweep %v; glances: mean %v of %d, sweep %v, "+
				"%d of %d requests", mean(alone.in, alone.out),
				len(alone.in)+len(alone.out), mean(alone.sweeps), mean(f.in, f.out),
				len(f.in)+len(f.out), mean(f.sweeps), f.glances, f.requests)
			if a, b := mean(alone.in, alone.out), mean(f.in, f.out); b > a+a/10 {
				t.Errorf("a change was found after %v on average, and after %v with sweeps alone",
					b, a)
			}
			if mean(f.sweeps) > 3*mean(alone.sweeps) || f.broken > alone.broken {
				t.Errorf("a sweep took %v, and %v alone; %d were incomplete", mean(f.sweeps),
					mean(alone.sweeps), f.broken)
			}
			if f.false_ > 0 {
				t.Errorf("%d states that nobody was in", f.false_)
			}
		})
	}
}

// filtered is a fault of the listing of those who are online.
func filtered(f isdpsim.Fault) isdpsim.Hook {
	return func(r isdpsim.Request) isdpsim.Fault {
		if r.Endpoint != isdpsim.AgentsEndpoint || r.Online != 1 {
			return nil
		}
		return f
	}
}
