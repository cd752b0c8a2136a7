//go:build unix

package vendor

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rollcall-events/rollcall/internal/packed"
	. "github.com/rollcall-events/rollcall/internal/test/isdpsim"

	"github.com/rollcall-events/rollcall/internal/test/checker"
)

// A trick is something that the vendor may do for a while.
type trick struct {
	name string
	lies bool // pages show what the tenant's history never had
	play func(r *rig, random *rand.Rand) (hook Hook, end func())
}

// sometimes is a trick that meets some of the requests, few or many, or all.
func sometimes(name string, hook func(*rig) Hook) trick {
	return trick{name: name, play: func(r *rig, random *rand.Rand) (Hook, func()) {
		p := []float64{0.05, 0.3, 0.6, 1}[random.IntN(4)]
		return Sometimes(random.Uint64(), p, hook(r)), nil
	}}
}

func lying(t trick) trick { t.lies = true; return t }

// once is a trick that does something to the tenant, and undoes it in the end.
func once(name string, do func(r *rig, random *rand.Rand) (undo func())) trick {
	return trick{name: name, play: func(r *rig, random *rand.Rand) (Hook, func()) {
		return nil,
			do(r, random)
	}}
}

// spoil makes the record of some agent a bad one.
func spoil(name string, bad func(t *Tenant, id int64)) trick {
	return once(name, func(r *rig, random *rand.Rand) func() {
		ids := r.sim.IDs()
		id := ids[random.IntN(len(ids))]
		row, _ := r.sim.Agent(id)
		if !json.Valid(row) || row[0] != '{' {
			return nil // it is a bad one already
		}
		bad(r.sim, id)
		return func() { r.sim.Replace(id, row) }
	})
}

var tricks = []trick{
	sometimes("500", agents(Status(500))),
	sometimes("503", agents(Status(503))),
	sometimes("503, Retry-After", agents(RetryAfter(503, time.Second))),
	sometimes("429", agents(Status(429))),
	sometimes("429, Retry-After", agents(RetryAfter(429, time.Second))),
	sometimes("500 with the right page", agents(WithStatus(500))),
	sometimes("reset", agents(Reset(0))),
	sometimes("reset in mid-body", agents(Reset(2000))),
	sometimes("closed in mid-body", agents(Cut(2000))),
	sometimes("truncated", agents(Truncated(2000))),
	// not in a string, where it would be read as one of its characters
	sometimes("corrupt", agents(Body(func(b []byte) []byte {
		b = slices.Clone(b)
		b[0] = 0
		return b
	}))),
	sometimes("HTML", agents(HTML())),
	sometimes("empty body", agents(Empty())),
	sometimes("stateCode", agents(StateCode("500", "系统繁忙"))),
	sometimes("redirect",
		agents(All(WithStatus(307), Header("Location", "/openapi/v1/openTask/findOnlineAgent")))),
	sometimes("slow", agents(Delay(60*time.Millisecond))),
	sometimes("out of date", agents(Late(90*time.Millisecond))),
	sometimes("drips", agents(Drip(300, 3*time.Millisecond))),
	sometimes("hanging", agents(Hang(2000))),
	sometimes("huge", agents(Huge(1<<20))),
	sometimes("total_count off", agents(TotalCountOff(3))),
	sometimes("total_count a million", agents(TotalCount(1_000_000))),
	sometimes("pos of another page", agents(Pos(5))),
	sometimes("same page", agents(SamePage(0))),
	sometimes("shifting", shifting),
	sometimes("the filter lags", filter(FilterLags(10*time.Second, false))),
	sometimes("the filter lags, with true rows", filter(FilterLags(10*time.Second, true))),
	sometimes("the filter is ignored", filter(IgnoreFilter())),
	sometimes("the filter fails", filter(Status(500))),
	sometimes("nobody is online", filter(EmptyListing())),
	sometimes("resizing", resizing),
	lying(sometimes("a row twice", agents(twice))),
	lying(sometimes("a row elsewhere", page(4, elsewhere))),
	lying(sometimes("rows left out", agents(DropRows(0, 2)))),
	lying(sometimes("empty listing", agents(EmptyListing()))),
	lying(sometimes("half a listing", agents(TotalCount(10)))),
	lying(sometimes("a part of a listing", agents(TotalCount(25)))),
	lying(sometimes("an empty listing of a type", func(*rig) Hook {
		return of(2, EmptyListing())
	})),
	lying(sometimes("an agent in two listings", func(r *rig) Hook {
		rows := r.sim.Listing()
		return extra(10, flip(rows[r.setup.seed%uint64(len(rows))]).JSON)
	})),

	sometimes("XML", agents(InvalidToken(200))),
	sometimes("XML, 503", agents(InvalidToken(503))),
	sometimes("tokens: 503", token(Status(503))),
	sometimes("tokens: HTML", token(HTML())),
	sometimes("tokens: reset", token(Reset(0))),
	sometimes("tokens: refused", token(CredentialsRefused())),
	once("revoked tokens", func(r *rig, _ *rand.Rand) func() { r.revoke(); return nil }),
	once("connections refused", func(r *rig, _ *rand.Rand) func() {
		r.door.set(true)
		return func() { r.door.set(false) }
	}),

	once("everybody signs out", func(r *rig, _ *rand.Rand) func() {
		for _, row := range r.sim.Listing() {
			if a, _, err := packed.Decode(row.JSON, tenant); err == nil && a.Online() {
				r.sim.SetOnline(row.ID, false)
			}
		}
		return nil
	}),
	once("half the listing leaves", func(r *rig, random *rand.Rand) func() {
		ids := r.sim.IDs()
		random.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
		ids = ids[:len(ids)*2/3]
		r.sim.Remove(ids...)
		return func() { r.sim.Restore(ids...) }
	}),
	once("some leave", func(r *rig, random *rand.Rand) func() {
		ids := r.sim.IDs()
		ids = ids[:min(len(ids), random.IntN(8))]
		r.sim.Remove(ids...)
		return func() { r.sim.Restore(ids...) }
	}),
	once("some have another type", func(r *rig, random *rand.Rand) func() {
		for _, id := range r.sim.IDs() {
			if row, _ := r.sim.Agent(id); random.IntN(6) == 0 && row[0] == '{' {
				r.sim.Edit(id,
					Fields{"type": fmt.Sprintf(`"%d"`, []int{0, 1, 2, 10}[random.IntN(4)])})
			}
		}
		return nil
	}),
	spoil("no onlineStatus", func(t *Tenant, id int64) { t.Edit(id, Fields{"onlineStatus": ""}) }),
	spoil("another tenant's", func(t *Tenant, id int64) {
		t.Edit(id, Fields{"tenantId": `"887"`})
	}),
	spoil("too large", func(t *Tenant, id int64) {
		t.Edit(id, Fields{"note": `"` + strings.Repeat("y", 2*maxRowBytes) + `"`})
	}),
	spoil("no agentId", func(t *Tenant, id int64) { t.Edit(id, Fields{"agentId": "null"}) }),
	spoil("no object", func(t *Tenant, id int64) { t.Replace(id, json.RawMessage(`[1,2,3]`)) }),
}

