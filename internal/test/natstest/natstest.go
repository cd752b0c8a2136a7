// Package natstest runs real nats-servers for tests: in process, on a free port of 127.0.0.1, with
// file storage.
package natstest

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// Start runs a server on the store directory dir (empty: one of the test's own) until the test ends
// or stop is called.
func Start(t testing.TB, dir string) (url string, stop func()) {
	t.Helper()
	return StartOptions(t, &server.Options{StoreDir: dir})
}

// StartAt runs a server on the store directory dir where an earlier one was reached at url.
func StartAt(t testing.TB, dir, url string) (stop func()) {
	t.Helper()
	port, err := strconv.Atoi(url[strings.LastIndexByte(url, ':')+1:])
	if err != nil {
		t.Fatalf("the port of %s: %v", url, err)
	}
	_, stop = StartOptions(t, &server.Options{StoreDir: dir, Port: port})
	return stop
}

// StartOptions is Start with options of the server's; host, port, JetStream and logging are set
// here.
func StartOptions(t testing.TB, opts *server.Options) (url string, stop func()) {
	t.Helper()
	if opts.StoreDir == "" {
		opts.StoreDir = t.TempDir()
	}
	opts.Host, opts.JetStream, opts.NoLog, opts.NoSigs = "127.0.0.1", true, true, true
	if opts.Port == 0 {
		opts.Port = server.RANDOM_PORT
	}
	s, err := server.NewServer(opts)
	if err != nil {
		t.Fatalf("new nats-server: %v", err)
	}
	go s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the nats-server does not become ready")
	}
	stop = func() {
		s.Shutdown()
		s.WaitForShutdown()
	}
	t.Cleanup(stop)
	return s.ClientURL(), stop
}

// Connect connects to url until the test ends.
func Connect(t testing.TB, url string) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectBufSize(-1),
		nats.ReconnectWait(20*time.Millisecond))
	if err != nil {
		t.Fatalf("connect to %s: %v", url, err)
	}
	t.Cleanup(nc.Close)
	return nc
}
