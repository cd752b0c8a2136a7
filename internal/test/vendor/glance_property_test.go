//go:build unix

package vendor

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/rollcall-events/rollcall/diff"
	"github.com/rollcall-events/rollcall/internal/listing"
	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
	"github.com/rollcall-events/rollcall/internal/test/sweeptest"
	"github.com/rollcall-events/rollcall/poller"
	"github.com/rollcall-events/rollcall/poller/isdp"
	"github.com/rollcall-events/rollcall/schemas"
)

// A plot is ten minutes of a tenant that is polled with glances, on virtual time.
type plot struct {
	seed        uint64
	agents      int
	online      float64 // the share of them
	size        int     // of a page
	concurrency int
	flips       time.Duration // one in this time, on average; 0: none
	moves       time.Duration // agents leave, return and join; 0: none
	delay       time.Duration // of answers, at most
	lag         time.Duration // of the filter; 0: none
	fresh       bool          // its rows say what is true now
	tear        float64       // the share of pages that lack rows, of either kind
	fail        float64       // the share of requests that fail, of either kind
	totals      float64       // the share of pages of glances whose total lies
	removeAfter int
}

func drawPlot(t *rapid.T) plot {
	seconds := func(name string, of ...int) time.Duration {
		return time.Duration(rapid.SampledFrom(of).Draw(t, name)) * time.Second
	}
	share := func(name string) float64 {
		return rapid.SampledFrom([]float64{0, 0, 0.05, 0.3}).Draw(t, name)
	}
	return plot{
		seed:        rapid.Uint64().Draw(t, "seed"),
		agents:      rapid.IntRange(20, 90).Draw(t, "agents"),
		online:      rapid.SampledFrom([]float64{0, 0.1, 0.15, 0.3, 0.6}).Draw(t, "online"),
		size:        rapid.IntRange(2, 5).Draw(t, "size"),
		concurrency: rapid.IntRange(1, 4).Draw(t, "concurrency"),
		flips:       seconds("flips", 0, 1, 5, 20),
		moves:       seconds("moves", 0, 0, 3, 20),
		delay:       seconds("delay", 0, 0, 2),
		lag:         seconds("lag", 0, 0, 3, 10),
		fresh:       rapid.Bool().Draw(t, "fresh"),
		tear:        share("tear"), fail: share("fail"), totals: share("totals"),
		removeAfter: rapid.IntRange(1, 3).Draw(t, "removeAfter"),
	}
}

// A look is a page as the vendor's package read it, before anybody judged it.
type look struct {
	*listing.Page
	glance bool
}

// A looker is a source that remembers what it has read.
type looker struct {
	*isdp.Client
	mu    sync.Mutex
	looks []look
}

func (l *looker) Read(ctx context.Context,
	r listing.Request) (*listing.Page, *listing.Error) {
	p, err := l.Client.Read(ctx, r)
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.looks = append(l.looks, look{p, r.Online})
	}
	return p, err
}

// seen returns what was read so far.
func (l *looker) seen() []look {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.looks)
}

// A drama is a plot being played, and what is wrong with it.
type drama struct {
	plot
	sim     *isdpsim.Tenant
	ids     []int64
	source  *looker
	roster  *diff.Roster
	random  *rand.Rand
	sweep   uint64
	last    map[int64]*schemas.Event
	sweeps  []listing.Verdict // complete ones
	glanced time.Time
	events  int
	glances int // complete ones

	mu      sync.Mutex
	online  map[int64]bool // in truth; false: not listed as well
	listed  map[int64]bool
	changed map[int64]time.Time // when either changed

	wrong []string
}

func (d *drama) fail(format string, args ...any) {
	d.wrong = append(d.wrong, fmt.Sprintf("sweep %d: ", d.sweep)+fmt.Sprintf(format, args...))
}

// With glances and whatever a vendor may do to them: every event is what some page showed; nobody
// goes offline without a row that says so, or complete sweeps that missed the agent; nobody counts
// as missing whom the last sweep, or a glance beside it, showed; who has signed out before a glance
// is said to be offline when that is over; and after two complete sweeps all that they had the time
// to see is published.
func TestGlanceProperties(t *testing.T) {
	events, glances := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		p := drawPlot(rt)
		var d *drama
		synctest.Test(t, func(t *testing.T) { d = p.run(t) })
		events, glances = events+d.events, glances+d.glances
		if len(d.wrong) > 0 {
			rt.Fatalf("%+v: %d things are wrong:\n%s", p, len(d.wrong),
				d.wrong[:min(5, len(d.wrong))])
		}
	})
	t.Logf("%d events, %d glances", events, glances)
}

