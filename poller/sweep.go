package poller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/rollcall-events/rollcall/internal/listing"
	"github.com/rollcall-events/rollcall/internal/packed"
)

const (
	maxTries       = 4  // of one page in a sweep that may fail
	rounds         = 5  // page 0 of each listing, the others, and three more of what does not fit
	maxFailedInRow = 25 // pages, not one of them reachable, after which a sweep is given up

	// loggedRejects is how many records that the last sweep had not rejected are logged one by one.
	loggedRejects = 10

	minSweepTimeout = time.Minute
)

// A job is one page to read, and what came of it.
type job struct {
	listing, number int
	tries           int // how often it may fail

	page     *listing.Page  // nil: no answer could be used
	err      *listing.Error // of the last try
	failures int            // tries that failed
}

// sweep is one Sweep under way.
type sweep struct {
	*Poller
	emit        func(*listing.Page)
	began       time.Time // on the clock that timeouts go by
	started     time.Time // when the first page that arrived was asked for; zero: none did
	listings    []*progress
	cut         *listing.Error // why the sweep was cut short; nil: it was not
	failedInRow int            // pages that were unreachable since the last that was not

	rejects  int // rejected records that the sweep before had not rejected
	rejected map[rejection]bool
}

// Sweep reads the whole listing once; one Sweep at a time. It calls emit for every page as soon as
// that has been read, for one at a time, and reads on meanwhile only as far as Config.Concurrency
// goes: blocking in emit is back-pressure, and takes of the sweep's time.
//
// It returns when everything has been tried, the sweep's time is over, or ctx has ended; nothing of
// it goes on afterwards. Of an incomplete sweep, what was emitted still has been seen.
func (p *Poller) Sweep(ctx context.Context, emit func(*listing.Page)) listing.Verdict {
	began := p.cfg.Now()
	s := &sweep{Poller: p, emit: emit, began: time.Now(), rejected: make(map[rejection]bool)}
	for i := range max(1, len(p.cfg.Types)) {
		l := &progress{pageSize: p.source.PageSize()}
		if len(p.cfg.Types) > 0 {
			l.of = " of type " + p.cfg.Types[i]
		}
		for _, before := range [][]int{p.totals, p.expected} {
			if i < len(before) {
				l.before = max(l.before, before[i])
			}
		}
		s.listings = append(s.listings, l)
	}
	for n := 0; ; n++ {
		jobs := s.jobs()
		if len(jobs) == 0 || n == rounds || s.over() {
			break
		}
		s.round(ctx, jobs)
	}
	if more := s.rejects - loggedRejects; more > 0 {
		p.cfg.Logger.Warn("more records rejected in the same sweep", "count", more)
	}
	p.rejected = s.rejected
	v := verdict(s.listings, s.cut)
	v.StartedAt, v.EndedAt = s.started, p.cfg.Now()
	if v.StartedAt.IsZero() {
		v.StartedAt = began
	}
	if v.Complete {
		p.totals, p.expected = nil, nil
		for _, l := range s.listings {
			p.totals = append(p.totals, l.total)
		}
	}
	return v
}

// over reports whether no further page should be asked for.
func (s *sweep) over() bool { return s.cut != nil || s.failedInRow >= maxFailedInRow }

// jobs judges the listings, and returns the pages to ask for next: those that are missing or do not
// fit, as long as they may fail once more.
func (s *sweep) jobs() (jobs []job) {
	for i, l := range s.listings {
		l.judge()
		for _, n := range l.again {
			left := maxTries - l.page(n).failures
			if n >= l.pageCount() {
				left = min(left, 1) // a refusal says that there is nothing
			}
			if left > 0 {
				jobs = append(jobs, job{listing: i, number: n, tries: left})
			}
		}
	}
	return jobs
}

// timeout is how long the sweep may take, by what is known of the listings and by the present rate.
func (s *sweep) timeout() time.Duration {
	if s.cfg.SweepTimeout > 0 {
		return s.cfg.SweepTimeout
	}
	pages := 0
	for _, l := range s.listings {
		pages += l.pageCount()
	}
	seconds := min(3*float64(pages)/s.source.Rate(), math.MaxInt64/float64(2*time.Second))
	return max(minSweepTimeout, time.Duration(seconds*float64(time.Second)))
}

