package diff

import (
	"maps"

	"github.com/rollcall-events/rollcall/schemas"
)

// A Population counts the agents that are there, by type as in subjects ([packed.Agent.TypeToken]).
// A type that no agent has is not in it.
type Population map[string]schemas.TypeCounts

// mostTypes is how many types a watermark counts: even a server that takes the smallest messages
// that rollcall works with takes that many. The vendor documents four.
const mostTypes = 200

// count adds n to the counts that an agent with the state is in.
func (p Population) count(s *State, n int) {
	if there(s) == "" {
		return
	}
	kind := s.Agent.TypeToken()
	c := p[kind]
	c.Agents += n
	if s.Online {
		c.Online += n
		c.Capacity += int64(n) * s.Agent.Capacity()
	}
	if c.Agents == 0 {
		delete(p, kind)
	} else {
		p[kind] = c
	}
}

// Total counts all agents.
func (p Population) Total() (all schemas.TypeCounts) {
	for _, c := range p {
		all.Agents += c.Agents
		all.Online += c.Online
		all.Capacity += c.Capacity
	}
	return all
}

// show puts the counts into a watermark.
func (p Population) show(w *schemas.Watermark) {
	all := p.Total()
	w.Agents, w.Online, w.Types = all.Agents, all.Online, nil
	if len(p) <= mostTypes {
		w.Types = maps.Clone(p)
	}
}
