//go:build unix

package permissions

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/internal/locate"
	"github.com/rollcall-events/rollcall/internal/test/wait"
)

// ownJetStream gives the files a reader's account with JetStream of its own.
func ownJetStream(t testing.TB) (dir string) {
	t.Helper()
	return edited(t, "accounts.conf", "    include \"reader.conf\"\n",
		"    jetstream: true\n    include \"reader-domain.conf\"\n")
}

// An archive keeps everything but the states: events that expire in the stream, watermarks that
// replace one another there. So does one in a reader's own account, and both say the same.
func TestArchive(t *testing.T) {
	t.Parallel()
	w := newWorld(t, filepath.Join(ownJetStream(t), "server.conf"), newUsers(t))
	copyOperator := w.connect(w.copyOperator.opt)
	add(t, copyOperator, "agent-archive.json", 1)
	add(t, w.readerConn, "agent-archive-own.json", 1)
	archives := map[string]jetstream.JetStream{
		"the operator's":              stream(t, copyOperator, ""),
		"the operator's, to a reader": stream(t, w.readerConn, "rollcall"),
		"a reader's own":              stream(t, w.readerConn, ""),
	}

	var want []string
	event := func(rev, id int) string {
		return fmt.Sprintf(`agent.online.886.10.%d {"revision":%d}`, id, rev)
	}
	for rev := 1; rev <= 2; rev++ { // as fill does
		for id := range 5 {
			want = append(want, event(rev, id))
		}
	}
	// The first watermark is gone: it had been replaced before there was an archive.
	want = append(want, `agent.watermark.886 {"sweep":2}`)
	w.archived(archives, want) // from here on they are told of each watermark before the next
	for sweep := 3; sweep <= 5; sweep++ {
		w.publish("offline.886.10.3", fmt.Sprintf(`{"revision":%d}`, sweep), "Nats-TTL", "1h")
		w.publish("updated.886._.3", `{}`, "Nats-TTL", "1h")
		w.publish("state.886.3", fmt.Sprintf(`{"revision":%d}`, sweep), "Nats-Rollup", "sub")
		w.publish("health.886", `{"state":"ok"}`, "Nats-Rollup", "sub")
		w.publish("unobserved.886", `{"from":1}`, "Nats-TTL", "1h")
		w.publish("watermark.886", fmt.Sprintf(`{"sweep":%d}`, sweep), "Nats-Rollup", "sub")
		want = append(want, fmt.Sprintf(`agent.offline.886.10.3 {"revision":%d}`, sweep),
			`agent.updated.886._.3 {}`, `agent.health.886 {"state":"ok"}`,
			`agent.unobserved.886 {"from":1}`,
			fmt.Sprintf(`agent.watermark.886 {"sweep":%d}`, sweep))
		w.archived(archives, want)
	}
	const short = "agent.updated.886.10.4"
	has := func(js jetstream.JetStream, name string) bool {
		s, err := js.Stream(t.Context(), name)
		if err != nil {
			return false
		}
		_, err = s.GetLastMsgForSubject(t.Context(), short)
		return err == nil
	}
	wait.Eventually(t, "the archives to have what was published", func() bool {
		// Again and again: on a busy machine one may expire before the archives get it.
		w.publish("updated.886.10.4", `{}`, "Nats-TTL", "1s")
		for _, js := range archives {
			if !has(js, "AGENT_ARCHIVE") {
				return false
			}
		}
		return true
	})
	wait.Eventually(t, "that to expire in the stream", func() bool {
		return !has(stream(t, w.operatorConn, ""), "AGENT_EVENTS")
	})
	for name, js := range archives {
		if !has(js, "AGENT_ARCHIVE") {
			t.Errorf("in %s archive it has expired", name)
		}
	}
	for _, line := range w.log.violations() {
		t.Error(line)
	}
}

// archived waits until the archives have these messages, and no others.
func (w *world) archived(archives map[string]jetstream.JetStream, want []string) {
	w.t.Helper()
	for name, js := range archives {
		var got []string
		wait.Eventually(w.t, name+" archive to have all", func() bool {
			s, err := js.Stream(w.t.Context(), "AGENT_ARCHIVE")
			return err == nil && s.CachedInfo().State.Msgs >= uint64(len(want))
		})
		ctx, cancel := context.WithTimeout(w.t.Context(), wait.Patience)
		defer cancel()
		c, err := js.OrderedConsumer(ctx, "AGENT_ARCHIVE", jetstream.OrderedConsumerConfig{})
		if err != nil {
			w.t.Fatal(err)
		}
		messages, err := c.Messages()
		if err != nil {
			w.t.Fatal(err)
		}
		for pending := uint64(1); pending > 0; {
			m, err := messages.Next(jetstream.NextContext(ctx))
			if err != nil {
				w.t.Fatal(err)
			}
			meta, err := m.Metadata()
			if err != nil {
				w.t.Fatal(err)
			}
			pending = meta.NumPending
			got = append(got, m.Subject()+" "+string(m.Data()))
		}
		messages.Stop()
		if d := cmp.Diff(want, got); d != "" {
			w.t.Fatalf("%s archive (-want +got):\n%s", name, d)
		}
	}
}

// A reader's account that has JetStream of its own can use it, and nothing more of rollcall's.
func TestOwnJetStream(t *testing.T) {
	t.Parallel()
	w := newWorld(t, filepath.Join(ownJetStream(t), "server.conf"), newUsers(t))
	js := stream(t, w.readerConn, "")
	kv, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "MINE"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Put(t.Context(), "a", []byte("b")); err != nil {
		t.Fatal(err)
	}
	if e, err := kv.Get(t.Context(), "a"); err != nil || string(e.Value()) != "b" {
		t.Errorf("read %v, error %v", e, err)
	}
	// The commands that read find the stream in the copy all the same.
	if _, tenants, err := locate.Tenants(t.Context(), w.readerConn); err != nil ||
		!slices.Equal(tenants, []int64{886}) {
		t.Errorf("tenants %v, error %v", tenants, err)
	}
	// A mirror with everything, states too.
	before := w.state()
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "ALL",
		Mirror: &jetstream.StreamSource{Name: "AGENT_EVENTS", External: &jetstream.ExternalStream{
			APIPrefix: "$JS.rollcall.API", DeliverPrefix: "rollcall.own"}},
		AllowRollup: true, AllowMsgTTL: true,
	}); err != nil {
		t.Fatal(err)
	}
	wait.Eventually(t, "a mirror of one's own", func() bool {
		s, err := js.Stream(t.Context(), "ALL")
		return err == nil && s.CachedInfo().State.LastSeq == last(stream(t, w.operatorConn, ""))
	})
	// What it may not do to the stream and the copy, it still may not.
	for _, subject := range []string{"rollcall.log.watermark.886", "rollcall.own.x",
		"$JS.rollcall.API.STREAM.PURGE.AGENT_EVENTS",
		"$JS.log.API.CONSUMER.CREATE.AGENT_EVENTS", "$JS.rollcall.API.STREAM.PURGE.AGENT_ARCHIVE",
	} {
		if _, err := w.readerConn.Request(subject, []byte("{}"), 50*time.Millisecond); err == nil {
			t.Errorf("%s was answered", subject)
		}
		wait.Eventually(t, subject+" to be refused", func() bool {
			return len(w.log.with(fmt.Sprintf("Violation - Subject %q", subject))) > 0
		})
	}
	if d := cmp.Diff(before, w.state()); d != "" {
		t.Errorf("what a reader changed:\n%s", d)
	}
}
