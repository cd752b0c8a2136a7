package ops

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/rollcall-events/rollcall/internal/engine"
	"github.com/rollcall-events/rollcall/publisher"
)

const (
	// lookTimeout bounds a look at the broker: below the second that probes usually wait.
	lookTimeout = 800 * time.Millisecond
	// lookSlack is by how much an answer about what did not answer comes earlier.
	lookSlack = 100 * time.Millisecond
	// lookKept is how long what was seen is told again, so that asking often costs the broker
	// nothing.
	lookKept = time.Second
	// commitPatience is how long a leader may try to commit in vain and still be ready: longer than
	// a cluster takes to elect a leader. Readers stop trusting the stream at about the same time.
	commitPatience = 15 * time.Second
)

// Broker is the connection to NATS; *nats.Conn is one. Its methods may be called at any time, from
// any goroutine.
type Broker interface {
	IsConnected() bool
	LastError() error // nil: nothing has gone wrong
}

// Log is the tenant's log; see [publisher.Publisher].
type Log interface {
	Leading() bool
	Failing() (since time.Time, err error)
	Status(context.Context) publisher.Status
}

// Loop is what reads the tenant; see [engine.Engine].
type Loop interface {
	Status() engine.Status
}

// Process is what a rollcall process tells of itself. It is told how far the start has come, and
// asks the parts that are there. Its methods may be called from any goroutine.
type Process struct {
	instance string
	now      func() time.Time

	mu       sync.Mutex // guards what follows
	waiting  string
	cause    error
	broker   Broker
	look     func(context.Context) publisher.Status
	log      Log
	loop     Loop
	tenant   int64
	stopping bool
	ending   string // what the end is at

	seen *sight // the last look at the broker, which may be under way; nil: none
}

// A sight is what one look at the broker shows.
type sight struct {
	of        Broker
	begun     time.Time
	done      chan struct{} // closed when what follows is set
	connected bool
	problem   error
	status    publisher.Status
}

// NewProcess returns a Process that has only just begun. now tells the time; nil: time.Now.
func NewProcess(instance string, now func() time.Time) *Process {
	if now == nil {
		now = time.Now
	}
	return &Process{instance: instance, now: now, waiting: "the connection to NATS"}
}

// Connected says that there is a connection to NATS, and how to ask the broker how things are.
func (p *Process) Connected(b Broker, look func(context.Context) publisher.Status) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.broker, p.look = b, look
}

// Waiting says what the start waits for, and why it has to; "": it waits no longer.
func (p *Process) Waiting(what string, why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting, p.cause = what, why
}

// Running says that the start is over, and whose agents are polled.
func (p *Process) Running(tenant int64, log Log, loop Loop) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tenant, p.log, p.look, p.loop, p.waiting, p.cause = tenant, log, log.Status, loop, "", nil
	p.seen = nil // that was another's look
}

// Stopping says that the end has begun.
func (p *Process) Stopping() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopping = true
}

// Ending says what the end is at, for [Process.Unfinished].
func (p *Process) Ending(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ending = what
}

// Unfinished says what the end waits for, and how many changes are not known to be published.
func (p *Process) Unfinished() (what string, unpublished int) {
	p.mu.Lock()
	what, loop := p.ending, p.loop
	if what == "" {
		what = p.waiting
	}
	p.mu.Unlock()
	if loop != nil {
		unpublished = loop.Status().Pending
	}
	return what, unpublished
}

// The roles of a replica.
const (
	RoleStarting = "starting"
	RoleStandby  = "standby"
	RoleLeader   = "leader"
	RoleStopping = "stopping"
)

