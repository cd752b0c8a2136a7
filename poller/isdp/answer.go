package isdp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/rollcall-events/rollcall/internal/jsonwalk"

	"github.com/rollcall-events/rollcall/internal/listing"
)

const (
	maxAgents = 2_000_000 // more than any tenant has: a total_count beyond it is a lie
	maxRows   = 1000      // on a page, however many were asked for
)

// answer is what one answer of the agents call says, its rows undecoded.
type answer struct {
	total int               // total_count, 0 to maxAgents, or listing.NoTotal
	pos   bool              // pos is the page that was asked for, or missing
	rows  []json.RawMessage // they share the answer's memory
}

// readAnswer reads the body that answered a request for the given page of size agents. excerpt
// makes an errorMessage fit to be shown.
func readAnswer(
	body []byte, page, size int, excerpt func(json.RawMessage) string,
) (answer, error) {
	e, err := readEnvelope(body)
	var bad *notJSON
	if errors.As(err, &bad) {
		var ok bool
		if e, ok = readDamaged(body); ok {
			err = nil
		}
	}
	if err != nil {
		return answer{}, err
	}
	return e.answer(page, size, excerpt)
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

// readEnvelope takes an answer apart. Of two members of a name the last one counts.
func readEnvelope(body []byte) (e envelope, err error) {
	err = jsonwalk.Walk(body, func(w *jsonwalk.Walker) error {
		err := w.Object(func(name []byte) (err error) {
			switch string(name) {
			case "stateCode":
				e.stateCode, err = w.Value()
			case "errorMessage":
				e.errorMessage, err = w.Value()
			case "result":
				err = e.readResult(w)
			default:
				_, err = w.Value()
			}
			return err
		})
		if err == nil && w.Done() != nil {
			err = trailing(w.Offset())
		}
		return err
	})
	switch {
	case errors.Is(err, errTooManyRows):
		return envelope{}, errTooManyRows
	case errors.Is(err, jsonwalk.ErrKind):
		return envelope{}, errors.New("the answer is JSON of another kind")
	case err != nil:
		return envelope{}, &notJSON{body, err, e.rows}
	}
	return e, nil
}

// trailing is the error of an answer behind whose end, in bytes, there is more.
type trailing int

func (at trailing) Error() string { return fmt.Sprintf("more follows behind byte %d", int(at)) }

func (e *envelope) readResult(w *jsonwalk.Walker) error {
	*e = envelope{stateCode: e.stateCode, errorMessage: e.errorMessage}
	err := w.Object(func(name []byte) (err error) {
		switch string(name) {
		case "pos":
			e.pos, err = w.Value()
		case "total_count":
			e.total, err = w.Value()
		case "data":
			err = e.readData(w)
		default:
			_, err = w.Value()
		}
		return err
	})
	if errors.Is(err, jsonwalk.ErrKind) {
		e.result, err = w.Value()
	}
	return err
}

func (e *envelope) readData(w *jsonwalk.Walker) (err error) {
	e.data, e.list, e.rows = nil, false, nil
	err = w.Array(func() error {
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
		e.data, err = w.Value()
	}
	return err
}

// answer judges an envelope.
func (e *envelope) answer(
	page, size int, excerpt func(json.RawMessage) string,
) (answer, error) {
	switch state, ok := integer(e.stateCode); {
	case len(e.stateCode) == 0 || isNull(e.stateCode):
		return answer{}, errors.New("the answer has no stateCode")
	case !ok:
		return answer{}, refusedBy("stateCode is no number", excerpt(e.errorMessage))
	case state != 0:
		return answer{}, refusedBy(fmt.Sprintf("stateCode %d", state), excerpt(e.errorMessage))
	case !empty(e.result):
		return answer{}, errors.New("the answer's result is JSON of another kind")
	}
	a := answer{pos: true, rows: e.rows}
	if !e.list && !empty(e.data) { // a list of one
		if e.data[0] != '{' {
			return answer{}, errors.New("the answer's data is not a list")
		}
		a.rows = []json.RawMessage{e.data}
	}
	switch total, ok := integer(e.total); {
	case ok && total >= 0 && total <= maxAgents:
		a.total = int(total)
	case empty(e.total) && len(a.rows) == 0:
		// An empty listing, or a page behind the end of one.
		a.total = listing.NoTotal
		if page == 0 {
			a.total = 0
		}
	default:
		return answer{}, fmt.Errorf("total_count is not a number of agents from 0 to %d", maxAgents)
	}
	if len(e.pos) > 0 && !isNull(e.pos) {
		pos, ok := integer(e.pos)
		a.pos = ok && pos == int64(page)
	}
	return a, nil
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

// A refusal is the error of an answer that says no.
type refusal string

func (r refusal) Error() string { return string(r) }

func refusedBy(state, said string) error {
	return refusal(fmt.Sprintf("the vendor says %s; %s", strings.TrimSpace(state+" "+said), notSubscribed))
}

// expected returns how many rows belong on a page of a listing of total agents.
func expected(total, page, size int) int {
	return min(max(total-page*size, 0), size)
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
