package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/rollcall-events/rollcall/examples/signin"
	"github.com/rollcall-events/rollcall/internal/test/natstest"
	"github.com/rollcall-events/rollcall/publisher"
	"github.com/rollcall-events/rollcall/schemas"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const tenant = 886

var epoch = time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)

// event is revision rev of an agent: odd revisions online, even ones offline.
func event(id int64, rev uint64, at time.Duration) schemas.Event {
	kind, typ, name := schemas.Online, "10", "<&>\u2028"
	if rev%2 == 0 {
		kind = schemas.Offline
	}
	return schemas.Event{Type: kind, Time: epoch.Add(at), Data: schemas.EventData{
		Revision: rev, Reason: "promoted", Sweep: rev, Online: rev%2 == 1, Since: epoch.Add(at),
		Agent: schemas.Agent{AgentID: id, TenantID: tenant, OnlineStatus: int64(rev % 2),
			Type: &typ, AgentName: &name,
			Other: []schemas.Field{{Name: "rowVersion",
				Value: json.RawMessage("5687188673073811168")}}},
	}}
}

func line(seq uint64, e schemas.Event, more string) string {
	return fmt.Sprintf(`{"seq":%d,%s"event":%s}`+"\n", seq, more, e.AppendJSON(nil))
}

// A rig is a log and an audit of it.
type rig struct {
	t    *testing.T
	url  string
	file string
	js   jetstream.JetStream
	p    *publisher.Publisher
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, file: filepath.Join(t.TempDir(), "audit.jsonl")}
	r.url, _ = natstest.Start(t, "")
	r.open()
	return r
}

// open prepares a stream, if there is none.
func (r *rig) open() {
	r.t.Helper()
	nc := natstest.Connect(r.t, r.url)
	var err error
	if r.js, err = jetstream.New(nc); err != nil {
		r.t.Fatal(err)
	}
	if r.p, err = publisher.Open(r.t.Context(), nc, publisher.Config{Tenant: tenant,
		Instance: "test", Replicas: 1, Manage: true,
		EventsMaxAge: time.Hour, MaxBytes: 64 << 20, LeaseTTL: 10 * time.Second}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) commit(events ...schemas.Event) {
	r.t.Helper()
	if err := r.p.Commit(r.t.Context(), publisher.Batch{Events: events,
		Watermark: schemas.Watermark{Sweep: 1, StartedAt: epoch,
			CompletedAt: epoch, StaleAfter: epoch.Add(time.Second)}}); err != nil {
		r.t.Fatal(err)
	}
}

// run runs the audit until ok says so; what ends the sentence "waited in vain for …".
func (r *rig) run(what string, ok func() bool) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan error, 1)
	flags := flag.NewFlagSet("audit", flag.ContinueOnError)
	signIn := signin.Add(flags)
	if err := flags.Parse([]string{"-nats", r.url}); err != nil {
		r.t.Fatal(err)
	}
	go func() { done <- run(ctx, signIn, tenant, "audit", r.file) }()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			r.t.Errorf("waited in vain for %s; the file:\n%s", what, r.written())
			break
		}
		time.Sleep(2 * time.Millisecond)
	}
	cancel()
	if err := <-done; err != nil {
		r.t.Errorf("ended with %v", err)
	}
}

// acknowledged runs the audit until it has acknowledged all there is, and the file holds this.
func (r *rig) acknowledged(want ...string) {
	r.t.Helper()
	var last record
	if err := json.Unmarshal([]byte(want[len(want)-1]), &last); err != nil {
		r.t.Fatal(err)
	}
	r.run("everything to be acknowledged", func() bool {
		c, err := r.js.Consumer(r.t.Context(), schemas.Stream, "audit")
		return err == nil && c.CachedInfo().AckFloor.Stream == last.Seq
	})
	if d := cmp.Diff(strings.Join(want, ""), r.written()); d != "" {
		r.t.Errorf("the file (-want +got):\n%s", d)
	}
}

func (r *rig) written() string {
	b, err := os.ReadFile(r.file)
	if err != nil && !os.IsNotExist(err) {
		r.t.Fatal(err)
	}
	return string(b)
}

