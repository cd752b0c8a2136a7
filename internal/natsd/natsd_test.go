package natsd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"
	"go.uber.org/goleak"

	"github.com/rollcall-events/rollcall/internal/setting"
	"github.com/rollcall-events/rollcall/internal/test/wait"
	"github.com/rollcall-events/rollcall/schemas"
)

func TestMain(m *testing.M) {
	if child() {
		return
	}
	goleak.VerifyTestMain(m)
}

// child does what a process of its own is needed for, where this is one, and reports whether it is.
var child = func() bool { return false }

// logConfig is the stream as the contract wants it.
func logConfig(maxBytes int64) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:     schemas.Stream,
		Subjects: []string{"rollcall.log.>"},
		SubjectTransform: &jetstream.SubjectTransformConfig{Source: "rollcall.log.>",
			Destination: "agent.>"},
		RePublish:          &jetstream.RePublish{Source: "agent.>", Destination: "agent.>"},
		Storage:            jetstream.FileStorage,
		Retention:          jetstream.LimitsPolicy,
		Discard:            jetstream.DiscardNew,
		MaxBytes:           maxBytes,
		AllowAtomicPublish: true,
		AllowRollup:        true,
		AllowMsgTTL:        true,
		AllowDirect:        true,
		DenyDelete:         true,
	}
}

func start(t *testing.T, cfg Config) *Server {
	t.Helper()
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	if cfg.DataDir == "" {
		cfg.DataDir = t.TempDir()
	}
	s, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	return s
}

// own is rollcall's connection; with it come the stream and the bucket.
func own(t *testing.T, s *Server) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	nc, err := s.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), logConfig(64<<20)); err != nil &&
		!errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		t.Fatal(err)
	}
	_, err = js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: schemas.Bucket,
		LimitMarkerTTL: time.Second})
	if err != nil && !errors.Is(err, jetstream.ErrBucketExists) {
		t.Fatal(err)
	}
	return nc, js
}

