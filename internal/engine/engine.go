// Package engine is the loop between the vendor and the log: one goroutine a tenant that observes
// pages as they are read, publishes what changed, and moves the watermark when a complete sweep has
// been published.
//
// Reading and committing go on beside that goroutine, one sweep and one commit at a time. What is
// observed while a commit is on its way goes into the next one, so a burst makes few commits and a
// single change waits for nothing. What was observed counts as published only when its commit is in
// the log.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/cenkalti/backoff/v4"
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

// Log is where the events go; see [publisher.Publisher] for what its methods promise.
type Log interface {
	TakeOver(ctx context.Context, state func(*packed.State),
		first func(*publisher.Recovered) schemas.Watermark) (*publisher.Recovered, error)
	Commit(ctx context.Context, b publisher.Batch) error
}

// Engine runs one tenant. Make it with [New].
type Engine struct {
	cfg    Config
	source Source
	log    Log
	logger *slog.Logger
	now    func() time.Time

	metrics  *metrics
	board    noticeboard
	stepTold rate.Sometimes // of a clock that jumps all the time
	turn     turn           // Run's
}

// New returns an engine that reads from source and writes to log.
func New(cfg Config, source Source, log Log) *Engine {
	e := &Engine{cfg: cfg, source: source, log: log, logger: cfg.Logger, now: cfg.Now, metrics: newMetrics(cfg.Metrics),
		stepTold: rate.Sometimes{First: 3, Interval: time.Minute}}
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
	return fmt.Sprintf("%d changes that were seen are not known to be published; the next start publishes every difference that still stands", e.Changes)
}

// Run takes the log over and polls until ctx ends; then it publishes what was seen, for the grace
// period at most, and returns nil or an *[UnpublishedError]. It returns [publisher.ErrLeaseLost] at
// once when another replica leads, also where that is the cause of ctx's end, and [ErrNoAnswers]
// where Config.GiveUp asks for it. Any other error is one that the log's set-up has to be mended
// for. Run may be called again.
func (e *Engine) Run(ctx context.Context) error {
	// Commits outlive ctx by the grace period.
	work, abandon := context.WithCancel(context.WithoutCancel(ctx))
	defer abandon()

	e.follow() // it has not looked since this replica led last, if it ever did
	first, err := e.takeOver(ctx, 0)
	if err != nil {
		if ctx.Err() != nil && !lost(ctx) {
			return nil // nothing was seen yet
		}
		return err
	}
	l := &loop{
		Engine: e,
		work:   work,
		roster: diff.NewRoster(e.cfg.rules()),
		health: newHealth(e.cfg.Tenant, e.cfg.Interval, e.now()),
		most:   publisher.MaxChanges,
		sweeps: make(chan sweepStep, 4),
		next:   time.NewTimer(0),
		done:   make(chan outcome, 1),

		answered: e.now(),
	}
	defer l.standBack()
	l.load(first)
	l.turn.again(l.roster.Watermark().Sweep)
	err = l.run(ctx, abandon)
	if errors.Is(err, publisher.ErrLeaseLost) {
		e.logger.Warn("another replica leads: standing back", "tenant", e.cfg.Tenant, "dropped", l.roster.Pending(), "err", err)
		if ctx.Err() != nil && !lost(ctx) { // it was to end anyway, and did not get to publish all
			err = nil
			if l.roster.Pending() > 0 {
				err = &UnpublishedError{l.roster.Pending()}
			}
		}
	}
	return err
}

// lost reports whether ctx ended because another replica leads.
func lost(ctx context.Context) bool { return errors.Is(context.Cause(ctx), publisher.ErrLeaseLost) }

// A loop is what Run's goroutine owns.
type loop struct {
	*Engine
	work   context.Context // of commits
	roster *diff.Roster
	health *health
	most   int // changes a commit
	limit  int // how large an event may be, as last asked

	sweep    uint64 // the last one begun
	sweeping bool
	tainted  time.Time // the log was read anew during this sweep, then: what was read before says nothing; zero: it was not
	begun    time.Time
	answered time.Time   // when the vendor last gave a usable answer; at first, when this replica began to lead
	due      time.Time   // when the loop should go on at the latest
	dropped  int         // fields that the last sweep left out
	repaired int         // values in which it marked what can't stay
	next     *time.Timer // when the next one begins
	sweeps   chan sweepStep

	busy    bool // something is on its way into the log, or out of it
	done    chan outcome
	folded  uint64 // as last logged
	counted uint64 // folded observations, as last counted
}

// A sweepStep is a page, or at last the verdict.
type sweepStep struct {
	page    *listing.Page
	verdict *listing.Verdict
}

