package followtest_test

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/rollcall-events/rollcall/schemas"
	"github.com/rollcall-events/rollcall/schemas/follow"
	"github.com/rollcall-events/rollcall/schemas/followtest"
)

func TestExample(t *testing.T) { routerTest(t) }

// follower follows a tenant, and waits for what a hand has published.
type follower struct {
	*follow.Roster
	t       *testing.T
	updates chan follow.Update
}

func following(t *testing.T, s *followtest.Server) *follower {
	t.Helper()
	js, err := jetstream.New(s.Connect())
	if err != nil {
		t.Fatal(err)
	}
	f := &follower{follow.New(886), t, make(chan follow.Update, 1000)}
	go func() { _ = f.Run(t.Context(), js, func(u follow.Update) { f.updates <- u }) }()
	return f
}

// has waits until the roster has all that the hand has published, and returns what was told.
func (f *follower) has(h *followtest.Hand) (told []follow.Update) {
	f.t.Helper()
	w, late := h.Watermark(), time.After(2*time.Minute)
	for {
		got := f.Trust(time.Now()).Watermark
		if got != nil && got.Commit == w.Commit {
			return told
		}
		select {
		case u := <-f.updates:
			told = append(told, u)
		case <-late:
			f.t.Fatalf("the roster does not come to %+v, but to %+v", w, got)
		}
	}
}

// says is what the roster says of an agent.
func (f *follower) says(id int64) string {
	e, ok := f.Agent(id)
	if !ok {
		return "unknown"
	}
	d := e.Data
	return fmt.Sprintf("%s %d %s online %t changes %d", e.Type, d.Revision, d.Reason, d.Online,
		len(d.Changes))
}

// Everything that the hand does, as a follower sees it.
func TestHand(t *testing.T) {
	s := followtest.Start(t)
	h := s.Tenant(886)
	f := following(t, s)
	expect := func(what string, agents map[int64]string, err error) {
		t.Helper()
		f.has(h)
		for id, want := range agents {
			if got := f.says(id); got != want {
				t.Errorf("%s: agent %d is %s, want %s", what, id, got, want)
			}
		}
		if got := f.Trust(time.Now()).Err(); !errors.Is(got, err) {
			t.Errorf("%s: trust is %v, want %v", what, got, err)
		}
	}
	expect("at first", nil, follow.ErrNoSweep)
	h.SignIn(1, 2)
	h.List(schemas.Agent{AgentID: 3, OnlineStatus: 0, Type: new("0"), AreaName: new("华东")},
		schemas.Agent{AgentID: 1<<53 + 1, OnlineStatus: 1})
	expect("listed", map[int64]string{
		1:         "agent.online 1 baseline online true changes 0",
		3:         "agent.updated 1 appeared online false changes 0",
		1<<53 + 1: "agent.online 1 appeared online true changes 0"}, nil)
	h.SignOut(1)
	h.List(schemas.Agent{AgentID: 3, Type: new("1"), AreaName: new("华东")})
	expect("changed", map[int64]string{1: "agent.offline 2 status online false changes 1",
		2: "agent.online 1 baseline online true changes 0",
		3: "agent.updated 2 fields online false changes 1"}, nil)
	h.GoStale()
	expect("stale", nil, follow.ErrStale)
	h.Sweep()
	expect("fresh again", nil, nil)
	h.Miss(2)
	expect("missing", map[int64]string{2: "agent.online 1 baseline online true changes 0"}, nil)
	if w := h.Watermark(); w.Missing != 1 || w.Agents != 4 {
		t.Errorf("of one that is missing: %+v", w)
	}
	h.SignIn(2)
	expect("back", map[int64]string{2: "agent.online 1 baseline online true changes 0"}, nil)
	h.Remove(2)
	h.List(schemas.Agent{AgentID: 3, Type: new("1"), DeleteFlag: new(int64(1))})
	expect("removed", map[int64]string{2: "agent.offline 2 removed online false changes 0",
		3: "agent.updated 3 removed online false changes 2"}, nil)
	h.SignIn(2)
	expect("there again", map[int64]string{2: "agent.online 3 appeared online true changes 0"}, nil)
	h.Health(schemas.HealthFailing, schemas.Unreachable)
	expect("failing", nil, nil)
	if got := f.Trust(time.Now()).Health; got == nil || got.State != schemas.HealthFailing {
		t.Errorf("health: %+v", got)
	}
	w := h.Watermark()
	if w.Agents != 3 || w.Online != 2 || w.Types["10"] != (schemas.TypeCounts{Agents: 2, Online: 1,
		Capacity: 1}) {
		t.Errorf("the last watermark: %+v", w)
	}
}

