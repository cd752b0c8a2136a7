package isdp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/rollcall-events/rollcall/internal/jsonwalk"
	"github.com/rollcall-events/rollcall/internal/listing"
)

const (
	maxAgents = 2_000_000 // more than any tenant has: a total_count beyond it is a lie
	maxRows   = 1000      // on a page, however many were asked for
)

// answer is what one answer of the agents call says, its rows undecoded.
type answer struct {
	total     int               // total_count, 0 to maxAgents, or listing.NoTotal
	misplaced bool              // pos is another page than the one that was asked for
	rows      []json.RawMessage // they share the answer's memory
}

// readAnswer reads the body that answered a request for the given page. excerpt makes an
// errorMessage fit to be shown.
func readAnswer(
	body []byte, page int, excerpt func(json.RawMessage) string,
) (answer, *listing.Error) {
	e, err := readEnvelope(body)
	if err != nil && !errors.Is(err, errTooManyRows) && !errors.Is(err, jsonwalk.ErrKind) {
		if meant, ok := readDamaged(body); ok {
			e, err = meant, nil
		}
	}
	switch {
	case errors.Is(err, errTooManyRows):
		return answer{}, unusable("%w", err)
	case err != nil:
		return answer{}, notJSON(body, err, e.rows)
	}
	return e.answer(page, excerpt)
}

// An envelope is an answer's JSON taken apart, nothing of it judged. Nil is absent.
type envelope struct {
	stateCode, errorMessage json.RawMessage
	result                  json.RawMessage // where it is no object
	pos, total              json.RawMessage
	data                    json.RawMessage // where it is no list
	list                    bool            // data is a list: rows
	rows                    []json.RawMessage
}

var errTooManyRows = fmt.Errorf("the page has more than %d rows", maxRows)

// readEnvelope takes an answer apart. Of two members of a name the last one counts. With an error,
// the rows are those that were read before it.
func readEnvelope(body []byte) (e envelope, err error) {
	err = jsonwalk.Walk(body, func(w *jsonwalk.Walker) error {
		err := members(w, map[string]func() error{
			"stateCode": value(w, &e.stateCode), "errorMessage": value(w, &e.errorMessage),
			"result": func() error { return e.readResult(w) },
		})
		if err == nil && w.Done() != nil {
			err = trailing(w.Offset())
		}
		return err
	})
	return e, err
}

func (e *envelope) readResult(w *jsonwalk.Walker) error {
	*e = envelope{stateCode: e.stateCode, errorMessage: e.errorMessage}
	err := members(w, map[string]func() error{
		"pos": value(w, &e.pos), "total_count": value(w, &e.total),
		"data": func() error { return e.readData(w) },
	})
	if errors.Is(err, jsonwalk.ErrKind) {
		return value(w, &e.result)()
	}
	return err
}

func (e *envelope) readData(w *jsonwalk.Walker) error {
	e.data, e.list, e.rows = nil, false, nil
	err := w.Array(func() error {
		e.list = true
		for w.More() {
			row, err := w.Value()
			if err != nil {
				return err
			}
			if e.rows = append(e.rows, row); len(e.rows) > maxRows {
				return errTooManyRows
			}
		}
		return w.End()
	})
	if !e.list && errors.Is(err, jsonwalk.ErrKind) {
		return value(w, &e.data)()
	}
	return err
}

// members reads an object: each of its members as its name says, and nothing of the others.
func members(w *jsonwalk.Walker, read map[string]func() error) error {
	return w.Object(func(name []byte) error {
		if read := read[string(name)]; read != nil {
			return read()
		}
		_, err := w.Value()
		return err
	})
}

// value reads a member's value as it stands.
func value(w *jsonwalk.Walker, into *json.RawMessage) func() error {
	return func() (err error) {
		*into, err = w.Value()
		return err
	}
}

// trailing is the error of an answer behind whose end, in bytes, there is more.
type trailing int

func (at trailing) Error() string { return fmt.Sprintf("more follows behind byte %d", int(at)) }

