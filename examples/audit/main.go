// Audit writes every event of a tenant into a file, a line each, once and in order, whatever is
// killed and when. With go run ./cmd/rollcall demo in one terminal:
//
//	go run ./examples/audit
//
// and in another: tail -f audit.jsonl. It shows how to have an effect once for each event:
//
//   - A durable consumer remembers how far it has come. An event is acknowledged when its effect is
//     on the disk, never before, so an event whose effect was lost comes again.
//   - An event that comes again although its effect is there is known by its revision.
//   - No event is delivered before the one before it is acknowledged (MaxAckPending 1), so the
//     order survives a crash. Where an effect takes too long for that, several events could have
//     theirs at once, with one acknowledgement that counts for all before it.
//   - Revisions have no gaps. Where the file has one, events expired while nobody read, or the
//     broker lost them: the next line says how many are missing.
//   - A revision that is not above the last one, but with a later time, belongs to a new stream,
//     made after the old one was lost.
//
// To sign in: a user and a password in the URL, -creds, -nkey, -tlsca, -tlscert and -tlskey, or
// -context with a context of the nats command line. -js-domain rollcall is for an account that has
// JetStream of its own.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/examples/signin"
	"github.com/rollcall-events/rollcall/schemas"
)

// ackWait is how long an event that went to a process that died is kept from the next one. An
// effect that takes longer does no harm: the event comes again and is known.
const ackWait = 2 * time.Second

func main() {
	signIn := signin.Add(flag.CommandLine)
	tenant := flag.Int64("tenant", 886, "whose events")
	durable := flag.String("durable", "audit", "the durable consumer's name: one for each file")
	file := flag.String("file", "audit.jsonl", "the file to append to")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, signIn, *tenant, *durable, *file); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, signIn *signin.Flags, tenant int64, durable, file string) error {
	h, err := openHistory(file)
	if err != nil {
		return err
	}
	defer h.close()
	nc, js, err := signIn.Connect("audit example")
	if err != nil {
		return err
	}
	defer nc.Close()
	config := jetstream.ConsumerConfig{
		Durable:        durable,
		FilterSubjects: schemas.EventFilters(tenant),
		DeliverPolicy:  jetstream.DeliverAllPolicy,
		AckPolicy:      jetstream.AckExplicitPolicy,
		AckWait:        ackWait,
		MaxAckPending:  1,
	}
	wait := backoff.NewExponentialBackOff(backoff.WithInitialInterval(250*time.Millisecond),
		backoff.WithMaxInterval(2*time.Second), backoff.WithMaxElapsedTime(0))
	err = backoff.Retry(func() error {
		err := consume(ctx, js, config, h, wait.Reset)
		if ended := signin.Ended(nc); ended != nil && ctx.Err() == nil {
			return backoff.Permanent(ended)
		}
		if ctx.Err() == nil && !errors.As(err, new(*backoff.PermanentError)) {
			log.Print(err)
		}
		return err
	}, backoff.WithContext(wait, ctx))
	if errors.Is(err, context.Canceled) {
		return nil // asked to end, between two events
	}
	return err
}

// consume appends events until something goes wrong. It calls progress after each. An error of the
// file is permanent: somebody has to make room.
func consume(
	ctx context.Context, js jetstream.JetStream, config jetstream.ConsumerConfig, h *history,
	progress func(),
) error {
	consumer, err := js.CreateOrUpdateConsumer(ctx, schemas.Stream, config)
	if err != nil {
		return fmt.Errorf("prepare the consumer %s of the stream %s: %w",
			config.Durable, schemas.Stream, err)
	}
	messages, err := consumer.Messages(jetstream.PullHeartbeat(5 * time.Second))
	if err != nil {
		return fmt.Errorf("consume: %w", err)
	}
	defer messages.Stop()
	for {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return fmt.Errorf("wait for the next event: %w", err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return fmt.Errorf("read an event's metadata: %w", err)
		}
		if err := h.add(meta.Sequence.Stream, m.Data()); err != nil {
			return backoff.Permanent(err)
		}
		if err := m.Ack(); err != nil {
			return fmt.Errorf("acknowledge an event: %w", err) // it comes again, and is known
		}
		progress()
	}
}
