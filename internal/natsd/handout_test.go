package natsd

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// slow is a reader that pauses once: for longer than a server that closes a connection waits for
// it.
type slow struct {
	io.Reader
	left int // bytes until the pause
}

func (s *slow) Read(b []byte) (int, error) {
	n, err := s.Reader.Read(b)
	if s.left -= n; s.left < 0 {
		s.left = 1 << 60
		time.Sleep(300 * time.Millisecond)
	}
	return n, err
}

// What is on its way to a plain subscriber when the server is stopped is handed out: here to one
// that begins to read only then, and is slow.
func TestHandOut(t *testing.T) {
	s := start(t, Config{})
	u, err := url.Parse(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	read := bufio.NewReader(conn)
	if line, err := read.ReadString('\n'); err != nil || !strings.HasPrefix(line, "INFO ") {
		t.Fatalf("greeting %q: %v", line, err)
	}
	fmt.Fprint(conn, "CONNECT {\"verbose\":false}\r\nSUB agent.> 1\r\nPING\r\n")
	for line := ""; line != "PONG\r\n"; {
		if line, err = read.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}

	const n, size = 600, 64 << 10
	flood(t, s, n, size)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		s.Shutdown()
	}()
	got, err := io.ReadAll(&slow{read, 25 << 20})
	if err != nil {
		t.Errorf("the connection ended with %v", err)
	}
	if msgs := bytes.Count(got, []byte("MSG agent.online")); msgs != n || len(got) < n*size {
		t.Errorf("%d of %d messages arrived, %d bytes", msgs, n, len(got))
	}
	<-stopped
}

// waiting reports whether anything is on its way to a client.
func waiting(t *testing.T, ns *server.Server) bool {
	t.Helper()
	conns, err := ns.Connz(nil)
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(conns.Conns, func(c *server.ConnInfo) bool { return c.Pending > 0 })
}

// flood publishes n messages, more than the system's buffers hold and less than the server does for
// a client that is slow.
func flood(t *testing.T, s *Server, n, size int) {
	t.Helper()
	nc, _ := own(t, s)
	body := bytes.Repeat([]byte("x"), size)
	for range n {
		if err := nc.Publish("agent.online.886.10.1", body); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	nc.Close()
	if !waiting(t, s.running.Load()) {
		t.Fatal("nothing waits: the system has taken all of it")
	}
}

// A client that reads nothing does not hold the stop up for long.
func TestHandOutToNobody(t *testing.T) {
	s := start(t, Config{})
	u, err := url.Parse(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "CONNECT {\"verbose\":false}\r\nSUB agent.> 1\r\nPING\r\n")
	flood(t, s, 600, 64<<10)
	s.Shutdown() // the test's own time limit says that it returns
}
