package isdp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"slices"
	"sync"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/rollcall-events/rollcall/internal/jsonwalk"
	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/schemas"

	"github.com/rollcall-events/rollcall/internal/listing"
)

// A pageContent is what a page shows. It does not change once it has been read.
type pageContent struct {
	listing.Page // without when it was read

	// What the answer was, and how long a row was allowed to be, to know it again.
	bytes, maxRow int
	sum           uint64
	lossy         bool
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

// read reads the text that answered a request for a page. A text that is, byte for byte, what it
// was when the page was last read is not decoded again: its content is last itself, unless rows may
// be longer or shorter now.
func (r *pageReader) read(t text, number int, last *pageContent) (*pageContent, error) {
	sum := maphash.Bytes(seed, t.utf8)
	if last != nil && last.bytes == len(t.utf8) && last.sum == sum && last.lossy == t.lossy &&
		last.maxRow == r.maxRow {
		return last, nil
	}
	a, err := readAnswer(t.utf8, number, r.size, r.excerpt)
	if err != nil {
		return nil, err
	}
	c := r.content(a, t)
	c.bytes, c.sum, c.lossy = len(t.utf8), sum, t.lossy
	return c, nil
}

// content decodes the rows of an answer: each becomes an agent or a rejection.
func (r *pageReader) content(a answer, t text) *pageContent {
	c := &pageContent{maxRow: r.maxRow}
	c.Total, c.Misplaced = a.total, !a.pos
	c.Agents = make([]packed.Agent, 0, len(a.rows))
	row := rowPool.Get().(*row)
	defer rowPool.Put(row)
	gbk := slices.ContainsFunc(a.rows, func(raw json.RawMessage) bool {
		return !utf8.Valid(raw) && readsAs(raw) != ""
	})
	for i, raw := range a.rows {
		agent, bad := r.agent(raw, row, t)
		if bad == nil && gbk && byChance(raw) {
			bad = &listing.Rejected{AgentID: agent.AgentID(), Known: true, Reason: packed.RejectText,
				Detail: "other rows can be read as " + readsAs(raw) + ", and so can this one"}
		}
		if bad != nil {
			bad.Index = i
			c.Rejected = append(c.Rejected, *bad)
			continue
		}
		c.Agents = append(c.Agents, agent)
		c.Dropped += row.dropped
		c.Repaired += row.repaired
	}
	return c
}

// agent decodes a row.
func (r *pageReader) agent(raw []byte, row *row, t text) (packed.Agent, *listing.Rejected) {
	if !row.open(raw) {
		meant, ok := asMeant(raw)
		if !ok || !row.open(meant) {
			return "", row.broken(raw)
		}
		raw = meant
	}
	a, dropped, err := row.fields.Pack(r.tenant)
	row.dropped = dropped
	switch {
	case err != nil:
	case row.notText != "" || t.lossy && bytes.Contains(raw, []byte("\ufffd")):
		return "", &listing.Rejected{AgentID: a.AgentID(), Known: true, Reason: packed.RejectText,
			Detail: row.seen(t)}
	case row.tooDeep != "":
		return "", &listing.Rejected{AgentID: a.AgentID(), Known: true, Reason: packed.RejectSyntax,
			Detail: fmt.Sprintf("a field is nested deeper than %d levels", maxLevels)}
	case row.contradicts != "":
		return "", &listing.Rejected{AgentID: a.AgentID(), Known: row.contradicts != "agentId",
			Reason: packed.RejectSyntax, Detail: row.contradicts + " is there twice"}
	// Even escaped, an encoding is not six times as long as the row: the rare candidates alone are
	// encoded to see.
	case 6*len(raw) > r.maxRow && len(new(a.Unpack()).AppendJSON(nil)) > r.maxRow:
		err = &packed.RowError{Reason: packed.RejectSize, AgentID: a.AgentID(), HasID: true}
	}
	if err != nil {
		bad := &packed.RowError{Reason: packed.RejectSyntax}
		errors.As(err, &bad)
		return "", &listing.Rejected{AgentID: bad.AgentID, Known: bad.HasID, Reason: bad.Reason}
	}
	return a, nil
}

// A row is a row of the listing while it is being decoded.
type row struct {
	fields            packed.Row
	dropped, repaired int
	notText           string // the first listed field that is not UTF-8, its value below
	notTextValue      []byte
	contradicts       string // a field that says who or what the agent is, and is there twice
	tooDeep           string // a field that no reader could be expected to read
	errAt             int    // where it is no JSON, in bytes
}

var rowPool = sync.Pool{New: func() any { return new(row) }}

// open takes a text apart, and reports whether it is a JSON object.
func (r *row) open(raw []byte) bool {
	r.fields.Reset()
	r.dropped, r.repaired = 0, 0
	r.notText, r.notTextValue, r.contradicts, r.tooDeep = "", nil, "", ""
	err := jsonwalk.Walk(raw, func(w *jsonwalk.Walker) error {
		err := w.Object(func(name []byte) error {
			value, err := w.Value()
			if err == nil {
				r.set(name, value)
			}
			return err
		})
		if err == nil {
			err = w.Done()
		}
		r.errAt = w.Offset()
		return err
	})
	return err == nil
}

func (r *row) set(name, value []byte) {
	if bytes.Contains(name, []byte(jsonwalk.Mark)) {
		r.repaired++
	}
	switch string(name) {
	case "agentId", "tenantId", "onlineStatus", "deleteFlag":
		was, ok := integer(r.fields.Get(string(name)))
		if is, isToo := integer(value); r.fields.Get(string(name)) != nil && (was != is || ok != isToo) {
			r.contradicts = string(name)
		}
	}
	if deep(value) {
		r.tooDeep = string(name)
	}
	fixed, repaired := jsonwalk.Repair(value)
	if repaired {
		r.repaired++
		if r.notText == "" && schemas.Listed(string(name)) && !utf8.Valid(value) {
			r.notText, r.notTextValue = string(name), value
		}
	}
	r.fields.Set(name, fixed)
}

// byChance reports whether a text in GBK may have come out as UTF-8 by chance: then all that is not
// ASCII in it are characters of two bytes, which no Chinese one has in UTF-8.
func byChance(raw []byte) bool {
	ascii := true
	for _, c := range string(raw) {
		if n := utf8.RuneLen(c); n > 2 {
			return false
		} else if n == 2 {
			ascii = false
		}
	}
	return !ascii && readsAs(raw) != ""
}

// maxLevels is how deep a field may be nested: events are read by JSON libraries of which some give
// up at a thousand levels.
const maxLevels = 500

// deep reports whether a valid JSON value is nested deeper than that.
func deep(value []byte) bool {
	if len(value) < 2*maxLevels || value[0] != '{' && value[0] != '[' {
		return false
	}
	depth, quoted := 0, false
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > maxLevels {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}

// seen says what is there instead of text.
func (r *row) seen(t text) string {
	switch {
	case r.notText == "":
		return "bytes that mean nothing in charset " + t.charset + ", which the answer's header names"
	case readsAs(r.notTextValue) != "":
		return r.notText + " is not UTF-8, and can be read as " + readsAs(r.notTextValue) +
			": the answer's Content-Type has to name that charset"
	default:
		return r.notText + " is not UTF-8"
	}
}

// broken is the rejection of a text that is no JSON object. Whose row it is, it may have said
// before it broke. Where it names an agent anywhere else too, nobody can tell which one it meant.
func (r *row) broken(raw []byte) *listing.Rejected {
	r.open(raw)
	bad := &listing.Rejected{Reason: packed.RejectSyntax,
		Detail: fmt.Sprintf("no JSON object from its byte %d on", r.errAt)}
	var e *packed.RowError
	a, _, err := r.fields.Pack(0)
	switch {
	case err == nil:
		bad.AgentID, bad.Known = a.AgentID(), true
	case errors.As(err, &e):
		bad.AgentID, bad.Known = e.AgentID, e.HasID
	}
	if bytes.Count(raw, []byte("agentId")) > 1 {
		bad.AgentID, bad.Known = 0, false
	}
	if !utf8.Valid(raw) && readsAs(raw) != "" {
		bad.Detail += "; it is not UTF-8, and can be read as " + readsAs(raw)
	}
	return bad
}

// notJSON is the error of an answer that is not JSON, or not of the kind that it should be.
type notJSON struct {
	body []byte
	err  error             // of encoding/json or of jsontext
	rows []json.RawMessage // that were read before it
}

func (e *notJSON) Error() string {
	body := bytes.TrimSpace(e.body)
	switch {
	case len(body) == 0:
		return "the answer is empty"
	case body[0] == '<':
		return "the answer is HTML or XML, not JSON: is there a gateway in between, is ROLLCALL_ISDP_URL right?"
	}
	var more trailing
	var walked *jsontext.SyntacticError
	var decoded *json.SyntaxError
	var where string
	switch {
	case errors.As(e.err, &more):
		return "the answer is JSON, but " + more.Error()
	case errors.As(e.err, &walked):
		where = fmt.Sprintf("at byte %d of %d", walked.ByteOffset, len(e.body))
	case errors.As(e.err, &decoded):
		where = fmt.Sprintf("at byte %d of %d", decoded.Offset, len(e.body))
	default:
		return "the answer is JSON of another kind"
	}
	if n := len(e.rows); n > 0 {
		where += fmt.Sprintf(", behind row %d", n-1)
		var r row
		if r.open(e.rows[n-1]) {
			if a, _, err := r.fields.Pack(0); err == nil {
				where += fmt.Sprintf(" (agent %d)", a.AgentID())
			}
		}
	}
	switch {
	case errors.Is(e.err, io.ErrUnexpectedEOF) || decoded != nil && decoded.Offset >= int64(len(body)):
		return "the answer is cut short " + where
	case bytes.IndexByte(body, 0) >= 0:
		return "the answer is not JSON " + where + ", but binary, or UTF-16 without a charset"
	case !utf8.Valid(body) && readsAs(body) != "":
		return "the answer is not JSON " + where + ", nor UTF-8; it can be read as " + readsAs(body)
	}
	return "the answer is not JSON " + where
}