// round reads the pages, in parallel. Behind a page that shows the listing's end it asks for none.
func (s *sweep) round(ctx context.Context, jobs []job) {
	timeout := s.timeout()
	ctx, cancel := context.WithDeadlineCause(ctx, s.began.Add(timeout),
		fmt.Errorf("the sweep did not end within %v", timeout))
	defer cancel()

	for _, l := range s.listings {
		l.end = math.MaxInt
	}
	next := func() (j job, ok bool) {
		for ; !ok && len(jobs) > 0 && ctx.Err() == nil && !s.over(); jobs = jobs[1:] {
			j, ok = jobs[0], s.listings[jobs[0].listing].wants(jobs[0].number)
		}
		return j, ok
	}
	// turn is held by whoever does not read a page. A mutex would stop virtual time.
	turn := make(chan struct{}, 1)
	var wg sync.WaitGroup
	for range min(s.cfg.Concurrency, len(jobs)) {
		wg.Go(func() {
			turn <- struct{}{}
			defer func() { <-turn }()
			for j, ok := next(); ok; j, ok = next() {
				<-turn
				j.read(ctx, s.source)
				turn <- struct{}{}
				s.take(j)
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		s.cut = listing.Worse(s.cut, listing.Ended(ctx.Err(), context.Cause(ctx)))
	}
}

// take keeps what came of a page and hands it over.
func (s *sweep) take(j job) {
	l := s.listings[j.listing]
	for len(l.pages) <= j.number {
		l.pages = append(l.pages, pageRead{})
	}
	p := &l.pages[j.number]
	p.failures += j.failures
	switch {
	case j.err != nil && j.err.Fatal:
		s.cut = listing.Worse(s.cut, j.err)
		return
	case j.err != nil:
		p.err = j.err
		if j.err.Class == listing.Unreachable {
			s.failedInRow++
		}
		return
	}
	s.failedInRow = 0
	page := j.page
	p.err, p.page = nil, page
	if s.started.IsZero() || page.Sent.Before(s.started) {
		s.started = page.Sent
	}
	nothing := page.Rows() == 0 && j.number >= l.pageCount() // and so is its total
	if !page.Read.Before(l.read) && page.Total != listing.NoTotal && !nothing {
		l.total, l.read = page.Total, page.Read
	}
	if j.number > 0 && (page.Rows() == 0 || sameAgents(page, l.pages[0].page)) {
		l.end = min(l.end, j.number) // whatever its total says
	}
	s.metrics.page(page)
	s.logRejected(page)
	s.emit(page)
}

// sameAgents reports whether two pages show the same agents, in the same order, and some at all.
func sameAgents(a, b *listing.Page) bool {
	return b != nil && len(a.Agents) > 0 &&
		slices.EqualFunc(a.Agents, b.Agents, func(a, b packed.Agent) bool {
			return a.AgentID() == b.AgentID()
		})
}

// A rejection is what is known of a rejected record in order to tell whether it was rejected
// before. A record that can't be told whose it is goes by its page.
type rejection struct {
	listing, page int
	agent         int64
	reason        string
}

// logRejected logs every record that is rejected now and was not in the sweep before.
func (s *sweep) logRejected(p *listing.Page) {
	for _, r := range p.Rejected {
		key := rejection{p.Listing, 0, r.AgentID, r.Reason}
		if !r.Known {
			key.page = p.Number
		}
		s.rejected[key] = true
		if s.Poller.rejected[key] {
			continue
		}
		if s.rejects++; s.rejects > loggedRejects {
			continue
		}
		attrs := []any{"page", p.Number, "index", r.Index, "reason", r.Reason}
		if r.Detail != "" {
			attrs = append(attrs, "detail", r.Detail)
		}
		if len(s.cfg.Types) > 0 {
			attrs = append(attrs, "type", s.cfg.Types[p.Listing])
		}
		if r.Known {
			attrs = append(attrs, slog.Int64("agentId", r.AgentID))
		}
		s.cfg.Logger.Warn("record rejected", attrs...)
	}
}

// read reads the page, with as many tries as the job allows.
func (j *job) read(ctx context.Context, from Source) {
	b := backoff.NewExponentialBackOff(backoff.WithInitialInterval(250*time.Millisecond),
		backoff.WithMultiplier(2), backoff.WithMaxInterval(5*time.Second),
		backoff.WithMaxElapsedTime(0))
	tries := backoff.WithContext(backoff.WithMaxRetries(b, uint64(j.tries-1)), ctx)
	_ = backoff.Retry(func() error { // what it returns is j.err, or that ctx has ended since
		page, err := from.Read(ctx,
			listing.Request{Listing: j.listing, Page: j.number, Again: j.failures > 0})
		if err == nil {
			j.page, j.err = page, nil
			return nil
		}
		if !err.Fatal {
			j.err = err
			j.failures++
			return err
		}
		if j.err != nil && errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			// There is no time for another try: what the one before was answered says more.
			last := *j.err
			last.Fatal = true
			err = &last
		}
		j.err = err
		return backoff.Permanent(err)
	}, tries)
}
