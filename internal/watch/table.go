package watch

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rollcall-events/rollcall/internal/agenttype"
	"github.com/rollcall-events/rollcall/internal/plain"
	"github.com/rollcall-events/rollcall/schemas"
)

// columns are those of the table. A narrow screen cuts the lines, so the least important is last.
func columns(now time.Time) []plain.Column[*schemas.Event] {
	return []plain.Column[*schemas.Event]{
		{Title: "AGENT", Right: true, Most: 20, Cell: func(e *schemas.Event) string {
			return strconv.FormatInt(e.Data.Agent.AgentID, 10)
		}},
		{Title: "NAME", Most: 24, Cell: func(e *schemas.Event) string {
			return plain.Value(e.Data.Agent.AgentName)
		}},
		{Title: "FOR", Right: true, Most: 20, Cell: func(e *schemas.Event) string {
			return plain.Span(now.Sub(e.Data.Since))
		}},
		{Title: "TYPE", Most: 16, Cell: func(e *schemas.Event) string {
			return agenttype.Label(e.Data.Agent.Type)
		}},
		{Title: "CAP", Right: true, Most: 20, Cell: func(e *schemas.Event) string {
			if c := e.Data.Agent.Capacity; c != nil {
				return strconv.FormatInt(*c, 10)
			}
			return plain.None
		}},
		{Title: "AREA", Most: 16, Cell: func(e *schemas.Event) string {
			return plain.Value(e.Data.Agent.AreaName)
		}},
		{Title: "SINCE", Most: 20, Cell: func(e *schemas.Event) string {
			return plain.Clock(e.Data.Since, now)
		}},
		{Title: "ACCOUNT", Most: 40, Cell: func(e *schemas.Event) string {
			return plain.Value(e.Data.Agent.AgentAccount)
		}},
	}
}

// table is a line for the titles and one for each agent on duty. Who has just come is last, next to
// the changes that follow.
func table(agents []*schemas.Event, now time.Time) []string {
	agents = slices.DeleteFunc(agents, func(e *schemas.Event) bool { return !e.Data.Online })
	slices.SortFunc(agents, func(a, b *schemas.Event) int {
		return cmp.Or(a.Data.Since.Compare(b.Data.Since),
			cmp.Compare(a.Data.Agent.AgentID, b.Data.Agent.AgentID))
	})
	return plain.Table(columns(now), agents)
}

// typeNames are those of subjects' tokens, in a list: "patrol, video call".
func typeNames(tokens []string) string {
	var names []string
	for _, token := range tokens {
		names = append(names, plain.Clean(agenttype.Short(token)))
	}
	return strings.Join(names, ", ")
}
