package isdp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/tailscale/hujson"

	"github.com/rollcall-events/rollcall/internal/jsonwalk"
)

// What strict JSON refuses is looked at a second time here: what is plainly meant is read so, and
// what is wrong within a row is that row's own matter.

// maxWork bounds how many bytes are looked at to find the rows of an answer.
const maxWork = 128 << 20

// maxDepth bounds how deep what is read leniently may be nested.
const maxDepth = 1000

// asMeant makes strict JSON of a text that has control characters in strings that are values, and
// commas before the end of an object or a list. It reports false where the text has other flaws.
func asMeant(text []byte) ([]byte, bool) {
	escaped := make([]byte, 0, len(text)+64)
	depth, quoted, controls := 0, false, false
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case quoted && c == '\\' && i+1 < len(text):
			escaped = append(escaped, c)
			i++
			c = text[i]
		case c == '"':
			if quoted && controls && bytes.HasPrefix(bytes.TrimLeft(text[i+1:], " \t\r\n"), []byte(":")) {
				return nil, false // what a name was meant to be nobody can tell
			}
			quoted, controls = !quoted, false
		case quoted && c == 0: // what stood there before nobody can tell
			return nil, false
		case quoted && c < ' ':
			controls = true
			escaped = fmt.Appendf(escaped, `\u%04x`, c)
			continue
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > maxDepth { // hujson has no bound of its own
				return nil, false
			}
		case c == '}' || c == ']':
			depth--
		}
		escaped = append(escaped, c)
	}
	standard, err := hujson.Standardize(escaped)
	return standard, err == nil
}

// unmarshalAsMeant is [json.Unmarshal] of what was meant.
func unmarshalAsMeant(text []byte, into any) error {
	err := json.Unmarshal(text, into)
	if err != nil {
		if meant, ok := asMeant(text); ok {
			return json.Unmarshal(meant, into)
		}
	}
	return err
}

// readDamaged reads an answer that strict JSON refuses.
func readDamaged(body []byte) (envelope, bool) {
	if text, ok := asMeant(body); ok {
		e, err := readEnvelope(text)
		return e, err == nil
	}
	d := damaged{body: body, left: min(64*len(body)+4<<20, maxWork), refused: make(map[int]bool)}
	if d.begin = d.findRows(); d.begin < 0 {
		return envelope{}, false
	}
	rows, ok := d.rowsFrom(d.begin)
	if !ok || len(rows) > maxRows {
		return envelope{}, false
	}
	e := d.rest
	e.rows = rows
	return e, true
}

// damaged is an answer some of whose rows are no JSON, not even leniently read. A row ends where
// its brackets and quotes say so. Where they do not, or where what they bracket is no JSON, a later
// row is looked for from which on everything fits: the rows, the end of their list, and the rest of
// the answer. So a row within a row is never taken for one: behind it brackets are left over.
type damaged struct {
	body    []byte
	begin   int // of the first row
	rest    envelope
	left    int          // bytes to look at: bounds the work that a hostile answer makes
	refused map[int]bool // places from which on it does not fit
}

var errFound = errors.New("found")

// findRows returns where the list of rows begins, behind its bracket; -1 where there is none.
func (d *damaged) findRows() int {
	at := -1
	_ = jsonwalk.Walk(d.body, func(w *jsonwalk.Walker) error {
		member := func(name string, read func() error) error {
			return w.Object(func(n []byte) error {
				if string(n) == name {
					return read()
				}
				_, err := w.Value()
				return err
			})
		}
		return member("result", func() error {
			return member("data", func() error {
				return w.Array(func() error {
					at = w.Offset()
					return errFound
				})
			})
		})
	})
	return at
}

// rowsFrom returns the rows from a place on, where everything from there on fits.
func (d *damaged) rowsFrom(at int) (rows []json.RawMessage, ok bool) {
	for {
		at = d.skip(at, " \t\r\n,")
		if at >= len(d.body) {
			return nil, false
		}
		if d.body[at] == ']' {
			return rows, d.endsAt(at)
		}
		end := d.rowEnd(at)
		if end < 0 || !d.isRow(at, end) {
			next, later, ok := d.behindBroken(at, end)
			return append(append(rows, d.body[at:next]), later...), ok
		}
		rows = append(rows, d.body[at:end])
		at = end
	}
}

