package schemas

import (
	"cmp"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
)

// Agent is one row of findOnlineAgent. A nil field was absent (or null, which the vendor uses for
// the same thing).
//
// The fields and their types are those of the vendor's table of findOnlineAgent, plus appName and
// entityName, which its example answers carry and no table lists.
type Agent struct {
	AgentID      int64 // the identity of an agent within its tenant; may exceed 2^53
	TenantID     int64
	OnlineStatus int64 // 1 online, anything else not; see [Agent.Online]

	UserID       *int64
	AgentCode    *string // a UUID
	AgentAccount *string
	AgentName    *string
	Type         *string // business type: 0 safety, 1 quality, 2 patrol inspection, 10 video call

	ProductType   *string
	DeliveryScene *string
	BusinessType  *string

	AreaName *string
	CityID   *string

	IsArea     *int64 // assigned by area or not
	Capacity   *int64 // how many live rooms at once
	DeleteFlag *int64 // 1 deleted; see [Agent.There]

	AgentSignInTime *int64
	AgentSignInDate *int64

	CreatedBy      *int64
	LastUpdatedBy  *int64
	CreateName     *string
	LastUpdateName *string

	CreationTimestamp   *int64 // milliseconds since 1970
	LastUpdateTimestamp *int64 // milliseconds since 1970
	CreationDate        *string
	LastUpdateDate      *string // lags LastUpdateTimestamp in the vendor's own examples

	AppName    *string
	EntityName *string

	// Other holds the fields that no table lists, sorted by name, each value exactly as it came.
	Other []Field
}

// Field is one field of an agent in its encoded form.
type Field struct {
	Name  string
	Value json.RawMessage
}

// There reports whether a listed agent counts as there: deleted agents do not.
func (a *Agent) There() bool { return a.DeleteFlag == nil || *a.DeleteFlag != 1 }

// Online reports whether a listed agent is online: there, and with onlineStatus 1.
func (a *Agent) Online() bool { return a.There() && a.OnlineStatus == 1 }

// TypeToken is the subject token for the agent's type: the type itself, or "_" where it is missing
// or not of the form [A-Za-z0-9-]{1,32}.
func (a *Agent) TypeToken() string {
	if a.Type == nil || !isTypeToken(*a.Type) {
		return NoType
	}
	return *a.Type
}

// A listed field of the agent. at returns where an Agent keeps it: *int64 (always present), **int64
// or **string.
type listedField struct {
	name string
	date bool // a string that holds a date
	at   func(*Agent) any

	index int    // its place in listedFields
	key   string // its name as it begins a field that is not the first: ,"name":
}

// The listed fields in the order in which they are encoded.
var listedTable = [...]listedField{
	{name: "agentId", at: func(a *Agent) any { return &a.AgentID }},
	{name: "tenantId", at: func(a *Agent) any { return &a.TenantID }},
	{name: "onlineStatus", at: func(a *Agent) any { return &a.OnlineStatus }},
	{name: "userId", at: func(a *Agent) any { return &a.UserID }},
	{name: "agentCode", at: func(a *Agent) any { return &a.AgentCode }},
	{name: "agentAccount", at: func(a *Agent) any { return &a.AgentAccount }},
	{name: "agentName", at: func(a *Agent) any { return &a.AgentName }},
	{name: "type", at: func(a *Agent) any { return &a.Type }},
	{name: "productType", at: func(a *Agent) any { return &a.ProductType }},
	{name: "deliveryScene", at: func(a *Agent) any { return &a.DeliveryScene }},
	{name: "businessType", at: func(a *Agent) any { return &a.BusinessType }},
	{name: "areaName", at: func(a *Agent) any { return &a.AreaName }},
	{name: "cityId", at: func(a *Agent) any { return &a.CityID }},
	{name: "isArea", at: func(a *Agent) any { return &a.IsArea }},
	{name: "capacity", at: func(a *Agent) any { return &a.Capacity }},
	{name: "deleteFlag", at: func(a *Agent) any { return &a.DeleteFlag }},
	{name: "agentSignInTime", at: func(a *Agent) any { return &a.AgentSignInTime }},
	{name: "agentSignInDate", at: func(a *Agent) any { return &a.AgentSignInDate }},
	{name: "createdBy", at: func(a *Agent) any { return &a.CreatedBy }},
	{name: "lastUpdatedBy", at: func(a *Agent) any { return &a.LastUpdatedBy }},
	{name: "createName", at: func(a *Agent) any { return &a.CreateName }},
	{name: "lastUpdateName", at: func(a *Agent) any { return &a.LastUpdateName }},
	{name: "creationTimestamp", at: func(a *Agent) any { return &a.CreationTimestamp }},
	{name: "lastUpdateTimestamp", at: func(a *Agent) any { return &a.LastUpdateTimestamp }},
	{name: "creationDate", date: true, at: func(a *Agent) any { return &a.CreationDate }},
	{name: "lastUpdateDate", date: true, at: func(a *Agent) any { return &a.LastUpdateDate }},
	{name: "appName", at: func(a *Agent) any { return &a.AppName }},
	{name: "entityName", at: func(a *Agent) any { return &a.EntityName }},
}

