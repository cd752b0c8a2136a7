package watch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/schemas"
)

// A message is one of the log's, as it is stored.
type message struct {
	subject string
	seq     uint64
	data    []byte
	pending uint64 // how many were to come after it when it was sent
}

// errLost says that the connection was lost. What came meanwhile has to be asked for.
var errLost = errors.New("no connection to NATS")

// Heartbeats tell within about twice this time that a consumer has died with the server that had
// it.
const heartbeat = 5 * time.Second

// read calls each for the messages of a consumer, in the order of the log; if there are none at
// first, once with nil. It returns nil when each returns false, and an error when it can't be sure
// to have seen all.
//
// The client's own ordered consumer would go on by itself from the sequence after the last one,
// also in a log that went backwards.
func read(ctx context.Context, js jetstream.JetStream, cfg jetstream.ConsumerConfig, each func(*message) bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	nc := js.Conn()
	lost := nc.StatusChanged(nats.RECONNECTING, nats.DISCONNECTED, nats.CLOSED)
	defer nc.RemoveStatusListener(lost)
	go func() {
		select {
		case <-lost:
			cancel(errLost)
		case <-ctx.Done():
		}
	}()

	cfg.AckPolicy, cfg.MemoryStorage, cfg.Replicas, cfg.InactiveThreshold = jetstream.AckNonePolicy, true, 1, time.Minute
	consumer, err := js.CreateConsumer(ctx, schemas.Stream, cfg)
	if err != nil {
		return because(ctx, "create a consumer", err)
	}
	if consumer.CachedInfo().NumPending == 0 && !each(nil) {
		return nil
	}
	messages, err := consumer.Messages(jetstream.PullHeartbeat(heartbeat))
	if err != nil {
		return because(ctx, "consume", err)
	}
	defer messages.Stop()
	for expected := uint64(1); ; expected++ {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return because(ctx, "wait for the next message", err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return fmt.Errorf("read a message's metadata: %w", err)
		}
		if meta.Sequence.Consumer != expected {
			return fmt.Errorf("message %d of the consumer came where %d was due", meta.Sequence.Consumer, expected)
		}
		if !each(&message{m.Subject(), meta.Sequence.Stream, m.Data(), meta.NumPending}) {
			return nil
		}
	}
}

// because says what was being done, and why it was ended where that was done on purpose.
func because(ctx context.Context, doing string, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return fmt.Errorf("%s: %w", doing, err)
}
