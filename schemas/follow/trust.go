package follow

import (
	"errors"
	"fmt"
	"time"

	"github.com/rollcall-events/rollcall/schemas"
)

// Trust says how far a roster can be believed at a moment.
type Trust struct {
	// Watermark is the tenant's last watermark; nil if none has been read.
	Watermark *schemas.Watermark
	// Health is the tenant's health; nil if none has been read. It says how the vendor's listing
	// fares: with "failing" the picture ages until it is stale, with "holding" agents that may have
	// left are still shown as they were.
	Health *schemas.Health
	// Age is how old the picture may be: the time since the last complete sweep had begun. Changes
	// that a later sweep saw are there already. 0 if there has been no complete sweep.
	Age time.Duration

	read bool
	now  time.Time
}

// Reasons not to believe a roster, as [Trust.Err] gives them.
var (
	// ErrNotRead: the states have not been read yet.
	ErrNotRead = errors.New("the states have not been read from the stream yet")
	// ErrNoSweep: rollcall has not seen the whole listing yet, so agents may be missing.
	ErrNoSweep = errors.New("rollcall has not read the whole listing yet")
	// ErrStale: the next complete sweep is overdue, or the next watermark. rollcall, NATS or the
	// vendor is down, or the way to them.
	ErrStale = errors.New("the picture is stale")
)

// Trust says how far the roster can be believed at now. It compares now with times of rollcall's
// clock, so the two machines' clocks should agree to well within the poll interval, as NTP makes
// them.
func (r *Roster) Trust(now time.Time) Trust {
	r.mu.RLock()
	defer r.mu.RUnlock()
	t := NewTrust(r.watermark, r.health, now)
	t.read = r.read
	return t
}

// NewTrust says how far states can be believed at now that [Read] has read, all of them, with the
// last watermark and health (nil: none was read).
func NewTrust(w *schemas.Watermark, h *schemas.Health, now time.Time) Trust {
	t := Trust{Watermark: w, Health: h, read: true, now: now}
	if w != nil && w.Sweep > 0 {
		t.Age = now.Sub(w.StartedAt)
	}
	return t
}

// Err is nil while the roster may be acted on: the states have been read, and no watermark is
// overdue. Otherwise it is, or wraps, [ErrNotRead], [ErrNoSweep] or [ErrStale].
func (t Trust) Err() error {
	switch w := t.Watermark; {
	case !t.read:
		return ErrNotRead
	case w == nil || w.Sweep == 0:
		return ErrNoSweep
	case t.now.After(w.TrustedUntil()):
		return fmt.Errorf("%w: it is as of %s, and a newer one was due at %s",
			ErrStale, w.StartedAt.Format(time.RFC3339), w.TrustedUntil().Format(time.RFC3339))
	}
	return nil
}
