package poller

import (
	"bytes"
	"encoding/json"
	"errors"
	"hash/maphash"
	"io"
	"slices"
	"sync"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/rollcall-events/rollcall/schemas"
)

// As encoding/json, which judges whatever is not found here.
var lenient = jsontext.Options(jsontext.AllowDuplicateNames(true))

var splitters = sync.Pool{New: func() any { return new(splitter) }}

// A splitter finds the parts of JSON texts without decoding them.
type splitter struct {
	jsontext.Decoder
	in  bytes.Buffer
	row schemas.Row
}

// begin makes text what is read next.
func (s *splitter) begin(text []byte) {
	s.in = *bytes.NewBuffer(text)
	s.Reset(&s.in, lenient, jsontext.AllowInvalidUTF8(true))
}

// value reads a value, which shares text's memory.
func (s *splitter) value(text []byte) ([]byte, error) {
	v, err := s.ReadValue()
	end := int(s.InputOffset())
	return text[end-len(v) : end : end], err
}

// split takes an answer of the usual form apart: its rows, which share its memory, and the rest with an empty list in their
// place. It reports false of any other, valid or not: an answer that is taken apart is valid, and says what rest does. Rows
// that are known, mostly in the places where they were, are not read: a JSON object ends where it ends, whatever follows.
func split(body []byte, known *content) (rows []rowRead, rest []byte, ok bool) {
	s := splitters.Get().(*splitter)
	defer splitters.Put(s)
	begin, ok := s.list(body)
	if !ok {
		return nil, nil, false
	}
	at := begin
	for at = skipSpace(body, at); at < len(body) && body[at] != ']'; at = skipSpace(body, at) {
		if len(rows) > 0 {
			if body[at] != ',' {
				return nil, nil, false
			}
			at = skipSpace(body, at+1)
		}
		r, ok := known.rowAt(len(rows), body[at:])
		if !ok {
			s.begin(body[at:])
			raw, err := s.ReadValue()
			if err != nil || len(raw) > maxRead { // it might be nested deeper than encoding/json allows
				return nil, nil, false
			}
			at += int(s.InputOffset()) - len(raw)
			r = rowRead{row{sum: maphash.Bytes(seed, raw)}, body[at : at+len(raw)]}
			if was := known.row(len(rows), r.sum); was != nil {
				r.row = *was
			}
		}
		at += len(r.raw)
		if rows = append(rows, r); len(rows) > maxRows {
			return nil, nil, false
		}
	}
	if at >= len(body) {
		return nil, nil, false
	}
	rest = append(append(make([]byte, 0, 512), body[:begin]...), body[at:]...)
	s.begin(rest)
	ok = s.only(rest, begin)
	return rows, rest, ok
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
func (s *splitter) list(body []byte) (begin int, ok bool) {
	s.begin(body)
	err := s.find(body, func() error {
		begin = int(s.InputOffset())
		return errFound
	})
	return begin, err == errFound
}

// only reports whether text is an answer of the usual form whose one list of rows, which is empty, begins at a place.
func (s *splitter) only(text []byte, begin int) bool {
	lists := 0
	err := s.find(text, func() error {
		if lists++; lists > 1 || int(s.InputOffset()) != begin || s.PeekKind() != jsontext.KindEndArray {
			return errUnusual
		}
		_, err := s.ReadToken()
		return err
	})
	if err == nil {
		_, err = s.ReadToken()
	}
	return lists == 1 && err == io.EOF
}

// find reads an answer, and calls each behind the bracket that opens a list of rows.
func (s *splitter) find(text []byte, each func() error) error {
	return s.members(text, "result", func() error {
		return s.members(text, "data", func() error {
			if s.PeekKind() != jsontext.KindBeginArray {
				return errUnusual
			}
			if _, err := s.ReadToken(); err != nil {
				return err
			}
			return each()
		})
	})
}

// members reads an object. Of the member with the given name, whose value is yet to be read, it calls each; others it skips.
func (s *splitter) members(text []byte, name string, each func() error) error {
	if s.PeekKind() != jsontext.KindBeginObject {
		return errUnusual
	}
	if _, err := s.ReadToken(); err != nil {
		return err
	}
	for s.PeekKind() != jsontext.KindEndObject {
		key, err := s.value(text)
		if err != nil {
			return err
		}
		switch n, err := unquote(key); {
		case err != nil:
			return err
		case string(n) == name:
			if err := each(); err != nil {
				return err
			}
		case bytes.EqualFold(n, []byte(name)): // encoding/json takes it for the same
			return errUnusual
		default:
			if err := s.SkipValue(); err != nil {
				return err
			}
		}
	}
	_, err := s.ReadToken()
	return err
}

// decodeRow decodes a row as [schemas.DecodeAgent] does, faster.
func decodeRow(row []byte, tenant int64) (schemas.Agent, int, error) {
	s := splitters.Get().(*splitter)
	defer splitters.Put(s)
	s.begin(row)
	bad := &schemas.RowError{Reason: schemas.RejectSyntax}
	if tok, err := s.ReadToken(); err != nil || tok.Kind() != jsontext.KindBeginObject {
		return schemas.Agent{}, 0, bad
	}
	s.row.Reset()
	defer s.row.Reset()
	for s.PeekKind() != jsontext.KindEndObject {
		key, err := s.value(row)
		if err != nil {
			return schemas.Agent{}, 0, bad
		}
		name, err := unquote(key)
		if err != nil {
			return schemas.Agent{}, 0, bad
		}
		value, err := s.value(row)
		if err != nil {
			return schemas.Agent{}, 0, bad
		}
		s.row.Set(name, value)
	}
	if _, err := s.ReadToken(); err != nil {
		return schemas.Agent{}, 0, bad
	}
	if _, err := s.ReadToken(); err != io.EOF {
		return schemas.Agent{}, 0, bad
	}
	return s.row.Agent(tenant)
}

// unquote decodes a JSON string. Where nothing in it had to be decoded, the result shares its memory.
func unquote(raw []byte) ([]byte, error) {
	if bytes.IndexByte(raw, '\\') < 0 && utf8.Valid(raw) {
		return raw[1 : len(raw)-1], nil
	}
	var s string
	err := json.Unmarshal(raw, &s)
	return []byte(s), err
}

// loud returns a hash of all of a row but the numbers of quiet fields; 0: the row is no object.
func loud(row []byte, quiet map[string]bool) uint64 {
	s := splitters.Get().(*splitter)
	defer splitters.Put(s)
	s.begin(row)
	if tok, err := s.ReadToken(); err != nil || tok.Kind() != jsontext.KindBeginObject {
		return 0
	}
	var h maphash.Hash
	h.SetSeed(seed)
	for s.PeekKind() != jsontext.KindEndObject {
		key, err := s.value(row)
		if err != nil {
			return 0
		}
		value, err := s.value(row)
		if err != nil {
			return 0
		}
		_, _ = h.Write(key)
		if quiet[string(key[1:len(key)-1])] && isStamp(value) {
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
