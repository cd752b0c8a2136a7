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

// reading is what is known of one listing in the course of a sweep.
type reading struct {
	of     string     // how it is told from the others: " of type 10"; "" where it is the only one
	before int        // total_count in the last sweep that was complete, or what is known otherwise
	total  int        // by the newest answer
	read   time.Time  // when that had been read
	pages  []pageRead // by number, as far as any was tried

	counted *count // of the agents on the pages; nil: to be counted anew
}

// A count is what reading.distinct returns.
type count struct {
	agents  int
	sharing []int
}

// pageRead is what is known of one page in the course of a sweep.
type pageRead struct {
	said     *pageContent   // the latest answer that could be used; nil: none
	err      *listing.Error // of the latest try; nil: it gave said, or there was none
	failures int            // tries that failed
}

// pageCount returns how many pages a listing of total agents has: the first is always there.
func pageCount(total, size int) int { return max(1, (total+size-1)/size) }

// torn says in what an answer does not fit its place in the listing; nil: it fits.
func (l *reading) torn(page int, c *pageContent, size int) error {
	switch want := expected(l.total, page, size); {
	case c.Misplaced:
		return fmt.Errorf("page %d%s: the answer was for another page", page, l.of)
	case c.Total != l.total && c.Total != listing.NoTotal:
		return fmt.Errorf("page %d%s says total_count %d, a later answer says %d", page, l.of, c.Total, l.total)
	case c.Rows() != want:
		return fmt.Errorf("page %d%s has %d rows, total_count %d calls for %d", page, l.of, c.Rows(), l.total, want)
	}
	return nil
}

// judge says whether a listing is complete: every page arrived, they agree on total_count, and the
// distinct agents plus the rejected rows make that number. Where it is not, err is the most telling
// reason and again lists the pages which, read once more, might mend it. This is the one place
// where completeness is decided.
func (l *reading) judge(size int) (again []int, err *listing.Error) {
	seen, rejected := 0, 0
	for i := range pageCount(l.total, size) {
		p := l.page(i)
		if p.said != nil {
			seen += len(p.said.Agents)
			rejected += len(p.said.Rejected)
			why := l.torn(i, p.said, size)
			if why == nil {
				continue
			}
			err = listing.Worse(err, &listing.Error{Class: listing.Inconsistent, Err: why})
		}
		switch {
		case p.err != nil:
			err = listing.Worse(err, p.err)
		case p.said == nil && err == nil: // one is enough: a total_count that lies makes many
			err = &listing.Error{Class: listing.Inconsistent, Err: fmt.Errorf("page %d%s was not read", i, l.of)}
		}
		again = append(again, i)
	}
	if err != nil {
		return again, err
	}
	distinct, again := l.distinct(size)
	if distinct+rejected != l.total {
		return again, &listing.Error{Class: listing.Inconsistent, Err: fmt.Errorf(
			"total_count%s is %d, but the pages show %d agents, %d of them twice, and %d rejected rows: the listing changed while it was read",
			l.of, l.total, distinct, seen-distinct, rejected)}
	}
	return l.behind(size)
}

// behind judges what is behind the listing's end, where total_count has fallen since the last
// complete sweep: it may have been cut off, with the rows behind it still there.
func (l *reading) behind(size int) (again []int, err *listing.Error) {
	n := pageCount(l.total, size)
	p := l.page(n)
	fits := p.said != nil && (p.said.Rows() == 0 || p.said.Total == l.total || p.said.Total == listing.NoTotal)
	switch {
	case l.total >= l.before:
		return nil, nil
	case fits && !l.showsMore(p.said, n):
		return nil, nil
	case fits:
		err = &listing.Error{Class: listing.Inconsistent, Err: fmt.Errorf("total_count%s fell from %d to %d, but page %d, "+
			"behind the last one, still has %d rows: the listing is cut off, and nobody is removed for that",
			l.of, l.before, l.total, n, p.said.Rows())}
	case p.err != nil && p.saysNone():
		return nil, nil
	case p.err != nil:
		err = p.err
	default:
		err = &listing.Error{Class: listing.Inconsistent, Err: fmt.Errorf("total_count%s fell from %d to %d, and page %d, "+
			"behind the last one, was not read", l.of, l.before, l.total, n)}
	}
	return []int{n}, err
}

