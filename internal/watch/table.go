package watch

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rollcall-events/rollcall/internal/agenttype"
	"github.com/rollcall-events/rollcall/schemas"
)

const (
	none = "-" // an empty cell: columns can be told apart by spaces
	gap  = "  "
)

// A column of the table.
type column struct {
	title string
	right bool // aligned
	most  int  // how wide a cell may be
	cell  func(e *schemas.Event, now time.Time) string
}

// columns are those of the table. A narrow screen cuts the lines, so the least important is last.
var columns = []column{
	{"AGENT", true, 20, func(e *schemas.Event, _ time.Time) string {
		return strconv.FormatInt(e.Data.Agent.AgentID, 10)
	}},
	{"NAME", false, 24, func(e *schemas.Event, _ time.Time) string {
		return value(e.Data.Agent.AgentName)
	}},
	{"FOR", true, 20, func(e *schemas.Event, now time.Time) string {
		return span(now.Sub(e.Data.Since))
	}},
	{"TYPE", false, 16, func(e *schemas.Event, _ time.Time) string {
		return typeName(e.Data.Agent.Type)
	}},
	{"CAP", true, 20, func(e *schemas.Event, _ time.Time) string {
		if c := e.Data.Agent.Capacity; c != nil {
			return strconv.FormatInt(*c, 10)
		}
		return none
	}},
	{"AREA", false, 16, func(e *schemas.Event, _ time.Time) string {
		return value(e.Data.Agent.AreaName)
	}},
	{"SINCE", false, 20, func(e *schemas.Event, now time.Time) string {
		return clock(e.Data.Since, now)
	}},
	{"ACCOUNT", false, 40, func(e *schemas.Event, _ time.Time) string {
		return value(e.Data.Agent.AgentAccount)
	}},
}

// table is a line for the titles and one for each agent on duty. Who has just come is last, next to
// the changes that follow.
func table(agents []*schemas.Event, now time.Time) []string {
	agents = slices.DeleteFunc(agents, func(e *schemas.Event) bool { return !e.Data.Online })
	slices.SortFunc(agents, func(a, b *schemas.Event) int {
		return cmp.Or(a.Data.Since.Compare(b.Data.Since),
			cmp.Compare(a.Data.Agent.AgentID, b.Data.Agent.AgentID))
	})
	lines := make([]string, 1+len(agents))
	for i, c := range columns {
		cells := []string{c.title}
		for _, e := range agents {
			cells = append(cells, c.cell(e, now))
		}
		widest := 0
		for _, cell := range cells {
			widest = max(widest, min(width(cell), c.most))
		}
		for j, cell := range cells {
			if i > 0 {
				lines[j] += gap
			}
			lines[j] += pad(cell, widest, c.right)
		}
	}
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return lines
}

func value(s *string) string {
	if s == nil {
		return none
	}
	return cmp.Or(strings.TrimSpace(clean(*s)), none)
}

// typeName is a type's short name, or what stands in its place.
func typeName(t *string) string {
	if t != nil {
		if short := agenttype.Short(*t); short != *t {
			return short
		}
	}
	return value(t)
}

// typeNames are those of subjects' tokens, in a list: "patrol, video call".
func typeNames(tokens []string) string {
	var names []string
	for _, token := range tokens {
		names = append(names, clean(agenttype.Short(token)))
	}
	return strings.Join(names, ", ")
}