// reader is a client over the network with nothing set.
func reader(t *testing.T, s *Server, opts ...nats.Option) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	opts = append(opts, nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	nc, err := nats.Connect(s.ClientURL(), opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(2*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	return nc, js
}

func publish(t *testing.T, js jetstream.JetStream, subject, data string) uint64 {
	t.Helper()
	ack, err := js.Publish(t.Context(), "rollcall.log."+subject, []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	return ack.Sequence
}

// subscribe subscribes and makes sure that the server knows.
func subscribe(t *testing.T, nc *nats.Conn, subject string) *nats.Subscription {
	t.Helper()
	sub, err := nc.SubscribeSync(subject)
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return sub
}

func next(t *testing.T, sub *nats.Subscription) *nats.Msg {
	t.Helper()
	m, err := sub.NextMsg(5 * time.Second)
	if err != nil {
		t.Fatalf("on %s: %v", sub.Subject, err)
	}
	return m
}

// state is what must be left as it was by everything a reader tries.
func state(t *testing.T, js jetstream.JetStream) string {
	t.Helper()
	var b strings.Builder
	names := js.StreamNames(t.Context())
	for n := range names.Name() {
		st, err := js.Stream(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		info, err := st.Info(t.Context(), jetstream.WithDeletedDetails(true))
		if err != nil {
			t.Fatal(err)
		}
		info.State.Consumers = 0
		cfg, _ := json.Marshal(info.Config)
		fmt.Fprintf(&b, "%s %s %+v\n", n, cfg, info.State)
	}
	if err := names.Err(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestReaderReads(t *testing.T) {
	s := start(t, Config{})
	_, js := own(t, s)
	for i := range 3 {
		publish(t, js, fmt.Sprintf("online.886.10.%d", i), "on")
		publish(t, js, fmt.Sprintf("state.886.%d", i), "first")
		publish(t, js, fmt.Sprintf("state.886.%d", i), "last")
	}

	t.Run("every event, durable", func(t *testing.T) {
		nc, rjs := reader(t, s)
		cfg := jetstream.ConsumerConfig{Durable: "billing", FilterSubject: "agent.online.>",
			AckPolicy: jetstream.AckExplicitPolicy, DeliverPolicy: jetstream.DeliverAllPolicy}
		c, err := rjs.CreateOrUpdateConsumer(t.Context(), schemas.Stream, cfg)
		if err != nil {
			t.Fatal(err)
		}
		batch, err := c.Fetch(2, jetstream.FetchMaxWait(2*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for m := range batch.Messages() {
			if want := fmt.Sprintf("agent.online.886.10.%d", n); m.Subject() != want {
				t.Errorf("subject %s, want %s", m.Subject(), want)
			}
			if err := m.DoubleAck(t.Context()); err != nil {
				t.Fatal(err)
			}
			n++
		}
		if n != 2 || batch.Error() != nil {
			t.Fatalf("%d messages, %v", n, batch.Error())
		}
		nc.Close()

		// Another connection goes on where that one ended.
		_, rjs = reader(t, s)
		if c, err = rjs.Consumer(t.Context(), schemas.Stream, "billing"); err != nil {
			t.Fatal(err)
		}
		if info := c.CachedInfo(); info.AckFloor.Consumer != 2 || info.NumPending != 1 {
			t.Fatalf("acks did not arrive: %+v", info)
		}
		got := make(chan jetstream.Msg, 1)
		cc, err := c.Consume(func(m jetstream.Msg) { got <- m })
		if err != nil {
			t.Fatal(err)
		}
		defer cc.Stop()
		m := <-got
		if m.Subject() != "agent.online.886.10.2" {
			t.Errorf("got %s", m.Subject())
		}
		if err := m.DoubleAck(t.Context()); err != nil {
			t.Fatal(err)
		}
		if names := list(rjs.Stream(t.Context(), schemas.Stream)); names != "billing" {
			t.Errorf("consumers: %q", names)
		}
		if err := rjs.DeleteConsumer(t.Context(), schemas.Stream, "billing"); err != nil {
			t.Error(err)
		}
	})

	t.Run("state and follow, ordered", func(t *testing.T) {
		_, rjs := reader(t, s)
		c, err := rjs.OrderedConsumer(t.Context(), schemas.Stream, jetstream.OrderedConsumerConfig{
			FilterSubjects: []string{"agent.state.886.*", "agent.watermark.886",
				"agent.health.886"}, DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy})
		if err != nil {
			t.Fatal(err)
		}
		it, err := c.Messages()
		if err != nil {
			t.Fatal(err)
		}
		defer it.Stop()
		for i := range 3 {
			m, err := it.Next()
			if err != nil {
				t.Fatal(err)
			}
			md, err := m.Metadata()
			if err != nil {
				t.Fatal(err)
			}
			if m.Subject() != fmt.Sprintf("agent.state.886.%d", i) || string(m.Data()) != "last" ||
				md.NumPending != uint64(2-i) {
				t.Errorf("got %s %q, %d pending", m.Subject(), m.Data(), md.NumPending)
			}
		}
		publish(t, js, "watermark.886", "{}")
		if m, err := it.Next(); err != nil || m.Subject() != "agent.watermark.886" {
			t.Errorf("follow: %v %v", m, err)
		}
	})

	t.Run("live", func(t *testing.T) {
		nc, _ := reader(t, s)
		sub := subscribe(t, nc, "agent.online.>")
		seq := publish(t, js, "online.886.10.7", "hello")
		m := next(t, sub)
		if m.Subject != "agent.online.886.10.7" || string(m.Data) != "hello" ||
			m.Header.Get("Nats-Sequence") != fmt.Sprint(seq) || m.Reply != "" {
			t.Errorf("got %s %q %v reply %q", m.Subject, m.Data, m.Header, m.Reply)
		}
	})

	t.Run("single messages and the stream", func(t *testing.T) {
		nc, rjs := reader(t, s)
		st, err := rjs.Stream(t.Context(), schemas.Stream)
		if err != nil {
			t.Fatal(err)
		}
		if m, err := st.GetLastMsgForSubject(t.Context(), "agent.state.886.1"); err != nil ||
			string(m.Data) != "last" {
			t.Errorf("direct get, last: %v %v", m, err)
		}
		if m, err := st.GetMsg(t.Context(), 1); err != nil || m.Subject != "agent.online.886.10.0" {
			t.Errorf("direct get: %v %v", m, err)
		}
		m, err := nc.Request("$JS.API.STREAM.MSG.GET."+schemas.Stream,
			[]byte(`{"last_by_subj":"agent.state.886.1"}`), 2*time.Second)
		if err != nil || !bytes.Contains(m.Data, []byte("agent.state.886.1")) {
			t.Errorf("get: %v %v", m, err)
		}
		batch, err := jetstreamext.GetLastMsgsFor(t.Context(), rjs, schemas.Stream,
			[]string{"agent.state.886.*"})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, err := range batch {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		if n != 3 {
			t.Errorf("batch direct get: %d", n)
		}
		info, err := st.Info(t.Context(), jetstream.WithSubjectFilter("agent.state.>"))
		if err != nil || len(info.State.Subjects) != 3 {
			t.Errorf("info: %+v %v", info, err)
		}
		names := rjs.StreamNames(t.Context())
		var all []string
		for n := range names.Name() {
			all = append(all, n)
		}
		if names.Err() != nil || len(all) != 2 {
			t.Errorf("names: %v %v", all, names.Err())
		}
		if _, err := rjs.AccountInfo(t.Context()); err != nil {
			t.Errorf("account: %v", err)
		}
	})

	t.Run("whatever the credentials", func(t *testing.T) {
		for _, o := range []nats.Option{nats.UserInfo(ownUser, "guess"), nats.Token("t"),
			nats.UserInfo("u", "")} {
			nc, rjs := reader(t, s, o)
			if _, err := rjs.Stream(t.Context(), schemas.Stream); err != nil {
				t.Error(err)
			}
			if _, err := nc.Request("rollcall.log.online.1.1.1", nil,
				100*time.Millisecond); err == nil {
				t.Error("published")
			}
			nc.Close()
		}
	})

	t.Run("told that credentials are not required", func(t *testing.T) {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.ClientURL(), "nats://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		info, err := bufio.NewReader(conn).ReadString('\n') // the first word that a client hears
		if err != nil || strings.Contains(info, `"auth_required":true`) {
			t.Errorf("%s %v", info, err)
		}
	})
}

func list(st jetstream.Stream, err error) string {
	if err != nil {
		return err.Error()
	}
	var all []string
	names := st.ConsumerNames(context.Background())
	for n := range names.Name() {
		all = append(all, n)
	}
	if names.Err() != nil {
		return names.Err().Error()
	}
	infos := st.ListConsumers(context.Background())
	i := 0
	for c := range infos.Info() {
		if i >= len(all) || c.Name != all[i] {
			return "names and infos differ"
		}
		i++
	}
	if infos.Err() != nil || i != len(all) {
		return fmt.Sprint("infos: ", infos.Err(), i)
	}
	return strings.Join(all, " ")
}

// arm has the server say that tenant 886 is stale, as rollcall does.
func arm(t *testing.T, js jetstream.JetStream, schedule string) {
	t.Helper()
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: schemas.AlarmStream,
		Subjects: []string{schemas.AlarmPrefix + ">"}, AllowMsgSchedules: true, AllowRollup: true,
		MaxMsgsPerSubject: 1,
		RePublish: &jetstream.RePublish{Source: schemas.AlarmPrefix + "fired.*",
			Destination: "agent.stale.{{wildcard(1)}}"}}); err != nil {
		t.Fatal(err)
	}
	m := nats.NewMsg(schemas.AlarmArmedSubject(886))
	m.Header.Set(jetstream.ScheduleHeader, schedule)
	m.Header.Set(jetstream.ScheduleTargetHeader, schemas.AlarmFiredSubject(886))
	m.Data = []byte("stale")
	if _, err := js.PublishMsg(t.Context(), m); err != nil {
		t.Fatal(err)
	}
}

// The requests of the AsyncAPI document are all that a client without a library needs.
func TestReaderWithoutLibrary(t *testing.T) {
	s := start(t, Config{})
	_, js := own(t, s)
	publish(t, js, "online.886.10.1", "on")
	publish(t, js, "state.886.1", "first")
	nc, _ := reader(t, s)
	text, _ := schemas.Document("asyncapi")
	var document struct {
		Consumers map[string]struct {
			Subject string
			Request json.RawMessage
		} `json:"x-consumers"`
	}
	if err := json.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"stateAndFollow": "agent.state.886.1", "everyEvent": "agent.online.886.10.1",
	} {
		fill := strings.NewReplacer("{name}", name, "{tenantId}", "886").Replace
		create, next := document.Consumers[name], document.Consumers["next"]
		answer, err := nc.Request(fill(create.Subject), []byte(fill(string(create.Request))),
			2*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(answer.Data), `"error"`) {
			t.Fatalf("%s: %s", name, answer.Data)
		}
		m, err := nc.Request(fill(next.Subject), next.Request, 2*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if m.Subject != want {
			t.Errorf("%s: %s, want %s", name, m.Subject, want)
		}
	}
}

// A reader hears the alarm.
func TestReaderHearsTheAlarm(t *testing.T) {
	s := start(t, Config{})
	nc, _ := reader(t, s)
	heard := subscribe(t, nc, schemas.StaleSubject(886))
	_, js := own(t, s)
	arm(t, js, "@at "+time.Now().Add(time.Second).UTC().Format(time.RFC3339Nano))
	if m := next(t, heard); string(m.Data) != "stale" ||
		m.Header.Get("Nats-Stream") != schemas.AlarmStream {
		t.Errorf("heard %v %q", m.Header, m.Data)
	}
}

func TestReaderForbidden(t *testing.T) {
	s := start(t, Config{})
	_, js := own(t, s)
	kv, err := js.KeyValue(t.Context(), schemas.Bucket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Create(t.Context(), "lease.886", []byte("me")); err != nil {
		t.Fatal(err)
	}
	publish(t, js, "online.886.10.1", "on")
	if _, err := js.CreateConsumer(t.Context(), schemas.Stream,
		jetstream.ConsumerConfig{Name: ReservedConsumer + "x",
			FilterSubject: "agent.state.>"}); err != nil {
		t.Fatal(err)
	}
	arm(t, js, "@at 2100-01-01T00:00:00Z")
	before := state(t, js)

	push := func(deliver string) string {
		return `{"stream_name":"AGENT_EVENTS","config":{"ack_policy":"none",` +
			`"deliver_policy":"all","replay_policy":"instant","headers_only":true,` +
			`"deliver_subject":"` + deliver + `"}}`
	}
	ask := func(subject, body string) func(*nats.Conn, jetstream.JetStream) error {
		return func(nc *nats.Conn, _ jetstream.JetStream) error {
			m, err := nc.Request(subject, []byte(body), 500*time.Millisecond)
			if err != nil {
				return err
			}
			var r server.ApiResponse
			if err := json.Unmarshal(m.Data, &r); err != nil {
				t.Errorf("%s: %v", m.Data, err)
			}
			if r.Error == nil {
				return nil
			}
			return r.Error
		}
	}
	ctx := t.Context()
	for _, tt := range []struct {
		name string
		do   func(*nats.Conn, jetstream.JetStream) error
		want string // in the error
	}{
		{"publish into the stream", func(_ *nats.Conn, js jetstream.JetStream) error {
			_, err := js.Publish(ctx, "rollcall.log.online.886.10.1", []byte("x"),
				jetstream.WithRetryAttempts(0))
			return err
		}, ""},
		{"publish under the stored subject", func(_ *nats.Conn, js jetstream.JetStream) error {
			_, err := js.Publish(ctx, "agent.online.886.10.1", []byte("x"),
				jetstream.WithRetryAttempts(0))
			return err
		}, ""},
		{"take the lease", func(nc *nats.Conn, _ jetstream.JetStream) error {
			_, err := nc.Request("$KV.rollcall.lease.886", []byte("me"), 500*time.Millisecond)
			return err
		}, ""},
		{"open the bucket", func(_ *nats.Conn, js jetstream.JetStream) error {
			_, err := js.KeyValue(ctx, schemas.Bucket)
			return err
		}, "the bucket rollcall is rollcall's own"},
		{"create a stream", func(_ *nats.Conn, js jetstream.JetStream) error {
			_, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "X",
				Subjects: []string{"agent.>"}})
			return err
		}, "may read the stream and nothing else"},
		{"create a bucket", func(_ *nats.Conn, js jetstream.JetStream) error {
			_, err := js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "b"})
			return err
		}, "may read the stream and nothing else"},
		{"update the stream", func(_ *nats.Conn, js jetstream.JetStream) error {
			cfg := logConfig(1 << 20)
			cfg.Description = "mine"
			_, err := js.UpdateStream(ctx, cfg)
			return err
		}, "may read the stream and nothing else"},
		{"delete the stream", func(_ *nats.Conn, js jetstream.JetStream) error {
			return js.DeleteStream(ctx, schemas.Stream)
		}, "may read the stream and nothing else"},
		{"purge the stream", func(_ *nats.Conn, js jetstream.JetStream) error {
			st, err := js.Stream(ctx, schemas.Stream)
			if err != nil {
				t.Error(err)
			}
			return st.Purge(ctx)
		}, "may read the stream and nothing else"},
		{"delete a message", func(_ *nats.Conn, js jetstream.JetStream) error {
			st, err := js.Stream(ctx, schemas.Stream)
			if err != nil {
				t.Error(err)
			}
			return st.DeleteMsg(ctx, 1)
		}, "may read the stream and nothing else"},
		{"arm the alarm", ask("rollcall.alarm.armed.886", "{}"), ""},
		{"set the alarm off", ask("rollcall.alarm.fired.886", "{}"), ""},
		{"say that it went off", ask("agent.stale.886", "{}"), ""},
		{"look at the alarm", ask("$JS.API.STREAM.INFO.ROLLCALL_ALARM", ""),
			"may read the stream and nothing else"},
		{"alter the alarm", func(_ *nats.Conn, js jetstream.JetStream) error {
			_, err := js.UpdateStream(ctx, jetstream.StreamConfig{Name: schemas.AlarmStream,
				Subjects: []string{"mine"}})
			return err
		}, "may read the stream and nothing else"},
		{"delete the alarm", func(_ *nats.Conn, js jetstream.JetStream) error {
			return js.DeleteStream(ctx, schemas.AlarmStream)
		}, "may read the stream and nothing else"},
		{"purge the alarm", ask("$JS.API.STREAM.PURGE.ROLLCALL_ALARM", ""),
			"may read the stream and nothing else"},
		{"snapshot", ask("$JS.API.STREAM.SNAPSHOT.AGENT_EVENTS", `{"deliver_subject":"x"}`), ""},
		{"restore", ask("$JS.API.STREAM.RESTORE.AGENT_EVENTS", `{}`), ""},
		{"read the bucket", ask("$JS.API.DIRECT.GET.KV_rollcall.$KV.rollcall.lease.886", ""), ""},
		{"step down", ask("$JS.API.STREAM.LEADER.STEPDOWN.AGENT_EVENTS", ""), ""},
		{"account purge", ask("$JS.API.ACCOUNT.PURGE."+ownAccount, ""), ""},
		{"pause a consumer", ask("$JS.API.CONSUMER.PAUSE.AGENT_EVENTS."+ReservedConsumer+"x",
			`{"pause_until":"2100-01-01T00:00:00Z"}`), ""},
		{"the gate itself", ask(gatePre+"CONSUMER.NAMES."+schemas.Stream, ""), ""},
		{"push consumer, forging an event", ask("$JS.API.CONSUMER.CREATE.AGENT_EVENTS",
			push("agent.online.886.10.1")), "push consumers"},
		{"push consumer, by name and filter", ask("$JS.API.CONSUMER.CREATE.AGENT_EVENTS.p.agent.>",
			strings.Replace(push("agent.online.886.10.1"), `"config":{`,
				`"config":{"name":"p","filter_subject":"agent.>",`, 1)), "push consumers"},
		{"push consumer, durable", ask("$JS.API.CONSUMER.DURABLE.CREATE.AGENT_EVENTS.p",
			strings.Replace(push("agent.online.886.10.1"), `"config":{`,
				`"config":{"durable_name":"p",`, 1)), "push consumers"},
		{"push consumer, deleting the stream",
			ask("$JS.API.CONSUMER.CREATE.AGENT_EVENTS", push("$JS.API.STREAM.DELETE.AGENT_EVENTS")),
			"push consumers"},
		{"push consumer, taking the lease", ask("$JS.API.CONSUMER.CREATE.AGENT_EVENTS",
			push("$KV.rollcall.lease.886")), "push consumers"},
		{"push consumer, otherwise spelt", ask("$JS.API.CONSUMER.CREATE.AGENT_EVENTS",
			strings.Replace(push("agent.x"), "deliver_subject", `Deliver_\u0053ubject`, 1)),
			"push consumers"},
		{"push consumer, second thought", ask("$JS.API.CONSUMER.CREATE.AGENT_EVENTS",
			`{"stream_name":"AGENT_EVENTS","config":{}}`+push("agent.x")), "more than one request"},
		{"push consumer on another stream", ask("$JS.API.CONSUMER.CREATE.KV_rollcall",
			strings.Replace(push("agent.x"), "AGENT_EVENTS", "KV_rollcall", 1)), ""},
		{"pull consumer on another stream, by body",
			ask("$JS.API.CONSUMER.CREATE.AGENT_EVENTS",
				`{"stream_name":"KV_rollcall","config":{}}`), "does not match"},
		{"legacy ordered consumer", func(nc *nats.Conn, _ jetstream.JetStream) error {
			js, err := nc.JetStream()
			if err != nil {
				t.Error(err)
			}
			_, err = js.SubscribeSync("agent.>", nats.OrderedConsumer(),
				nats.BindStream(schemas.Stream))
			return err
		}, "push consumers"},
		{"change rollcall's consumer", func(_ *nats.Conn, js jetstream.JetStream) error {
			_, err := js.UpdateConsumer(ctx, schemas.Stream,
				jetstream.ConsumerConfig{Name: ReservedConsumer + "x",
					FilterSubject: "agent.nothing"})
			return err
		}, "rollcall's own"},
		{"change rollcall's consumer, the old way",
			ask("$JS.API.CONSUMER.CREATE.AGENT_EVENTS",
				`{"stream_name":"AGENT_EVENTS","config":{"name":"`+ReservedConsumer+`x"}}`),
			"rollcall's own"},
		{"delete rollcall's consumer", func(_ *nats.Conn, js jetstream.JetStream) error {
			return js.DeleteConsumer(ctx, schemas.Stream, ReservedConsumer+"x")
		}, "rollcall's own"},
		{"not JSON", ask("$JS.API.CONSUMER.CREATE.AGENT_EVENTS", `{`), "not a request"},
		{"unknown field", ask("$JS.API.CONSUMER.CREATE.AGENT_EVENTS",
			`{"stream_name":"AGENT_EVENTS","config":{"deliver_to":"x"}}`), "unknown field"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			nc, _ := reader(t, s)
			rjs, err := jetstream.New(nc, jetstream.WithDefaultTimeout(500*time.Millisecond))
			if err != nil {
				t.Fatal(err)
			}
			err = tt.do(nc, rjs)
			if err == nil {
				t.Error("it was allowed")
			} else if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q in it", err, tt.want)
			} else {
				t.Log(err)
			}
			if after := state(t, js); after != before {
				t.Errorf("streams were\n%s, are\n%s", before, after)
			}
		})
	}

	_, rjs := reader(t, s)
	if names := list(rjs.Stream(t.Context(), schemas.Stream)); names != "" {
		t.Errorf("a reader sees the consumers %q", names)
	}
	if names := list(js.Stream(t.Context(), schemas.Stream)); names != ReservedConsumer+"x" {
		t.Errorf("consumers: %q", names)
	}
	if e, err := kv.Get(t.Context(), "lease.886"); err != nil || string(e.Value()) != "me" ||
		e.Revision() != 1 {
		t.Errorf("the lease: %v %v", e, err)
	}
}

// TestForgery lets one client point what the server checks least, where answers go, at the subjects
// that others follow.
func TestForgery(t *testing.T) {
	s := start(t, Config{})
	ownNC, js := own(t, s)
	publish(t, js, "online.886.10.1", "old")
	answering(t, s)
	if _, err := ownNC.Request("rollcall.query.886.counts", nil, wait.Patience); err != nil {
		t.Fatal(err) // its consumer is one that rollcall keeps
	}

	for _, target := range []string{"agent.online.886.10.1", "rollcall.log.online.886.10.1",
		"$KV.rollcall.lease.886", "$JS.API.STREAM.PURGE.AGENT_EVENTS", "free.for.all"} {
		t.Run(target, func(t *testing.T) {
			victim, _ := reader(t, s)
			all := subscribe(t, victim, ">")
			agents := subscribe(t, victim, "agent.>")
			inside := subscribe(t, ownNC, target)
			defer func() { _ = inside.Unsubscribe() }()
			before := state(t, js)

			// The forger sees its own forgeries: so it is known that they have been sent.
			forger, fjs := reader(t, s)
			self := subscribe(t, forger, target)
			request := func(what, subject, body string) {
				t.Helper()
				if err := forger.PublishMsg(&nats.Msg{Subject: subject, Reply: target,
					Data: []byte(body)}); err != nil {
					t.Fatal(err)
				}
				m := next(t, self)
				t.Logf("%s: %s %.80q", what, m.Subject, m.Data)
			}
			request("API answer", "$JS.API.STREAM.INFO.AGENT_EVENTS", "")
			request("stored message", "$JS.API.DIRECT.GET.AGENT_EVENTS", `{"seq":1}`)
			request("gate's answer", "$JS.API.CONSUMER.CREATE.AGENT_EVENTS", `{`)
			request("gate's refusal", "$JS.API.STREAM.PURGE.AGENT_EVENTS", ``)
			c, err := fjs.CreateConsumer(t.Context(), schemas.Stream,
				jetstream.ConsumerConfig{AckPolicy: jetstream.AckExplicitPolicy})
			if err != nil {
				t.Fatal(err)
			}
			name := c.CachedInfo().Name
			request("pulled message", "$JS.API.CONSUMER.MSG.NEXT.AGENT_EVENTS."+name, `1`)
			request("pulled status", "$JS.API.CONSUMER.MSG.NEXT.AGENT_EVENTS."+name,
				`{"batch":1,"no_wait":true}`)

			request("answer", "rollcall.query.886.roster", "")
			request("refusal", "rollcall.query.886.roster", "nonsense")
			request("refusal of what is nobody's", "rollcall.query.1.roster", "")
			request("service", "$SRV.PING", "")
			request("service's name", "$SRV.INFO.rollcall", "")

			// A trace of a message goes where its header says, if the client may publish there.
			for _, to := range []string{"$JS.API.STREAM.INFO.AGENT_EVENTS",
				"$JS.API.CONSUMER.NAMES.AGENT_EVENTS", "rollcall.query.886.counts", "$SRV.PING"} {
				if err := forger.PublishMsg(&nats.Msg{Subject: to, Reply: target,
					Header: nats.Header{server.MsgTraceDest: []string{target}}}); err != nil {
					t.Fatal(err)
				}
			}
			request("after the traces", "$JS.API.STREAM.INFO.AGENT_EVENTS", "")
			if err := forger.PublishMsg(&nats.Msg{Subject: target,
				Data: []byte("forged")}); err != nil {
				t.Fatal(err)
			}
			if err := forger.PublishMsg(&nats.Msg{Reply: target, Data: []byte("+NXT"),
				Subject: "$JS.ACK.AGENT_EVENTS." + name + ".1.1.1.1.0"}); err != nil {
				t.Fatal(err)
			}
			if err := forger.Flush(); err != nil {
				t.Fatal(err)
			}

			if after := state(t, js); after != before {
				t.Errorf("streams were\n%s, are\n%s", before, after)
			}
			// What the others get next is the next true message.
			publish(t, js, "updated.886.10.1", target)
			for _, sub := range []*nats.Subscription{all, agents} {
				if m := next(t, sub); m.Subject != "agent.updated.886.10.1" ||
					string(m.Data) != target {
					t.Errorf("%s got %s %.200q", sub.Subject, m.Subject, m.Data)
				}
			}
			if err := ownNC.Flush(); err != nil {
				t.Fatal(err)
			}
			if n, _, err := inside.Pending(); n != 0 || err != nil {
				t.Errorf("%d messages on %s in the stream's account, %v", n, target, err)
			}
		})
	}
}

// TestReservedReplies: subjects that would skip the rewriting of answers are refused by the server.
func TestReservedReplies(t *testing.T) {
	s := start(t, Config{})
	_, js := own(t, s)
	publish(t, js, "online.886.10.1", "x")
	for _, reply := range []string{"$JS.ACK.AGENT_EVENTS.c.1.1.1.1.0", "_R_.abc.def"} {
		errs := make(chan error, 8)
		nc, err := nats.Connect(s.ClientURL(),
			nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { errs <- err }))
		if err != nil {
			t.Fatal(err)
		}
		if err := nc.PublishRequest("$JS.API.DIRECT.GET.AGENT_EVENTS", reply,
			[]byte(`{"seq":1}`)); err != nil {
			t.Fatal(err)
		}
		if err := <-errs; !strings.Contains(err.Error(), "iolation") {
			t.Errorf("%s: %v", reply, err)
		}
		nc.Close()
	}
}

func TestPublishingIsRefusedAloud(t *testing.T) {
	var log bytes.Buffer
	s := start(t, Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	errs := make(chan error, 1)
	nc, err := nats.Connect(s.ClientURL(),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { errs <- err }))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if err := nc.Publish("agent.online.886.10.1", nil); err != nil {
		t.Fatal(err)
	}
	if err := <-errs; !errors.Is(err, nats.ErrPermissionViolation) {
		t.Error(err)
	}
	s.Shutdown()
	if log.Len() > 0 {
		t.Errorf("a client's mistake in the server's log: %s", &log)
	}
}

// TestNoQueueGroups: a group would be one across all clients, and take messages from whoever uses
// its name.
func TestNoQueueGroups(t *testing.T) {
	s := start(t, Config{})
	_, js := own(t, s)
	victim, _ := reader(t, s)
	all := subscribe(t, victim, "agent.>")
	for _, subject := range []string{"agent.>", "agent.online.>", "agent.online.886.10.1",
		"*.online.>", ">"} {
		errs := make(chan error, 8)
		nc, err := nats.Connect(s.ClientURL(),
			nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { errs <- err }))
		if err != nil {
			t.Fatal(err)
		}
		sub, err := nc.QueueSubscribeSync(subject, "routing")
		if err != nil {
			t.Fatal(err)
		}
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
		publish(t, js, "online.886.10.1", "x")
		next(t, all)
		if err := nc.Flush(); err != nil { // what was delivered before is there now
			t.Fatal(err)
		}
		if n, _, _ := sub.Pending(); n != 0 {
			t.Errorf("a queue group on %s got a message", subject)
		}
		select {
		case err := <-errs:
			if !errors.Is(err, nats.ErrPermissionViolation) {
				t.Errorf("%s: %v", subject, err)
			}
		// wider than agent.>: the subscription stands, and what is denied is not delivered to it
		default:
		}
		nc.Close()
	}
}

