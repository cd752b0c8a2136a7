package publisher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/schemas"
)

// An Alarm has the NATS server itself tell plain subscribers that a tenant's watermark is overdue,
// for when no rollcall is left to say so: a message that the server delivers right after the
// watermark's nextBy, and that each later watermark puts off (message schedules, NATS ADR-51).
//
// It is no part of a commit and never in the way of one: where the server can't do it, the alarm
// says so once and tries again later.
type Alarm struct {
	nc     *nats.Conn
	js     jetstream.JetStream
	cfg    Config
	log    *slog.Logger
	latest chan due  // holds the last one that is to be armed
	armed  time.Time // nextBy that the server knows of; Run's own
	told   bool      // that the alarm can't be had; Run's own
}

// A due is a watermark to arm the alarm for, and when it was brought.
type due struct {
	schemas.Watermark
	at time.Time
}

// NewAlarm returns the alarm of cfg's tenant. It does nothing until [Alarm.Run].
func NewAlarm(nc *nats.Conn, cfg Config) (*Alarm, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("publisher: %w", err)
	}
	logger := cfg.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &Alarm{nc: nc, js: js, cfg: cfg, log: logger, latest: make(chan due, 1)}, nil
}

// PutOff has the alarm go off at w's nextBy instead of where it stands now. It never blocks; of
// several watermarks in a row the last one counts. One goroutine at a time may call it.
func (a *Alarm) PutOff(w schemas.Watermark) {
	select {
	case <-a.latest:
	default:
	}
	a.latest <- due{w, time.Now()}
}

const (
	alarmRetry   = time.Minute     // after the stream could not be had
	alarmTimeout = 5 * time.Second // for one answer of the broker
	alarmLeave   = time.Second     // for all that is left to do when Run ends
	alarmPause   = time.Second     // a watermark that waited longer for Run is not armed

	// alarmPace is from one message to the next, however many commits there are; and by how much
	// the alarm goes off after nextBy, since later watermarks may have come within that time.
	alarmPace = 250 * time.Millisecond
)

// Run arms the alarm for each watermark that [Alarm.PutOff] brings, until ctx ends, and within a
// second after that for one that was brought just before. What is armed then stays so: if no other
// replica goes on, it goes off.
func (a *Alarm) Run(ctx context.Context) {
	wait := backoff.NewExponentialBackOff(backoff.WithInitialInterval(time.Second),
		backoff.WithMaxInterval(alarmRetry), backoff.WithMaxElapsedTime(0))
	ready := false // the stream is there, and fits
	defer func() { a.leave(ctx, &ready) }()
	for {
		var w due
		select {
		case <-ctx.Done():
			return
		case w = <-a.latest:
		}
		if !a.worth(w) {
			continue
		}
		err := a.prepare(ctx, &ready)
		if err == nil {
			err = a.arm(ctx, w.Watermark)
		}
		if err == nil {
			wait.Reset()
			if a.told {
				a.log.Info("the alarm is armed: NATS tells when no watermark comes in time")
				a.told = false
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(alarmPace):
			}
			continue
		}
		if ctx.Err() != nil {
			select {
			case a.latest <- w:
			default: // there is a later one
			}
			return
		}
		ready = false
		if !a.told && !errors.Is(err, nats.ErrConnectionClosed) {
			a.told = true
			a.log.Warn("no alarm: NATS can't tell plain subscribers when every rollcall is gone; "+
				"events, states and watermarks are published as usual", "stream",
				schemas.AlarmStream, "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait.NextBackOff()):
		}
	}
}

// worth says whether the alarm is to be armed for w.
func (a *Alarm) worth(w due) bool {
	if w.NextBy.Equal(a.armed) || time.Until(w.NextBy) <= 0 {
		return false
	}
	// Else this process was paused, and another one may lead by now.
	return time.Since(w.at) <= alarmPause
}

// leave arms the alarm for the last watermark before Run returns. Where that fails, it goes off
// somewhat earlier.
func (a *Alarm) leave(ctx context.Context, ready *bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), alarmLeave)
	defer cancel()
	select {
	case w := <-a.latest:
		if !a.worth(w) || !a.nc.IsConnected() {
			return
		}
		err := a.prepare(ctx, ready)
		if err == nil {
			err = a.arm(ctx, w.Watermark)
		}
		if err != nil {
			a.log.Debug("the alarm could not be put off a last time: it goes off early",
				"err", err)
		}
	default:
	}
}