// What the hand publishes is as the schemas say, and each agent's events follow from one another.
func TestValid(t *testing.T) {
	s := followtest.Start(t)
	h, other := s.Tenant(886), s.Tenant(887)
	for i := range int64(12) {
		h.SignIn(i, i+1, i*i)
		other.SignIn(i)
		h.SignOut(i)
		if i%3 == 0 {
			h.Miss(i * i)
		}
		if i%5 == 0 {
			h.Remove(i + 1)
			h.GoStale()
			h.Health(schemas.HealthHolding, schemas.MissingMany)
			h.Health(schemas.HealthOK, "")
		}
	}
	js, err := jetstream.New(s.Connect())
	if err != nil {
		t.Fatal(err)
	}
	c, err := js.OrderedConsumer(t.Context(), schemas.Stream, jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	valid := validators(t)
	revisions, online := map[string]uint64{}, map[string]bool{}
	seen := map[string]int{}
	for pending := uint64(1); pending > 0; {
		m, err := c.Next()
		if err != nil {
			t.Fatal(err)
		}
		meta, err := m.Metadata()
		if err != nil {
			t.Fatal(err)
		}
		pending = meta.NumPending
		kind := strings.Split(m.Subject(), ".")[1]
		seen[kind]++
		schema := cmp.Or(map[string]string{"watermark": "watermark", "health": "health",
			"unobserved": "unobserved"}[kind], "event")
		body, err := jsonschema.UnmarshalJSON(bytes.NewReader(m.Data()))
		if err == nil {
			err = valid[schema].Validate(body)
		}
		if err != nil {
			t.Fatalf("%s: %v: %s", m.Subject(), err, m.Data())
		}
		if schema != "event" || kind == "state" {
			continue
		}
		var e schemas.Event
		if err := e.UnmarshalJSON(m.Data()); err != nil {
			t.Fatal(err)
		}
		who := fmt.Sprint(e.Data.Agent.TenantID, e.Data.Agent.AgentID)
		if e.Data.Revision != revisions[who]+1 {
			t.Errorf("agent %s: revision %d after %d", who, e.Data.Revision, revisions[who])
		}
		if flips := e.Type != schemas.Updated; flips != (online[who] != e.Data.Online) {
			t.Errorf("agent %s: %s at revision %d, online before: %t", who, e.Type, e.Data.Revision,
				online[who])
		}
		revisions[who], online[who] = e.Data.Revision, e.Data.Online
	}
	for _, kind := range []string{"online", "offline", "state", "watermark", "health",
		"unobserved"} {
		if seen[kind] == 0 {
			t.Errorf("nothing on agent.%s; on the others %v", kind, seen)
		}
	}
}

// validators are the schemas by their names.
func validators(t *testing.T) map[string]*jsonschema.Schema {
	t.Helper()
	all := map[string]*jsonschema.Schema{}
	for _, name := range []string{"event", "watermark", "health", "unobserved"} {
		text, _ := schemas.Document(name)
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		c := jsonschema.NewCompiler()
		if err == nil {
			err = c.AddResource(name+".json", doc)
		}
		if err == nil {
			all[name], err = c.Compile(name + ".json")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// A follower comes through a restart and through the loss of the stream, and the agents' revisions
// go on.
func TestRestartAndLoss(t *testing.T) {
	s := followtest.Start(t)
	h := s.Tenant(886)
	f := following(t, s)
	h.SignIn(1, 2)
	f.has(h)
	url := s.URL()
	s.Restart()
	if s.URL() != url {
		t.Errorf("it moved from %s to %s", url, s.URL())
	}
	h.SignOut(1)
	told := f.has(h)
	if !slices.ContainsFunc(told, func(u follow.Update) bool { return u.Err != nil }) {
		t.Error("the restart was not noticed")
	}
	if got, want := f.says(1), "agent.offline 2 status online false changes 1"; got != want {
		t.Errorf("after the restart: %s, want %s", got, want)
	}
	h.LoseStream()
	f.has(h)
	if e, ok := f.Agent(1); !ok || e.Data.Revision <= 2 || e.Data.Online {
		t.Errorf("after the loss: %s", f.says(1))
	}
	h.SignIn(1)
	f.has(h)
	if e, ok := f.Agent(1); !ok || e.Data.Revision != 4 || !e.Data.Online {
		t.Errorf("and then: %s", f.says(1))
	}
}

// A consumer may do what the embedded server lets readers do, and no more.
func TestReader(t *testing.T) {
	s := followtest.Start(t)
	s.Tenant(886)
	denied := make(chan error, 1)
	nc := s.Connect(nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		denied <- err
	}))
	if err := nc.Publish(schemas.StateSubject(886, 1), []byte("forged")); err != nil {
		t.Fatal(err)
	}
	if err := <-denied; !errors.Is(err, nats.ErrPermissionViolation) {
		t.Errorf("a consumer that publishes is told %v", err)
	}
}
