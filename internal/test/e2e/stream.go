//go:build unix

package e2e

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/internal/test/checker"
	"github.com/rollcall-events/rollcall/internal/test/wait"
)

// Stream is the stream's name.
const Stream = "AGENT_EVENTS"

// Msg is one message of the stream.
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

// ReadStream reads the stream from a sequence on, up to its present end; filters as of a consumer,
// none: everything.
func ReadStream(t testing.TB, nc *nats.Conn, from uint64, filters ...string) []Msg {
	t.Helper()
	return read(t, nc, jetstream.OrderedConsumerConfig{
		FilterSubjects: filters, DeliverPolicy: jetstream.DeliverByStartSequencePolicy,
		OptStartSeq: max(from, 1),
	})
}

// Roster reads every agent's state, as a new subscriber would: by agentId.
func Roster(t testing.TB, nc *nats.Conn, tenant int64) map[int64]Msg {
	t.Helper()
	states := make(map[int64]Msg)
	for _, m := range read(t, nc, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{fmt.Sprintf("agent.state.%d.*", tenant)},
		DeliverPolicy:  jetstream.DeliverLastPerSubjectPolicy,
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
	msgs, err := checker.ReadAs(ctx, nc, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return converted(msgs)
}

func converted(in []checker.Message) (out []Msg) {
	for _, m := range in {
		out = append(out, Msg{m.Subject, m.Seq, m.Header, string(m.Body)})
	}
	return out
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
	*checker.Recording
	nc *nats.Conn
}

// Record subscribes to agent.> at a server that may still have to start. Ready says when the
// subscription is in place.
func Record(t testing.TB, url string) *Recorder {
	t.Helper()
	nc := Connect(t, url)
	r, err := checker.Record(nc, 0)
	if err != nil {
		t.Fatal(err)
	}
	return &Recorder{r, nc}
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
	ctx, cancel := context.WithTimeout(context.Background(), wait.Patience)
	defer cancel()
	err := r.Wait(ctx, seq)
	if dropped, foreign := r.Dropped(); dropped+foreign > 0 {
		err = errors.Join(err,
			fmt.Errorf("on agent.> there were %d messages too many to keep and %d that the "+
				"stream has not republished", dropped, foreign))
	}
	if err != nil {
		t.Fatal(err)
	}
	msgs := converted(r.Messages())
	for i, m := range msgs {
		if m.Seq >= seq {
			return msgs[:i+1]
		}
	}
	return msgs
}
