package schemas

import (
	"encoding/json"
	"maps"
	"slices"
	"time"
)

// Watermark is the statement that everything a complete sweep saw has been published. It is the
// last message of every commit. Zero times are absent: there has been no complete sweep.
type Watermark struct {
	TenantID int64 `json:"tenantId"`

	// The last complete sweep: its number, 0 before any, the types that it polled (none: one
	// listing of all), and when it began and ended. The published state may be stale by now minus
	// StartedAt; at StaleAfter the next complete sweep is overdue.
	Sweep       uint64    `json:"sweep"`
	Polled      []string  `json:"polled"`
	StartedAt   time.Time `json:"startedAt"`
	CompletedAt time.Time `json:"completedAt"`
	StaleAfter  time.Time `json:"staleAfter"`

	// GlancedAt is when the last complete glance began whose missing agents have all been looked
	// up; zero: there was none. A glance is a pass over the listing of those who are online.
	GlancedAt time.Time `json:"glancedAt"`

	// NextBy is when the next watermark is overdue, whatever becomes of the sweep.
	NextBy time.Time `json:"nextBy"`

	// Agents and Online count the published state at this commit, removed agents left out.
	Agents int `json:"agents"`
	Online int `json:"online"`

	// Types counts the same by type, by [Agent.TypeToken]. A type that no agent has is left out.
	Types map[string]TypeCounts `json:"types"`

	// Missing are the agents that the sweep did not show and that are not yet removed, Rejected the
	// records that it could not use, or publish.
	Missing  int `json:"missing"`
	Rejected int `json:"rejected"`

	Instance string `json:"instance"` // the replica that committed this
	Commit   Commit `json:"commit"`

	// InProgress is the sweep whose changes this commit brings, where it has not completed.
	InProgress *InProgress `json:"inProgress"`
}

// TypeCounts counts the agents of one type in the published state.
type TypeCounts struct {
	Agents int `json:"agents"`
	Online int `json:"online"`
	// Capacity is the sum of the online agents' capacity; one that has none counts as 0.
	Capacity int64 `json:"capacity"`
}

// Commit names one atomic batch on the stream.
type Commit struct {
	ID       string `json:"id"`       // random
	Messages int    `json:"messages"` // how many messages the batch has, the watermark included
}

// InProgress names a sweep that has begun and not completed.
type InProgress struct {
	Sweep uint64 `json:"sweep"`
}

// AppendJSON appends the watermark's encoding.
func (w *Watermark) AppendJSON(b []byte) []byte {
	o := beginObject(b)
	o.int("tenantId", w.TenantID)
	o.uint("sweep", w.Sweep)
	if len(w.Polled) > 0 {
		o.strs("polled", w.Polled)
	}
	if len(w.Types) > 0 {
		o.key("types")
		types := beginObject(o.b)
		for _, t := range slices.Sorted(maps.Keys(w.Types)) {
			n := w.Types[t]
			types.key(t)
			c := beginObject(types.b)
			c.int("agents", int64(n.Agents))
			c.int("online", int64(n.Online))
			c.int("capacity", n.Capacity)
			types.b = c.end()
		}
		o.b = types.end()
	}
	o.time("glancedAt", w.GlancedAt)
	o.time("startedAt", w.StartedAt)
	o.time("completedAt", w.CompletedAt)
	o.time("staleAfter", w.StaleAfter)
	o.time("nextBy", w.NextBy)
	o.int("agents", int64(w.Agents))
	o.int("online", int64(w.Online))
	o.int("missing", int64(w.Missing))
	o.int("rejected", int64(w.Rejected))
	o.str("instance", w.Instance)
	o.key("commit")
	c := beginObject(o.b)
	c.str("id", w.Commit.ID)
	c.int("messages", int64(w.Commit.Messages))
	o.b = c.end()
	if w.InProgress != nil {
		o.key("inProgress")
		p := beginObject(o.b)
		p.uint("sweep", w.InProgress.Sweep)
		o.b = p.end()
	}
	return o.end()
}

// MarshalJSON implements [json.Marshaler].
func (w Watermark) MarshalJSON() ([]byte, error) { return w.AppendJSON(nil), nil }

// LastSweep is the number of the latest sweep that the watermark knows of.
func (w *Watermark) LastSweep() uint64 {
	if w.InProgress != nil && w.InProgress.Sweep > w.Sweep {
		return w.InProgress.Sweep
	}
	return w.Sweep
}