// saysNone reports whether the vendor answered in a way that says that there is no such page: it
// refused it, or fails over it again and again.
func (p *pageRead) saysNone() bool {
	if p.err.Class == listing.Unreachable { // an HTTP 500
		return p.err.Refused && p.failures >= rounds-2 // it is asked for once a round, from the third on
	}
	return p.err.Refused
}

// showsMore reports whether a page shows anybody who is not on the first n pages. A vendor may
// answer with one of those again where there is no such page.
func (l *reading) showsMore(c *pageContent, n int) bool {
	listed := make(map[int64]bool, l.total)
	for i := range n {
		for _, a := range l.agents(i) {
			listed[a.AgentID()] = true
		}
		if s := l.page(i).said; s != nil {
			for _, r := range s.Rejected {
				listed[r.AgentID] = true
			}
		}
	}
	for _, a := range c.Agents {
		if !listed[a.AgentID()] {
			return true
		}
	}
	for _, r := range c.Rejected {
		if r.Known && !listed[r.AgentID] {
			return true
		}
	}
	return len(c.Agents) == 0 && c.Unidentified() > 0
}

// page returns what is known of a page, also where that is nothing.
func (l *reading) page(i int) pageRead {
	if i < len(l.pages) {
		return l.pages[i]
	}
	return pageRead{}
}

// distinct counts the agents on the listing's pages, and lists the pages that show one which is
// shown elsewhere as well.
func (l *reading) distinct(size int) (n int, sharing []int) {
	if l.counted != nil {
		return l.counted.agents, l.counted.sharing
	}
	on := make(map[int64]int, l.total) // agent: the first page that shows it
	for i := range pageCount(l.total, size) {
		for _, a := range l.agents(i) {
			first, ok := on[a.AgentID()]
			if !ok {
				on[a.AgentID()] = i
				continue
			}
			sharing = append(sharing, first, i)
		}
	}
	slices.Sort(sharing)
	l.counted = &count{len(on), slices.Compact(sharing)}
	return l.counted.agents, l.counted.sharing
}

// agents returns the usable rows of a page, as far as it was read.
func (l *reading) agents(page int) []packed.Agent {
	if c := l.page(page).said; c != nil {
		return c.Agents
	}
	return nil
}

// verdict sums up a sweep. cut is why it was cut short, nil where it was not. Of a sweep that is
// complete all the same cut means nothing; else a cancellation wins over everything, since whatever
// went wrong may have gone wrong for that.
func verdict(listings []*reading, size int, cut *listing.Error) listing.Verdict {
	v := listing.Verdict{Complete: true}
	worst := cut
	agents := make(map[int64]bool)
	for _, l := range listings {
		if _, err := l.judge(size); err != nil {
			v.Complete = false
			worst = listing.Worse(worst, err)
		}
		for i := range pageCount(l.total, size) {
			s := l.page(i).said
			if s == nil {
				continue
			}
			v.Pages++
			v.Rejected += len(s.Rejected)
			v.Unidentified += s.Unidentified()
			for _, r := range s.Rejected {
				if v.Rejections == nil {
					v.Rejections = make(map[string]int)
				}
				v.Rejections[r.Reason]++
			}
			v.Dropped += s.Dropped
			v.Repaired += s.Repaired
		}
		if len(listings) == 1 {
			v.Agents, _ = l.distinct(size)
			break
		}
		for i := range pageCount(l.total, size) {
			for _, a := range l.agents(i) {
				agents[a.AgentID()] = true
			}
		}
		v.Agents = len(agents)
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
