package isdp

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/rollcall-events/rollcall/internal/listing"
)

const (
	maxPause   = 5 * time.Minute // however long Retry-After says
	plainPause = time.Second     // after a 429 without Retry-After
	tellAgain  = 10 * time.Minute

	reservedFor = 50 * time.Millisecond // a turn that is not used by then is void

	// When refusals say that the vendor wants fewer requests.
	fewGood      = 5    // good answers before which they say nothing of the kind
	manyRefusals = 2    // refused calls
	forgiven     = 0.25 // of a refused call, by each good answer
)

// limits says when a request may be sent.
type limits struct {
	limiter *rate.Limiter // burst 1: requests are spread evenly
	full    rate.Limit    // the configured rate, never exceeded
	log     *slog.Logger

	mu       sync.Mutex
	reserved []time.Time // turns that came and were not used yet, oldest first: when they came
	paused   time.Time   // nobody sends before
	slowed   time.Time   // when the rate was last halved: earlier requests don't do it again
	warnedAt time.Time   // when it was last logged that the rate is halved; zero: never
	warned   bool        // that was logged, and not yet that the rate is the full one again

	good     int            // good answers so far
	refusals float64        // refused calls, less those that good answers have made up for
	refusing map[string]int // calls refused and not answered since: what good was then
}

func newLimits(c Config) *limits {
	full := rate.Limit(c.RateLimit)
	return &limits{limiter: rate.NewLimiter(full, 1), full: full, log: c.Logger,
		refusing: make(map[string]int)}
}

// reserve waits for a turn, and keeps it for the next request.
func (l *limits) reserve(ctx context.Context) *listing.Error {
	if err := l.wait(ctx); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reserved = append(l.reserved, time.Now())
	return nil
}

// turn waits for a request's turn, unless one is reserved.
func (l *limits) turn(ctx context.Context) *listing.Error {
	if l.takeReserved() {
		return nil
	}
	return l.wait(ctx)
}

// takeReserved takes a reserved turn, if there is one. One that came a while ago is void: what is
// sent now would come right before what has its turn next.
func (l *limits) takeReserved() (ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.reserved) > 0 && !ok {
		ok = time.Since(l.reserved[0]) < reservedFor && time.Now().After(l.paused)
		l.reserved = l.reserved[1:]
	}
	return ok
}

// wait waits for a turn. Where that can't come in ctx's time it does not wait.
func (l *limits) wait(ctx context.Context) *listing.Error {
	for {
		if l.limiter.Wait(ctx) != nil {
			if ctx.Err() != nil {
				return ended(ctx)
			}
			return late("the rate allows no further request in the time left")
		}
		l.mu.Lock()
		paused := l.paused
		l.mu.Unlock()
		wait := time.Until(paused)
		if wait <= 0 {
			return nil
		}
		if deadline, ok := ctx.Deadline(); ok && paused.After(deadline) {
			return late(fmt.Sprintf("the vendor wants no request for another %v",
				wait.Round(time.Second)))
		}
		if sleep(ctx, wait) != nil {
			return ended(ctx)
		}
	}
}

// heard learns from an answer, to a request that was sent at the given time, how many requests the
// vendor wants, and reports whether it wants fewer.
func (l *limits) heard(resp *http.Response, sent time.Time) bool {
	pause, said := retryAfter(resp.Header, time.Now())
	if s := resp.StatusCode; s != http.StatusTooManyRequests && (s < 400 || !said) {
		return false
	}
	if !said {
		pause = plainPause
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.slowDown(sent, pause, fmt.Sprintf("HTTP %d", resp.StatusCode))
	return true
}

// refused is told that the vendor refused a call (its request, or its name) that was sent at the
// given time; once for tries that follow one another. Some throttles refuse calls without saying
// why. So when the vendor answered before and now refuses several calls, it wants fewer of them, as
// after a 429. One call that it keeps refusing, while it answers others, does not count.
func (l *limits) refused(call string, sent time.Time, why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	then, again := l.refusing[call]
	l.refusing[call] = l.good
	if l.good < fewGood || again && l.good > then {
		return
	}
	if l.refusals++; l.refusals >= manyRefusals {
		l.refusals = manyRefusals - 1 // the next one is one too many as well
		l.slowDown(sent, plainPause, why.Error())
	}
}

// slowDown stops all requests for a while, and halves the rate, unless it was already halved since
// the request was sent. mu is held.
func (l *limits) slowDown(sent time.Time, pause time.Duration, answer string) {
	now := time.Now()
	if until := now.Add(pause); until.After(l.paused) {
		l.paused = until
	}
	if sent.Before(l.slowed) {
		return
	}
	if l.limiter.Limit() == l.full && (l.warnedAt.IsZero() || now.Sub(l.warnedAt) >= tellAgain) {
		l.warnedAt, l.warned = now, true
		l.log.Warn("slowing down until the vendor answers again: it asks for fewer requests, "+
			"or refuses what it answered before", "answer", answer, "pause", pause)
	}
	l.slowed = now
	l.limiter.SetLimit(max(l.limiter.Limit()/2, l.full/32))
}

// answered is told of a good answer to a call: a little faster from now on, up to the full rate.
func (l *limits) answered(call string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.refusing, call)
	if call == callToken {
		return // says nothing of how many pages the vendor answers
	}
	l.good++
	l.refusals = max(0, l.refusals-forgiven)
	if l.limiter.Limit() < l.full {
		l.limiter.SetLimit(min(l.limiter.Limit()+l.full/50, l.full))
	}
	if l.limiter.Limit() == l.full && l.warned {
		l.warned = false
		l.log.Info("the vendor answers: asking at the full rate again")
	}
}

// now is the rate at present, in requests a second.
func (l *limits) now() float64 { return float64(l.limiter.Limit()) }

// retryAfter reads the header in either form, a date against the answer's own Date.
func retryAfter(h http.Header, now time.Time) (time.Duration, bool) {
	v := h.Get("Retry-After")
	if n, err := strconv.ParseUint(v, 10, 64); err == nil {
		return time.Duration(min(n, uint64(maxPause/time.Second))) * time.Second, true
	}
	t, err := http.ParseTime(v)
	if err != nil {
		return 0, false
	}
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date
	}
	return min(max(t.Sub(now), 0), maxPause), true
}

// sleep waits, or returns ctx's error.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
