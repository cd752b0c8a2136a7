//go:build linux || darwin

package natsd

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// fullEnv makes the test's binary run fullDisk on the directory that it holds.
const fullEnv = "NATSD_FULL_DISK"

func init() {
	child = func() bool {
		dir := os.Getenv(fullEnv)
		if dir != "" {
			fullDisk(dir)
		}
		return dir != ""
	}
}

// A disk that is full for a while, staged as a limit on the size of files, which is a process's own: so a process of its own
// runs fullDisk.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), fullEnv+"="+t.TempDir())
	out, err := cmd.CombinedOutput()
	text := string(out)
	if err != nil || !strings.Contains(text, "critical write error") || strings.Count(text, "has been started anew") != 1 {
		t.Errorf("%v:\n%s", err, text)
	}
}

// fullDisk fills the disk under a server and makes room again: what was acknowledged stays, and what comes then is stored.
func fullDisk(dir string) {
	must := func(err error) {
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	signal.Ignore(syscall.SIGXFSZ)
	var lim syscall.Rlimit
	must(syscall.Getrlimit(syscall.RLIMIT_FSIZE, &lim))
	limit := func(bytes uint64) {
		must(syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: bytes, Max: lim.Max}))
	}

	s, err := Start(Config{Listen: "127.0.0.1:0", DataDir: dir, Logger: slog.New(slog.NewTextHandler(os.Stdout, nil))})
	must(err)
	nc, err := s.Connect(nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	must(err)
	js, err := jetstream.New(nc)
	must(err)
	ctx := context.Background()
	stream, err := js.CreateStream(ctx, logConfig(64<<20))
	must(err)
	stored := uint64(0)
	publish := func() error {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		ack, err := js.Publish(ctx, "rollcall.log.online.886.10.1", make([]byte, 10<<10), jetstream.WithRetryAttempts(0))
		if err == nil {
			stored = ack.Sequence
		}
		return err
	}
	must(publish())
	limit(64 << 10)
	for publish() == nil {
	}
	limit(lim.Cur)
	before := stored
	for end := time.Now().Add(patience); publish() != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			must(fmt.Errorf("nothing is stored again"))
		}
	}
	info, err := stream.Info(ctx)
	must(err)
	if stored <= before || info.State.Msgs != stored {
		must(fmt.Errorf("acknowledged up to %d before and %d now: the stream has %+v", before, stored, info.State))
	}
	nc.Close()
	s.Shutdown()
}