// An outcome is what became of work on the log, for the loop to apply.
type outcome struct {
	apply func() error
}

func (l *loop) run(ctx context.Context, abandon context.CancelFunc) error {
	polling, stopPolling := context.WithCancel(ctx)
	defer func() { // leave nothing running behind
		stopPolling()
		for l.sweeping {
			l.sweeping = (<-l.sweeps).verdict == nil
		}
		if abandon(); l.busy {
			<-l.done
		}
	}()
	defer l.next.Stop()
	stale := time.NewTimer(time.Hour)
	defer stale.Stop()
	ended := ctx.Done()
	var grace <-chan time.Time

	for {
		l.awake()
		l.drain()
		l.commit()
		l.measure()
		if ctx.Err() != nil && !l.busy && !l.sweeping {
			return nil
		}
		if ctx.Err() == nil && l.silent() {
			l.turn = turn{gaveUp: time.Now(), sweep: l.roster.Watermark().Sweep}
			return ErrNoAnswers
		}
		stale.Reset(l.wake().Sub(l.now()))

		select {
		case s := <-l.sweeps:
			l.step(s)
		case o := <-l.done:
			l.busy = false
			if err := o.apply(); err != nil {
				return err
			}
		case <-l.next.C:
			if ctx.Err() == nil {
				l.begin(polling)
			}
		case <-stale.C:
			l.health.overdue(l.now())
		case <-ended:
			if lost(ctx) {
				return context.Cause(ctx)
			}
			ended = nil
			l.health.stopping = true
			l.logger.Info("stopping: publishing what was seen", "pending", l.roster.Pending())
			grace = time.After(l.cfg.Grace)
		case <-grace:
			abandon()
			if l.busy {
				o := <-l.done
				l.busy = false
				if err := o.apply(); err != nil {
					return err
				}
			}
			if l.roster.Pending() == 0 {
				l.logger.Info("every change is published; only the last watermark is not", "sweep", l.sweep)
				return nil
			}
			return &UnpublishedError{l.roster.Pending()}
		}
	}
}

// begin starts the next sweep.
func (l *loop) begin(ctx context.Context) {
	l.stepped(l.follow())
	l.sweep++
	l.sweeping, l.tainted, l.begun = true, time.Time{}, l.now()
	go func() {
		v := l.source.Sweep(ctx, func(p *listing.Page) { l.sweeps <- sweepStep{page: p} })
		l.sweeps <- sweepStep{verdict: &v}
	}()
}

// drain takes what has already arrived, so that it goes into the commit that is about to start.
func (l *loop) drain() {
	for !l.busy && l.sweeping {
		select {
		case s := <-l.sweeps:
			l.step(s)
		default:
			return
		}
	}
}

func (l *loop) step(s sweepStep) {
	if s.page != nil {
		l.page(s.page)
	} else {
		l.verdict(s.verdict)
	}
}

func (l *loop) page(p *listing.Page) {
	l.health.answered()
	l.heard(l.now())
	if p.Sent.Before(l.tainted) {
		// The stream may know better; the next sweep compares with what it says.
		l.roster.Alive(l.sweep, p)
		return
	}
	l.roster.Observe(l.sweep, p)
	l.tellFolded()
}

// tellFolded tells of changes that were folded: the first, and then every thousand.
func (l *loop) tellFolded() {
	if f := l.roster.Folded(); f > 0 && (l.folded == 0 || f-l.folded >= 1000) {
		l.logger.Warn("the buffer is full: the oldest detail is folded into its net effect", "limit", l.cfg.BufferEvents, "folded", f)
		l.folded = f
	}
}

