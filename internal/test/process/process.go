// Package process builds, starts and ends programs, for the suites (through package e2e) and for
// the benchmark.
package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A Process is a program, and what it has written. Its methods may be called from any goroutine.
type Process struct {
	Name string
	Cmd  *exec.Cmd
	Done chan struct{} // closed when it has ended and all its output is here

	Stdout, Stderr Output
}

// New describes a program that Start starts; until then its command may be changed. Of this
// process's own environment it gets PATH, HOME and TMPDIR only, and env besides.
func New(path string, env map[string]string, args ...string) *Process {
	p := &Process{Name: filepath.Base(path), Cmd: exec.Command(path, args...),
		Done: make(chan struct{})}
	p.Cmd.Env = []string{}
	for _, name := range []string{"PATH", "HOME", "TMPDIR"} {
		if _, given := env[name]; given {
			continue
		}
		if v, ok := os.LookupEnv(name); ok {
			p.Cmd.Env = append(p.Cmd.Env, name+"="+v)
		}
	}
	for name, v := range env {
		p.Cmd.Env = append(p.Cmd.Env, name+"="+v)
	}
	slices.Sort(p.Cmd.Env)
	p.Cmd.Stdout, p.Cmd.Stderr = &p.Stdout, &p.Stderr
	return p
}

// Start starts it.
func (p *Process) Start() error {
	if err := p.Cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	go func() {
		defer close(p.Done)
		_ = p.Cmd.Wait() // the exit code says it all
	}()
	return nil
}

// Running reports whether it has been started and has not ended.
func (p *Process) Running() bool {
	select {
	case <-p.Done:
		return false
	default:
		return p.Cmd.Process != nil
	}
}

// Signal sends a signal.
func (p *Process) Signal(s syscall.Signal) error {
	if err := p.Cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("send %v to %s: %w", s, p.Name, err)
	}
	return nil
}

// Kill kills it, if it is still there, and waits until it is gone.
func (p *Process) Kill() {
	if p.Running() {
		_ = p.Cmd.Process.Kill()
		<-p.Done
	}
}

// Wait waits until it has ended, and returns its exit code, -1 where a signal ended it.
func (p *Process) Wait(patience time.Duration) (int, error) {
	select {
	case <-p.Done:
		return p.Cmd.ProcessState.ExitCode(), nil
	case <-time.After(patience):
		return -1, fmt.Errorf("%s has not ended after %v", p.Name, patience)
	}
}

// String is the program with its arguments and its last lines.
func (p *Process) String() string {
	return fmt.Sprintf("%s %s wrote:\n%s", p.Name, strings.Join(p.Cmd.Args[1:], " "),
		lastLines(p.Stdout.String()+p.Stderr.String(), 60))
}

func lastLines(s string, n int) string {
	lines := strings.SplitAfter(s, "\n")
	if len(lines) > n {
		lines = append([]string{"[…]\n"}, lines[len(lines)-n:]...)
	}
	for i, l := range lines {
		if len(l) > 1000 {
			lines[i] = l[:1000] + " […]\n"
		}
	}
	return strings.Join(lines, "")
}

// An Output collects what a process writes.
type Output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (o *Output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// Root is the folder of rollcall's module, from within it or from within a module that requires it.
func Root(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}",
		"github.com/rollcall-events/rollcall").Output()
	if err != nil {
		return "", fmt.Errorf("find rollcall's sources: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// Build builds a package of rollcall's module, or of one that it requires, into dir, and returns
// the binary's path.
func Build(ctx context.Context, dir, pkg string, flags ...string) (string, error) {
	root, err := Root(ctx)
	if err != nil {
		return "", err
	}
	name := filepath.Base(strings.TrimSuffix(pkg, "/v2"))
	path := filepath.Join(dir, name)
	cmd := exec.CommandContext(ctx, "go",
		slices.Concat([]string{"build", "-buildvcs=false", "-o", path}, flags, []string{pkg})...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return path, nil
}

var (
	portsMu sync.Mutex
	ports   = map[int]bool{} // given out by FreePort
)

// FreePort returns a port of 127.0.0.1 that nothing listens on, outside the range that systems take
// ports for outgoing connections from, so that it stays free while a server restarts.
func FreePort() (int, error) {
	portsMu.Lock()
	defer portsMu.Unlock()
	for range 1000 {
		port := 20000 + rand.IntN(12000)
		if ports[port] {
			continue
		}
		ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		_ = ln.Close()
		ports[port] = true
		return port, nil
	}
	return 0, errors.New("no free port from 20000 to 31999")
}
