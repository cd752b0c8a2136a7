package main

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/rollcall-events/rollcall/internal/test/process"
)

// patience is how long anything may take before bench gives up.
const patience = 10 * time.Minute

// A failure is an error that ends the run. Everything here is one sequence of steps, each of which
// needs the one before: so a step panics with a failure, and measure recovers it.
type failure struct{ error }

func must(err error) {
	if err != nil {
		panic(failure{err})
	}
}

// get is v, or the end of the run.
func get[T any](v T, err error) T {
	must(err)
	return v
}

// caught turns a failure into an error, when deferred.
func caught(err *error, what string) {
	switch r := recover().(type) {
	case nil:
	case failure:
		*err = errors.Join(*err, fmt.Errorf("%s: %w", what, r.error))
	default:
		panic(r)
	}
}

// A proc is a process that bench has started.
type proc struct{ *process.Process }

func start(path string, env map[string]string, args ...string) proc {
	p := process.New(get(filepath.Abs(path)), env, args...)
	must(p.Start())
	return proc{p}
}

func (p proc) pid() int           { return p.Cmd.Process.Pid }
func (p proc) cpu() time.Duration { return get(cpuTime(p.pid())) }

func (p proc) died() error { return fmt.Errorf("it has ended: %v", p) }

// end sends a signal and waits until the process has ended.
func (p proc) end(s syscall.Signal) {
	must(p.Signal(s))
	get(p.Wait(patience))
}

// freeAddr is an address of this machine that nothing listens on.
func freeAddr() string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(get(process.FreePort())))
}
