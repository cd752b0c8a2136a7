package diff

import (
	"bytes"
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/rollcall-events/rollcall/schemas"
)

// A naive model of the rules: it keeps everything that it was ever shown, knows agents as JSON
// objects only, and looks the answers up in that history instead of keeping counts.

// object is an agent as a reader of JSON sees it; nil: gone from the listing.
type object map[string]json.RawMessage

func objectOf(a *schemas.Agent) object {
	var o object
	if err := json.Unmarshal(a.AppendJSON(nil), &o); err != nil {
		panic(err)
	}
	return o
}

func (o object) there() bool  { return o != nil && string(o["deleteFlag"]) != "1" }
func (o object) online() bool { return o.there() && string(o["onlineStatus"]) == "1" }

// Of the fields that the tests change, those that make no event alone.
var quietHere = []string{"agentSignInTime", "lastUpdateTimestamp", "mood"}

// significant is what two objects have to share for nothing to have happened between them.
func (o object) significant() string {
	if !o.there() {
		return ""
	}
	c := maps.Clone(o)
	for _, f := range quietHere {
		delete(c, f)
	}
	b, err := json.Marshal(c)
	if err != nil {
		panic(err)
	}
	return string(b)
}

type wireChange struct {
	Field    string
	From, To string // "": absent
}

// wireEvent is an event as a reader of JSON sees it.
type wireEvent struct {
	Type string
	ID   string
	Time string
	Data struct {
		Revision                        uint64
		Reason                          string
		Sweep                           uint64
		Online                          bool
		NotBefore, Since, PreviousSince string
		Agent                           object
		Changes                         []wireChange
	}
}

func (c *wireChange) UnmarshalJSON(b []byte) error {
	var w struct {
		Field    string
		From, To json.RawMessage
	}
	err := json.Unmarshal(b, &w)
	*c = wireChange{w.Field, string(w.From), string(w.To)}
	return err
}

func wire(e *schemas.Event) (w wireEvent) {
	if err := json.Unmarshal(e.AppendJSON(nil), &w); err != nil {
		panic(err)
	}
	return w
}

// said is a time as it is published: rounded up, or down.
func said(t time.Time, up bool) string {
	if t.IsZero() {
		return ""
	}
	ms, rest := t.UnixNano()/1e6, t.UnixNano()%1e6
	if up && rest > 0 {
		ms++
	}
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z")
}

type modelObservation struct {
	id              int64
	row             object
	sweep           uint64
	notBefore, time time.Time
	baseline        bool
	unseen          bool // by this process
}

type modelSight struct {
	sweep      uint64
	sent, read time.Time
}

type modelAgent struct {
	id       int64
	sights   []modelSight    // rows that counted
	signs    map[uint64]bool // sweeps that listed it, usable or not
	rejected map[uint64]bool // sweeps that had an unusable row of it
	events   []wireEvent
	pending  []modelObservation
	held     time.Time
}

type model struct {
	rules        Rules
	agents       map[int64]*modelAgent
	complete     []toldSweep // since the start
	trusted      *toldSweep  // the last one that shows who was not listed …
	trustedTypes []string    // … among those of these types; none: all
	watermark    schemas.Watermark
}

func newModel(rules Rules) *model {
	return &model{rules: rules, agents: make(map[int64]*modelAgent)}
}

func (m *model) agent(id int64) *modelAgent {
	a := m.agents[id]
	if a == nil {
		a = &modelAgent{id: id, signs: make(map[uint64]bool), rejected: make(map[uint64]bool)}
		m.agents[id] = a
	}
	return a
}

// view is what was last observed.
func (a *modelAgent) view() object {
	if n := len(a.pending); n > 0 {
		return a.pending[n-1].row
	}
	if n := len(a.events); n > 0 && a.events[n-1].Data.Reason != "removed" {
		return a.events[n-1].Data.Agent
	}
	return nil
}

// typeOf is an agent's type as JSON has it; "": none.
func (o object) typeOf() string { return strings.Trim(string(o["type"]), `"`) }

