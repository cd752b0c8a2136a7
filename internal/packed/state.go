package packed

import (
	"time"

	"github.com/rollcall-events/rollcall/schemas"
)

// State is what the stream says of one agent: of its last event, what it takes to go on from there.
type State struct {
	Revision uint64
	Online   bool
	Removed  bool
	Time     time.Time // of the last event
	Since    time.Time // when the present online or not-online state was first read
	Agent    Agent
}

// StateOf is the state that an event leads to.
func StateOf(e *schemas.Event) *State { return StateWith(e, Pack(&e.Data.Agent)) }

// StateWith is StateOf for those who have the event's agent packed.
func StateWith(e *schemas.Event, p Agent) *State {
	return &State{
		Revision: e.Data.Revision,
		Online:   e.Data.Online,
		Removed:  e.Data.Reason == schemas.Removed,
		Time:     e.Time,
		Since:    e.Data.Since,
		Agent:    p,
	}
}
