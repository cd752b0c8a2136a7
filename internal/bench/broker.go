package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/schemas"
)

// A broker is a nats-server on a store of its own, and bench's connection to it.
type broker struct {
	*process
	url   string
	dir   string
	nc    *nats.Conn
	js    jetstream.JetStream
	marks chan mark // the watermarks, as a plain subscriber gets them
}

// A mark is a watermark that has arrived.
type mark struct {
	schemas.Watermark
	at    time.Time
	bytes int
}

// complete reports whether the watermark is that of a complete sweep.
func (m *mark) complete() bool { return m.InProgress == nil && m.Sweep > 0 }

func startBroker(ctx context.Context, binary, dir string) (*broker, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	host, port, _ := strings.Cut(addr, ":")
	config := filepath.Join(dir, "nats.conf")
	// How much the streams may take is said where they are created; here it is only not to be in
	// the way.
	conf := fmt.Sprintf("host: %s\nport: %s\njetstream { store_dir: %q, max_file_store: 1TB }\n", host, port, filepath.Join(dir, "store"))
	if err := os.WriteFile(config, []byte(conf), 0o600); err != nil {
		return nil, err
	}
	p, err := start("nats-server", binary, nil, false, "-c", config)
	if err != nil {
		return nil, err
	}
	b := &broker{process: p, url: "nats://" + addr, dir: dir, marks: make(chan mark, 1<<16)}
	if err := b.connect(ctx); err != nil {
		b.end()
		return nil, err
	}
	return b, nil
}

func (b *broker) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		var err error
		if b.nc, err = nats.Connect(b.url); err == nil {
			if _, err = b.nc.RequestWithContext(ctx, "$JS.API.INFO", nil); err == nil {
				break
			}
			b.nc.Close()
		}
		select {
		case <-tick.C:
		case <-b.done:
			return b.died()
		case <-ctx.Done():
			return fmt.Errorf("connect to the nats-server: %w", errors.Join(ctx.Err(), err))
		}
	}
	var err error
	if b.js, err = jetstream.New(b.nc, jetstream.WithDefaultTimeout(30*time.Second)); err != nil {
		return err
	}
	sub, err := b.nc.Subscribe(schemas.WatermarkSubject(tenantID), func(m *nats.Msg) {
		w := mark{at: time.Now(), bytes: len(m.Data)}
		if json.Unmarshal(m.Data, &w.Watermark) == nil {
			b.marks <- w
		}
	})
	if err != nil {
		return err
	}
	return errors.Join(sub.SetPendingLimits(-1, -1), b.nc.Flush())
}

// end ends the server and removes its store.
func (b *broker) end() {
	if b == nil {
		return
	}
	if b.nc != nil {
		b.nc.Close()
	}
	b.kill()
	_ = os.RemoveAll(b.dir)
}

// drain forgets the watermarks that have arrived so far.
func (b *broker) drain() {
	for {
		select {
		case <-b.marks:
		default:
			return
		}
	}
}

// await returns the next watermark that is wanted; p must not end meanwhile.
func (b *broker) await(ctx context.Context, p *process, want func(*mark) bool) (mark, error) {
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		select {
		case m := <-b.marks:
			if want(&m) {
				return m, nil
			}
		case <-p.done:
			return mark{}, p.died()
		case <-ctx.Done():
			return mark{}, ctx.Err()
		case <-timeout.C:
			return mark{}, fmt.Errorf("the watermark that was waited for has not come in %v; the last lines of %s:\n%s", patience, p.name, p.stderr)
		}
	}
}

// patience is how long anything may take before bench gives up.
const patience = 10 * time.Minute
