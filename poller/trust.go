package poller

import (
	"log/slog"
	"time"

	"github.com/rollcall-events/rollcall/internal/listing"
)

const (
	distrustFor    = time.Hour // how long there are no glances once the filter is not trusted
	fewRefusals    = 3         // glances in a row that could not be read
	contradictions = 5         // agents that pages say something else of than a glance …
	outweighs      = 2         // … for each of which they say the same
)

// filterTrust says whether the vendor's filter by who is online is of use. It is the sweep's
// goroutine's.
type filterTrust struct {
	log      *slog.Logger
	until    time.Time // when to try again; zero: it is trusted
	refusals int       // glances in a row that could not be read
	wrong    int       // agents that were looked up, and the glance was wrong
	right    int       // agents that were looked up, and it was right
}

// lost reports whether the filter is not trusted for now.
func (t *filterTrust) lost(now time.Time) bool {
	if t.until.IsZero() || now.Before(t.until) {
		return !t.until.IsZero()
	}
	*t = filterTrust{log: t.log}
	return false
}

// lose ends the trust for a while.
func (t *filterTrust) lose(now time.Time, why string) {
	if t.until.IsZero() {
		t.log.Warn("no glances for an hour: the vendor's filter by who is online is of no use; "+
			"changes are found by sweeps alone, as completely, and later", "why", why)
	}
	t.until = now.Add(distrustFor)
}

func (t *filterTrust) refused(now time.Time, err *listing.Error) {
	if t.refusals++; t.refusals >= fewRefusals {
		t.lose(now, err.Error())
	}
}

// looked notes what a page says of an agent that was looked up for a glance; s is nil where it was
// not.
func (t *filterTrust) looked(s *search, online bool) {
	switch {
	case s == nil:
	case s.listed == online:
		t.right++
	default:
		t.wrong++
	}
	if t.wrong >= contradictions && t.wrong > outweighs*t.right {
		t.lose(time.Now(), "again and again, the pages of the whole listing say otherwise")
	}
}
