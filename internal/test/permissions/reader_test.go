//go:build unix

package permissions

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"

	"github.com/rollcall-events/rollcall/internal/query"
	"github.com/rollcall-events/rollcall/internal/test/e2e"
	"github.com/rollcall-events/rollcall/internal/test/wait"
)

// twoReaders gives the files a second account of readers, as accounts.conf says how.
func twoReaders(t testing.TB, u users, other user) (dir string) {
	t.Helper()
	return edited(t, "accounts.conf", "  READER {\n",
		fmt.Sprintf(
			"  OTHER_READER {\n    users: [\n      {nkey: %s}\n    ]\n    include "+
				"\"reader.conf\"\n  }\n\n  READER {\n", other.public))
}

// A world is a server with the stream, its copy and some messages.
type world struct {
	*node
	users
	rollcallConn, operatorConn, readerConn *nats.Conn
}

func newWorld(t *testing.T, file string, u users) *world {
	t.Helper()
	w := &world{node: start(t, file, u.variables(t)), users: u}
	w.rollcallConn, w.operatorConn, w.readerConn = w.connect(u.rollcall.opt),
		w.connect(u.operator.opt), w.connect(u.reader.opt)
	add(t, w.operatorConn, "agent-events.json", 1)
	add(t, w.operatorConn, "kv-rollcall.json", 1)
	add(t, w.operatorConn, "rollcall-alarm.json", 1)
	add(t, w.connect(u.copyOperator.opt), "agent-events-copy.json", 1)
	w.fill()
	w.answer()
	return w
}

// answer has questions answered, as rollcall does, until the test ends.
func (w *world) answer() {
	w.t.Helper()
	nc, err := nats.Connect(w.url, w.users.rollcall.opt)
	if err != nil {
		w.t.Fatal(err)
	}
	q := query.New(query.Config{Tenant: 886, JetStream: stream(w.t, nc, "")})
	err = errors.Join(q.Answer(nc), q.Refuse(w.rollcallConn), nc.Flush(), w.rollcallConn.Flush())
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = q.Run(ctx) // its server may have ended before
	}()
	w.t.Cleanup(func() {
		cancel()
		<-ended
		nc.Close()
	})
}

// fill publishes what a commit consists of, for five agents, twice.
func (w *world) fill() {
	w.t.Helper()
	for rev := 1; rev <= 2; rev++ {
		for id := range 5 {
			body := fmt.Sprintf(`{"revision":%d}`, rev)
			w.publish(fmt.Sprintf("online.886.10.%d", id), body, "Nats-TTL", "1h")
			w.publish(fmt.Sprintf("state.886.%d", id), body, "Nats-Rollup", "sub")
		}
		w.publish("watermark.886", fmt.Sprintf(`{"sweep":%d}`, rev), "Nats-Rollup", "sub")
	}
	w.copied()
}

func (w *world) publish(subject, body, header, value string) {
	w.t.Helper()
	m := nats.NewMsg("rollcall.log." + subject)
	m.Header.Set(header, value)
	m.Data = []byte(body)
	answer, err := w.rollcallConn.RequestMsg(m, 5*time.Second)
	if err != nil || !bytes.Contains(answer.Data, []byte(`"seq"`)) {
		w.t.Fatalf("publish: %v %v", answer, err)
	}
}

// copied waits until the copy has caught up. It makes its first try to find the stream when it is
// created and one every ten seconds.
func (w *world) copied() {
	w.t.Helper()
	log, readers := stream(w.t, w.operatorConn, ""), stream(w.t, w.connect(w.copyOperator.opt), "")
	wait.Eventually(w.t, "the copy to catch up", func() bool {
		return last(log) > 0 && last(log) == last(readers)
	})
}

