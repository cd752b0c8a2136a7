package clock_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-events/rollcall/internal/clock"
)

func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var set time.Duration // how far the machine's clock was set
		c := clock.New(func() time.Time { return time.Now().Add(set) })
		start := c.Now()
		for _, step := range []time.Duration{time.Hour, -3 * time.Hour, 0, 5 * time.Millisecond} {
			before := c.Now()
			set += step
			time.Sleep(time.Second)
			if got := c.Now().Sub(before); got != time.Second {
				t.Errorf("in a second, and a step of %v, it went on by %v before it was told to "+
					"follow", step, got)
			}
			if got := c.Follow(); got != step {
				t.Errorf("a step of %v is taken for one of %v", step, got)
			}
			if got := c.Now().Sub(before); got != step+time.Second {
				t.Errorf("after a second and a step of %v it has moved by %v", step, got)
			}
		}
		if got, want := c.Now().Sub(start), set+4*time.Second; got != want {
			t.Errorf("in all it has moved by %v, want %v", got, want)
		}
	})
}

func TestNil(t *testing.T) {
	before := time.Now().Round(0)
	c := clock.New(nil)
	c.Follow()
	if now := c.Now(); now.Before(before) || now.After(time.Now().Round(0)) {
		t.Errorf("it is %v, and the clock says %v", before, now)
	}
}
