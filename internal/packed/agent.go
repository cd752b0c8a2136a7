// Package packed holds an agent in the form in which rollcall keeps and compares it, makes it from
// a row of the listing, and turns it into the agent of an event.
package packed

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/rollcall-events/rollcall/internal/fields"
	"github.com/rollcall-events/rollcall/schemas"
)

// Agent is an agent as it is kept in memory: whether it is there and which one it is, which every
// sweep asks of everybody, and then the canonical encodings of its values, each behind its length,
// those of documented fields first and without their names. It is about half as long as the agent's
// JSON. Two agents are the same if, and only if, they are packed the same. The form is nobody
// else's business and may change; "" is no agent.
type Agent string

// What an agent begins with: whether it is there, and its id in eight bytes.
const (
	absent   = '-' // it is deleted
	present  = '+'
	headSize = 1 + 8
)

func head(b []byte, id int64, there bool) []byte {
	first := byte(present)
	if !there {
		first = absent
	}
	return binary.BigEndian.AppendUint64(append(b, first), uint64(id))
}

var table = fields.TableOf[schemas.Agent]()

// Where some documented fields stand in the table.
var (
	tenantAt = at("tenantId")
	statusAt = at("onlineStatus")
	typeAt   = at("type")
	deleteAt = at("deleteFlag")

	capacityAt = at("capacity")
)

func at(name string) int {
	i, ok := table.Index(name)
	if !ok {
		panic("schemas.Agent has no field " + name)
	}
	return i
}

// Pack packs an agent.
func Pack(a *schemas.Agent) Agent {
	b := head(nil, a.AgentID, a.There())
	for _, f := range table.Fields {
		v, _ := a.Field(f.Name)
		b = appendPiece(b, v)
	}
	for _, f := range a.Other {
		b = appendPiece(appendPiece(b, []byte(f.Name)), f.Value)
	}
	return Agent(b)
}

// Unpack returns the agent.
func (p Agent) Unpack() (a schemas.Agent) {
	rest := string(p[headSize:])
	var v string
	for _, f := range table.Fields {
		if v, rest = cut(rest); v != "" {
			a.SetField(f.Name, json.RawMessage(v))
		}
	}
	for rest != "" {
		var f schemas.Field
		f.Name, rest = cut(rest)
		v, rest = cut(rest)
		f.Value = json.RawMessage(v)
		a.Other = append(a.Other, f)
	}
	return a
}

// AgentID returns the agent's id.
func (p Agent) AgentID() int64 { return int64(binary.BigEndian.Uint64([]byte(p[1:headSize]))) }

// TenantID returns the agent's tenant.
func (p Agent) TenantID() int64 { return p.number(tenantAt) }

// Type returns the agent's type; ok is false where it has none.
func (p Agent) Type() (t string, ok bool) { return fields.Unquote([]byte(p.value(typeAt))) }

// TypeToken is [schemas.Agent.TypeToken].
func (p Agent) TypeToken() string {
	t, ok := p.Type()
	if !ok {
		return schemas.NoType
	}
	return (&schemas.Agent{Type: &t}).TypeToken()
}

// Capacity returns the agent's capacity, 0 where it has none.
func (p Agent) Capacity() int64 { return p.number(capacityAt) }

// There is [schemas.Agent.There].
func (p Agent) There() bool { return p[0] == present }

// Online is [schemas.Agent.Online].
func (p Agent) Online() bool { return p.value(statusAt) == "1" && p.There() }

// Size is about how many bytes the agent's JSON has; 0 for "".
func (p Agent) Size() int {
	if p == "" {
		return 0
	}
	return len(p) + namesSize
}

// namesSize is what the names of the documented fields take in an agent's JSON.
const namesSize = 480

// Differing yields the names of the fields in which p and q differ, in no particular order. Neither
// may be "".
func (p Agent) Differing(q Agent) iter.Seq[string] {
	return func(yield func(string) bool) {
		for name := range p.differences(q) {
			if !yield(name) {
				return
			}
		}
	}
}

// Changes lists every field in which to differs from p, in the order of the field names. Neither
// may be "".
func (p Agent) Changes(to Agent) (changes []schemas.Change) {
	for name, v := range p.differences(to) {
		changes = append(changes, schemas.Change{Field: name, From: raw(v.from), To: raw(v.to)})
	}
	slices.SortFunc(changes, func(a, b schemas.Change) int { return cmp.Compare(a.Field, b.Field) })
	return changes
}

func raw(v string) json.RawMessage {
	if v == "" {
		return nil
	}
	return json.RawMessage(v)
}

// A difference is what two agents have in a field: "" where one does not have it.
type difference struct{ from, to string }

func (p Agent) differences(q Agent) iter.Seq2[string, difference] {
	return func(yield func(string, difference) bool) {
		a, b := string(p[headSize:]), string(q[headSize:])
		var d difference
		for _, f := range table.Fields {
			d.from, a = cut(a)
			d.to, b = cut(b)
			if d.from != d.to && !yield(f.Name, d) {
				return
			}
		}
		for a != "" || b != "" {
			order := 0 // of the next names
			switch {
			case a == "":
				order = 1
			case b == "":
				order = -1
			default:
				x, _ := cut(a)
				y, _ := cut(b)
				order = strings.Compare(x, y)
			}
			var name string
			d = difference{}
			if order <= 0 {
				name, a = cut(a)
				d.from, a = cut(a)
			}
			if order >= 0 {
				name, b = cut(b)
				d.to, b = cut(b)
			}
			if d.from != d.to && !yield(name, d) {
				return
			}
		}
	}
}

// value returns a documented field's value, "" where the agent does not have it.
func (p Agent) value(i int) string {
	v, rest := cut(string(p[headSize:]))
	for range i {
		v, rest = cut(rest)
	}
	return v
}

func (p Agent) number(i int) int64 {
	v, _ := strconv.ParseInt(p.value(i), 10, 64)
	return v
}

func appendPiece(b, piece []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(piece))), piece...)
}

// cut returns the piece that s begins with, and what is behind it.
func cut(s string) (piece, rest string) {
	n, at := 0, 0
	for shift := 0; ; shift += 7 {
		c := s[at]
		at++
		n |= int(c&0x7f) << shift
		if c < 0x80 {
			return s[at : at+n], s[at+n:]
		}
	}
}
