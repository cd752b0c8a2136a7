package poller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rollcall-events/rollcall/internal/listing"
	"github.com/rollcall-events/rollcall/internal/packed"
)

// progress is what is known of one listing in the course of a sweep.
type progress struct {
	of       string // how it is told from the others: " of type 10"; "" where it is the only one
	pageSize int
	before   int // how many agents it had in the last complete sweep, or what is known otherwise

	total int        // how many agents it has by the newest answer
	read  time.Time  // when that had been read
	pages []pageRead // by number, as far as any was tried
	end   int        // the first page read in this round that shows that the listing ends before it

	// What judge said.
	distinct int            // agents on its pages, where every page arrived
	err      *listing.Error // why the listing is not complete, the most telling reason; nil: it is
	again    []int          // the pages which, read once more, might mend that
}

// pageRead is what is known of one page in the course of a sweep.
type pageRead struct {
	page     *listing.Page  // the latest answer that could be used; nil: none
	err      *listing.Error // of the latest try; nil: it gave page, or there was none
	failures int            // tries that failed
}

// page returns what is known of a page, also where that is nothing.
func (l *progress) page(i int) pageRead {
	if i < len(l.pages) {
		return l.pages[i]
	}
	return pageRead{}
}

// pageCount returns how many pages the listing has: the first is always there.
func (l *progress) pageCount() int { return max(1, (l.total+l.pageSize-1)/l.pageSize) }

// wants reports whether a page is worth asking for: it is not behind the listing's end, by the
// newest total and by what this round has shown; or it is the one behind it, which has to be empty.
func (l *progress) wants(n int) bool {
	return n < l.pageCount() && n <= l.end || n == l.pageCount() && l.total < l.before
}

// agents returns the usable rows of a page, as far as it was read.
func (l *progress) agents(page int) []packed.Agent {
	if p := l.page(page).page; p != nil {
		return p.Agents
	}
	return nil
}

func inconsistent(format string, args ...any) *listing.Error {
	return &listing.Error{Class: listing.Inconsistent, Err: fmt.Errorf(format, args...)}
}

// torn says in what an answer does not fit its place in the listing; nil: it fits.
func (l *progress) torn(n int, p *listing.Page) *listing.Error {
	switch want := min(max(l.total-n*l.pageSize, 0), l.pageSize); {
	case p.Misplaced:
		return inconsistent("page %d%s: the answer was for another page", n, l.of)
	case p.Total != l.total && p.Total != listing.NoTotal:
		return inconsistent("page %d%s says total_count %d, a later answer says %d",
			n, l.of, p.Total, l.total)
	case p.Rows() != want && p.Rows()-twice(p) != want:
		return inconsistent("page %d%s has %d rows, total_count %d calls for %d",
			n, l.of, p.Rows(), l.total, want)
	}
	return nil
}

// twice is how many rows of a page show an agent that another one of them shows.
func twice(p *listing.Page) int {
	ids := make(map[int64]bool, len(p.Agents))
	for _, a := range p.Agents {
		ids[a.AgentID()] = true
	}
	return len(p.Agents) - len(ids)
}

// judge says whether the listing is complete: every page arrived, they agree on the total, and the
// distinct agents plus the rejected rows make that number. This is the one place where completeness
// is decided.
func (l *progress) judge() {
	l.err, l.again = nil, nil
	seen, rejected := 0, 0
	for n := range l.pageCount() {
		p := l.page(n)
		if p.page != nil {
			seen += len(p.page.Agents)
			rejected += len(p.page.Rejected)
			torn := l.torn(n, p.page)
			if torn == nil {
				continue
			}
			l.err = listing.Worse(l.err, torn)
		}
		switch {
		case p.err != nil:
			l.err = listing.Worse(l.err, p.err)
		case p.page == nil && l.err == nil: // one is enough: a total that lies makes many
			l.err = inconsistent("page %d%s was not read", n, l.of)
		}
		l.again = append(l.again, n)
	}
	if l.err != nil {
		return
	}
	distinct := len(distinctAgents(l))
	l.distinct = distinct
	if distinct < seen {
		l.again = l.overlapping()
	}
	if distinct+rejected != l.total {
		l.err = inconsistent("total_count%s is %d, but the pages show %d agents, "+
			"%d of them twice, and %d rejected rows: the listing changed while it was read",
			l.of, l.total, distinct, seen-distinct, rejected)
		return
	}
	l.again = nil
	if l.total < l.before {
		l.judgeBehind()
	}
}