func among(types []string, t string) bool { return len(types) == 0 || slices.Contains(types, t) }

// lookedAt is when somebody last looked and found the agent as view says; row is what it is now,
// nil: gone.
func (m *model) lookedAt(a *modelAgent, row object) time.Time {
	var last *modelSight
	if n := len(a.sights); n > 0 {
		last = &a.sights[n-1]
	}
	if c := m.trusted; c != nil && !a.view().there() && (last == nil || last.sweep < c.Number) {
		since := func(n uint64) bool { return n >= c.Number }
		// a row that can't be used could say anything
		if !slices.ContainsFunc(slices.Collect(maps.Keys(a.rejected)), since) &&
			among(m.trustedTypes, row.typeOf()) {
			return c.StartedAt
		}
	}
	switch {
	case last != nil:
		return last.sent
	case len(a.events) == 0:
		return time.Time{}
	case m.watermark.Sweep > 0 && m.watermark.Missing == 0 && m.watermark.Rejected == 0 &&
		among(m.watermark.Polled, a.events[len(a.events)-1].Data.Agent.typeOf()):
		return m.watermark.StartedAt
	default:
		return parse(a.events[len(a.events)-1].Time)
	}
}

func parse(s string) time.Time {
	if s == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		panic(err)
	}
	return t
}

func (m *model) page(p toldPage) (out []modelObservation) {
	for _, id := range p.Rejected {
		a := m.agent(id)
		a.signs[p.Sweep], a.rejected[p.Sweep], a.held = true, true, time.Time{}
	}
	for i := range p.Agents {
		listed := p.Agents[i].Unpack()
		row := objectOf(&listed)
		a := m.agent(listed.AgentID)
		if slices.ContainsFunc(a.sights, func(s modelSight) bool { return p.Sent.Before(s.read) }) {
			continue
		}
		if a.view().significant() != row.significant() {
			o := modelObservation{a.id, row, p.Sweep, m.lookedAt(a, row), p.Read, p.Baseline,
				len(a.sights) == 0 && len(a.events) > 0}
			a.pending = append(a.pending, o)
			out = append(out, o)
		}
		a.sights = append(a.sights, modelSight{p.Sweep, p.Sent, p.Read})
		a.signs[p.Sweep], a.held = true, time.Time{}
	}
	slices.SortFunc(out, func(x, y modelObservation) int { return cmp.Compare(x.id, y.id) })
	return out
}

func (m *model) end(s toldSweep) (gone []modelObservation, missing, held int) {
	m.complete = append(m.complete, s)
	var absent []*modelAgent
	known := 0
	for _, id := range slices.Sorted(maps.Keys(m.agents)) {
		a := m.agents[id]
		v := a.view()
		if !v.there() || len(m.rules.Types) > 0 &&
			!slices.ContainsFunc(m.rules.Types,
				func(t string) bool { return `"`+t+`"` == string(v["type"]) }) {
			continue
		}
		known++
		if !a.signs[s.Number] {
			absent = append(absent, a)
		}
	}
	for _, a := range absent {
		switch {
		case s.Unidentified > 0:
			if !a.held.IsZero() {
				a.held = s.EndedAt
			}
			continue
		case float64(len(absent)) > m.rules.MaxMissing*float64(known) &&
			(len(absent) > 3 || len(absent) == known) && a.held.IsZero():
			a.held = s.EndedAt
		}
		switch {
		case !a.held.IsZero() && s.EndedAt.Before(a.held.Add(m.rules.MissingHold)):
			held++
			missing++
		case m.missed(a) < m.rules.RemoveAfter:
			missing++
		default:
			o := modelObservation{a.id, nil, s.Number, m.lookedAt(a, nil), s.EndedAt, false, false}
			a.pending, a.held = append(a.pending, o), time.Time{}
			gone = append(gone, o)
		}
	}
	if s.Unidentified == 0 {
		m.trusted, m.trustedTypes = &s, m.rules.Types
	}
	return gone, missing, held
}

