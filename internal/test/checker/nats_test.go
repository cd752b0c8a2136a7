package checker

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/rollcall-events/rollcall/internal/test/natstest"
)

// A stream that went through a real stream is read back and recorded whole.
func TestReadAndRecord(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	url, _ := natstest.Start(t, "")
	nc := natstest.Connect(t, url)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = js.CreateStream(ctx, jetstream.StreamConfig{
		Name: streamName, Subjects: []string{"rollcall.log.>"}, MaxBytes: 1 << 28,
		SubjectTransform: &jetstream.SubjectTransformConfig{Source: "rollcall.log.>",
			Destination: "agent.>"},
		RePublish: &jetstream.RePublish{Source: "agent.>", Destination: "agent.>"},
		Storage:   jetstream.MemoryStorage, Discard: jetstream.DiscardNew,
		AllowAtomicPublish: true, AllowRollup: true, AllowMsgTTL: true, AllowDirect: true,
		DenyDelete: true,
	}); err != nil {
		t.Fatal(err)
	}
	if msgs, err := Read(ctx, nc, tenant); err != nil || len(msgs) != 0 {
		t.Fatalf("an empty stream: %d messages, %v", len(msgs), err)
	}
	rec, err := Record(natstest.Connect(t, url), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Publish("agent.online.886.10.1", []byte("not of the stream")); err != nil {
		t.Fatal(err)
	}

	w := lived(t)
	var batch []*nats.Msg
	for _, m := range w.live {
		out := &nats.Msg{Subject: "rollcall.log." + m.Subject[len("agent."):], Data: m.Body,
			Header: nats.Header{}}
		for _, name := range []string{"Content-Type", "Nats-TTL", "Nats-Rollup"} {
			if v := m.header(name); v != "" {
				out.Header.Set(name, v)
			}
		}
		batch = append(batch, out)
		if m.kind() != "watermark" {
			continue
		}
		if len(batch) == 1 {
			_, err = js.PublishMsg(ctx, out)
		} else {
			_, err = jetstreamext.PublishMsgBatch(ctx, js, batch)
		}
		if err != nil {
			t.Fatal(err)
		}
		batch = nil
	}
	if err := rec.Wait(ctx, uint64(len(w.live))); err != nil {
		t.Fatal(err)
	}
	if err := rec.Stop(); err != nil {
		t.Fatal(err)
	}
	msgs, err := Read(ctx, nc, tenant)
	if err != nil {
		t.Fatal(err)
	}
	r := mustPass(t, Stream{Stored: msgs, Live: rec.Messages(), ReadAt: time.Now()}, w.truth(),
		strict())
	if r.Stats.Messages != len(w.live) || r.Stats.WholeCommits != r.Stats.Commits ||
		len(msgs) >= len(w.live) {
		t.Errorf("%d messages read, of %d published: %+v", len(msgs), len(w.live), r.Stats)
	}
	if dropped, foreign := rec.Dropped(); dropped != 0 || foreign != 1 {
		t.Errorf("dropped %d, foreign %d", dropped, foreign)
	}
	mustPass(t, Stream{Stored: msgs}, w.truth(), strict())
	if msgs, err := Read(ctx, nc, 5); err != nil || len(msgs) != 0 {
		t.Errorf("another tenant: %d messages, %v", len(msgs), err)
	}
}

func TestRecordIsBounded(t *testing.T) {
	r := &Recording{left: 300, changed: make(chan struct{})}
	for i := range 10 {
		r.add(&nats.Msg{Subject: "agent.x", Data: make([]byte, 50), Header: nats.Header{
			"Nats-Stream": {streamName}, "Nats-Sequence": {string(rune('0' + i))}}})
	}
	if dropped, _ := r.Dropped(); dropped == 0 || dropped == 10 || dropped+len(r.Messages()) != 10 {
		t.Errorf("%d dropped, %d kept", dropped, len(r.Messages()))
	}
}
