package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rollcall-events/rollcall/internal/ops"
	"github.com/rollcall-events/rollcall/internal/test/checker"
	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
	"github.com/rollcall-events/rollcall/internal/test/wait"
)

// Ways to fill a file system, in the directory fill.
const (
	fillBlocks = `cat /dev/zero >"$0/fill/zero" 2>&-; `
	fillInodes = `n=0; while touch "$0/fill/$n" 2>&-; do n=$((n+1)); done; `
)

// smallDisk has a process see a file system of its own at dir, of 48 MB and 300 files, which first
// is filled.
func smallDisk(dir, fill string) func(*exec.Cmd) {
	script := `mount -t tmpfs -o size=48m,nr_inodes=300 none "$0" && ` +
		`mkdir "$0/fill" && { ` + fill + `: ; } && `
	return func(cmd *exec.Cmd) {
		cmd.Args = append([]string{"sh", "-c", script + `exec "$@"`, dir, cmd.Path},
			cmd.Args[1:]...)
		cmd.Path = "/bin/sh"
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
	}
}

// A disk that is full for a while: the leader says that it can't commit, and when there is room it
// goes on, or ends so that it is started again. Nothing hangs.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	try := exec.CommandContext(t.Context(), "/bin/true")
	if smallDisk(dir, "")(try); try.Run() != nil {
		t.Skip("this system lets its users mount no file system of their own; " +
			"what the embedded server does on a full disk is tested in natsd")
	}
	v := NewVendor(t, isdpsim.Config{Agents: 60, Churn: 10})
	env, url := Embedded(t)
	env["ROLLCALL_DATA_DIR"], env["ROLLCALL_NATS_MAX_BYTES"] = filepath.Join(dir, "data"), "16MiB"

	w := watchAs(t, "full", smallDisk(dir, ""), v.Env(), env)
	w.until("healthy", is("ok", ""))
	ctx, rest := context.WithCancel(t.Context())
	churned := make(chan struct{})
	go func() {
		defer close(churned)
		_ = v.Run(ctx)
	}()
	t.Cleanup(func() { rest(); <-churned })
	fill := filepath.Join("/proc", fmt.Sprint(w.p.Cmd.Process.Pid), "root", dir, "fill", "zero")
	f, err := os.Create(fill)
	if err != nil {
		t.Fatal(err)
	}
	for block := make([]byte, 4<<10); err == nil; {
		_, err = f.Write(block)
	}
	f.Close()
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	r := w.until("unready, since it can't commit", func(r ops.Readiness) bool {
		return !r.Ready && r.Commits != nil && !r.Commits.OK
	})
	t.Log(r.Summary())
	there := map[string]string{"ROLLCALL_OPS_LISTEN": strings.TrimPrefix(w.ops, "http://")}
	if code := Rollcall(t, there, "check", "--ready").Wait(); code != 1 {
		t.Errorf("check --ready: exit %d", code)
	}
	w.WaitFor("can't write its store any more")
	if !w.Running() {
		t.Fatalf("it has ended: exit %d", w.Wait())
	}

	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	wait.Eventually(t, "a commit, or the end", func() bool {
		return !w.Running() || len(w.Logged("has been restarted")) > 0
	})
	if w.Running() {
		settled := func(what string) {
			at := time.Now()
			w.until(what, func(r ops.Readiness) bool {
				return r.Ready && r.Watermark.StartedAt.After(at) && r.Health.State == "ok"
			})
		}
		settled("sweeps in the stream again")
		rest()
		<-churned
		settled("a sweep of a tenant at rest in the stream")
		stored, err := checker.Read(t.Context(), Connect(t, url), tenant)
		if err != nil {
			t.Fatal(err)
		}
		report := checker.Check(checker.Stream{Stored: stored}, checker.TruthOf(v.Tenant),
			checker.Options{Tenant: tenant, Torn: true, LossyLive: true, Quiescent: true})
		if err := report.Err(); err != nil {
			t.Error(err)
		}
		t.Logf("%+v", report.Stats)
		if code, took := w.Terminate(); code != 0 || took > 10*time.Second {
			t.Errorf("exit %d after %v", code, took)
		}
	} else if code := w.Wait(); code != 1 || !strings.Contains(w.Stderr(), "start rollcall again") {
		t.Errorf("exit %d", code)
	}
}

// A start on a full disk waits for room, and says so.
func TestStartOnFullDisk(t *testing.T) {
	t.Parallel()
	for name, fill := range map[string]string{"blocks": fillBlocks, "inodes": fillInodes} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			try := exec.CommandContext(t.Context(), "/bin/true")
			if smallDisk(dir, "")(try); try.Run() != nil {
				t.Skip("this system lets its users mount no file system of their own; " +
					"the same with a staged fault is tested in natsd")
			}
			v := NewVendor(t, isdpsim.Config{Agents: 60})
			env, _ := Embedded(t)
			env["ROLLCALL_DATA_DIR"], env["ROLLCALL_NATS_MAX_BYTES"] = filepath.Join(dir, "data"),
				"16MiB"
			w := watchAs(t, "full", smallDisk(dir, fill), v.Env(), env)
			w.until("waiting for room", func(r ops.Readiness) bool {
				return !r.Ready && strings.Contains(r.WaitingFor, "room on the disk") &&
					strings.Contains(r.WaitingFor, dir)
			})
			root := filepath.Join("/proc", fmt.Sprint(w.p.Cmd.Process.Pid), "root")
			if err := os.RemoveAll(filepath.Join(root, dir, "fill")); err != nil {
				t.Fatal(err)
			}
			w.until("healthy", is("ok", ""))
			if n := len(w.Logged("starting the embedded NATS server")); n != 1 {
				t.Errorf("that it starts the server is told %d times", n)
			}
		})
	}
}