// answer judges an envelope.
func (e *envelope) answer(page int, excerpt func(json.RawMessage) string) (answer, *listing.Error) {
	switch state, ok := integer(e.stateCode); {
	case len(e.stateCode) == 0 || isNull(e.stateCode):
		return answer{}, unusable("the answer has no stateCode")
	case !ok || state != 0:
		says := "stateCode is no number"
		if ok {
			says = fmt.Sprintf("stateCode %d", state)
		}
		err := unusable("the vendor says %s", strings.TrimSpace(says+" "+excerpt(e.errorMessage)))
		err.Refused = true
		return answer{}, hinted(err, notSubscribed)
	case !empty(e.result):
		return answer{}, unusable("the answer's result is JSON of another kind")
	}
	a := answer{rows: e.rows}
	if !e.list && !empty(e.data) { // a list of one
		if e.data[0] != '{' {
			return answer{}, unusable("the answer's data is not a list")
		}
		a.rows = []json.RawMessage{e.data}
	}
	switch total, ok := integer(e.total); {
	case ok && total >= 0 && total <= maxAgents:
		a.total = int(total)
	case !empty(e.total) || len(a.rows) > 0:
		return answer{}, unusable("total_count is not a number of agents from 0 to %d", maxAgents)
	case page > 0: // behind the end of a listing, else it is an empty one
		a.total = listing.NoTotal
	}
	if !empty(e.pos) {
		pos, ok := integer(e.pos)
		a.misplaced = !ok || pos != int64(page)
	}
	return a, nil
}

// notJSON is the error of an answer that is not JSON, or not of the kind that it should be. err is
// that of encoding/json or jsontext, and rows are those that were read before it.
func notJSON(body []byte, err error, rows []json.RawMessage) *listing.Error {
	all := len(body)
	body = bytes.TrimSpace(body)
	switch {
	case len(body) == 0:
		return unusable("the answer is empty")
	case body[0] == '<':
		return hinted(unusable("the answer is HTML or XML, not JSON"),
			"is there a gateway in between, is {BaseURL} right?")
	}
	var more trailing
	var walked *jsontext.SyntacticError
	var decoded *json.SyntaxError
	var where string
	switch {
	case errors.As(err, &more):
		return unusable("the answer is JSON, but %w", more)
	case errors.As(err, &walked):
		where = fmt.Sprintf("at byte %d of %d", walked.ByteOffset, all)
	case errors.As(err, &decoded):
		where = fmt.Sprintf("at byte %d of %d", decoded.Offset, all)
	default:
		return unusable("the answer is JSON of another kind")
	}
	if n := len(rows); n > 0 {
		where += fmt.Sprintf(", behind row %d", n-1)
		var r row
		if r.open(rows[n-1]) {
			if a, err := r.pack(0); err == nil {
				where += fmt.Sprintf(" (agent %d)", a.AgentID())
			}
		}
	}
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF),
		decoded != nil && decoded.Offset >= int64(len(body)):
		return unusable("the answer is cut short %s", where)
	case bytes.IndexByte(body, 0) >= 0:
		return unusable("the answer is not JSON %s, but binary, or UTF-16 without a charset", where)
	case !utf8.Valid(body) && readsAs(body) != "":
		return unusable("the answer is not JSON %s, nor UTF-8; it can be read as %s",
			where, readsAs(body))
	}
	return unusable("the answer is not JSON %s", where)
}

// empty reports whether a value says that there is nothing.
func empty(raw json.RawMessage) bool {
	switch string(raw) {
	case "", "null":
		return true
	}
	if raw[0] == '"' {
		return len(bytes.TrimSpace(raw[1:len(raw)-1])) == 0
	}
	inner := bytes.TrimSpace(raw[1:])
	return len(inner) == 1 && (raw[0] == '{' || raw[0] == '[')
}

func isNull(raw json.RawMessage) bool { return string(raw) == "null" }

// integer reads a number, or a string that holds one.
func integer(raw json.RawMessage) (int64, bool) {
	s := string(raw)
	if strings.HasPrefix(s, `"`) {
		if json.Unmarshal(raw, &s) != nil {
			return 0, false
		}
		s = strings.TrimSpace(s)
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n, true
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) >= 1<<53 {
		return 0, false
	}
	return int64(f), true
}
