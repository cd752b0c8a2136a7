package publisher

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rollcall-events/rollcall/internal/test/natstest"
	"github.com/rollcall-events/rollcall/schemas"
)

// A muffled dialer's connections lose everything that is written while they are muffled, and nobody
// notices.
type muffled struct{ on atomic.Bool }

func (d *muffled) Dial(network, address string) (net.Conn, error) {
	c, err := net.Dial(network, address)
	return &muffledConn{c, d}, err
}

type muffledConn struct {
	net.Conn
	d *muffled
}

func (c *muffledConn) Write(b []byte) (int, error) {
	if c.d.on.Load() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// A commit on a broker that hangs ends with its context, not with the acknowledgement that is
// waited for.
func TestCommitEndsWithContext(t *testing.T) {
	url, _ := natstest.Start(t, "")
	var dialer muffled
	nc, err := nats.Connect(url, nats.SetCustomDialer(&dialer))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	p, r, _ := recovered(t, nc)
	if err := p.shutOut(t.Context(), r, Batch{}); err != nil {
		t.Fatal(err)
	}
	dialer.on.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	begun := time.Now()
	err = p.Commit(ctx, Batch{Events: []schemas.Event{event(1, 1)}, Watermark: complete(1)})
	if took := time.Since(begun); !errors.Is(err, context.DeadlineExceeded) || took > ackTimeout/2 {
		t.Errorf("%v after %v, want the context's end", err, took)
	}
}
