package board

import (
	"flag"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// instead of the tests, the stage; set by stage_test.go.
var runStage func() bool

func TestMain(m *testing.M) {
	flag.Parse()
	if runStage != nil && runStage() {
		return
	}
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		os.Stderr.WriteString("goroutines leak: " + err.Error() + "\n")
		code = 1
	}
	os.Exit(code)
}