// arm replaces what the server is to deliver, and when.
func (a *Alarm) arm(ctx context.Context, w schemas.Watermark) error {
	ctx, cancel := context.WithTimeout(ctx, alarmTimeout)
	defer cancel()
	s := schemas.Stale{
		TenantID: a.cfg.Tenant, Sweep: w.Sweep, StartedAt: w.StartedAt, NextBy: w.NextBy,
	}
	m := nats.NewMsg(schemas.AlarmArmedSubject(a.cfg.Tenant))
	m.Data = s.AppendJSON(nil)
	m.Header.Set("Content-Type", schemas.ContentTypeJSON)
	m.Header.Set(jetstream.MsgRollup, jetstream.MsgRollupSubject)
	// To the millisecond: the client's option for it knows whole seconds only.
	m.Header.Set(jetstream.ScheduleHeader, "@at "+
		w.NextBy.Add(alarmPace).UTC().Format(time.RFC3339Nano))
	m.Header.Set(jetstream.ScheduleTargetHeader, schemas.AlarmFiredSubject(a.cfg.Tenant))
	if _, err := a.js.PublishMsg(ctx, m, jetstream.WithExpectStream(
		schemas.AlarmStream)); err != nil {
		return explain(fmt.Errorf("arm the alarm of tenant %d: %w", a.cfg.Tenant, err))
	}
	a.armed = w.NextBy
	return nil
}

// prepare creates the stream where it is missing, or checks it. It never alters what is there.
func (a *Alarm) prepare(ctx context.Context, ready *bool) error {
	if *ready {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, alarmTimeout)
	defer cancel()
	s, err := a.js.Stream(ctx, schemas.AlarmStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		if !a.cfg.Manage {
			return fmt.Errorf("stream %s does not exist: create it, or let rollcall do so",
				schemas.AlarmStream)
		}
		s, err = a.js.CreateStream(ctx, alarmConfig(a.cfg.Replicas))
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another replica was quicker
			s, err = a.js.Stream(ctx, schemas.AlarmStream)
		}
	}
	if err != nil {
		return explain(fmt.Errorf("open stream %s: %w", schemas.AlarmStream, err))
	}
	if bad := AlarmMisfits(s.CachedInfo().Config); len(bad) > 0 {
		return fmt.Errorf("stream %s does not fit, and rollcall never alters it: %s; "+
			"mend it, or remove it",
			schemas.AlarmStream, bad)
	}
	*ready = true
	return nil
}

// alarmConfig is the alarm's stream as rollcall creates it.
func alarmConfig(replicas int) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:              schemas.AlarmStream,
		Description:       "rollcall: tells when a tenant's watermark is overdue",
		Subjects:          []string{schemas.AlarmPrefix + ">"},
		RePublish:         &jetstream.RePublish{Source: alarmFired, Destination: alarmTold},
		Storage:           jetstream.FileStorage,
		Retention:         jetstream.LimitsPolicy,
		MaxMsgsPerSubject: 1,
		MaxBytes:          alarmBytes,
		Replicas:          replicas,
		AllowMsgSchedules: true,
		AllowRollup:       true,
		AllowDirect:       true,
	}
}

const (
	alarmFired = schemas.AlarmPrefix + "fired.*"
	alarmTold  = "agent.stale.{{wildcard(1)}}"
	alarmBytes = 16 << 20 // two messages of 300 bytes a tenant
)

// AlarmMisfits names everything that keeps rollcall from using a stream of this configuration for
// its alarm; empty: it fits.
func AlarmMisfits(c jetstream.StreamConfig) (bad []string) {
	if len(c.Subjects) != 1 || c.Subjects[0] != schemas.AlarmPrefix+">" {
		bad = append(bad, fmt.Sprintf("subjects are %q, want %s> alone", c.Subjects,
			schemas.AlarmPrefix))
	}
	if r := c.RePublish; r == nil || r.Source != alarmFired || r.Destination != alarmTold ||
		r.HeadersOnly {
		bad = append(bad, fmt.Sprintf("republish must be %s to %s, whole messages", alarmFired,
			alarmTold))
	}
	if !c.AllowMsgSchedules {
		bad = append(bad, "message schedules are off")
	}
	if !c.AllowRollup {
		bad = append(bad, "rollup is off")
	}
	return bad
}