// A reader can read in all three ways, with and without a JetStream domain.
func TestReaderReads(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, include, domain string }{
		{"plain", "reader.conf", ""},
		{"domain", "reader-domain.conf", "rollcall"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := edited(t, "accounts.conf", "    include \"reader.conf\"\n",
				"    jetstream: "+fmt.Sprint(c.domain != "")+"\n    include \""+c.include+"\"\n")
			file := filepath.Join(dir, "server.conf")
			if c.domain == "" {
				file = filepath.Join(deployed, "server.conf")
			}
			w := newWorld(t, file, newUsers(t))
			ctx, cancel := context.WithTimeout(context.Background(), wait.Patience)
			defer cancel()
			nc := w.readerConn
			js := stream(t, nc, c.domain)

			live, err := nc.SubscribeSync("agent.online.886.>")
			if err != nil {
				t.Fatal(err)
			}
			durable, err := js.CreateOrUpdateConsumer(ctx, e2e.Stream, jetstream.ConsumerConfig{
				Durable: "audit", FilterSubjects: []string{"agent.online.>", "agent.offline.>",
					"agent.updated.>"}, AckPolicy: jetstream.AckExplicitPolicy,
			})
			if err != nil {
				t.Fatal(err)
			}
			roster, err := js.OrderedConsumer(ctx, e2e.Stream, jetstream.OrderedConsumerConfig{
				DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy,
				FilterSubjects: []string{"agent.state.886.*", "agent.watermark.886",
					"agent.health.886"},
			})
			if err != nil {
				t.Fatal(err)
			}
			if n := roster.CachedInfo().NumPending; n != 6 {
				t.Errorf("%d messages pending, want 6", n)
			}
			states, err := roster.Messages()
			if err != nil {
				t.Fatal(err)
			}
			defer states.Stop()
			// The sequences and the subjects are the stream's, and each state is the last one.
			var got []string
			for pending := uint64(1); pending > 0; {
				m, err := states.Next(jetstream.NextContext(ctx))
				if err != nil {
					t.Fatal(err)
				}
				meta, err := m.Metadata()
				if err != nil {
					t.Fatal(err)
				}
				got, pending = append(got, fmt.Sprintf("%d %s %s", meta.Sequence.Stream,
					m.Subject(), m.Data())), meta.NumPending
			}
			var want []string
			for id := range 5 {
				want = append(want, fmt.Sprintf(`%d agent.state.886.%d {"revision":2}`, 13+2*id,
					id))
			}
			if d := cmp.Diff(append(want, `22 agent.watermark.886 {"sweep":2}`), got); d != "" {
				t.Errorf("states (-want +got):\n%s", d)
			}
			// What the stream has, the copy has, and no more: rolled up, with its time to live.
			log, err := stream(t, w.operatorConn, "").Stream(ctx, e2e.Stream)
			if err != nil {
				t.Fatal(err)
			}
			copied, err := js.Stream(ctx, e2e.Stream)
			if err != nil {
				t.Fatal(err)
			}
			logState, copyState := log.CachedInfo().State, copied.CachedInfo().State
			logState.Consumers, copyState.Consumers = 0, 0
			if d := cmp.Diff(logState, copyState); d != "" {
				t.Errorf("the copy is not the stream (-stream +copy):\n%s", d)
			}

			w.publish("online.886.10.3", `{"revision":3}`, "Nats-TTL", "1s")
			w.publish("state.886.3", `{"revision":3}`, "Nats-Rollup", "sub")
			if m, err := states.Next(jetstream.NextContext(ctx)); err != nil ||
				m.Subject() != "agent.state.886.3" || string(m.Data()) != `{"revision":3}` {
				t.Errorf("followed: %v %v", m, err)
			}
			if m, err := live.NextMsg(5 * time.Second); err != nil ||
				m.Subject != "agent.online.886.10.3" || m.Header.Get("Nats-Sequence") != "23" {
				t.Errorf("live: %v %v", m, err)
			}
			// what is not acknowledged comes again, what is does not
			for _, n := range []int{4, 7} {
				batch, err := durable.Fetch(n, jetstream.FetchMaxWait(5*time.Second))
				if err != nil {
					t.Fatal(err)
				}
				for m := range batch.Messages() {
					if err := m.DoubleAck(ctx); err != nil {
						t.Fatal(err)
					}
				}
			}
			wait.Eventually(t, "the durable consumer to be done", func() bool {
				info, err := durable.Info(ctx)
				return err == nil && info.AckFloor.Stream == 23 && info.NumPending == 0
			})
			if m, err := copied.GetLastMsgForSubject(ctx, "agent.state.886.3"); err != nil ||
				string(m.Data) != `{"revision":3}` {
				t.Errorf("direct get: %v %v", m, err)
			}
			wait.Eventually(t, "an event to expire in the stream and in the copy", func() bool {
				_, err1 := log.GetMsg(ctx, 23)
				_, err2 := copied.GetMsg(ctx, 23)
				return err1 != nil && err2 != nil
			})
			for _, line := range w.log.violations() {
				t.Error(line)
			}
		})
	}
}

