package watch

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/internal/locate"
	"github.com/rollcall-events/rollcall/internal/plain"
)

// waitInterval is how long to wait for a stream or a tenant between two attempts.
const waitInterval = time.Second

// open finds the stream and the tenant in it, and waits where the tenant is not there yet.
func open(ctx context.Context, nc *nats.Conn, cfg *Config, do do) (
	js jetstream.JetStream, tenant int64, err error,
) {
	waiting := "for rollcall to begin: its stream at " + plain.Clean(cfg.Server) + " is empty"
	opened := cfg.Await // from then on, errors are reported and tried again
	for {
		var tenants []int64
		js, tenants, err = locate.Tenants(ctx, nc)
		switch {
		case ctx.Err() != nil:
			return nil, 0, ctx.Err()
		case cfg.Await && errors.Is(err, jetstream.ErrStreamNotFound):
		case cfg.Await && err == nil && !slices.Contains(tenants, cfg.Tenant):
		case err != nil && !opened:
			return nil, 0, locate.Explain(err, cfg.Server)
		case err != nil:
			do(func(v *view) { v.lose(reason(nc, err)) })
		case len(tenants) > 0:
			tenant, err = locate.Choose(cfg.Tenant, tenants)
			return js, tenant, err
		default:
			do((*view).back)
		}
		opened = opened || err == nil
		do(func(v *view) { v.wait(waiting) })
		select {
		case <-time.After(waitInterval):
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
	}
}
