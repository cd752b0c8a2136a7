//go:build linux || darwin

package natsd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// fullEnv makes the test's binary do one of fullDisks: "name directory".
const fullEnv = "NATSD_FULL_DISK"

func init() {
	child = func() bool {
		name, dir, is := strings.Cut(os.Getenv(fullEnv), " ")
		if is {
			fullDisks[name](newSmall(dir))
		}
		return is
	}
}

// A disk that is full for a while, staged as a limit on the size of files, which is a process's
// own: so it takes a process of its own.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"broken": "has been restarted", "hangs": "start rollcall again",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), fullEnv+"="+name+" "+t.TempDir())
			out, err := cmd.CombinedOutput()
			if text := string(out); err != nil || strings.Count(text, want) != 1 {
				t.Errorf("%v:\n%s", err, text)
			}
		})
	}
}

// A small is a server, and a stream, whose files can be kept from growing.
type small struct {
	s      *Server
	nc     *nats.Conn
	js     jetstream.JetStream
	dir    string
	limits syscall.Rlimit // as they were
}

func must(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func newSmall(dir string) *small {
	signal.Ignore(syscall.SIGXFSZ)
	d := &small{dir: dir}
	must(syscall.Getrlimit(syscall.RLIMIT_FSIZE, &d.limits))
	var err error
	d.s, err = Start(Config{Listen: "127.0.0.1:0", DataDir: dir,
		lookEvery: often, lookWait: time.Second, // of the one that hangs nothing comes
		Logger: slog.New(slog.NewTextHandler(os.Stdout, nil))})
	must(err)
	d.nc, err = d.s.Connect(nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	must(err)
	d.js, err = jetstream.New(d.nc)
	must(err)
	_, err = d.js.CreateStream(context.Background(), logConfig(64<<20))
	must(err)
	return d
}

// limit keeps files from growing beyond so many bytes; 0: as before.
func (d *small) limit(bytes int64) {
	l := d.limits
	if bytes > 0 {
		l.Cur = uint64(bytes)
	}
	must(syscall.Setrlimit(syscall.RLIMIT_FSIZE, &l))
}

// publish stores a message of so many bytes in the place of the one before it, and returns its
// sequence.
func (d *small) publish(bytes int) (uint64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	m := nats.NewMsg("rollcall.log.watermark.886")
	m.Header.Set("Nats-Rollup", "sub")
	m.Data = make([]byte, bytes)
	ack, err := d.js.PublishMsg(ctx, m, jetstream.WithRetryAttempts(0))
	if err != nil {
		return 0, err
	}
	return ack.Sequence, nil
}

// size is that of the file that the stream is written to.
func (d *small) size() int64 {
	messages := filepath.Join(d.dir, "jetstream", ownAccount, "streams", stream, "msgs")
	info, err := os.Stat(filepath.Join(messages, "1.blk"))
	must(err)
	return info.Size()
}

var fullDisks = map[string]func(*small){
	// What was acknowledged stays, and when there is room again, what comes is stored.
	"broken": func(d *small) {
		before, err := d.publish(10 << 10)
		must(err)
		d.limit(d.size() + 1<<10)
		if _, err := d.publish(10 << 10); err == nil {
			must(errors.New("there is room"))
		}
		d.limit(0)
		var after uint64
		for end := time.Now().Add(patience); after == 0; time.Sleep(10 * time.Millisecond) {
			if after, err = d.publish(10 << 10); time.Now().After(end) {
				must(fmt.Errorf("nothing is stored again: %w", err))
			}
		}
		if after <= before {
			must(fmt.Errorf("sequence %d after %d", after, before))
		}
		d.nc.Close()
		d.s.Shutdown()
	},
	// The message fits, and what takes the one before it away does not: the server waits for itself
	// (seen with nats-server 2.15.2). Only a new process helps, and this one can end.
	"hangs": func(d *small) {
		for range 2 { // the first one has none before it
			_, err := d.publish(1 << 10)
			must(err)
		}
		was := d.size()
		_, err := d.publish(1 << 10)
		must(err)
		d.limit(2*d.size() - was - 1)
		_, err = d.publish(1 << 10)
		d.limit(0)
		select {
		case failed := <-d.s.Failed():
			fmt.Println(failed)
		case <-time.After(patience):
			must(fmt.Errorf("it does not hang: %w", err))
		}
		d.s.Shutdown()
	},
}
