//go:build unix

package e2e

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/internal/test/wait"
)

// Stream is the log's name.
const Stream = "AGENT_EVENTS"

// Msg is one message of the log.
type Msg struct {
	Subject string
	Seq     uint64
	Header  nats.Header
	Body    string
}

// Tokens are the tokens of the message's subject.
func (m Msg) Tokens() []string { return strings.Split(m.Subject, ".") }

// IsEvent reports whether the message is an event.
func (m Msg) IsEvent() bool {
	kind := m.Tokens()[1]
	return kind == "online" || kind == "offline" || kind == "updated"
}

// ReadLog reads the log from a sequence on, up to its present end; filters as of a consumer, none:
// everything.
func ReadLog(t testing.TB, nc *nats.Conn, from uint64, filters ...string) []Msg {
	t.Helper()
	return read(t, nc, jetstream.OrderedConsumerConfig{
		FilterSubjects: filters, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: max(from, 1),
	})
}

// Roster reads every agent's state, as a new subscriber would: by agentId.
func Roster(t testing.TB, nc *nats.Conn, tenant int64) map[int64]Msg {
	t.Helper()
	states := make(map[int64]Msg)
	for _, m := range read(t, nc, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{fmt.Sprintf("agent.state.%d.*", tenant)}, DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy,
	}) {
		id, err := strconv.ParseInt(m.Tokens()[3], 10, 64)
		if err != nil {
			t.Fatalf("subject %s: %v", m.Subject, err)
		}
		states[id] = m
	}
	return states
}

func read(t testing.TB, nc *nats.Conn, cfg jetstream.OrderedConsumerConfig) []Msg {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wait.Patience)
	defer cancel()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	c, err := js.OrderedConsumer(ctx, Stream, cfg)
	if err != nil {
		t.Fatalf("read the log: %v", err)
	}
	var msgs []Msg
	if c.CachedInfo().NumPending == 0 {
		return msgs
	}
	it, err := c.Messages()
	if err != nil {
		t.Fatalf("read the log: %v", err)
	}
	defer it.Stop()
	for {
		m, err := it.Next(jetstream.NextContext(ctx))
		if err != nil {
			t.Fatalf("read the log: %v", err)
		}
		meta, err := m.Metadata()
		if err != nil {
			t.Fatalf("read the log: %v", err)
		}
		msgs = append(msgs, Msg{m.Subject(), meta.Sequence.Stream, m.Headers(), string(m.Data())})
		if meta.NumPending == 0 {
			return msgs
		}
	}
}

// Last reads the last message of a subject, and reports whether there is one that can be had just
// now.
func Last(nc *nats.Conn, subject string) (Msg, bool) {
	m, err := nc.Request("$JS.API.DIRECT.GET."+Stream+"."+subject, nil, 2*time.Second)
	if err != nil || m.Header.Get("Nats-Subject") == "" {
		return Msg{}, false
	}
	seq, err := strconv.ParseUint(m.Header.Get("Nats-Sequence"), 10, 64)
	return Msg{m.Header.Get("Nats-Subject"), seq, m.Header, string(m.Data)}, err == nil
}

// A Recorder is a plain subscriber of everything that is committed: what came, in the order in
// which it came. Its methods may be called from any goroutine.
type Recorder struct {
	nc *nats.Conn

	mu   sync.Mutex
	msgs []Msg
	bad  []string // messages that can't be the log's
}

// Record subscribes to agent.> at a server that may still have to start. Ready says when the
// subscription is in place.
func Record(t testing.TB, url string) *Recorder {
	t.Helper()
	r := &Recorder{nc: Connect(t, url)}
	sub, err := r.nc.Subscribe("agent.>", func(m *nats.Msg) {
		r.mu.Lock()
		defer r.mu.Unlock()
		seq, err := strconv.ParseUint(m.Header.Get("Nats-Sequence"), 10, 64)
		if err != nil {
			r.bad = append(r.bad, m.Subject)
		}
		r.msgs = append(r.msgs, Msg{m.Subject, seq, m.Header, string(m.Data)})
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		t.Fatal(err)
	}
	return r
}

// Ready waits until the subscription is in place, also after the server has come back.
func (r *Recorder) Ready(t testing.TB) {
	t.Helper()
	wait.Eventually(t, "the plain subscription to be in place", func() bool {
		return r.nc.IsConnected() && r.nc.FlushTimeout(time.Second) == nil
	})
}

// Through waits until the message with the sequence has come, and returns all up to it.
func (r *Recorder) Through(t testing.TB, seq uint64) []Msg {
	t.Helper()
	var msgs []Msg
	wait.Eventually(t, fmt.Sprintf("message %d on a plain subscription", seq), func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, subject := range r.bad {
			t.Errorf("a message on %s has no Nats-Sequence", subject)
		}
		r.bad = nil
		for i, m := range r.msgs {
			if m.Seq >= seq {
				msgs = r.msgs[:i+1]
				return true
			}
		}
		return false
	})
	return msgs
}