// forbidden is what a reader must not be able to ask for: the subject and the body.
func forbidden() [][2]string {
	update := `{"name":"AGENT_EVENTS","subjects":["rollcall.log.>","orders.>"],"storage":"file"}`
	out := [][2]string{
		{"rollcall.log.online.886.10.1", "{}"}, {"rollcall.log.watermark.886", "{}"},
		{"agent.online.886.10.1", "{}"}, {"agent.watermark.886", "{}"}, {"rollcall.copy.1", "{}"},
		{"rollcall.own.1", "{}"},
		{"$KV.rollcall.lease.886", "{}"}, {"refused.agent.online.886.10.1", "{}"},
		{"$JS.FC.AGENT_EVENTS.x.y", ""}, {"$JS.log.API.CONSUMER.CREATE.AGENT_EVENTS",
			`{"stream_name":"AGENT_EVENTS","config":{"ack_policy":"none"}}`},
		{"$SYS.REQ.SERVER.PING", ""}, {"$SYS.REQ.ACCOUNT.ROLLCALL.CONNZ", ""},
		{"_INBOX.somebody.1", "{}"}, {"_R_.somebody", "{}"},
		{"rollcall.alarm.armed.886", "{}"}, {"rollcall.alarm.fired.886", "{}"},
		{"agent.stale.886", "{}"},
		{"rollcall.query", ""}, {"rollcall.queries.886.roster", ""}, {"$SRV", ""},
	}
	for _, prefix := range []string{"$JS.API.", "$JS.rollcall.API.", "$JS.log.API."} {
		for _, r := range [][2]string{
			{"STREAM.CREATE.MINE", `{"name":"MINE","subjects":["mine"],"storage":"memory"}`},
			{"STREAM.CREATE.AGENT_EVENTS", update},
			{"STREAM.UPDATE.AGENT_EVENTS", update}, {"STREAM.DELETE.AGENT_EVENTS", ""},
			{"STREAM.PURGE.AGENT_EVENTS", ""},
			{"STREAM.MSG.DELETE.AGENT_EVENTS", `{"seq":13}`},
			{"STREAM.SNAPSHOT.AGENT_EVENTS", `{"deliver_subject":"_INBOX.x"}`},
			{"STREAM.RESTORE.MINE", `{"config":{"name":"MINE"},"state":{}}`},
			{"STREAM.LEADER.STEPDOWN.AGENT_EVENTS", ""},
			{"STREAM.PEER.REMOVE.AGENT_EVENTS", `{"peer":"x"}`}, {"STREAM.INFO.KV_rollcall", ""},
			{"STREAM.PURGE.KV_rollcall", ""},
			{"STREAM.DELETE.KV_rollcall", ""},
			{"STREAM.MSG.GET.KV_rollcall", `{"last_by_subj":"$KV.rollcall.lease.886"}`},
			{"DIRECT.GET.KV_rollcall.$KV.rollcall.lease.886", ""}, {"CONSUMER.CREATE.KV_rollcall",
				`{"stream_name":"KV_rollcall","config":{"ack_policy":"none"}}`},
			{"STREAM.INFO.ROLLCALL_ALARM", ""}, {"STREAM.PURGE.ROLLCALL_ALARM", ""},
			{"STREAM.DELETE.ROLLCALL_ALARM", ""},
			{"STREAM.UPDATE.ROLLCALL_ALARM", `{"name":"ROLLCALL_ALARM","subjects":["mine"]}`},
			{"STREAM.MSG.DELETE.ROLLCALL_ALARM", `{"seq":1}`},
			{"CONSUMER.CREATE.ROLLCALL_ALARM",
				`{"stream_name":"ROLLCALL_ALARM","config":{"ack_policy":"none"}}`},
			{"STREAM.CREATE.AGENT_ARCHIVE", `{"name":"AGENT_ARCHIVE","subjects":["mine"]}`},
			{"STREAM.UPDATE.AGENT_ARCHIVE", `{"name":"AGENT_ARCHIVE","subjects":["mine"]}`},
			{"STREAM.PURGE.AGENT_ARCHIVE", ""}, {"STREAM.DELETE.AGENT_ARCHIVE", ""},
			{"STREAM.MSG.DELETE.AGENT_ARCHIVE", `{"seq":1}`},
			{"CONSUMER.NAMES.AGENT_ARCHIVE", ""}, {"CONSUMER.LIST.AGENT_ARCHIVE", ""},
			{"CONSUMER.NAMES.AGENT_EVENTS", ""}, {"CONSUMER.LIST.AGENT_EVENTS", ""},
			{"CONSUMER.PAUSE.AGENT_EVENTS.audit", `{}`},
			{"CONSUMER.LEADER.STEPDOWN.AGENT_EVENTS.audit", ""}, {"META.LEADER.STEPDOWN", ""},
			{"ACCOUNT.PURGE.ROLLCALL", ""}, {"SERVER.REMOVE", "{}"},
		} {
			out = append(out, [2]string{prefix + r[0], r[1]})
		}
	}
	return out
}

