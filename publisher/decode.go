package publisher

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/rollcall-events/rollcall/internal/jsonwalk"
	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/schemas"
)

// decodeEvent reads an event or a state. What did not come in a batch, or is not the agent's that
// its subject names, was not written by rollcall.
func decodeEvent(subject string, data []byte, h nats.Header, tenant int64) (*schemas.Event, error) {
	var e schemas.Event
	if err := json.Unmarshal(data, &e); err != nil {
		return nil, err
	}
	return &e, written(subject, h, tenant, e.Data.Agent.TenantID, e.Data.Agent.AgentID)
}

// decodeState reads a state as decodeEvent does, faster where it is encoded as rollcall encodes it,
// and returns what it takes to go on from it, and the sweep that saw it.
func decodeState(subject string, data []byte, h nats.Header, tenant int64) (*packed.State, uint64, error) {
	if s, sweep, ok := takeApart(data); ok {
		return s, sweep, written(subject, h, tenant, s.Agent.TenantID(), s.Agent.AgentID())
	}
	e, err := decodeEvent(subject, data, h, tenant)
	if err != nil {
		return nil, 0, err
	}
	return packed.StateOf(e), e.Data.Sweep, nil
}

// written says why a message about that tenant's agent was not written by rollcall, where that is
// plain.
func written(subject string, h nats.Header, tenant, ofTenant, ofAgent int64) error {
	s, err := schemas.ParseSubject(subject)
	switch {
	case err != nil:
		return err
	case s.Tenant != tenant || ofTenant != tenant || ofAgent != s.AgentID:
		return errors.New("it is not the agent's that its subject names")
	case h.Get(jetstreamext.BatchIDHeader) == "":
		return errors.New("no commit brought it")
	}
	return nil
}

// takeApart decodes an event in the form in which rollcall encodes it. It reports false of any
// other, valid or not.
func takeApart(data []byte) (*packed.State, uint64, bool) {
	r := eventReaders.Get().(*eventReader)
	defer eventReaders.Put(r)
	r.row.Reset()
	r.last, r.env, r.seen = r.env, schemas.Envelope{}, 0
	err := jsonwalk.Walk(data, func(w *jsonwalk.Walker) error {
		r.w = w
		if err := w.Object(r.member); err != nil {
			return err
		}
		return w.Done()
	})
	if err != nil || !r.seen.has(fieldAgent) {
		return nil, 0, false
	}
	agent, _, err := r.row.Pack(0)
	if err != nil {
		return nil, 0, false
	}
	d := &r.env.Data
	d.Agent.TenantID, d.Agent.AgentID = agent.TenantID(), agent.AgentID()
	if r.env.Check() != nil {
		return nil, 0, false
	}
	return packed.StateWith(&r.env.Event, agent), d.Sweep, true
}

var eventReaders = sync.Pool{New: func() any { return new(eventReader) }}

// An eventReader takes an event apart, without regard to anything that rollcall would not have
// written.
type eventReader struct {
	w    *jsonwalk.Walker
	env  schemas.Envelope
	last schemas.Envelope // of the event before
	row  packed.Row
	seen fieldSet
}

var errUnusual = errors.New("not as rollcall encodes it")

// A fieldSet is a set of an event's fields.
type fieldSet uint32

const (
	fieldSpecVersion fieldSet = 1 << iota
	fieldType
	fieldSource
	fieldSubject
	fieldID
	fieldTime
	fieldDataContentType
	fieldDataSchema
	fieldData
	fieldRevision
	fieldReason
	fieldSweep
	fieldOnline
	fieldNotBefore
	fieldSince
	fieldPreviousSince
	fieldAgent
	fieldChanges
	fieldChangesTruncated
)

func (s fieldSet) has(f fieldSet) bool { return s&f != 0 }

