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
	proc
	url   string
	dir   string
	nc    *nats.Conn
	js    jetstream.JetStream
	marks chan mark // the watermarks, as a plain subscriber gets them
}

// A mark is a watermark that has arrived.
type mark struct {
	schemas.Watermark
	at time.Time
}

// complete reports whether the watermark is that of a complete sweep.
func (m *mark) complete() bool { return m.InProgress == nil && m.Sweep > 0 }

func (m *mark) took() time.Duration { return m.CompletedAt.Sub(m.StartedAt) }

func startBroker(binary, dir string) *broker {
	addr := freeAddr()
	must(os.MkdirAll(dir, 0o700))
	host, port, _ := strings.Cut(addr, ":")
	config := filepath.Join(dir, "nats.conf")
	// How much the streams may take is said where they are created; here it is only not to be in
	// the way.
	conf := fmt.Sprintf("host: %s\nport: %s\njetstream { store_dir: %q, max_file_store: 1TB }\n",
		host, port, filepath.Join(dir, "store"))
	must(os.WriteFile(config, []byte(conf), 0o600))
	b := &broker{proc: start(binary, nil, "-c", config), dir: dir, marks: make(chan mark, 1<<16)}
	b.url = "nats://" + addr
	b.connect()
	return b
}

func (b *broker) connect() {
	b.nc = get(nats.Connect(b.url, nats.RetryOnFailedConnect(true),
		nats.ReconnectWait(20*time.Millisecond)))
	for began := time.Now(); ; {
		_, err := b.nc.Request("$JS.API.INFO", nil, time.Second)
		if err == nil {
			break
		}
		if !b.Running() || time.Since(began) > time.Minute {
			must(fmt.Errorf("connect to the nats-server: %w; %v", err, b))
		}
	}
	b.js = get(jetstream.New(b.nc, jetstream.WithDefaultTimeout(30*time.Second)))
	b.subscribe(schemas.WatermarkSubject(tenantID), func(m *nats.Msg) {
		w := mark{at: time.Now()}
		if json.Unmarshal(m.Data, &w.Watermark) == nil {
			b.marks <- w
		}
	})
}

// subscribe returns once the subscription is in place.
func (b *broker) subscribe(subject string, do nats.MsgHandler) *nats.Subscription {
	sub := get(b.nc.Subscribe(subject, do))
	must(errors.Join(sub.SetPendingLimits(-1, -1), b.nc.Flush()))
	return sub
}

// end ends the server and removes its store.
func (b *broker) end() {
	if b == nil {
		return
	}
	if b.nc != nil {
		b.nc.Close()
	}
	b.Kill()
	_ = os.RemoveAll(b.dir)
}

// drain forgets the watermarks that have arrived so far.
func (b *broker) drain() {
	for len(b.marks) > 0 {
		<-b.marks
	}
}

// await returns the next watermark that is wanted; p must not end meanwhile.
func (b *broker) await(ctx context.Context, p proc, want func(*mark) bool) mark {
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		select {
		case m := <-b.marks:
			if want(&m) {
				return m
			}
		case <-p.Done:
			must(p.died())
		case <-ctx.Done():
			must(ctx.Err())
		case <-timeout.C:
			must(fmt.Errorf("no watermark as it was wanted has come in %v: %v", patience, p))
		}
	}
}