func (p plot) run(t *testing.T) *drama {
	const interval = 5 * time.Second
	d := &drama{plot: p, random: rand.New(rand.NewPCG(p.seed, 1)),
		sim:  isdpsim.New(isdpsim.Config{Agents: p.agents, Seed: p.seed, TokenTTL: time.Hour}),
		last: make(map[int64]*schemas.Event), online: make(map[int64]bool),
		listed: make(map[int64]bool), changed: make(map[int64]time.Time)}
	d.ids = d.sim.IDs()
	for _, id := range d.ids {
		d.online[id], d.listed[id] = d.random.Float64() < p.online, true
		d.sim.SetOnline(id, d.online[id])
	}
	time.Sleep(p.lag + time.Second) // what lags does not show what was before this
	d.sim.SetFault(p.faults())
	client, err := isdp.New(isdp.Config{BaseURL: "http://localhost", PageSize: p.size, RateLimit: 1,
		ClientID: isdpsim.DemoClientID, ClientSecret: isdpsim.DemoClientSecret,
		Username: isdpsim.DemoUsername, Password: isdpsim.DemoPassword,
		Transport: sweeptest.Direct{Vendor: d.sim}})
	if err != nil {
		t.Fatal(err)
	}
	d.source = &looker{Client: client}
	poll, err := poller.New(poller.Config{Concurrency: p.concurrency, GlanceAfter: interval},
		d.source)
	if err != nil {
		t.Fatal(err)
	}
	d.roster = diff.NewRoster(diff.Rules{RemoveAfter: p.removeAfter, MaxMissing: 1})

	ctx, stop := context.WithTimeout(t.Context(), 10*time.Minute)
	defer stop()
	var acting sync.WaitGroup
	acting.Go(func() { d.act(ctx, p.flips, d.flip) })
	acting.Go(func() { d.act(ctx, p.moves, d.move) })
	for ctx.Err() == nil {
		begun := time.Now()
		d.sweep++
		first := len(d.source.seen()) // nothing is being read between two sweeps
		v := poll.Sweep(ctx, d.page)
		if v.Complete {
			d.complete(&v, first)
		}
		select {
		case <-time.After(interval - time.Since(begun)):
		case <-ctx.Done():
		}
	}
	acting.Wait()
	return d
}

// faults are the vendor's.
func (p plot) faults() isdpsim.Hook {
	some := func(n uint64, share float64, h isdpsim.Hook) isdpsim.Hook {
		return isdpsim.Sometimes(p.seed+n, share, h)
	}
	hooks := []isdpsim.Hook{
		some(1, p.fail, isdpsim.OnAgents(isdpsim.Status(500))),
		some(2, p.tear, isdpsim.OnAgents(isdpsim.DropRows(0, 2))),
	}
	if p.lag > 0 {
		hooks = append(hooks, isdpsim.OnFilter(isdpsim.FilterLags(p.lag, p.fresh)))
	}
	hooks = append(hooks, some(3, p.totals, isdpsim.OnFilter(isdpsim.TotalCount(1))),
		some(4, p.totals, isdpsim.OnFilter(isdpsim.TotalCountOff(3))))
	if p.delay > 0 {
		hooks = append(hooks, func(r isdpsim.Request) isdpsim.Fault {
			half := rand.New(rand.NewPCG(p.seed, uint64(r.Number))).Int64N(int64(p.delay)) / 2
			return isdpsim.All(isdpsim.Delay(time.Duration(half)),
				isdpsim.Late(time.Duration(half)))
		})
	}
	return isdpsim.Hooks(hooks...)
}

// act does something again and again.
func (d *drama) act(ctx context.Context, every time.Duration, do func()) {
	for every > 0 {
		d.mu.Lock()
		wait := time.Duration(d.random.ExpFloat64() * float64(every))
		d.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		d.mu.Lock()
		do()
		d.mu.Unlock()
	}
}

func (d *drama) flip() {
	id := d.ids[d.random.IntN(len(d.ids))]
	if d.listed[id] {
		d.online[id] = !d.online[id]
		d.sim.SetOnline(id, d.online[id])
		d.changed[id] = time.Now()
	}
}

func (d *drama) move() {
	if d.random.IntN(4) == 0 {
		id := d.sim.AddAgent()
		d.sim.SetOnline(id, true)
		d.ids = append(d.ids, id)
		d.online[id], d.listed[id], d.changed[id] = true, true, time.Now()
		return
	}
	id := d.ids[d.random.IntN(len(d.ids))]
	if d.listed[id] = !d.listed[id]; d.listed[id] {
		d.sim.Restore(id)
	} else {
		d.sim.Remove(id)
	}
	d.changed[id] = time.Now()
}

