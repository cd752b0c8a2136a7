//go:build unix

package examples

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/internal/test/e2e"
	"github.com/rollcall-events/rollcall/internal/test/wait"
	"github.com/rollcall-events/rollcall/schemas"
	"github.com/rollcall-events/rollcall/schemas/follow"
)

// A consumer of a demo that plays a scenario: a roster that follows, and all that it was told.
type consumer struct {
	t      *testing.T
	demo   *e2e.Process
	nc     *nats.Conn
	roster *follow.Roster

	mu  sync.Mutex
	got []follow.Update
}

var demoNATS = regexp.MustCompile(`(?m)^  NATS +(nats://127\.0\.0\.1:\d+) `)

// playing starts a scenario of those that are shipped, and follows it from its beginning.
func playing(t *testing.T, name string) *consumer {
	t.Helper()
	script, err := filepath.Abs(filepath.Join("scenarios", name+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	demo := e2e.Rollcall(t, map[string]string{"TMPDIR": t.TempDir()}, "demo", "--script", script)
	var url string
	wait.Eventually(t, "the demo to say where NATS is", func() bool {
		if !demo.Running() {
			t.Fatalf("the demo has ended: exit %d", demo.Wait())
		}
		m := demoNATS.FindStringSubmatch(demo.Stdout())
		if m != nil {
			url = m[1]
		}
		return m != nil
	})
	c := &consumer{t: t, demo: demo, nc: e2e.Connect(t, url), roster: follow.New(tenant)}
	js, err := jetstream.New(c.nc)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.roster.Run(ctx, js, func(u follow.Update) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.got = append(c.got, u)
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	return c
}

// updates are those so far.
func (c *consumer) updates() []follow.Update {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.got)
}

// over waits until the scenario is over and a sweep that began later has been published.
func (c *consumer) over() {
	c.t.Helper()
	c.demo.WaitFor("SCRIPT   the scenario is over\n")
	end := time.Now()
	wait.Eventually(c.t, "a later sweep", func() bool {
		trust := c.roster.Trust(time.Now())
		return trust.Err() == nil && trust.Watermark.StartedAt.After(end)
	})
}

// agent is an agent's state, which must be there.
func (c *consumer) agent(id int64) *schemas.Event {
	c.t.Helper()
	e, ok := c.roster.Agent(id)
	if !ok {
		c.t.Fatalf("there is no agent %d", id)
	}
	return e
}

// healths are the states of health that the consumer was told, each once in a row.
func (c *consumer) healths() (all []schemas.Health) {
	for _, u := range c.updates() {
		if u.Health != nil {
			all = append(all, *u.Health)
		}
	}
	return slices.CompactFunc(all, func(a, b schemas.Health) bool {
		return a.State == b.State && a.Reason == b.Reason
	})
}

// health waits until the consumer has been told that health.
func (c *consumer) health(state schemas.HealthState, reason schemas.HealthReason) {
	c.t.Helper()
	wait.Eventually(c.t, "health "+string(state)+" "+string(reason), func() bool {
		return slices.ContainsFunc(c.healths(), func(h schemas.Health) bool {
			return h.State == state && h.Reason == reason
		})
	})
}

// events are all in the stream, by agent, each agent's in order.
func (c *consumer) events() map[int64][]schemas.Event {
	c.t.Helper()
	all := map[int64][]schemas.Event{}
	for _, m := range e2e.ReadStream(c.t, c.nc, 1, schemas.EventFilters(tenant)...) {
		var e schemas.Event
		if err := e.UnmarshalJSON([]byte(m.Body)); err != nil {
			c.t.Fatal(err)
		}
		id := e.Data.Agent.AgentID
		all[id] = append(all[id], e)
	}
	return all
}

// One connection flaps slowly enough to be read, another one too fast: of both, online and offline
// alternate without a gap, and in the end they are as they were.
func TestScenarioFlapping(t *testing.T) {
	t.Parallel()
	c := playing(t, "flapping")
	c.over()
	all := c.events()
	for _, id := range []int64{17813, 17814} {
		events := all[id]
		// What flips ten times a second may be found in the same state at every reading.
		if id == 17813 && len(events) < 3 {
			t.Errorf("agent %d has %d events", id, len(events))
		}
		for i, e := range events {
			if e.Data.Revision != uint64(i+1) {
				t.Errorf("agent %d: event %d has revision %d", id, i+1, e.Data.Revision)
			}
			if i > 0 && e.Data.Online == events[i-1].Data.Online {
				t.Errorf("agent %d: revisions %d and %d are both online: %t", id, i, i+1,
					e.Data.Online)
			}
			if i > 0 && e.Data.Reason != schemas.Status {
				t.Errorf("agent %d: revision %d is for the reason %s", id, i+1, e.Data.Reason)
			}
		}
		if got := c.agent(id); got.Data.Online != events[0].Data.Online {
			t.Errorf("agent %d ends with online %t, as it did not begin", id, got.Data.Online)
		}
	}
	for id, events := range all {
		if id > 17814 && len(events) != 1 {
			t.Errorf("agent %d has %d events, though nothing happens to it", id, len(events))
		}
	}
}

// While the vendor does not answer, the roster stays and is not to be trusted. What happened
// meanwhile comes with the first fresh watermark, and says between when it happened.
func TestScenarioStaleness(t *testing.T) {
	t.Parallel()
	c := playing(t, "staleness")
	c.demo.WaitFor("the vendor answers nothing")
	wait.Eventually(t, "the roster to be stale", func() bool {
		return errors.Is(c.roster.Trust(time.Now()).Err(), follow.ErrStale)
	})
	if n := len(c.roster.Agents()); n != 40 {
		t.Errorf("the stale roster has %d of 40 agents", n)
	}
	c.health(schemas.HealthFailing, schemas.Unreachable)
	c.demo.WaitFor("agent 17813: signed out")
	if e := c.agent(17813); !e.Data.Online {
		t.Errorf("a sign-out that nobody can have read: %+v", e)
	}
	c.over()
	unobserved := e2e.ReadStream(t, c.nc, 1, schemas.UnobservedSubject(tenant))
	if len(unobserved) != 1 {
		t.Fatalf("%d unobserved intervals: %+v", len(unobserved), unobserved)
	}
	var u schemas.Unobserved
	if err := json.Unmarshal([]byte(unobserved[0].Body), &u); err != nil {
		t.Fatal(err)
	}
	e := c.agent(17813)
	if e.Type != schemas.Offline || e.Data.Reason != schemas.Status ||
		e.Data.NotBefore.After(u.To) || e.Time.Before(u.To) {
		t.Errorf("the sign-out that came late: %+v; nobody looked from %v to %v", e, u.From, u.To)
	}
	if u.To.Sub(u.From) < 5*time.Second || u.Health != schemas.Unreachable {
		t.Errorf("the time in which nobody looked: %+v", u)
	}
	for id, events := range c.events() {
		if id != 17813 && len(events) != 1 {
			t.Errorf("agent %d has %d events, though nothing happens to it", id, len(events))
		}
	}
}

// Agents that go missing in bulk are held: nobody is signed out, and health says so until they are
// back.
func TestScenarioHolding(t *testing.T) {
	t.Parallel()
	c := playing(t, "holding")
	c.health(schemas.HealthHolding, schemas.MissingMany)
	wait.Eventually(t, "a watermark that counts them", func() bool {
		w := c.roster.Trust(time.Now()).Watermark
		return w != nil && w.Missing == 24 && w.Agents == 40
	})
	c.over()
	if w := c.roster.Trust(time.Now()).Watermark; w.Missing != 0 || w.Agents != 40 {
		t.Errorf("in the end: %+v", w)
	}
	if h := c.healths(); h[len(h)-1].State != schemas.HealthOK {
		t.Errorf("health ends with %+v", h)
	}
	for id, events := range c.events() {
		if len(events) != 1 {
			t.Errorf("agent %d has %d events, though it never left", id, len(events))
		}
	}
}

// Agents that leave the listing or are deleted are removed, and signed out by that; one that comes
// back appears, at a higher revision.
func TestScenarioRemoval(t *testing.T) {
	t.Parallel()
	c := playing(t, "removal")
	for _, id := range []int64{17813, 17814, 17815} {
		wait.Eventually(t, "a removal", func() bool {
			e, ok := c.roster.Agent(id)
			return ok && e.Data.Reason == schemas.Removed
		})
		if e := c.agent(id); e.Type != schemas.Offline || e.Data.Online ||
			e.Data.PreviousSince.IsZero() {
			t.Errorf("the removal of agent %d: %+v", id, e)
		}
	}
	removed := c.agent(17813).Data.Revision
	c.over()
	if e := c.agent(17813); e.Type != schemas.Online || e.Data.Reason != schemas.Appeared ||
		e.Data.Revision != removed+1 {
		t.Errorf("who came back after revision %d: %+v", removed, e)
	}
	if w := c.roster.Trust(time.Now()).Watermark; w.Agents != 38 || w.Missing != 0 {
		t.Errorf("in the end: %+v", w)
	}
	if n := len(c.roster.Agents()); n != 40 {
		t.Errorf("%d states: those of removed agents stay", n)
	}
}

// The stream is begun anew. A consumer that follows has all agents again, above the revisions that
// it knows, though the stream's sequences begin at 1.
func TestScenarioLostStream(t *testing.T) {
	t.Parallel()
	c := playing(t, "lost-stream")
	c.demo.WaitFor("the stream is lost, and begun anew\n")
	c.over()
	updates := c.updates()
	lost := slices.IndexFunc(updates, func(u follow.Update) bool { return u.Err != nil })
	if lost < 0 {
		t.Fatal("the consumer was not told of any interruption")
	}
	if !slices.ContainsFunc(updates[lost:], func(u follow.Update) bool { return u.Anew }) {
		t.Error("the consumer did not begin anew")
	}
	highest := map[int64]uint64{}
	for _, u := range updates[:lost] {
		if u.State != nil {
			highest[u.State.Data.Agent.AgentID] = u.State.Data.Revision
		}
	}
	all := c.events()
	if len(all) != 40 {
		t.Errorf("%d agents are in the new stream", len(all))
	}
	for id, events := range all {
		if first := events[0].Data.Revision; first <= highest[id] || first < 2 {
			t.Errorf("agent %d goes on with revision %d after %d", id, first, highest[id])
		}
	}
	if c.agent(17813).Data.Online == all[17813][0].Data.Online {
		t.Error("the change after the loss is not there")
	}
	if h := c.roster.Trust(time.Now()).Health; h == nil || !strings.Contains(h.Detail, "lost") {
		t.Errorf("health does not say that something was lost: %+v", h)
	}
}
