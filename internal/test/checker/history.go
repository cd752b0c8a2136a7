package checker

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
)

// A span is a stretch of an agent's life in which its rows did not change. Its end counts too, as
// the history's times may be coarse.
type span struct {
	from, to time.Time // to is zero while it lasts
	rows     []*row    // usable ones; several where the listing has the agent twice
	refused  bool      // there is a row that can't be used, or need not be
	text     string    // for stories
}

// history is what was true of each agent, by agentId.
type history struct {
	agents map[int64][]span // each list covers all time
	// when a row was listed of which nobody can tell whose it is; To may be zero
	nameless []Interval
}

// learn reads a row, once for all answers and changes that share its bytes.
func (c *check) learn(raw json.RawMessage) seen {
	if len(raw) == 0 {
		return c.rules.lenient(raw)
	}
	s, ok := c.known[&raw[0]]
	if !ok {
		s = c.rules.lenient(raw)
		c.known[&raw[0]] = s
	}
	return s
}

func (c *check) learnHistory(changes []isdpsim.Change) {
	h := &c.history
	h.agents = map[int64][]span{}
	listed := map[int64]map[int64]seen{} // by agentId and the tenant's own name
	strange := 0
	for _, ch := range changes {
		var before, after *seen
		if ch.Before != nil {
			s := c.learn(ch.Before)
			before = &s
		}
		if ch.After != nil {
			s := c.learn(ch.After)
			after = &s
		}
		was := strange
		touched := map[int64]bool{}
		for _, s := range []*seen{before, after} {
			switch {
			case s == nil:
			case s.verdict == nameless && s == before:
				strange--
			case s.verdict == nameless:
				strange++
			default:
				touched[s.id] = true
			}
		}
		for id := range touched {
			if listed[id] == nil {
				listed[id] = map[int64]seen{}
			}
			delete(listed[id], ch.ID)
			if after != nil && after.verdict != nameless && after.id == id {
				listed[id][ch.ID] = *after
			}
			h.add(id, ch.Time, listed[id], c.rules.describe(ch, before, after))
		}
		switch {
		case was == 0 && strange > 0:
			h.nameless = append(h.nameless, Interval{From: ch.Time})
		case was > 0 && strange == 0:
			h.nameless[len(h.nameless)-1].To = ch.Time
		}
	}
}

// add begins a span of an agent with the rows that are listed of it.
func (h *history) add(id int64, at time.Time, listed map[int64]seen, text string) {
	spans := h.agents[id]
	if spans == nil {
		spans = []span{{text: "not listed"}}
	}
	spans[len(spans)-1].to = at
	s := span{from: at, text: text}
	for _, l := range listed {
		if l.row != nil {
			s.rows = append(s.rows, l.row)
		}
		s.refused = s.refused || l.verdict != usable
	}
	h.agents[id] = append(spans, s)
}

// describe is a change for people.
func (r rules) describe(ch isdpsim.Change, before, after *seen) string {
	s := string(ch.Kind)
	switch {
	case after == nil:
		return s
	case after.row == nil:
		return s + ", a row that can't be used"
	case before == nil || before.row == nil:
		return fmt.Sprintf("%s, onlineStatus %s", s, brief(after.row.fields["onlineStatus"]))
	}
	return s + r.describeChanges(changesOf(before.row, after.row))
}

// last is how an agent was in the end.
func (h *history) last(id int64) span {
	if spans := h.agents[id]; spans != nil {
		return spans[len(spans)-1]
	}
	return span{}
}

// isNameless reports whether at a moment a row was listed of which nobody can tell whose it is.
func (h *history) isNameless(at time.Time) bool {
	return slices.ContainsFunc(h.nameless, func(i Interval) bool {
		return !i.From.After(at) && (i.To.IsZero() || !i.To.Before(at))
	})
}

func rowNames(rows []*row) string {
	var all []string
	for _, r := range rows {
		all = append(all, "onlineStatus "+brief(r.fields["onlineStatus"]))
	}
	return strings.Join(slices.Compact(all), ", ")
}
