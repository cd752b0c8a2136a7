//go:build unix

package vendor

import (
	"testing"
	"time"

	. "github.com/rollcall-events/rollcall/internal/test/isdpsim"

	"github.com/rollcall-events/rollcall/internal/test/checker"
	"github.com/rollcall-events/rollcall/internal/test/wait"
)

// TestPatience refuses the credentials for as long as -long says: the token endpoint is left alone
// more and more, in the end for a minute. (The poller's own tests do this in virtual time, which a
// network does not know.)
func TestPatience(t *testing.T) {
	if *long < 2*time.Minute {
		t.Skip("takes minutes: run it with -long 4m or more")
	}
	t.Parallel()
	r := newRig(t, setup{seed: 1})
	r.inject(OnToken(CredentialsRefused()))
	r.revoke()
	on := r.now()
	time.Sleep(*long)
	var tries []time.Time
	for _, q := range r.sim.Requests() {
		if q.Endpoint == TokenEndpoint && q.Time.After(on) {
			tries = append(tries, q.Time)
		}
	}
	least := []time.Duration{2 * time.Second, 5 * time.Second, 15 * time.Second, 30 * time.Second}
	for i := range tries[1:] {
		want := time.Minute
		if i < len(least) {
			want = least[i]
		}
		if gap := tries[i+1].Sub(tries[i]); gap < want-50*time.Millisecond {
			t.Errorf("try %d came %v after the one before, want %v", i+2, gap, want)
		}
	}
	if most := len(least) + 2 + int(*long/time.Minute); len(tries) < 4 || len(tries) > most {
		t.Errorf("%d tries in %v", len(tries), *long)
	}
	t.Logf("%d tries in %v", len(tries), *long)
	r.inject(nil)
	wait.Eventually(r.t, "the next try", func() bool {
		return r.asked(TokenEndpoint, on) > len(tries)
	})
	r.quiesce()
	r.finish(checker.Options{})
	r.wantLimits(false)
}