// verdict ends a sweep: a complete one lets absence be judged and the watermark move.
func (l *loop) verdict(v *listing.Verdict) {
	l.sweeping = false
	l.next.Reset(l.begun.Add(l.cfg.Interval).Sub(l.now()))
	log := l.logger.With("sweep", l.sweep, "agents", v.Agents, "pages", v.Pages, "rejected", v.Rejected, "dropped", v.Dropped, "repaired", v.Repaired, "took", v.EndedAt.Sub(v.StartedAt).Round(time.Millisecond))
	if v.Dropped > 0 && l.dropped == 0 {
		log.Warn("fields hold values of a kind that they should not have, and are left out")
	}
	if v.Repaired > 0 && l.repaired == 0 {
		log.Warn("marking values that not every JSON parser takes; rollcall check tells more")
	}
	l.dropped, l.repaired = v.Dropped, v.Repaired
	if v.Complete {
		l.swept(sweepComplete)
		l.metrics.sweepTime.Observe(v.EndedAt.Sub(v.StartedAt).Seconds())
	}
	switch {
	case v.Complete && !l.tainted.IsZero():
		log.Info("the sweep was complete, but the log was read anew during it: the next one counts")
	case v.Complete:
		first, ended := !l.roster.HadCompleteSweep(), schemas.CeilTime(v.EndedAt)
		staleAfter := ended.Add(3 * max(l.cfg.Interval, ended.Sub(schemas.FloorTime(v.StartedAt))))
		absence := l.roster.Complete(l.sweep, v, staleAfter)
		l.metrics.missing.Set(float64(absence.Missing))
		l.heard(ended)
		l.tellFolded()
		if ids := absence.InTwoListings; len(ids) > 0 {
			l.logger.Warn("agents are listed under two of the polled types, in different states: the listing of the type that the row itself names counts, "+
				"else the one that is polled first; ask the vendor why, or poll only one of the types",
				"count", len(ids), "agents", ids[:min(len(ids), toldAtOnce)])
		}
		if first {
			log.Info("first complete sweep")
		}
		was := l.health.failures
		l.health.complete(absence, v, staleAfter, ended)
		if was > 0 {
			log.Info("sweeps are complete again", "incomplete", was)
		}
		log.Debug("sweep complete", "missing", absence.Missing, "held", absence.Held)
	case errors.Is(v.Err, context.Canceled):
		log.Debug("sweep abandoned")
	default:
		class := listing.Unreachable
		var pe *listing.Error
		if errors.As(v.Err, &pe) {
			class = pe.Class
		}
		l.swept(string(class))
		if l.health.incomplete(schemas.HealthReason(class), v.Err, l.now()) {
			log.Warn("sweep incomplete: what it read counts, absence and the watermark wait for a complete one", "class", class, "err", v.Err)
		} else {
			log.Debug("sweep incomplete", "class", class, "err", v.Err)
		}
	}
}

// commit starts the next commit, where there is anything to say and none is under way.
func (l *loop) commit() {
	if l.busy {
		return
	}
	limit := l.maxBody()
	if limit > l.limit {
		l.roster.Retry()
	}
	l.limit = limit
	var buf []byte
	fits := func(e *schemas.Event) bool {
		buf = e.AppendJSON(buf[:0])
		return len(buf) <= limit
	}
	for news := l.health.news(); news != nil || !l.roster.Idle(); {
		c := l.roster.Next(l.sweep, l.most, fits)
		if c.Empty() && news == nil { // changes that cancel out
			l.roster.Skip(c)
			l.tooLarge(c)
			continue
		}
		l.busy = true
		go func() {
			err := l.log.Commit(l.work, publisher.Batch{Events: c.Events, Health: news, Watermark: c.Watermark})
			l.done <- outcome{func() error { return l.committed(c, news, err) }}
		}()
		return
	}
}

// inProgress names the sweep that a commit brings changes of, where that is a later one than the
// last complete one.
func inProgress(sweep, complete uint64) *schemas.InProgress {
	if sweep <= complete {
		return nil
	}
	return &schemas.InProgress{Sweep: sweep}
}

// maxBody is how large an event may be now.
func (l *loop) maxBody() int {
	if l.cfg.MaxBody == nil {
		return math.MaxInt
	}
	return l.cfg.MaxBody()
}

// committed applies what became of a commit.
func (l *loop) committed(c *diff.Commit, news *schemas.Health, err error) error {
	var setup *publisher.SetupError
	switch {
	case err == nil || errors.Is(err, publisher.ErrTampered):
		l.roster.Committed(c)
		l.advanced(c)
		l.marked()
		if news != nil {
			l.health.said(news)
			l.logger.Info("health", "state", news.State, "reason", news.Reason, "detail", news.Detail)
		}
		l.logger.Debug("committed", "events", len(c.Events), "sweep", c.Watermark.Sweep)
		if err != nil {
			l.logger.Error("reading the log anew, to put it right; find out who may publish on "+schemas.LogPrefix+">", "err", err)
			l.reload()
		}
		return nil
	case errors.Is(err, publisher.ErrTooLarge) && l.most > 1:
		l.roster.Requeue(c)
		l.most = max(l.most/2, 1)
		l.logger.Warn("the server takes smaller batches only", "changes", l.most, "err", err)
		return nil
	case errors.Is(err, publisher.ErrMaxBody):
		l.roster.Requeue(c)
		l.logger.Info("forming the commit anew, since the server takes smaller messages now", "err", err)
		return nil
	case errors.Is(err, publisher.ErrSuperseded):
		l.roster.Requeue(c)
		l.logger.Warn("the log has moved on without us: reading it anew", "err", err)
		l.reload()
		return nil
	case errors.As(err, &setup) || l.work.Err() == nil:
		return err
	default: // the grace period is over
		return nil
	}
}

