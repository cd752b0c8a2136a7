//go:build unix

package vendor

import (
	"flag"
	"os"
	"strconv"
	"testing"

	"github.com/rollcall-events/rollcall/internal/test/e2e"
)

var (
	long = flag.Duration("long", 0,
		"how long to go on, TestMixed with one seed after the other, TestPatience on a real "+
			"clock; also runs the variants of TestFault. 0: the quick set")
	seedFlag = flag.Uint64("seed", 0,
		"the seed that TestMixed runs, and no other; 0: those of the quick set")
)

func TestMain(m *testing.M) {
	// Properties are tried with the same cases every time, unless -rapid.seed asks for others.
	if err := flag.Set("rapid.seed", "1"); err != nil {
		panic(err)
	}
	flag.Parse()
	// The tests mostly wait: for what the poller waits for between two tries.
	if err := flag.Set("test.parallel", strconv.Itoa(20)); err != nil {
		panic(err)
	}
	os.Exit(e2e.Main(m))
}
