package tenantsim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Fields are fields of a row by name, each value as it is to stand in the row: raw JSON text, or
// anything else where the row is to be broken. An empty value takes the field out.
type Fields map[string]string

// facts is what the tenant itself needs to know of a row.
type facts struct {
	id         int64
	hasID      bool
	typ        int64
	hasType    bool
	status     int64
	hasStatus  bool
	deleted    bool
	wellFormed bool // an object with an agentId and an onlineStatus
}

func (f *facts) online() bool { return f.hasStatus && f.status == 1 }

// A member is where one field stands in a row's bytes.
type member struct {
	name              string
	start, value, end int // of the name's quote, of the value, behind the value
}

// members finds the fields of a JSON object.
func members(row []byte) ([]member, error) {
	if !json.Valid(row) {
		return nil, fmt.Errorf("the row is not JSON: %.40q", row)
	}
	d := json.NewDecoder(bytes.NewReader(row))
	if first, _ := d.Token(); first != json.Delim('{') {
		return nil, fmt.Errorf("the row is not an object: %.40q", row)
	}
	ms := make([]member, 0, 40)
	for d.More() {
		before := d.InputOffset()
		name, err := d.Token()
		var value json.RawMessage
		if err = errors.Join(err, d.Decode(&value)); err != nil {
			return nil, err
		}
		end := int(d.InputOffset())
		ms = append(ms, member{name.(string), int(before) + bytes.IndexByte(row[before:], '"'),
			end - len(value), end})
	}
	return ms, nil
}

// learn reads the facts of any bytes.
func learn(row []byte) facts {
	var f facts
	ms, err := members(row)
	if err != nil {
		return f
	}
	for _, m := range ms {
		n := strings.Trim(string(row[m.value:m.end]), `"`)
		switch m.name {
		case "agentId":
			f.id, f.hasID = parseInt(n)
		case "type":
			f.typ, f.hasType = parseInt(n)
		case "onlineStatus":
			f.status, f.hasStatus = parseInt(n)
		case "deleteFlag":
			f.deleted = n == "1"
		}
	}
	f.wellFormed = f.hasID && f.hasStatus
	return f
}

func parseInt(s string) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

// Patch returns row with some fields set, added behind the others in the order of their names, or
// taken out. Every other byte stays as it is. The row must be a JSON object.
func Patch(row json.RawMessage, fields Fields) (json.RawMessage, error) {
	ms, err := members(row)
	if err != nil {
		return nil, err
	}
	out := make(json.RawMessage, 0, len(row)+64*len(fields))
	head, tail := json.RawMessage("{"), json.RawMessage("}")
	if len(ms) > 0 {
		head, tail = row[:ms[0].start], row[ms[len(ms)-1].end:]
	}
	out = append(out, head...)
	first := true
	for i, m := range ms {
		value, changed := fields[m.name]
		if changed && value == "" {
			continue
		}
		if !first {
			out = append(out, row[ms[i-1].end:m.start]...)
		}
		first = false
		out = append(out, row[m.start:m.value]...)
		if !changed {
			value = string(row[m.value:m.end])
		}
		out = append(out, value...)
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if fields[name] == "" || slices.ContainsFunc(ms, func(m member) bool {
			return m.name == name
		}) {
			continue
		}
		if !first {
			out = append(out, ',')
		}
		first = false
		quoted, _ := json.Marshal(name) // a string can always be marshalled
		out = append(append(append(out, quoted...), ':'), fields[name]...)
	}
	return append(out, tail...), nil
}
