package follow

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/schemas"
	"github.com/rollcall-events/rollcall/schemas/internal/pull"
)

// A Roster is what the stream says of one tenant. Its methods may be called from any goroutine,
// [Roster.Run] from one at a time.
type Roster struct {
	tenant int64

	// guards what follows; the events, the watermark and the health themselves never change
	mu sync.RWMutex
	view
	read bool // view is the stream's, and not the empty one of the beginning
}

type view struct {
	agents    map[int64]*slot
	slots     []*slot // the same, for [Roster.All]; none leaves it
	watermark *schemas.Watermark
	health    *schemas.Health
}

// A slot holds the last event of an agent; nil: it can't be used.
type slot = atomic.Pointer[schemas.Event]

// New returns the empty roster of a tenant.
func New(tenant int64) *Roster { return &Roster{tenant: tenant, view: newView()} }

func newView() view { return view{agents: map[int64]*slot{}} }

// An Update is one thing that [Roster.Run] has learned, after the roster holds it. One of its
// fields is set, besides Seq and Before. What the pointers lead to must not be modified.
type Update struct {
	// Seq is the message's sequence in the stream; 0 for Anew, and for an Err that is about none.
	Seq uint64
	// Anew: the states have all been read, and the roster is no longer what it was before. Look at
	// all of it. There is one such update at the beginning and one after each interruption.
	Anew bool
	// State is the last event of an agent. An agent that was removed has one too, with the reason
	// [schemas.Removed].
	State *schemas.Event
	// Before is the last event that the roster had of State's agent; nil if none.
	Before *schemas.Event
	// Watermark is the tenant's new watermark, the last message of every commit.
	Watermark *schemas.Watermark
	// Health is the tenant's new health.
	Health *schemas.Health
	// Fresh: from now on the roster can be trusted ([Trust.Err]). Before the first such update it
	// can't.
	Fresh bool
	// Stale: from now on the roster can't be trusted, since a watermark is overdue. It comes within
	// a second, by this machine's clock, and stands until the next Fresh.
	Stale bool
	// Err says that reading was interrupted, and is tried again; or, as a [*MessageError], that a
	// message can't be used.
	Err error
}

// A MessageError is about a message in the stream that is not what its subject says. An agent whose
// state it was is unknown until it has another.
type MessageError struct {
	Subject string
	Seq     uint64 // in the stream
	Err     error
}

func (e *MessageError) Error() string {
	return fmt.Sprintf("follow: message %d (%s) can't be used: %v", e.Seq, e.Subject, e.Err)
}

func (e *MessageError) Unwrap() error { return e.Err }

// stall is how long the next state may take to come. The server makes a list of the states at a
// consumer's creation. When it finds that one of them has been replaced since, it waits for any new
// message, or a heartbeat, before it looks at the next one: after a mass change that is as good as
// for ever (seen with nats-server 2.15.2). A new consumer has a new list.
const stall = 2 * time.Second

// Run reads the stream into the roster until ctx ends, and returns ctx's error, or until js's
// connection is closed for good, and returns [nats.ErrConnectionClosed]: connect with
// [nats.MaxReconnects] -1. Whatever else goes wrong it tells as an Update and tries again, a
// quarter of a second later at first and then every two seconds or so.
//
// notify may be nil. It is called for one update after the other, never from two goroutines at a
// time; reading goes on when it has returned, and a change that is overtaken by a newer one of the
// same agent meanwhile may never be told.
//
// js needs the right to create consumers of the stream AGENT_EVENTS and to ask them for messages,
// and no other.
func (r *Roster) Run(ctx context.Context, js jetstream.JetStream, notify func(Update)) error {
	t := tell(r, notify)
	defer t.end()
	return Read(ctx, js, Reading{
		Tenant:      r.tenant,
		Begin:       func() func(jetstream.Msg, uint64) { return r.begin(t.update) },
		Interrupted: func(err error) { t.update(Update{Err: err}) },
	})
}

// begin returns what takes the messages of one reading: first the states, then the changes.
func (r *Roster) begin(notify func(Update)) func(m jetstream.Msg, pending uint64) {
	fresh := newView()
	done := func() {
		r.mu.Lock()
		r.view, r.read = fresh, true
		r.mu.Unlock()
		notify(Update{Anew: true})
	}
	reading := true
	return func(m jetstream.Msg, pending uint64) {
		switch {
		case m == nil: // there is nothing to read
			done()
		case reading:
			if u := fresh.apply(m, r.tenant); u.Err != nil {
				notify(u)
			}
			if pending > 0 {
				return
			}
			done()
		default:
			r.mu.Lock()
			u := r.apply(m, r.tenant)
			r.mu.Unlock()
			notify(u)
		}
		reading = false
	}
}

// A Reading says what [Read] reads, and who takes it.
type Reading struct {
	// Tenant is whose messages are read: its states, its watermark and its health.
	Tenant int64
	// Consumer, unless it is nil, names each consumer that is created; a name is used once.
	Consumer func() string
	// Begin is called at the beginning and after each interruption. It returns what takes the
	// messages from there on: the last one of every subject, in the order of the stream, then each
	// further one, with the number of messages that are still to come. When that is 0 for the first
	// time, all states have been read. If there are none, it is called once with a nil message.
	// It is never called from two goroutines at a time.
	Begin func() func(m jetstream.Msg, pending uint64)
	// Interrupted is told why reading has ended and begins anew.
	Interrupted func(error)
}

