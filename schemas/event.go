package schemas

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// EventType is the type of an event, and the first two tokens of its subject.
type EventType string

// The three types of events. For every agent, online and offline strictly alternate, beginning with
// online.
const (
	Online  EventType = "agent.online"  // the agent was not online, or not known, and now is
	Offline EventType = "agent.offline" // the agent was online and now is not
	Updated EventType = "agent.updated" // anything else that changed
)

// Reason says what made an event.
type Reason string

// The reasons of events. Consumers ignore a reason that they don't know.
const (
	Baseline Reason = "baseline" // first seen before the tenant's first complete sweep had ended
	Appeared Reason = "appeared" // first seen later, or there again after removal
	Status   Reason = "status"   // the online state changed
	Fields   Reason = "fields"   // only other fields changed
	Removed  Reason = "removed"  // deleted, or gone from the listing
)

// Constants of the CloudEvents envelope (CloudEvents 1.0.2, structured JSON mode).
const (
	SpecVersion     = "1.0"
	DataSchema      = "urn:rollcall:agent-event:v1"
	DataContentType = "application/json"
	// ContentTypeEvent is the Content-Type header of events and states.
	ContentTypeEvent = "application/cloudevents+json"
	// ContentTypeJSON is the Content-Type header of all other messages.
	ContentTypeJSON = "application/json"
)

// Event is one change of one agent.
type Event struct {
	Type EventType
	Time time.Time // when the change had been read; never goes back for an agent
	Data EventData
}

// EventData is what an event says. Zero times are absent.
type EventData struct {
	Revision      uint64 // counts the events of one agent: 1, 2, 3 …
	Reason        Reason
	Sweep         uint64    // the sweep that saw the change
	Online        bool      // the only field to decide availability by
	NotBefore     time.Time // the change happened between this and the event's time
	Since         time.Time // when the present online or not-online state was first read
	PreviousSince time.Time // on an event that ends a state, when that state had begun
	Agent         Agent     // as it now is; of a removed agent, as it was last seen
	Changes       []Change  // every field that differs from the previous revision's agent, by name

	// ChangesTruncated says that Changes lacks the undocumented fields: with them the event would
	// not have fitted into a message.
	ChangesTruncated bool
}

// Change is one field that differs between two revisions. A nil From or To was absent.
type Change struct {
	Field string          `json:"field"`
	From  json.RawMessage `json:"from,omitempty"`
	To    json.RawMessage `json:"to,omitempty"`
}

// ID is what to dedupe by: <tenantId>-<agentId>-<revision>.
func (e *Event) ID() string {
	b := strconv.AppendInt(make([]byte, 0, 64), e.Data.Agent.TenantID, 10)
	b = strconv.AppendInt(append(b, '-'), e.Data.Agent.AgentID, 10)
	return string(strconv.AppendUint(append(b, '-'), e.Data.Revision, 10))
}

// Subject is the subject under which the stream stores the event.
func (e *Event) Subject() string {
	a := &e.Data.Agent
	return EventSubject(e.Type, a.TenantID, a.TypeToken(), a.AgentID)
}

// AppendJSON appends the event's encoding, a CloudEvents 1.0 event in structured JSON mode.
func (e *Event) AppendJSON(b []byte) []byte {
	a := &e.Data.Agent
	o := beginObject(b)
	o.str("specversion", SpecVersion)
	o.str("type", string(e.Type))
	o.str("source", source(a.TenantID))
	o.str("subject", strconv.FormatInt(a.AgentID, 10))
	o.str("id", e.ID())
	o.time("time", e.Time)
	o.str("datacontenttype", DataContentType)
	o.str("dataschema", DataSchema)
	o.key("data")
	o.b = e.Data.appendJSON(o.b)
	return o.end()
}

func (d *EventData) appendJSON(b []byte) []byte {
	o := beginObject(b)
	o.uint("revision", d.Revision)
	o.str("reason", string(d.Reason))
	o.uint("sweep", d.Sweep)
	o.bool("online", d.Online)
	o.time("notBefore", d.NotBefore)
	o.time("since", d.Since)
	o.time("previousSince", d.PreviousSince)
	o.key("agent")
	o.b = d.Agent.AppendJSON(o.b)
	o.key("changes")
	o.b = append(o.b, '[')
	for i, c := range d.Changes {
		if i > 0 {
			o.b = append(o.b, ',')
		}
		o.b = c.appendJSON(o.b)
	}
	o.b = append(o.b, ']')
	if d.ChangesTruncated {
		o.bool("changesTruncated", true)
	}
	return o.end()
}

