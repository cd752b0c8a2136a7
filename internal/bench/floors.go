package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/rollcall-events/rollcall/schemas"
)

const (
	floorStream = "BENCH"
	floorPrefix = "bench-log." // what floorStream takes …
	floorStored = "bench."     // … and stores it as

	// commitChanges is how many changed agents fit into one commit: the server takes 1000 messages
	// a batch.
	commitChanges = 498
)

// A state is the last message of a state's subject.
type state struct {
	agent int64
	body  []byte
}

// agentOf is the agent that a subject names.
func agentOf(subject string) (int64, error) {
	return strconv.ParseInt(subject[strings.LastIndexByte(subject, '.')+1:], 10, 64)
}

// readStates reads the last message of every state's subject, as cheaply as a client can, and
// returns how long that took.
func (b *broker) readStates(ctx context.Context, keep bool) (took time.Duration, states []state) {
	runtime.GC()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	began := time.Now()
	c := get(b.js.OrderedConsumer(ctx, schemas.Stream, jetstream.OrderedConsumerConfig{
		DeliverPolicy:  jetstream.DeliverLastPerSubjectPolicy,
		FilterSubjects: []string{schemas.StateFilter(tenantID)},
	}))
	messages := get(c.Messages(jetstream.PullMaxMessages(10_000)))
	defer messages.Stop()
	for {
		m := get(messages.Next(jetstream.NextContext(ctx)))
		if keep {
			states = append(states, state{get(agentOf(m.Subject())), m.Data()})
		}
		if get(m.Metadata()).NumPending == 0 {
			return time.Since(began), states
		}
	}
}

// A floor writes what rollcall writes, on a stream of the same configuration, and does nothing
// else.
type floor struct {
	b    *broker
	mark []byte // the body of a watermark
	last uint64 // where the last watermark stands
}

// newFloor creates the stream, empty.
func newFloor(ctx context.Context, b *broker, mark []byte) *floor {
	c := get(b.js.Stream(ctx, schemas.Stream)).CachedInfo().Config
	c.Name, c.Subjects = floorStream, []string{floorPrefix + ">"}
	from, to := floorPrefix+">", floorStored+">"
	c.SubjectTransform = &jetstream.SubjectTransformConfig{Source: from, Destination: to}
	c.RePublish = &jetstream.RePublish{Source: to, Destination: to}
	get(b.js.CreateStream(ctx, c))
	return &floor{b: b, mark: mark}
}

// message is one with the headers that such a message of rollcall's has.
func message(kind, rest string, body []byte) *nats.Msg {
	m := nats.NewMsg(fmt.Sprintf("%s%s.%d%s", floorPrefix, kind, tenantID, rest))
	m.Data = body
	m.Header.Set("Content-Type", schemas.ContentTypeEvent)
	switch kind {
	case "watermark":
		m.Header.Set("Content-Type", schemas.ContentTypeJSON)
		fallthrough
	case "state":
		m.Header.Set(jetstream.MsgRollup, jetstream.MsgRollupSubject)
	default:
		m.Header.Set(jetstream.MsgTTLHeader, "604800")
	}
	return m
}

// commits makes the commits that bring these states, as rollcall would: all events, then all
// states, then the watermark.
func (f *floor) commits(states []state) (all [][]*nats.Msg) {
	for len(states) > 0 {
		n := min(len(states), commitChanges)
		msgs := make([]*nats.Msg, 0, 2*n+1)
		for _, s := range states[:n] {
			kind := "offline"
			if bytes.Contains(s.body, []byte(`"agent.online"`)) {
				kind = "online"
			}
			msgs = append(msgs, message(kind, fmt.Sprintf(".10.%d", s.agent), s.body))
		}
		for _, s := range states[:n] {
			msgs = append(msgs, message("state", fmt.Sprintf(".%d", s.agent), s.body))
		}
		all = append(all, append(msgs, message("watermark", "", f.mark)))
		states = states[n:]
	}
	return all
}

// commit publishes one atomic batch, fenced like rollcall's, and returns how long that took.
func (f *floor) commit(ctx context.Context, msgs []*nats.Msg) time.Duration {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	began := time.Now()
	mark := msgs[len(msgs)-1]
	mark.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(f.last, 10))
	control := jetstreamext.BatchFlowControl{AckFirst: true, AckEvery: 200, AckTimeout: time.Minute}
	f.last = get(jetstreamext.PublishMsgBatch(ctx, f.b.js, msgs, control)).Sequence
	return time.Since(began)
}

// batches publishes the states in full commits, one after another, and returns how many a second
// that made, and how many microseconds of the client's CPU each took.
func (f *floor) batches(ctx context.Context, states []state) (rate, cpu float64) {
	all := f.commits(states)
	runtime.GC()
	before, began := get(cpuTime(os.Getpid())), time.Now()
	for _, msgs := range all {
		f.commit(ctx, msgs)
	}
	n, took, used := float64(len(states)), time.Since(began), get(cpuTime(os.Getpid()))-before
	return n / took.Seconds(), micros(used) / n
}

// singles publishes one change a commit, one after another, and returns how many milliseconds each
// took.
func (f *floor) singles(ctx context.Context, states []state, n int) (took []float64) {
	for i := range n {
		took = append(took, millis(f.commit(ctx, f.commits(states[i%len(states):][:1])[0])))
	}
	return took
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
func millis(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }
