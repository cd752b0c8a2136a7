package publisher

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rollcall-events/rollcall/internal/setting"
)

// Config is what a Publisher needs to know.
type Config struct {
	Tenant       int64         // whose part of the stream this is
	Instance     string        // this replica's name, as watermarks carry it
	Replicas     int           // of the stream and the bucket, where they are created: 1 to 5
	Manage       bool          // create stream and bucket where they are missing; else only check
	EventsMaxAge time.Duration // how long the stream keeps events: whole seconds, at least 1s
	MaxBytes     int64         // the stream's size limit where it is created, in bytes
	LeaseTTL     time.Duration // how long a dead replica keeps its lease: whole seconds, from 2s
	Logger       *slog.Logger  // nil: discard

	// Exclusive says that no other replica can be there, so a lease that is found is an earlier
	// process's and is taken over at once.
	Exclusive bool

	// Metrics gets the publisher's collectors, which have no label for the tenant: one publisher a
	// registerer. Nil: nobody does.
	Metrics prometheus.Registerer
}

// Validate reports everything that can't be used, as *[setting.Error]s joined.
func (c Config) Validate() error {
	var errs []error
	bad := func(is bool, field, value, want string) {
		if is {
			errs = append(errs, &setting.Error{Field: field, Value: value, Want: want})
		}
	}
	odd := func(r rune) bool { return !unicode.IsGraphic(r) || unicode.IsSpace(r) }
	bad(c.Instance == "" || utf8.RuneCountInString(c.Instance) > 128 ||
		!utf8.ValidString(c.Instance) || strings.ContainsFunc(c.Instance, odd),
		"Instance", c.Instance,
		"a name for this replica, at most 128 printable characters without spaces")
	bad(c.Replicas < 1 || c.Replicas > 5, "Replicas", fmt.Sprint(c.Replicas), "1 to 5")
	bad(c.EventsMaxAge < time.Second || c.EventsMaxAge%time.Second != 0,
		"EventsMaxAge", c.EventsMaxAge.String(), "whole seconds, at least 1s")
	bad(c.LeaseTTL < 2*time.Second || c.LeaseTTL%time.Second != 0,
		"LeaseTTL", c.LeaseTTL.String(), "whole seconds, at least 2s")
	bad(c.MaxBytes < 1<<20, "MaxBytes", fmt.Sprint(c.MaxBytes), "at least 1MiB")
	return errors.Join(errs...)
}
