package poller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// listing is what is known of one listing in the course of a sweep.
type listing struct {
	total int        // by the newest answer
	read  time.Time  // when that had been read
	pages []pageRead // by number, as far as any was tried
	ids   *idCount   // of its pages; nil: every count begins anew
}

// pageRead is what is known of one page in the course of a sweep.
type pageRead struct {
	said     *said  // the latest answer that could be used; nil: none
	err      *Error // of the latest try; nil: it gave said, or there was none
	failures int    // tries that failed
}

// said is what one answer said, as far as the verdict needs it.
type said struct {
	total        int
	pos          bool    // the answer was for the page that was asked for
	rows         int     // of every kind
	ids          []int64 // of the usable rows; never changed
	rejected     int
	unidentified int
	dropped      int
}

// pageCount returns how many pages a listing of total agents has: the first is always there.
func pageCount(total, size int) int { return max(1, (total+size-1)/size) }

// torn says in what an answer does not fit its place in a listing of total agents; nil: it fits.
func (s *said) torn(page, total, size int) error {
	switch want := expected(total, page, size); {
	case !s.pos:
		return fmt.Errorf("page %d: the answer was for another page", page)
	case s.total != total:
		return fmt.Errorf("page %d says total_count %d, a later answer says %d", page, s.total, total)
	case s.rows != want:
		return fmt.Errorf("page %d has %d rows, total_count %d calls for %d", page, s.rows, total, want)
	}
	return nil
}

// judge says whether a listing is complete: every page arrived, they agree on total_count, and the distinct agents plus the
// rejected rows make that number. Where it is not, err is the most telling reason and again lists the pages which, read once
// more, might mend it. This is the one place where completeness is decided.
func (l *listing) judge(size int) (again []int, err *Error) {
	seen, rejected := 0, 0
	for i := range pageCount(l.total, size) {
		p := l.page(i)
		if p.said != nil {
			seen += len(p.said.ids)
			rejected += p.said.rejected
			why := p.said.torn(i, l.total, size)
			if why == nil {
				continue
			}
			err = worse(err, &Error{Class: Inconsistent, Err: why})
		}
		switch {
		case p.err != nil:
			err = worse(err, p.err)
		case p.said == nil && err == nil: // one is enough: a total_count that lies makes many
			err = &Error{Class: Inconsistent, Err: fmt.Errorf("page %d was not read", i)}
		}
		again = append(again, i)
	}
	if err != nil {
		return again, err
	}
	distinct, again := l.distinct(size)
	if distinct+rejected != l.total {
		return again, &Error{Class: Inconsistent, Err: fmt.Errorf(
			"total_count is %d, but the pages show %d agents, %d of them twice, and %d rejected rows: the listing changed while it was read",
			l.total, distinct, seen-distinct, rejected)}
	}
	return nil, nil
}

// page returns what is known of a page, also where that is nothing.
func (l *listing) page(i int) pageRead {
	if i < len(l.pages) {
		return l.pages[i]
	}
	return pageRead{}
}

// distinct counts the agents on the listing's pages, and lists the pages that show one which is shown elsewhere as well.
func (l *listing) distinct(size int) (n int, sharing []int) {
	pages := make([][]int64, pageCount(l.total, size))
	for i := range pages {
		if s := l.page(i).said; s != nil {
			pages[i] = s.ids
		}
	}
	if l.ids == nil {
		l.ids = &idCount{}
	}
	return l.ids.of(pages)
}

// An idCount counts the agents on pages. Pages that show the same agents as when it was last asked, mostly all of them, cost
// next to nothing.
type idCount struct {
	pages   [][]int64
	n       int
	sharing []int
}

// of returns how many agents the pages show, and which of the pages show one that is shown elsewhere as well.
func (c *idCount) of(pages [][]int64) (n int, sharing []int) {
	same := func(a, b []int64) bool { return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) }
	if slices.EqualFunc(c.pages, pages, same) {
		return c.n, c.sharing
	}
	type seenOn struct {
		id   int64
		page int
	}
	var all []seenOn
	for i, ids := range pages {
		for _, id := range ids {
			all = append(all, seenOn{id, i})
		}
	}
	slices.SortFunc(all, func(a, b seenOn) int { return cmp.Compare(a.id, b.id) })
	for i, a := range all {
		if i > 0 && a.id == all[i-1].id {
			sharing = append(sharing, a.page, all[i-1].page)
		} else {
			n++
		}
	}
	slices.Sort(sharing)
	*c = idCount{pages, n, slices.Compact(sharing)}
	return c.n, c.sharing
}

// worse returns the more telling of two errors, the first of equals; either may be nil.
func worse(a, b *Error) *Error {
	if a == nil || b != nil && b.Class.rank() > a.Class.rank() {
		return b
	}
	return a
}

// verdict sums up a sweep. cut is why it was cut short, nil where it was not. Of a sweep that is complete all the same cut
// means nothing; else a cancellation wins over everything, since whatever went wrong may have gone wrong for that. all counts
// the agents of all listings.
func verdict(listings []*listing, size int, cut *Error, all *idCount) Verdict {
	v := Verdict{Complete: true}
	worst := cut
	var ids [][]int64
	for _, l := range listings {
		if _, err := l.judge(size); err != nil {
			v.Complete = false
			worst = worse(worst, err)
		}
		for i := range pageCount(l.total, size) {
			s := l.page(i).said
			if s == nil {
				continue
			}
			v.Pages++
			v.Rejected += s.rejected
			v.Unidentified += s.unidentified
			v.Dropped += s.dropped
			ids = append(ids, s.ids)
		}
	}
	v.Agents, _ = all.of(ids)
	switch {
	case v.Complete:
	case cut != nil && errors.Is(cut, context.Canceled):
		v.Err = cut
	default:
		v.Err = worst
	}
	return v
}
