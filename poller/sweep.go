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
	maxTries       = 4  // failed tries of one page in a sweep, or of one token
	rounds         = 5  // page 0 of each listing, the others, and three more of what does not fit
	maxFailedInRow = 25 // pages, not one of them reachable, after which a sweep is given up
	loggedRejects  = 10 // rejected records that are logged one by one in a sweep, where the last sweep had not rejected them

	minSweepTimeout = time.Minute
)

// newBackOff spaces the tries of one operation. How many there are and when it is all over is for
// the wrappers to say: no time of its own ends it.
func newBackOff() *backoff.ExponentialBackOff {
	return backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(250*time.Millisecond),
		backoff.WithMultiplier(2),
		backoff.WithMaxInterval(5*time.Second),
		backoff.WithMaxElapsedTime(0),
	)
}

// job is one page to read.
type job struct {
	listing, number int
	tries           int          // how often it may fail
	last            *pageContent // what the page showed when it was last read; nil: it was not
}

// result is what came of a job.
type result struct {
	job
	page     *pageContent   // nil: none of the answers could be used
	sent     time.Time      // when the request of that answer was about to be sent …
	read     time.Time      // … and when the answer had been read
	err      *listing.Error // of the last try
	failures int            // tries that failed
	asked    time.Time      // when the first request was about to be sent; zero: none was
}

// sweep is one Sweep under way. All of it is the calling goroutine's.
type sweep struct {
	p           *Poller
	emit        func(*listing.Page)
	began       time.Time // on the clock that timeouts go by
	started     time.Time // the earliest result.asked
	listings    []*reading
	cut         *listing.Error // why it makes no sense to go on; nil: it does
	failedInRow int            // pages that were unreachable since the last that was not
	rejects     int            // rejected records that the sweep before had not rejected
	rejected    map[rejection]bool
}

// rejection is what is known of a rejected record in order to tell whether it was rejected before.
// A record that can't be told whose it is goes by its page.
type rejection struct {
	listing, page int
	agent         int64
	reason        string
}

// Sweep reads the whole listing once. It calls emit, on its own goroutine, for every page as soon
// as that has been read, and reads on meanwhile only as far as Config.Concurrency goes: blocking in
// emit is back-pressure, and takes of the sweep's time.
//
// It returns when everything has been tried, the sweep's time is over, or ctx has ended; nothing of
// it goes on afterwards. Of an incomplete sweep, what was emitted still has been seen.
func (p *Poller) Sweep(ctx context.Context, emit func(*listing.Page)) listing.Verdict {
	s := &sweep{p: p, emit: emit, began: time.Now(), started: p.cfg.Now(), listings: make([]*reading, max(1, len(p.cfg.Types)))}
	for i := range s.listings {
		s.listings[i] = &reading{of: p.of(i)}
		for _, before := range [][]int{p.totals, p.expected} {
			if i < len(before) {
				s.listings[i].before = max(s.listings[i].before, before[i])
			}
		}
	}
	s.rejected = make(map[rejection]bool)
	v := s.run(ctx)
	p.rejected = s.rejected
	if v.Complete {
		p.totals, p.expected = p.totals[:0], nil
		for _, l := range s.listings {
			p.totals = append(p.totals, l.total)
		}
	}
	return v
}

func (s *sweep) run(ctx context.Context) listing.Verdict {
	p := s.p
	now := s.started
	s.started = time.Time{}
	for range rounds {
		jobs := s.jobs()
		if len(jobs) == 0 || s.over() {
			break
		}
		s.round(ctx, jobs)
	}
	if more := s.rejects - loggedRejects; more > 0 {
		p.cfg.Logger.Warn("more records rejected in the same sweep", "count", more)
	}
	v := verdict(s.listings, p.cfg.PageSize, s.cut)
	if v.StartedAt = s.started; v.StartedAt.IsZero() {
		v.StartedAt = now
	}
	v.EndedAt = p.cfg.Now()
	return v
}

// over reports whether no further page should be asked for.
func (s *sweep) over() bool { return s.cut != nil || s.failedInRow >= maxFailedInRow }

// jobs lists the pages to ask for next: those that are missing or do not fit, as long as they may
// fail once more.
func (s *sweep) jobs() []job {
	var jobs []job
	for i, l := range s.listings {
		again, _ := l.judge(s.p.cfg.PageSize)
		for _, n := range again {
			left := maxTries - l.page(n).failures
			if n >= pageCount(l.total, s.p.cfg.PageSize) {
				left = min(left, 1) // a refusal says that there is nothing
			}
			if left > 0 {
				jobs = append(jobs, job{i, n, left, s.p.last(i, n)})
			}
		}
	}
	return jobs
}