// Whatever a reader asks for, the stream, the lease and the copy stay as they are.
func TestReaderForbidden(t *testing.T) {
	t.Parallel()
	w := newWorld(t, filepath.Join(deployed, "server.conf"), newUsers(t))
	kv, err := stream(t, w.rollcallConn, "").KeyValue(t.Context(), "rollcall")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Create(t.Context(), "lease.886", []byte("ours"),
		jetstream.KeyTTL(time.Hour)); err != nil {
		t.Fatal(err)
	}
	w.arm("@at 2100-01-01T00:00:00Z")
	before := w.state()
	answers, err := w.readerConn.SubscribeSync("_INBOX.answers")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range forbidden() {
		if err := w.readerConn.PublishRequest(r[0], "_INBOX.answers", []byte(r[1])); err != nil {
			t.Fatal(err)
		}
	}
	// what is refused is refused in order, before this is answered
	if err := w.readerConn.Flush(); err != nil {
		t.Fatal(err)
	}
	w.settle()
	if m, err := answers.NextMsg(10 * time.Millisecond); err == nil {
		t.Errorf("an answer: %s", m.Data)
	}
	if d := cmp.Diff(before, w.state()); d != "" {
		t.Errorf("what a reader changed:\n%s", d)
	}
	for _, r := range forbidden() {
		// What goes to agent.… is mapped first, and then refused.
		if len(w.log.with(fmt.Sprintf("Violation - Subject %q", r[0])))+len(
			w.log.with(fmt.Sprintf("Violation - Subject %q", "refused."+r[0]))) == 0 {
			t.Errorf("%s was not refused", r[0])
		}
	}
	for _, subject := range []string{"rollcall.>", "$KV.>", "$JS.>", "$SYS.>", "refused.>", ">",
		"_R_.>"} {
		if _, err := w.readerConn.SubscribeSync(subject); err != nil {
			t.Fatal(err)
		}
		wait.Eventually(t, "the subscription to "+subject+" to be refused", func() bool {
			return len(w.log.with(fmt.Sprintf("Violation - Subject %q", subject))) > 0
		})
	}
}

