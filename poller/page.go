package poller

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"strconv"
	"strings"

	"github.com/rollcall-events/rollcall/schemas"
)

const (
	maxAgents = 2_000_000 // more than any tenant has: a total_count beyond it is a lie
	maxRows   = 1000      // on a page, however many were asked for
)

// answer is what one answer of the agents call says, its rows undecoded.
type answer struct {
	total int  // total_count, 0 to maxAgents
	pos   bool // pos is the page that was asked for, or missing
	rows  []json.RawMessage
}

// readAnswer does what decodeAnswer does, faster where the answer is of the usual form, and faster still where its rows are
// known from the last time. Its rows are filled in as far as that goes.
func readAnswer(body []byte, page, size int, known *content, excerpt func(json.RawMessage) string) (answer, []rowRead, error) {
	rows, rest, ok := split(body, known)
	if ok {
		a, err := decodeAnswer(rest, page, size, excerpt)
		return a, rows, err
	}
	a, err := decodeAnswer(body, page, size, excerpt)
	rows = make([]rowRead, len(a.rows))
	for i, raw := range a.rows {
		rows[i] = rowRead{row{sum: maphash.Bytes(seed, raw)}, raw}
	}
	return a, rows, err
}

// decodeAnswer reads the body that answered a request for the given page. excerpt makes an errorMessage fit to be shown.
func decodeAnswer(body []byte, page, size int, excerpt func(json.RawMessage) string) (answer, error) {
	var env struct {
		StateCode    json.RawMessage `json:"stateCode"`
		ErrorMessage json.RawMessage `json:"errorMessage"`
		Result       *struct {
			Pos        json.RawMessage `json:"pos"`
			TotalCount json.RawMessage `json:"total_count"`
			Data       json.RawMessage `json:"data"`
		} `json:"result"`
	}
	if err := json.Unmarshal(body, &env); err != nil {
		return answer{}, errors.New("the answer is " + notJSON(body))
	}
	switch state, ok := integer(env.StateCode); {
	case len(env.StateCode) == 0 || isNull(env.StateCode):
		return answer{}, errors.New("the answer has no stateCode")
	case !ok:
		return answer{}, refusedBy("stateCode is no number", excerpt(env.ErrorMessage))
	case state != 0:
		return answer{}, refusedBy(fmt.Sprintf("stateCode %d", state), excerpt(env.ErrorMessage))
	case env.Result == nil:
		return answer{}, errors.New("the answer has no result")
	}
	total, ok := integer(env.Result.TotalCount)
	if !ok || total < 0 || total > maxAgents {
		return answer{}, fmt.Errorf("total_count is not a number of agents from 0 to %d", maxAgents)
	}
	a := answer{total: int(total), pos: true}
	if p := env.Result.Pos; len(p) > 0 && !isNull(p) {
		pos, ok := integer(p)
		a.pos = ok && pos == int64(page)
	}
	switch d := env.Result.Data; {
	case len(d) > 0 && d[0] == '[':
		if a.rows, ok = elements(d); !ok {
			return answer{}, fmt.Errorf("the page has more than %d rows", maxRows)
		}
	case len(d) > 0 && !isNull(d):
		return answer{}, errors.New("the answer's data is not a list")
	case expected(a.total, page, size) > 0:
		return answer{}, errors.New("the answer has no data")
	}
	return a, nil
}

// refusedBy is the error of an answer that says no.
func refusedBy(state, said string) error {
	return fmt.Errorf("the vendor says %s; %s", strings.TrimSpace(state+" "+said), notSubscribed)
}

// expected returns how many rows belong on a page of a listing of total agents.
func expected(total, page, size int) int {
	return min(max(total-page*size, 0), size)
}

// elements returns the elements of a valid JSON list, up to maxRows of them; they share the list's memory.
func elements(list []byte) (rows []json.RawMessage, ok bool) {
	depth, quoted, start := 0, false, 1
	add := func(end int) {
		if row := bytes.TrimSpace(list[start:end]); len(row) > 0 {
			rows = append(rows, row)
		}
		start = end + 1
	}
	for i := 0; i < len(list) && len(rows) <= maxRows; i++ {
		switch c := list[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			depth++
		case c == ']' || c == '}':
			if depth--; depth == 0 {
				add(i)
			}
		case c == ',' && depth == 1:
			add(i)
		}
	}
	return rows, len(rows) <= maxRows
}

// decodeRows fills in a page's agents and rejections: each row becomes one of either.
func (p *Page) decodeRows(rows []json.RawMessage) {
	p.Agents = make([]schemas.Packed, 0, len(rows))
	fields := rowPool.Get().(*schemas.Row)
	defer rowPool.Put(fields)
	for i, raw := range rows {
		p.add(i, len(raw), fields, takeApart(raw, fields))
	}
}

// add makes row number i, of size bytes, an agent or a rejection. err is what was wrong with its text. It returns how many fields
// it left out of the agent, and whether there is one.
func (p *Page) add(i, size int, fields *schemas.Row, err error) (dropped int, ok bool) {
	var a schemas.Packed
	if err == nil {
		a, dropped, err = fields.Pack(p.tenant)
	}
	// Even escaped, an encoding is not six times as long as the row: the rare candidates alone are encoded to see.
	if err == nil && 6*size > p.maxRow && len(new(a.Agent()).AppendJSON(nil)) > p.maxRow {
		err = &schemas.RowError{Reason: schemas.RejectSize, AgentID: a.AgentID(), HasID: true}
	}
	if err != nil {
		bad := &schemas.RowError{Reason: schemas.RejectSyntax}
		errors.As(err, &bad)
		p.Rejected = append(p.Rejected, Rejection{Index: i, AgentID: bad.AgentID, Known: bad.HasID, Reason: bad.Reason})
		return 0, false
	}
	p.Agents = append(p.Agents, a)
	p.Dropped += dropped
	return dropped, true
}

// notJSON says what a body is that is not the JSON it should be.
func notJSON(body []byte) string {
	switch body = bytes.TrimSpace(body); {
	case len(body) == 0:
		return "empty"
	case body[0] == '<':
		return "HTML or XML, not JSON: is there a gateway in between, is ROLLCALL_ISDP_URL right?"
	case !json.Valid(body):
		return "not JSON, or cut short"
	default:
		return "JSON of another kind"
	}
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
