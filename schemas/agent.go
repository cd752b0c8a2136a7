package schemas

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/rollcall-events/rollcall/internal/fields"
)

// Agent is one row of findOnlineAgent. A nil field was absent (or null, which the vendor uses for
// the same thing).
//
// The fields and their types are those of the vendor's table of findOnlineAgent, plus appName and
// entityName, which its example answers carry and no table lists. The json tags say which fields
// are documented: a field that is added here is read, compared, listed in changes and encoded.
type Agent struct {
	AgentID      int64 `json:"agentId"` // identifies it within its tenant; may exceed 2^53
	TenantID     int64 `json:"tenantId"`
	OnlineStatus int64 `json:"onlineStatus"` // 1 online, anything else not; see [Agent.Online]

	UserID       *int64  `json:"userId"`
	AgentCode    *string `json:"agentCode"` // a UUID
	AgentAccount *string `json:"agentAccount"`
	AgentName    *string `json:"agentName"`
	Type         *string `json:"type"` // 0 safety, 1 quality, 2 patrol inspection, 10 video call

	ProductType   *string `json:"productType"`
	DeliveryScene *string `json:"deliveryScene"`
	BusinessType  *string `json:"businessType"`

	AreaName *string `json:"areaName"`
	CityID   *string `json:"cityId"`

	IsArea     *int64 `json:"isArea"`     // assigned by area or not
	Capacity   *int64 `json:"capacity"`   // how many live rooms at once
	DeleteFlag *int64 `json:"deleteFlag"` // 1 deleted; see [Agent.There]

	AgentSignInTime *int64 `json:"agentSignInTime"`
	AgentSignInDate *int64 `json:"agentSignInDate"`

	CreatedBy      *int64  `json:"createdBy"`
	LastUpdatedBy  *int64  `json:"lastUpdatedBy"`
	CreateName     *string `json:"createName"`
	LastUpdateName *string `json:"lastUpdateName"`

	CreationTimestamp   *int64  `json:"creationTimestamp"`   // milliseconds since 1970
	LastUpdateTimestamp *int64  `json:"lastUpdateTimestamp"` // milliseconds; LastUpdateDate lags it
	CreationDate        *string `json:"creationDate" kind:"date"`
	LastUpdateDate      *string `json:"lastUpdateDate" kind:"date"`

	AppName    *string `json:"appName"`
	EntityName *string `json:"entityName"`

	// Other holds the fields that no table lists, sorted by name, each value exactly as it came.
	Other []Field
}

// Field is one field of an agent in its encoded form.
type Field struct {
	Name  string
	Value json.RawMessage
}

// The business types that the vendor documents, as agents have them in Type and subjects have them
// ([Agent.TypeToken]). There may be others.
const (
	TypeSafety  = "0"  // safety inspection
	TypeQuality = "1"  // quality inspection
	TypePatrol  = "2"  // patrol inspection
	TypeVideo   = "10" // video calls
)

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

// documented are the agent's documented fields; their places are those of the struct.
var documented = fields.TableOf[Agent]()

// at points to a documented field: *int64, **int64 or **string.
func (a *Agent) at(i int) any { return reflect.ValueOf(a).Elem().Field(i).Addr().Interface() }

// Listed reports whether the vendor's documentation lists a field of that name.
func Listed(name string) bool {
	_, ok := documented.Index(name)
	return ok
}

// Field returns the encoded value of the named field, and whether the agent has it.
func (a *Agent) Field(name string) (json.RawMessage, bool) {
	if i, ok := documented.Index(name); ok {
		b := appendValue(nil, a.at(i))
		return b, b != nil
	}
	i, ok := a.findOther(name)
	if !ok {
		return nil, false
	}
	return a.Other[i].Value, true
}

