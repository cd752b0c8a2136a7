package schemas

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Why a row can't be used.
const (
	RejectSyntax = "syntax"       // not a JSON object
	RejectID     = "agentId"      // no usable agentId
	RejectStatus = "onlineStatus" // no usable onlineStatus
	RejectTenant = "tenant"       // of another tenant than the token's
	RejectSize   = "size"         // too large to publish
	RejectText   = "text"         // a listed field is not text in the answer's charset
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

// DecodeAgent decodes one row of findOnlineAgent. A number where a string is documented, and the
// other way round, is normalised; a null is the same as an absent field; fields that no table lists
// are kept as they are. An absent tenantId means the given tenant; tenant 0 stands for any.
//
// dropped counts the listed fields whose value could not be normalised: they are left out. An error
// is always a *[RowError]: the row has no usable agentId or onlineStatus, or is of another tenant.
func DecodeAgent(row []byte, tenant int64) (a Agent, dropped int, err error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(row, &fields); err != nil || fields == nil {
		return Agent{}, 0, &RowError{Reason: RejectSyntax}
	}
	var r Row
	for name, raw := range fields {
		r.Set([]byte(name), raw)
	}
	return r.Agent(tenant)
}

// A Row is a row of findOnlineAgent taken apart, for those who do so themselves. The zero Row has
// no fields. A Row that is used again, after Reset, is faster where the next one has the same
// fields in the same order, as the rows of a listing do.
type Row struct {
	listed [len(listedTable)]json.RawMessage // in the order of listedFields; nil: not there
	other  []Field
	buf    []byte // what has been packed so far
	seats  []seat // the fields of this row and the one before it, in the order in which they came …
	next   int    // … and how many of them are this one's
}

// A seat is the place of a field that has been looked up once.
type seat struct {
	name   string
	listed int // its index in listedFields; -1: it is not listed
}

// Reset takes all fields out.
func (r *Row) Reset() {
	if len(r.seats) > maxSeats {
		r.seats = nil
	}
	*r = Row{other: r.other[:0], buf: r.buf[:0], seats: r.seats}
}

// maxSeats is more fields than rows have, but for monstrous ones.
const maxSeats = 200

// Set gives a field its value, valid JSON without white space around it, in place of the one that
// it had. The value is not copied until Agent or Pack is called.
func (r *Row) Set(name []byte, value json.RawMessage) {
	if r.next == len(r.seats) {
		r.seats = append(r.seats, seat{listed: -1})
	}
	s := &r.seats[r.next]
	if r.next++; s.name != string(name) {
		*s = seat{string(name), -1}
		if f, ok := listedByName[s.name]; ok {
			s.listed = f.index
		}
	}
	if s.listed >= 0 {
		r.listed[s.listed] = value
	} else {
		r.other = append(r.other, Field{s.name, value})
	}
}

// Get returns the value of a listed field; nil: the row does not have it.
func (r *Row) Get(name string) json.RawMessage {
	f, ok := listedByName[name]
	if !ok {
		return nil
	}
	return r.listed[f.index]
}

// Agent makes an agent of the row, as [DecodeAgent] does. It shares no memory with the row.
func (r *Row) Agent(tenant int64) (a Agent, dropped int, err error) {
	p, dropped, err := r.Pack(tenant)
	if err != nil {
		return Agent{}, 0, err
	}
	return p.Agent(), dropped, nil
}

// Pack makes a packed agent of the row: Agent's, packed.
func (r *Row) Pack(tenant int64) (p Packed, dropped int, err error) {
	id, ok := integer(r.listed[idAt])
	if !ok {
		return "", 0, &RowError{Reason: RejectID}
	}
	rejected := func(reason string) (Packed, int, error) {
		return "", 0, &RowError{Reason: reason, AgentID: id, HasID: true}
	}
	of := tenant
	if raw := r.listed[tenantAt]; raw != nil && !isNull(raw) {
		if v, ok := integer(raw); ok {
			of = v
		} else {
			dropped++
		}
	}
	if tenant != 0 && of != tenant {
		return rejected(RejectTenant)
	}
	status, ok := integer(r.listed[statusAt])
	if !ok {
		return rejected(RejectStatus)
	}
	var has uint64
	values := append(r.buf[:0], make([]byte, maxHead)...) // room for what comes first, and is known last
	for i := range mayLack {
		raw := r.listed[neverLacking+i]
		if raw == nil || isNull(raw) {
			continue
		}
		if v, ok := appendPacked(values, raw, &mayLack[i]); ok {
			has |= 1 << i
			values = v
		} else {
			dropped++
		}
	}
	slices.SortStableFunc(r.other, func(x, y Field) int { return cmp.Compare(x.Name, y.Name) })
	for i, f := range r.other {
		if i+1 < len(r.other) && r.other[i+1].Name == f.Name {
			continue // of two of the same name the last one counts
		}
		values = appendPiece(values, f.Name)
		values = appendPiece(values, []byte(f.Value))
	}
	r.buf = values
	var head [maxHead]byte
	b := binary.AppendVarint(head[:0], id)
	b = binary.AppendVarint(b, of)
	b = binary.AppendVarint(b, status)
	b = binary.AppendUvarint(b, has)
	return Packed(values[maxHead-copy(values[maxHead-len(b):], b):]), dropped, nil
}

// maxHead is the longest that the fields which every agent has are packed, and which of the others
// there are, in bytes.
const maxHead = 4 * binary.MaxVarintLen64

// appendPacked packs a listed field's value, normalised. It reports whether it could.
func appendPacked(b []byte, raw json.RawMessage, f *listedField) ([]byte, bool) {
	if kinds[f.index] == numberKind {
		v, ok := integer(raw)
		return binary.AppendVarint(b, v), ok
	}
	if s, ok := unescaped(raw); ok {
		return appendPiece(b, s), true
	}
	s, ok := text(raw, f.date)
	return appendPiece(b, s), ok
}

// A memory is one piece of memory for all numbers that an agent may lack, and one for all strings.
type memory struct {
	numbers []int64
	strings []string
}

func (m *memory) number(v int64) *int64 {
	if m.numbers == nil {
		m.numbers = make([]int64, 0, 10)
	}
	m.numbers = append(m.numbers, v) // what has been handed out stays where it is
	return &m.numbers[len(m.numbers)-1]
}

func (m *memory) string(v string) *string {
	if m.strings == nil {
		m.strings = make([]string, 0, 15)
	}
	m.strings = append(m.strings, v)
	return &m.strings[len(m.strings)-1]
}

// setListed stores raw, normalised, as the field's value; nil makes it absent. It reports whether
// it could.
func (m *memory) setListed(f *listedField, a *Agent, raw json.RawMessage) bool {
	switch p := f.at(a).(type) {
	case *int64:
		v, ok := integer(raw)
		if ok {
			*p = v
		}
		return ok
	case **int64:
		if raw == nil {
			*p = nil
			return true
		}
		v, ok := integer(raw)
		if ok {
			*p = m.number(v)
		}
		return ok
	case **string:
		if raw == nil {
			*p = nil
			return true
		}
		v, ok := text(raw, f.date)
		if ok {
			*p = m.string(v)
		}
		return ok
	}
	return false
}

// Where some fields stand among the listed ones.
var idAt, tenantAt, statusAt = listedAt("agentId"), listedAt("tenantId"), listedAt("onlineStatus")

// unescaped returns what is between the quotation marks of a JSON string in which nothing has to be
// decoded.
func unescaped(raw json.RawMessage) ([]byte, bool) {
	if len(raw) < 2 || raw[0] != '"' || raw[len(raw)-1] != '"' {
		return nil, false
	}
	inner := raw[1 : len(raw)-1]
	ascii := true
	for _, c := range inner {
		if c < ' ' || c == '"' || c == '\\' {
			return nil, false
		}
		ascii = ascii && c < utf8.RuneSelf
	}
	return inner, ascii || utf8.Valid(inner)
}

// unquote decodes a JSON string.
func unquote(raw json.RawMessage) (string, bool) {
	if s, ok := unescaped(raw); ok {
		return string(s), true
	}
	var s string
	err := json.Unmarshal(raw, &s)
	return s, err == nil
}

func isNull(raw json.RawMessage) bool { return bytes.Equal(raw, []byte("null")) }

// integer normalises a number, or a string that holds one, to 64 bits. A fraction of zero (1.0,
// 1e3) is accepted as long as the value is exact.
func integer(raw json.RawMessage) (int64, bool) {
	if len(raw) == 0 {
		return 0, false
	}
	s := string(raw)
	switch c := raw[0]; {
	case c == '"':
		var ok bool
		if s, ok = unquote(raw); !ok {
			return 0, false
		}
		s = strings.TrimSpace(s)
	case c != '-' && (c < '0' || c > '9'):
		return 0, false
	}
	if v, err := strconv.ParseInt(s, 10, 64); err == nil {
		return v, true
	}
	return integral(s)
}

// integral reads a decimal number with a fraction or an exponent whose value is an integer of 64
// bits. It goes by the digits: a float64 would round some fractions away, and large integers too.
// The exponent's size costs nothing.
func integral(s string) (int64, bool) {
	sign := ""
	if strings.HasPrefix(s, "-") {
		sign, s = "-", s[1:]
	}
	exponent := 0
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		var err error
		if exponent, err = strconv.Atoi(s[i+1:]); err != nil {
			return 0, false
		}
		s = s[:i]
	}
	whole, fraction, _ := strings.Cut(s, ".")
	if whole+fraction == "" {
		return 0, false
	}
	// The value is significant × 10^exponent, and significant ends in no zero: an integer, unless
	// the exponent is negative.
	digits := strings.TrimLeft(whole+fraction, "0")
	significant := strings.TrimRight(digits, "0")
	exponent += len(digits) - len(significant) - len(fraction)
	switch {
	case significant == "":
		return 0, true
	case exponent < 0 || exponent > 18:
		return 0, false
	}
	v, err := strconv.ParseInt(sign+significant+strings.Repeat("0", exponent), 10, 64)
	return v, err == nil
}

// The vendor's form of a date.
const vendorDate = "2006-01-02T15:04:05.000-07:00"

// text normalises a string, or a number by its own digits. A number in a date field is milliseconds
// since 1970, as in the timestamp fields beside it.
func text(raw json.RawMessage, date bool) (string, bool) {
	if len(raw) == 0 {
		return "", false
	}
	switch c := raw[0]; {
	case c == '"':
		return unquote(raw)
	case c != '-' && (c < '0' || c > '9'):
		return "", false
	case !date:
		return string(raw), true
	}
	ms, ok := integer(raw)
	if !ok {
		return "", false
	}
	t := time.UnixMilli(ms).UTC()
	if t.Year() < 1 || t.Year() > 9999 {
		return "", false
	}
	return t.Format(vendorDate), true
}
