// Command rollcall turns the agent listing of an ISDP+ tenant into a stream of events on NATS
// JetStream.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/rollcall-events/rollcall/internal/setting"
)

func main() {
	// Nearly all of the heap are agents, which stay: to let it double before the collector looks at
	// it would be to pay for their memory twice, while what becomes garbage is little. (With the
	// embedded server, still less: see embeddedBroker.) GOGC and GOMEMLIMIT do what they always do.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	setting.Use(byField())
	stdlog.SetOutput(io.Discard) // until there is a log, and in commands without one
	stderr := newOutput(os.Stderr, nil)
	done := make(chan error, 1)
	go func() { done <- run(untilSignal(), stderr) }()
	code, patience := 1, flushTimeout
	select {
	case err := <-done:
		code = exitCode(err, stderr)
	case patience = <-endNow:
	}
	stderr.end(patience)
	os.Exit(code)
}

// run does what the command line says, until that is done or ctx ends.
func run(ctx context.Context, stderr io.Writer) error {
	root := rootCommand()
	root.SetErr(stderr)
	return root.ExecuteContext(ctx)
}

// flushTimeout is how long the end waits for whoever reads what the process has written.
const flushTimeout = time.Second

// endNow ends the process without waiting for what is under way, but for the last lines of the log,
// which get the time that is sent.
var endNow = make(chan time.Duration, 1)

// hangupTwice is within which time two hangups are one: a terminal that closes sends one, and so
// does its shell.
const hangupTwice = time.Second

// untilSignal returns a context that ends with the first signal that asks the process to stop. A
// second one ends the process at once.
func untilSignal() context.Context {
	ctx, stop := context.WithCancel(context.Background())
	stopping := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // as nohup has it
		stopping = append(stopping, syscall.SIGHUP)
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, stopping...)
	go func() {
		first := <-signals
		stop()
		began := time.Now()
		for s := range signals {
			if s != syscall.SIGHUP || first != syscall.SIGHUP || time.Since(began) > hangupTwice {
				endNow <- 0
				return
			}
		}
	}()
	return ctx
}

// A reported error has been printed already: only the exit code is left.
type reported struct{ code int }

func (e reported) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// exitCode reports the error: 2 for what has to be set otherwise, 1 for what a restart may mend.
func exitCode(err error, stderr io.Writer) int {
	if err == nil {
		return 0
	}
	if r, ok := errors.AsType[reported](err); ok {
		return r.code
	}
	for line := range strings.Lines(err.Error() + "\n") { // unusable settings are a line each
		fmt.Fprint(stderr, "rollcall: ", line)
	}
	_, unusable := errors.AsType[*setting.Error](err)
	_, misused := errors.AsType[*usageError](err)
	if unusable || misused {
		return 2
	}
	return 1
}