// missed is how many complete sweeps in a row, counted backwards, say nothing of the agent.
func (m *model) missed(a *modelAgent) (n int) {
	var last uint64
	for s := range a.signs {
		last = max(last, s)
	}
	for _, s := range slices.Backward(m.complete) {
		if s.Number <= last || s.Unidentified > 0 {
			break
		}
		n++
	}
	return n
}

func (m *model) fold(id int64) {
	a := m.agents[id]
	a.pending[1].notBefore, a.pending[1].baseline, a.pending[1].unseen = a.pending[0].notBefore,
		a.pending[0].baseline, a.pending[0].unseen
	a.pending = a.pending[1:]
}

// publish makes what it can of the agent's oldest observation.
func (m *model) publish(id int64) (w wireEvent, ok bool) {
	a := m.agents[id]
	o := a.pending[0]
	a.pending = a.pending[1:]
	d := &w.Data
	d.Revision, d.Sweep, d.Online, d.Agent, d.Changes = 1, o.sweep, o.row.online(), o.row,
		[]wireChange{}
	w.Time = said(o.time, true)
	removed, wasOnline := true, false
	if n := len(a.events); n > 0 {
		prev := a.events[n-1]
		removed, wasOnline = prev.Data.Reason == "removed", prev.Data.Online
		d.Revision = prev.Data.Revision + 1
		w.Time = max(w.Time, prev.Time)
		d.Since = prev.Data.Since
		if o.row == nil {
			d.Agent = prev.Data.Agent
		}
		for _, f := range slices.Sorted(maps.Keys(d.Agent)) {
			if was, ok := prev.Data.Agent[f]; !ok || !bytes.Equal(was, d.Agent[f]) {
				d.Changes = append(d.Changes, wireChange{f, string(was), string(d.Agent[f])})
			}
		}
		for f, was := range prev.Data.Agent {
			if _, ok := d.Agent[f]; !ok {
				d.Changes = append(d.Changes, wireChange{f, string(was), ""})
			}
		}
		slices.SortFunc(d.Changes,
			func(x, y wireChange) int { return cmp.Compare(x.Field, y.Field) })
		if !removed && prev.Data.Agent.significant() == o.row.significant() {
			return w, false
		}
		if wasOnline != d.Online {
			d.PreviousSince = prev.Data.Since
		}
	}
	switch there := o.row.there(); {
	case removed && !there:
		return w, false
	case !there:
		d.Reason = "removed"
	case removed && len(a.events) == 0 && o.baseline:
		d.Reason = "baseline"
	case removed:
		d.Reason = "appeared"
	case wasOnline != d.Online:
		d.Reason = "status"
	default:
		d.Reason = "fields"
		if o.unseen {
			o.notBefore = parse(a.events[len(a.events)-1].Time)
		}
	}
	switch {
	case d.Online && !wasOnline:
		w.Type = "agent.online"
	case wasOnline && !d.Online:
		w.Type = "agent.offline"
	default:
		w.Type = "agent.updated"
	}
	if wasOnline != d.Online || len(a.events) == 0 {
		d.Since = w.Time
	}
	d.NotBefore = min(said(o.notBefore, false), w.Time)
	w.ID = string(d.Agent["tenantId"]) + "-" + string(d.Agent["agentId"]) + "-" +
		string(must(json.Marshal(d.Revision)))
	a.events = append(a.events, w)
	return w, true
}

// read takes over the watermark of the stream; a start forgets everything else.
func (m *model) read(w schemas.Watermark, start bool) {
	if start {
		for _, a := range m.agents {
			*a = modelAgent{id: a.id, events: a.events, signs: make(map[uint64]bool),
				rejected: make(map[uint64]bool)}
		}
		m.complete, m.trusted = nil, nil
	}
	m.watermark = w
	if w.Sweep > 0 && (m.trusted == nil || w.Sweep > m.trusted.Number) {
		m.trusted, m.trustedTypes = nil, nil
		if w.Rejected == 0 {
			m.trustedTypes = w.Polled
			m.trusted = &toldSweep{Number: w.Sweep, StartedAt: w.StartedAt}
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