// TruncateChanges leaves the undocumented fields out of Changes. It reports false, and does
// nothing, where there are none.
func (d *EventData) TruncateChanges() bool {
	listed := slices.DeleteFunc(
		slices.Clone(d.Changes),
		func(c Change) bool { return !Listed(c.Field) },
	)
	if len(listed) == len(d.Changes) {
		return false
	}
	d.Changes, d.ChangesTruncated = listed, true
	return true
}

func (c *Change) appendJSON(b []byte) []byte {
	o := beginObject(b)
	o.str("field", c.Field)
	if c.From != nil {
		o.raw("from", c.From)
	}
	if c.To != nil {
		o.raw("to", c.To)
	}
	return o.end()
}

// MarshalJSON implements [json.Marshaler]; see the package comment for how it differs from
// AppendJSON.
func (e Event) MarshalJSON() ([]byte, error) { return e.AppendJSON(nil), nil }

// UnmarshalJSON decodes an event, and refuses what is none: another spec version, schema or source,
// an unknown type, no revision, no time, no agent, or an id that is not the agent's. Unknown fields
// and reasons are accepted; times are cut to UTC milliseconds.
func (e *Event) UnmarshalJSON(b []byte) error {
	var w struct {
		SpecVersion string
		DataSchema  string
		Type        EventType
		Source      string
		Subject     string
		ID          string
		Time        time.Time
		Data        struct {
			EventData
			Agent *Agent // hides EventData's, to tell when there is none
		}
	}
	if err := json.Unmarshal(b, &w); err != nil {
		return fmt.Errorf("schemas: decode event: %w", err)
	}
	if w.Data.Agent == nil {
		return fmt.Errorf("schemas: decode event %q: no agent", w.ID)
	}
	env := Envelope{
		SpecVersion: w.SpecVersion,
		DataSchema:  w.DataSchema,
		Source:      w.Source,
		Subject:     w.Subject,
		ID:          w.ID,
		Event:       Event{Type: w.Type, Time: w.Time, Data: w.Data.EventData},
	}
	env.Data.Agent = *w.Data.Agent
	if err := env.Check(); err != nil {
		return err
	}
	*e = env.Event
	return nil
}

// Envelope is an event with what else its encoding says, for those who take it apart themselves.
type Envelope struct {
	SpecVersion, DataSchema, Source, Subject, ID string
	Event
}

// Check refuses what [Event.UnmarshalJSON] refuses, and cuts the times as it does. Of the agent it
// looks at the ids only.
func (e *Envelope) Check() error {
	d := &e.Data
	for _, t := range []*time.Time{&e.Time, &d.NotBefore, &d.Since, &d.PreviousSince} {
		*t = t.UTC().Truncate(time.Millisecond)
		if y := t.Year(); y < 1 || y > 9999 { // no reader could parse its encoding
			return fmt.Errorf(
				"schemas: decode event %q: a time beyond the year 9999, or before the year 1",
				e.ID,
			)
		}
	}
	a := &d.Agent
	switch {
	case e.SpecVersion != SpecVersion:
		return fmt.Errorf(
			"schemas: decode event: specversion is %q, want %q",
			e.SpecVersion,
			SpecVersion,
		)
	case e.DataSchema != DataSchema:
		return fmt.Errorf(
			"schemas: decode event: dataschema is %q, want %q",
			e.DataSchema,
			DataSchema,
		)
	case e.Type != Online && e.Type != Offline && e.Type != Updated:
		return fmt.Errorf("schemas: decode event: unknown type %q", e.Type)
	case (e.Type == Online) != d.Online && e.Type != Updated:
		return fmt.Errorf(
			"schemas: decode event %q: type %s with online %t",
			e.ID,
			e.Type,
			d.Online,
		)
	case d.Revision == 0:
		return fmt.Errorf("schemas: decode event %q: no revision", e.ID)
	case e.Time.IsZero() || d.Since.IsZero():
		return fmt.Errorf("schemas: decode event %q: no time or no since", e.ID)
	case e.ID != e.Event.ID() || e.Source != source(a.TenantID) ||
		e.Subject != strconv.FormatInt(a.AgentID, 10):
		return fmt.Errorf(
			"schemas: decode event %q: its id, source or subject is not that of "+
				"agent %d of tenant %d, revision %d",
			e.ID,
			a.AgentID,
			a.TenantID,
			d.Revision,
		)
	}
	return nil
}

func source(tenant int64) string { return "/isdp/tenants/" + strconv.FormatInt(tenant, 10) }
