package history

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/schemas"
	"github.com/rollcall-events/rollcall/schemas/internal/pull"
)

// An Option changes what is read, or how.
type Option func(*options)

type options struct {
	stream   string
	home     jetstream.JetStream // where [schemas.Stream] is; nil: where the stream is
	now      time.Time
	progress func(done, all uint64)
}

// FromStream reads another stream than [schemas.Stream]: an archive; docs/permissions.md says how
// to make one. Where it has no states, those of [schemas.Stream] are read too, if there is one.
func FromStream(name string) Option { return func(o *options) { o.stream = name } }

// StatesFrom says where [schemas.Stream] is, if an archive is elsewhere.
func StatesFrom(js jetstream.JetStream) Option { return func(o *options) { o.home = js } }

// AsOf sets the time that counts as now, which is time.Now() otherwise. It is compared with times
// of rollcall's clock, so the two machines' clocks should agree, as NTP makes them.
func AsOf(now time.Time) Option { return func(o *options) { o.now = now } }

// Progress has f called while messages are read, from the same goroutine: how many have been read,
// and how many there are, as far as is known. It begins again with each of a few readings.
func Progress(f func(done, all uint64)) Option { return func(o *options) { o.progress = f } }

func with(opts []Option) options {
	o := options{stream: schemas.Stream, progress: func(uint64, uint64) {}}
	for _, set := range opts {
		set(&o)
	}
	if o.now.IsZero() {
		o.now = time.Now()
	}
	return o
}

// Errors of a question that has no answer.
var (
	// ErrFuture: the moment, or the end of the time asked about, is yet to come.
	ErrFuture = errors.New("it is in the future")
	// ErrEmpty: the time asked about ends before it begins, or when it does.
	ErrEmpty = errors.New("its end is not after its beginning")
	// ErrNoTenant: the stream has nothing of the tenant.
	ErrNoTenant = errors.New("it has nothing of tenant")
	// ErrNoAgent: the stream has nothing of the agent. Nobody ever saw it, or it was purged.
	ErrNoAgent = errors.New("it has nothing of agent")
)

// Reasons not to believe an answer, or why a part of it is unknown.
var (
	// ErrUnobserved: nobody looked.
	ErrUnobserved = errors.New("nobody could say then who is on duty")
	// ErrNoSweep: rollcall had not read the whole listing of the tenant yet.
	ErrNoSweep = errors.New("rollcall had not read the whole listing yet")
	// ErrExpired: events of that time may have expired.
	ErrExpired = errors.New("events of that time may have expired")
	// ErrMissing: the stream lacks events that it ought to have.
	ErrMissing = errors.New("events are missing in the stream")
	// ErrNoStates: the stream has no states, so agents may be missing.
	ErrNoStates = errors.New("the stream has no states, so agents may be missing")
)

// Unobserved is an interval in which nobody could say who is on duty.
type Unobserved struct {
	// To is zero while it lasts. Then Sweep is 0, and Health the present one's reason.
	schemas.Unobserved
}

// Lasts reports whether the interval has not ended: the watermark is overdue.
func (u *Unobserved) Lasts() bool { return u.To.IsZero() }

// contains reports whether a moment is in the interval, for an agent of a type.
func (u *Unobserved) contains(t time.Time, kind string) bool {
	return !t.Before(u.From) && (u.Lasts() || t.Before(u.To)) && u.about(kind)
}

func (u *Unobserved) about(kind string) bool {
	return len(u.Types) == 0 || slices.Contains(u.Types, kind)
}

// Tenants returns the tenants that the stream, or an archive with watermarks, knows of, in
// ascending order.
func Tenants(ctx context.Context, js jetstream.JetStream, opts ...Option) ([]int64, error) {
	tenants, err := pull.Tenants(ctx, js, with(opts).stream, stallStates)
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	return tenants, nil
}

// A source is a tenant's part of a stream, and what can be told from it.
type source struct {
	options
	js     jetstream.JetStream
	tenant int64

	info       *jetstream.StreamInfo
	watermark  *schemas.Watermark // nil: there is none
	health     *schemas.Health    // nil: there is none
	unobserved []*Unobserved      // in the order of the stream
	states     int                // how many were read
	broken     int                // how many can't be read
	from       origin             // where they were read
	ttl        time.Duration      // the least one in use; 0: none is known

	// begin is from when on anything can be told, and why says why not before.
	begin time.Time
	why   error
}

// An origin is where a stream is.
type origin struct {
	js     jetstream.JetStream
	stream string
}

// How long the next message may take where there are some. A server may stand still while states
// are replaced that are being read; a new consumer ends that.
const (
	stallStates = 2 * time.Second
	stallEvents = 20 * time.Second
)