// reload reads the log anew, beside the loop.
func (l *loop) reload() {
	if l.work.Err() != nil {
		return // the next start does
	}
	l.busy = true
	sweep := l.sweep
	go func() {
		t, err := l.takeOver(l.work, sweep)
		l.done <- outcome{func() error {
			if err != nil {
				if l.work.Err() != nil {
					return nil
				}
				return err
			}
			l.load(t)
			return nil
		}}
	}()
}

// taken is what the log said when it was taken over.
type taken struct {
	states    map[int64]*packed.State
	recovered *publisher.Recovered
	told      uint64 // the last sweep that our first watermark told of
}

// takeOver reads the log and shuts every earlier writer out, trying until ctx ends. sweep is the
// last one begun here.
func (e *Engine) takeOver(ctx context.Context, sweep uint64) (*taken, error) {
	var t *taken
	try := func() error {
		t = &taken{states: make(map[int64]*packed.State)}
		state := func(s *packed.State) { t.states[s.Agent.AgentID()] = s }
		first := func(r *publisher.Recovered) schemas.Watermark {
			w := e.firstWatermark(t.states, r, sweep)
			t.told = w.LastSweep()
			return w
		}
		var err error
		t.recovered, err = e.log.TakeOver(ctx, state, first)
		return final(err)
	}
	wait := backoff.NewExponentialBackOff(backoff.WithInitialInterval(100*time.Millisecond), backoff.WithMaxInterval(5*time.Second),
		backoff.WithMaxElapsedTime(0)) // without the log there is nothing to do; ctx ends this
	err := backoff.RetryNotify(try, backoff.WithContext(wait, ctx), func(err error, in time.Duration) {
		e.logger.Warn("the log could not be taken over, trying again", "in", in.Round(time.Millisecond), "err", err)
	})
	if err != nil {
		if lost(ctx) {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("take over the log of tenant %d: %w", e.cfg.Tenant, err)
	}
	return t, nil
}

// firstWatermark is the one that takes the log over: it repeats the figures of the last complete
// sweep, and counts the published states.
func (e *Engine) firstWatermark(
	states map[int64]*packed.State, r *publisher.Recovered, sweep uint64,
) schemas.Watermark {
	w := schemas.Watermark{}
	if r.Watermark != nil {
		w = *r.Watermark
	}
	w.Agents, w.Online = 0, 0
	for _, s := range states {
		if !s.Removed {
			w.Agents++
			if s.Online {
				w.Online++
			}
		}
	}
	if w.Sweep == 0 {
		w.Polled = e.cfg.Types
	}
	w.InProgress = inProgress(max(r.LastSweep+1, sweep), w.Sweep)
	return w
}

// final marks the errors that trying again does not mend.
func final(err error) error {
	var setup *publisher.SetupError
	if errors.As(err, &setup) || errors.Is(err, publisher.ErrLeaseLost) {
		return backoff.Permanent(err)
	}
	return err
}

// load makes what the log says the truth.
func (l *loop) load(t *taken) {
	loaded := l.roster.Load(t.states, t.recovered.Watermark, t.told)
	if lost := loaded.Lost; lost > 0 {
		l.logger.Error("the broker has lost what it had acknowledged; what still stands is published again, above every revision that was used",
			"agents", lost)
		l.health.note(fmt.Sprintf("the broker has lost messages that it had acknowledged, of %d agents: durable readers do best to read the states anew", lost), l.now())
	}
	l.metrics.recount(t.states)
	l.metrics.dropped.Add(float64(loaded.Dropped))
	if loaded.Dropped > 0 {
		l.logger.Warn("changes that were seen are given up, since the log has others of the same agents; what still stands is published again",
			"dropped", loaded.Dropped)
	}
	switch {
	case l.sweeping:
		l.tainted = l.now()
	case l.cfg.Expect != nil:
		l.cfg.Expect(l.roster.Listed())
	}
	l.sweep = max(l.sweep, t.recovered.LastSweep)
	w := l.roster.Watermark()
	l.health.load(t.recovered.Health, w)
	l.metrics.missing.Set(float64(w.Missing))
	l.marked()
	there, online := l.roster.Agents()
	l.logger.Info("took the log over", "tenant", l.cfg.Tenant, "agents", there, "online", online, "sweep", w.Sweep)
}