// page observes a page and publishes at once.
func (d *drama) page(p *listing.Page) {
	d.roster.Observe(d.sweep, p)
	if at := p.GlancedAt; !at.IsZero() {
		d.glances++
		if !at.After(d.glanced) || at.After(p.Read) {
			d.fail("a glance is over that began at %v, after one that began at %v", at, d.glanced)
		}
		d.glanced = at
		d.roster.Glanced(d.sweep, at)
	}
	d.publish()
	if !p.GlancedAt.IsZero() && d.concurrency == 1 && d.moves == 0 && d.tear == 0 && d.lag == 0 {
		d.signedOutBefore(p.GlancedAt)
	}
}

// signedOutBefore checks that everybody who had signed out before a glance began that is over is
// said to be offline, where every agent stays on its page and nobody lies.
func (d *drama) signedOutBefore(began time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, id := range d.ids {
		e := d.last[id]
		if !d.online[id] && d.changed[id].Before(began) && e != nil && e.Data.Online {
			d.fail("agent %d signed out at %v, before the glance of %v, and %v is published", id,
				d.changed[id], began, e)
		}
	}
}

func (d *drama) publish() {
	for !d.roster.Idle() {
		c := d.roster.Next(d.sweep, 1000, func(*schemas.Event) bool { return true })
		d.roster.Committed(c)
		for i := range c.Events {
			e := &c.Events[i]
			d.judge(e, d.last[e.Data.Agent.AgentID])
			d.last[e.Data.Agent.AgentID] = e
			d.events++
		}
	}
}

// judge holds an event against the pages that were read.
func (d *drama) judge(e, before *schemas.Event) {
	id, data := e.Data.Agent.AgentID, e.Data
	rev, was := 0, false
	if before != nil {
		rev, was = int(before.Data.Revision), before.Data.Online
	}
	if int(data.Revision) != rev+1 || (e.Type == schemas.Online) != (data.Online && !was) ||
		(e.Type == schemas.Offline) != (!data.Online && was) {
		d.fail("agent %d: %s, revision %d after %d, online %t after %t", id, e.Type,
			data.Revision, rev, data.Online, was)
	}
	if data.Reason == schemas.Removed && data.Agent.There() {
		return // see complete
	}
	text := string(data.Agent.AppendJSON(nil))
	if !slices.ContainsFunc(d.source.seen(), func(l look) bool {
		return schemas.CeilTime(l.Read).Equal(e.Time) &&
			!schemas.FloorTime(l.Sent).Before(data.NotBefore) &&
			slices.ContainsFunc(shownBy(l, id), func(a schemas.Agent) bool {
				return a.Online() == data.Online && string(a.AppendJSON(nil)) == text
			})
	}) {
		d.fail("agent %d: no page showed it at %v as revision %d has it, online %t", id, e.Time,
			data.Revision, data.Online)
	}
}

// shownBy are the rows of an agent on a page.
func shownBy(l look, id int64) (rows []schemas.Agent) {
	for _, a := range l.Agents {
		if a.AgentID() == id {
			rows = append(rows, a.Unpack())
		}
	}
	return rows
}

// complete ends a complete sweep, whose first page is given, and looks at what is published.
func (d *drama) complete(v *listing.Verdict, first int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	seen := make(map[int64]bool)
	for _, l := range d.source.seen()[first:] {
		for _, a := range l.Agents {
			seen[a.AgentID()] = true
		}
	}
	unseen, there := 0, make(map[int64]bool)
	for id, e := range d.last {
		there[id] = e.Data.Reason != schemas.Removed
		if there[id] && !seen[id] {
			unseen++
		}
	}
	absence := d.roster.Complete(d.sweep, v, v.EndedAt.Add(time.Minute))
	d.publish()
	removed := 0
	for id, was := range there {
		if e := d.last[id]; was && e.Data.Reason == schemas.Removed {
			if removed++; seen[id] {
				d.fail("agent %d is removed, and the sweep had seen it", id)
			}
		}
	}
	if absence.Missing+removed != unseen {
		d.fail("%d missing and %d removed, and %d were not seen", absence.Missing, removed, unseen)
	}

	d.sweeps = append(d.sweeps, *v)
	before := func(n int) (began time.Time, ok bool) {
		if ok = len(d.sweeps) >= n; ok {
			began = d.sweeps[len(d.sweeps)-n].StartedAt.Add(-d.lag)
		}
		return began, ok
	}
	lasted, enough := before(2)
	longer, enoughForRemoval := before(d.removeAfter + 1)
	for _, id := range d.ids {
		e, at := d.last[id], d.changed[id]
		switch {
		case d.listed[id] && seen[id] && enough && at.Before(lasted): // else it slipped through
			if e == nil || e.Data.Reason == schemas.Removed || e.Data.Online != d.online[id] {
				d.fail("agent %d has been online %t since %v, and %v is published", id,
					d.online[id], at, e)
			}
		case !d.listed[id] && enoughForRemoval && at.Before(longer):
			if e != nil && e.Data.Reason != schemas.Removed {
				d.fail("agent %d has been away since %v, and %v is published", id, at, e)
			}
		}
	}
}
