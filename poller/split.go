package poller

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/maphash"
	"slices"
	"sync"

	"github.com/rollcall-events/rollcall/internal/jsonwalk"
	"github.com/rollcall-events/rollcall/schemas"
)

// split takes an answer of the usual form apart: its rows, which share its memory, and the rest with an empty list in their
// place. It reports false of any other, valid or not: an answer that is taken apart is valid, and says what rest does. Rows
// that are known, mostly in the places where they were, are not read: a JSON object ends where it ends, whatever follows.
func split(body []byte, known *content) (rows []rowRead, rest []byte, ok bool) {
	err := jsonwalk.Walk(body, func(w *jsonwalk.Walker) error {
		begin, err := list(w)
		if err != nil {
			return err
		}
		at := begin
		for at = skipSpace(body, at); at < len(body) && body[at] != ']'; at = skipSpace(body, at) {
			if len(rows) > 0 {
				if body[at] != ',' {
					return errUnusual
				}
				at = skipSpace(body, at+1)
			}
			r, ok := known.rowAt(len(rows), body[at:])
			if !ok {
				w.Read(body[at:])
				raw, err := w.Value()
				if err != nil || len(raw) > maxRead { // it might be nested deeper than encoding/json allows
					return errUnusual
				}
				at += w.Offset() - len(raw)
				r = rowRead{row{sum: maphash.Bytes(seed, raw)}, raw}
				if was := known.row(len(rows), r.sum); was != nil {
					r.row = *was
				}
			}
			at += len(r.raw)
			if rows = append(rows, r); len(rows) > maxRows {
				return errUnusual
			}
		}
		if at >= len(body) {
			return errUnusual
		}
		rest = append(append(make([]byte, 0, 512), body[:begin]...), body[at:]...)
		w.Read(rest)
		return only(w, begin)
	})
	return rows, rest, err == nil
}

// maxRead is the longest row, in bytes, that is read by itself.
const maxRead = 8000

// skipSpace returns where white space ends that may be at a place.
func skipSpace(text []byte, at int) int {
	for at < len(text) && (text[at] == ' ' || text[at] == '\t' || text[at] == '\r' || text[at] == '\n') {
		at++
	}
	return at
}

var errUnusual, errFound = errors.New("not of the usual form"), errors.New("found")

// list finds where the first row of an answer begins, behind the bracket, without looking at what follows.
func list(w *jsonwalk.Walker) (begin int, err error) {
	err = find(w, func() error {
		begin = w.Offset()
		return errFound
	})
	if err != errFound {
		return 0, errUnusual
	}
	return begin, nil
}

// only looks whether a text is an answer of the usual form whose one list of rows, which is empty, begins at a place.
func only(w *jsonwalk.Walker, begin int) error {
	lists := 0
	err := find(w, func() error {
		if lists++; lists > 1 || w.Offset() != begin {
			return errUnusual
		}
		return w.End()
	})
	switch {
	case err != nil:
		return err
	case lists != 1:
		return errUnusual
	}
	return w.Done()
}

// find reads an answer, and calls each behind the bracket that opens a list of rows.
func find(w *jsonwalk.Walker, each func() error) error {
	return member(w, "result", func() error {
		return member(w, "data", func() error { return w.Array(each) })
	})
}

// member reads an object. Of the member with the given name, whose value is yet to be read, it calls each; others it skips.
func member(w *jsonwalk.Walker, name string, each func() error) error {
	return w.Object(func(n []byte) error {
		switch {
		case string(n) == name:
			return each()
		case bytes.EqualFold(n, []byte(name)): // encoding/json takes it for the same
			return errUnusual
		}
		_, err := w.Value()
		return err
	})
}

var rowPool = sync.Pool{New: func() any { return new(schemas.Row) }}

// takeApart makes row the row that text is, as [schemas.DecodeAgent] reads it, faster. The error is that of [schemas.DecodeAgent] for what is no row.
func takeApart(text []byte, row *schemas.Row) error {
	row.Reset()
	err := jsonwalk.Walk(text, func(w *jsonwalk.Walker) error {
		err := w.Object(func(name []byte) error {
			value, err := w.Value()
			row.Set(name, value)
			return err
		})
		if err != nil {
			return err
		}
		return w.Done()
	})
	if err != nil {
		return &schemas.RowError{Reason: schemas.RejectSyntax}
	}
	return nil
}

// loud returns a hash of all that a row says but the numbers of quiet fields.
func loud(row *schemas.Row, quiet map[string]bool) uint64 {
	var h maphash.Hash
	var length [binary.MaxVarintLen64]byte
	h.SetSeed(seed)
	for name, value := range row.Fields() {
		_, _ = h.Write(binary.AppendUvarint(length[:0], uint64(len(name))))
		_, _ = h.WriteString(name)
		if isStamp(value) && quiet[name] {
			value = []byte("#") // which no value is
		}
		_, _ = h.Write(value)
	}
	return h.Sum64()
}

// isStamp reports whether a value is a number that every listed field can take, dates included, and whose length is bounded.
func isStamp(value []byte) bool {
	return len(value) <= 14 && !slices.ContainsFunc(value, func(c byte) bool { return c < '0' || c > '9' })
}

// quietFields are those of the names whose numbers do not count.
func quietFields(names []string) map[string]bool {
	quiet := make(map[string]bool)
	for _, n := range names {
		switch n {
		case "agentId", "tenantId", "onlineStatus", "deleteFlag", "type":
		default:
			if schemas.Listed(n) {
				quiet[n] = true
			}
		}
	}
	return quiet
}
