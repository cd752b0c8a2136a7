package poller

import (
	"encoding/json"
	"hash/maphash"
	"slices"

	"github.com/rollcall-events/rollcall/schemas"
)

// A content is what a page was when it was last read, as far as that is needed to know it again, or its rows, and to go on
// without looking into them. It is not changed once the sweep's goroutine has it.
type content struct {
	number   uint64 // no two contents of a poller have the same; 0: not yet given
	tenant   int64  // whose rows they were decoded as
	size     int    // of the answer's body …
	sum      uint64 // … and its hash
	said     *said
	rejected []Rejection
	rows     []row
	twice    bool // an agent is on the page twice
}

// A row is what a row of a page was.
type row struct {
	sum     uint64 // its hash
	loud    uint64 // the hash of all of it but quiet numbers; 0: not known
	size    int32  // in bytes
	dropped int32  // fields that were left out
	agent   int64
	usable  bool
}

// A rowRead is a row while its page is being read.
type rowRead struct {
	row
	raw json.RawMessage
}

// seed makes the hashes of answers unpredictable: nobody can make two that look the same.
var seed = maphash.MakeSeed()

// open fills in what the page shows. last is what was last read in its place, nil where nothing was: what is the same as then
// is not decoded. What it returns is what the page is now, last itself where that is the same.
func (p *Page) open(last *content, excerpt func(json.RawMessage) string) (*content, error) {
	now := &content{tenant: p.tenant, size: len(p.body), sum: maphash.Bytes(seed, p.body)}
	if last != nil && last.tenant != now.tenant {
		last = nil
	}
	if last != nil && last.size == now.size && last.sum == now.sum && !last.twice {
		p.Known, p.Rejected, p.Dropped = last.said.ids, last.rejected, last.said.dropped
		return last, nil
	}
	a, rows, err := readAnswer(p.body, p.Number, p.size, last, excerpt)
	if err != nil {
		return nil, err
	}
	now.rows = make([]row, len(rows))
	ids := make([]int64, 0, len(rows))
	fields := rowPool.Get().(*schemas.Row)
	defer rowPool.Put(fields)
	for i, r := range rows {
		var err error
		if !r.usable {
			err = takeApart(r.raw, fields)
			if err == nil && last != nil && len(p.quiet) > 0 && 6*len(r.raw) <= p.maxRow {
				r.loud = loud(fields, p.quiet)
				if was := last.but(i, r.loud); was != nil {
					r.agent, r.dropped, r.usable = was.agent, was.dropped, true
				}
			}
		}
		if r.usable {
			p.Known = append(p.Known, r.agent)
			p.Dropped += int(r.dropped)
		} else if dropped, ok := p.add(i, len(r.raw), fields, err); ok {
			r.agent, r.dropped, r.usable = p.Agents[len(p.Agents)-1].AgentID(), int32(dropped), true
		}
		if r.usable {
			ids = append(ids, r.agent)
		}
		r.size = int32(len(r.raw))
		now.rows[i] = r.row
	}
	if last != nil && slices.Equal(ids, last.said.ids) {
		ids, now.twice = last.said.ids, last.twice
	} else {
		now.twice = repeats(ids)
	}
	if now.twice && len(p.Known) > 0 { // which of its rows counts is for those to say who look at all of them
		p.Known, p.Rejected, p.Dropped = nil, nil, 0
		p.decodeAll(rows)
	}
	now.rejected = p.Rejected
	now.said = &said{total: a.total, pos: a.pos, rows: len(rows), ids: ids, rejected: len(p.Rejected), dropped: p.Dropped}
	for _, r := range p.Rejected {
		now.said.unidentified += counts(!r.Known)
	}
	return now, nil
}

// rowAt returns the row that text begins with, where that is the one that was at place i, and known.
func (c *content) rowAt(i int, text []byte) (rowRead, bool) {
	if c == nil || c.twice || i >= len(c.rows) {
		return rowRead{}, false
	}
	r := c.rows[i]
	if !r.usable || len(text) < int(r.size) || maphash.Bytes(seed, text[:r.size]) != r.sum {
		return rowRead{}, false
	}
	return rowRead{r, text[:r.size]}, true
}

// row returns what is known of a row by its hash, most likely at place i; nil: it is new, or was not usable.
func (c *content) row(i int, sum uint64) *row {
	if c == nil || c.twice {
		return nil
	}
	if i >= len(c.rows) || c.rows[i].sum != sum {
		i = slices.IndexFunc(c.rows, func(r row) bool { return r.sum == sum })
	}
	if i < 0 || !c.rows[i].usable {
		return nil
	}
	return &c.rows[i]
}

// but returns the row at place i, where all of it but quiet numbers has that hash; nil: it has not, or was not usable.
func (c *content) but(i int, loud uint64) *row {
	if c.twice || loud == 0 || i >= len(c.rows) || c.rows[i].loud != loud || !c.rows[i].usable {
		return nil
	}
	return &c.rows[i]
}

// repeats reports whether an agent is there twice.
func repeats(ids []int64) bool {
	sorted := slices.Clone(ids)
	slices.Sort(sorted)
	return len(slices.Compact(sorted)) < len(ids)
}

func counts(is bool) int {
	if is {
		return 1
	}
	return 0
}

// Decode decodes all usable rows, in the listing's order, those in Known too. It may be called until Release is.
func (p *Page) Decode() []schemas.Packed {
	if len(p.Known) == 0 {
		return p.Agents
	}
	_, rows, err := readAnswer(p.body, p.Number, p.size, nil, nil)
	if err != nil { // it was decoded before
		panic("poller: a page that was known can't be decoded: " + err.Error())
	}
	all := Page{tenant: p.tenant, maxRow: p.maxRow}
	all.decodeAll(rows)
	return all.Agents
}

func (p *Page) decodeAll(rows []rowRead) {
	raw := make([]json.RawMessage, len(rows))
	for i, r := range rows {
		raw[i] = r.raw
	}
	p.decodeRows(raw)
}

// Release lets the memory of the answer be used again. It need not be called; afterwards Decode must not be.
func (p *Page) Release() {
	if p.body != nil {
		bodies.give(p.body)
		p.body = nil
	}
}
