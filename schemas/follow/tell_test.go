package follow

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rollcall-events/rollcall/schemas"
)

// When the picture becomes stale and when it is fresh again, to the second.
func TestTeller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		type told struct {
			at time.Duration
			is string
		}
		var got []told
		r := New(tenant)
		tl := tell(r, func(u Update) {
			if u.Fresh {
				got = append(got, told{time.Since(begin), "fresh"})
			}
			if u.Stale {
				got = append(got, told{time.Since(begin), "stale"})
			}
		})
		marked := func(sweep uint64, staleAfter, nextBy time.Duration) {
			w := &schemas.Watermark{TenantID: tenant, Sweep: sweep, StartedAt: time.Now(),
				StaleAfter: time.Now().Add(staleAfter), NextBy: time.Now().Add(nextBy)}
			r.mu.Lock()
			r.watermark = w
			r.mu.Unlock()
			tl.update(Update{Watermark: w})
		}
		wait := func(until time.Duration) {
			time.Sleep(until - time.Since(begin))
			synctest.Wait()
		}
		wait(10 * time.Second)
		marked(1, 15*time.Second, 15*time.Second) // before the states have been read
		wait(20 * time.Second)
		r.read = true
		tl.update(Update{Anew: true}) // fresh until 25
		wait(30 * time.Second)
		marked(0, 15*time.Second, 15*time.Second) // begun anew: nothing has been swept
		wait(40 * time.Second)
		for range 20 { // fresh until 60, and all the time
			marked(2, 15*time.Second, 6*time.Second)
			time.Sleep(time.Second)
		}
		marked(3, -time.Second, 6*time.Second) // stale when it comes
		wait(70 * time.Second)
		marked(4, 2500*time.Millisecond, 15*time.Second)
		wait(90 * time.Second)
		marked(5, 15*time.Second, 15*time.Second)
		tl.end()
		wait(200 * time.Second)
		marked(6, 15*time.Second, 15*time.Second)
		wait(300 * time.Second)
		late := time.Millisecond
		want := []told{{20 * time.Second, "fresh"}, {25*time.Second + late, "stale"},
			{40 * time.Second, "fresh"}, {60 * time.Second, "stale"},
			{70 * time.Second, "fresh"}, {72500*time.Millisecond + late, "stale"},
			{90 * time.Second, "fresh"}}
		if d := cmp.Diff(want, got, cmp.AllowUnexported(told{})); d != "" {
			t.Error(d)
		}
	})
}