var listedFields = listedTable[:]

var listedByName = func() map[string]*listedField {
	m := make(map[string]*listedField, len(listedFields))
	for i := range listedFields {
		listedFields[i].index = i
		listedFields[i].key = `,"` + listedFields[i].name + `":`
		m[listedFields[i].name] = &listedFields[i]
	}
	return m
}()

// Listed reports whether the vendor's documentation lists a field of that name.
func Listed(name string) bool {
	_, ok := listedByName[name]
	return ok
}

// Field returns the encoded value of the named field, and whether the agent has it.
func (a *Agent) Field(name string) (json.RawMessage, bool) {
	if f, ok := listedByName[name]; ok {
		b := appendListed(nil, f.at(a))
		return b, b != nil
	}
	i, ok := slices.BinarySearchFunc(a.Other, name, func(f Field, n string) int { return cmp.Compare(f.Name, n) })
	if !ok {
		return nil, false
	}
	return a.Other[i].Value, true
}

// Differing yields the names of the fields in which a and b differ, in no particular order. Listed
// fields differ by value, the others by their bytes.
func Differing(a, b *Agent) iter.Seq[string] { return a.Pack().Differing(b.Pack()) }

// Changes lists every field in which to differs from from, in the order of the field names.
func Changes(from, to *Agent) []Change { return from.Pack().Changes(to.Pack()) }

// Revert returns the agent as it was before the changes that led to a: Revert(b, Changes(a, b))
// equals a. Where an event's changes are truncated, what it returns is right in the listed fields
// only.
func Revert(a *Agent, changes []Change) (*Agent, error) {
	r := *a
	r.Other = slices.Clone(a.Other)
	for _, c := range changes {
		if f, ok := listedByName[c.Field]; ok {
			if !new(memory).setListed(f, &r, c.From) {
				return nil, fmt.Errorf("schemas: revert field %s of agent %d: %q is no value for it", c.Field, a.AgentID, c.From)
			}
			continue
		}
		i, found := slices.BinarySearchFunc(r.Other, c.Field, func(f Field, n string) int { return cmp.Compare(f.Name, n) })
		switch {
		case c.From == nil && found:
			r.Other = slices.Delete(r.Other, i, i+1)
		case c.From != nil && found:
			r.Other[i].Value = c.From
		case c.From != nil:
			r.Other = slices.Insert(r.Other, i, Field{c.Field, c.From})
		}
	}
	return &r, nil
}

// AppendJSON appends the agent's encoding: the listed fields that it has, then the others by name.
func (a *Agent) AppendJSON(b []byte) []byte {
	o := object{b: append(b, '{')}
	for i := range listedFields {
		f := &listedFields[i]
		before := len(o.b)
		key := f.key
		if i == 0 { // which every agent has
			key = key[1:]
		}
		if v := appendListed(append(o.b, key...), f.at(a)); v != nil {
			o.b = v
		} else {
			o.b = o.b[:before]
		}
	}
	for _, f := range a.Other {
		o.raw(f.Name, f.Value)
	}
	return o.end()
}

// Size is about how many bytes the agent's encoding has, at little cost: within a few hundred bytes
// where nothing in it has to be escaped.
func (a *Agent) Size() int {
	n := 512 // names and numbers
	for _, f := range listedFields {
		if s, ok := f.at(a).(**string); ok && *s != nil {
			n += len(**s)
		}
	}
	for _, f := range a.Other {
		n += len(f.Name) + len(f.Value) + len(`"":,`)
	}
	return n
}

// MarshalJSON implements [json.Marshaler]; see the package comment for how it differs from
// AppendJSON.
func (a Agent) MarshalJSON() ([]byte, error) { return a.AppendJSON(nil), nil }

// UnmarshalJSON decodes an agent as [DecodeAgent] does, of whatever tenant.
func (a *Agent) UnmarshalJSON(b []byte) error {
	d, _, err := DecodeAgent(b, 0)
	if err != nil {
		return err
	}
	*a = d
	return nil
}