// timeout is how long the sweep may take, by what is known of the listings and by the present rate.
func (s *sweep) timeout() time.Duration {
	c := &s.p.cfg
	if c.SweepTimeout > 0 {
		return c.SweepTimeout
	}
	pages := 0
	for _, l := range s.listings {
		pages += pageCount(l.total, c.PageSize)
	}
	seconds := min(3*float64(pages)/s.p.client.limits.now(), math.MaxInt64/float64(2*time.Second))
	return max(minSweepTimeout, time.Duration(seconds*float64(time.Second)))
}

// round reads the pages, in parallel. Behind a page that shows the listing's end it asks for none.
func (s *sweep) round(ctx context.Context, jobs []job) {
	timeout := s.timeout()
	ctx, cancel := context.WithDeadlineCause(ctx, s.began.Add(timeout), fmt.Errorf("the sweep did not end within %v", timeout))
	defer cancel()

	workers := min(s.p.cfg.Concurrency, len(jobs))
	todo, done := make(chan job), make(chan result, workers)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(todo)
	for range workers {
		wg.Go(func() {
			for j := range todo {
				done <- s.p.read(ctx, j)
			}
		})
	}

	ends := make([]int, len(s.listings)) // pages that show their listing's end
	for i := range ends {
		ends[i] = math.MaxInt
	}
	pending := 0
	for {
		if ctx.Err() != nil {
			s.cut = listing.Worse(s.cut, ended(ctx))
		}
		for len(jobs) > 0 && (s.over() || jobs[0].number > s.last(jobs[0].listing, ends) && !s.behind(jobs[0])) {
			jobs = jobs[1:]
		}
		var next chan job // nil, never ready, where nobody is free or there is nothing to do
		var j job
		switch {
		case len(jobs) == 0 && pending == 0:
			return
		case len(jobs) > 0 && pending < workers:
			next, j = todo, jobs[0]
		}
		select {
		case next <- j:
			jobs = jobs[1:]
			pending++
		case r := <-done:
			pending--
			if s.take(r) {
				ends[r.listing] = min(ends[r.listing], r.number)
			}
		}
	}
}

// last returns the last page that is worth asking for, by the newest total_count and the ends seen
// so far.
func (s *sweep) last(listing int, ends []int) int {
	return min(pageCount(s.listings[listing].total, s.p.cfg.PageSize)-1, ends[listing])
}

// behind reports whether a job is for the page behind the listing's last one, which has to be
// empty.
func (s *sweep) behind(j job) bool {
	l := s.listings[j.listing]
	return l.total < l.before && j.number == pageCount(l.total, s.p.cfg.PageSize)
}

// take keeps what came of a page and hands it over. It reports whether the page shows that the
// listing ends before it, whatever total_count says: it has no rows, or page 0's over again.
func (s *sweep) take(r result) (end bool) {
	l, n := s.listings[r.listing], r.number
	for len(l.pages) <= n {
		l.pages = append(l.pages, pageRead{})
	}
	if !r.asked.IsZero() && (s.started.IsZero() || r.asked.Before(s.started)) {
		s.started = r.asked
	}
	p := &l.pages[n]
	p.failures += r.failures
	if r.err != nil {
		if r.err.Fatal {
			s.cut = listing.Worse(s.cut, r.err)
			return false
		}
		p.err = r.err
		if r.err.Class == listing.Unreachable {
			s.failedInRow++
		}
		return false
	}
	s.failedInRow = 0
	p.err, p.said, l.counted = nil, r.page, nil
	nothing := r.page.Rows() == 0 && n >= pageCount(l.total, s.p.cfg.PageSize) // and so is its total_count
	if !r.read.Before(l.read) && r.page.Total != listing.NoTotal && !nothing {
		l.total, l.read = r.page.Total, r.read
	}
	s.p.keep(r)
	page := r.page.Page
	page.Listing, page.Number, page.Sent, page.Read = r.listing, n, r.sent, r.read
	s.p.client.metrics.page(&page)
	s.logRejected(&page)
	s.emit(&page)
	return n > 0 && (r.page.Rows() == 0 || r.page.sameAgents(l.pages[0].said))
}

// sameAgents reports whether two pages show the same agents, in the same order, and some at all.
func (c *pageContent) sameAgents(other *pageContent) bool {
	return other != nil && len(c.Agents) > 0 &&
		slices.EqualFunc(c.Agents, other.Agents, func(a, b packed.Agent) bool {
			return a.AgentID() == b.AgentID()
		})
}

// last returns what a page showed when it was last read.
func (p *Poller) last(listing, page int) *pageContent {
	if listing < len(p.contents) && page < len(p.contents[listing]) {
		return p.contents[listing][page]
	}
	return nil
}

// keep remembers what a page shows now.
func (p *Poller) keep(r result) {
	for len(p.contents) <= r.listing {
		p.contents = append(p.contents, nil)
	}
	of := &p.contents[r.listing]
	for len(*of) <= r.number {
		*of = append(*of, nil)
	}
	(*of)[r.number] = r.page
}

