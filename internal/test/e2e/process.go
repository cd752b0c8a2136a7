//go:build unix

package e2e

import (
	"encoding/json"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rollcall-events/rollcall/internal/test/process"
	"github.com/rollcall-events/rollcall/internal/test/wait"
)

// A Process is a running program, and what it has written. It is killed at the end of the test, if
// it is still there. Its methods may be called from any goroutine.
type Process struct {
	t testing.TB
	p *process.Process
}

// Start starts a program. Of the test's own environment it gets PATH, HOME and TMPDIR only, and env
// besides.
func Start(t testing.TB, path string, env map[string]string, args ...string) *Process {
	t.Helper()
	p := newProcess(t, path, env, args...)
	p.start()
	return p
}

// newProcess describes a program that start starts; until then its command may be changed.
func newProcess(t testing.TB, path string, env map[string]string, args ...string) *Process {
	t.Helper()
	p := process.New(path, env, args...)
	p.Cmd.Dir = t.TempDir()
	return &Process{t, p}
}

func (p *Process) start() {
	p.t.Helper()
	if err := p.p.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		p.p.Kill()
		if p.t.Failed() {
			p.t.Log(p.p)
		}
	})
}

// Running reports whether the process has not ended.
func (p *Process) Running() bool { return p.p.Running() }

// Stdout is what the process has written to standard output so far.
func (p *Process) Stdout() string { return p.p.Stdout.String() }

// Stderr is what the process has written to standard error so far.
func (p *Process) Stderr() string { return p.p.Stderr.String() }

// Output is both.
func (p *Process) Output() string { return p.Stdout() + p.Stderr() }

// Signal sends a signal to a process that is running.
func (p *Process) Signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.p.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// Pause stops the process (SIGSTOP) until Continue.
func (p *Process) Pause() { p.t.Helper(); p.Signal(syscall.SIGSTOP) }

// Continue continues a paused process (SIGCONT).
func (p *Process) Continue() { p.t.Helper(); p.Signal(syscall.SIGCONT) }

// Kill kills the process (SIGKILL) and waits until it is gone.
func (p *Process) Kill() {
	p.t.Helper()
	p.Signal(syscall.SIGKILL)
	p.Wait()
}

// Terminate asks the process to end (SIGTERM), and returns its exit code and how long it took.
func (p *Process) Terminate() (code int, took time.Duration) {
	p.t.Helper()
	return p.end(syscall.SIGTERM)
}

// Interrupt is Terminate with SIGINT.
func (p *Process) Interrupt() (code int, took time.Duration) {
	p.t.Helper()
	return p.end(syscall.SIGINT)
}

func (p *Process) end(s syscall.Signal) (int, time.Duration) {
	p.t.Helper()
	begun := time.Now()
	p.Signal(s)
	code := p.Wait()
	return code, time.Since(begun)
}

// Wait waits until the process has ended, and returns its exit code, -1 where a signal ended it.
func (p *Process) Wait() int {
	p.t.Helper()
	code, err := p.p.Wait(wait.Patience)
	if err != nil {
		p.t.Fatal(err)
	}
	return code
}

// A LogLine is one line of a log in JSON, by the names of its attributes.
type LogLine map[string]any

// Level is the line's level: DEBUG, INFO, WARN or ERROR.
func (l LogLine) Level() string { s, _ := l["level"].(string); return s }

// Message is the line's message.
func (l LogLine) Message() string { s, _ := l["msg"].(string); return s }

// Log is what the process has logged so far, where it logs in JSON (ROLLCALL_LOG_FORMAT). Other
// lines of standard error, one that is still being written included, are left out.
func (p *Process) Log() []LogLine {
	var lines []LogLine
	for raw := range strings.Lines(p.Stderr()) {
		var l LogLine
		if strings.HasPrefix(raw, "{") && json.Unmarshal([]byte(raw), &l) == nil {
			lines = append(lines, l)
		}
	}
	return lines
}

// Logged returns the lines of the log whose message contains text.
func (p *Process) Logged(text string) []LogLine {
	return slices.DeleteFunc(p.Log(), func(l LogLine) bool {
		return !strings.Contains(l.Message(), text)
	})
}

// WaitFor waits until the process has written text to either output. It fails the test where the
// process ends without.
func (p *Process) WaitFor(text string) {
	p.t.Helper()
	ended := false
	wait.Eventually(p.t, p.p.Name+" to write "+text, func() bool {
		was := !p.Running()
		ok := strings.Contains(p.Output(), text)
		ended = was && !ok
		return ok || ended
	})
	if ended {
		p.t.Fatalf("%s ended, exit %d, without writing %q", p.p.Name, p.Wait(), text)
	}
}