func (r *eventReader) member(name []byte) error {
	e := &r.env
	switch string(name) {
	case "specversion":
		return text(r, fieldSpecVersion, &e.SpecVersion, r.last.SpecVersion)
	case "type":
		return text(r, fieldType, &e.Type, r.last.Type)
	case "source":
		return text(r, fieldSource, &e.Source, r.last.Source)
	case "subject":
		return text(r, fieldSubject, &e.Subject, r.last.Subject)
	case "id":
		return text(r, fieldID, &e.ID, r.last.ID)
	case "time":
		return r.time(fieldTime, &e.Time)
	case "datacontenttype":
		_, err := r.plain(fieldDataContentType, `"`)
		return err
	case "dataschema":
		return text(r, fieldDataSchema, &e.DataSchema, r.last.DataSchema)
	case "data":
		if err := r.once(fieldData); err != nil {
			return err
		}
		return r.w.Object(r.data)
	}
	return errUnusual
}

func (r *eventReader) data(name []byte) error {
	d := &r.env.Data
	switch string(name) {
	case "revision":
		return r.number(fieldRevision, &d.Revision)
	case "reason":
		return text(r, fieldReason, &d.Reason, r.last.Data.Reason)
	case "sweep":
		return r.number(fieldSweep, &d.Sweep)
	case "online":
		return r.bool(fieldOnline, &d.Online)
	case "notBefore":
		return r.time(fieldNotBefore, &d.NotBefore)
	case "since":
		return r.time(fieldSince, &d.Since)
	case "previousSince":
		return r.time(fieldPreviousSince, &d.PreviousSince)
	case "agent":
		if err := r.once(fieldAgent); err != nil {
			return err
		}
		return r.w.Object(r.field)
	case "changes":
		return r.changes()
	case "changesTruncated":
		return r.bool(fieldChangesTruncated, &d.ChangesTruncated)
	}
	return errUnusual
}

func (r *eventReader) field(name []byte) error {
	value, err := r.w.Value()
	r.row.Set(name, value)
	return err
}

// once refuses what has been there before.
func (r *eventReader) once(f fieldSet) error {
	if r.seen.has(f) {
		return errUnusual
	}
	r.seen |= f
	return nil
}

// plain reads the value of a field, which begins with one of the given characters.
func (r *eventReader) plain(f fieldSet, first string) ([]byte, error) {
	if err := r.once(f); err != nil {
		return nil, err
	}
	v, err := r.w.Value()
	if err == nil && strings.IndexByte(first, v[0]) < 0 {
		err = errUnusual
	}
	return v, err
}

// text reads a string, which often is the same as that of the event before.
func text[T ~string](r *eventReader, f fieldSet, to *T, last T) error {
	v, err := r.plain(f, `"`)
	if err != nil {
		return err
	}
	if bytes.IndexByte(v, '\\') >= 0 || !utf8.Valid(v) { // it would have to be decoded
		return errUnusual
	}
	if *to = last; string(last) != string(v[1:len(v)-1]) {
		*to = T(v[1 : len(v)-1])
	}
	return nil
}

func (r *eventReader) time(f fieldSet, to *time.Time) error {
	v, err := r.plain(f, `"`)
	if err != nil {
		return err
	}
	return to.UnmarshalJSON(v)
}

func (r *eventReader) number(f fieldSet, to *uint64) error {
	v, err := r.plain(f, "0123456789")
	if err != nil {
		return err
	}
	*to, err = strconv.ParseUint(string(v), 10, 64)
	return err
}

func (r *eventReader) bool(f fieldSet, to *bool) error {
	v, err := r.plain(f, "tf")
	*to = err == nil && v[0] == 't'
	return err
}

// changes skips the changes: they only have to be some.
func (r *eventReader) changes() error {
	if err := r.once(fieldChanges); err != nil {
		return err
	}
	return r.w.Array(func() error {
		for r.w.More() {
			err := r.w.Object(func(name []byte) error {
				v, err := r.w.Value()
				switch string(name) {
				case "from", "to":
					return err
				case "field":
					if err == nil && v[0] == '"' {
						return nil
					}
				}
				return errUnusual
			})
			if err != nil {
				return err
			}
		}
		return r.w.End()
	})
}
