package publisher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/schemas"
)

// Status is what a look at the broker showed. It changes nothing there, and says nothing about
// whether commits succeed.
type Status struct {
	Stream error // why the server or the stream is not what rollcall needs, or can't be asked; nil: they fit
	Lease  error // why the bucket or the lease in it is not; nil: this replica leads, or could
	// Creatable says that Stream and Lease are nil although the stream or the bucket is missing:
	// Config.Manage lets rollcall create it.
	Creatable bool

	Leader    string             // who holds the lease; empty: nobody, or not known
	Watermark *schemas.Watermark // nil: there is none that can be read
	Health    *schemas.Health    // nil: there is none that can be read
}

// Look asks the broker how things are, before there is a [Publisher]. Without a tenant (0) it
// leaves out what only a tenant has. It takes as long as ctx lets it.
func Look(ctx context.Context, nc *nats.Conn, cfg Config) Status {
	js, err := jetstream.New(nc)
	if err != nil {
		err = fmt.Errorf("publisher: %w", err)
		return Status{Stream: err, Lease: err}
	}
	p := &Publisher{nc: nc, js: js, cfg: cfg, log: slog.New(slog.DiscardHandler)}
	return p.Status(ctx)
}

// Leading reports whether this replica leads. It may be called at any time, from any goroutine.
func (p *Publisher) Leading() bool { return p.leading.Load() }

// Status asks the broker how things are. Unlike the other methods it may be called at any time,
// from any goroutine.
func (p *Publisher) Status(ctx context.Context) Status {
	var s Status
	var missing bool
	if s.Stream = p.lookAtStream(ctx, &missing); s.Stream == nil && !missing && p.cfg.Tenant != 0 {
		s.Watermark, s.Health = p.lookAtTenant(ctx)
	}
	s.Leader, s.Lease = p.lookAtLease(ctx, &missing)
	s.Creatable = missing
	return s
}

func (p *Publisher) lookAtStream(ctx context.Context, missing *bool) error {
	if err := p.checkServer(); err != nil {
		return err
	}
	s, err := p.js.Stream(ctx, schemas.Stream)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound) && p.cfg.Manage:
		*missing = true
		return nil
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return noStream()
	case err != nil:
		return explain(fmt.Errorf("open stream %s: %w", schemas.Stream, err))
	}
	return unfit(s.CachedInfo().Config)
}

// lookAtTenant reads what a commit ends with. Where that can't be read, the log has to be asked to
// know why.
func (p *Publisher) lookAtTenant(ctx context.Context) (*schemas.Watermark, *schemas.Health) {
	var watermark *schemas.Watermark
	if at, w, err := p.watermark(ctx); err == nil && at.seq > 0 && w.Commit.ID != "" {
		watermark = &w
	}
	m, err := p.leaderGet(ctx, schemas.Stream, map[string]string{"last_by_subj": schemas.HealthSubject(p.cfg.Tenant)})
	var h schemas.Health
	if err != nil || json.Unmarshal(m.Data, &h) != nil {
		return watermark, nil
	}
	return watermark, &h
}

func (p *Publisher) lookAtLease(ctx context.Context, missing *bool) (leader string, err error) {
	kv, err := p.js.KeyValue(ctx, schemas.Bucket)
	switch {
	case errors.Is(err, jetstream.ErrBucketNotFound) && p.cfg.Manage:
		*missing = true
		return "", nil
	case errors.Is(err, jetstream.ErrBucketNotFound):
		return "", noBucket()
	case err != nil:
		return "", explain(fmt.Errorf("open bucket %s: %w", schemas.Bucket, err))
	}
	if err := fitBucket(ctx, kv); err != nil || p.cfg.Tenant == 0 {
		return "", err
	}
	l := &lease{p: p, key: schemas.LeaseKey(p.cfg.Tenant)}
	h, _, err := l.look(ctx)
	return h.Instance, err
}

func noStream() error {
	return &SetupError{fmt.Errorf("stream %s does not exist: create it, or let rollcall do so (ROLLCALL_NATS_MANAGE=true)", schemas.Stream)}
}

func noBucket() error {
	return &SetupError{fmt.Errorf("bucket %s does not exist: create it, or let rollcall do so (ROLLCALL_NATS_MANAGE=true)", schemas.Bucket)}
}

// unfit says what keeps rollcall from using an existing stream as the log; nil: nothing.
func unfit(c jetstream.StreamConfig) error {
	bad := misfits(c)
	if len(bad) == 0 {
		return nil
	}
	return &SetupError{fmt.Errorf("stream %s exists but does not fit, and rollcall never alters it: %s; mend it, or remove it if it isn't rollcall's",
		schemas.Stream, strings.Join(bad, "; "))}
}

// fitBucket says what keeps rollcall from keeping leases in an existing bucket; nil: nothing.
func fitBucket(ctx context.Context, kv jetstream.KeyValue) error {
	status, err := kv.Status(ctx)
	if err != nil {
		return explain(fmt.Errorf("read the status of bucket %s: %w", schemas.Bucket, err))
	}
	if status.LimitMarkerTTL() <= 0 {
		return &SetupError{fmt.Errorf("bucket %s exists but does not fit, and rollcall never alters it: it has no limit marker TTL, so leases could not expire; "+
			"mend it, or remove it if it isn't rollcall's", schemas.Bucket)}
	}
	return nil
}
