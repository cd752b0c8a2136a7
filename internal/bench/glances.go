package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rollcall-events/rollcall/internal/tenantsim"
	"github.com/rollcall-events/rollcall/schemas"
)

// A cell is a tenant, and what happens there.
type cell struct {
	Agents   int     `json:"agents"`
	Requests float64 `json:"requests"` // a second, at the most
	Online   float64 `json:"online"`   // per cent
	Flips    float64 `json:"flips"`    // a second, on average
	Burst    int     `json:"burst"`    // how many flips at once; 1: each alone, at random
}

// targetCells are those that have a target.
const targetCells = "340:1:15:0.2 2000:1:15:0.2 10000:10:15:1"

// parseCells reads cells: agents:requests:online:flips:burst, as in a cell. 340,2000:1:15:0.2:1,50
// are four; a burst of 1 can be left out.
func parseCells(s string) (cells []cell, err error) {
	for word := range strings.FieldsSeq(s) {
		parts := strings.Split(word, ":")
		if len(parts) == 4 {
			parts = append(parts, "1")
		}
		if len(parts) != 5 {
			return nil, fmt.Errorf("-cells: %q is not agents:requests:online:flips:burst", word)
		}
		all := [][]float64{nil}
		for _, part := range parts {
			var more [][]float64
			for one := range strings.SplitSeq(part, ",") {
				v, err := strconv.ParseFloat(one, 64)
				if err != nil || !(v > 0) {
					return nil, fmt.Errorf("-cells: %q in %q is not a number above 0", one, word)
				}
				for _, before := range all {
					more = append(more, append(slices.Clone(before), v))
				}
			}
			all = more
		}
		for _, v := range all {
			cells = append(cells, cell{int(v[0]), v[1], v[2], v[3], int(v[4])})
		}
	}
	return cells, nil
}

func pages(agents float64) float64 { return math.Ceil(agents / pageSize) }

func (c cell) online() int { return int(math.Round(float64(c.Agents) * c.Online / 100)) }

// floor is half of one pass over the pages of those who are online, and one request, in seconds.
func (c cell) floor() float64 { return (pages(float64(c.online()))/2 + 1) / c.Requests }

// sweep is how long one takes at the least.
func (c cell) sweep() time.Duration {
	return time.Duration(pages(float64(c.Agents)) / c.Requests * float64(time.Second))
}

// A flip that no event has told of yet.
type flip struct {
	at     time.Time
	online bool
	counts bool // not of the time before everything had settled
}

// A poller is a rollcall on an embedded NATS server, and a plain subscriber of it.
type poller struct {
	proc
	nc *nats.Conn

	mu       sync.Mutex // guards everything below
	pending  map[int64]flip
	complete int       // sweeps
	since    time.Time // later sweeps count; zero: none does
	pace
}

func (b *bench) startPoller(dir, url, glances string, c cell) *poller {
	addr := freeAddr()
	s := vendorSettings(url)
	maps.Copy(s, settings{
		"ROLLCALL_NATS_LISTEN": addr,
		"ROLLCALL_DATA_DIR":    dir + glances,
		"ROLLCALL_HTTP_LISTEN": "off",
		"ROLLCALL_RATE_LIMIT":  fmt.Sprint(c.Requests),
		"ROLLCALL_GLANCES":     glances,
	})
	p := &poller{proc: start(b.rollcall, s), pending: make(map[int64]flip)}
	p.nc = get(nats.Connect("nats://"+addr, nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond)))
	for _, kind := range []schemas.Kind{schemas.KindOnline, schemas.KindOffline} {
		get(p.nc.Subscribe(schemas.StoredPrefix+string(kind)+".>", func(m *nats.Msg) {
			if id, err := agentOf(m.Subject); err == nil {
				p.arrived(id, kind == schemas.KindOnline, time.Now())
			}
		}))
	}
	get(p.nc.Subscribe(schemas.WatermarkSubject(tenantID), func(m *nats.Msg) {
		var w mark
		if json.Unmarshal(m.Data, &w.Watermark) != nil || !w.complete() {
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.complete++
		if !p.since.IsZero() && w.StartedAt.After(p.since) {
			p.Sweeps = append(p.Sweeps, w.took().Seconds())
		}
	}))
	return p
}

// flipped notes a flip; where nobody has read the last one, both are over.
func (p *poller) flipped(id int64, f flip) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.pending[id]; ok {
		delete(p.pending, id)
		return
	}
	p.pending[id] = f
}

func (p *poller) arrived(id int64, online bool, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f, ok := p.pending[id]
	if !ok || f.online != online {
		return
	}
	delete(p.pending, id)
	switch took := at.Sub(f.at).Seconds(); {
	case !f.counts:
	case online:
		p.SignIns = append(p.SignIns, took)
	default:
		p.SignOuts = append(p.SignOuts, took)
	}
}

