package poller

import (
	"context"
	"errors"
	"github.com/rollcall-events/rollcall/internal/test/sweeptest"
	"reflect"
	"slices"
	"testing"

	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/schemas"

	"github.com/rollcall-events/rollcall/internal/listing"
)

func TestVerdict(t *testing.T) {
	const size = 2
	// A page that says total, and shows these agents.
	page := func(total int, ids ...int64) pageRead {
		return pageRead{page: shows(total, ids...)}
	}
	bad := func(p pageRead, change func(*listing.Page)) pageRead {
		change(p.page)
		return p
	}
	failed := func(class listing.Class) pageRead {
		return pageRead{err: &listing.Error{Class: class, Err: errors.New("it failed")}}
	}
	reread := func(p pageRead, class listing.Class) pageRead { p.err = failed(class).err; return p }
	for _, tc := range []struct {
		name  string
		total int
		pages []pageRead
		class listing.Class // empty: complete
		words string
		again []int
	}{
		{"complete", 3, []pageRead{page(3, 1, 2), page(3, 3)}, "", "", nil},
		{"nobody there", 0, []pageRead{page(0)}, "", "", nil},
		{"shrunk", 2, []pageRead{page(2, 1, 2), page(3, 3)}, "", "", nil},
		{"a rejected row", 3, []pageRead{page(3, 1, 2),
			bad(page(3), func(s *listing.Page) { s.Rejected = make([]listing.Rejected, 1) })}, "",
			"", nil},
		{"nothing read", 0, nil, listing.Inconsistent, "page 0 was not read", []int{0}},
		{"a page missing", 3, []pageRead{page(3, 1, 2)}, listing.Inconsistent,
			"page 1 was not read", []int{1}},
		{"a page failed", 3, []pageRead{page(3, 1, 2), failed(listing.Unusable)}, listing.Unusable,
			"it failed", []int{1}},
		{"the worst wins", 9, []pageRead{failed(listing.Unusable), page(8, 1, 2),
			failed(listing.Unreachable), failed(listing.Credentials), failed(listing.Unreachable)},
			listing.Credentials, "", []int{0, 1, 2, 3, 4}},
		{"unreachable over unusable", 5, []pageRead{failed(listing.Unusable),
			failed(listing.Unreachable), page(5, 1)}, listing.Unreachable, "", []int{0, 1}},
		{"grown", 4, []pageRead{page(3, 1, 2), page(4, 3, 4)}, listing.Inconsistent,
			"page 0 says total_count 3, a later answer says 4", []int{0}},
		{"grown by a page", 5, []pageRead{page(5, 1, 2), page(5, 3, 4)}, listing.Inconsistent,
			"page 2 was not read", []int{2}},
		{"short", 3, []pageRead{page(3, 1), page(3, 3)}, listing.Inconsistent,
			"page 0 has 1 rows, total_count 3 calls for 2", []int{0}},
		{"long", 3, []pageRead{page(3, 1, 2), page(3, 3, 4)}, listing.Inconsistent,
			"page 1 has 2 rows", []int{1}},
		{"wrong pos", 3, []pageRead{page(3, 1, 2),
			bad(page(3, 3), func(s *listing.Page) { s.Misplaced = true })}, listing.Inconsistent,
			"page 1: the answer was for another page", []int{1}},
		{"an agent twice", 5, []pageRead{page(5, 1, 2), page(5, 3, 4), page(5, 2)},
			listing.Inconsistent, "4 agents, 1 of them twice", []int{0, 2}},
		{"an agent twice on a page", 4, []pageRead{page(4, 1, 2), page(4, 3, 3)},
			listing.Inconsistent, "twice", []int{1}},
		{"an agent twice on a page, and counted once", 3,
			[]pageRead{page(3, 1, 2, 1), page(3, 3, 3)}, "", "", nil},
		{"an agent twice, and a short page", 5, []pageRead{page(5, 1, 2), page(5, 3), page(5, 2)},
			listing.Inconsistent, "page 1 has 1 rows", []int{1}},
		{"a needless second reading failed", 3,
			[]pageRead{reread(page(3, 1, 2), listing.Unreachable), page(3, 3)}, "", "", nil},
		{"a needed second reading failed", 3, []pageRead{reread(page(3, 1), listing.Unreachable),
			page(3, 3)}, listing.Unreachable, "it failed", []int{0}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := &progress{pageSize: size, total: tc.total, pages: tc.pages}
			l.judge()
			again, err := l.again, l.err
			if !slices.Equal(again, tc.again) {
				t.Errorf("again %v, want %v", again, tc.again)
			}
			if (err == nil) != (tc.class == "") {
				t.Fatalf("error %v", err)
			}
			if err != nil {
				sweeptest.WantClass(t, err, tc.class, tc.words)
			}

			complete := &progress{pageSize: size, total: 1, pages: []pageRead{page(1, 1)}}
			v := verdict([]*progress{complete, l, complete}, nil)
			if v.Complete != (err == nil) {
				t.Errorf("complete %v, though %v", v.Complete, err)
			}
			cut := &listing.Error{Class: listing.Unreachable, Err: context.Canceled}
			v = verdict([]*progress{complete, l}, cut)
			if v.Complete != (err == nil) || !v.Complete && v.Err != error(cut) {
				t.Errorf("canceled: complete %v, error %v", v.Complete, v.Err)
			}
			cut = &listing.Error{Class: listing.Unreachable, Err: context.DeadlineExceeded}
			v = verdict([]*progress{l}, cut)
			if want := listing.Worse(cut, err); !v.Complete && v.Err != error(want) {
				t.Errorf("cut short: error %v, want %v", v.Err, want)
			}
		})
	}
}

func TestVerdictCounts(t *testing.T) {
	a := &progress{pageSize: 2, total: 4, pages: []pageRead{
		{page: shows(4, 1, 2)},
		{page: rejecting(shows(4, 3), 1, 1, 3)},
		{page: rejecting(shows(5, 9), 7, 0, 0)}, // the listing has shrunk
	}}
	b := &progress{pageSize: 2, total: 1, pages: []pageRead{{page: shows(1, 3)}}}
	got := verdict([]*progress{a, b}, nil)
	if want := (listing.Verdict{Complete: true, Pages: 3, Agents: 3, Rejected: 1, Unidentified: 1,
		Dropped: 3, Rejections: got.Rejections}); !reflect.DeepEqual(
		got,
		want,
	) ||
		len(got.Rejections) != 1 {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// shows is a page of a listing of total agents that shows the given ones.
func shows(total int, ids ...int64) *listing.Page {
	c := &listing.Page{Total: total}
	for _, id := range ids {
		c.Agents = append(c.Agents, packed.Pack(&schemas.Agent{AgentID: id}))
	}
	return c
}

// rejecting is the page with rejected rows.
func rejecting(c *listing.Page, rejected, unidentified, dropped int) *listing.Page {
	c.Rejected = make([]listing.Rejected, rejected)
	for i := range c.Rejected {
		c.Rejected[i].Known = i >= unidentified
	}
	c.Dropped = dropped
	return c
}
