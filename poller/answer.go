package poller

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/rollcall-events/rollcall/internal/jsonwalk"
)

const (
	maxAgents = 2_000_000 // more than any tenant has: a total_count beyond it is a lie
	maxRows   = 1000      // on a page, however many were asked for
)

// answer is what one answer of the agents call says, its rows undecoded.
type answer struct {
	total int               // total_count, 0 to maxAgents
	pos   bool              // pos is the page that was asked for, or missing
	rows  []json.RawMessage // they share the answer's memory
}

// readAnswer reads the body that answered a request for the given page of size agents. excerpt
// makes an errorMessage fit to be shown.
func readAnswer(
	body []byte, page, size int, excerpt func(json.RawMessage) string,
) (answer, error) {
	e, err := readEnvelope(body)
	if err != nil {
		return answer{}, err
	}
	return e.answer(page, size, excerpt)
}

// An envelope is an answer's JSON taken apart, nothing of it judged. Nil is absent.
type envelope struct {
	stateCode, errorMessage json.RawMessage
	result                  bool // it is there, and not null
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
		if err != nil {
			return err
		}
		return w.Done()
	})
	switch {
	case errors.Is(err, errTooManyRows):
		return envelope{}, errTooManyRows
	case err != nil:
		return envelope{}, errors.New("the answer is " + notJSON(body))
	}
	return e, nil
}

func (e *envelope) readResult(w *jsonwalk.Walker) error {
	*e = envelope{stateCode: e.stateCode, errorMessage: e.errorMessage}
	if w.Null() {
		_, err := w.Value()
		return err
	}
	e.result = true
	return w.Object(func(name []byte) (err error) {
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
	case !e.result:
		return answer{}, errors.New("the answer has no result")
	}
	total, ok := integer(e.total)
	if !ok || total < 0 || total > maxAgents {
		return answer{}, fmt.Errorf("total_count is not a number of agents from 0 to %d", maxAgents)
	}
	a := answer{total: int(total), pos: true, rows: e.rows}
	if len(e.pos) > 0 && !isNull(e.pos) {
		pos, ok := integer(e.pos)
		a.pos = ok && pos == int64(page)
	}
	switch {
	case e.list:
	case len(e.data) > 0 && !isNull(e.data):
		return answer{}, errors.New("the answer's data is not a list")
	case expected(a.total, page, size) > 0:
		return answer{}, errors.New("the answer has no data")
	}
	return a, nil
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
