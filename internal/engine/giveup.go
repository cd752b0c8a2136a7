package engine

import (
	"errors"
	"time"
)

// ErrNoAnswers says that this replica has had no usable answer from the vendor for as long as a
// watermark may be old, while NATS took everything that there was to publish. Another replica may
// be answered.
var ErrNoAnswers = errors.New(
	"the vendor has given no usable answer until the last complete sweep was stale")

// A turn is what a replica remembers from one time that it leads to the next. While nobody is
// answered, each gives up once, and whoever then gets the lease again keeps it: otherwise they
// would pass it to and fro.
type turn struct {
	gaveUp bool   // and nobody has been answered since, as far as is known
	sweep  uint64 // the last complete one then
}

// again begins another turn, with what the stream says now: a complete sweep since then means that
// somebody was answered.
func (t *turn) again(sweep uint64) {
	if sweep > t.sweep {
		t.gaveUp = false
	}
}

// heard says that the vendor has given a usable answer.
func (l *loop) heard(at time.Time) {
	l.answered = at
	l.turn.gaveUp = false
}

// silentAt is when the vendor has been silent for too long: when the last complete sweep is stale,
// and what a change of leader costs is less.
func (l *loop) silentAt() time.Time {
	stale := max(3*l.cfg.Interval, l.figures.StaleAfter.Sub(l.figures.CompletedAt))
	return l.answered.Add(max(stale, l.cfg.GiveUp))
}

func (l *loop) mayGiveUp() bool { return l.cfg.GiveUp > 0 && !l.turn.gaveUp }

// silent reports whether to give up: nothing was heard for too long, and there is nothing left to
// publish.
func (l *loop) silent() bool {
	published := !l.busy && l.queue.empty() && l.health.news() == nil
	return l.mayGiveUp() && published && !l.now().Before(l.silentAt())
}

// wake is when the loop has to look at the time.
func (l *loop) wake() time.Time {
	at := l.health.deadline()
	if silent := l.silentAt(); l.mayGiveUp() && silent.Before(at) && l.now().Before(silent) {
		return silent // once it has passed, what is under way wakes the loop
	}
	return at
}