func (r *rig) write(s string) {
	r.t.Helper()
	if err := os.WriteFile(r.file, []byte(s), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// A crash leaves a line that is there and not acknowledged, or one that is not finished.
func TestCrash(t *testing.T) {
	t.Parallel()
	first, second, third := event(1, 1, 0), event(2, 1, 0), event(1, 2, time.Second)
	for name, left := range map[string]string{
		"nothing":               "",
		"half a line":           line(1, first, "")[:40],
		"long and unfinished":   `{"seq":1,"event":"` + strings.Repeat("x", 9000),
		"a line":                line(1, first, ""),
		"a line and a half":     line(1, first, "") + line(2, second, "")[:100],
		"all, unacknowledged":   line(1, first, "") + line(2, second, "") + line(3, third, ""),
		"all but the line feed": line(1, first, "") + strings.TrimSuffix(line(2, second, ""), "\n"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.write(left)
			r.commit(first, second, third)
			r.acknowledged(line(1, first, ""), line(2, second, ""), line(3, third, ""))
			fourth := event(1, 3, time.Minute)
			r.commit(fourth)
			// Sequences 4 to 6 are the states and the watermark.
			r.acknowledged(line(1, first, ""), line(2, second, ""), line(3, third, ""),
				line(7, fourth, ""))
		})
	}
}

// What is not on the disk is not acknowledged, and the audit does not go on.
func TestEffectBeforeAcknowledgement(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.commit(event(1, 1, 0), event(2, 1, 0))
	h, err := openHistory(r.file)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.file.Close(); err != nil { // nothing can be written from now on
		t.Fatal(err)
	}
	err = consume(t.Context(), r.js, jetstream.ConsumerConfig{Durable: "audit",
		FilterSubject: "agent.online.886.>",
		AckPolicy:     jetstream.AckExplicitPolicy, AckWait: ackWait, MaxAckPending: 1}, h, func() {
		t.Error("proceeds")
	})
	if err == nil || !strings.Contains(err.Error(), "append to the file") {
		t.Errorf("ended with %v", err)
	}
	h.close()
	r.acknowledged(line(1, event(1, 1, 0), ""), line(2, event(2, 1, 0), ""))
}

// Revisions show what lacks; the file says so in the line that follows.
func TestGaps(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	second, sixth := event(1, 2, time.Second), event(1, 6, time.Minute)
	r.commit(second, event(2, 1, 0))
	have := []string{line(1, second, `"missing":1,`), line(2, event(2, 1, 0), "")}
	r.acknowledged(have...)
	r.commit(sixth, event(2, 2, time.Second)) // behind two states and a watermark
	r.acknowledged(append(have, line(6, sixth, `"missing":3,`),
		line(7, event(2, 2, time.Second), ""))...)
}

// The durable consumer is lost: everything comes again, and is known. With the stream lost as well,
// the same revisions are new.
func TestBegunAnew(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.commit(event(1, 1, 0), event(1, 2, time.Second), event(2, 1, 0))
	have := []string{line(1, event(1, 1, 0), ""), line(2, event(1, 2, time.Second), ""),
		line(3, event(2, 1, 0), "")}
	r.acknowledged(have...)
	if err := r.js.DeleteConsumer(t.Context(), schemas.Stream, "audit"); err != nil {
		t.Fatal(err)
	}
	r.acknowledged(have...)

	if err := r.js.DeleteStream(t.Context(), schemas.Stream); err != nil {
		t.Fatal(err)
	}
	r.open()
	r.commit(event(1, 1, time.Hour), event(2, 1, time.Hour), event(3, 1, time.Hour),
		event(1, 2, time.Hour))
	have = append(have, line(1, event(1, 1, time.Hour), `"anew":true,`),
		line(2, event(2, 1, time.Hour), `"anew":true,`),
		line(3, event(3, 1, time.Hour), ""), line(4, event(1, 2, time.Hour), ""))
	r.acknowledged(have...)
}

// The same while the audit runs: it finds its way back.
func TestLogBeginsAnewMeanwhile(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.commit(event(1, 1, 0))
	again := false
	r.run("the events of both logs", func() bool {
		if !again && r.written() == line(1, event(1, 1, 0), "") {
			again = true
			if err := r.js.DeleteStream(t.Context(), schemas.Stream); err != nil {
				t.Error(err)
			}
			r.open()
			r.commit(event(1, 1, time.Hour))
		}
		return r.written() == line(1, event(1, 1, 0), "")+line(1, event(1, 1, time.Hour),
			`"anew":true,`)
	})
}

// What can't be read is kept as it came, once.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, body := range []string{"{", ""} {
		if _, err := r.js.Publish(t.Context(), "rollcall.log.online.886.10.7",
			[]byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	first := `{"seq":1,"unreadable":"{"}` + "\n"
	r.write(first) // and not acknowledged
	r.acknowledged(first, `{"seq":2}`+"\n")
}

func TestFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	h, err := openHistory(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openHistory(file); err == nil || !strings.Contains(err.Error(),
		"another process") {
		t.Errorf("opened twice: %v", err)
	}
	h.close()
	good := event(1, 1, 0)
	for name, content := range map[string]string{
		"no JSON":  line(1, good, "") + "{\n",
		"no event": `{"seq":1,"event":{}}` + "\n",
	} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if h, err := openHistory(file); err == nil || !strings.Contains(err.Error(), "line ") {
			t.Errorf("%s: %v, %v", name, h, err)
		}
		if b, err := os.ReadFile(file); err != nil || string(b) != content {
			t.Errorf("%s: the file is now %q, %v", name, b, err)
		}
	}
}
