// Command rollcall turns the agent listing of an ISDP+ tenant into a stream of events on NATS JetStream.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/rollcall-events/rollcall/internal/setting"
)

func main() {
	// Nearly all of the heap are agents, which stay: to let it double before the collector looks at it would be to pay for their
	// memory twice, while what becomes garbage is little. GOGC and GOMEMLIMIT do what they always do.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal exits at once
	err := rootCommand().ExecuteContext(ctx)
	stop()
	os.Exit(exitCode(err))
}

// exitCode tells the error on stderr: 2 for what has to be set otherwise, 1 for what a restart may mend.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	var told checkFailed
	if errors.As(err, &told) {
		return told.code
	}
	for line := range strings.Lines(err.Error() + "\n") { // unusable settings are a line each
		fmt.Fprint(os.Stderr, "rollcall: ", line)
	}
	var unusable *setting.Error
	if errors.As(err, &unusable) || errors.Is(err, errUsage) {
		return 2
	}
	return 1
}
