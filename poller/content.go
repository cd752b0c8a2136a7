package poller

import (
	"hash/maphash"

	"github.com/rollcall-events/rollcall/schemas"
)

// A content is what a page was when it was last read, as far as that is needed to know it again and to go on without looking
// into it. It is not changed once the sweep's goroutine has it.
type content struct {
	number   uint64 // no two contents of a poller have the same; 0: not yet given
	tenant   int64  // whose rows they were decoded as
	size     int    // of the answer's body …
	sum      uint64 // … and its hash
	said     *said
	rejected []Rejection
}

// seed makes the hashes of answers unpredictable: nobody can make two that look the same.
var seed = maphash.MakeSeed()

// is reports whether the answer's body is the one that c was made of.
func (c *content) is(body []byte, sum uint64, tenant int64) bool {
	return c != nil && c.size == len(body) && c.sum == sum && c.tenant == tenant
}

// show fills in what a page shows that has the content as it is remembered: none of its rows is decoded.
func (p *Page) show(c *content) {
	p.Known, p.Rejected, p.Dropped = c.said.ids, c.rejected, c.said.dropped
}

// Decode decodes all usable rows, in the listing's order, those in Known too. It may be called until Release is.
func (p *Page) Decode() []schemas.Agent {
	if len(p.Known) == 0 {
		return p.Agents
	}
	a, err := decodeAnswer(p.body, p.Number, p.size, nil)
	if err != nil { // it was decoded before
		panic("poller: a page that was known can't be decoded: " + err.Error())
	}
	var all Page
	all.decodeRows(a.rows, p.tenant, p.maxRow)
	return all.Agents
}

// Release lets the memory of the answer be used again. It need not be called; afterwards Decode must not be.
func (p *Page) Release() {
	if p.body != nil {
		bodies.give(p.body)
		p.body = nil
	}
}
