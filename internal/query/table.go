package query

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"unique"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/schemas"
)

// An agent is one state: its body as it stands in the stream, and what questions ask of it.
type agent struct {
	id       int64
	body     []byte // never changes; nil: nobody knows how the agent is
	online   bool
	removed  bool
	capacity int64
	typ      unique.Handle[string] // as a subject token
	area     unique.Handle[string] // areaName; "" where it is absent
}

// A table is a tenant's published state at a watermark.
type table struct {
	agents    []agent // by id
	watermark *schemas.Watermark
	asOf      []byte // the watermark's body; nil: none

	whole   bool    // the states have all been read
	waiting []agent // those of a commit whose watermark has not come
}

// A change is what one message says: one of its fields is set, or none.
type change struct {
	agent     *agent
	watermark *schemas.Watermark
	body      []byte // the watermark's
}

// decode reads a message. Of an agent whose state can't be used, the change says that nobody knows
// how it is, besides the error.
func decode(m jetstream.Msg, tenant int64) (change, error) {
	unusable := func(err error) error {
		return fmt.Errorf("message on %s can't be used: %w", m.Subject(), err)
	}
	subject, err := schemas.ParseSubject(m.Subject())
	if err != nil {
		return change{}, unusable(err)
	}
	// Without the headers, which a message's data shares its memory with.
	body := bytes.Clone(m.Data())
	switch subject.Kind {
	case schemas.KindState:
		e := new(schemas.Event)
		if err = json.Unmarshal(body, e); err == nil &&
			(e.Data.Agent.TenantID != tenant || e.Data.Agent.AgentID != subject.AgentID) {
			err = fmt.Errorf("it is about agent %d of tenant %d",
				e.Data.Agent.AgentID, e.Data.Agent.TenantID)
		}
		if err != nil {
			return change{agent: &agent{id: subject.AgentID}}, unusable(err)
		}
		return change{agent: stated(e, body)}, nil
	case schemas.KindWatermark:
		w := new(schemas.Watermark)
		if err = json.Unmarshal(body, w); err == nil && w.TenantID != tenant {
			err = fmt.Errorf("it is about tenant %d", w.TenantID)
		}
		if err != nil {
			return change{}, unusable(err)
		}
		return change{watermark: w, body: body}, nil
	}
	return change{}, nil
}

func stated(e *schemas.Event, body []byte) *agent {
	a := &agent{id: e.Data.Agent.AgentID, body: body, online: e.Data.Online,
		removed: e.Data.Reason == schemas.Removed, typ: unique.Make(e.Data.Agent.TypeToken())}
	area := ""
	if e.Data.Agent.AreaName != nil {
		area = *e.Data.Agent.AreaName
	}
	a.area = unique.Make(area)
	if e.Data.Agent.Capacity != nil {
		a.capacity = *e.Data.Agent.Capacity
	}
	return a
}

// take takes a change in. A commit's states wait for its watermark, its last message.
func (t *table) take(c change) {
	switch {
	case c.agent != nil && !t.whole:
		t.agents = append(t.agents, *c.agent)
	case c.agent != nil:
		t.waiting = append(t.waiting, *c.agent)
	case c.watermark != nil:
		t.watermark, t.asOf = c.watermark, c.body
		for _, a := range t.waiting {
			t.put(a)
		}
		clear(t.waiting)
		t.waiting = t.waiting[:0]
	}
}

// complete says that the states have all been read.
func (t *table) complete() {
	t.whole = true
	// Of an agent that changed meanwhile, the last state counts.
	slices.SortStableFunc(t.agents, func(a, b agent) int { return cmp.Compare(a.id, b.id) })
	kept := t.agents[:0]
	for i, a := range t.agents {
		last := i == len(t.agents)-1 || t.agents[i+1].id != a.id
		if last && a.body != nil {
			kept = append(kept, a)
		}
	}
	clear(t.agents[len(kept):])
	t.agents = slices.Clip(kept)
}

// put makes a its agent's state.
func (t *table) put(a agent) {
	i, found := t.find(a.id)
	switch {
	case found && a.body == nil:
		t.agents = slices.Delete(t.agents, i, i+1)
	case found:
		t.agents[i] = a
	case a.body != nil:
		t.agents = slices.Insert(t.agents, i, a)
	}
}

// find is where an agent is, or would be.
func (t *table) find(id int64) (int, bool) {
	return slices.BinarySearchFunc(t.agents, id,
		func(a agent, id int64) int { return cmp.Compare(a.id, id) })
}
