// Package wait lets tests wait for what other goroutines and processes do.
package wait

import (
	"testing"
	"time"
)

// Patience is how long anything may take before a test gives up: far longer than it ever should,
// on a busy machine too.
const Patience = 2 * time.Minute

// Eventually waits until ok says so, and fails the test where that takes longer than Patience. what
// ends the sentence "waited in vain for …". It is of no use within a testing/synctest bubble.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(Patience); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
