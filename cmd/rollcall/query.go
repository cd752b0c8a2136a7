package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/internal/natsd"
	"github.com/rollcall-events/rollcall/internal/natsdial"
	"github.com/rollcall-events/rollcall/internal/query"
	"github.com/rollcall-events/rollcall/publisher"
)

// lastAnswers is how long answers that are under way at the end may take.
const lastAnswers = time.Second

// questions is what knows the answers to questions about a tenant.
func (d *daemon) questions(nc *nats.Conn, js jetstream.JetStream, tenant int64) *query.Service {
	version, _ := build()
	return query.New(query.Config{
		Tenant: tenant, JetStream: js, Consumer: natsd.ReservedConsumer,
		Instance: d.settings.Instance, Version: version, Logger: d.log,
		Polled: func(ctx context.Context, tenant int64) (bool, error) {
			cfg := d.settings.publisher(tenant, d.log)
			_, seq, err := publisher.NewReader(nc, cfg).Lease(ctx)
			return seq != 0, err
		},
	})
}

// answer has questions in NATS answered until ctx ends, over a connection of their own: however
// many they are, and however slowly their answers are taken, no commit waits for them.
func (d *daemon) answer(ctx context.Context, b *broker, questions *query.Service) {
	var seen, others repeated
	opts := append(lasting(d.settings),
		nats.DrainTimeout(lastAnswers),
		// That NATS is away, and what comes of it, is logged for the other connection.
		nats.DisconnectErrHandler(func(*nats.Conn, error) {}),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			if sub != nil {
				err = fmt.Errorf("subscription to %s: %w", sub.Subject, err)
			}
			report, lack := err.Error(), errors.Is(err, nats.ErrPermissionViolation)
			if lack {
				report = "permissions" // a dozen at once, of one kind
			}
			switch n, worth := others.worth(report); {
			case !worth:
			case lack:
				d.log.Warn("questions in NATS can't be answered, or not all: this user lacks a "+
					"right; give it, as deploy/nats/accounts.conf does, or set ROLLCALL_QUERY=off",
					"err", err, "leftOut", n)
			default:
				d.log.Warn("NATS reports an error", "err", err, "leftOut", n)
			}
		}))
	for ctx.Err() == nil {
		var nc *nats.Conn
		err := retry(ctx, func() (err error) {
			nc, err = b.connect(ctx, opts...)
			return err
		}, func(err error) {
			err = natsdial.Advise(err)
			if n, ok := seen.worth(err.Error()); ok {
				d.log.Warn("no connection to answer questions in NATS with yet; trying again",
					"err", err, "leftOut", n)
			}
		})
		if err != nil {
			return
		}
		closed := nc.StatusChanged(nats.CLOSED)
		err = questions.Answer(nc)
		switch {
		case errors.Is(err, nats.ErrConnectionClosed):
		case err != nil:
			d.log.Error("questions in NATS are not answered; polling and publishing go on",
				"err", err)
			<-ctx.Done()
		default:
			select {
			case <-closed: // for good: the next one is another connection
			case <-ctx.Done():
				if nc.Drain() == nil {
					<-closed
				}
			}
		}
		nc.Close()
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}
