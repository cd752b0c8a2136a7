package natsd

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"

	"github.com/rollcall-events/rollcall/internal/query"
	"github.com/rollcall-events/rollcall/internal/test/wait"
	"github.com/rollcall-events/rollcall/schemas"
)

// answering has questions about tenant 886 answered, as rollcall does, until the test ends.
func answering(t *testing.T, s *Server) {
	t.Helper()
	nc, err := s.Connect()
	if err != nil {
		t.Fatal(err)
	}
	second, err := s.Connect()
	if err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	q := query.New(query.Config{Tenant: 886, JetStream: js, Consumer: ReservedConsumer})
	err = errors.Join(q.Answer(nc), q.Refuse(second), nc.Flush(), second.Flush())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := q.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		nc.Close()
		second.Close()
	})
}

// A reader can ask rollcall, and find it as a service; where nobody answers, it is told at once.
func TestReaderAsks(t *testing.T) {
	s := start(t, Config{})
	_, js := own(t, s)
	typ, at := "10", time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)
	body, err := json.Marshal(schemas.Event{Type: schemas.Online, Time: at, Data: schemas.EventData{
		Revision: 1, Reason: schemas.Status, Online: true, Since: at,
		Agent: schemas.Agent{AgentID: 5, TenantID: 886, OnlineStatus: 1, Type: &typ}}})
	if err != nil {
		t.Fatal(err)
	}
	publish(t, js, "state.886.5", string(body))
	nc, _ := reader(t, s)
	const counts = "rollcall.query.886.counts"
	if _, err := nc.Request(counts, nil, wait.Patience); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("nobody answers: %v", err)
	}
	answering(t, s)
	wait.Eventually(t, "the states to be read", func() bool {
		m, err := nc.Request(counts, nil, wait.Patience)
		if err != nil || len(m.Header) > 0 {
			t.Fatal(m, err)
		}
		var a struct{ Online int }
		if err := json.Unmarshal(m.Data, &a); err != nil {
			t.Fatalf("%v: %s", err, m.Data)
		}
		return a.Online == 1
	})
	for subject, code := range map[string]string{
		"rollcall.query.886.roster": "", "rollcall.query.886.agent": "400",
		"rollcall.query.887.roster": "400", "rollcall.query.x": "400",
		"$SRV.PING": "", "$SRV.INFO": "", "$SRV.STATS.rollcall": "",
	} {
		m, err := nc.Request(subject, nil, wait.Patience)
		if err != nil || m.Header.Get(micro.ErrorCodeHeader) != code {
			t.Errorf("%s: %v %v", subject, m, err)
		}
	}
}
