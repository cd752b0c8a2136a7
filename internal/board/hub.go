package board

import (
	"cmp"
	"container/list"
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
	maxRecent = 60  // events that a page is shown when it opens
	chunk     = 250 // agents a message, so that none is large
)

// A hub holds what every page is shown, encoded. Each change gets the next version; a page only
// remembers the version that it has been sent, and whatever is above that is what it lacks. So
// nothing is queued for anyone.
type hub struct {
	cfg   Config
	dirty chan struct{} // holds a token when there is something for the next frame

	mu      sync.Mutex // guards what follows; rows, entries and frames themselves never change
	ready   bool       // the states have all been read
	version uint64
	agents  map[int64]*list.Element // in order
	order   *list.List              // of *row, by version
	recent  []entry                 // the latest events, the oldest first
	trust   trust
	said    entry // trust, encoded
	last    *frame
}

// A row is an agent as the pages get it.
type row struct {
	version  uint64
	revision uint64
	json     json.RawMessage
	gone     bool // there is no such agent in the log any more; json says so
}

type entry struct {
	version uint64
	json    json.RawMessage
}

// A frame is what pages are sent that have everything up to version from.
type frame struct {
	from, to uint64
	body     []byte        // of an event stream
	next     chan struct{} // closed when there is a newer frame
}

func newHub(cfg Config) *hub {
	h := &hub{cfg: cfg, dirty: make(chan struct{}, 1), agents: map[int64]*list.Element{}, order: list.New(), last: &frame{next: make(chan struct{})}}
	h.trust.Self = cfg.Instance
	h.say()
	return h
}

// take takes in what has been learned from the log.
func (h *hub) take(roster *follow.Roster, u follow.Update) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var unusable *follow.MessageError
	switch {
	case u.Anew:
		h.anew(roster)
	case errors.As(u.Err, &unusable):
		if s, err := schemas.ParseSubject(unusable.Subject); err == nil && s.Kind == schemas.KindState {
			h.lose(s.AgentID) // nobody knows how this agent is
		}
	case u.Err != nil:
		h.trust.Reading = false
		h.say()
	case u.State != nil:
		if h.put(u.State) {
			h.tell(u.State)
		}
	case u.Watermark != nil:
		h.trust.Watermark = encodeWatermark(u.Watermark)
		h.say()
	case u.Health != nil:
		h.trust.Health = encodeHealth(u.Health)
		h.say()
	}
	select {
	case h.dirty <- struct{}{}:
	default:
	}
}

// anew makes h like a roster that has been read from the beginning. What is as it was gets no new
// version, so open pages are sent the difference only. h.mu must be held.
func (h *hub) anew(roster *follow.Roster) {
	all := roster.Agents()
	seen := make(map[int64]bool, len(all))
	var news []*schemas.Event
	for _, e := range all {
		seen[e.Data.Agent.AgentID] = true
		if h.put(e) {
			news = append(news, e)
		}
	}
	for id := range h.agents {
		if !seen[id] {
			h.lose(id)
		}
	}
	// Of each agent only the last event is known here. They are of different agents, so their times
	// may order them.
	slices.SortStableFunc(news, func(a, b *schemas.Event) int { return a.Time.Compare(b.Time) })
	for _, e := range news[max(0, len(news)-maxRecent):] {
		h.tell(e)
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
	h.say()
}

// put makes the event its agent's state, and reports whether that is another revision than the one
// before. h.mu must be held.
func (h *hub) put(e *schemas.Event) bool {
	id := e.Data.Agent.AgentID
	r := &row{revision: e.Data.Revision, json: encodeRow(e)}
	element := h.agents[id]
	if element == nil {
		h.agents[id] = h.order.PushBack(r)
	} else {
		old := element.Value.(*row)
		if !old.gone && string(old.json) == string(r.json) {
			return false // the row has the revision
		}
		element.Value = r
		h.order.MoveToBack(element)
	}
	h.version++
	r.version = h.version
	return true
}

// lose makes pages forget an agent. h.mu must be held.
func (h *hub) lose(id int64) {
	if element := h.agents[id]; element != nil && !element.Value.(*row).gone {
		h.version++
		element.Value = &row{version: h.version, gone: true, json: encodeGone(id)}
		h.order.MoveToBack(element)
	}
}

// tell makes the event one of the recent ones. h.mu must be held.
func (h *hub) tell(e *schemas.Event) {
	if e.Data.Reason == schemas.Baseline {
		return // the first reading of a listing is no news
	}
	h.version++
	if len(h.recent) == maxRecent {
		h.recent = slices.Delete(h.recent, 0, 1)
	}
	h.recent = append(h.recent, entry{h.version, encodeEvent(e, h.cfg.Quiet, true)})
}

// say encodes the trust. h.mu must be held.
func (h *hub) say() {
	h.version++
	h.said = entry{h.version, mustEncode(h.trust)}
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
	lack := h.lack(h.last.to)
	f := &frame{from: h.last.to, to: lack.to, next: make(chan struct{})}
	_ = lack.encode(false, func(message []byte) error { // appending does not fail
		f.body = append(f.body, message...)
		return nil
	})
	close(h.last.next)
	h.last = f
}

// A lack is what a page does not have yet.
type lack struct {
	to     uint64 // the version that the page has afterwards
	rows   []*row
	events []json.RawMessage
	trust  json.RawMessage
}

// lack is everything newer than version from. h.mu must be held.
func (h *hub) lack(from uint64) lack {
	l := lack{to: h.version}
	for e := h.order.Back(); e != nil; e = e.Prev() {
		r := e.Value.(*row)
		if r.version <= from {
			break
		}
		l.rows = append(l.rows, r)
	}
	i, _ := slices.BinarySearchFunc(h.recent, from+1, func(e entry, version uint64) int { return cmp.Compare(e.version, version) })
	for _, e := range h.recent[i:] {
		l.events = append(l.events, e.json)
	}
	if h.said.version > from {
		l.trust = h.said.json
	}
	return l
}

// A message is what a page reads at a time. Every message says what time it is here, by which the
// page judges freshness.
type message struct {
	Now    int64             `json:"now"`              // milliseconds since 1970, like all times below
	Begin  bool              `json:"begin,omitempty"`  // all that follows up to Ready is the whole of it
	Ready  bool              `json:"ready,omitempty"`  //
	Full   int               `json:"full,omitempty"`   // no more than so many pages may be open, and this one may not
	Trust  json.RawMessage   `json:"trust,omitempty"`  // see trust
	Rows   []json.RawMessage `json:"rows,omitempty"`   // see encodeRow
	Events []json.RawMessage `json:"events,omitempty"` // see encodeEvent; the oldest first
}

// encode writes the lack as messages of an event stream; as all there is, if whole. The last
// message has the events, after the rows of the agents that they are about.
func (l lack) encode(whole bool, write func([]byte) error) error {
	m := message{Begin: whole, Trust: l.trust}
	for i := len(l.rows) - 1; i >= 0; i-- { // the oldest first
		if whole && l.rows[i].gone {
			continue
		}
		m.Rows = append(m.Rows, l.rows[i].json)
		if len(m.Rows) == chunk {
			if err := write(m.encode()); err != nil {
				return err
			}
			m = message{Rows: m.Rows[:0]}
		}
	}
	m.Events, m.Ready = l.events, whole
	return write(m.encode())
}

func (m message) encode() []byte {
	m.Now = time.Now().UnixMilli()
	b := append([]byte("data: "), mustEncode(m)...) // JSON has no line breaks
	return append(b, "\n\n"...)
}
