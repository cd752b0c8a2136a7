package isdp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tailscale/hujson"

	"github.com/rollcall-events/rollcall/internal/jsonwalk"
)

// Answers that strict JSON refuses are read here: what is plainly meant is read that way, and an
// error inside a row costs that row only.

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
			rest := bytes.TrimLeft(text[i+1:], " \t\r\n")
			if quoted && controls && bytes.HasPrefix(rest, []byte(":")) {
				return nil, false // nobody can tell what the name was meant to be
			}
			quoted, controls = !quoted, false
		case quoted && c == 0: // nobody can tell what it replaced
			return nil, false
		case quoted && c < ' ':
			controls = true
			escaped = fmt.Appendf(escaped, `\u%04x`, c)
			continue
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > maxDepth { // hujson has no limit of its own
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
	d := damaged{rows: body, left: min(64*len(body)+4<<20, maxWork), refused: make(map[int]bool)}
	return d.read()
}

// damaged is an answer some of whose rows are no JSON, not even leniently read. A row ends where
// its brackets and quotes say so. Where they do not, or where what they bracket is no row, a later
// one is looked for from which on everything fits, up to the list's end. So a row within a row is
// never taken for one: behind it brackets are left over.
type damaged struct {
	rows    []byte       // the rows and what is between them; at first, the whole answer
	left    int          // bytes to look at: bounds the work that a hostile answer makes
	refused map[int]bool // places from which on it does not fit
	broken  int          // rows behind which others are being looked for
}

func (d *damaged) read() (e envelope, ok bool) {
	begin := beginOfRows(d.rows)
	if begin < 0 {
		return e, false
	}
	// The list ends where the answer without its rows is JSON.
	for end := len(d.rows) - 1; end >= begin && d.left > 0; end-- {
		if d.rows[end] != ']' {
			continue
		}
		text := slices.Concat(d.rows[:begin], d.rows[end:])
		d.left -= 10 * len(text)
		e, err := readEnvelope(text)
		if err != nil {
			if meant, ok := asMeant(text); ok {
				e, err = readEnvelope(meant)
			}
		}
		if err == nil && e.list && len(e.rows) == 0 {
			d.rows = d.rows[begin:end]
			e.rows, ok = d.from(0)
			return e, ok && len(e.rows) <= maxRows
		}
	}
	return e, false
}

// beginOfRows returns where an answer's list of rows begins, behind its bracket; -1: nowhere.
func beginOfRows(body []byte) int {
	at := -1
	_ = jsonwalk.Walk(body, func(w *jsonwalk.Walker) error {
		rows := func() error {
			return w.Array(func() error {
				at = w.Offset()
				return errors.New("found")
			})
		}
		return members(w, map[string]func() error{"result": func() error {
			return members(w, map[string]func() error{"data": rows})
		}})
	})
	return at
}

// from returns the rows from a place on, where everything from there on fits.
func (d *damaged) from(at int) (rows []json.RawMessage, ok bool) {
	for at = d.skip(at, ","); at < len(d.rows); at = d.skip(at, ",") {
		if d.rows[at] == ']' { // of a list within a broken row
			return nil, false
		}
		if len(rows) > maxRows || d.broken > maxRows { // on no page are as many
			d.left = 0
			return nil, false
		}
		end := d.end(at)
		if end < 0 || !d.isRow(at, end) {
			next, later, ok := d.behindBroken(at, end)
			return append(append(rows, d.rows[at:next]), later...), ok
		}
		rows = append(rows, d.rows[at:end])
		at = end
	}
	return rows, true
}

// behindBroken returns where what follows a broken row begins, and the rows from there on. The row
// begins at a place; by its brackets it ends at another, or nowhere (-1).
func (d *damaged) behindBroken(at, end int) (next int, rows []json.RawMessage, ok bool) {
	d.broken++
	defer func() { d.broken-- }()
	for next := at + 1; next < len(d.rows) && d.left > 0; next++ {
		c := d.rows[next]
		if next == end {
			c = d.at(end, "")
		}
		if d.refused[next] || c != '{' && (c != ',' || next != end) {
			continue
		}
		if next == end || d.isRowAt(next) {
			if rows, ok := d.from(next); ok {
				return next, rows, true
			}
		}
		d.refused[next] = true
	}
	return len(d.rows), nil, d.left > 0
}

// isRowAt reports whether the row of an agent begins at a place, and behind it another row or the
// list's end: behind an object that is a field's value there may be the next field's name.
func (d *damaged) isRowAt(at int) bool {
	end := d.end(at)
	if end < 0 || !d.isRow(at, end) {
		return false
	}
	c := d.at(end, ",")
	return c == '{' || c == 0
}

// isRow reports whether what is between two places is the row of an agent.
func (d *damaged) isRow(from, to int) bool {
	text := d.rows[from:to]
	d.left -= 10 * len(text)
	named := func(text []byte) (n int, err error) {
		err = jsonwalk.Walk(text, func(w *jsonwalk.Walker) error {
			err := w.Object(func(name []byte) error {
				if s := string(name); s == "agentId" || s == "onlineStatus" {
					n++
				}
				_, err := w.Value()
				return err
			})
			if err != nil {
				return err
			}
			return w.Done()
		})
		return n, err
	}
	n, err := named(text)
	if err != nil {
		if meant, ok := asMeant(text); ok {
			n, err = named(meant)
		}
	}
	return err == nil && n >= 2
}

// end returns where the row that begins at a place ends by its brackets and quotes; -1: nowhere.
func (d *damaged) end(at int) int {
	depth, quoted := 0, false
	seen := at
	defer func() { d.left -= seen - at }()
	for ; seen < len(d.rows); seen++ {
		switch c := d.rows[seen]; {
		case quoted && c == '\\':
			seen++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			depth++
		case depth == 0 && (c == ',' || c == ']'): // of what is no object
			return seen
		case c == '}' || c == ']':
			if depth--; depth < 0 {
				return -1
			}
			if depth == 0 {
				return seen + 1
			}
		}
	}
	return -1
}

// at returns what is at a place, white space and these bytes left out; 0: the list's end.
func (d *damaged) at(at int, these string) byte {
	if at = d.skip(at, these); at < len(d.rows) {
		return d.rows[at]
	}
	return 0
}

// skip returns the first place from one on where there is neither white space nor one of these.
func (d *damaged) skip(at int, these string) int {
	for at < len(d.rows) && strings.IndexByte(" \t\r\n"+these, d.rows[at]) >= 0 {
		at++
	}
	return at
}