// logRejected tells of every record that is rejected now and was not in the sweep before: one that
// stays is told once.
func (s *sweep) logRejected(p *listing.Page) {
	for _, r := range p.Rejected {
		key := rejection{p.Listing, 0, r.AgentID, r.Reason}
		if !r.Known {
			key.page = p.Number
		}
		s.rejected[key] = true
		if s.p.rejected[key] {
			continue
		}
		if s.rejects++; s.rejects > loggedRejects {
			continue
		}
		attrs := []slog.Attr{slog.Int("page", p.Number), slog.Int("index", r.Index),
			slog.String("reason", r.Reason)}
		if r.Detail != "" {
			attrs = append(attrs, slog.String("detail", r.Detail))
		}
		if len(s.p.cfg.Types) > 0 {
			attrs = append(attrs, slog.Int("type", s.p.cfg.Types[p.Listing]))
		}
		if r.Known {
			attrs = append(attrs, slog.Int64("agentId", r.AgentID))
		}
		s.p.cfg.Logger.LogAttrs(context.Background(), slog.LevelWarn, "record rejected", attrs...)
	}
}

// read reads one page, with as many tries as the job allows.
func (p *Poller) read(ctx context.Context, j job) result {
	r := result{job: j}
	body := p.request(j.listing, j.number)
	b := backoff.WithContext(backoff.WithMaxRetries(newBackOff(), uint64(j.tries-1)), ctx)
	_ = backoff.Retry(func() error { // what it returns is r.err, or that ctx has ended since
		err := p.try(ctx, body, &r)
		if err == nil {
			r.err = nil
			return nil
		}
		if r.err != nil && err.Fatal && errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			// There is no time for another try: what the one before was answered says more.
			err = &listing.Error{Class: r.err.Class, Op: r.err.Op, Err: r.err.Err, Fatal: true}
		}
		r.err = err.Doing(p.reading(j.listing, j.number))
		if err.Fatal {
			return backoff.Permanent(err)
		}
		r.failures++
		return err
	}, b)
	return r
}

// refused tells the limits that a page was refused, once for all tries.
func (p *Poller) refused(body []byte, a *reply, r *result, why error) {
	if r.failures == 0 {
		p.client.limits.refused(string(body), a.began, why)
	}
}

// try asks for a page once and decodes the answer into r.
func (p *Poller) try(ctx context.Context, body []byte, r *result) (err *listing.Error) {
	reply, token, err := p.ask(ctx, body, r)
	defer func() { p.client.metrics.request(callPage, &reply, err) }()
	if err != nil {
		return err
	}
	if err := failed(reply.status); err != nil {
		err = refusedCall(err, reply.status)
		if err.Refused && err.Class == listing.Unusable {
			p.refused(body, &reply, r, err)
		}
		return err
	}
	page, bad := p.pageReader(p.tokens.tenantID()).read(reply.text(), r.number, r.last)
	if bad != nil {
		_, no := errors.AsType[refusal](bad)
		if no {
			p.refused(body, &reply, r, bad)
		}
		return &listing.Error{Class: listing.Unusable, Err: bad, Refused: no}
	}
	p.client.limits.answered(string(body))
	bodies.give(reply.body)
	p.tokens.accepted(token)
	r.page, r.sent, r.read = page, reply.sent, reply.read
	return nil
}

// ask sends one agents request; where its token is refused, a few times more, with that or another
// token.
func (p *Poller) ask(ctx context.Context, body []byte, r *result) (reply, string, *listing.Error) {
	pause := newBackOff()
	for n := 1; ; n++ {
		token, err := p.tokens.get(ctx)
		if err != nil {
			return reply{}, "", err
		}
		answer, err := p.client.post(ctx, p.agentsURL, token, body)
		if r.asked.IsZero() {
			r.asked = answer.sent
		}
		if err != nil {
			p.client.metrics.request(callPage, &answer, err)
			return reply{}, "", err
		}
		if !answer.refusesToken() {
			return answer, token, nil
		}
		p.client.metrics.answered(callPage, &answer, requestExpired)
		moot := p.tokens.refused(token)
		switch {
		case n == pageRefusals && moot:
			return reply{}, "", &listing.Error{Class: listing.Unreachable, Err: errors.New("a token that works is refused by turns: if this lasts, do all servers behind this address know it? Ask the vendor")}
		case n == pageRefusals:
			return reply{}, "", &listing.Error{Class: listing.Credentials, Err: errors.New("tokens are issued and then refused: may this account use the agents call?")}
		case sleep(ctx, pause.NextBackOff()) != nil:
			return reply{}, "", ended(ctx)
		}
	}
}
