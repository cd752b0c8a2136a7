package follow

import (
	"sync"
	"time"
)

// A teller tells updates, one after the other, and besides when the roster becomes stale and when
// it is fresh again.
type teller struct {
	roster *Roster
	notify func(Update)

	mu      sync.Mutex // held while notify runs
	fresh   bool       // as it was told
	overdue *time.Timer
	ended   bool
}

// tell returns a teller; notify may be nil.
func tell(r *Roster, notify func(Update)) *teller {
	if notify == nil {
		notify = func(Update) {}
	}
	t := &teller{roster: r, notify: notify}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.overdue = time.AfterFunc(time.Hour, t.look)
	t.overdue.Stop()
	return t
}

// update tells an update.
func (t *teller) update(u Update) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.notify(u)
	if u.Anew || u.Watermark != nil {
		t.judge()
	}
}

// look finds out whether the watermark is overdue.
func (t *teller) look() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.judge()
}

// judge tells whether the roster can be trusted, where that is new. t.mu must be held.
func (t *teller) judge() {
	if t.ended {
		return
	}
	now := time.Now()
	trust := t.roster.Trust(now)
	fresh := trust.Err() == nil
	if fresh != t.fresh {
		t.fresh = fresh
		t.notify(Update{Fresh: fresh, Stale: !fresh})
	}
	if !fresh {
		t.overdue.Stop()
		return
	}
	// Timers run on while clocks are set, so it looks again and again, too.
	t.overdue.Reset(min(trust.Watermark.TrustedUntil().Sub(now)+time.Millisecond, time.Second))
}

// end is the end: nothing is told afterwards.
func (t *teller) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	t.overdue.Stop()
}
