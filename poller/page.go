package poller

import (
	"bytes"
	"encoding/json"
	"errors"
	"hash/maphash"
	"sync"
	"time"

	"github.com/rollcall-events/rollcall/internal/jsonwalk"
	"github.com/rollcall-events/rollcall/schemas"
)

// Page is one answer of the agents call. What its slices hold is shared with other pages, and not
// to be changed.
type Page struct {
	Listing int // index into Config.Types; 0 where there are none
	Number  int // pageStart

	// Sent is when the request was about to be sent, Read when the body had been read completely:
	// exact, as Config.Now had it.
	Sent, Read time.Time

	pageContent
}

// A pageContent is what a page shows. It does not change once it has been read.
type pageContent struct {
	Agents   []schemas.Packed // the usable rows, in the listing's order
	Rejected []Rejection      // the rows that are not usable
	Dropped  int              // listed fields of the usable rows left out because their values could not be normalised

	total        int  // total_count
	pos          bool // the answer was for the page that was asked for
	rows         int  // of every kind
	unidentified int  // rejected rows that can't be told whose they are
	maxRow       int  // how long a row was allowed to be
	bytes        int  // of the answer's body …
	sum          uint64
}

// Rejection is a row that can't be used.
type Rejection struct {
	Index   int    // its place on the page, from 0
	AgentID int64  // whose row it is, where Known
	Known   bool   // the AgentID could be read
	Reason  string // one of schemas.RejectSyntax, RejectID, RejectStatus, RejectTenant, RejectSize
}

// seed makes the hashes of answers unpredictable: nobody can make two that look the same.
var seed = maphash.MakeSeed()

// A pageReader makes pages of the answers of one tenant's agents call.
type pageReader struct {
	size    int   // agents a page
	tenant  int64 // whose they are
	maxRow  int   // Config.MaxRowBytes, as it is now
	excerpt func(json.RawMessage) string
}

// read reads the body that answered a request for a page. A body that is, byte for byte, what it
// was when the page was last read is not decoded again: its content is last itself, unless rows
// may be longer or shorter now.
func (r *pageReader) read(body []byte, number int, last *pageContent) (*pageContent, error) {
	sum := maphash.Bytes(seed, body)
	if last != nil && last.bytes == len(body) && last.sum == sum && last.maxRow == r.maxRow {
		return last, nil
	}
	a, err := readAnswer(body, number, r.size, r.excerpt)
	if err != nil {
		return nil, err
	}
	c := r.content(a)
	c.bytes, c.sum = len(body), sum
	return c, nil
}

// content decodes the rows of an answer: each becomes an agent or a rejection.
func (r *pageReader) content(a answer) *pageContent {
	c := &pageContent{total: a.total, pos: a.pos, rows: len(a.rows), maxRow: r.maxRow,
		Agents: make([]schemas.Packed, 0, len(a.rows))}
	fields := rowPool.Get().(*schemas.Row)
	defer rowPool.Put(fields)
	for i, raw := range a.rows {
		agent, dropped, err := r.agent(raw, fields)
		if err == nil {
			c.Agents = append(c.Agents, agent)
			c.Dropped += dropped
			continue
		}
		bad := &schemas.RowError{Reason: schemas.RejectSyntax}
		errors.As(err, &bad)
		c.Rejected = append(c.Rejected,
			Rejection{Index: i, AgentID: bad.AgentID, Known: bad.HasID, Reason: bad.Reason})
		if !bad.HasID {
			c.unidentified++
		}
	}
	return c
}

// agent decodes a row, and counts the fields that it leaves out. Its error is a
// *[schemas.RowError].
func (r *pageReader) agent(raw []byte, fields *schemas.Row) (schemas.Packed, int, error) {
	if err := takeApart(raw, fields); err != nil {
		return "", 0, err
	}
	a, dropped, err := fields.Pack(r.tenant)
	// Even escaped, an encoding is not six times as long as the row: the rare candidates alone are
	// encoded to see.
	if err == nil && 6*len(raw) > r.maxRow && len(new(a.Agent()).AppendJSON(nil)) > r.maxRow {
		err = &schemas.RowError{Reason: schemas.RejectSize, AgentID: a.AgentID(), HasID: true}
	}
	return a, dropped, err
}

var rowPool = sync.Pool{New: func() any { return new(schemas.Row) }}

// takeApart makes row the row that text is. Its error is that of [schemas.DecodeAgent] for what is
// no row.
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
