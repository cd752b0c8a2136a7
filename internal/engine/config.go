package engine

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rollcall-events/rollcall/diff"
	"github.com/rollcall-events/rollcall/internal/setting"
	"github.com/rollcall-events/rollcall/schemas"
)

// Config is what an Engine needs to know.
type Config struct {
	diff.Rules // of change

	Tenant   int64
	Interval time.Duration    // from the start of one sweep to the start of the next
	Logger   *slog.Logger     // nil: discard
	Now      func() time.Time // the clock of the source's pages; nil: time.Now

	// Grace is how long to go on publishing once Run's context has ended. 0: 6s, so that a stop
	// takes less than 10s in all.
	Grace time.Duration

	// GiveUp has Run return [ErrNoAnswers], so that another replica can try, when there was no
	// usable answer for so long, or until the last complete sweep was stale where that is longer.
	// It does so once; and again only after this replica, or another one, has been answered since.
	// 0: never, for where there can be no other replica.
	GiveUp time.Duration

	// Follow is called before each sweep. It has Now follow the machine's clock, and returns by how
	// much that has moved against the time that has passed; Nil: Now needs none.
	Follow func() time.Duration

	// Expect is told how many agents each listing should have at the least, before the first sweep;
	// see [poller.Poller.Expect]. Nil: nobody is.
	Expect func(agents []int)

	// Published is told of each watermark that is in the stream. It must not block. Nil: nobody is.
	Published func(schemas.Watermark)

	// Pace is how far apart the vendor's limits now make requests. It may be called from any
	// goroutine. Nil: not at all.
	Pace func() time.Duration

	// MaxBody is how large an event may be now, in bytes. It is asked when a commit is formed,
	// since a new connection may have another limit. It may be called from any goroutine. Nil:
	// there is no limit.
	MaxBody func() int

	// Metrics gets the engine's collectors, which have no label for the tenant: one engine a
	// registerer. Nil: nobody does.
	Metrics prometheus.Registerer
}

// Validate reports everything that can't be used, as *[setting.Error]s joined.
func (c Config) Validate() error {
	var errs []error
	bad := func(is bool, field string, value any, want string) {
		if is {
			errs = append(errs, &setting.Error{Field: field, Value: fmt.Sprint(value), Want: want})
		}
	}
	bad(c.Interval <= 0, "Interval", c.Interval, "a duration above zero, such as 5s")
	bad(c.RemoveAfter < 1, "RemoveAfter", c.RemoveAfter, "a number of sweeps, at least 1")
	bad(!(c.MaxMissing > 0 && c.MaxMissing <= 1), "MaxMissing", c.MaxMissing,
		"a share above 0, at most 1")
	bad(c.MissingHold < 0, "MissingHold", c.MissingHold, "a duration, such as 15m")
	bad(c.BufferEvents < 1, "BufferEvents", c.BufferEvents, "a number of events, at least 1")
	return errors.Join(errs...)
}