// Read reads what [Roster.Run] reads, for those who need the messages themselves, and ends as it
// does.
func Read(ctx context.Context, js jetstream.JetStream, r Reading) error {
	wait := backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(250*time.Millisecond),
		backoff.WithMaxInterval(2*time.Second),
		backoff.WithMaxElapsedTime(0),
	)
	all := states(schemas.StateFilter(r.Tenant), schemas.WatermarkSubject(r.Tenant),
		schemas.HealthSubject(r.Tenant))
	return backoff.Retry(func() error {
		if r.Consumer != nil {
			all.Consumer.Name = r.Consumer()
		}
		take := r.Begin()
		err := all.Each(ctx, js, func(m jetstream.Msg, meta *jetstream.MsgMetadata) error {
			take(m, meta.NumPending)
			if meta.NumPending == 0 {
				wait.Reset()
			}
			return nil
		})
		if ctx.Err() != nil {
			return backoff.Permanent(ctx.Err())
		}
		closed := js.Conn().IsClosed()
		if closed {
			err = nats.ErrConnectionClosed
			if last := js.Conn().LastError(); last != nil {
				err = fmt.Errorf("%w; its last error: %w", err, last)
			}
		}
		err = fmt.Errorf(
			"follow: read tenant %d from the stream %s: %w",
			r.Tenant,
			schemas.Stream,
			err,
		)
		if closed {
			return backoff.Permanent(err)
		}
		r.Interrupted(err)
		return err
	}, backoff.WithContext(wait, ctx))
}

// states reads the last message of every subject of the filters, and then each further one.
func states(filters ...string) pull.Reading {
	return pull.Reading{Stream: schemas.Stream, Stall: stall, Consumer: jetstream.ConsumerConfig{
		DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy, FilterSubjects: filters}}
}

// apply takes a message in, and says what it was.
func (v *view) apply(m jetstream.Msg, tenant int64) Update {
	u := Update{}
	if meta, err := m.Metadata(); err == nil {
		u.Seq = meta.Sequence.Stream
	}
	s, err := schemas.ParseSubject(m.Subject())
	if err == nil {
		switch s.Kind {
		case schemas.KindWatermark:
			w := new(schemas.Watermark)
			if err = decode(m.Data(), w, &w.TenantID, tenant); err == nil {
				v.watermark, u.Watermark = w, w
			}
		case schemas.KindHealth:
			h := new(schemas.Health)
			if err = decode(m.Data(), h, &h.TenantID, tenant); err == nil {
				v.health, u.Health = h, h
			}
		default:
			e := new(schemas.Event)
			a := &e.Data.Agent
			if err = decode(m.Data(), e, &a.TenantID, tenant); err == nil &&
				a.AgentID != s.AgentID {
				err = fmt.Errorf("it is about agent %d", a.AgentID)
			}
			at := v.agents[s.AgentID]
			if at == nil {
				at = new(slot)
				v.agents[s.AgentID], v.slots = at, append(v.slots, at)
			}
			if err != nil {
				at.Store(nil)
				break
			}
			u.State, u.Before = e, at.Swap(e)
		}
	}
	if err != nil {
		u.Err = &MessageError{Subject: m.Subject(), Seq: u.Seq, Err: err}
	}
	return u
}

func decode(data []byte, into any, tenant *int64, want int64) error {
	if err := json.Unmarshal(data, into); err != nil {
		return err
	}
	if *tenant != want {
		return fmt.Errorf("it is about tenant %d", *tenant)
	}
	return nil
}

// Agent returns the last event of an agent, which must not be modified; false if the stream has
// none.
func (r *Roster) Agent(id int64) (*schemas.Event, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	at := r.agents[id]
	if at == nil {
		return nil, false
	}
	e := at.Load()
	return e, e != nil
}

// All goes through the last event of every agent of the types, as [schemas.Agent.TypeToken] has
// them ([schemas.TypeVideo] …); none: of all agents. Removed agents are among them, with the reason
// [schemas.Removed]: e.Data.Online is who is on duty. The events must not be modified.
//
// It makes no copy and has no order. What changes meanwhile, it may show as it was or as it is; all
// of r may be used meanwhile.
func (r *Roster) All(types ...string) iter.Seq[*schemas.Event] {
	return func(yield func(*schemas.Event) bool) {
		r.mu.RLock()
		slots := r.slots
		r.mu.RUnlock()
		for _, at := range slots {
			e := at.Load()
			if e == nil ||
				len(types) > 0 && !slices.Contains(types, e.Data.Agent.TypeToken()) {
				continue
			}
			if !yield(e) {
				return
			}
		}
	}
}

// Agents returns the last event of every agent, removed ones included, by agentId. The events must
// not be modified. Who needs no order takes [Roster.All], which costs a fraction of it.
func (r *Roster) Agents() []*schemas.Event {
	return slices.SortedFunc(r.All(), func(a, b *schemas.Event) int {
		return cmp.Compare(a.Data.Agent.AgentID, b.Data.Agent.AgentID)
	})
}

// Tenants returns the tenants that the stream knows of, in ascending order. It needs the rights of
// [Roster.Run].
func Tenants(ctx context.Context, js jetstream.JetStream) ([]int64, error) {
	tenants, err := pull.Tenants(ctx, js, schemas.Stream, stall)
	if err != nil {
		return nil, fmt.Errorf("follow: %w", err)
	}
	return tenants, nil
}
