package presence

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/internal/locate"
	"github.com/rollcall-events/rollcall/internal/setting"
	"github.com/rollcall-events/rollcall/schemas"
	"github.com/rollcall-events/rollcall/schemas/history"
)

// Config says what is read, and how it is shown.
type Config struct {
	Tenant int64          // 0: the only one in the stream
	Stream string         // an archive's name; empty: AGENT_EVENTS
	Server string         // the NATS server's name in messages, without user info
	Zone   *time.Location // of the times shown, and of days and hours
	Format Format

	Out io.Writer
	// Progress is called while messages are read: how many have been read, and how many there are,
	// as far as is known; nil: nobody wants to know.
	Progress func(done, all uint64)

	Now func() time.Time // nil: time.Now
}

// A Format is what is written.
type Format int

// The formats.
const (
	Text Format = iota
	JSON
	CSV
)

// An UntrustedError says why an answer, which has been written, can't be trusted.
type UntrustedError struct{ Err error }

func (e *UntrustedError) Error() string { return "not to be trusted: " + e.Err.Error() }

func (e *UntrustedError) Unwrap() error { return e.Err }

func (cfg *Config) now() time.Time {
	if cfg.Now == nil {
		return time.Now()
	}
	return cfg.Now()
}

// A source is a tenant's part of the stream, or of an archive.
type source struct {
	*Config
	js     jetstream.JetStream
	tenant int64
	opts   []history.Option
}

// open finds the stream, or the archive, and the tenant in it.
func open(ctx context.Context, nc *nats.Conn, cfg *Config) (*source, error) {
	s := &source{Config: cfg}
	home, tenants, err := locate.Tenants(ctx, nc)
	s.js = home
	switch {
	case cfg.Stream == "" || cfg.Stream == schemas.Stream:
		if err == nil && len(tenants) == 0 {
			err = errors.New("there is nothing in the stream " + schemas.Stream + " at " +
				cfg.Server + " yet: rollcall has not begun")
		} else if err != nil {
			err = locate.Explain(err, cfg.Server)
		}
	default:
		if err != nil {
			home = nil
		}
		s.js, tenants, err = locate.Archive(ctx, nc, cfg.Stream)
		if err != nil {
			return nil, err
		}
		s.opts = append(s.opts, history.FromStream(cfg.Stream), history.StatesFrom(home))
		if len(tenants) == 0 && cfg.Tenant == 0 {
			return nil, &setting.Error{Field: "--tenant", Want: "a tenant: the stream " +
				cfg.Stream + " has no watermark that names one"}
		}
		if len(tenants) == 0 {
			tenants = []int64{cfg.Tenant}
		}
	}
	if err != nil {
		return nil, err
	}
	s.tenant, err = locate.Choose(cfg.Tenant, tenants)
	s.opts = append(s.opts, history.AsOf(cfg.now()))
	if cfg.Progress != nil {
		s.opts = append(s.opts, history.Progress(cfg.Progress))
	}
	return s, err
}

// stamp is a time in the zone, to the second, with its offset.
func (cfg *Config) stamp(t time.Time) string { return t.In(cfg.Zone).Format(time.RFC3339) }

// zone is the zone's name, for people.
func (cfg *Config) zone(t time.Time) string {
	if cfg.Zone != time.Local {
		return cfg.Zone.String()
	}
	name, _ := t.In(time.Local).Zone()
	return name
}

// utc is a time as events have it; nil: it is not known.
func utc(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	s := t.UTC().Format("2006-01-02T15:04:05.000Z")
	return &s
}

// An unobserved interval as JSON.
type unobserved struct {
	From   *string  `json:"from"`
	To     *string  `json:"to,omitempty"`
	Types  []string `json:"types,omitempty"`
	Health string   `json:"health,omitempty"`
}

func unobservedJSON(all []*history.Unobserved) []unobserved {
	list := []unobserved{}
	for _, u := range all {
		list = append(list, unobserved{utc(u.From), utc(u.To), u.Types, string(u.Health)})
	}
	return list
}

// about leaves out intervals that are not about agents of the types; none: all are meant.
func about(all []*history.Unobserved, types []string) []*history.Unobserved {
	if len(types) == 0 {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), func(u *history.Unobserved) bool {
		return len(u.Types) > 0 &&
			!slices.ContainsFunc(u.Types, func(t string) bool { return slices.Contains(types, t) })
	})
}

// A writer writes one JSON object, whose last member is a list that is written as it comes.
type writer struct {
	w     io.Writer
	items int
	err   error
}

// list writes the members of head, which is a struct, and begins a list.
func (w *writer) list(head any, name string) {
	b, err := json.Marshal(head)
	w.fail(err)
	w.text(string(b[:len(b)-1]))
	if len(b) > len("{}") {
		w.text(",")
	}
	w.text("\n\"" + name + "\":[")
}

func (w *writer) item(v any) {
	b, ok := v.([]byte)
	if !ok {
		var err error
		b, err = json.Marshal(v)
		w.fail(err)
	}
	if w.items++; w.items > 1 {
		w.text(",")
	}
	w.text("\n" + string(b))
}

// end ends the list and the object, with the members of tail, unless that is nil.
func (w *writer) end(tail any) error {
	w.text("]")
	if tail != nil {
		b, err := json.Marshal(tail)
		w.fail(err)
		w.text(",\n" + string(b[1:]))
	} else {
		w.text("}")
	}
	w.text("\n")
	return w.err
}

func (w *writer) text(s string) {
	if w.err == nil {
		_, w.err = io.WriteString(w.w, s)
	}
}

func (w *writer) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}