// TestAccountsAreUsedAgain keeps the number of accounts at that of connections at the same time.
func TestAccountsAreUsedAgain(t *testing.T) {
	s := start(t, Config{})
	_, js := own(t, s)
	accounts := func() int { return int(s.running.Load().NumLoadedAccounts()) }
	connected := func() (n int) { // readers
		for i := range accounts() {
			acc, err := s.running.Load().LookupAccount(fmt.Sprintf("READER-%d", i+1))
			if err == nil {
				n += acc.NumLocalConnections()
			}
		}
		return n
	}
	nc, _ := reader(t, s)
	sub := subscribe(t, nc, "agent.>")
	n := accounts()
	for range 10 {
		nc, rjs := reader(t, s)
		if _, err := rjs.Stream(t.Context(), schemas.Stream); err != nil {
			t.Fatal(err)
		}
		nc.Close()
		// the server notices in its own time, its count of clients before the account's
		for connected() > 1 {
			time.Sleep(time.Millisecond)
		}
	}
	if got := accounts(); got > n+1 {
		t.Errorf("%d accounts, had %d", got, n)
	}
	publish(t, js, "online.886.10.1", "x")
	next(t, sub)
}

func TestOwnConnection(t *testing.T) {
	s := start(t, Config{})
	nc, js := own(t, s)
	batch := []*nats.Msg{
		{Subject: "rollcall.log.online.886.10.1", Header: nats.Header{"Nats-TTL": []string{"168h"}},
			Data: []byte("1")},
		{Subject: "rollcall.log.state.886.1", Header: nats.Header{"Nats-Rollup": []string{"sub"}},
			Data: []byte("2")},
		{Subject: "rollcall.log.watermark.886",
			Header: nats.Header{"Nats-Rollup": []string{"sub"},
				"Nats-Expected-Last-Subject-Sequence": []string{"0"}}, Data: []byte("3")},
	}
	live := subscribe(t, nc, "agent.>")
	if _, err := jetstreamext.PublishMsgBatch(t.Context(), js, batch); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"agent.online.886.10.1", "agent.state.886.1",
		"agent.watermark.886"} {
		if m := next(t, live); m.Subject != want {
			t.Errorf("got %s, want %s", m.Subject, want)
		}
	}
	kv, err := js.KeyValue(t.Context(), schemas.Bucket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Create(t.Context(), "lease.886", []byte("me"),
		jetstream.KeyTTL(2*time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteStream(t.Context(), schemas.Stream); err != nil {
		t.Error(err)
	}
}

// TestFullStream: the stream's limit is met before any of the server's.
func TestFullStream(t *testing.T) {
	s := start(t, Config{MaxBytes: 1 << 20})
	nc, err := s.Connect()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{100 << 40, 1 << 20} { // more than any disk has, then little
		if _, err := js.CreateStream(t.Context(), logConfig(size)); err != nil {
			t.Fatal(err)
		}
		if size > 1<<20 {
			if err := js.DeleteStream(t.Context(), schemas.Stream); err != nil {
				t.Fatal(err)
			}
		}
	}
	batch := func() (b []*nats.Msg) {
		for i := range 10 {
			b = append(b, &nats.Msg{Subject: fmt.Sprintf("rollcall.log.online.1.1.%d", i),
				Header: nats.Header{}, Data: make([]byte, 20<<10)})
		}
		return b
	}
	n := 0
	for {
		_, err := jetstreamext.PublishMsgBatch(t.Context(), js, batch())
		if err == nil {
			n++
			continue
		}
		if api := (*jetstream.APIError)(nil); !errors.As(err, &api) || api.ErrorCode != 10077 {
			t.Errorf("full: %v", err)
		}
		break
	}
	st, err := js.Stream(t.Context(), schemas.Stream)
	if err != nil {
		t.Fatal(err)
	}
	if got := st.CachedInfo().State.Msgs; got != uint64(n*10) {
		t.Errorf("%d messages after %d batches of 10", got, n)
	}
}

func TestRestart(t *testing.T) {
	dir := t.TempDir()
	s := start(t, Config{DataDir: dir})
	nc, js := own(t, s)
	_, rjs := reader(t, s)
	if _, err := rjs.CreateConsumer(t.Context(), schemas.Stream,
		jetstream.ConsumerConfig{Durable: "d"}); err != nil {
		t.Fatal(err)
	}
	publish(t, js, "online.886.10.1", "x")
	before := state(t, js)
	nc.Close()
	s.Shutdown()
	s.Shutdown() // does nothing
	if _, err := os.Stat(filepath.Join(dir, lockFile)); err != nil {
		t.Error(err)
	}

	s = start(t, Config{DataDir: dir})
	_, js = own(t, s)
	if after := state(t, js); after != before {
		t.Errorf("streams were\n%s, are\n%s", before, after)
	}
	_, rjs = reader(t, s)
	c, err := rjs.Consumer(t.Context(), schemas.Stream, "d")
	if err != nil {
		t.Fatal(err)
	}
	m, err := c.Next(jetstream.FetchMaxWait(2 * time.Second))
	if err != nil || string(m.Data()) != "x" {
		t.Errorf("%v %v", m, err)
	}
}

// TestReaderSurvivesRestart: a client that stays connects again and goes on.
func TestReaderSurvivesRestart(t *testing.T) {
	dir := t.TempDir()
	s := start(t, Config{DataDir: dir})
	own(t, s)
	back := make(chan struct{}, 1)
	nc, rjs := reader(t, s, nats.ReconnectWait(10*time.Millisecond), nats.ReconnectJitter(0, 0),
		nats.MaxReconnects(-1),
		nats.ReconnectHandler(func(*nats.Conn) { back <- struct{}{} }))
	sub := subscribe(t, nc, "agent.>")
	listen := strings.TrimPrefix(s.ClientURL(), "nats://")
	s.Shutdown()
	s = start(t, Config{DataDir: dir, Listen: listen})
	_, js := own(t, s)
	<-back
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	publish(t, js, "online.886.10.1", "x")
	next(t, sub)
	if _, err := rjs.Stream(t.Context(), schemas.Stream); err != nil {
		t.Error(err)
	}
}

func TestStartErrors(t *testing.T) {
	dir := t.TempDir()
	s := start(t, Config{DataDir: dir})
	taken := strings.TrimPrefix(s.ClientURL(), "nats://")

	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	store := filepath.Join(t.TempDir(), "store")
	if err := os.MkdirAll(store, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(store, "jetstream"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	free := t.TempDir()
	for _, tt := range []struct {
		name string
		cfg  Config
		is   error
		want []string
	}{
		{"directory in use", Config{DataDir: dir}, ErrDirInUse, []string{dir, "DataDir"}},
		{"port in use", Config{Listen: taken, DataDir: free}, ErrListen,
			[]string{taken, "in use", "Listen"}},
		{"no such address", Config{Listen: "192.0.2.1:0", DataDir: free}, ErrListen,
			[]string{"192.0.2.1", "Listen"}},
		{"a file in the way", Config{DataDir: filepath.Join(file, "data")}, nil,
			[]string{file, "DataDir"}},
		{"directory is a file", Config{DataDir: file}, nil, []string{file, "DataDir"}},
		{"store can't be made", Config{DataDir: store}, nil, []string{store}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.cfg.Listen == "" {
				tt.cfg.Listen = "127.0.0.1:0"
			}
			s, err := Start(tt.cfg)
			if err == nil {
				s.Shutdown()
				t.Fatal("it started")
			}
			t.Log(err)
			if tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("%v is not %v", err, tt.is)
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not say %q", err, w)
				}
			}
		})
	}
	// A failed start gives up what it had.
	start(t, Config{DataDir: free})
}

// Nothing is said to be fine that a start could not create.
func TestLookAtWhatCantBe(t *testing.T) {
	gone, link := filepath.Join(t.TempDir(), "gone"), filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(gone, link); err != nil {
		t.Skip(err) // not everybody may make links everywhere
	}
	dirs := map[string]string{link: gone, filepath.Join(link, "data"): gone}
	if runtime.GOOS == "linux" {
		dirs["/proc/rollcall/data"] = "/proc"
	}
	for dir, want := range dirs {
		if _, err := Look(Config{DataDir: dir}); !errors.As(err, new(*setting.Error)) ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", dir, err)
		}
		if s, err := Start(Config{DataDir: dir, Listen: "127.0.0.1:0"}); err == nil {
			s.Shutdown()
			t.Errorf("%s: a start could use it", dir)
		}
	}
	good := filepath.Join(t.TempDir(), "a", "b")
	if found, err := Look(Config{DataDir: good}); err != nil || !found.Missing {
		t.Errorf("%s: %+v, %v", good, found, err)
	}
}

