package watch

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rollcall-events/rollcall/schemas"
)

// A column of the table of agents.
type column struct {
	title string
	right bool
	most  int // how wide it may be; 0: as wide as need be
	of    func(e *schemas.Event, now time.Time) string
}

var (
	colAgent = column{title: "AGENT", right: true, of: func(e *schemas.Event, _ time.Time) string {
		return strconv.FormatInt(e.Data.Agent.AgentID, 10)
	}}
	colState = column{title: "STATE", of: func(e *schemas.Event, _ time.Time) string { return stateOf(e) }}
	colName  = column{title: "NAME", most: 24, of: func(e *schemas.Event, _ time.Time) string {
		return value(e.Data.Agent.AgentName)
	}}
	colAccount = column{title: "ACCOUNT", most: 40, of: func(e *schemas.Event, _ time.Time) string {
		return value(e.Data.Agent.AgentAccount)
	}}
	colType = column{title: "TYPE", most: 20, of: func(e *schemas.Event, _ time.Time) string {
		return typeInWords(e.Data.Agent.Type)
	}}
	colArea = column{title: "AREA", most: 24, of: func(e *schemas.Event, _ time.Time) string {
		return value(e.Data.Agent.AreaName)
	}}
	colCapacity = column{title: "CAP", right: true, of: func(e *schemas.Event, _ time.Time) string {
		if c := e.Data.Agent.Capacity; c != nil {
			return strconv.FormatInt(*c, 10)
		}
		return none
	}}
	colSince = column{title: "SINCE", of: func(e *schemas.Event, now time.Time) string { return since(e.Data.Since, now) }}
	colFor   = column{title: "FOR", of: func(e *schemas.Event, now time.Time) string { return span(now.Sub(e.Data.Since)) }}

	onDutyColumns = []column{colAgent, colName, colAccount, colType, colArea, colCapacity, colSince, colFor}
	agentColumns  = []column{colAgent, colState, colName, colAccount, colType, colArea, colCapacity, colSince, colFor}
)

// What is made narrower, down to what, where the screen is too small; and then what is left out.
var (
	narrowed = []struct {
		title string
		least int
	}{{"NAME", 16}, {"ACCOUNT", 12}, {"TYPE", 10}, {"AREA", 8}, {"NAME", 8}, {"AREA", 4}, {"ACCOUNT", 6}}
	left = []string{"FOR", "AREA", "TYPE", "CAP", "ACCOUNT"}
)

const (
	none = "-"
	gap  = "  "
)

// value is a field as a cell: never empty, so that columns can be told apart by spaces.
func value(s *string) string {
	if s == nil || strings.TrimSpace(*s) == "" {
		return none
	}
	return clean(*s)
}

var typeWords = map[string]string{"0": "safety", "1": "quality", "2": "patrol", "10": "video call"}

func typeInWords(t *string) string {
	if t == nil {
		return none
	}
	if words, ok := typeWords[*t]; ok {
		return words
	}
	return value(t)
}

// stateOf is an agent's state in a word.
func stateOf(e *schemas.Event) string {
	switch {
	case e.Data.Online:
		return "online"
	case gone(e):
		return "removed"
	}
	return "offline"
}

// gone reports whether the agent is not there any more.
func gone(e *schemas.Event) bool { return e.Data.Reason == schemas.Removed }

// A table is how wide its columns are, once they are known.
type table struct {
	columns []column
	widths  []int
}

// newTable fits the agents into so many columns of the screen, 0: any number. Of a narrow screen it
// leaves columns out.
func newTable(columns []column, agents []*schemas.Event, screen int, now time.Time) *table {
	t, sum := fitted(columns, agents, screen, now)
	for _, title := range left {
		if screen == 0 || sum <= screen {
			break
		}
		columns = slices.DeleteFunc(slices.Clone(columns), func(c column) bool { return c.title == title })
		t, sum = fitted(columns, agents, screen, now)
	}
	return t
}

// fitted makes the columns as narrow as need be and can be, and says how wide the lines are then.
func fitted(columns []column, agents []*schemas.Event, screen int, now time.Time) (*table, int) {
	t := &table{columns: columns, widths: make([]int, len(columns))}
	sum := len(gap) * (len(columns) - 1)
	for i, c := range columns {
		w := len(c.title)
		for _, e := range agents {
			w = max(w, width(c.of(e, now)))
		}
		if c.most > 0 {
			w = min(w, c.most)
		}
		t.widths[i] = w
		sum += w
	}
	for _, n := range narrowed {
		i := slices.IndexFunc(columns, func(c column) bool { return c.title == n.title })
		if over := sum - screen; i >= 0 && screen > 0 && over > 0 {
			w := max(t.widths[i]-over, min(t.widths[i], n.least))
			sum -= t.widths[i] - w
			t.widths[i] = w
		}
	}
	return t, sum
}

func (t *table) head() string {
	return t.line(func(c column) string { return c.title }, nil)
}

// row is an agent's line. paint colours a cell that has its width already; nil: none.
func (t *table) row(e *schemas.Event, now time.Time, paint func(title, cell string) string) string {
	return t.line(func(c column) string { return c.of(e, now) }, paint)
}

func (t *table) line(of func(column) string, paint func(title, cell string) string) string {
	var b strings.Builder
	for i, c := range t.columns {
		if i > 0 {
			b.WriteString(gap)
		}
		cell := of(c)
		if i < len(t.columns)-1 || c.right {
			cell = pad(cell, t.widths[i], c.right)
		}
		if paint != nil {
			cell = paint(c.title, cell)
		}
		b.WriteString(cell)
	}
	return b.String()
}

// bySince orders agents by the second in which their present state began: who has just come stands
// last, beside what comes next.
func bySince(a, b *schemas.Event) int {
	second := func(e *schemas.Event) time.Time { return e.Data.Since.Truncate(time.Second) }
	return cmp.Or(second(a).Compare(second(b)), byID(a, b))
}

func byID(a, b *schemas.Event) int { return cmp.Compare(a.Data.Agent.AgentID, b.Data.Agent.AgentID) }
