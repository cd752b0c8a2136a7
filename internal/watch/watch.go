package watch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/schemas"
	"github.com/rollcall-events/rollcall/schemas/follow"
)

// Show is what of the log is shown.
type Show int

const (
	// OnDuty shows the agents on duty, and then every change of any agent.
	OnDuty Show = iota
	// Agents shows every agent that is there, and then each one that changes, as it then is.
	Agents
	// Events shows every event from the start on, and no state.
	Events
)

// Config says what is watched, and how it is shown.
type Config struct {
	Tenant int64  // 0: the only one in the log
	Type   string // agents of this type only, as a subject's token; empty: all
	Agent  *int64 // this agent only; nil: all
	Show   Show
	JSON   bool // the messages themselves, a line each

	Where string // what the NATS server is called in what is told, without user info

	Out   io.Writer // what is shown
	Notes io.Writer // with JSON: what is no message, for people

	Terminal bool       // Out is one
	Live     bool       // keep a status line at the bottom; only for a terminal that knows ANSI's sequences
	Color    bool       // the same
	Width    func() int // the screen's columns now; 0 or nil: lines are as long as need be

	Zone *time.Location   // of the times shown; nil: the local one
	Now  func() time.Time // the clock; nil: time.Now
}

// Run shows what the log on nc says until ctx ends or nobody reads any more, and then returns nil.
// It returns an error where there is no such log or tenant at the start, a [*setting.Error] where
// the command line would have to differ; later nothing but closing nc stops it: it tells what is
// wrong and tries again.
//
// A slow reader holds up nothing but itself: of an agent that changes often it may see the newest
// change only, but for [Events], where it sees all.
func Run(ctx context.Context, nc *nats.Conn, cfg Config) error {
	if cfg.Zone == nil {
		cfg.Zone = time.Local
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.JSON {
		cfg.Live, cfg.Color = false, false
	}
	w := &watcher{cfg: &cfg, nc: nc}
	return newView(&cfg).run(ctx, w.follow)
}

// A do runs a function on the view's goroutine, and returns when it has been run, or is no longer
// wanted.
type do func(func(*view))

// run shows what source does to the view, and what the passing of time does. It returns when source
// has.
func (v *view) run(ctx context.Context, source func(context.Context, do) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	work := make(chan func(*view))
	ended := make(chan error, 1)
	go func() {
		ended <- source(ctx, func(f func(*view)) {
			select {
			case work <- f:
			case <-ctx.Done():
			}
		})
	}()
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for {
		var err error
		end := false
		select {
		case f := <-work:
			f(v)
		case <-second.C:
		case err = <-ended:
			end = true
			if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
				err = nil
			}
		}
		v.checkStale()
		if unwritten := v.flush(end); unwritten != nil && err == nil {
			err = unwritten
			if !end {
				cancel()
				<-ended
			}
			end = true
		}
		if errors.Is(err, errPipe) {
			err = nil
		}
		if end {
			return err
		}
	}
}

// A watcher reads the log.
type watcher struct {
	cfg *Config
	nc  *nats.Conn
}

func (w *watcher) follow(ctx context.Context, do do) error {
	js, known, err := open(ctx, w.nc, w.cfg.Where)
	if err != nil {
		return err
	}
	which, err := w.waitForTenant(ctx, js, known, do)
	if err != nil {
		return err
	}
	do(func(v *view) { v.greet(which) })
	switch {
	case w.cfg.Show == Events:
		return w.events(ctx, js, which, do)
	case w.cfg.JSON:
		return w.states(ctx, js, which, do)
	}
	return w.roster(ctx, js, which, do)
}