// TestMixed mixes the tricks at random, from a seed: of an even one such that pages show what was
// true at some time, if they show anything; of an odd one all of them. Two seeds of eight have
// glances.
func TestMixed(t *testing.T) {
	if *seedFlag != 0 || *long == 0 {
		seeds := []uint64{1, 2, 3, 4, 5, 6, 7, 8}
		if *seedFlag != 0 {
			seeds = []uint64{*seedFlag}
		}
		t.Parallel()
		for _, seed := range seeds {
			t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
				t.Parallel()
				mixed(t, seed, max(*long, 4*time.Second))
			})
		}
		return
	}
	const each = time.Minute
	first := uint64(time.Now().UnixNano()) >> 20
	var total checker.Stats
	var injected int64
	var mu sync.Mutex // guards the sums
	seed := first
	for end := time.Now().Add(*long); time.Now().Before(end) && !t.Failed(); {
		t.Run("together", func(t *testing.T) {
			for range 4 {
				seed++
				seed := seed // the next ones begin meanwhile
				t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
					t.Parallel()
					n, stats := mixed(t, seed, min(each, *long))
					mu.Lock()
					defer mu.Unlock()
					injected += n
					total.Events += stats.Events
					total.CompleteSweeps += stats.CompleteSweeps
					total.Removals += stats.Removals
					total.Lasting += stats.Lasting
				})
			}
		})
	}
	t.Logf("%d seeds from %d on: %d faults injected, %d events, %d complete sweeps, %d removals, "+
		"%d states that lasted", seed-first, first+1, injected,
		total.Events, total.CompleteSweeps, total.Removals, total.Lasting)
}

func mixed(t *testing.T, seed uint64, length time.Duration) (int64, checker.Stats) {
	var types []int // one listing of all, or one for each
	if seed%3 == 0 {
		types = []int{0, 1, 2, 10}
	}
	s := setup{seed: seed, types: types, requestTimeout: 700 * time.Millisecond,
		missingHold: 700 * time.Millisecond, tokenTTL: 3 * time.Second}
	if seed%8 == 0 || seed%8 == 7 {
		s.glances, s.churn = true, 4
	}
	r := newRig(t, s)
	random := rand.New(rand.NewPCG(seed, 5))
	var story []string
	lied := false
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d, what was played:\n%s", seed, strings.Join(story, "\n"))
		}
	})
	began := r.now()
	for r.now().Sub(began) < length {
		var names []string
		var hooks []Hook
		var ends []func()
		for range 1 + random.IntN(3) {
			k := tricks[random.IntN(len(tricks))]
			if k.lies && seed%2 == 0 {
				continue
			}
			hook, end := k.play(r, random)
			if hook != nil {
				hooks = append(hooks, hook)
			}
			if end != nil {
				ends = append(ends, end)
			}
			lied = lied || k.lies
			names = append(names, k.name)
		}
		lasts := time.Duration(100+random.IntN(700)) * time.Millisecond
		story = append(story, fmt.Sprintf("%s for %v: %s", r.now().UTC().Format("15:04:05.000"),
			lasts, strings.Join(names, "; ")))
		r.inject(Hooks(hooks...))
		time.Sleep(lasts) // how long it goes on is a part of the story
		r.inject(nil)
		for _, end := range slices.Backward(ends) {
			end()
		}
		time.Sleep(time.Duration(random.IntN(300)) * time.Millisecond)
	}
	over := r.now()
	r.quiesce()
	opt := checker.Options{BrokenPages: true, RemovalBound: 6 * time.Second}
	if lied {
		opt.Outages = []checker.Interval{{From: began, To: over}}
	}
	stats := r.finish(opt)
	if !lied {
		r.wantTruth()
	}
	r.wantLimits(true)
	t.Logf("seed %d: %d faults met requests in %d tricks; %d events, %d complete sweeps", seed,
		r.injected.Load(), len(story), stats.Events, stats.CompleteSweeps)
	return r.injected.Load(), stats
}
