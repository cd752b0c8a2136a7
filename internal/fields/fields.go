// Package fields knows the documented fields of an agent, and makes of a value in one of them what
// rollcall writes: its canonical encoding. A value has one such encoding, so two values are the
// same if, and only if, their encodings are.
package fields

import (
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Kind is the documented type of a field.
type Kind int

// The kinds.
const (
	Number Kind = iota // a long or an int
	Text               // a String
	Date               // a Date: text in the vendor's form
)

// Field is a documented field.
type Field struct {
	Name     string
	Kind     Kind
	Required bool // every agent has it
}

// Table is the documented fields of an agent, in the order in which they are encoded. It is
// read-only.
type Table struct {
	Fields []Field
	index  map[string]int
}

// TableOf reads the documented fields from the fields of a struct with a json tag: an int64 is a
// required number, a *int64 an optional one, a *string is text, and a date where a tag kind:"date"
// says so.
func TableOf[T any]() *Table {
	t := &Table{index: make(map[string]int)}
	of := reflect.TypeFor[T]()
	for i := range of.NumField() {
		tag := of.Field(i).Tag
		name := tag.Get("json")
		if name == "" {
			continue
		}
		f := Field{Name: name}
		switch kind := of.Field(i).Type; {
		case tag.Get("kind") == "date":
			f.Kind = Date
		case kind == reflect.TypeFor[*string]():
			f.Kind = Text
		case kind == reflect.TypeFor[int64]():
			f.Required = true
		}
		t.index[name] = len(t.Fields)
		t.Fields = append(t.Fields, f)
	}
	return t
}

// Index returns a field's place in the table.
func (t *Table) Index(name string) (i int, ok bool) {
	i, ok = t.index[name]
	return i, ok
}

// Append appends the canonical encoding of a JSON value in a field of that kind: a number where
// text is documented, and the other way round, is normalised. It reports whether it could.
func Append(b, value []byte, kind Kind) ([]byte, bool) {
	if kind == Number {
		v, ok := Integer(value)
		if !ok {
			return b, false
		}
		return strconv.AppendInt(b, v, 10), true
	}
	if isPlain(value) {
		return append(b, value...), true
	}
	s, ok := AsText(value, kind)
	if !ok {
		return b, false
	}
	return AppendString(b, s), true
}

// IsNull reports whether a JSON value is null.
func IsNull(value []byte) bool { return string(value) == "null" }

// isPlain reports whether a JSON value is a string in which nothing is escaped, and valid UTF-8.
func isPlain(value []byte) bool {
	if len(value) < 2 || value[0] != '"' || value[len(value)-1] != '"' {
		return false
	}
	ascii := true
	for _, c := range value[1 : len(value)-1] {
		if c < ' ' || c == '"' || c == '\\' {
			return false
		}
		ascii = ascii && c < utf8.RuneSelf
	}
	return ascii || utf8.Valid(value)
}

// Unquote decodes a JSON string.
func Unquote(value []byte) (string, bool) {
	if isPlain(value) {
		return string(value[1 : len(value)-1]), true
	}
	var s string
	err := json.Unmarshal(value, &s)
	return s, err == nil
}

// Integer normalises a number, or a string that holds one, to 64 bits. A fraction of zero (1.0,
// 1e3) is accepted as long as the value is exact.
func Integer(value []byte) (int64, bool) {
	if len(value) == 0 {
		return 0, false
	}
	s := string(value)
	switch c := value[0]; {
	case c == '"':
		var ok bool
		if s, ok = Unquote(value); !ok {
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

// AsText normalises a string, or a number: a whole one of 64 bits in plain decimal, another one by
// its own digits. A number in a date field is milliseconds since 1970, as in the timestamp fields
// beside it.
func AsText(value []byte, kind Kind) (string, bool) {
	if len(value) == 0 {
		return "", false
	}
	switch c := value[0]; {
	case c == '"':
		return Unquote(value)
	case c != '-' && (c < '0' || c > '9'):
		return "", false
	}
	v, ok := Integer(value)
	switch {
	case kind != Date && ok: // 10.0 and 1e1 are 10, as gateways write it that know only doubles
		return strconv.FormatInt(v, 10), true
	case kind != Date:
		return string(value), true
	}
	if !ok {
		return "", false
	}
	t := time.UnixMilli(v).UTC()
	if t.Year() < 1 || t.Year() > 9999 {
		return "", false
	}
	return t.Format(vendorDate), true
}

// AppendString appends s as a JSON string. It escapes what JSON says must be, and nothing else;
// encoding/json would escape HTML, and U+2028 and invalid UTF-8 too. An invalid byte becomes
// U+FFFD.
func AppendString(b []byte, s string) []byte {
	plain := utf8.ValidString(s)
	for i := 0; plain && i < len(s); i++ {
		plain = s[i] >= ' ' && s[i] != '"' && s[i] != '\\'
	}
	b = append(b, '"')
	if plain {
		b = append(b, s...)
		return append(b, '"')
	}
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r >= ' ':
			b = utf8.AppendRune(b, r)
		default:
			b = append(b, escapes[r]...)
		}
	}
	return append(b, '"')
}

// escapes are the short forms of control characters, where they have one, and else the long ones.
var escapes = func() (e [' ']string) {
	for c := range e {
		e[c] = `\u00` + string("01"[c>>4]) + string("0123456789abcdef"[c&15])
	}
	e['\b'], e['\f'], e['\n'], e['\r'], e['\t'] = `\b`, `\f`, `\n`, `\r`, `\t`
	return e
}()
