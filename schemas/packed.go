package schemas

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"iter"
	"slices"
	"strconv"
)

// Packed is an agent as it is kept in memory: about a third of the size of an [Agent], in one
// piece, and exactly the same agent when it is unpacked. Two agents are the same if, and only if,
// they are packed the same. The form is nobody else's business and may change; "" is no agent.
type Packed string

// Pack packs the agent.
func (a *Agent) Pack() Packed {
	var buf [1024]byte
	b := binary.AppendVarint(buf[:0], a.AgentID)
	b = binary.AppendVarint(b, a.TenantID)
	b = binary.AppendVarint(b, a.OnlineStatus)
	var has uint64
	for i := range mayLack {
		switch p := mayLack[i].at(a).(type) {
		case **int64:
			has |= uint64(counts(*p != nil)) << i
		case **string:
			has |= uint64(counts(*p != nil)) << i
		}
	}
	b = binary.AppendUvarint(b, has)
	for i := range mayLack {
		if has>>i&1 == 0 {
			continue
		}
		switch p := mayLack[i].at(a).(type) {
		case **int64:
			b = binary.AppendVarint(b, **p)
		case **string:
			b = appendPiece(b, **p)
		}
	}
	for _, f := range a.Other {
		b = appendPiece(b, f.Name)
		b = appendPiece(b, []byte(f.Value))
	}
	return Packed(b)
}

// mayLack are the listed fields that an agent may lack, in order.
var mayLack = listedFields[neverLacking:]

func counts(is bool) int {
	if is {
		return 1
	}
	return 0
}

// Agent unpacks the agent. Its strings share p's memory.
func (p Packed) Agent() (a Agent) {
	var m memory
	var f fields
	f.open(p)
	for i := range listedTable {
		v := f.listed(i)
		if v == "" {
			continue
		}
		switch at := listedTable[i].at(&a).(type) {
		case *int64:
			*at, _ = varint(v)
		case **int64:
			n, _ := varint(v)
			*at = m.number(n)
		case **string:
			s, _ := piece(v)
			*at = m.string(s)
		}
	}
	n := 0
	for rest := f; rest.more(); n++ {
		rest.other()
	}
	if n > 0 {
		a.Other = make([]Field, n)
	}
	for i := range a.Other {
		name, v := f.other()
		a.Other[i] = Field{name, json.RawMessage(v)}
	}
	return a
}

// AgentID returns the agent's id.
func (p Packed) AgentID() int64 {
	id, _ := varint(p)
	return id
}

// TenantID returns the agent's tenant.
func (p Packed) TenantID() int64 {
	_, rest := varint(p)
	id, _ := varint(rest)
	return id
}

// Type returns the agent's type; ok is false where it has none.
func (p Packed) Type() (t string, ok bool) {
	v, ok := p.field(typeAt)
	if ok {
		t, _ = piece(v)
	}
	return t, ok
}

// TypeToken is [Agent.TypeToken].
func (p Packed) TypeToken() string {
	if t, ok := p.Type(); ok && isTypeToken(t) {
		return t
	}
	return NoType
}

// There is [Agent.There].
func (p Packed) There() bool {
	v, ok := p.field(deleteFlagAt)
	if !ok {
		return true
	}
	flag, _ := varint(v)
	return flag != 1
}

// Online is [Agent.Online].
func (p Packed) Online() bool {
	_, rest := uvarint(p)
	_, rest = uvarint(rest)
	status, _ := varint(rest)
	return status == 1 && p.There()
}

// Differing yields the names of the fields in which p and q differ, in no particular order. Listed
// fields differ by value, the others by their bytes. Neither may be "".
func (p Packed) Differing(q Packed) iter.Seq[string] {
	return func(yield func(string) bool) {
		for name := range p.differing(q) {
			if !yield(name) {
				return
			}
		}
	}
}

// Changes lists every field in which to differs from p, in the order of the field names. Neither
// may be "".
func (p Packed) Changes(to Packed) []Change {
	var cs []Change
	for name, values := range p.differing(to) {
		if cs == nil {
			cs = make([]Change, 0, 4) // seldom more
		}
		cs = append(cs, Change{name, values[0].json(), values[1].json()})
	}
	slices.SortFunc(cs, func(a, b Change) int { return cmp.Compare(a.Field, b.Field) })
	return cs
}

// A value is a field's value as it is packed.
type value struct {
	packed Packed // "": absent
	kind   kind
}

type kind uint8

