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
	listing.Request
	tries int // how often it may fail

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

	todo   []job          // what the round under way has yet to ask for
	flying map[place]bool // pages that were asked for and not answered yet

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
	s := &sweep{Poller: p, emit: emit, began: time.Now(),
		rejected: make(map[rejection]bool), flying: make(map[place]bool)}
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
		if p.glances != nil {
			p.glances.forget(v.EndedAt, s.listings)
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
				jobs = append(jobs, job{Request: listing.Request{Listing: i, Page: n}, tries: left})
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

// round reads the pages, several at a time. Which page a request is for is decided when its turn
// has come.
func (s *sweep) round(ctx context.Context, jobs []job) {
	timeout := s.timeout()
	ctx, cancel := context.WithDeadlineCause(ctx, s.began.Add(timeout),
		fmt.Errorf("the sweep did not end within %v", timeout))
	defer cancel()
	waiting, stopWaiting := context.WithCancel(ctx) // for turns
	defer stopWaiting()

	s.todo = jobs
	for _, l := range s.listings {
		l.end = math.MaxInt
	}
	// baton is held by the worker that neither waits nor reads; a mutex would stop virtual time.
	baton := make(chan struct{}, 1)
	// One worker at a time waits for a turn: of several that stop waiting, turns would be lost.
	waiter := make(chan struct{}, 1)
	var wg sync.WaitGroup
	for range min(s.cfg.Concurrency, len(jobs)) {
		wg.Go(func() {
			baton <- struct{}{}
			defer func() { <-baton }()
			for s.more(ctx) {
				<-baton
				waiter <- struct{}{}
				err := s.source.Turn(waiting)
				<-waiter
				baton <- struct{}{}
				if !s.more(ctx) {
					break
				}
				if err != nil {
					s.cut = listing.Worse(s.cut, err)
					break
				}
				j := s.next(timeout)
				<-baton
				j.read(ctx, s.source)
				baton <- struct{}{}
				s.take(j)
			}
			stopWaiting() // nobody else has anything left to ask for
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		s.cut = listing.Worse(s.cut, listing.Ended(ctx.Err(), context.Cause(ctx)))
	}
}

// more reports whether the round has any page left to ask for.
func (s *sweep) more(ctx context.Context) bool {
	for len(s.todo) > 0 && !s.listings[s.todo[0].Listing].wants(s.todo[0].Page) {
		s.todo = s.todo[1:]
	}
	return len(s.todo) > 0 && ctx.Err() == nil && !s.over()
}

// next takes what is to be asked for now: a page of a glance, one that a glance points to, or the
// sweep's own next one.
func (s *sweep) next(timeout time.Duration) job {
	n := 0
	// Before the first complete sweep nobody trusts the stream, so that one goes first.
	if s.glances != nil && s.totals != nil && s.hasTime(timeout) {
		if r, ok := s.glances.turn(s.pageCounts()); ok {
			return job{Request: r, tries: 1}
		}
		if at, ok := s.glances.hint(s.toRead, s.flying); ok {
			if n = s.toRead(at); n < 0 {
				s.flying[at] = true
				return job{Request: listing.Request{Listing: at.listing, Page: at.page}, tries: 1}
			}
		}
	}
	j := s.todo[n]
	copy(s.todo[1:n+1], s.todo[:n])
	s.todo = s.todo[1:]
	s.flying[place{j.Listing, j.Page}] = true
	return j
}

// hasTime reports whether the sweep has time for more than what it has yet to read.
func (s *sweep) hasTime(timeout time.Duration) bool {
	needed := time.Duration(1.5 * float64(len(s.todo)) / s.source.Rate() * float64(time.Second))
	return time.Since(s.began)+needed < timeout
}

// toRead returns where a page stands among those that are yet to be asked for, -1 if it does not.
func (s *sweep) toRead(at place) int {
	return slices.IndexFunc(s.todo, func(j job) bool { return place{j.Listing, j.Page} == at })
}

// pageCounts returns how many pages each listing has, as far as is known.
func (s *sweep) pageCounts() []int {
	counts := make([]int, len(s.listings))
	for i, l := range s.listings {
		counts[i] = max(l.pageCount(), (l.before+l.pageSize-1)/l.pageSize)
	}
	return counts
}

// take keeps what came of a page and hands it over.
func (s *sweep) take(j job) {
	if j.Online {
		s.takeGlance(j)
		return
	}
	delete(s.flying, place{j.Listing, j.Page})
	l := s.listings[j.Listing]
	for len(l.pages) <= j.Page {
		l.pages = append(l.pages, pageRead{})
	}
	p := &l.pages[j.Page]
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
	nothing := page.Rows() == 0 && j.Page >= l.pageCount() // and so is its total
	if !page.Read.Before(l.read) && page.Total != listing.NoTotal && !nothing {
		l.total, l.read = page.Total, page.Read
	}
	if j.Page > 0 && (page.Rows() == 0 || sameAgents(page, l.pages[0].page)) {
		l.end = min(l.end, j.Page) // whatever its total says
	}
	s.metrics.page(page)
	s.logRejected(page)
	if s.glances != nil {
		page = s.glances.read(page, s.pageCounts())
	}
	s.emit(page)
}

// takeGlance takes what came of a page of a glance. That it could not be read is no trouble of the
// sweep's.
func (s *sweep) takeGlance(j job) {
	switch {
	case j.err != nil && j.err.Fatal:
		s.cut = listing.Worse(s.cut, j.err)
		s.glances.failed(nil)
	case j.err != nil:
		s.glances.failed(j.err)
	default:
		l := s.listings[j.Listing]
		s.metrics.glanced.Inc()
		s.emit(s.glances.glanced(j.page, max(l.total, l.before)))
	}
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
		r := j.Request
		r.Again = j.failures > 0
		page, err := from.Read(ctx, r)
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
