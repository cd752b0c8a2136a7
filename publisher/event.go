package publisher

import (
	"errors"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/rollcall-events/rollcall/internal/jsonwalk"
	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/schemas"
)

// readEvent reads a message that holds an event, or a state, which is its agent's last event. It
// returns the state that the event leads to, and the sweep that saw it. What no commit brought, or
// is not the agent's that its subject names, was not written by rollcall, and is an error.
func readEvent(m jetstream.Msg, tenant int64) (*packed.State, uint64, error) {
	s, sweep, err := decodeEvent(m.Data())
	if err != nil {
		return nil, 0, err
	}
	subject, err := schemas.ParseSubject(m.Subject())
	a := s.Agent
	switch {
	case err != nil:
		return nil, 0, err
	case subject.Tenant != tenant || a.TenantID() != tenant || a.AgentID() != subject.AgentID:
		return nil, 0, errors.New("it is not the agent's that its subject names")
	case m.Headers().Get(jetstreamext.BatchIDHeader) == "":
		return nil, 0, errors.New("no commit brought it")
	}
	return s, sweep, nil
}

// decodeEvent decodes what recovery needs of an event: the agent, packed without being decoded
// first, and none of the changes.
func decodeEvent(data []byte) (*packed.State, uint64, error) {
	var e struct {
		SpecVersion string            `json:"specversion"`
		Type        schemas.EventType `json:"type"`
		Source      string            `json:"source"`
		Subject     string            `json:"subject"`
		ID          string            `json:"id"`
		Time        time.Time         `json:"time"`
		DataSchema  string            `json:"dataschema"`
		Data        struct {
			Revision uint64         `json:"revision"`
			Reason   schemas.Reason `json:"reason"`
			Sweep    uint64         `json:"sweep"`
			Online   bool           `json:"online"`
			Since    time.Time      `json:"since"`
			Agent    jsontext.Value `json:"agent"`
		} `json:"data"`
	}
	// The vendor's own fields are kept as they came: names that occur twice, and escapes that stand
	// for no character.
	err := jsonv2.Unmarshal(data, &e,
		jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if err != nil {
		return nil, 0, err
	}
	var row packed.Row
	err = jsonwalk.Walk(e.Data.Agent, func(w *jsonwalk.Walker) error {
		return w.Object(func(name []byte) error {
			value, err := w.Value()
			row.Set(name, value)
			return err
		})
	})
	if err != nil {
		return nil, 0, err
	}
	agent, _, err := row.Pack(0)
	if err != nil {
		return nil, 0, err
	}
	env := schemas.Envelope{SpecVersion: e.SpecVersion, DataSchema: e.DataSchema, Source: e.Source,
		Subject: e.Subject, ID: e.ID, Event: schemas.Event{Type: e.Type, Time: e.Time}}
	env.Data = schemas.EventData{Revision: e.Data.Revision, Reason: e.Data.Reason,
		Online: e.Data.Online, Since: e.Data.Since,
		Agent: schemas.Agent{TenantID: agent.TenantID(), AgentID: agent.AgentID()}}
	if err := env.Check(); err != nil {
		return nil, 0, err
	}
	return packed.StateWith(&env.Event, agent), e.Data.Sweep, nil
}