// open looks at the stream: its states, by the filter, which are handed to each, and what can be
// told from it. It begins anew, and calls reset, where the server stood still.
func open(
	ctx context.Context, js jetstream.JetStream, tenant int64, o options,
	states string, reset func(), each func(*record),
) (*source, error) {
	s := &source{options: o, js: js, tenant: tenant}
	stream, err := js.Stream(ctx, s.stream)
	if err != nil {
		return nil, fmt.Errorf("look at the stream %s: %w", s.stream, err)
	}
	s.info = stream.CachedInfo()
	for s.from = (origin{js, s.stream}); ; {
		reset()
		err := s.readStates(ctx, states, each)
		switch {
		case errors.Is(err, pull.ErrStalled) && ctx.Err() == nil:
			continue
		case err != nil && s.from.stream == s.stream:
			return nil, fmt.Errorf("read the states in the stream %s: %w", s.stream, err)
		case s.states == 0 && s.from.stream != schemas.Stream: // an archive need not have any
			s.from.stream = schemas.Stream
			if o.home != nil {
				s.from.js = o.home
			}
			continue
		}
		break // without states, if need be
	}
	if err := s.readUnobserved(ctx); err != nil {
		return nil, fmt.Errorf("read the unobserved intervals in the stream %s: %w", s.stream, err)
	}
	return s, nil
}

// readStates reads the states, the watermark and health.
func (s *source) readStates(ctx context.Context, filter string, each func(*record)) error {
	s.states, s.broken = 0, 0
	r := pull.Reading{Stream: s.from.stream, Stall: stallStates, Consumer: jetstream.ConsumerConfig{
		DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy,
		FilterSubjects: []string{filter, schemas.WatermarkSubject(s.tenant),
			schemas.HealthSubject(s.tenant)}}}
	return s.read(ctx, s.from.js, r, func(m jetstream.Msg, subject schemas.Subject) bool {
		switch subject.Kind {
		case schemas.KindWatermark:
			w := new(schemas.Watermark)
			if json.Unmarshal(m.Data(), w) == nil {
				s.watermark = w
			}
		case schemas.KindHealth:
			h := new(schemas.Health)
			if json.Unmarshal(m.Data(), h) == nil {
				s.health = h
			}
		case schemas.KindState:
			r, err := readRecord(m, subject)
			if err != nil {
				s.broken++
				break
			}
			s.states++
			each(r)
		}
		return true
	})
}

// readUnobserved reads the unobserved intervals, and adds the one that lasts, if any.
func (s *source) readUnobserved(ctx context.Context) error {
	r := pull.Reading{Stream: s.stream, Stall: stallEvents, Consumer: jetstream.ConsumerConfig{
		FilterSubjects: []string{schemas.UnobservedSubject(s.tenant)}}}
	err := s.read(ctx, s.js, r, func(m jetstream.Msg, _ schemas.Subject) bool {
		s.shorter(m)
		u := new(Unobserved)
		if json.Unmarshal(m.Data(), &u.Unobserved) == nil && !u.From.IsZero() &&
			u.To.After(u.From) {
			s.unobserved = append(s.unobserved, u)
		}
		return true
	})
	if err != nil {
		return err
	}
	w := s.watermark
	if w == nil || w.Sweep == 0 || !s.now.After(w.TrustedUntil()) {
		return nil
	}
	lasts := &Unobserved{schemas.Unobserved{TenantID: s.tenant, From: w.StartedAt}}
	if s.health != nil && s.health.State == schemas.HealthFailing {
		lasts.Health = s.health.Reason
	}
	s.unobserved = append(s.unobserved, lasts)
	return nil
}

// read calls each for the messages that there are now, until it wants no more.
func (s *source) read(
	ctx context.Context, js jetstream.JetStream, r pull.Reading,
	each func(m jetstream.Msg, subject schemas.Subject) (more bool),
) error {
	done := uint64(0)
	r.Idle = 5 * time.Second // it soon ends
	return r.Each(ctx, js, func(m jetstream.Msg, meta *jetstream.MsgMetadata) error {
		if m == nil {
			return pull.ErrDone
		}
		done++
		s.progress(done, done+meta.NumPending)
		p, err := schemas.ParseSubject(m.Subject())
		more := err != nil || p.Tenant != s.tenant || each(m, p)
		if !more || meta.NumPending == 0 {
			return pull.ErrDone
		}
		return nil
	})
}

// events reads events of the filters, from what was stored at the time since on, until each wants
// no more.
func (s *source) events(
	ctx context.Context, since time.Time, filters []string,
	each func(m jetstream.Msg, subject schemas.Subject) (more bool),
) error {
	r := pull.Reading{Stream: s.stream, Stall: stallEvents, Consumer: jetstream.ConsumerConfig{
		FilterSubjects: filters}}
	// Of what is asked about, nothing was stored much earlier. Where it was, by a clock that was
	// wrong by more than that, what comes later tells that it is missing.
	since = since.Add(-time.Hour)
	if since.After(s.info.State.FirstTime) && since.Before(s.info.State.LastTime) {
		r.Consumer.DeliverPolicy = jetstream.DeliverByStartTimePolicy
		r.Consumer.OptStartTime = &since
	}
	if err := s.read(ctx, s.js, r, each); err != nil {
		return fmt.Errorf("read the events in the stream %s: %w", s.stream, err)
	}
	return nil
}

