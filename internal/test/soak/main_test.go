//go:build unix

package soak

import (
	"flag"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/rollcall-events/rollcall/internal/test/e2e"
)

var (
	soakFor      = flag.Duration("soak", 0, "how long TestSoak goes on, with fresh seeds; 0: a short run with fixed ones")
	soakSeed     = flag.Uint64("soak.seed", 0, "run one long cycle of each scenario with this seed; 0: see -soak")
	soakScenario = flag.String("soak.scenario", "", "the one scenario to run; empty: all")
)

func TestMain(m *testing.M) {
	flag.Parse()
	// The tests mostly wait for their processes: more of them at a time than there are processors.
	if err := flag.Set("test.parallel", strconv.Itoa(max(4, runtime.GOMAXPROCS(0)))); err != nil {
		panic(err)
	}
	os.Exit(e2e.Main(m))
}

// patience is how long a condition may take to come true before a test gives up: far longer than it
// ever should.
const patience = time.Minute

// await waits until ok says so; what ends the sentence "waited in vain for …".
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		<-tick.C
	}
}
