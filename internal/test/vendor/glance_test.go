//go:build unix

package vendor

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-events/rollcall/internal/test/checker"
	. "github.com/rollcall-events/rollcall/internal/test/isdpsim"
	"github.com/rollcall-events/rollcall/internal/test/wait"
	"github.com/rollcall-events/rollcall/schemas"
)

func filter(f Fault) func(*rig) Hook { return func(*rig) Hook { return OnFilter(f) } }

// What the vendor may do to the listing of those who are online is nothing worse than no glances:
// sweeps go on and are complete, health is ok, and every promise holds.
func TestGlanceFaults(t *testing.T) {
	t.Parallel()
	seed := uint64(0)
	for _, tc := range []struct {
		name    string
		hook    func(*rig) Hook // nil: nothing is wrong
		glanced bool            // glances are over all the same
		lost    bool            // there are no glances any more
		options checker.Options
	}{
		{name: "none", glanced: true},
		{name: "lags by 10 s", hook: filter(FilterLags(10*time.Second, false))},
		{name: "lags by 10 s, with true rows", hook: filter(FilterLags(10*time.Second, true))},
		{name: "ignored", hook: filter(IgnoreFilter()), lost: true},
		{name: "500", hook: filter(Status(500)), lost: true},
		{name: "stateCode 400", hook: filter(StateCode("400", "no such parameter")), lost: true},
		{name: "HTML", hook: filter(HTML()), lost: true},
		{name: "reset", hook: filter(Reset(500)), lost: true},
		{name: "slow", hook: filter(Delay(200 * time.Millisecond)), glanced: true},
		{name: "out of date", hook: filter(Late(200 * time.Millisecond)), glanced: true},
		{name: "nobody is online", hook: filter(EmptyListing())},
		{name: "rows left out", hook: filter(DropRows(0, 2))},
		{name: "the same page for every pageStart", hook: filter(SamePage(0))},
		{name: "total_count 1", hook: filter(TotalCount(1))},
		{name: "total_count too large", hook: filter(TotalCountOff(9))},
		{name: "pos of another page", hook: filter(Pos(5))},
		{name: "pages of the whole listing shift", hook: shifting, glanced: true},
		{name: "every third page lacks rows", hook: func(r *rig) Hook {
			return Sometimes(r.setup.seed, 0.3, OnAgents(DropRows(0)))
		}, options: checker.Options{RemovalBound: -1}},
	} {
		seed++
		s := setup{seed: seed, glances: true, churn: 4}
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, s)
			on := r.now()
			if tc.hook != nil {
				r.inject(tc.hook(r))
			}
			wait.Eventually(t, "requests for those who are online", func() bool {
				return slices.ContainsFunc(r.sim.Requests(), func(q Request) bool {
					return q.Online == 1 && q.Time.After(on)
				})
			})
			if tc.lost {
				wait.Eventually(t, "the filter not to be trusted", func() bool {
					return strings.Contains(r.logged.String(), "no glances for an hour")
				})
			}
			if tc.glanced {
				wait.Eventually(t, "a glance that is over", func() bool {
					return r.mark().GlancedAt.After(on)
				})
			}
			r.sweeps(3)
			r.quiesce()
			r.finish(tc.options)
			r.wantTruth()
			r.wantLimits(true)
			for _, h := range r.heardHealth() {
				resized := h.Reason == schemas.Inconsistent && // it changed under way
					strings.Contains(h.Detail, "total_count")
				if h.State != schemas.HealthOK && !stalled(h) && !resized {
					t.Errorf("health %s %s: %s", h.State, h.Reason, h.Detail)
				}
			}
		})
	}
}