// behindBroken returns where what follows a broken row begins, and the rows from there on. The row
// begins at a place; by its brackets it ends at another, or nowhere (-1). In this order: a row
// begins before that, the brackets are right, a row begins later.
func (d *damaged) behindBroken(at, end int) (next int, rows []json.RawMessage, ok bool) {
	if end >= 0 {
		if next, rows, ok := d.nextRow(at+1, end); ok {
			return next, rows, true
		}
		if c := d.at(end); (c == ',' || c == ']' || c == '{') && d.left > 0 {
			if rows, ok := d.rowsFrom(end); ok {
				return end, rows, true
			}
		}
	}
	return d.nextRow(max(at+1, end), len(d.body))
}

// nextRow looks for the first row, or the list's end, that is between two places and from which on
// everything fits.
func (d *damaged) nextRow(from, before int) (at int, rows []json.RawMessage, ok bool) {
	for at := from; at < before && d.left > 0; at++ {
		switch d.body[at] {
		case '{':
			if d.refused[at] {
				continue
			}
			if d.isRowAt(at) {
				if rows, ok := d.rowsFrom(at); ok {
					return at, rows, true
				}
			}
			d.refused[at] = true
		case ']':
			if d.at(at+1) == ']' { // of a list in a list
				continue
			}
			if d.endsAt(at) {
				return at, nil, true
			}
		}
	}
	return from, nil, false
}

// isRowAt reports whether the row of an agent begins at a place, and behind it another row or the
// list's end: behind an object that is a field's value there may be the next field's name.
func (d *damaged) isRowAt(at int) bool {
	end := d.rowEnd(at)
	if end < 0 || !d.isRow(at, end) {
		return false
	}
	c := d.at(d.skip(end, " \t\r\n,"))
	return c == '{' || c == ']'
}

// isRow reports whether what is between two places is the row of an agent.
func (d *damaged) isRow(from, to int) bool {
	text := d.body[from:to]
	d.left -= 10 * len(text)
	look := func(text []byte) (named int) {
		err := jsonwalk.Walk(text, func(w *jsonwalk.Walker) error {
			err := w.Object(func(name []byte) error {
				if n := string(name); n == "agentId" || n == "onlineStatus" {
					named++
				}
				_, err := w.Value()
				return err
			})
			if err != nil {
				return err
			}
			return w.Done()
		})
		if err != nil {
			return -1
		}
		return named
	}
	n := look(text)
	if n < 0 {
		if meant, ok := asMeant(text); ok {
			n = look(meant)
		}
	}
	return n >= 2
}

// rowEnd returns where the row that begins at a place ends by its brackets and quotes; -1: nowhere.
func (d *damaged) rowEnd(at int) (end int) {
	depth, quoted := 0, false
	seen := at
	defer func() { d.left -= seen - at }()
	for i := at; i < len(d.body); i++ {
		seen = i
		switch c := d.body[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			depth++
		case depth == 0 && (c == ',' || c == ']'): // of what is no object
			return i
		case c == '}' || c == ']':
			if depth--; depth < 0 {
				return -1
			}
			if depth == 0 {
				return i + 1
			}
		}
	}
	return -1
}

// endsAt reports whether the list of rows ends at a bracket: without rows, the answer is JSON.
func (d *damaged) endsAt(at int) bool {
	text := append(append(make([]byte, 0, 512), d.body[:d.begin]...), d.body[at:]...)
	d.left -= 10 * len(text)
	e, err := readEnvelope(text)
	if err != nil {
		meant, ok := asMeant(text)
		if !ok {
			return false
		}
		e, err = readEnvelope(meant)
	}
	if err != nil || !e.list || len(e.rows) > 0 {
		return false
	}
	d.rest = e
	return true
}

// at returns what is at a place, white space left out; 0: nothing.
func (d *damaged) at(at int) byte {
	if at = d.skip(at, " \t\r\n"); at < len(d.body) {
		return d.body[at]
	}
	return 0
}

// skip returns the first place from one on where none of these bytes is.
func (d *damaged) skip(at int, these string) int {
	for at < len(d.body) && bytes.IndexByte([]byte(these), d.body[at]) >= 0 {
		at++
	}
	return at
}
