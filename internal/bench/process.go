package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A process is one that bench has started.
type process struct {
	name   string
	cmd    *exec.Cmd
	stdin  io.WriteCloser // closed at the end, which ends bench's own processes
	stdout io.Reader      // of bench's own processes; nil: discarded
	stderr *tail
	done   chan struct{} // closed when it has ended
}

// start starts a program with these variables in its environment and little else. Where pipes is
// set, the caller talks to it through stdin and stdout.
func start(name, path string, env []string, pipes bool, args ...string) (*process, error) {
	p := &process{name: name, cmd: exec.Command(path, args...), stderr: &tail{}, done: make(chan struct{})}
	p.cmd.Env = append([]string{}, env...)
	for _, v := range []string{"PATH", "HOME", "TMPDIR"} {
		if s, ok := os.LookupEnv(v); ok {
			p.cmd.Env = append(p.cmd.Env, v+"="+s)
		}
	}
	p.cmd.Stderr = p.stderr
	var out *io.PipeWriter
	if pipes {
		var err error
		if p.stdin, err = p.cmd.StdinPipe(); err != nil {
			return nil, err
		}
		p.stdout, out = io.Pipe()
		p.cmd.Stdout = out
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // what it wrote says more
		if out != nil {
			_ = out.CloseWithError(p.died())
		}
	}()
	return p, nil
}

func (p *process) died() error {
	return fmt.Errorf("%s (pid %d) has ended; its last lines:\n%s", p.name, p.cmd.Process.Pid, p.stderr)
}

func (p *process) cpu() (time.Duration, error) { return cpuTime(p.cmd.Process.Pid) }

// signal sends a signal and waits until the process has ended.
func (p *process) signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end %s: %w", p.name, err)
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(time.Minute):
		return fmt.Errorf("%s has not ended a minute after %v", p.name, s)
	}
}

// kill ends the process at once, if it is still there.
func (p *process) kill() {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	<-p.done
}

func (p *process) pause() error  { return stop(p.cmd.Process) }
func (p *process) resume() error { return cont(p.cmd.Process) }

// tail keeps the end of what a process writes.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

// Write implements io.Writer.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if n := len(t.buf) - 16<<10; n > 0 {
		t.buf = append(t.buf[:0], t.buf[n:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := strings.SplitAfter(string(t.buf), "\n")
	return strings.Join(lines[max(0, len(lines)-20):], "")
}

// build builds a package of rollcall's module, or of one that it needs, and returns the binary's path.
func build(ctx context.Context, dir, name, pkg string) (string, error) {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/rollcall-events/rollcall").Output()
	if err != nil {
		return "", fmt.Errorf("build %s: find rollcall's sources (bench has to be run in its own folder): %w", name, err)
	}
	path := filepath.Join(dir, name)
	cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", path, pkg)
	cmd.Dir = strings.TrimSpace(string(root))
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", name, err, said.String())
	}
	return path, nil
}

// freeAddr is an address of this machine that nothing listens on.
func freeAddr() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer ln.Close()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(ln.Addr().(*net.TCPAddr).Port)), nil
}
