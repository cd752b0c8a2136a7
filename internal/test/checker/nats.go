package checker

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// streamName is the stream's.
const streamName = "AGENT_EVENTS"

// Read returns all that the stream holds of a tenant, in its order. Nobody should write meanwhile:
// what is rolled up while it reads may be missing, and a commit may be cut off.
func Read(ctx context.Context, nc *nats.Conn, tenant int64) ([]Message, error) {
	return ReadAs(ctx, nc, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{fmt.Sprintf("agent.*.%d", tenant),
			fmt.Sprintf("agent.*.%d.>", tenant)},
	})
}

// ReadAs returns all that a consumer has of the stream by now.
func ReadAs(ctx context.Context, nc *nats.Conn, cfg jetstream.OrderedConsumerConfig) (out []Message,
	err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("checker: read %s: %w", streamName, err)
		}
	}()
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, err
	}
	cons, err := js.OrderedConsumer(ctx, streamName, cfg)
	if err != nil {
		return nil, err
	}
	out = []Message{}
	if cons.CachedInfo().NumPending == 0 {
		return out, nil
	}
	it, err := cons.Messages()
	if err != nil {
		return nil, err
	}
	defer it.Stop()
	for {
		m, err := it.Next(jetstream.NextContext(ctx))
		if err != nil {
			return nil, err
		}
		meta, err := m.Metadata()
		if err != nil {
			return nil, err
		}
		out = append(out, Message{meta.Sequence.Stream, m.Subject(), m.Headers(), m.Data(),
			meta.Timestamp})
		if meta.NumPending == 0 {
			return out, nil
		}
	}
}

// A Recording collects what the stream republishes. Its methods are safe for concurrent use.
type Recording struct {
	sub *nats.Subscription

	mu      sync.Mutex // guards everything below
	msgs    []Message
	left    int // bytes that may still be kept
	dropped int
	foreign int
	changed chan struct{} // closed and replaced with each message
}

// Record keeps everything that the stream republishes from now on, of all tenants, up to about
// maxBytes of subjects, headers and bodies (0: 1 GiB). Start it before rollcall, on a connection of
// its own that nothing slows down. While the connection is away messages are missed: see
// Options.LossyLive.
func Record(nc *nats.Conn, maxBytes int) (*Recording, error) {
	if maxBytes == 0 {
		maxBytes = 1 << 30
	}
	r := &Recording{left: maxBytes, changed: make(chan struct{})}
	sub, err := nc.Subscribe("agent.>", r.add)
	if err == nil {
		err = sub.SetPendingLimits(-1, -1)
	}
	// otherwise the subscription is there when the connection is
	if err == nil && nc.IsConnected() {
		err = nc.Flush()
	}
	if err != nil {
		return nil, fmt.Errorf("checker: record agent.>: %w", err)
	}
	r.sub = sub
	return r, nil
}

func (r *Recording) add(m *nats.Msg) {
	if m.Header.Get("Nats-Stream") == "ROLLCALL_ALARM" &&
		strings.HasPrefix(m.Subject, "agent.stale.") {
		return // the server itself says that nobody polls; no part of the stream
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	seq, err := strconv.ParseUint(m.Header.Get("Nats-Sequence"), 10, 64)
	if err != nil || m.Header.Get("Nats-Stream") != streamName {
		r.foreign++
		return
	}
	at, _ := time.Parse(time.RFC3339Nano, m.Header.Get("Nats-Time-Stamp"))
	size := len(m.Subject) + len(m.Data) + m.Size()
	if r.left -= size; r.left < 0 {
		r.dropped++
	} else {
		r.msgs = append(r.msgs, Message{seq, m.Subject, m.Header, m.Data, at})
	}
	close(r.changed)
	r.changed = make(chan struct{})
}

// Messages are those recorded so far, in the order of their arrival, for Log.Live.
func (r *Recording) Messages() []Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.msgs)
}

// Dropped says how many messages were not kept for want of room, and how many on agent.> the stream
// had not republished.
func (r *Recording) Dropped() (dropped, foreign int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dropped, r.foreign
}

// Wait returns when the message with a sequence has been recorded last, as the messages come after
// the acknowledgement of their commit. It gives up with ctx.
func (r *Recording) Wait(ctx context.Context, seq uint64) error {
	for {
		r.mu.Lock()
		n := len(r.msgs)
		done, changed := n > 0 && r.msgs[n-1].Seq >= seq, r.changed
		r.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("checker: wait for the republished message %d: %w", seq, ctx.Err())
		case <-changed:
		}
	}
}

// Stop ends the recording. What has been recorded stays.
func (r *Recording) Stop() error {
	if err := r.sub.Unsubscribe(); err != nil {
		return fmt.Errorf("checker: end the recording: %w", err)
	}
	return nil
}
