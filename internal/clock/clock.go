// Package clock tells the time of what is read in the course of a sweep.
//
// The machine's clock can be set while a sweep is under way, and what is read after a page must not
// look older than the page. So a [Clock] reads it once, and goes on by the monotonic clock until it
// is told to follow: between two sweeps.
package clock

import (
	"sync"
	"time"
)

// A Clock is the machine's clock, as it was when Follow was last called, and the time that has
// passed since. Its methods may be called from any goroutine.
type Clock struct {
	read func() time.Time // the machine's clock; nil: time.Now

	mu     sync.Mutex
	wall   time.Time // what the machine's clock said, without a monotonic reading; guarded by mu
	passed time.Time // when that was, on the monotonic clock; guarded by mu
}

// New returns a clock that follows what read says of the machine's clock; nil: time.Now.
func New(read func() time.Time) *Clock {
	c := &Clock{read: read}
	c.set()
	return c
}

// set reads both clocks. It is one reading where that can be: between two, the process may have to
// wait for a processor, and all times would be off by that until the next one.
func (c *Clock) set() {
	now := time.Now()
	c.wall, c.passed = now.Round(0), now
	if c.read != nil {
		c.wall = c.read().Round(0)
	}
}

// Now tells the time. It has no monotonic reading: what was read before and after a call of Follow
// compares as the machine's clock had it.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now()
}

func (c *Clock) now() time.Time { return c.wall.Add(time.Since(c.passed)) }

// Follow reads the machine's clock anew, and returns by how much that is ahead of what Now said
// until then: the clock was set, or the machine slept, when the monotonic clock stands still. Below
// zero: it was set back.
func (c *Clock) Follow() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.now()
	c.set()
	return c.wall.Sub(was)
}
