package packed

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/rollcall-events/rollcall/internal/fields"
	"github.com/rollcall-events/rollcall/schemas"
)

// Why a row is rejected.
const (
	RejectSyntax = "syntax"       // not a JSON object
	RejectID     = "agentId"      // no usable agentId
	RejectStatus = "onlineStatus" // no usable onlineStatus
	RejectTenant = "tenant"       // of another tenant than the token's
	RejectSize   = "size"         // too large to publish
	RejectText   = "text"         // a documented field is not text in the answer's charset
)

// RowError says why a row is rejected. Its text never repeats the row.
type RowError struct {
	Reason  string // one of the Reject constants
	AgentID int64  // whose row it is, where HasID
	HasID   bool
}

func (e *RowError) Error() string {
	switch e.Reason {
	case RejectSyntax:
		return "not a JSON object"
	case RejectTenant:
		return fmt.Sprintf("agent %d belongs to another tenant than the token", e.AgentID)
	case RejectText:
		return fmt.Sprintf("agent %d has a field that is not text", e.AgentID)
	case RejectSize:
		return fmt.Sprintf("agent %d is too large to publish", e.AgentID)
	case RejectID:
		return "no usable agentId"
	default:
		return fmt.Sprintf("agent %d has no usable %s", e.AgentID, e.Reason)
	}
}

// Decode decodes one row of findOnlineAgent. A number where a string is documented, and the other
// way round, is normalised; a null is the same as an absent field; undocumented fields are kept as
// they are. An absent tenantId means the given tenant; tenant 0 stands for any.
//
// dropped counts the documented fields whose value could not be normalised: they are left out. An
// error is always a *[RowError]: the row has no usable agentId or onlineStatus, or is of another
// tenant.
func Decode(row []byte, tenant int64) (p Agent, dropped int, err error) {
	var values map[string]json.RawMessage
	if err := json.Unmarshal(row, &values); err != nil || values == nil {
		return "", 0, &RowError{Reason: RejectSyntax}
	}
	var r Row
	for name, value := range values {
		r.Set([]byte(name), value)
	}
	return r.Pack(tenant)
}

// A Row is a row of findOnlineAgent, for those who take it apart themselves. The zero Row has no
// fields. It may be used again after Reset.
type Row struct {
	documented []json.RawMessage // by their place in the table; nil: not there
	other      []schemas.Field
	value, all []byte // for Pack
}

// Reset takes all fields out.
func (r *Row) Reset() {
	clear(r.documented)
	r.other = r.other[:0]
}

// Set gives a field its value, valid JSON without white space around it, in place of the one that
// it had. The value is not copied until Pack is called.
func (r *Row) Set(name []byte, value json.RawMessage) {
	i, ok := table.Index(string(name))
	if !ok {
		r.other = append(r.other, schemas.Field{Name: string(name), Value: value})
		return
	}
	if r.documented == nil {
		r.documented = make([]json.RawMessage, len(table.Fields))
	}
	r.documented[i] = value
}

// Get returns the value of a documented field; nil: the row does not have it.
func (r *Row) Get(name string) json.RawMessage {
	if i, ok := table.Index(name); ok && r.documented != nil {
		return r.documented[i]
	}
	return nil
}

// Pack makes an agent of the row, as [Decode] does. It shares no memory with the row.
func (r *Row) Pack(tenant int64) (p Agent, dropped int, err error) {
	id, ok := fields.Integer(r.Get("agentId"))
	if !ok {
		return "", 0, &RowError{Reason: RejectID}
	}
	of, ok := fields.Integer(r.Get("tenantId"))
	switch {
	case !ok:
		of = tenant
	case tenant != 0 && of != tenant:
		return "", 0, &RowError{RejectTenant, id, true}
	}
	if _, ok := fields.Integer(r.Get("onlineStatus")); !ok {
		return "", 0, &RowError{RejectStatus, id, true}
	}
	b := head(r.all[:0], id, true)
	for i, f := range table.Fields {
		value, ok := r.value[:0], false
		if raw := r.documented[i]; raw != nil && !fields.IsNull(raw) {
			if value, ok = fields.Append(value, raw, f.Kind); !ok {
				dropped++
			}
		}
		if i == tenantAt && !ok {
			value = fmt.Append(value, of)
		}
		if i == deleteAt && string(value) == "1" {
			b[0] = absent
		}
		b = appendPiece(b, value)
		r.value = value
	}
	slices.SortStableFunc(
		r.other,
		func(x, y schemas.Field) int { return cmp.Compare(x.Name, y.Name) },
	)
	for i, f := range r.other {
		if i+1 < len(r.other) && r.other[i+1].Name == f.Name {
			continue // of two of the same name the last one counts
		}
		b = appendPiece(appendPiece(b, []byte(f.Name)), f.Value)
	}
	r.all = b
	return Agent(b), dropped, nil
}
