// Package jsonwalk takes JSON apart without making values of it: what a member's value is, its
// reader decides. It reads what encoding/json reads, duplicate names and invalid UTF-8 included,
// and refuses what encoding/json refuses, what is nested deeper than 10,000 levels included. Names
// come repaired; a value that is to be handed on goes through [Repair].
//
// It exists because rows and states are read by the hundred thousand, and most of their members are
// only passed on.
package jsonwalk

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"sync"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// ErrKind says that a value is not of the kind that was asked for.
var ErrKind = errors.New("jsonwalk: not a value of that kind")

var walkers = sync.Pool{New: func() any { return new(Walker) }}

// A Walker reads one text, value by value. It is not safe for concurrent use.
type Walker struct {
	d    jsontext.Decoder
	in   bytes.Buffer
	text []byte
}

// Walk calls each with a Walker at the beginning of text, and returns its error. The Walker is
// each's only until it returns.
func Walk(text []byte, each func(w *Walker) error) error {
	w := walkers.Get().(*Walker)
	defer func() {
		w.Read(nil)
		walkers.Put(w)
	}()
	w.Read(text)
	return each(w)
}

// Read begins anew, with another text.
func (w *Walker) Read(text []byte) {
	w.text, w.in = text, *bytes.NewBuffer(text)
	w.d.Reset(
		&w.in,
		jsontext.AllowDuplicateNames(true),
		jsontext.AllowInvalidUTF8(true),
	) // as encoding/json does
}

// Offset is how much of the text has been read, in bytes.
func (w *Walker) Offset() int { return int(w.d.InputOffset()) }

// Object reads an object. It calls member for each of its members, with the name decoded, in their
// order; member has to read the value, with [Walker.Value], [Walker.Object] or [Walker.Array]. An
// error of member's ends it.
func (w *Walker) Object(member func(name []byte) error) error {
	if w.d.PeekKind() != jsontext.KindBeginObject {
		return w.not()
	}
	if _, err := w.d.ReadToken(); err != nil {
		return err
	}
	for w.d.PeekKind() != jsontext.KindEndObject {
		raw, err := w.scalar()
		if err != nil {
			return err
		}
		name, err := unquote(raw)
		if err != nil {
			return err
		}
		if err := member(name); err != nil {
			return err
		}
	}
	_, err := w.d.ReadToken()
	return err
}

// Array reads the beginning of an array, and calls inside, which has to read its elements, as long
// as there are [Walker.More], and its [Walker.End].
func (w *Walker) Array(inside func() error) error {
	if w.d.PeekKind() != jsontext.KindBeginArray {
		return w.not()
	}
	if _, err := w.d.ReadToken(); err != nil {
		return err
	}
	return inside()
}

// More reports whether an element follows, and not the array's end.
func (w *Walker) More() bool { return w.d.PeekKind() != jsontext.KindEndArray }

// End reads the end of an array.
func (w *Walker) End() error {
	if w.d.PeekKind() != jsontext.KindEndArray {
		return w.not()
	}
	_, err := w.d.ReadToken()
	return err
}

// Value reads a value, as it stands in the text, whose memory it shares.
func (w *Walker) Value() ([]byte, error) {
	switch w.d.PeekKind() {
	case jsontext.KindBeginObject, jsontext.KindBeginArray:
		v, err := w.d.ReadValue()
		end := w.Offset()
		return w.text[end-len(v) : end : end], err
	default:
		return w.scalar()
	}
}

// scalar reads a value that is neither an object nor an array; as a token, since that costs half of
// what a value does.
func (w *Walker) scalar() ([]byte, error) {
	begin := w.Offset()
	if _, err := w.d.ReadToken(); err != nil {
		return nil, err
	}
	end := w.Offset()
	for begin < end && between(w.text[begin]) {
		begin++
	}
	return w.text[begin:end:end], nil
}

// between reports whether c may stand between two tokens.
func between(c byte) bool {
	return c == ' ' || c == ',' || c == ':' || c == '\n' || c == '\t' || c == '\r'
}

// Done reports whether nothing but white space follows.
func (w *Walker) Done() error {
	if _, err := w.d.ReadToken(); err != io.EOF {
		return w.not()
	}
	return nil
}

// not is the error where something else was expected: that of the text, where it has one.
func (w *Walker) not() error {
	if w.d.PeekKind() == jsontext.KindInvalid {
		if _, err := w.d.ReadToken(); err != nil {
			return err
		}
	}
	return ErrKind
}

// unquote decodes a JSON string, repaired. Where nothing in it has to be decoded, the result shares
// its memory.
func unquote(raw []byte) ([]byte, error) {
	if !slices.ContainsFunc(raw, func(c byte) bool { return c == '\\' || c >= utf8.RuneSelf }) {
		return raw[1 : len(raw)-1], nil
	}
	repaired, _ := Repair(raw)
	var s string
	err := json.Unmarshal(repaired, &s)
	return []byte(s), err
}