// distinctAgents returns the agents that the listings show, each once, in ascending order.
func distinctAgents(listings ...*progress) []int64 {
	var ids []int64
	for _, l := range listings {
		for n := range l.pageCount() {
			for _, a := range l.agents(n) {
				ids = append(ids, a.AgentID())
			}
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// overlapping returns the pages that show an agent which another page, or the same one, shows too.
func (l *progress) overlapping() (pages []int) {
	on := make(map[int64]int) // agent: the first page that shows it
	for n := range l.pageCount() {
		for _, a := range l.agents(n) {
			if first, twice := on[a.AgentID()]; twice {
				pages = append(pages, first, n)
			} else {
				on[a.AgentID()] = n
			}
		}
	}
	slices.Sort(pages)
	return slices.Compact(pages)
}

// judgeBehind judges what is behind the end of a listing whose total has fallen since the last
// complete sweep: it may have been cut off, with the rows behind it still there.
func (l *progress) judgeBehind() {
	n := l.pageCount()
	p := l.page(n)
	fits := p.page != nil &&
		(p.page.Rows() == 0 || p.page.Total == l.total || p.page.Total == listing.NoTotal)
	switch {
	case fits && !l.showsMore(p.page):
		return
	case fits:
		l.err = inconsistent("total_count%s fell from %d to %d, but page %d, behind the last one, "+
			"still has %d rows: the listing is cut off, and nobody is removed for that",
			l.of, l.before, l.total, n, p.page.Rows())
	case p.err != nil && p.saysNone():
		return
	case p.err != nil:
		l.err = p.err
	default:
		l.err = inconsistent("total_count%s fell from %d to %d, and page %d, "+
			"behind the last one, was not read", l.of, l.before, l.total, n)
	}
	l.again = []int{n}
}

// saysNone reports whether the vendor answered in a way that says that there is no such page: it
// refused it, or fails over it again and again.
func (p *pageRead) saysNone() bool {
	if p.err.Class == listing.Unreachable {
		// It is asked for once a round, from the third on.
		return p.err.Refused && p.failures >= rounds-2
	}
	return p.err.Refused
}

// showsMore reports whether a page behind the end shows anybody who is not on the listing's pages.
// A vendor may answer with one of those again where there is no such page.
func (l *progress) showsMore(p *listing.Page) bool {
	listed := make(map[int64]bool, l.total)
	for n := range l.pageCount() {
		for _, a := range l.agents(n) {
			listed[a.AgentID()] = true
		}
		if was := l.page(n).page; was != nil {
			for _, r := range was.Rejected {
				listed[r.AgentID] = true
			}
		}
	}
	for _, a := range p.Agents {
		if !listed[a.AgentID()] {
			return true
		}
	}
	for _, r := range p.Rejected {
		if r.Known && !listed[r.AgentID] {
			return true
		}
	}
	return len(p.Agents) == 0 && p.Unidentified() > 0
}

// verdict sums up a sweep whose listings have been judged. cut is why it was cut short, nil where
// it was not. Of a sweep that is complete all the same cut means nothing; else a cancellation wins
// over everything, since whatever went wrong may have gone wrong for that.
func verdict(listings []*progress, cut *listing.Error) listing.Verdict {
	v := listing.Verdict{Complete: true}
	worst := cut
	for _, l := range listings {
		if l.err != nil {
			v.Complete = false
			worst = listing.Worse(worst, l.err)
		}
		for n := range l.pageCount() {
			p := l.page(n).page
			if p == nil {
				continue
			}
			v.Pages++
			v.Rejected += len(p.Rejected)
			v.Unidentified += p.Unidentified()
			v.Dropped += p.Dropped
			v.Repaired += p.Repaired
			for _, r := range p.Rejected {
				if v.Rejections == nil {
					v.Rejections = make(map[string]int)
				}
				v.Rejections[r.Reason]++
			}
		}
	}
	if v.Agents = listings[0].distinct; len(listings) > 1 || !v.Complete {
		v.Agents = len(distinctAgents(listings...))
	}
	switch {
	case v.Complete:
	case cut != nil && errors.Is(cut, context.Canceled):
		v.Err = cut
	default:
		v.Err = worst
	}
	return v
}