const (
	numberKind kind = iota // a varint
	textKind               // a piece
	otherKind              // JSON
)

// json is the value's encoding, nil where it is absent.
func (v value) json() json.RawMessage {
	switch {
	case v.packed == "":
		return nil
	case v.kind == numberKind:
		n, _ := varint(v.packed)
		return strconv.AppendInt(nil, n, 10)
	case v.kind == textKind:
		s, _ := piece(v.packed)
		return appendString(make([]byte, 0, len(s)+2), s)
	default:
		return json.RawMessage(v.packed)
	}
}

// differing yields the fields in which p and q differ, with both values.
func (p Packed) differing(q Packed) iter.Seq2[string, [2]value] {
	return func(yield func(string, [2]value) bool) {
		if p == q {
			return
		}
		var a, b fields
		a.open(p)
		b.open(q)
		for i := range listedTable {
			v, w := a.listed(i), b.listed(i)
			if v != w && !yield(listedTable[i].name, [2]value{{v, kinds[i]}, {w, kinds[i]}}) {
				return
			}
		}
		for a.more() || b.more() {
			var name string
			var v, w Packed
			switch {
			case !b.more() || a.more() && a.name() < b.name():
				name, v = a.other()
			case !a.more() || a.name() > b.name():
				name, w = b.other()
			default:
				name, v = a.other()
				_, w = b.other()
			}
			if v != w && !yield(name, [2]value{{v, otherKind}, {w, otherKind}}) {
				return
			}
		}
	}
}

// fields reads the fields of a packed agent, one after another.
type fields struct {
	rest Packed
	has  uint64 // of the fields that may be lacking, whether the first that is yet to be read is there
}

// open begins with p's first field.
func (f *fields) open(p Packed) { *f = fields{rest: p} }

// listed returns a listed field's value as it is packed, "" where it is absent. They are asked for
// one after another.
func (f *fields) listed(i int) Packed {
	if i == neverLacking {
		f.has, f.rest = uvarint(f.rest)
	}
	if i >= neverLacking {
		has := f.has&1 == 1
		if f.has >>= 1; !has {
			return ""
		}
	}
	n := 0
	if kinds[i] == textKind {
		length, rest := uvarint(f.rest)
		n = len(f.rest) - len(rest) + int(length)
	} else {
		for f.rest[n] >= 0x80 {
			n++
		}
		n++
	}
	v := f.rest[:n]
	f.rest = f.rest[n:]
	return v
}

// more reports whether there is another field, behind the listed ones.
func (f *fields) more() bool { return len(f.rest) > 0 }

// name returns that field's name.
func (f *fields) name() string {
	name, _ := piece(f.rest)
	return name
}

// other returns that field's name and value, and goes on behind it.
func (f *fields) other() (name string, v Packed) {
	var value string
	name, f.rest = piece(f.rest)
	value, f.rest = piece(f.rest)
	return name, Packed(value)
}

// field returns one of the listed fields that may be lacking as it is packed; ok is false where it
// is.
func (p Packed) field(i int) (v Packed, ok bool) {
	var f fields
	f.open(p)
	for at := range i {
		f.listed(at)
	}
	v = f.listed(i)
	return v, v != ""
}

// neverLacking is how many listed fields, the first ones, every agent has.
const neverLacking = 3

var kinds = func() (kinds [len(listedTable)]kind) {
	for i := range listedTable {
		if _, ok := listedTable[i].at(&Agent{}).(**string); ok {
			kinds[i] = textKind
		}
	}
	return kinds
}()

// Size is about how many bytes the agent's encoding has, as [Agent.Size]; 0 for "".
func (p Packed) Size() int {
	if p == "" {
		return 0
	}
	return len(p) + 512
}

// Where some fields stand among the listed ones.
var typeAt, deleteFlagAt = listedAt("type"), listedAt("deleteFlag")

func listedAt(name string) int {
	return slices.IndexFunc(listedTable[:], func(f listedField) bool { return f.name == name })
}

func appendPiece[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func piece(p Packed) (string, Packed) {
	n, p := uvarint(p)
	return string(p[:n]), p[n:]
}

func uvarint(p Packed) (v uint64, rest Packed) {
	for i := 0; ; i++ {
		c := p[i]
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			return v, p[i+1:]
		}
	}
}

func varint(p Packed) (int64, Packed) {
	u, rest := uvarint(p)
	return int64(u>>1) ^ -int64(u&1), rest
}