// arm has the server say that tenant 886 is stale, as rollcall does.
func (w *world) arm(schedule string) {
	w.t.Helper()
	m := nats.NewMsg("rollcall.alarm.armed.886")
	m.Header.Set("Nats-Rollup", "sub")
	m.Header.Set("Nats-Schedule", schedule)
	m.Header.Set("Nats-Schedule-Target", "rollcall.alarm.fired.886")
	m.Data = []byte(`{"tenantId":886}`)
	answer, err := w.rollcallConn.RequestMsg(m, 5*time.Second)
	if err != nil || !bytes.Contains(answer.Data, []byte(`"seq"`)) {
		w.t.Fatalf("arm the alarm: %v %v", answer, err)
	}
}

// Readers of either kind, and the operator, can ask rollcall and find it as a service. Nobody can
// answer in its place.
func TestQuestions(t *testing.T) {
	t.Parallel()
	u, other := newUsers(t), newUser(t)
	dir := edited(t, "accounts.conf", "  READER {\n", fmt.Sprintf("  OTHER_READER {\n"+
		"    users: [\n      {nkey: %s}\n    ]\n    jetstream: true\n"+
		"    include \"reader-domain.conf\"\n  }\n\n  READER {\n", other.public))
	w := newWorld(t, filepath.Join(dir, "server.conf"), u)
	for name, nc := range map[string]*nats.Conn{"a reader": w.readerConn,
		"one with a domain": w.connect(other.opt), "the operator": w.operatorConn} {
		for subject, code := range map[string]string{
			"rollcall.query.886.roster": "", "rollcall.query.886.counts": "",
			"rollcall.query.886.agent": "400", "rollcall.query.887.roster": "400",
			"$SRV.PING": "", "$SRV.INFO.rollcall": "", "$SRV.STATS": "",
		} {
			m, err := nc.Request(subject, nil, wait.Patience)
			if err != nil || m.Header.Get(micro.ErrorCodeHeader) != code {
				t.Errorf("%s asks %s: %v %v", name, subject, m, err)
			}
		}
	}
	for _, line := range w.log.violations() {
		t.Error(line)
	}
	for _, subject := range []string{"rollcall.query.886.roster", "$SRV.PING"} {
		if _, err := w.readerConn.SubscribeSync(subject); err != nil {
			t.Fatal(err)
		}
		wait.Eventually(t, "the subscription to "+subject+" to be refused", func() bool {
			return len(w.log.with(fmt.Sprintf("Violation - Subject %q", subject))) > 0
		})
	}
}

// A reader hears the alarm, once, whichever account it is in.
func TestReaderHearsTheAlarm(t *testing.T) {
	t.Parallel()
	u, other := newUsers(t), newUser(t)
	w := newWorld(t, filepath.Join(twoReaders(t, u, other), "server.conf"), u)
	var subs []*nats.Subscription
	for _, nc := range []*nats.Conn{w.readerConn, w.connect(other.opt), w.operatorConn} {
		sub, err := nc.SubscribeSync("agent.stale.*")
		if err == nil {
			err = nc.Flush()
		}
		if err != nil {
			t.Fatal(err)
		}
		subs = append(subs, sub)
	}
	w.arm("@at " + time.Now().Add(time.Second).UTC().Format(time.RFC3339Nano))
	for _, sub := range subs {
		m, err := sub.NextMsg(wait.Patience)
		if err != nil || m.Subject != "agent.stale.886" || string(m.Data) != `{"tenantId":886}` {
			t.Errorf("heard: %v %v", m, err)
		}
	}
	w.settle()
	for _, sub := range subs {
		if n, _, err := sub.Pending(); err != nil || n > 0 {
			t.Errorf("%d messages more, error %v", n, err)
		}
	}
	for _, line := range w.log.violations() {
		t.Error(line)
	}
}