// TrustedUntil is when the published state is to be trusted no more, unless another watermark comes
// before: the earlier of StaleAfter and NextBy. It is zero before any complete sweep.
func (w *Watermark) TrustedUntil() time.Time {
	if w.Sweep == 0 || w.NextBy.IsZero() || w.StaleAfter.Before(w.NextBy) {
		return w.StaleAfter
	}
	return w.NextBy
}

// Stale is what the NATS server itself says to plain subscribers when NextBy of a tenant's last
// watermark has passed and nobody has put the alarm off.
type Stale struct {
	TenantID  int64     `json:"tenantId"`
	Sweep     uint64    `json:"sweep"`     // of that watermark
	StartedAt time.Time `json:"startedAt"` // of that watermark; zero before any complete sweep
	NextBy    time.Time `json:"nextBy"`
}

// AppendJSON appends the message's encoding.
func (s *Stale) AppendJSON(b []byte) []byte {
	o := beginObject(b)
	o.int("tenantId", s.TenantID)
	o.uint("sweep", s.Sweep)
	o.time("startedAt", s.StartedAt)
	o.time("nextBy", s.NextBy)
	return o.end()
}

// MarshalJSON implements [json.Marshaler].
func (s Stale) MarshalJSON() ([]byte, error) { return s.AppendJSON(nil), nil }

// Unobserved is an interval in which nobody could say who is on duty. It is part of the commit
// whose watermark is that of the complete sweep that ends it.
type Unobserved struct {
	TenantID int64 `json:"tenantId"`

	// From and To are when the last complete sweep before and the next one after it began.
	From time.Time `json:"from"`
	To   time.Time `json:"to"`

	Sweep uint64 `json:"sweep"` // the complete sweep that ends it

	// Health is the last reason that health gave meanwhile; empty where rollcall itself was not
	// there, or had given none.
	Health HealthReason `json:"health"`

	// Types are the types that had not been polled before, where the interval is about their agents
	// only; none: it is about all agents.
	Types []string `json:"types"`
}

// AppendJSON appends the interval's encoding.
func (u *Unobserved) AppendJSON(b []byte) []byte {
	o := beginObject(b)
	o.int("tenantId", u.TenantID)
	o.time("from", u.From)
	o.time("to", u.To)
	o.uint("sweep", u.Sweep)
	if u.Health != "" {
		o.str("health", string(u.Health))
	}
	if len(u.Types) > 0 {
		o.strs("types", u.Types)
	}
	return o.end()
}

// MarshalJSON implements [json.Marshaler].
func (u Unobserved) MarshalJSON() ([]byte, error) { return u.AppendJSON(nil), nil }

// HealthState says how a tenant's listing fares. It says nothing about whether rollcall lives: only
// the watermark does.
type HealthState string

// The states of health.
const (
	HealthOK      HealthState = "ok"
	HealthFailing HealthState = "failing" // sweeps are not complete, or reject too many rows
	HealthHolding HealthState = "holding" // removals are held back
)

// HealthReason says why a tenant is not healthy.
type HealthReason string

// The reasons of health messages.
const (
	Unreachable HealthReason = "unreachable" // failing: no answers
	Credentials HealthReason = "credentials" // failing: refused
	// failing: answers, or too many rows, that can't be used
	Unusable     HealthReason = "unusable"
	Inconsistent HealthReason = "inconsistent" // failing: listings that contradict themselves
	MissingMany  HealthReason = "missing"      // holding: too large a share is missing together
	Unidentified HealthReason = "unidentified" // holding: rows that nobody can name
)

// Health is a tenant's health message, part of a commit when it changes.
type Health struct {
	TenantID int64        `json:"tenantId"`
	State    HealthState  `json:"state"`
	Since    time.Time    `json:"since"`
	Reason   HealthReason `json:"reason"` // empty when ok
	Detail   string       `json:"detail"` // for people; no secrets
}

// AppendJSON appends the health message's encoding.
func (h *Health) AppendJSON(b []byte) []byte {
	o := beginObject(b)
	o.int("tenantId", h.TenantID)
	o.str("state", string(h.State))
	o.time("since", h.Since)
	o.str("reason", string(h.Reason))
	o.str("detail", h.Detail)
	return o.end()
}

// MarshalJSON implements [json.Marshaler].
func (h Health) MarshalJSON() ([]byte, error) { return h.AppendJSON(nil), nil }

var (
	_ json.Marshaler = Watermark{}
	_ json.Marshaler = Health{}
	_ json.Marshaler = Unobserved{}
)
