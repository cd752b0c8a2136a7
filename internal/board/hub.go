package board

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/rollcall-events/rollcall/schemas"
	"github.com/rollcall-events/rollcall/schemas/follow"
)

const (
	maxRecent = 200 // events that a page is sent when it opens
	chunk     = 250 // agents a message, so that none is large
)

// A hub holds what every page is shown, encoded. Each change gets the next version. A page only
// remembers the version that it has been sent, and is sent whatever is newer. So nothing is queued
// for anyone.
type hub struct {
	cfg   Config
	dirty chan struct{} // holds a token when there is something for the next frame

	mu           sync.Mutex // guards what follows; rows, entries and frames themselves never change
	ready        bool       // the states have all been read
	version      uint64
	agents       map[int64]*row
	recent       []entry // the latest events, the oldest first
	trust        trust
	encodedTrust entry
	last         *frame
}

// A row is an agent as the pages get it.
type row struct {
	version uint64
	json    json.RawMessage
	gone    bool  // the stream no longer has this agent; json says so
	begun   begun // its state
}

type entry struct {
	version uint64
	json    json.RawMessage
}

// A frame is what pages are sent that have everything up to version from.
type frame struct {
	from, to uint64
	piece    piece         // of an event stream
	next     chan struct{} // closed when there is a newer frame
}

func newHub(cfg Config) *hub {
	h := &hub{cfg: cfg, dirty: make(chan struct{}, 1), agents: map[int64]*row{},
		last: &frame{next: make(chan struct{})}}
	h.trust.Self = cfg.Instance
	h.trustChanged()
	return h
}

// take takes in an update from the stream.
func (h *hub) take(roster *follow.Roster, u follow.Update) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var unusable *follow.MessageError
	switch {
	case u.Anew:
		h.reload(roster)
	case errors.As(u.Err, &unusable):
		s, err := schemas.ParseSubject(unusable.Subject)
		if err == nil && s.Kind == schemas.KindState {
			h.forget(s.AgentID) // nobody knows how this agent is
		}
	case u.Err != nil:
		h.trust.Reading = false
		h.trustChanged()
	case u.State != nil:
		if before, changed := h.put(u.State); changed {
			h.addRecent(u.State, before)
		}
	case u.Watermark != nil:
		h.trust.Watermark = encodeWatermark(u.Watermark)
		h.trustChanged()
	case u.Health != nil:
		h.trust.Health = encodeHealth(u.Health)
		h.trustChanged()
	}
	select {
	case h.dirty <- struct{}{}:
	default:
	}
}

// reload makes h like a roster that has been read from the beginning. What is as it was gets no new
// version, so open pages are sent the difference only. h.mu must be held.
func (h *hub) reload(roster *follow.Roster) {
	all := roster.Agents()
	seen := make(map[int64]bool, len(all))
	type change struct {
		*schemas.Event
		before begun
	}
	var changed []change
	for _, e := range all {
		seen[e.Data.Agent.AgentID] = true
		if before, isNew := h.put(e); isNew {
			changed = append(changed, change{e, before})
		}
	}
	for id := range h.agents {
		if !seen[id] {
			h.forget(id)
		}
	}
	// Of each agent only the last event is known here. They are of different agents, so their times
	// may order them.
	slices.SortStableFunc(changed, func(a, b change) int { return a.Time.Compare(b.Time) })
	for _, c := range changed[max(0, len(changed)-maxRecent):] {
		h.addRecent(c.Event, c.before)
	}
	t := roster.Trust(time.Time{})
	h.trust.Watermark, h.trust.Health, h.trust.Reading = nil, nil, true
	if t.Watermark != nil {
		h.trust.Watermark = encodeWatermark(t.Watermark)
	}
	if t.Health != nil {
		h.trust.Health = encodeHealth(t.Health)
	}
	h.ready = true
	h.trustChanged()
}

// put makes the event its agent's state, and reports whether that is another revision than the one
// before, and what was known of the state before. h.mu must be held.
func (h *hub) put(e *schemas.Event) (before begun, changed bool) {
	id := e.Data.Agent.AgentID
	old := h.agents[id]
	if old != nil {
		before = old.begun
	}
	now := before.after(e)
	encoded := encodeRow(e, now)
	if old != nil && !old.gone && bytes.Equal(old.json, encoded) {
		return before, false // the row has the revision
	}
	h.version++
	h.agents[id] = &row{version: h.version, json: encoded, begun: now}
	return before, true
}