// waitForTenant waits until the log has the tenant.
func (w *watcher) waitForTenant(ctx context.Context, js jetstream.JetStream, known []int64, do do) (which int64, err error) {
	for {
		if which, err = tenant(w.cfg.Tenant, known); which != 0 || err != nil {
			return which, err
		}
		do(func(v *view) { v.wait("for rollcall to begin: " + clean(w.cfg.Where) + " has no log of it yet") })
		select {
		case <-time.After(2 * time.Second):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		attempt, stop := context.WithTimeout(ctx, patience)
		known, err = follow.Tenants(attempt, js)
		stop()
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		if err != nil {
			known = nil
			do(func(v *view) { v.lose(why(w.nc, err)) })
			continue
		}
		do((*view).back)
	}
}

// roster follows the agents' states.
func (w *watcher) roster(ctx context.Context, js jetstream.JetStream, tenant int64, do do) error {
	r := follow.New(tenant)
	return r.Run(ctx, js, func(u follow.Update) {
		var bad *follow.MessageError
		switch {
		case errors.As(u.Err, &bad):
			do(func(v *view) { v.bad(bad) })
		case u.Err != nil:
			do(func(v *view) { v.lose(why(w.nc, u.Err)) })
		case u.Anew:
			all, t := r.Agents(), r.Trust(time.Time{})
			do(func(v *view) { v.anew(all, t.Watermark, t.Health) })
		case u.State != nil:
			do(func(v *view) { v.state(u.State) })
		case u.Watermark != nil:
			do(func(v *view) { v.setWatermark(u.Watermark) })
		case u.Health != nil:
			do(func(v *view) { v.setHealth(u.Health) })
		}
	})
}

// states brings the messages of the agents' states, and the watermark and health: all that are
// there, then each newer one. After an interruption only those come that are other ones than
// before.
func (w *watcher) states(ctx context.Context, js jetstream.JetStream, tenant int64, do do) error {
	agent := "*"
	if w.cfg.Agent != nil {
		agent = fmt.Sprint(*w.cfg.Agent)
	}
	cfg := jetstream.ConsumerConfig{DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy, FilterSubjects: []string{
		fmt.Sprintf("agent.state.%d.%s", tenant, agent), schemas.WatermarkSubject(tenant), schemas.HealthSubject(tenant)}}
	last := map[string]uint64{} // by subject
	return w.again(ctx, do, func(ctx context.Context, ok func()) error {
		return read(ctx, js, cfg, func(m *message) bool {
			ok()
			do(func(v *view) {
				v.back()
				if m != nil && last[m.subject] != m.seq {
					last[m.subject] = m.seq
					v.message(m)
				}
				v.begun = v.watermark != nil
			})
			return true
		})
	})
}

// events brings every event, watermark and health message of the tenant from now on.
func (w *watcher) events(ctx context.Context, js jetstream.JetStream, tenant int64, do do) error {
	agent := "*"
	if w.cfg.Agent != nil {
		agent = fmt.Sprint(*w.cfg.Agent)
	}
	status := []string{schemas.WatermarkSubject(tenant), schemas.HealthSubject(tenant)}
	filters := slices.Clone(status)
	for _, kind := range []schemas.EventType{schemas.Online, schemas.Offline, schemas.Updated} {
		filters = append(filters, fmt.Sprintf("%s.%d.*.%s", kind, tenant, agent))
	}
	next := uint64(0) // the sequence to go on from; 0: nothing has been read yet
	last := uint64(0) // that of the last watermark
	return w.again(ctx, do, func(ctx context.Context, ok func()) error {
		// The watermark and health as they are, and with them the moment to begin at. All up to a
		// watermark is one commit's or older, so what comes after it comes whole.
		var now []*message
		var top uint64
		err := read(ctx, js, jetstream.ConsumerConfig{DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy, FilterSubjects: status}, func(m *message) bool {
			if m == nil {
				return false
			}
			if m.subject == status[0] {
				top = m.seq
			}
			now = append(now, m)
			return m.pending > 0
		})
		if err != nil {
			return err
		}
		begin := next == 0
		backwards := top < last
		if begin || backwards {
			next, last = top+1, top
		}
		ok()
		do(func(v *view) {
			v.back()
			if backwards {
				v.bad(errBackwards)
			}
			if begin || backwards {
				for _, m := range now {
					v.message(m)
				}
			}
			if begin {
				v.begun = true
				if !w.cfg.JSON {
					v.beginEvents()
				}
			}
		})
		from := jetstream.ConsumerConfig{DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: next, FilterSubjects: filters}
		return read(ctx, js, from, func(m *message) bool {
			if m != nil {
				next = m.seq + 1
				if m.subject == status[0] {
					last = m.seq
				}
				do(func(v *view) { v.message(m) })
			}
			return true
		})
	})
}

var errBackwards = errors.New("the log went back (a backup restored?): events may come twice")

// again tries until ctx ends or the connection is closed for good, and tells what goes wrong. try
// calls ok when it can read.
func (w *watcher) again(ctx context.Context, do do, try func(ctx context.Context, ok func()) error) error {
	wait := backoff.NewExponentialBackOff(backoff.WithInitialInterval(250*time.Millisecond), backoff.WithMaxInterval(2*time.Second),
		backoff.WithMaxElapsedTime(0))
	return backoff.Retry(func() error {
		err := try(ctx, wait.Reset)
		switch {
		case ctx.Err() != nil:
			return backoff.Permanent(ctx.Err())
		case w.nc.IsClosed():
			return backoff.Permanent(nats.ErrConnectionClosed)
		}
		do(func(v *view) { v.lose(why(w.nc, err)) })
		return err
	}, backoff.WithContext(wait, ctx))
}

// why says in words why the log can't be read.
func why(nc *nats.Conn, err error) string {
	switch {
	case !nc.IsConnected():
		return "no connection to NATS"
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return "the stream " + schemas.Stream + " is gone"
	case errors.Is(err, nats.ErrPermissionViolation):
		return "no permission any more"
	case elsewhere(err), errors.Is(err, jetstream.ErrNoHeartbeat):
		return "JetStream does not answer"
	case errors.Is(err, jetstream.ErrConsumerDeleted), errors.Is(err, jetstream.ErrConsumerNotFound):
		return "the server has forgotten this reader"
	}
	return cut(oneLine(err), 200)
}