// has waits until a poller is as it is wanted, and reports whether that came in time.
func (p *poller) has(ctx context.Context, within time.Duration, want func() bool) bool {
	for until := time.Now().Add(within); ; {
		p.mu.Lock()
		ok := want()
		p.mu.Unlock()
		if !p.Running() {
			must(p.died())
		}
		if ok || time.Now().After(until) {
			return ok
		}
		pause(ctx, 100*time.Millisecond)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
		must(ctx.Err())
	case <-time.After(d):
	}
}

// glances measures all cells, several of them side by side: they wait most of the time.
func (b *bench) glances(ctx context.Context) error {
	var running sync.WaitGroup
	room := make(chan struct{}, b.beside)
	rounds := make([]struct{ alone, glances pace }, len(b.cells)*b.rounds)
	errs := make([]error, len(rounds))
	for i := range rounds {
		c, r := b.cells[i%len(b.cells)], &rounds[i]
		room <- struct{}{}
		running.Go(func() {
			defer func() { <-room }()
			defer caught(&errs[i], fmt.Sprintf("%+v", c))
			r.alone, r.glances = b.glanceOnce(ctx, fmt.Sprintf("%s/glances-%d-", b.dir, i), c)
			b.say("%+v: mean %.2f s, with sweeps alone %.2f s",
				c, mean(r.glances.all()), mean(r.alone.all()))
		})
	}
	running.Wait()
	for i, r := range rounds {
		if i < len(b.cells) {
			c := b.cells[i]
			b.report.Glances = append(b.report.Glances, &glancing{cell: c, Floor: c.floor()})
		}
		g := b.report.Glances[i%len(b.cells)]
		g.Alone.add(r.alone)
		g.Glances.add(r.glances)
	}
	return errors.Join(errs...)
}

// glanceOnce measures a cell: two pollers of one tenant, so that both see the same flips.
func (b *bench) glanceOnce(ctx context.Context, dir string, c cell) (alone, glances pace) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	config := credentials
	config.Agents = c.Agents
	t := tenantsim.New(config)
	server := get(tenantsim.Listen("127.0.0.1:0", t))
	go func() { _ = server.Serve(ctx) }()
	var sets [2][]int64 // those who are not online, and those who are
	ids := t.IDs()
	for i, n := range rand.Perm(c.Agents) {
		id, on := ids[n], i < c.online()
		t.SetOnline(id, on)
		sets[index(on)] = append(sets[index(on)], id)
	}
	var both []*poller
	for _, glances := range []string{"off", "auto"} {
		p := b.startPoller(dir, server.URL, glances, c)
		defer func() {
			p.nc.Close()
			p.Kill()
		}()
		both = append(both, p)
	}
	for _, p := range both {
		if !p.has(ctx, patience+3*c.sweep(), func() bool { return p.complete > 0 }) {
			must(fmt.Errorf("no complete sweep has come: %v", p))
		}
	}
	settled := time.Now()
	if !b.quick {
		settled = settled.Add(max(2*c.sweep(), 10*time.Second))
	}
	for _, p := range both {
		p.mu.Lock()
		p.since = settled
		p.mu.Unlock()
	}
	gap := float64(c.Burst) / c.Flips * float64(time.Second) // on average; it varies as chance does
	for next := time.Now(); next.Before(settled.Add(b.lasts)); {
		pause(ctx, time.Until(next))
		fresh := [2]int{len(sets[0]), len(sets[1])} // in a burst, nobody flips twice
		for range c.Burst {
			// How many are online wanders, as where each signs in and out on his own.
			on := rand.Float64() < 0.5+5*float64(c.online()-len(sets[1]))/float64(c.Agents)
			if fresh[index(!on)] == 0 {
				on = !on
			}
			from, to := index(!on), index(on)
			k := rand.IntN(fresh[from])
			fresh[from]--
			id := sets[from][k]
			sets[from] = slices.Delete(sets[from], k, k+1)
			sets[to] = append(sets[to], id)
			now := time.Now()
			for _, p := range both {
				p.flipped(id, flip{now, on, !now.Before(settled)})
			}
			t.SetOnline(id, on)
		}
		next = next.Add(time.Duration(rand.ExpFloat64() * gap))
	}
	for _, p := range both { // what has flipped last
		p.has(ctx, 3*c.sweep()+10*time.Second, func() bool { return len(p.pending) == 0 })
	}
	for _, p := range both {
		p.mu.Lock()
		defer p.mu.Unlock()
	}
	return both[0].pace, both[1].pace
}

func index(online bool) int {
	if online {
		return 1
	}
	return 0
}
