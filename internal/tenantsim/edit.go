package tenantsim

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// SetOnline signs an agent in or out as the vendor shows it: onlineStatus, and the stamps that the
// row has (agentSignInTime and agentSignInDate on signing in, lastUpdateTimestamp and
// lastUpdateDate always). It reports whether that changed anything. To change onlineStatus and
// nothing else, use Edit.
func (t *Tenant) SetOnline(id int64, online bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.setOnline(t.cfg.Now(), t.get(id), online)
}

// Edit sets some fields of a row and leaves every other byte as it is. It reports whether that
// changed anything. It panics where the row is not a JSON object.
func (t *Tenant) Edit(id int64, fields Fields) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.edit(t.cfg.Now(), t.get(id), Edited, fields)
}

// Replace gives an agent any bytes for a row, listed or not as it was. It reports whether that
// changed anything.
func (t *Tenant) Replace(id int64, row json.RawMessage) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.get(id)
	row = clone(row)
	return t.put(t.cfg.Now(), a, Replaced, row, learn(row), a.listed)
}

// Add lists any bytes as a new row behind all others and returns the id to name it by: the agentId,
// or a negative number where the row has none or one that is taken.
func (t *Tenant) Add(row json.RawMessage) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	row = clone(row)
	f := learn(row)
	if _, taken := t.agents[f.id]; taken || !f.hasID || f.id < 0 {
		t.unnamed--
		f.id = t.unnamed
	}
	t.put(t.cfg.Now(), t.newAgent(f.id), Added, row, f, true)
	return f.id
}

// AddAgent lists a new agent with the next free id and a row like all others, and returns the id.
func (t *Tenant) AddAgent() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.addAgent(t.cfg.Now(), Added).id
}

// Remove takes agents out of the listing, all at one instant, and returns how many were in it.
func (t *Tenant) Remove(ids ...int64) int { return t.list(Removed, false, ids) }

// Restore puts agents that were removed back to where they were in the listing's order, all at one
// instant, and returns how many came back.
func (t *Tenant) Restore(ids ...int64) int { return t.list(Restored, true, ids) }

// Delete marks agents as deleted (deleteFlag 1), all at one instant; they stay listed, and keep
// their onlineStatus. It returns how many that changed.
func (t *Tenant) Delete(ids ...int64) int { return t.flag(Deleted, "1", ids) }

// Undelete takes the mark off again (deleteFlag 0), all at one instant, and returns how many that
// changed.
func (t *Tenant) Undelete(ids ...int64) int { return t.flag(Undeleted, "0", ids) }

// NewRow returns a row like those of the tenant's own agents for any id, to be altered with Patch
// and listed with Add. It depends on nothing but the seed, the tenant and the id.
func (t *Tenant) NewRow(id int64) json.RawMessage {
	row, _ := person(t.cfg.Seed, t.cfg.TenantID, id)
	return row
}

func (t *Tenant) list(kind Kind, listed bool, ids []int64) (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.cfg.Now()
	agents := t.all(ids)
	t.bulk = len(ids) > 32 // one by one, many would take quadratic time
	for _, a := range agents {
		if t.put(now, a, kind, a.row, a.facts, listed) {
			n++
			if t.bulk && listed {
				t.listing = append(t.listing, a)
			}
		}
	}
	if t.bulk {
		t.bulk = false
		t.listing = slices.DeleteFunc(t.listing, func(a *agent) bool { return !a.listed })
		slices.SortFunc(t.listing, func(a, b *agent) int { return cmp.Compare(a.seq, b.seq) })
	}
	return n
}

func (t *Tenant) flag(kind Kind, value string, ids []int64) (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.cfg.Now()
	for _, a := range t.all(ids) {
		if t.edit(now, a, kind, Fields{"deleteFlag": value}) {
			n++
		}
	}
	return n
}

// The methods below need mu to be held.

// all looks every id up before anything changes, so that a mistake changes nothing.
func (t *Tenant) all(ids []int64) []*agent {
	agents := make([]*agent, len(ids))
	for i, id := range ids {
		agents[i] = t.get(id)
	}
	return agents
}

func (t *Tenant) addAgent(now time.Time, kind Kind) *agent {
	for t.agents[t.nextID] != nil {
		t.nextID++
	}
	row, f := person(t.cfg.Seed, t.cfg.TenantID, t.nextID)
	a := t.newAgent(t.nextID)
	t.put(now, a, kind, row, f, true)
	return a
}

func (t *Tenant) edit(now time.Time, a *agent, kind Kind, fields Fields) bool {
	row, err := Patch(a.row, fields)
	if err != nil {
		panic(fmt.Sprintf("tenantsim: editing agent %d: %v", a.id, err))
	}
	return t.put(now, a, kind, row, learn(row), a.listed)
}

func (t *Tenant) setOnline(now time.Time, a *agent, online bool) bool {
	if a.hasStatus && a.online() == online {
		return false
	}
	if online {
		return t.edit(now, a, SignedIn, t.stamped(now, a, true, Fields{"onlineStatus": "1"}))
	}
	return t.edit(now, a, SignedOut, t.stamped(now, a, false, Fields{"onlineStatus": "0"}))
}

// stamped adds the stamps that the vendor would renew with a change, those that the row has.
func (t *Tenant) stamped(now time.Time, a *agent, signIn bool, fields Fields) Fields {
	ms, err := members(a.row)
	if err != nil {
		return fields // edit says so
	}
	millis := strconv.FormatInt(now.UnixMilli(), 10)
	for _, m := range ms {
		switch m.name {
		case "agentSignInTime", "agentSignInDate":
			if signIn {
				fields[m.name] = millis
			}
		case "lastUpdateTimestamp":
			fields[m.name] = millis
		case "lastUpdateDate":
			fields[m.name] = `"` + date(now.Add(-lag(t.cfg.Seed, a.id))) + `"`
		}
	}
	return fields
}

func clone(row json.RawMessage) json.RawMessage { return append(json.RawMessage{}, row...) }
