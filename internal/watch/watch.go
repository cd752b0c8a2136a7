package watch

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/internal/locate"
	"github.com/rollcall-events/rollcall/internal/plain"
	"github.com/rollcall-events/rollcall/schemas"
	"github.com/rollcall-events/rollcall/schemas/follow"
)

// Config says what is watched, and how it is shown.
type Config struct {
	Tenant int64    // 0: the only one in the stream
	Types  []string // tokens of subjects: agents of which types are shown; empty: all
	Server string   // the NATS server's name in messages, without user info

	// NoTable leaves the table of agents out.
	NoTable bool
	// Await waits for the stream, and for Tenant in it; else it is an error where they are missing.
	Await bool

	Out   io.Writer
	Live  bool       // keep a status line at the bottom; for terminals that know ANSI sequences
	Color bool       // the same
	Width func() int // the screen's columns now; 0 or nil: lines are as long as need be

	Zone *time.Location   // of the times shown; nil: the local one
	Now  func() time.Time // nil: time.Now
}

// Run shows the agents of a tenant and their changes until ctx ends or nobody reads Out any more,
// and then returns nil. Where the stream or the tenant is missing at the start it returns an error,
// a [*setting.Error] where the command line is wrong, also where one of Types is a word that is no
// agent's type. Later it reports what is wrong and tries again, until nc is closed.
//
// Where Out is slow, an agent that changes often may skip revisions, never the newest.
func Run(ctx context.Context, nc *nats.Conn, cfg Config) error {
	if cfg.Zone == nil {
		cfg.Zone = time.Local
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return newView(&cfg).run(ctx, func(ctx context.Context, do do) error {
		js, tenant, err := open(ctx, nc, &cfg, do)
		if err != nil {
			return err
		}
		do(func(v *view) { v.greet(tenant) })
		return read(ctx, js, tenant, do)
	})
}

// read follows the agents' states.
func read(ctx context.Context, js jetstream.JetStream, tenant int64, do do) error {
	r := follow.New(tenant)
	return r.Run(ctx, js, func(u follow.Update) {
		do(func(v *view) {
			var bad *follow.MessageError
			switch {
			case errors.As(u.Err, &bad):
				v.bad(bad)
			case u.Err != nil:
				v.lose(reason(js.Conn(), u.Err))
			case u.Anew:
				t := r.Trust(time.Time{})
				v.reload(r.Agents(), t.Watermark, t.Health)
			case u.State != nil:
				v.state(u.State)
			case u.Watermark != nil:
				v.setWatermark(u.Watermark)
			case u.Health != nil:
				v.setHealth(u.Health)
			}
		})
	})
}

// reason says in words why the stream can't be read.
func reason(nc *nats.Conn, err error) string {
	switch {
	case !nc.IsConnected():
		return "no connection to NATS"
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return "the stream " + schemas.Stream + " is gone"
	case errors.Is(err, nats.ErrPermissionViolation):
		return "no permission any more"
	case locate.NoJetStream(err), errors.Is(err, jetstream.ErrNoHeartbeat):
		return "JetStream does not answer"
	case errors.Is(err, jetstream.ErrConsumerDeleted),
		errors.Is(err, jetstream.ErrConsumerNotFound):
		return "the server has forgotten this reader"
	}
	return plain.Cut(locate.OneLine(err), 200)
}
