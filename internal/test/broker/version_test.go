package broker

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-events/rollcall/internal/test/wait"
	"github.com/rollcall-events/rollcall/publisher"
)

// A server that is too old is refused by name, also where it comes with a reconnect: in a cluster
// of several versions, or after a downgrade. What is in the stream stays exact, and the next start
// on a newer server goes on.
func TestOldServer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		old string
		set func(r *rig, p *process) // what goes on when the older server comes
	}{
		{"2.12.7", func(r *rig, p *process) {}},
		{"2.12.8-RC.1", func(r *rig, p *process) { r.flip(r.agents[:flippers]...) }},
		{"2.12.0", func(r *rig, p *process) { // a commit is under way
			swallowed := p.proxy.on(&rule{match: commitMessage, act: swallow})
			r.flip(r.agents[:flippers]...)
			<-swallowed.fired
		}},
	} {
		t.Run(c.old, func(t *testing.T) {
			r := newRig(t, nil, 30, 886)
			p := r.start()
			r.settle(p)
			c.set(r, p)
			p.proxy.says(version(c.old))
			p.proxy.drop()
			p.refuses("version "+c.old, publisher.MinVersion+" or later")

			p = r.newProcess()
			p.proxy.says(version(c.old))
			p.start()
			p.refuses("version " + c.old)
			r.finish(r.start())
		})
	}
}

// A replica that stands by refuses such a server too, and does not wait for its turn to say so; the
// one that leads goes on.
func TestOldServerWhileStandingBy(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil, 30, 886)
	r.pub = func(c *publisher.Config) { c.Exclusive = false }
	leads := r.start()
	r.settle(leads)
	p := r.start()
	wait.Eventually(t, "the other one to stand by", func() bool { return p.log.has("standing by") })
	p.proxy.says(version("2.12.7"))
	p.proxy.drop()
	p.refuses("version 2.12.7")
	r.finish(leads)
}

// refuses waits until the process has ended by itself, since the broker is not what it needs.
func (p *process) refuses(wants ...string) {
	t := p.r.t
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(wait.Patience):
		t.Fatal("it goes on")
	}
	if !errors.As(p.err, new(*publisher.SetupError)) {
		t.Errorf("it ended with %v", p.err)
		return
	}
	for _, want := range wants {
		if !strings.Contains(p.err.Error(), want) {
			t.Errorf("%q does not say %q", p.err, want)
		}
	}
}
