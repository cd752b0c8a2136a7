package history

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/schemas"
)

// A record is what the walk through an agent's past needs of an event.
type record struct {
	id        int64 // the agent's
	kind      schemas.EventType
	time      time.Time
	revision  uint64
	reason    schemas.Reason
	online    bool
	notBefore time.Time
	since     time.Time
	previous  time.Time // when the state that the event ended had begun; zero: it ended none
	changes   []change
	truncated bool

	state bool // it was read as a state, whose event may be gone
	body  []byte
}

type change struct {
	Field string
}

// readRecord reads an event or a state. It leaves the agent alone, which is most of the body.
func readRecord(m jetstream.Msg, s schemas.Subject) (*record, error) {
	var w struct {
		SpecVersion, DataSchema, Source, Subject, ID string

		Type schemas.EventType
		Time time.Time
		Data struct {
			Revision                        uint64
			Reason                          schemas.Reason
			Online                          bool
			NotBefore, Since, PreviousSince time.Time
			Changes                         []change
			ChangesTruncated                bool
		}
	}
	if err := json.Unmarshal(m.Data(), &w); err != nil {
		return nil, err
	}
	d := &w.Data
	env := schemas.Envelope{SpecVersion: w.SpecVersion, DataSchema: w.DataSchema, Source: w.Source,
		Subject: w.Subject, ID: w.ID, Event: schemas.Event{Type: w.Type, Time: w.Time,
			Data: schemas.EventData{Revision: d.Revision, Online: d.Online, NotBefore: d.NotBefore,
				Since: d.Since, PreviousSince: d.PreviousSince,
				Agent: schemas.Agent{TenantID: s.Tenant, AgentID: s.AgentID}}}}
	if err := env.Check(); err != nil {
		return nil, err
	}
	e := &env.Event
	return &record{id: s.AgentID, kind: e.Type, time: e.Time, revision: d.Revision,
		reason: d.Reason, online: d.Online, notBefore: e.Data.NotBefore, since: e.Data.Since,
		previous: e.Data.PreviousSince, changes: d.Changes, truncated: d.ChangesTruncated,
		state: s.Kind == schemas.KindState, body: m.Data()}, nil
}

// event decodes the whole event.
func (r *record) event() (*schemas.Event, error) {
	e := new(schemas.Event)
	if err := json.Unmarshal(r.body, e); err != nil {
		return nil, err
	}
	if e.Data.Agent.AgentID != r.id {
		return nil, fmt.Errorf("it is about agent %d", e.Data.Agent.AgentID)
	}
	return e, nil
}

// there reports whether the event leaves the agent in the listing.
func (r *record) there() bool { return r.reason != schemas.Removed }

// A past is what an event says of the agent as it was before it.
type past struct {
	there, online bool
	since         time.Time // from when on that is known; the event's own time: it is not known
}

// before is what the event says of what was before it.
func (r *record) before() past {
	p := past{online: r.online, since: r.since,
		there: r.reason != schemas.Appeared && r.reason != schemas.Baseline}
	if r.kind != schemas.Updated {
		p.online, p.since = !r.online, r.previous
	}
	if p.since.IsZero() || p.since.After(r.time) {
		p.since = r.time
	}
	return p
}

// revert is the agent as it was before the event.
func (r *record) revert() (*schemas.Agent, error) {
	e, err := r.event()
	if err != nil {
		return nil, err
	}
	return schemas.Revert(&e.Data.Agent, e.Data.Changes)
}
