// Package pull reads messages of a stream with a consumer that lives as long as one reading:
// nothing is acknowledged or remembered, and what can't be read completely is an error.
//
// The client's own ordered consumer would go on from the sequence after the last one that it has
// seen. That is a long wait in a stream that went backwards, so here every interruption ends the
// reading.
package pull

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/schemas"
)

var (
	// ErrInterrupted ends a reading whose connection was lost: nobody knows what was missed.
	ErrInterrupted = errors.New("the connection to NATS was lost")
	// ErrStalled ends a reading that stands still although there are messages to come.
	ErrStalled = errors.New("the server stopped sending messages")

	// ErrDone ends a reading that has all it wants, when each returns it.
	ErrDone = errors.New("done")
)

// Heartbeat is half of how long it takes to notice that a consumer has died with the server that
// had it. Tests shorten it.
var Heartbeat = 5 * time.Second

// A Reading says what is read.
type Reading struct {
	Stream   string
	Consumer jetstream.ConsumerConfig // its filter, and where it begins
	// Stall is how long the next message may take where there are some.
	Stall time.Duration
	// Idle is how long the server keeps the consumer when nobody asks it any more; 0: a minute. A
	// server has room for a number of them, and readers may not delete them.
	Idle time.Duration
}

// Each calls each for every message of the reading, in the order of the stream, with its metadata.
// Where there are none at first it calls each once, with nil and empty metadata. It returns nil
// when each has returned [ErrDone], and else never without an error, each's own included.
func (r Reading) Each(
	ctx context.Context,
	js jetstream.JetStream,
	each func(m jetstream.Msg, meta *jetstream.MsgMetadata) error,
) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	nc := js.Conn()
	lost := nc.StatusChanged(nats.RECONNECTING, nats.DISCONNECTED, nats.CLOSED)
	defer nc.RemoveStatusListener(lost)
	go func() {
		select {
		case <-lost:
			cancel(ErrInterrupted)
		case <-ctx.Done():
		}
	}()

	cfg := r.Consumer
	cfg.AckPolicy = jetstream.AckNonePolicy
	cfg.MemoryStorage, cfg.Replicas = true, 1
	cfg.InactiveThreshold = cmp.Or(r.Idle, time.Minute)
	consumer, err := js.CreateConsumer(ctx, r.Stream, cfg)
	if err != nil {
		return explain(ctx, "create a consumer", err)
	}
	pending := consumer.CachedInfo().NumPending
	if pending == 0 {
		if err := each(nil, &jetstream.MsgMetadata{}); err != nil {
			return undone(err)
		}
	}
	messages, err := consumer.Messages(jetstream.PullHeartbeat(Heartbeat))
	if err != nil {
		return explain(ctx, "consume", err)
	}
	defer messages.Stop()
	for expected := uint64(1); ; expected++ {
		m, err := r.next(ctx, messages, pending > 0)
		if err != nil {
			return explain(ctx, "wait for the next message", err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return fmt.Errorf("read a message's metadata: %w", err)
		}
		if meta.Sequence.Consumer != expected {
			return fmt.Errorf(
				"message %d of the consumer came where %d was due",
				meta.Sequence.Consumer,
				expected,
			)
		}
		pending = meta.NumPending
		if err := each(m, meta); err != nil {
			return undone(err)
		}
	}
}

// Tenants returns the tenants that have a watermark in the stream, in ascending order.
func Tenants(
	ctx context.Context, js jetstream.JetStream, stream string, stall time.Duration,
) ([]int64, error) {
	var tenants []int64
	marks := Reading{Stream: stream, Stall: stall, Idle: 5 * time.Second,
		Consumer: jetstream.ConsumerConfig{
			DeliverPolicy:  jetstream.DeliverLastPerSubjectPolicy,
			FilterSubjects: []string{schemas.WatermarkFilter}, HeadersOnly: true}}
	err := marks.Each(ctx, js, func(m jetstream.Msg, meta *jetstream.MsgMetadata) error {
		if m != nil {
			if s, err := schemas.ParseSubject(m.Subject()); err == nil {
				tenants = append(tenants, s.Tenant)
			}
		}
		if meta.NumPending == 0 {
			return ErrDone
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the tenants in the stream %s: %w", stream, err)
	}
	slices.Sort(tenants)
	return slices.Compact(tenants), nil
}

func undone(err error) error {
	if errors.Is(err, ErrDone) {
		return nil
	}
	return err
}

// next waits for a message: for ever, or where there are some, until that has taken too long.
func (r Reading) next(
	ctx context.Context,
	messages jetstream.MessagesContext,
	more bool,
) (jetstream.Msg, error) {
	if more {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, r.Stall, ErrStalled)
		defer cancel()
	}
	m, err := messages.Next(jetstream.NextContext(ctx))
	if err != nil && context.Cause(ctx) != nil {
		err = context.Cause(ctx)
	}
	return m, err
}

// explain says what was being done, and why it was ended where that was done on purpose.
func explain(ctx context.Context, doing string, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return fmt.Errorf("%s: %w", doing, err)
}
