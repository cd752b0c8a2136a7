package tenantsim

import (
	"context"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"
)

// churn is what the changes that a tenant makes by itself depend on.
type churn struct {
	rand *rand.Rand // what happens
	gaps *rand.Rand // when, for Run
	gone []int64    // those that churn took away: the ones to return
}

func newChurn(seed uint64) churn {
	return churn{rand: rand.New(rand.NewPCG(seed, 1)), gaps: rand.New(rand.NewPCG(seed, 2))}
}

// maxGone bounds how many absent agents may still return; beyond it the one that left first stays
// away.
const maxGone = 1000

// Run makes the tenant's agents change at the rate of Config.Churn, with exponentially distributed
// gaps, until ctx ends. It returns nil then, and never before. It follows the real clock (or that
// of a testing/synctest bubble), not Config.Now.
func (t *Tenant) Run(ctx context.Context) error {
	if t.cfg.Churn <= 0 {
		<-ctx.Done()
		return nil
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	next := time.Now()
	for {
		t.mu.Lock()
		gap := t.churn.gaps.ExpFloat64() / t.cfg.Churn
		t.mu.Unlock()
		next = next.Add(time.Duration(gap * float64(time.Second)))
		timer.Reset(time.Until(next))
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
			t.Step()
		}
		if late := time.Since(next); late > time.Second {
			next = next.Add(late) // after a pause of the process, don't make up for it all at once
		}
	}
}

// Churn makes n changes at once.
func (t *Tenant) Churn(n int) {
	for range n {
		t.Step()
	}
}

// Step makes one change: mostly an agent signs in or out, such that the share on duty stays about
// 15 to 40 per cent; now and then one is edited, touched (its stamps alone change), added, deleted,
// removed from the listing, or comes back. Only rows that have an agentId and an onlineStatus are
// chosen. It reports whether there was any agent to change.
func (t *Tenant) Step() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.cfg.Now()
	roll := t.churn.rand.Float64()
	var done bool
	switch {
	case roll < 0.80: // signs in or out, as below
	case roll < 0.90:
		done = t.editSome(now)
	case roll < 0.93:
		done = t.touchSome(now)
	case roll < 0.95:
		if done = t.there < t.mostThere(); done {
			t.addAgent(now, Added)
		}
	case roll < 0.98:
		done = t.takeSome(now, roll < 0.965)
	default:
		done = t.returnSome(now)
	}
	return done || t.signSome(now) || t.editSome(now)
}

// mostThere and fewestThere bound how many agents churn lets be there; mostDeleted, how many rows
// of deleted ones it keeps in the listing.
func (t *Tenant) mostThere() int   { return t.cfg.Agents + t.cfg.Agents/10 + 1 }
func (t *Tenant) fewestThere() int { return t.cfg.Agents - t.cfg.Agents/10 }
func (t *Tenant) mostDeleted() int { return t.cfg.Agents/20 + 1 }

// anyone is for pick.
func anyone(*agent) bool { return true }

// pick finds a listed agent at random that is well-formed, deleted or not, and what want says; nil:
// none is. mu is held, here and below.
func (t *Tenant) pick(deleted bool, want func(*agent) bool) *agent {
	n := len(t.listing)
	if n == 0 {
		return nil
	}
	ok := func(a *agent) bool { return a.wellFormed && a.deleted == deleted && want(a) }
	for range 20 {
		if a := t.listing[t.churn.rand.IntN(n)]; ok(a) {
			return a
		}
	}
	start := t.churn.rand.IntN(n) // they are rare: go round once
	for i := range n {
		if a := t.listing[(start+i)%n]; ok(a) {
			return a
		}
	}
	return nil
}

func (t *Tenant) signSome(now time.Time) bool {
	share := float64(t.online) / float64(max(1, t.there))
	in := t.churn.rand.Float64() < 0.5+(onDuty-share)*4
	switch {
	case share <= 0.17:
		in = true
	case share >= 0.38:
		in = false
	}
	a := t.pick(false, func(a *agent) bool { return a.online() != in })
	return a != nil && t.setOnline(now, a, in)
}

func (t *Tenant) editSome(now time.Time) bool {
	a := t.pick(false, anyone)
	if a == nil {
		return false
	}
	r, fields := t.churn.rand, Fields{}
	kind := r.IntN(5)
	if kind < 2 || kind == 4 {
		fields["areaName"] = `"` + areas[r.IntN(len(areas))] + `"`
		fields["isArea"] = strconv.Itoa(r.IntN(2))
	}
	if kind == 2 || kind == 4 {
		fields["capacity"] = strconv.Itoa(1 + r.IntN(10))
	}
	if kind == 3 {
		fields["agentName"] = `"` + surnames[r.IntN(len(surnames))][0] +
			givenNames[r.IntN(len(givenNames))][0] + `"`
	}
	admin := r.IntN(len(admins))
	fields["lastUpdatedBy"] = strconv.Itoa(1000 + admin)
	fields["lastUpdateName"] = `"` + admins[admin] + `"`
	return t.edit(now, a, Edited, t.stamped(now, a, false, fields))
}

func (t *Tenant) touchSome(now time.Time) bool {
	a := t.pick(false, anyone)
	return a != nil && t.edit(now, a, Edited, t.stamped(now, a, false, Fields{}))
}

// takeSome deletes an agent or removes it from the listing. Where many have been deleted, it clears
// one of their rows away.
func (t *Tenant) takeSome(now time.Time, del bool) bool {
	if del && len(t.listing)-t.there >= t.mostDeleted() {
		if a := t.pick(true, anyone); a != nil {
			return t.put(now, a, Removed, a.row, a.facts, false)
		}
	}
	if t.there <= t.fewestThere() {
		return false
	}
	a := t.pick(false, anyone)
	if a == nil {
		return false
	}
	if t.churn.gone = append(t.churn.gone, a.id); len(t.churn.gone) > maxGone {
		t.churn.gone = t.churn.gone[1:]
	}
	if del {
		return t.edit(now, a, Deleted, t.stamped(now, a, false, Fields{"deleteFlag": "1"}))
	}
	return t.put(now, a, Removed, a.row, a.facts, false)
}

// returnSome lets an agent return that churn took away and that nobody has returned since.
func (t *Tenant) returnSome(now time.Time) bool {
	for len(t.churn.gone) > 0 && t.there < t.mostThere() {
		i := t.churn.rand.IntN(len(t.churn.gone))
		a := t.agents[t.churn.gone[i]]
		t.churn.gone = slices.Delete(t.churn.gone, i, i+1)
		undeleted := a.deleted && a.wellFormed &&
			t.edit(now, a, Undeleted, t.stamped(now, a, false, Fields{"deleteFlag": "0"}))
		if !a.listed {
			return t.put(now, a, Restored, a.row, a.facts, true)
		}
		if undeleted {
			return true
		}
	}
	return false
}