// learnBegin finds out from when on anything can be told.
func (s *source) learnBegin(ctx context.Context) error {
	if s.watermark != nil && s.watermark.Sweep == 0 {
		s.begin, s.why = s.now, ErrNoSweep
		return nil
	}
	s.why = ErrExpired
	filters := schemas.EventFilters(s.tenant)
	var baseline time.Time
	any := false
	err := s.events(ctx, time.Time{}, filters,
		func(m jetstream.Msg, p schemas.Subject) bool {
			if any && !tellsOfSweeps(m.Data()) {
				return !baseline.IsZero()
			}
			r, err := readRecord(m, p)
			if err != nil {
				return true
			}
			if !any {
				any = true
				s.shorter(m)
				s.begin = r.time
			}
			if r.reason == schemas.Baseline {
				baseline = later(baseline, r.time)
			}
			return !baseline.IsZero() && !r.provesSweep()
		})
	switch {
	case err != nil:
		return err
	case !any && s.states == 0 && s.watermark == nil:
		return fmt.Errorf("read the stream %s: %w %d", s.stream, ErrNoTenant, s.tenant)
	case !any && s.states == 0:
		s.begin = s.now
		return nil
	case !any:
		newest, err := s.last(ctx, s.from, schemas.StateFilter(s.tenant))
		s.begin = newest
		if s.info.Config.AllowMsgTTL { // unobserved intervals may have expired too
			s.begin = later(newest, s.now.Add(-cmp.Or(s.ttl, defaultTTL)))
		}
		return err
	}
	newest, err := s.last(ctx, origin{s.js, s.stream}, filters...)
	if err != nil {
		return err
	}
	if s.watermark == nil { // nothing says that anybody looked after the last change
		s.unobserved = append(s.unobserved,
			&Unobserved{schemas.Unobserved{TenantID: s.tenant, From: newest}})
	}
	if s.ttl > 0 && s.info.Config.AllowMsgTTL {
		s.begin = s.now.Add(-s.ttl)
	}
	if age := s.info.Config.MaxAge; age > 0 {
		s.begin = later(s.begin, s.now.Add(-age))
	}
	if !baseline.Before(s.begin) {
		s.begin, s.why = baseline, ErrNoSweep
	}
	return nil
}

// defaultTTL is how long rollcall has events kept, unless it is set.
const defaultTTL = 7 * 24 * time.Hour

// last returns the time of the last message of the filters; zero: there is none.
func (s *source) last(
	ctx context.Context, from origin, filters ...string,
) (at time.Time, err error) {
	r := pull.Reading{Stream: from.stream, Stall: stallEvents, Consumer: jetstream.ConsumerConfig{
		DeliverPolicy: jetstream.DeliverLastPolicy, FilterSubjects: filters}}
	err = s.read(ctx, from.js, r, func(m jetstream.Msg, p schemas.Subject) bool {
		s.shorter(m)
		if r, err := readRecord(m, p); err == nil {
			at = later(at, r.time)
		}
		return true
	})
	if err != nil {
		err = fmt.Errorf("read the last message in the stream %s: %w", from.stream, err)
	}
	return at, err
}

// shorter learns how long the stream keeps messages from one of them.
func (s *source) shorter(m jetstream.Msg) {
	if d := timeToLive(m); d > 0 && (s.ttl == 0 || d < s.ttl) {
		s.ttl = d
	}
}

// tellsOfSweeps reports whether an event may have a reason that says whether there had been a
// complete sweep. Most have not, and need not be decoded.
func tellsOfSweeps(body []byte) bool {
	for _, reason := range []schemas.Reason{schemas.Baseline, schemas.Appeared, schemas.Removed} {
		if bytes.Contains(body, []byte(reason)) {
			return true
		}
	}
	return false
}

// provesSweep reports whether the event tells that a complete sweep had ended before.
func (r *record) provesSweep() bool {
	return r.reason == schemas.Appeared && r.revision == 1 ||
		r.reason == schemas.Removed && len(r.changes) == 0
}

// timeToLive is how long the stream keeps a message; 0: nothing says so.
func timeToLive(m jetstream.Msg) time.Duration {
	v := m.Headers().Get(jetstream.MsgTTLHeader)
	if seconds, err := strconv.ParseInt(v, 10, 64); err == nil {
		return time.Duration(seconds) * time.Second
	}
	d, _ := time.ParseDuration(v)
	return d
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// tooEarly says why nothing can be told of a moment.
func (s *source) tooEarly() error {
	if errors.Is(s.why, ErrNoSweep) {
		return fmt.Errorf("%w: nothing can be told before %s", s.why, stamp(s.begin))
	}
	return fmt.Errorf("%w: the stream %s keeps them since %s", s.why, s.stream, stamp(s.begin))
}

func stamp(t time.Time) string { return t.Format(time.RFC3339) }
