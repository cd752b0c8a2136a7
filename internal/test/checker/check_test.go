package checker

import (
	"slices"
	"testing"
	"time"
)

func TestCorrectLog(t *testing.T) {
	w := lived(t)
	for name, stream := range map[string]Stream{
		"recorded and stored": {Live: w.live, Stored: stored(w.live)},
		"recorded":            {Live: w.live},
		"stored":              {Stored: stored(w.live)},
	} {
		r := Check(stream, w.truth(), strict())
		if err := r.Err(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		t.Logf("%s: %+v", name, r.Stats)
	}
}

// Too many agents removed together are reported, unless they had been held for as long as it takes.
func TestRemovedTogether(t *testing.T) {
	w := newWorld(t, 10)
	w.doSweep(nil)
	for i, id := range w.sim.IDs() {
		if i < 7 {
			w.sim.Remove(id)
		}
	}
	for range 4 {
		w.pass(100 * time.Millisecond)
		w.doSweep(nil)
	}
	for name, tc := range map[string]struct {
		share float64
		hold  time.Duration
		want  bool
	}{
		"unguarded":        {0, time.Hour, false},
		"not too many":     {0.7, time.Hour, false},
		"too many":         {0.6, time.Hour, true},
		"held for so long": {0.6, 10 * time.Millisecond, false},
	} {
		opt := strict()
		opt.MaxMissing, opt.MissingHold = tc.share, tc.hold
		opt.RemovalBound = -1
		report := Check(Stream{Stored: stored(w.live), Live: w.live}, w.truth(), opt)
		if reported := slices.ContainsFunc(report.Violations, func(v Violation) bool {
			return v.Rule == RuleGuard
		}); reported != tc.want {
			t.Errorf("%s: reported %t: %v", name, reported, report.Err())
		}
	}
}
