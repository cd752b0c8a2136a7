// Package engine is the loop between the vendor and the stream: one goroutine a tenant that
// observes pages as they are read, publishes what changed, and moves the watermark when a complete
// sweep has been published.
//
// Sweeps and commits run beside that goroutine, one of each at a time. What is observed while a
// commit is under way goes into the next one, so a burst makes few commits and a single change
// waits for nothing. A change counts as published only when its commit is in the stream.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/rollcall-events/rollcall/diff"
	"github.com/rollcall-events/rollcall/internal/listing"
	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/publisher"
	"github.com/rollcall-events/rollcall/schemas"
)

// Source is where the listing comes from; see [poller.Poller] for what its methods promise.
type Source interface {
	Sweep(ctx context.Context, emit func(*listing.Page)) listing.Verdict
}

// Stream is where the events go; see [publisher.Publisher] for what its methods promise.
type Stream interface {
	TakeOver(ctx context.Context, state func(*packed.State),
		first func(*publisher.Recovered) (w schemas.Watermark, lapsed bool),
	) (*publisher.Recovered, error)
	Commit(ctx context.Context, b publisher.Batch) error
	Late() bool
}

// Engine runs one tenant. Make it with [New].
type Engine struct {
	cfg     Config
	source  Source
	stream  Stream
	logger  *slog.Logger
	now     func() time.Time
	metrics *metrics
	gaveUp  gaveUp         // kept from one Run to the next
	stepLog rate.Sometimes // for a clock that jumps all the time
	foldLog rate.Sometimes // for a buffer that stays full
	mu      sync.Mutex
	status  Status // guarded by mu
}

// New returns an engine that reads from source and writes to stream.
func New(cfg Config, source Source, stream Stream) *Engine {
	e := &Engine{
		cfg: cfg, source: source, stream: stream, logger: cfg.Logger, now: cfg.Now,
		metrics: newMetrics(cfg.Metrics),
		stepLog: rate.Sometimes{First: 3, Interval: time.Minute},
		foldLog: rate.Sometimes{First: 1, Interval: time.Minute},
	}
	if e.logger == nil {
		e.logger = slog.New(slog.DiscardHandler)
	}
	if e.now == nil {
		e.now = time.Now
	}
	if e.cfg.Grace == 0 {
		e.cfg.Grace = 6 * time.Second
	}
	return e
}

// UnpublishedError says that Run had to end before everything that was seen could be published.
type UnpublishedError struct{ Changes int }

func (e *UnpublishedError) Error() string {
	return fmt.Sprintf("%d changes that were seen are not known to be published; "+
		"the next start publishes every difference that still stands", e.Changes)
}

// A loop is what Run's goroutine owns.
type loop struct {
	*Engine
	roster  *diff.Roster
	health  *health
	sweep   sweepState
	commit  commitState
	silence silence
	folded  uint64 // how many folded changes the metrics have counted
}

// Run takes over the stream and polls until ctx ends. Then it publishes what was seen, for the
// grace period at most, and returns nil or an *[UnpublishedError]. It returns
// [publisher.ErrLeaseLost] at once when another replica leads, also where that is the cause of
// ctx's end, and [ErrNoAnswers] where Config.GiveUp asks for it. Any other error is one that the
// stream's set-up has to be mended for. Run may be called again.
func (e *Engine) Run(ctx context.Context) error {
	// Commits outlive ctx by the grace period.
	work, abandon := context.WithCancel(context.WithoutCancel(ctx))
	defer abandon()

	e.followClock() // it has not been looked at since this replica led last
	first, err := e.takeOver(ctx, 0)
	if err != nil {
		if ctx.Err() != nil && !leaseLost(ctx) {
			return nil // nothing was seen yet
		}
		return err
	}
	l := &loop{
		Engine:  e,
		roster:  diff.NewRoster(e.cfg.Rules),
		health:  newHealth(e.cfg.Tenant, e.cfg.Interval, e.now()),
		sweep:   sweepState{steps: make(chan sweepStep, 4), next: time.NewTimer(0)},
		silence: silence{answered: e.now()},
		commit: commitState{
			ctx: work, done: make(chan func() error, 1), maxChanges: publisher.MaxChanges,
		},
	}
	defer l.standBack()
	l.load(first)
	l.gaveUp.leadAgain(l.roster.Watermark().Sweep)
	err = l.run(ctx, abandon)
	if !errors.Is(err, publisher.ErrLeaseLost) {
		return err
	}
	e.logger.Warn("another replica leads: standing back; the leader publishes what still stands",
		"tenant", e.cfg.Tenant, "dropped", l.roster.Pending(), "err", err)
	if ctx.Err() != nil && !leaseLost(ctx) { // it was to end anyway, and did not get to publish all
		return l.unpublished()
	}
	return err
}

// leaseLost reports whether ctx ended because another replica leads.
func leaseLost(ctx context.Context) bool {
	return errors.Is(context.Cause(ctx), publisher.ErrLeaseLost)
}

// unpublished is Run's error where it ends with what is pending now.
func (l *loop) unpublished() error {
	if n := l.roster.Pending(); n > 0 {
		return &UnpublishedError{n}
	}
	return nil
}

// run is the loop. abandon ends the context of commits.
func (l *loop) run(ctx context.Context, abandon context.CancelFunc) error {
	polling, stopPolling := context.WithCancel(ctx)
	defer func() { // leave nothing running behind
		stopPolling()
		for l.sweep.running {
			l.sweep.running = (<-l.sweep.steps).verdict == nil
		}
		if abandon(); l.commit.running {
			<-l.commit.done
		}
	}()
	defer l.sweep.next.Stop()
	wake := time.NewTimer(time.Hour)
	defer wake.Stop()
	ended := ctx.Done()
	var grace <-chan time.Time

	for {
		l.noticePause()
		l.takeSteps()
		l.startCommit()
		l.show()
		if ctx.Err() != nil && !l.commit.running && !l.sweep.running {
			return nil
		}
		if ctx.Err() == nil && l.silentTooLong() {
			l.gaveUp = gaveUp{at: time.Now(), sweep: l.roster.Watermark().Sweep}
			return ErrNoAnswers
		}
		wake.Reset(l.wakeAt().Sub(l.now()))

		select {
		case s := <-l.sweep.steps:
			l.step(s)
		case apply := <-l.commit.done:
			l.commit.running = false
			if err := apply(); err != nil {
				return err
			}
		case <-l.sweep.next.C:
			if ctx.Err() == nil {
				l.startSweep(polling)
			}
		case <-wake.C:
			l.health.overdue(l.now())
		case <-ended:
			if leaseLost(ctx) {
				return context.Cause(ctx)
			}
			ended = nil
			l.health.stopping = true
			l.logger.Info("stopping: publishing what was seen", "pending", l.roster.Pending())
			grace = time.After(l.cfg.Grace)
		case <-grace:
			abandon()
			if l.commit.running {
				l.commit.running = false
				if err := (<-l.commit.done)(); err != nil {
					return err
				}
			}
			err := l.unpublished()
			if err == nil {
				l.logger.Info("every change is published; only the last watermark is not",
					"sweep", l.sweep.number)
			}
			return err
		}
	}
}