func TestValidate(t *testing.T) {
	for _, listen := range []string{"", ":4222", "[::1]:0", "localhost:-1", "127.0.0.1:65535"} {
		if err := (Config{Listen: listen, DataDir: "d"}).Validate(); err != nil {
			t.Errorf("%q: %v", listen, err)
		}
	}
	for _, listen := range []string{"127.0.0.1", "127.0.0.1:", "host:port", "h:65536", "::1:4222",
		"h:-2"} {
		err := (Config{Listen: listen, MaxBytes: -1}).Validate()
		if err == nil {
			t.Errorf("%q is accepted", listen)
			continue
		}
		var got []string
		for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
			if se := (*setting.Error)(nil); errors.As(e, &se) {
				got = append(got, se.Field)
			}
		}
		if s := strings.Join(got, " "); s != "Listen DataDir MaxBytes" {
			t.Errorf("%q: %s", listen, s)
		}
	}
}

func TestClientURL(t *testing.T) {
	s := start(t, Config{Listen: ":0"})
	nc, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()
	if !strings.HasPrefix(s.ClientURL(), "nats://127.0.0.1:") {
		t.Error(s.ClientURL())
	}
}

// TestNothingElseListens compares the server's one listener with what it was told.
func TestNothingElseListens(t *testing.T) {
	s := start(t, Config{})
	if a, ok := s.running.Load().Addr().(*net.TCPAddr); !ok || !a.IP.IsLoopback() {
		t.Errorf("listens on %v", s.running.Load().Addr())
	}
	if s.running.Load().MonitorAddr() != nil || s.running.Load().ClusterAddr() != nil ||
		s.running.Load().ProfilerAddr() != nil {
		t.Error("something else listens")
	}
}

