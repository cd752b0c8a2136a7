package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/mattn/go-runewidth"
	"golang.org/x/sys/unix"

	"github.com/rollcall-events/rollcall/internal/test/e2e"
	"github.com/rollcall-events/rollcall/internal/test/wait"
)

// A terminal is a pseudo terminal with a program in it, and all that it has shown.
type terminal struct {
	t      *testing.T
	master *os.File
	cmd    *exec.Cmd
	done   chan struct{} // closed when all output is here

	mu  sync.Mutex
	out strings.Builder
}

func onPTY(t *testing.T, columns int, env map[string]string, args ...string) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	fd := int(master.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24,
			Col: uint16(columns)})
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	x := &terminal{t: t, master: master, cmd: exec.Command(e2e.Binary(t), args...),
		done: make(chan struct{})}
	x.cmd.Env = []string{"TERM=xterm-256color"}
	for name, value := range env {
		x.cmd.Env = append(x.cmd.Env, name+"="+value)
	}
	x.cmd.Stdin, x.cmd.Stdout, x.cmd.Stderr = slave, slave, slave
	x.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := x.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = slave.Close()
	go func() {
		defer close(x.done)
		_, _ = io.Copy(x, master) // ends with an error when the program has
	}()
	t.Cleanup(func() {
		_ = x.cmd.Process.Kill()
		<-x.done
		_ = master.Close()
		if t.Failed() {
			t.Logf("on the terminal: %q", x.shown())
		}
	})
	return x
}

func (x *terminal) Write(b []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.out.Write(b)
}

func (x *terminal) shown() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.out.String()
}

func (x *terminal) waitFor(pattern string) {
	x.t.Helper()
	re := regexp.MustCompile(pattern)
	wait.Eventually(x.t, pattern+" on the terminal", func() bool {
		return re.MatchString(x.shown())
	})
}

// ctrlC types Ctrl-C and returns the exit code.
func (x *terminal) ctrlC() int {
	x.t.Helper()
	if _, err := x.master.Write([]byte{3}); err != nil {
		x.t.Fatal(err)
	}
	_ = x.cmd.Wait()
	<-x.done
	return x.cmd.ProcessState.ExitCode()
}

var escapes = regexp.MustCompile("\x1b\\[[0-9;]*[mK]")

func TestWatchTerminal(t *testing.T) {
	t.Parallel()
	demo, url := demo(t)
	var narrow, plain, dumb, wide *terminal
	for _, c := range []struct {
		x       **terminal
		columns int
		env     map[string]string
	}{
		{&narrow, 80, nil},
		{&plain, 80, map[string]string{"NO_COLOR": "1"}},
		{&dumb, 80, map[string]string{"TERM": "dumb"}},
		{&wide, 120, nil},
	} {
		env := on(url)
		for name, value := range c.env {
			env[name] = value
		}
		*c.x = onPTY(t, c.columns, env, "watch")
	}
	narrow.waitFor(`(?s)\x1b\[32m fresh, \d+s old \| \d+ of 3\d\d on duty \| tenant 886 ` +
		`\x1b\[0m\r\x1b\[2K\d\d:.*fresh, `)
	narrow.waitFor(`\x1b\[3[236]mo\w+ *\x1b\[0m  \d{5}  \S+ +\S`)
	plain.waitFor(`\r\x1b\[2K fresh, \d+s old \| \d+ of 3\d\d on duty \| tenant 886 `)
	dumb.waitFor(`(?m)^\d\d:\d\d:\d\d  o\w+ +\d{5}  `)
	wide.waitFor(`fresh, \d+s old \| \d+ of 3\d\d on duty`)

	demo.Kill()
	for _, x := range []*terminal{narrow, wide} {
		x.waitFor(`\x1b\[1;37;41m LOST for \d+s \| ` +
			`STALE, \d+s old \| \d+ of \d+ on duty \| tenant 886 \x1b\[0m`)
	}
	plain.waitFor(`\r\x1b\[2K LOST for \d+s \| STALE, `)
	dumb.waitFor(`STALE    as of `)

	for name, c := range map[string]struct {
		x       *terminal
		columns int
		never   []string
	}{
		"80 columns":  {narrow, 80, nil},
		"120 columns": {wide, 120, nil},
		"NO_COLOR":    {plain, 80, []string{"\x1b[0m", "\x1b[3", "\x1b[1"}},
		"TERM=dumb":   {dumb, 80, []string{"\x1b"}},
	} {
		if code := c.x.ctrlC(); code != 0 {
			t.Errorf("%s: Ctrl-C: exit %d", name, code)
		}
		out := c.x.shown()
		for _, never := range c.never {
			if strings.Contains(out, never) {
				t.Errorf("%s: %q was written", name, never)
			}
		}
		for _, line := range strings.FieldsFunc(out, func(c rune) bool {
			return c == '\r' || c == '\n'
		}) {
			line = escapes.ReplaceAllString(line, "")
			if w := runewidth.StringWidth(line); c.columns > 0 && w > c.columns {
				t.Errorf("%s: a line of %d columns: %s", name, w, line)
			}
		}
	}
	if out := narrow.shown(); !strings.HasSuffix(out, "\r\x1b[2K") {
		t.Errorf("the status line is left on the screen: %q", out[max(0, len(out)-200):])
	}
}
