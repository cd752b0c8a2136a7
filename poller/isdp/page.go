package isdp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/rollcall-events/rollcall/internal/jsonwalk"
	"github.com/rollcall-events/rollcall/internal/listing"
	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/schemas"
)

// maxLevels is how deep a field may be nested: events are read by JSON libraries of which some give
// up at a thousand levels.
const maxLevels = 500

// A pageReader makes pages of the answers to one tenant's agents call.
type pageReader struct {
	tenant  int64 // whose they are
	maxRow  int   // Config.MaxRowBytes, as it is now
	excerpt func(json.RawMessage) string
}

// read reads the text that answered a request for a page.
func (r *pageReader) read(t text, number int) (*listing.Page, *listing.Error) {
	a, err := readAnswer(t.utf8, number, r.excerpt)
	if err != nil {
		return nil, err
	}
	return r.page(a, t), nil
}

// page decodes the rows of an answer: each becomes an agent or is rejected.
func (r *pageReader) page(a answer, t text) *listing.Page {
	p := &listing.Page{Total: a.total, Misplaced: a.misplaced,
		Agents: make([]packed.Agent, 0, len(a.rows))}
	gbk := slices.ContainsFunc(a.rows, func(raw json.RawMessage) bool {
		return !utf8.Valid(raw) && readsAs(raw) != ""
	})
	var row row
	for i, raw := range a.rows {
		agent, bad := r.agent(raw, &row, t)
		if bad == nil && gbk && byChance(raw) {
			bad = rejected(agent.AgentID(), true, packed.RejectText,
				"other rows can be read as "+readsAs(raw)+", and so can this one")
		}
		if bad != nil {
			bad.Index = i
			p.Rejected = append(p.Rejected, *bad)
			continue
		}
		p.Agents = append(p.Agents, agent)
		p.Dropped += row.dropped
		p.Repaired += row.repaired
	}
	return p
}

func rejected(id int64, known bool, reason, detail string) *listing.Rejected {
	return &listing.Rejected{AgentID: id, Known: known, Reason: reason, Detail: detail}
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
	a, err := row.pack(r.tenant)
	known := row.contradicts != "agentId"
	switch {
	case err != nil:
		return "", rejected(err.AgentID, err.HasID && known, err.Reason, "")
	case row.notText != "" || t.lossy && bytes.Contains(raw, []byte("\ufffd")):
		return "", rejected(a.AgentID(), known, packed.RejectText, row.seen(t))
	case row.tooDeep:
		return "", rejected(a.AgentID(), known, packed.RejectSyntax,
			fmt.Sprintf("a field is nested deeper than %d levels", maxLevels))
	case row.contradicts != "":
		return "", rejected(a.AgentID(), known, packed.RejectSyntax,
			row.contradicts+" is there twice")
	// Even escaped, an encoding is not six times as long as the row: only the rare candidates are
	// encoded to see.
	case 6*len(raw) > r.maxRow && len(new(a.Unpack()).AppendJSON(nil)) > r.maxRow:
		return "", rejected(a.AgentID(), true, packed.RejectSize, "")
	}
	return a, nil
}

// A row is a row of the listing while it is being decoded.
type row struct {
	fields            packed.Row
	dropped, repaired int
	notText           string // the first documented field that is not UTF-8 …
	notTextValue      []byte // … and its value
	contradicts       string // a field that says who or what the agent is, and is there twice
	last              []byte // the name that was read last
	tooDeep           bool   // a field is nested deeper than maxLevels
	errAt             int    // where it is no JSON, in bytes
}

// open takes a text apart, and reports whether it is a JSON object.
func (r *row) open(raw []byte) bool {
	fields := r.fields
	fields.Reset()
	*r = row{fields: fields}
	return jsonwalk.Walk(raw, func(w *jsonwalk.Walker) error {
		err := w.Object(func(name []byte) error {
			r.last = name
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
	}) == nil
}

func (r *row) set(name, value []byte) {
	if bytes.Contains(name, []byte(jsonwalk.Mark)) {
		r.repaired++
	}
	switch string(name) {
	case "agentId", "tenantId", "onlineStatus", "deleteFlag":
		before := r.fields.Get(string(name))
		was, wasNumber := integer(before)
		is, isNumber := integer(value)
		if before != nil && (was != is || wasNumber != isNumber) && r.contradicts != "agentId" {
			r.contradicts = string(name)
		}
	}
	r.tooDeep = r.tooDeep || len(value) > 2*maxLevels && depth(value) > maxLevels
	fixed, repaired := jsonwalk.Repair(value)
	if repaired {
		r.repaired++
		if r.notText == "" && schemas.Listed(string(name)) && !utf8.Valid(value) {
			r.notText, r.notTextValue = string(name), value
		}
	}
	r.fields.Set(name, fixed)
}

// pack makes an agent of the row. An error tells what it can of whose row it is.
func (r *row) pack(tenant int64) (a packed.Agent, _ *packed.RowError) {
	a, dropped, err := r.fields.Pack(tenant)
	r.dropped = dropped
	bad := &packed.RowError{Reason: packed.RejectSyntax}
	if err != nil {
		errors.As(err, &bad)
		return a, bad
	}
	return a, nil
}

// seen says what is there instead of text.
func (r *row) seen(t text) string {
	switch as := readsAs(r.notTextValue); {
	case r.notText == "":
		return "bytes that mean nothing in charset " + t.charset +
			", which the answer's header names"
	case as != "":
		return r.notText + " is not UTF-8, and can be read as " + as +
			": the answer's Content-Type has to name that charset"
	}
	return r.notText + " is not UTF-8"
}

// broken is the rejection of a text that is no JSON object. Whose row it is, it may have said
// before it broke. Where it broke right there (017, 17,813), or names an agent anywhere else too,
// nobody can tell which one it meant.
func (r *row) broken(raw []byte) *listing.Rejected {
	r.open(raw)
	bad := rejected(0, false, packed.RejectSyntax,
		fmt.Sprintf("no JSON object from its byte %d on", r.errAt))
	if !utf8.Valid(raw) && readsAs(raw) != "" {
		bad.Detail += "; it is not UTF-8, and can be read as " + readsAs(raw)
	}
	if string(r.last) == "agentId" || bytes.Count(raw, []byte("agentId")) > 1 {
		return bad
	}
	if a, err := r.pack(0); err != nil {
		bad.AgentID, bad.Known = err.AgentID, err.HasID
	} else {
		bad.AgentID, bad.Known = a.AgentID(), true
	}
	return bad
}

// depth is how deep a JSON value is nested.
func depth(value []byte) (deepest int) {
	depth, quoted := 0, false
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			depth++
			deepest = max(deepest, depth)
		case c == '}' || c == ']':
			depth--
		}
	}
	return deepest
}
