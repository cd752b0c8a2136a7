//go:build linux

package broker

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/rollcall-events/rollcall/internal/test/checker"
)

// serve is a nats-server whose files can't grow beyond a limit: to the store that is a disk without
// room.
func serve(args string) {
	var dir string
	var port int
	var limit uint64
	if _, err := fmt.Sscan(args, &dir, &port, &limit); err != nil {
		panic(err)
	}
	signal.Ignore(syscall.SIGXFSZ)
	if limit > 0 {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE,
			&syscall.Rlimit{Cur: limit, Max: limit}); err != nil {
			panic(err)
		}
	}
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, JetStream: true,
		StoreDir: dir, NoLog: true, NoSigs: true})
	if err != nil {
		panic(err)
	}
	go s.Start()
	if !s.ReadyForConnections(20 * time.Second) {
		panic("not ready")
	}
	fmt.Println(s.Addr().String())
	select {}
}

// A diskServer is a nats-server process whose disk runs full.
type diskServer struct {
	t    *testing.T
	cmd  *exec.Cmd
	dir  string
	addr string
}

// start starts the server with so much room in a file; 0: as much as it likes. It reports whether
// it came up.
func (d *diskServer) start(limit int) bool {
	d.t.Helper()
	port := -1
	if d.addr != "" {
		port = mustPort(d.addr)
	}
	d.cmd = exec.Command(os.Args[0])
	d.cmd.Env = append(os.Environ(),
		serverEnv+"="+strings.Join([]string{d.dir, strconv.Itoa(port), strconv.Itoa(limit)}, " "))
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		_ = d.cmd.Wait()
		return false
	}
	d.addr = strings.TrimSpace(line)
	return true
}

func (d *diskServer) kill() {
	if d.cmd != nil {
		_ = d.cmd.Process.Kill()
		_ = d.cmd.Wait()
		d.cmd = nil
	}
}

// A disk that runs full in the middle of a commit, staged as a limit on the size of files: the
// stream is true again when there is room. What the server does with its store meanwhile is its own
// affair; that it comes up again is not asserted.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	limits := []int{100_000}
	if *long {
		limits = nil
		for n := 90_000; n < 300_000; n += 7_000 {
			limits = append(limits, n)
		}
	}
	side(t, limits, func(n int) string {
		return fmt.Sprintf("%d bytes a file", n)
	}, func(t *testing.T, limit int) {
		d := &diskServer{t: t, dir: t.TempDir()}
		if !d.start(limit) {
			t.Fatal("the server does not start")
		}
		t.Cleanup(d.kill)
		b := &broker{t: t, dir: d.dir, at: d.addr}
		r := newRig(t, b, 30, 886)
		// what was torn was never acknowledged
		r.opt.LossyLive, r.opt.Torn, r.opt.Rollback = true, true, checker.Forgotten
		p := r.start()
		r.settle(p)
		for i := 0; !p.log.has("trying again"); i++ {
			r.flip(r.agents[i%15 : i%15+10]...)
			p.sees()
			if i > 200 {
				t.Fatal("the disk never ran full")
			}
		}
		d.kill()
		if !d.start(0) {
			t.Log("the server did not come up again on what was left")
			return
		}
		r.settle(p)
		r.flip(r.agents[:5]...)
		report := r.finish(p)
		t.Logf("repaired: %t; reloads: %d; %+v", p.log.has("events whose states it lacks"),
			p.log.count("moved on"), report.Stats)
	})
}