// Readiness is the body of /readyz. Ready follows from NATS, Stream, Lease, Commits and whether the
// process stops; the rest is for people, and never makes it false.
type Readiness struct {
	Ready      bool   `json:"ready"`
	Instance   string `json:"instance"`
	Role       string `json:"role"`                 // one of the Role constants
	WaitingFor string `json:"waitingFor,omitempty"` // what the start waits for
	Tenant     int64  `json:"tenant,omitempty"`

	NATS   Check `json:"nats"`   // connected
	Stream Check `json:"stream"` // there and as rollcall needs it, or to be created
	Lease  Check `json:"lease"`  // this replica leads, or could

	// Commits is whether what this replica sees gets into the stream; left out while it does not
	// lead. It is not OK where that has failed for 15 seconds.
	Commits *Check `json:"commits,omitempty"`

	Leader    string     `json:"leader,omitempty"`    // the instance that polls; none or not known
	Watermark *Watermark `json:"watermark"`           // null: none, or not known
	Health    *Health    `json:"health"`              // null: not known yet
	LastSweep string     `json:"lastSweep,omitempty"` // of this replica: complete, or the class of its error
}

// Summary is all of it that matters most, in a line.
func (r Readiness) Summary() string {
	var parts []string
	commits := Check{OK: true}
	if r.Commits != nil {
		commits = *r.Commits
	}
	for _, c := range []struct {
		what  string
		check Check
	}{{"NATS", r.NATS}, {"the stream", r.Stream}, {"the lease", r.Lease}, {"commits", commits}} {
		if !c.check.OK {
			parts = append(parts, c.what+": "+c.check.Problem)
		}
	}
	if !r.NATS.OK {
		parts = parts[:1] // the others follow from it
	}
	if r.WaitingFor != "" {
		parts = append(parts, "waits for "+r.WaitingFor)
	}
	if r.Role == RoleStandby && r.Leader != "" {
		parts = append(parts, r.Leader+" leads")
	}
	if r.Health != nil {
		parts = append(parts, strings.TrimSuffix("health "+r.Health.State+": "+r.Health.Reason, ": "))
	}
	if r.Watermark != nil {
		age := time.Duration(r.Watermark.AgeSeconds * float64(time.Second)).Round(100 * time.Millisecond)
		said := fmt.Sprintf("the watermark is %v old", age)
		if r.Watermark.Stale {
			said += " and stale"
		}
		parts = append(parts, said)
	}
	first := "ready, " + r.Role
	if !r.Ready {
		first = "not ready, " + r.Role
	}
	return strings.Join(append([]string{first}, parts...), "; ")
}

// Check is one thing that has to be right.
type Check struct {
	OK      bool   `json:"ok"`
	Problem string `json:"problem,omitempty"` // what is wrong, and what to do
}

// Watermark is how fresh the log is.
type Watermark struct {
	Sweep      uint64    `json:"sweep"`
	StartedAt  time.Time `json:"startedAt"`
	AgeSeconds float64   `json:"ageSeconds"` // since StartedAt: the published state may be as old as that
	StaleAfter time.Time `json:"staleAfter"`
	Stale      bool      `json:"stale"`
}

// Health is what the tenant's health is.
type Health struct {
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
}

// Readiness asks how things are, and takes less than a second for it.
func (p *Process) Readiness(ctx context.Context) Readiness {
	p.mu.Lock()
	r := Readiness{Instance: p.instance, Tenant: p.tenant, Role: RoleStarting, WaitingFor: p.waiting}
	cause, broker, log, loop, stopping := p.cause, p.broker, p.log, p.loop, p.stopping
	p.mu.Unlock()
	if cause != nil {
		r.WaitingFor = fmt.Sprintf("%s: %v", r.WaitingFor, cause)
	}

	var seen publisher.Status
	if broker == nil {
		r.NATS = wrong("not connected yet")
	} else if s, ok := p.lookAt(ctx); !ok {
		r.NATS = wrong(fmt.Sprintf("the connection to NATS has not answered for %v: it is reconnecting, or the server hangs; what is seen meanwhile is kept",
			time.Since(s.begun).Round(100*time.Millisecond)))
	} else if !s.connected {
		r.NATS = wrong("not connected, trying again; what is seen meanwhile is kept")
		if s.problem != nil {
			r.NATS.Problem += ": " + s.problem.Error()
		}
	} else {
		r.NATS = Check{OK: true}
		seen = s.status
		r.Stream, r.Lease = check(seen.Stream), check(seen.Lease)
	}
	if !r.NATS.OK {
		unknown := wrong("not known without NATS")
		r.Stream, r.Lease = unknown, unknown
	}
	var own engine.Status
	switch {
	case log == nil:
	case log.Leading():
		own, r.Role, seen.Leader = loop.Status(), RoleLeader, p.instance
		c := commits(log.Failing())
		r.Commits = &c
	default:
		r.Role = RoleStandby
	}
	if stopping {
		r.Role = RoleStopping
	}
	r.Ready = r.NATS.OK && r.Stream.OK && r.Lease.OK && (r.Commits == nil || r.Commits.OK) && !stopping
	p.describe(&r, seen, own)
	return r
}

// describe fills in what never makes a replica unready: what the loop knows, where this replica
// leads, else what the log says.
func (p *Process) describe(r *Readiness, seen publisher.Status, own engine.Status) {
	r.Leader, r.LastSweep = seen.Leader, own.LastSweep
	w := own.Watermark
	if w.Sweep == 0 && seen.Watermark != nil {
		w = *seen.Watermark
	}
	if w.Sweep > 0 {
		now := p.now()
		r.Watermark = &Watermark{
			Sweep: w.Sweep, StartedAt: w.StartedAt.UTC(), StaleAfter: w.StaleAfter.UTC(),
			AgeSeconds: now.Sub(w.StartedAt).Round(time.Millisecond).Seconds(),
			Stale:      now.After(w.StaleAfter),
		}
	}
	switch {
	case own.State != "":
		r.Health = &Health{string(own.State), string(own.Reason)}
	case seen.Health != nil:
		r.Health = &Health{string(seen.Health.State), string(seen.Health.Reason)}
	}
}

// lookAt looks at the broker, or repeats what was seen just now. It waits for lookTimeout at the
// most: not even the question whether there is a connection is always answered at once, since the
// client holds its lock while it connects. ok is false where the look is still under way; there is
// one at a time.
func (p *Process) lookAt(ctx context.Context) (s *sight, ok bool) {
	p.mu.Lock()
	s = p.seen
	fresh := s != nil && s.of == p.broker
	if fresh {
		select {
		case <-s.done:
			fresh = time.Since(s.begun) < lookKept
		default: // under way
		}
	}
	if !fresh {
		s = &sight{of: p.broker, begun: time.Now(), done: make(chan struct{})}
		p.seen = s
		// The answer is everybody's: that one asker has gone is no reason to know less.
		go s.look(context.WithoutCancel(ctx), p.look)
	}
	p.mu.Unlock()
	wait := time.NewTimer(lookTimeout)
	defer wait.Stop()
	select {
	case <-s.done:
		return s, true
	case <-wait.C:
		return s, false
	}
}

func (s *sight) look(ctx context.Context, look func(context.Context) publisher.Status) {
	defer close(s.done)
	if s.connected = s.of.IsConnected(); !s.connected {
		s.problem = s.of.LastError()
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout-lookSlack)
	defer cancel()
	s.status = look(ctx)
}

func wrong(problem string) Check { return Check{Problem: problem} }

func check(err error) Check {
	if err != nil {
		return wrong(err.Error())
	}
	return Check{OK: true}
}

// commits says whether commits fail for too long.
func commits(since time.Time, err error) Check {
	if since.IsZero() || time.Since(since) < commitPatience {
		return Check{OK: true}
	}
	return wrong(fmt.Sprintf("nothing could be committed for %v, so readers see what was true then; what is seen meanwhile is kept: %v",
		time.Since(since).Round(time.Second), err))
}
