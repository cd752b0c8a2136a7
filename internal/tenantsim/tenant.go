// Package tenantsim is a simulated ISDP+ tenant, for rollcall's demo and as the heart of the tests'
// vendor: an HTTP handler with the vendor's two calls, whose agents sign in and out, change, come
// and go, by themselves from a seed or as a script says. It answers as the vendor does when nothing
// goes wrong; what can go wrong is in internal/test/isdpsim, and so are its tests.
//
// # What is exact
//
// A Tenant makes each change at one instant, under the same lock under which it looks up a page. So
// a page shows all changes up to one point and none after it.
//
// The first rows depend on the seed alone, never on the clock or on how many agents there are; the
// n-th change of Step depends on the seed, the changes before it and the clock.
//
// # Scripts
//
// Agents are named by an id: the row's agentId where it has one that can be read when the row is
// added, else a negative number that the tenant hands out. The id stays with the agent whatever its
// row says later. Methods that name an agent panic where no such agent has ever been: that is a
// mistake in the script. Changes that change nothing are not told.
package tenantsim

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"
)

// A Tenant is the simulated tenant. It is an http.Handler; all its methods are safe for concurrent
// use.
type Tenant struct {
	cfg Config

	mu      sync.Mutex // guards everything below; never held while an answer is written
	agents  map[int64]*agent
	listing []*agent // the listed ones, by seq
	bulk    bool     // put leaves the listing alone: it is built anew afterwards
	there   int      // of the listing, those not deleted
	online  int      // of those, those on duty
	nextID  int64    // the least id that the next new agent can have
	nextSeq int      // the next new agent's place in the listing's order
	unnamed int64    // the last id handed out to a row without one, counting down
	made    int      // changes so far
	churn   churn
	tokens  tokens
}

// An agent is one row of the listing, or one that has left it.
type agent struct {
	id     int64
	seq    int // its place in the listing's order, kept while it is away
	listed bool
	row    json.RawMessage // replaced as a whole, never altered: pages and changes share it
	facts
}

// Row is one agent as the listing has it.
type Row struct {
	ID   int64           // the name by which the Tenant's methods know the agent
	JSON json.RawMessage // shared: not to be altered
}

// New returns a tenant with its first agents.
func New(cfg Config) *Tenant {
	cfg = cfg.withDefaults()
	t := &Tenant{
		cfg:     cfg,
		agents:  make(map[int64]*agent, cfg.Agents),
		listing: make([]*agent, 0, cfg.Agents),
		nextID:  FirstID,
		churn:   newChurn(cfg.Seed),
		tokens:  newTokens(cfg.Seed),
	}
	now := cfg.Now()
	for range cfg.Agents {
		t.addAgent(now, Started)
	}
	return t
}

// newAgent makes a place for an agent that is not yet listed. mu is held, or nobody else knows t.
func (t *Tenant) newAgent(id int64) *agent {
	a := &agent{id: id, seq: t.nextSeq}
	t.nextSeq++
	t.agents[id] = a
	return a
}

// get returns an agent that must be known. mu is held.
func (t *Tenant) get(id int64) *agent {
	a, ok := t.agents[id]
	if !ok {
		panic(fmt.Sprintf("tenantsim: there has never been an agent %d", id))
	}
	return a
}

// put is the one place where an agent changes: its row, whether it is listed, the counts. It
// reports whether anything changed. mu is held, or nobody else knows t.
func (t *Tenant) put(now time.Time, a *agent, kind Kind, row json.RawMessage, f facts,
	listed bool) bool {
	if a.listed == listed && bytes.Equal(a.row, row) {
		return false
	}
	c := Change{Time: now, ID: a.id, Kind: kind}
	if a.listed {
		c.Before = a.row
		t.count(a, -1)
	}
	if a.listed != listed && !t.bulk {
		t.place(a, listed)
	}
	a.row, a.facts, a.listed = row, f, listed
	if listed {
		c.After = row
		t.count(a, 1)
	}
	if c.Before != nil || c.After != nil {
		c.Seq = t.made
		t.made++
		if t.cfg.Changed != nil {
			t.cfg.Changed(c)
		}
	}
	return true
}

func (t *Tenant) count(a *agent, n int) {
	if !a.deleted {
		t.there += n
		if a.online() {
			t.online += n
		}
	}
}

// place puts an agent into the listing or takes it out.
func (t *Tenant) place(a *agent, listed bool) {
	i, _ := slices.BinarySearchFunc(t.listing, a.seq, func(b *agent, seq int) int {
		return cmp.Compare(b.seq, seq)
	})
	if listed {
		t.listing = slices.Insert(t.listing, i, a)
	} else {
		t.listing = slices.Delete(t.listing, i, i+1)
	}
}

// Agent returns an agent's row and whether it is listed; of an agent that has left, the row it
// would return with. The row is nil where there has never been such an agent, and must not be
// altered.
func (t *Tenant) Agent(id int64) (row json.RawMessage, listed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a, ok := t.agents[id]
	if !ok {
		return nil, false
	}
	return a.row, a.listed
}

// Listing returns all rows in the order in which pages show them.
func (t *Tenant) Listing() []Row {
	t.mu.Lock()
	defer t.mu.Unlock()
	rows := make([]Row, len(t.listing))
	for i, a := range t.listing {
		rows[i] = Row{a.id, a.row}
	}
	return rows
}

// IDs returns the ids of all listed agents in the order in which pages show them.
func (t *Tenant) IDs() []int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	ids := make([]int64, len(t.listing))
	for i, a := range t.listing {
		ids[i] = a.id
	}
	return ids
}

// Count returns how many agents are listed and not deleted, and how many of those are on duty.
func (t *Tenant) Count() (there, online int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.there, t.online
}

// TenantID returns whose agents these are.
func (t *Tenant) TenantID() int64 { return t.cfg.TenantID }