// forget makes pages forget an agent. h.mu must be held.
func (h *hub) forget(id int64) {
	if old := h.agents[id]; old != nil && !old.gone {
		h.version++
		h.agents[id] = &row{version: h.version, gone: true, json: encodeGone(id)}
	}
}

// addRecent makes the event one of the recent ones, where before is known of the state before it.
// h.mu must be held.
func (h *hub) addRecent(e *schemas.Event, before begun) {
	if e.Data.Reason == schemas.Baseline {
		return // the first sweep is no news
	}
	h.version++
	if len(h.recent) == maxRecent {
		h.recent = slices.Delete(h.recent, 0, 1)
	}
	significant := h.cfg.Quiet.Significant(e.Data.Changes)
	h.recent = append(h.recent, entry{h.version, encodeEvent(e, before, significant, h.cfg.Quiet)})
}

// trustChanged encodes the trust again. h.mu must be held.
func (h *hub) trustChanged() {
	h.version++
	h.encodedTrust = entry{h.version, mustEncode(h.trust)}
}

// pace makes frames until ctx ends or idle says that nobody looks.
func (h *hub) pace(ctx context.Context, p paces, idle func() bool) {
	beat := time.NewTicker(p.beat)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.dirty:
			h.flush()
			select {
			case <-ctx.Done():
				return
			case <-time.After(p.gap):
			}
		case <-beat.C:
			if idle() {
				return
			}
			h.flush()
		}
	}
}

// flush makes the next frame of what is newer than the last.
func (h *hub) flush() {
	h.mu.Lock()
	defer h.mu.Unlock()
	u := h.updateSince(h.last.to)
	f := &frame{from: h.last.to, to: u.to, next: make(chan struct{})}
	_ = u.encode(message{}, func(message []byte) error { // appending does not fail
		f.piece.plain = append(f.piece.plain, message...)
		return nil
	})
	close(h.last.next)
	h.last = f
}

// An update is what a page does not have yet.
type update struct {
	to     uint64 // the version that the page has afterwards
	rows   []*row // the oldest first, like events
	events []json.RawMessage
	trust  json.RawMessage
}

// updateSince is everything newer than a version. h.mu must be held.
func (h *hub) updateSince(from uint64) update {
	u := update{to: h.version}
	for _, r := range h.agents {
		if r.version > from {
			u.rows = append(u.rows, r)
		}
	}
	slices.SortFunc(u.rows, func(a, b *row) int { return cmp.Compare(a.version, b.version) })
	for _, e := range h.recent {
		if e.version > from {
			u.events = append(u.events, e.json)
		}
	}
	if h.encodedTrust.version > from {
		u.trust = h.encodedTrust.json
	}
	return u
}

// A message is what a page reads at a time. Each says what time it is here (Now), by which the page
// judges freshness. Times are in milliseconds since 1970.
//
// All that comes from Begin up to Ready is the whole state. Build is the site's, in the first
// message and with Begin. Full says that so many pages are open, and no more may be. Events come
// the oldest first.
type message struct {
	Now    int64             `json:"now"`
	Build  string            `json:"build,omitempty"`
	Begin  bool              `json:"begin,omitempty"`
	Ready  bool              `json:"ready,omitempty"`
	Full   int               `json:"full,omitempty"`
	Trust  json.RawMessage   `json:"trust,omitempty"`  // see trust
	Rows   []json.RawMessage `json:"rows,omitempty"`   // see encodeRow
	Events []json.RawMessage `json:"events,omitempty"` // see encodeEvent
}

// encode writes the update as messages of an event stream, of which m is the first; as all there
// is, if that begins it. The last message has the events, after the rows of the agents that they
// are about.
func (u update) encode(m message, write func([]byte) error) error {
	whole := m.Begin
	m.Trust = u.trust
	for _, r := range u.rows {
		if whole && r.gone {
			continue
		}
		m.Rows = append(m.Rows, r.json)
		if len(m.Rows) == chunk {
			if err := write(m.encode()); err != nil {
				return err
			}
			m = message{Rows: m.Rows[:0]}
		}
	}
	m.Events, m.Ready = u.events, whole
	return write(m.encode())
}

func (m message) encode() []byte {
	m.Now = time.Now().UnixMilli()
	b := append([]byte("data: "), mustEncode(m)...) // JSON has no line breaks
	return append(b, "\n\n"...)
}
