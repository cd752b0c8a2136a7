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
	commitChanges = 499
)

// a logged state is the last message of a state's subject.
type logged struct {
	agent int64
	body  []byte
}

// readStates reads the last message of every state's subject, as cheaply as a client can, and
// returns how long that took.
func (b *broker) readStates(ctx context.Context, keep bool) (took time.Duration, states []logged, err error) {
	runtime.GC()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	began := time.Now()
	c, err := b.js.OrderedConsumer(ctx, schemas.Stream, jetstream.OrderedConsumerConfig{
		DeliverPolicy:  jetstream.DeliverLastPerSubjectPolicy,
		FilterSubjects: []string{schemas.StateFilter(tenantID)},
	})
	if err != nil {
		return 0, nil, fmt.Errorf("read the states: %w", err)
	}
	messages, err := c.Messages(jetstream.PullMaxMessages(10_000))
	if err != nil {
		return 0, nil, fmt.Errorf("read the states: %w", err)
	}
	defer messages.Stop()
	for {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return 0, nil, fmt.Errorf("read the states: %w", err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return 0, nil, fmt.Errorf("read the states: %w", err)
		}
		if keep {
			id, err := strconv.ParseInt(m.Subject()[strings.LastIndexByte(m.Subject(), '.')+1:], 10, 64)
			if err != nil {
				return 0, nil, fmt.Errorf("read the states: %w", err)
			}
			states = append(states, logged{id, m.Data()})
		}
		if meta.NumPending == 0 {
			return time.Since(began), states, nil
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
func newFloor(ctx context.Context, b *broker, mark []byte) (*floor, error) {
	s, err := b.js.Stream(ctx, schemas.Stream)
	if err != nil {
		return nil, fmt.Errorf("look at the log's configuration: %w", err)
	}
	c := s.CachedInfo().Config
	c.Name, c.Subjects = floorStream, []string{floorPrefix + ">"}
	c.SubjectTransform = &jetstream.SubjectTransformConfig{Source: floorPrefix + ">", Destination: floorStored + ">"}
	c.RePublish = &jetstream.RePublish{Source: floorStored + ">", Destination: floorStored + ">"}
	if _, err := b.js.CreateStream(ctx, c); err != nil {
		return nil, fmt.Errorf("create a stream like the log: %w", err)
	}
	return &floor{b: b, mark: mark}, nil
}

func (f *floor) message(subject, contentType, header, value string, body []byte) *nats.Msg {
	m := nats.NewMsg(floorPrefix + subject)
	m.Data = body
	m.Header.Set("Content-Type", contentType)
	m.Header.Set(header, value)
	return m
}

func (f *floor) watermark() *nats.Msg {
	return f.message(fmt.Sprintf("watermark.%d", tenantID), schemas.ContentTypeJSON, jetstream.MsgRollup, jetstream.MsgRollupSubject, f.mark)
}

// commits makes the commits that bring these states, as rollcall would: all events, then all
// states, then the watermark.
func (f *floor) commits(states []logged) [][]*nats.Msg {
	var all [][]*nats.Msg
	for len(states) > 0 {
		n := min(len(states), commitChanges)
		msgs := make([]*nats.Msg, 0, 2*n+1)
		for _, s := range states[:n] {
			kind := "offline"
			if bytes.Contains(s.body, []byte(`"agent.online"`)) {
				kind = "online"
			}
			msgs = append(msgs, f.message(fmt.Sprintf("%s.%d.10.%d", kind, tenantID, s.agent), schemas.ContentTypeEvent, jetstream.MsgTTLHeader, "604800", s.body))
		}
		for _, s := range states[:n] {
			msgs = append(msgs, f.message(fmt.Sprintf("state.%d.%d", tenantID, s.agent), schemas.ContentTypeEvent, jetstream.MsgRollup, jetstream.MsgRollupSubject, s.body))
		}
		all = append(all, append(msgs, f.watermark()))
		states = states[n:]
	}
	return all
}

// commit publishes one atomic batch, fenced like rollcall's.
func (f *floor) commit(ctx context.Context, msgs []*nats.Msg) error {
	msgs[len(msgs)-1].Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(f.last, 10))
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	ack, err := jetstreamext.PublishMsgBatch(ctx, f.b.js, msgs, jetstreamext.BatchFlowControl{AckFirst: true, AckEvery: 200, AckTimeout: time.Minute})
	if err != nil {
		return fmt.Errorf("publish an atomic batch of %d messages: %w", len(msgs), err)
	}
	f.last = ack.Sequence
	return nil
}

// batches publishes the states in full commits, one after another, and returns how long that took
// and the CPU that the client needed for it.
func (f *floor) batches(ctx context.Context, states []logged) (took, cpu time.Duration, err error) {
	all := f.commits(states)
	runtime.GC()
	before, err := cpuTime(os.Getpid())
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	for _, msgs := range all {
		if err := f.commit(ctx, msgs); err != nil {
			return 0, 0, err
		}
	}
	took = time.Since(began)
	after, err := cpuTime(os.Getpid())
	return took, after - before, err
}

// singles publishes one change a commit, one after another, and returns how long each took.
func (f *floor) singles(ctx context.Context, states []logged, n int) ([]time.Duration, error) {
	var took []time.Duration
	for i := range n {
		for _, msgs := range f.commits(states[i%len(states):][:1]) {
			began := time.Now()
			if err := f.commit(ctx, msgs); err != nil {
				return nil, err
			}
			took = append(took, time.Since(began))
		}
	}
	return took, nil
}

// watermarks publishes n watermarks and nothing else, one an interval, and returns the CPU that the
// broker needed for one.
func (f *floor) watermarks(ctx context.Context, n int, interval time.Duration) (time.Duration, error) {
	before, err := f.b.cpu()
	if err != nil {
		return 0, err
	}
	for range n {
		began := time.Now()
		m := f.watermark()
		m.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(f.last, 10))
		ack, err := f.b.js.PublishMsg(ctx, m)
		if err != nil {
			return 0, fmt.Errorf("publish a watermark: %w", err)
		}
		f.last = ack.Sequence
		time.Sleep(time.Until(began.Add(interval)))
	}
	after, err := f.b.cpu()
	return (after - before) / time.Duration(n), err
}
