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
	// lookSlack is left of it for the answer, where the broker does not answer.
	lookSlack = 100 * time.Millisecond
	// lookLifetime is how long a look answers further requests, so that asking often costs the
	// broker nothing.
	lookLifetime = time.Second
	// commitTimeout is how long commits may fail while the leader is still ready: longer than a
	// cluster takes to elect a leader. Readers stop trusting the stream at about the same time.
	commitTimeout = 15 * time.Second
)

// Broker is the connection to NATS; *nats.Conn is one. Its methods may be called at any time, from
// any goroutine.
type Broker interface {
	IsConnected() bool
	LastError() error // nil: nothing has gone wrong
}

// Stream is the tenant's part of the stream; see [publisher.Publisher].
type Stream interface {
	Leading() bool
	Failing() (since time.Time, err error)
	Status(context.Context) publisher.Status
}

// Loop is what polls the tenant; see [engine.Engine].
type Loop interface {
	Status() engine.Status
}

// Process is the state of a rollcall process. It is told how far the start has come, and asks the
// parts that are there. Its methods may be called from any goroutine.
type Process struct {
	instance string
	now      func() time.Time

	mu         sync.Mutex // guards what follows
	waitingFor string     // what the start waits for
	cause      error      // why it has to
	broker     Broker
	status     func(context.Context) publisher.Status
	stream     Stream
	loop       Loop
	tenant     int64
	stopping   bool
	ending     string // what the end waits for
	lastLook   *look  // at the broker; it may be under way; nil: none
}

// A look at the broker, and what it shows.
type look struct {
	at        Broker
	begun     time.Time
	done      chan struct{} // closed when what follows is set
	connected bool
	problem   error
	status    publisher.Status
}

// NewProcess returns a Process that has only just begun. A nil now is [time.Now].
func NewProcess(instance string, now func() time.Time) *Process {
	if now == nil {
		now = time.Now
	}
	return &Process{instance: instance, now: now, waitingFor: "the connection to NATS"}
}

func (p *Process) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

// Connected says that there is a connection to NATS, and how to ask for the stream's status.
func (p *Process) Connected(b Broker, status func(context.Context) publisher.Status) {
	p.set(func() { p.broker, p.status = b, status })
}

// Waiting says what the start waits for, and why it has to; "": it waits no longer.
func (p *Process) Waiting(what string, why error) {
	p.set(func() { p.waitingFor, p.cause = what, why })
}

// Running says that the start is over, and whose agents are polled.
func (p *Process) Running(tenant int64, stream Stream, loop Loop) {
	p.set(func() {
		p.tenant, p.stream, p.status, p.loop = tenant, stream, stream.Status, loop
		p.waitingFor, p.cause = "", nil
		p.lastLook = nil // it asked another
	})
}

// Stopping says that the end has begun.
func (p *Process) Stopping() { p.set(func() { p.stopping = true }) }

// Ending says what the end waits for, for [Process.Unfinished].
func (p *Process) Ending(what string) { p.set(func() { p.ending = what }) }

