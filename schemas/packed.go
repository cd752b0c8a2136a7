package schemas

import (
	"encoding/binary"
	"encoding/json"
	"slices"
)

// Packed is an agent as it is kept in memory: about a third of the size of an [Agent], in one piece, and exactly the same agent
// when it is unpacked. Two agents are the same if, and only if, they are packed the same. The form is nobody else's business
// and may change; "" is no agent.
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
		b = appendPiece(b, string(f.Value))
	}
	return Packed(b)
}

// mayLack are the listed fields that an agent may lack, in order.
var mayLack = listedFields[3:]

func counts(is bool) int {
	if is {
		return 1
	}
	return 0
}

// Agent unpacks the agent. Its strings share p's memory.
func (p Packed) Agent() Agent {
	a, rest := p.unpack(len(mayLack))
	var pieces int
	for r := rest; len(r) > 0; pieces++ {
		_, r = piece(r)
	}
	if pieces > 0 {
		a.Other = make([]Field, pieces/2)
	}
	for i := range a.Other {
		var value string
		a.Other[i].Name, rest = piece(rest)
		value, rest = piece(rest)
		a.Other[i].Value = json.RawMessage(value)
	}
	return a
}

// Type returns the agent's type, nil where it has none.
func (p Packed) Type() *string {
	a, _ := p.unpack(typeAt + 1)
	return a.Type
}

// There is [Agent.There].
func (p Packed) There() bool {
	a, _ := p.unpack(deleteFlagAt + 1)
	return a.There()
}

// Size is about how many bytes the agent's encoding has, as [Agent.Size]; 0 for "".
func (p Packed) Size() int {
	if p == "" {
		return 0
	}
	return len(p) + 512
}

// Where some fields stand among those.
var typeAt, deleteFlagAt = mayLackAt("type"), mayLackAt("deleteFlag")

func mayLackAt(name string) int {
	return slices.IndexFunc(mayLack, func(f listedField) bool { return f.name == name })
}

// unpack unpacks an agent without Other and with only the first n of the fields that it may lack, and returns what is left.
func (p Packed) unpack(n int) (a Agent, rest Packed) {
	rest = p
	a.AgentID, rest = varint(rest)
	a.TenantID, rest = varint(rest)
	a.OnlineStatus, rest = varint(rest)
	has, rest := uvarint(rest)
	var m memory
	for i := range n {
		if has>>i&1 == 0 {
			continue
		}
		switch p := mayLack[i].at(&a).(type) {
		case **int64:
			var v int64
			v, rest = varint(rest)
			*p = m.number(v)
		case **string:
			var v string
			v, rest = piece(rest)
			*p = m.string(v)
		}
	}
	return a, rest
}

func appendPiece(b []byte, s string) []byte {
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
