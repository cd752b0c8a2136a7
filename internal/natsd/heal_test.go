package natsd

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/internal/test/wait"
)

// patience bounds every wait for something that must happen.
const patience = 60 * time.Second

// often is how often these tests have the server looked at.
const often = 50 * time.Millisecond

// lines is what was logged. Safe for concurrent use.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// A server that can't write its store is replaced as soon as there is room, and not before: clients
// see a restart on the same address, what was acknowledged is there, and readers' requests are
// answered as before.
func TestHeals(t *testing.T) {
	t.Parallel()
	var sick *server.Server // the first one
	asked, room := make(chan struct{}), make(chan struct{})
	looks := 0
	out := &lines{}
	s := start(t, Config{
		Logger:    slog.New(slog.NewTextHandler(out, nil)),
		lookEvery: often,
		ill: func(ns *server.Server) error {
			if sick == nil {
				sick = ns
			}
			if ns == sick {
				return errors.New("no space left on device")
			}
			return ill(ns)
		},
		roomFor: func(dir string) error {
			switch looks++; looks {
			case 1: // the start
				return nil
			case 3: // it goes on asking
				close(asked)
			}
			select {
			case <-room:
				return nil
			default:
				return ErrNoRoom
			}
		},
	})
	nc, err := s.Connect(nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), logConfig(1<<20)); err != nil {
		t.Fatal(err)
	}
	_, rjs := reader(t, s, nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	first := publish(t, js, "online.886.10.1", "before")
	url := s.ClientURL()

	happens(t, asked)
	second := publish(t, js, "online.886.10.2", "while there is no room")
	if second != first+1 || nc.Stats().Reconnects > 0 {
		t.Fatal("the server was replaced before there was room")
	}
	close(room)
	wait.Eventually(t, "the connection to come back",
		func() bool { return nc.Stats().Reconnects > 0 && nc.IsConnected() })
	if third := publish(t, js, "online.886.10.3", "after"); third != first+2 {
		t.Errorf("the messages have sequences %d, %d, %d", first, second, third)
	}
	if got := s.ClientURL(); got != url {
		t.Errorf("it is at %s now, and was at %s", got, url)
	}
	wait.Eventually(t, "the server to answer", func() bool {
		stream, err := rjs.Stream(t.Context(), logConfig(0).Name)
		if err != nil {
			return false
		}
		// The gate lets it through.
		_, err = stream.CreateConsumer(t.Context(), jetstream.ConsumerConfig{})
		return err == nil && stream.CachedInfo().State.Msgs == 3
	})
	for _, want := range []string{
		"can't write its store any more", "waits for room", "has been restarted",
	} {
		if strings.Count(out.String(), want) != 1 {
			t.Errorf("not once %q:\n%s", want, out)
		}
	}
}

// A server that neither works nor ends is nobody's any more: it is told that only a new process
// helps, Shutdown does not wait for it for ever, and its directory stays locked.
func TestHangs(t *testing.T) {
	t.Parallel()
	hang := make(chan struct{})
	t.Cleanup(func() { close(hang) })
	dir := t.TempDir()
	s := start(t, Config{
		DataDir:   dir,
		ill:       func(*server.Server) error { <-hang; return nil }, // it answers nothing
		end:       func(ns *server.Server) { <-hang; end(ns) },
		lookEvery: often,
		lookWait:  100 * time.Millisecond,
	})
	select {
	case err := <-s.Failed():
		t.Log(err)
		for _, want := range []string{dir, errHangs.Error(), "start rollcall again"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q does not say %q", err, want)
			}
		}
	case <-time.After(patience):
		t.Fatal("nobody is told")
	}
}

// A start on a full disk says so, logs nothing, since it will be tried again and again, and leaves
// nothing behind. The one that works says what the disk lacks.
func TestStartWithoutRoom(t *testing.T) {
	out := &lines{}
	cfg := Config{DataDir: t.TempDir(), Listen: "127.0.0.1:0", MaxBytes: 1 << 60,
		Logger:  slog.New(slog.NewTextHandler(out, nil)),
		roomFor: func(string) error { return ErrNoRoom }}
	if _, err := Start(cfg); !errors.Is(err, ErrNoRoom) {
		t.Fatalf("it says %v", err)
	}
	if found, err := Look(cfg); err != nil || !errors.Is(found.Full, ErrNoRoom) {
		t.Errorf("a look shows %+v, %v", found, err)
	}
	if told := out.String(); told != "" {
		t.Errorf("it logs %s", told)
	}
	cfg.roomFor = nil
	start(t, cfg)
	if told := out.String(); strings.Count(told, "has less room") != 1 {
		t.Errorf("it logs %s", told)
	}
}

// A restart that fails for another reason than a full disk ends it.
func TestRestartFails(t *testing.T) {
	t.Parallel()
	var taken net.Listener
	t.Cleanup(func() {
		if taken != nil {
			taken.Close()
		}
	})
	s := start(t, Config{
		lookEvery: often,
		ill:       func(*server.Server) error { return errors.New("ill") },
		end: func(ns *server.Server) {
			addr := ns.Addr()
			end(ns)
			if taken == nil {
				taken, _ = net.Listen("tcp", addr.String())
			}
		},
	})
	select {
	case err := <-s.Failed():
		if !errors.Is(err, ErrListen) {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("nobody is told")
	}
}

// A stream that no server can read is not what a new server helps against.
func TestNotRecovered(t *testing.T) {
	dir := t.TempDir()
	s := start(t, Config{DataDir: dir})
	own(t, s)
	s.Shutdown()
	streams := filepath.Join(dir, "jetstream", ownAccount, "streams")
	if err := os.MkdirAll(filepath.Join(streams, "NONE"), 0o700); err != nil {
		t.Fatal(err)
	}
	s = start(t, Config{DataDir: dir})
	if len(s.running.Load().Healthz(&server.HealthzOptions{Details: true}).Errors) == 0 {
		t.Error("the server does not tell of it, so that this test says nothing")
	}
	if err := ill(s.running.Load()); err != nil {
		t.Error(err)
	}
}

// An end in the middle of a replacement neither waits for it nor gives up the directory that it
// uses.
func TestShutdownWhileHealing(t *testing.T) {
	t.Parallel()
	ending, hang := make(chan struct{}), make(chan struct{})
	dir := t.TempDir()
	s := start(t, Config{
		DataDir:   dir,
		lookEvery: often,
		ill:       func(*server.Server) error { return errors.New("ill") },
		end:       func(ns *server.Server) { close(ending); <-hang; end(ns) },
	})
	happens(t, ending)
	s.Shutdown()
	if _, err := Start(Config{DataDir: dir, Listen: "127.0.0.1:0"}); !errors.Is(err, ErrDirInUse) {
		t.Errorf("another one on the directory: %v", err)
	}
	select {
	case err := <-s.Failed():
		t.Errorf("it is told: %v", err)
	default:
	}
	close(hang)
}

func TestLeastRoom(t *testing.T) {
	for size, want := range map[int64]int64{0: 0, 64 << 20: 64 << 20 / 20, 1 << 40: 16 << 20} {
		if got := leastRoom(size); got != want {
			t.Errorf("of %d bytes %d have to be free, want %d", size, got, want)
		}
	}
	if err := roomFor(t.TempDir()); err != nil {
		t.Error(err)
	}
}

func happens(t *testing.T, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatal("it does not happen")
	}
}
