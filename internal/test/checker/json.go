package checker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A member is one field of a JSON object, its value byte for byte.
type member struct {
	name  string
	value json.RawMessage
}

// members splits a JSON object, in order, repeated names included. To unmarshal it would fold the
// case of names, and lose repetitions.
func members(b []byte) (out []member, err error) {
	if !json.Valid(b) {
		return nil, errors.New("not JSON")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if open, _ := d.Token(); open != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	for d.More() {
		name, err := d.Token()
		m := member{}
		if err = errors.Join(err, d.Decode(&m.value)); err != nil {
			return nil, err
		}
		m.name = name.(string)
		out = append(out, m)
	}
	return out, nil
}

// elements splits a JSON list.
func elements(b []byte) (out []json.RawMessage, err error) {
	if !bytes.HasPrefix(bytes.TrimSpace(b), []byte("[")) { // null
		return nil, errors.New("not a JSON list")
	}
	err = json.Unmarshal(b, &out)
	return out, err
}

// An object is a message of rollcall's own, read strictly: its first fault is kept in err.
type object struct {
	what   string
	fields map[string]json.RawMessage
	err    error
}

// strictly opens an object that has all the required fields, each once, and no others than those
// and the optional ones.
func strictly(what string, b []byte, required, optional string) *object {
	o := &object{what: what, fields: map[string]json.RawMessage{}}
	ms, err := members(b)
	if err != nil {
		o.fail("%v", err)
		return o
	}
	known := strings.Fields(required + " " + optional)
	for _, m := range ms {
		if _, twice := o.fields[m.name]; twice {
			o.fail("%s stands there twice", m.name)
		}
		if !slices.Contains(known, m.name) {
			o.fail("there is an unknown field %s", m.name)
		}
		o.fields[m.name] = m.value
	}
	for _, name := range strings.Fields(required) {
		if _, ok := o.fields[name]; !ok {
			o.fail("%s is missing", name)
		}
	}
	return o
}

func (o *object) fail(format string, args ...any) {
	if o.err == nil {
		o.err = fmt.Errorf(o.what+": "+format, args...)
	}
}

// take keeps the first fault of an inner object.
func (o *object) take(err error) {
	if o.err == nil {
		o.err = err
	}
}

func (o *object) has(name string) bool { return o.fields[name] != nil }

func (o *object) text(name string) (s string) {
	if raw := o.fields[name]; raw != nil && (raw[0] != '"' || json.Unmarshal(raw, &s) != nil) {
		o.fail("%s is no string: %s", name, raw)
	}
	return s
}

// plainInt is an integer as rollcall writes it.
var plainInt = regexp.MustCompile(`^(0|-?[1-9][0-9]*)$`)

func (o *object) int(name string) (n int64) {
	raw, ok := o.fields[name]
	if !ok {
		return 0
	}
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil || !plainInt.Match(raw) {
		o.fail("%s is no integer: %s", name, raw)
	}
	return n
}

func (o *object) uint(name string) uint64 {
	n := o.int(name)
	if n < 0 {
		o.fail("%s is below zero: %d", name, n)
		n = 0
	}
	return uint64(n)
}

func (o *object) bool(name string) bool {
	raw, ok := o.fields[name]
	if ok && string(raw) != "true" && string(raw) != "false" {
		o.fail("%s is neither true nor false: %s", name, raw)
	}
	return string(raw) == "true"
}

const timeForm = "2006-01-02T15:04:05.000Z"

// time reads UTC milliseconds, exactly as the contract writes them; zero where there is none.
func (o *object) time(name string) time.Time {
	if !o.has(name) {
		return time.Time{}
	}
	s := o.text(name)
	t, err := time.Parse(timeForm, s)
	if err != nil || t.Format(timeForm) != s {
		o.fail("%s is not in UTC milliseconds: %q", name, s)
	}
	return t
}
