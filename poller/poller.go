// Package poller reads the listings of one tenant page by page, and says how far what it has read
// can be trusted. It knows nothing of the vendor: pages come from a [Source].
//
// A sweep reads every page of every listing once, page 0 first, and hands each page over as soon as
// it has been read. Pages that are missing or do not fit together are asked for again, in a few
// rounds. At the end the verdict says whether the sweep is complete: every page arrived, all pages
// of a listing name the same total, and the distinct agents plus the rejected rows make that
// number. Only a complete sweep says anything about agents that it did not show. What a page shows
// counts in any case.
//
// Pages arrive in no particular order, and a page that was read twice is handed over twice; see
// [listing.Page] for how to order what they show. A request that failed is tried again after
// growing pauses, four times in all, unless its error is fatal.
package poller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rollcall-events/rollcall/internal/listing"
	"github.com/rollcall-events/rollcall/internal/setting"
)

// A Source reads a vendor's listings, one page at a time. Its methods are safe for concurrent use.
// What a vendor's package has to promise is said in docs/internals.md.
type Source interface {
	// Turn waits until a request may be sent, so that it can be decided then which one; Read sends
	// it at once. Its error says why there will be none in ctx's time.
	Turn(ctx context.Context) *listing.Error
	// Read asks for a page, once. Where that can't be had, the error says why.
	Read(ctx context.Context, r listing.Request) (*listing.Page, *listing.Error)
	// PageSize is how many agents a full page has.
	PageSize() int
	// Rate is how many requests a second are allowed at present.
	Rate() float64
}

// Config says what is polled, and how hard. The zero value of a field with a default means that
// default.
type Config struct {
	Types        []string      // business types, one listing each; empty: one listing of all
	SweepTimeout time.Duration // 0: the larger of 60s and three times pages ÷ rate
	Concurrency  int           // pages in flight; default 4

	// GlanceAfter is how long a sweep has to take to have glances beside it, which read the listing
	// of those who are online between its pages; 0: none has. The interval from one sweep to the
	// next is what makes sense.
	GlanceAfter time.Duration

	// Logger gets the rejected records. Nil: they are not logged.
	Logger *slog.Logger

	// Metrics is where the collectors are registered. They have no labels to tell pollers apart:
	// one poller a registerer. Nil: nowhere.
	Metrics prometheus.Registerer

	// Now stamps verdicts; it must not jump during a sweep. Timeouts always go by the monotonic
	// clock. Nil: time.Now.
	Now func() time.Time
}

// Validate reports everything that is unusable, as a join of [*setting.Error]s.
func (c Config) Validate() error {
	var errs []error
	if c.SweepTimeout < 0 {
		errs = append(errs, &setting.Error{Field: "SweepTimeout", Value: c.SweepTimeout.String(),
			Want: "a duration above zero, or 0 to derive it from the listing's size"})
	}
	if c.GlanceAfter < 0 {
		errs = append(errs, &setting.Error{Field: "GlanceAfter", Value: c.GlanceAfter.String(),
			Want: "a duration, or 0 for no glances"})
	}
	if c.Concurrency < 0 {
		errs = append(errs, &setting.Error{Field: "Concurrency", Value: fmt.Sprint(c.Concurrency),
			Want: "a number above zero"})
	}
	return errors.Join(errs...)
}

// Poller reads one tenant.
type Poller struct {
	cfg     Config
	source  Source
	metrics *metrics

	rejected map[rejection]bool // what the last sweep rejected
	glances  *glances           // nil: none
	totals   []int              // agents of each listing in the last complete sweep
	expected []int              // what Expect said since then
}

// New returns a Poller that reads from source. Its error is that of [Config.Validate].
func New(c Config, source Source) (*Poller, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c.Concurrency = cmp.Or(c.Concurrency, 4)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	p := &Poller{cfg: c, source: source, metrics: newMetrics(c.Metrics)}
	if c.GlanceAfter > 0 {
		p.glances = newGlances(c.GlanceAfter, source, max(1, len(c.Types)),
			filterTrust{log: c.Logger})
	}
	return p, nil
}

// Expect says how many agents each listing had, at the least, when somebody else looked last: a
// listing that is shorter may be cut off. It holds until a sweep is complete, and must not be
// called during one.
func (p *Poller) Expect(agents []int) { p.expected = agents }