// Unfinished says what the end waits for, and how many changes are not known to be published.
func (p *Process) Unfinished() (what string, unpublished int) {
	p.mu.Lock()
	what, loop := p.ending, p.loop
	if what == "" {
		what = p.waitingFor
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

	Leader    string     `json:"leader,omitempty"` // the instance that polls; none or not known
	Watermark *Watermark `json:"watermark"`        // null: none, or not known
	Health    *Health    `json:"health"`           // null: not known yet
	// LastSweep of this replica: complete, or the class of its error.
	LastSweep string `json:"lastSweep,omitempty"`
}

// Summary is what matters most of it, in a line.
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
		health := "health " + r.Health.State + ": " + r.Health.Reason
		parts = append(parts, strings.TrimSuffix(health, ": "))
	}
	if r.Watermark != nil {
		age := time.Duration(r.Watermark.AgeSeconds * float64(time.Second))
		watermark := fmt.Sprintf("the watermark is %v old", age.Round(100*time.Millisecond))
		if r.Watermark.Stale {
			watermark += " and stale"
		}
		parts = append(parts, watermark)
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

// Watermark is how fresh the published state is.
type Watermark struct {
	Sweep      uint64    `json:"sweep"`
	StartedAt  time.Time `json:"startedAt"`
	AgeSeconds float64   `json:"ageSeconds"` // since StartedAt
	StaleAfter time.Time `json:"staleAfter"`
	NextBy     time.Time `json:"nextBy,omitzero"`
	GlancedAt  time.Time `json:"glancedAt,omitzero"`
	Stale      bool      `json:"stale"` // StaleAfter or NextBy has passed
}

// Health is what the tenant's health is.
type Health struct {
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
}

// Readiness asks the parts how they are. It takes less than a second.
func (p *Process) Readiness(ctx context.Context) Readiness {
	p.mu.Lock()
	r := Readiness{
		Instance: p.instance, Tenant: p.tenant, Role: RoleStarting, WaitingFor: p.waitingFor,
	}
	cause, broker, stream, loop, stopping := p.cause, p.broker, p.stream, p.loop, p.stopping
	p.mu.Unlock()
	if cause != nil {
		r.WaitingFor = fmt.Sprintf("%s: %v", r.WaitingFor, cause)
	}

	var seen publisher.Status
	if broker == nil {
		r.NATS = wrong("not connected yet")
	} else if l, ok := p.look(ctx); !ok {
		r.NATS = wrong(fmt.Sprintf("the connection to NATS has not answered for %v: "+
			"it is reconnecting, or the server hangs; what is seen meanwhile is kept",
			time.Since(l.begun).Round(100*time.Millisecond)))
	} else if !l.connected {
		r.NATS = wrong("not connected, trying again; what is seen meanwhile is kept")
		if l.problem != nil {
			r.NATS.Problem += ": " + l.problem.Error()
		}
	} else {
		r.NATS = Check{OK: true}
		seen = l.status
		r.Stream, r.Lease = check(seen.Stream), check(seen.Lease)
	}
	if !r.NATS.OK {
		unknown := wrong("not known without NATS")
		r.Stream, r.Lease = unknown, unknown
	}
	var own engine.Status
	switch {
	case stream == nil:
	case stream.Leading():
		own, r.Role, seen.Leader = loop.Status(), RoleLeader, p.instance
		c := commits(stream.Failing())
		r.Commits = &c
	default:
		r.Role = RoleStandby
	}
	if stopping {
		r.Role = RoleStopping
	}
	r.Ready = !stopping && r.NATS.OK && r.Stream.OK && r.Lease.OK &&
		(r.Commits == nil || r.Commits.OK)
	p.describe(&r, seen, own)
	return r
}

// describe fills in what never makes a replica unready: what the loop knows, where this replica
// leads, else what the stream says.
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
			NextBy: w.NextBy.UTC(), GlancedAt: w.GlancedAt.UTC(),
			AgeSeconds: now.Sub(w.StartedAt).Round(time.Millisecond).Seconds(),
			Stale:      now.After(w.TrustedUntil()),
		}
	}
	switch {
	case own.State != "":
		r.Health = &Health{string(own.State), string(own.Reason)}
	case seen.Health != nil:
		r.Health = &Health{string(seen.Health.State), string(seen.Health.Reason)}
	}
}

// look looks at the broker, or returns the look of just now. It waits for at most lookTimeout: not
// even the question whether there is a connection is always answered at once, since the client
// holds its lock while it connects. ok is false where the look is still under way; there is one at
// a time.
func (p *Process) look(ctx context.Context) (l *look, ok bool) {
	p.mu.Lock()
	l = p.lastLook
	fresh := l != nil && l.at == p.broker
	if fresh {
		select {
		case <-l.done:
			fresh = time.Since(l.begun) < lookLifetime
		default: // under way
		}
	}
	if !fresh {
		l = &look{at: p.broker, begun: time.Now(), done: make(chan struct{})}
		p.lastLook = l
		go l.do(context.WithoutCancel(ctx), p.status) // others wait for it too
	}
	p.mu.Unlock()
	wait := time.NewTimer(lookTimeout)
	defer wait.Stop()
	select {
	case <-l.done:
		return l, true
	case <-wait.C:
		return l, false
	}
}

func (l *look) do(ctx context.Context, status func(context.Context) publisher.Status) {
	defer close(l.done)
	if l.connected = l.at.IsConnected(); !l.connected {
		l.problem = l.at.LastError()
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout-lookSlack)
	defer cancel()
	l.status = status(ctx)
}

func wrong(problem string) Check { return Check{Problem: problem} }

func check(err error) Check {
	if err != nil {
		return wrong(err.Error())
	}
	return Check{OK: true}
}

// commits reports whether commits have failed for too long.
func commits(since time.Time, err error) Check {
	if since.IsZero() || time.Since(since) < commitTimeout {
		return Check{OK: true}
	}
	return wrong(fmt.Sprintf("nothing could be committed for %v, so readers see what was true "+
		"then; what is seen meanwhile is kept: %v", time.Since(since).Round(time.Second), err))
}