// SetField gives the named field an encoded value; nil makes it absent. In a documented field a
// number where a string is documented, and the other way round, is normalised. It reports false,
// and does nothing, where the value can't be.
func (a *Agent) SetField(name string, value json.RawMessage) bool {
	if i, ok := documented.Index(name); ok {
		return a.setDocumented(i, value)
	}
	switch i, found := a.findOther(name); {
	case value == nil && found:
		a.Other = slices.Delete(a.Other, i, i+1)
	case value == nil:
	case found:
		a.Other[i].Value = value
	default:
		a.Other = slices.Insert(a.Other, i, Field{name, value})
	}
	return true
}

func (a *Agent) setDocumented(i int, value json.RawMessage) bool {
	f := documented.Fields[i]
	if value == nil {
		if !f.Required {
			reflect.ValueOf(a).Elem().Field(i).SetZero()
		}
		return !f.Required
	}
	switch p := a.at(i).(type) {
	case *int64:
		n, ok := fields.Integer(value)
		if ok {
			*p = n
		}
		return ok
	case **int64:
		n, ok := fields.Integer(value)
		if ok {
			*p = &n
		}
		return ok
	default:
		s, ok := fields.AsText(value, f.Kind)
		if ok {
			*p.(**string) = &s
		}
		return ok
	}
}

func (a *Agent) findOther(name string) (i int, found bool) {
	return slices.BinarySearchFunc(a.Other, name,
		func(f Field, n string) int { return cmp.Compare(f.Name, n) })
}

// Changes lists every field in which to differs from from, in the order of the field names.
// Documented fields differ by value, the others by their bytes.
func Changes(from, to *Agent) (changes []Change) {
	names := make(map[string]bool)
	for _, f := range documented.Fields {
		names[f.Name] = true
	}
	for _, f := range slices.Concat(from.Other, to.Other) {
		names[f.Name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		was, _ := from.Field(name)
		is, _ := to.Field(name)
		if !bytes.Equal(was, is) {
			changes = append(changes, Change{name, was, is})
		}
	}
	return changes
}

// Revert returns the agent as it was before the changes that led to a: Revert(b, Changes(a, b))
// equals a. Where an event's changes are truncated, what it returns is right in the documented
// fields only.
func Revert(a *Agent, changes []Change) (*Agent, error) {
	r := *a
	r.Other = slices.Clone(a.Other)
	for _, c := range changes {
		if !r.SetField(c.Field, c.From) {
			return nil, fmt.Errorf("schemas: revert field %s of agent %d: %q is no value for it",
				c.Field, a.AgentID, c.From)
		}
	}
	return &r, nil
}

// AppendJSON appends the agent's encoding: the documented fields that it has, then the others by
// name.
func (a *Agent) AppendJSON(b []byte) []byte {
	o := beginObject(b)
	for i, f := range documented.Fields {
		before := len(o.b)
		o.key(f.Name)
		if v := appendValue(o.b, a.at(i)); v != nil {
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

// MarshalJSON implements [json.Marshaler]; see the package comment for how it differs from
// AppendJSON.
func (a Agent) MarshalJSON() ([]byte, error) { return a.AppendJSON(nil), nil }

// UnmarshalJSON decodes an agent. A value of another type than the documented one is normalised
// where it can be, and else left out; so is a null. An agent without a usable agentId or
// onlineStatus is refused.
func (a *Agent) UnmarshalJSON(b []byte) error {
	var values map[string]json.RawMessage
	if err := json.Unmarshal(b, &values); err != nil {
		return fmt.Errorf("schemas: decode agent: %w", err)
	}
	var d Agent
	for name, value := range values {
		if !Listed(name) {
			d.Other = append(d.Other, Field{name, value})
		} else if !fields.IsNull(value) && !d.SetField(name, value) {
			delete(values, name)
		}
	}
	for _, name := range []string{"agentId", "onlineStatus"} {
		if v, ok := values[name]; !ok || fields.IsNull(v) {
			return fmt.Errorf("schemas: decode agent: no usable %s", name)
		}
	}
	slices.SortFunc(d.Other, func(x, y Field) int { return cmp.Compare(x.Name, y.Name) })
	*a = d
	return nil
}
