package poller

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
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
	in     bytes.Buffer
	fields []schemas.Field
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
// place. It reports false of any other, valid or not: an answer that is taken apart is valid, and says what rest does.
func split(body []byte) (rows []json.RawMessage, rest []byte, ok bool) {
	s := splitters.Get().(*splitter)
	defer splitters.Put(s)
	s.begin(body)
	found := false
	err := s.members(body, "result", func() error {
		return s.members(body, "data", func() error {
			if s.PeekKind() != jsontext.KindBeginArray || found {
				return errUnusual
			}
			found = true
			if _, err := s.ReadToken(); err != nil {
				return err
			}
			begin := s.InputOffset()
			for s.PeekKind() != jsontext.KindEndArray {
				row, err := s.value(body)
				if err != nil {
					return err
				}
				if rows = append(rows, row); len(rows) > maxRows {
					return errUnusual
				}
			}
			_, err := s.ReadToken()
			rest = append(append(rest, body[:begin]...), body[s.InputOffset()-1:]...)
			return err
		})
	})
	if err == nil {
		_, err = s.ReadToken()
	}
	return rows, rest, found && err == io.EOF
}

var errUnusual = errors.New("not of the usual form")

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
		case n == name:
			if err := each(); err != nil {
				return err
			}
		case strings.EqualFold(n, name): // encoding/json takes it for the same
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
	s.fields = s.fields[:0]
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
		s.fields = append(s.fields, schemas.Field{Name: name, Value: value})
	}
	if _, err := s.ReadToken(); err != nil {
		return schemas.Agent{}, 0, bad
	}
	if _, err := s.ReadToken(); err != io.EOF {
		return schemas.Agent{}, 0, bad
	}
	return schemas.AgentOf(s.fields, tenant)
}

// unquote decodes a JSON string.
func unquote(raw []byte) (s string, err error) {
	if bytes.IndexByte(raw, '\\') < 0 && utf8.Valid(raw) {
		return schemas.Name(raw[1 : len(raw)-1]), nil
	}
	err = json.Unmarshal(raw, &s)
	return s, err
}
