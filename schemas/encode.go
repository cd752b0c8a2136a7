package schemas

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/rollcall-events/rollcall/internal/fields"
)

// TimeFormat is how every time on the wire is written: UTC, milliseconds.
const TimeFormat = "2006-01-02T15:04:05.000Z"

// FloorTime is t as the wire can say it, rounded down: for a time since which something has been
// true.
func FloorTime(t time.Time) time.Time { return t.Round(0).Truncate(time.Millisecond) }

// CeilTime is t as the wire can say it, rounded up: for a time by which something had happened.
func CeilTime(t time.Time) time.Time {
	f := FloorTime(t)
	if f.Before(t) {
		return f.Add(time.Millisecond)
	}
	return f
}

// object appends one JSON object to b, field by field.
type object struct{ b []byte }

func beginObject(b []byte) *object { return &object{b: append(b, '{')} }

func (o *object) end() []byte { return append(o.b, '}') }

func (o *object) key(name string) {
	if o.b[len(o.b)-1] != '{' {
		o.b = append(o.b, ',')
	}
	o.b = append(fields.AppendString(o.b, name), ':')
}

func (o *object) str(name, v string) {
	o.key(name)
	o.b = fields.AppendString(o.b, v)
}

func (o *object) strs(name string, vs []string) {
	o.key(name)
	o.b = append(o.b, '[')
	for i, v := range vs {
		if i > 0 {
			o.b = append(o.b, ',')
		}
		o.b = fields.AppendString(o.b, v)
	}
	o.b = append(o.b, ']')
}

func (o *object) int(name string, v int64) {
	o.key(name)
	o.b = strconv.AppendInt(o.b, v, 10)
}

func (o *object) uint(name string, v uint64) {
	o.key(name)
	o.b = strconv.AppendUint(o.b, v, 10)
}

func (o *object) bool(name string, v bool) {
	o.key(name)
	o.b = strconv.AppendBool(o.b, v)
}

// time leaves a zero time out.
func (o *object) time(name string, t time.Time) {
	if t.IsZero() {
		return
	}
	o.key(name)
	o.b = append(o.b, '"')
	o.b = t.UTC().AppendFormat(o.b, TimeFormat)
	o.b = append(o.b, '"')
}

func (o *object) raw(name string, v json.RawMessage) {
	o.key(name)
	o.b = append(o.b, v...)
}

// appendValue appends the value of a documented field; the result is nil where the field is absent.
func appendValue(b []byte, at any) []byte {
	switch p := at.(type) {
	case *int64:
		return strconv.AppendInt(b, *p, 10)
	case **int64:
		if *p != nil {
			return strconv.AppendInt(b, **p, 10)
		}
	case **string:
		if *p != nil {
			return fields.AppendString(b, **p)
		}
	}
	return nil
}
