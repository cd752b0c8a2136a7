package ops

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-events/rollcall/publisher"
)

// locked is a connection whose client holds its lock: nothing that is asked of it returns before it
// is opened.
type locked struct{ open chan struct{} }

func (l locked) IsConnected() bool { <-l.open; return true }
func (l locked) LastError() error  { <-l.open; return nil }

// A probe is answered within a second, also where the client of NATS answers nothing, however many
// ask; and as soon as it answers again, so does the probe.
func TestReadinessOfLockedClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, l, looks := NewProcess("a", nil), locked{make(chan struct{})}, 0
		p.Connected(l,
			func(context.Context) publisher.Status { looks++; return publisher.Status{} })
		for range 3 {
			begun := time.Now()
			r := p.Readiness(t.Context())
			if took := time.Since(begun); r.Ready || took >= time.Second ||
				!strings.Contains(r.NATS.Problem, "has not answered for") {
				t.Errorf("after %v: %+v", took, r)
			}
		}
		close(l.open)
		synctest.Wait()
		time.Sleep(lookLifetime)
		if r := p.Readiness(t.Context()); !r.NATS.OK || looks != 2 {
			t.Errorf("after %d looks: %+v", looks, r)
		}
	})
}
