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

// giveUpAgain is how long a replica keeps the lease that has given it up before, while it hears of
// no answer: replicas of which none is answered do not pass it to and fro, and one that is answered
// by now gets it in the end.
const giveUpAgain = 10 * time.Minute

// longPause is by how much a wait of the loop may be longer than it should be. Beyond that the
// process was paused, and the silence was its own.
const longPause = time.Second

// A silence is how long the vendor has not answered.
type silence struct {
	answered time.Time // when it last gave a usable answer, or this replica began to lead
	wakeAt   time.Time // when the loop should go on at the latest; zero: it has not waited yet
}

// A gaveUp is when a replica last gave up, and is kept until somebody was answered.
type gaveUp struct {
	at    time.Time // with the monotonic clock; zero: somebody was answered since
	sweep uint64    // the last complete one then
}

// leadAgain is told the last complete sweep in the stream when the replica leads again. A later one
// than when it gave up means that somebody was answered.
func (g *gaveUp) leadAgain(sweep uint64) {
	if sweep > g.sweep {
		g.at = time.Time{}
	}
}

// answered says that the vendor has given a usable answer.
func (l *loop) answered(at time.Time) {
	l.silence.answered = at
	l.gaveUp.at = time.Time{}
}

// unasked is how long the vendor may be silent since it is not asked: for two requests (one may be
// for a token), where they are so far apart that watermarks can't wait; else not at all.
func (l *loop) unasked() time.Duration {
	if l.cfg.Pace == nil || l.cfg.Pace() < minNextBy/2 {
		return 0
	}
	return 2 * l.cfg.Pace()
}

// giveUpAt is when the vendor has been silent for too long: when the last complete sweep is stale,
// and what a change of leader costs is less.
func (l *loop) giveUpAt() time.Time {
	w := l.roster.Watermark()
	stale := max(3*l.cfg.Interval, w.StaleAfter.Sub(w.CompletedAt))
	at := l.silence.answered.Add(max(stale, l.cfg.GiveUp, l.unasked()))
	if l.gaveUp.at.IsZero() {
		return at
	}
	if again := l.now().Add(giveUpAgain - time.Since(l.gaveUp.at)); again.After(at) {
		return again
	}
	return at
}

// silentTooLong reports whether to give up: nothing was heard for too long, and there is nothing
// left to publish.
func (l *loop) silentTooLong() bool {
	published := !l.commit.running && l.roster.Idle() && l.health.news() == nil
	return l.cfg.GiveUp > 0 && published && !l.now().Before(l.giveUpAt())
}

// wakeAt is when the loop has to look at the time.
func (l *loop) wakeAt() time.Time {
	now, at := l.now(), l.health.deadline()
	if giveUp := l.giveUpAt(); l.cfg.GiveUp > 0 && giveUp.Before(at) && now.Before(giveUp) {
		at = giveUp // once it has passed, what is under way wakes the loop
	}
	if beat := l.beatAt(); l.heard() && beat.Before(at) && now.Before(beat) {
		at = beat
	}
	l.silence.wakeAt = at
	if at.Before(now) {
		l.silence.wakeAt = now
	}
	return at
}

// noticePause is called when the loop goes on. Where the process was paused meanwhile, the vendor
// had no chance to answer.
func (l *loop) noticePause() {
	if now, due := l.now(), l.silence.wakeAt; !due.IsZero() && now.Sub(due) > longPause {
		l.silence.answered = now
	}
}
