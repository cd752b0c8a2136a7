//go:build unix

package soak

import (
	"flag"
	"os"
	"runtime"
	"strconv"
	"testing"

	"github.com/rollcall-events/rollcall/internal/test/e2e"
)

var (
	soakFor = flag.Duration("soak", 0,
		"how long TestSoak goes on, with fresh seeds; 0: a short run with fixed ones")
	soakSeed = flag.Uint64("soak.seed", 0,
		"run one long cycle of each scenario with this seed; 0: see -soak")
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
