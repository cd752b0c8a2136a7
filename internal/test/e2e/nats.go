//go:build unix

package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rollcall-events/rollcall/internal/test/process"
	"github.com/rollcall-events/rollcall/internal/test/wait"
)

// FreePort is that of package process.
func FreePort(t testing.TB) int {
	t.Helper()
	port, err := process.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// A NATSServer is a nats-server in a process of its own, with JetStream in files.
type NATSServer struct {
	*Process // the latest
	URL      string

	t      testing.TB
	config string
}

// NewNATSServer describes a server on a store and a port of its own; Start starts it. extra are
// further lines of its configuration file.
func NewNATSServer(t testing.TB, extra string) *NATSServer {
	t.Helper()
	dir, port := t.TempDir(), FreePort(t)
	s := &NATSServer{t: t, URL: fmt.Sprintf("nats://127.0.0.1:%d", port),
		config: filepath.Join(dir, "nats.conf")}
	conf := fmt.Sprintf(
		"host: 127.0.0.1\nport: %d\nserver_name: e2e\njetstream { store_dir: %q }\n%s\n", port,
		filepath.Join(dir, "store"), extra)
	if err := os.WriteFile(s.config, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// Configure adds lines to the configuration; where the server runs, it takes them up.
func (s *NATSServer) Configure(lines string) {
	s.t.Helper()
	f, err := os.OpenFile(s.config, os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(lines + "\n")
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		s.t.Fatal(err)
	}
	if s.Process != nil && s.Running() {
		s.Signal(syscall.SIGHUP)
	}
}

// Start starts the server, also again after Kill or Terminate: on the same store and port. It
// returns when JetStream answers.
func (s *NATSServer) Start() {
	s.t.Helper()
	s.Process = Start(s.t, Built(s.t, "github.com/nats-io/nats-server/v2"), nil, "-c", s.config)
	wait.Eventually(s.t, "the nats-server to be ready", func() bool {
		if !s.Running() {
			s.t.Fatalf("the nats-server has ended: exit %d", s.Wait())
		}
		nc, err := nats.Connect(s.URL, nats.Timeout(time.Second))
		if err != nil {
			return false
		}
		defer nc.Close()
		m, err := nc.Request("$JS.API.INFO", nil, time.Second)
		return err == nil && len(m.Data) > 0
	})
}

// Connect connects a client to a server that may still have to start, and that may go away and come
// back, until the test ends.
func Connect(t testing.TB, url string) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url, nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1),
		nats.ReconnectBufSize(-1),
		nats.ReconnectWait(20*time.Millisecond), nats.ReconnectJitter(0, 0),
		nats.Timeout(2*time.Second),
		// by default it writes to standard error
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		t.Fatalf("connect to %s: %v", url, err)
	}
	t.Cleanup(nc.Close)
	return nc
}