func TestServerLog(t *testing.T) {
	var b bytes.Buffer
	l := newServerLog(slog.New(slog.NewTextHandler(&b, nil)))
	l.Noticef("started")
	l.Errorf("Publish Violation of %s", "x")
	for i := range 100 {
		l.Warnf("warning %d", i)
	}
	cause := errors.New("cause")
	l.Fatalf("first: %v", cause)
	l.Fatalf("second")
	if n := strings.Count(b.String(), "level=WARN"); n != 20 {
		t.Errorf("%d warnings in\n%s", n, &b)
	}
	if strings.Contains(b.String(), "started") || strings.Contains(b.String(), "Violation") {
		t.Error(b.String())
	}
	if err := l.fatal(); !errors.Is(err, cause) || err.Error() != "first: cause" {
		t.Error(err)
	}
}

func TestDiskWarning(t *testing.T) {
	if _, _, ok := disk(t.TempDir()); !ok {
		t.Log("this system does not say how much room a disk has: nothing to warn of")
		return
	}
	var b bytes.Buffer
	s := start(t, Config{MaxBytes: 1 << 59, Logger: slog.New(slog.NewTextHandler(&b, nil))})
	s.Shutdown()
	if !strings.Contains(b.String(), "less room than the stream may take") {
		t.Errorf("no warning: %s", &b)
	}
}