// A queue group is one across all accounts that import the messages, so readers could take one
// another's: they get none, and with a name of their own as reader.conf says.
func TestQueueGroups(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name          string
		edit          []string // of reader.conf
		first, second int      // messages of 20, at least
	}{
		{"as they are", nil, 0, 0},
		{"without the deny", []string{`deny: ["agent.> >"]`, ""}, 1, 1},
		{"with another name", []string{`deny: ["agent.> >"]`, "", `allow: ["agent.>", "_INBOX.>"]`,
			`allow: ["agent.>", "agent.> theirs", "_INBOX.>"]`}, 0, 0},
		{"with that name", []string{`deny: ["agent.> >"]`, "", `allow: ["agent.>", "_INBOX.>"]`,
			`allow: ["agent.>", "agent.> ours", "_INBOX.>"]`}, 1, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			u, other := newUsers(t), newUser(t)
			dir := twoReaders(t, u, other)
			edit(t, filepath.Join(dir, "reader.conf"), c.edit...)
			w := newWorld(t, filepath.Join(dir, "server.conf"), u)
			var groups []*nats.Subscription
			for _, who := range []user{u.reader, other} {
				nc := w.connect(who.opt)
				sub, err := nc.QueueSubscribeSync("agent.online.>", "ours")
				if err != nil {
					t.Fatal(err)
				}
				groups = append(groups, sub)
				if err := nc.Flush(); err != nil {
					t.Fatal(err)
				}
			}
			plain, err := w.readerConn.SubscribeSync("agent.online.>")
			if err != nil {
				t.Fatal(err)
			}
			if err := w.readerConn.Flush(); err != nil {
				t.Fatal(err)
			}
			for range 20 {
				w.publish("online.886.10.1", "{}", "Nats-TTL", "1h")
			}
			for range 20 {
				if _, err := plain.NextMsg(5 * time.Second); err != nil {
					t.Fatal(err)
				}
			}
			var got []int
			for _, sub := range groups {
				n := 0
				for ; ; n++ {
					if _, err := sub.NextMsg(20 * time.Millisecond); err != nil {
						break
					}
				}
				got = append(got, n)
			}
			if got[0] < c.first || got[1] < c.second || c.first == 0 && got[0]+got[1] > 0 {
				t.Errorf("the groups of the two accounts got %v messages of 20, want at least %d "+
					"and %d", got, c.first, c.second)
			}
		})
	}
}

// settle waits until all that was asked for is done: the API works through requests in order.
func (w *world) settle() {
	w.t.Helper()
	for _, nc := range []*nats.Conn{w.operatorConn, w.connect(w.copyOperator.opt), w.readerConn} {
		for range 2 {
			var info server.JSApiAccountInfoResponse
			request(w.t, nc, "$JS.API.INFO", nil, &info)
		}
	}
}

// state is all that a reader must not change: the streams' configurations, their messages, the
// lease.
func (w *world) state() []string {
	w.t.Helper()
	var out []string
	add := func(nc *nats.Conn, name string) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		for info := range stream(w.t, nc, "").ListStreams(ctx).Info() {
			info.State.Consumers = 0
			b, err := json.Marshal(struct {
				Config jetstream.StreamConfig
				State  jetstream.StreamState
			}{info.Config, info.State})
			if err != nil {
				w.t.Fatal(err)
			}
			out = append(out, name+" "+string(b))
		}
	}
	add(w.operatorConn, "log")
	add(w.connect(w.copyOperator.opt), "copy")
	slices.Sort(out)
	return out
}
