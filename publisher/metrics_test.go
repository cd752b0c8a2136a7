package publisher

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/internal/test/metrictest"
	"github.com/rollcall-events/rollcall/internal/test/natstest"
	"github.com/rollcall-events/rollcall/schemas"
)

// counting is a publisher that has taken the stream over, and the registry that its metrics are in.
func counting(t *testing.T, nc *nats.Conn) (*Publisher, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	cfg := config()
	cfg.Metrics = reg
	p, err := Open(t.Context(), nc, cfg)
	if err != nil {
		t.Fatal(err)
	}
	r, err := p.recover(t.Context(), func(*packed.State) {})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.shutOut(t.Context(), r, Batch{}); err != nil {
		t.Fatal(err)
	}
	return p, reg
}

// wantCommits compares what is counted of commits. sent is how many messages those that are in the
// log have.
func wantCommits(t *testing.T, reg *prometheus.Registry, committed, sent float64,
	others metrictest.Series) {
	t.Helper()
	want := metrictest.Series{
		`rollcall_commits_total{result="committed"}`: committed,
		"rollcall_commit_messages_count":             committed,
		"rollcall_commit_messages_sum":               sent,
		"rollcall_commit_duration_seconds_count":     committed,
	}
	for series, n := range others {
		want[series] = n
		if series != `rollcall_commits_total{result="failed"}` {
			want["rollcall_commit_duration_seconds_count"] += n
		}
	}
	got := metrictest.Gather(t, reg).Of("rollcall_commit").Some()
	if took := got["rollcall_commit_duration_seconds_sum"]; took <= 0 || took > 30 {
		t.Errorf("the commits took %v s", took)
	}
	delete(got, "rollcall_commit_duration_seconds_sum")
	delete(got, "rollcall_commit_retries_total")
	delete(got, "rollcall_commit_failing_since_timestamp_seconds")
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want, +got:\n%s", d)
	}
}

func TestMetrics(t *testing.T) {
	url, _ := natstest.Start(t, "")
	p, reg := counting(t, natstest.Connect(t, url))
	// three events, two states, the watermark
	commit(t, p, 1, event(1, 1), event(2, 1), event(1, 2))
	commit(t, p, 2)
	wantCommits(t, reg, 3, 1+6+1, nil)

	// Somebody else commits: all that comes from here on is refused.
	other, _ := counting(t, natstest.Connect(t, url))
	commit(t, other, 3)
	if err := p.Commit(t.Context(), Batch{Events: []schemas.Event{event(1, 3)}}); !errors.Is(err,
		ErrSuperseded) {
		t.Fatal(err)
	}
	wantCommits(t, reg, 3, 8, metrictest.Series{`rollcall_commits_total{result="superseded"}`: 1})
	if n := metrictest.Gather(t, reg)["rollcall_leader"]; n != 0 {
		t.Errorf("a publisher that does not lead says %v", n)
	}
}

// A part of a commit is in the stream.
func TestMetricsTorn(t *testing.T) {
	url, _ := natstest.Start(t, "")
	nc := natstest.Connect(t, url)
	p, reg := counting(t, nc)
	commit(t, p, 1, event(1, 1))
	forge(t, nc, schemas.StateSubject(tenant, 1), "{}") // as a server that ran full would leave it
	p.checked = time.Time{}
	msgs, id := p.messages(Batch{Events: []schemas.Event{event(1, 2)}}, nil)
	msgs[len(msgs)-1].Header.Set(jetstream.ExpectedLastSubjSeqHeader, "1") // and refused
	if err := p.commit(t.Context(), msgs, id); !errors.Is(err, ErrSuperseded) ||
		!strings.Contains(err.Error(), "stands above") {
		t.Fatal(err)
	}
	wantCommits(t, reg, 2, 4, metrictest.Series{`rollcall_commits_total{result="torn"}`: 1})
}

// Commits that wait for the broker are tried again, and fail where nobody waits any longer.
func TestMetricsBrokerAway(t *testing.T) {
	dir := t.TempDir()
	url, stop := natstest.Start(t, dir)
	nc := natstest.Connect(t, url)
	p, reg := counting(t, nc)
	stop()
	for nc.IsConnected() {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Commit(ctx, Batch{Watermark: complete(1)}) }()
	for metrictest.Gather(t, reg)["rollcall_commit_retries_total"] == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Commit returned %v", err)
	}
	wantCommits(t, reg, 1, 1, metrictest.Series{`rollcall_commits_total{result="failed"}`: 1})
	natstest.StartAt(t, dir, url)
	commit(t, p, 2)
	wantCommits(t, reg, 2, 2, metrictest.Series{`rollcall_commits_total{result="failed"}`: 1})
}

// leaderSays is what a replica's gauge says.
func leaderSays(t *testing.T, reg *prometheus.Registry) float64 {
	t.Helper()
	return metrictest.Gather(t, reg)["rollcall_leader"]
}

func TestLeader(t *testing.T) {
	url, _ := natstest.Start(t, "")
	regs := map[string]*prometheus.Registry{"a": prometheus.NewRegistry(),
		"b": prometheus.NewRegistry()}
	start := func(name string) *replica {
		return startReplica(t, url, name, func(c *Config) { c.Metrics = regs[name] })
	}
	a := start("a")
	a.waitLeading(t)
	b := start("b")
	for name, r := range map[string]*replica{"a": a, "b": b} {
		s := r.p.Status(t.Context())
		if s.Stream != nil || s.Lease != nil || s.Leader != "a" ||
			r.p.Leading() != (name == "a") {
			t.Errorf("%s: %+v, leading %v", name, s, r.p.Leading())
		}
	}
	if na, nb := leaderSays(t, regs["a"]), leaderSays(t, regs["b"]); na != 1 || nb != 0 {
		t.Errorf("a says %v, b %v", na, nb)
	}
	a.stop()
	<-a.done
	b.waitLeading(t)
	if na, nb := leaderSays(t, regs["a"]), leaderSays(t, regs["b"]); na != 0 || nb != 1 {
		t.Errorf("afterwards a says %v, b %v", na, nb)
	}
	if s := a.p.Status(t.Context()); s.Leader != "b" {
		t.Errorf("a takes %q for the leader", s.Leader)
	}
}

// What a look shows of a server on which nothing has been done, one that has the stream, and one
// that has something else.
func TestLook(t *testing.T) {
	url, _ := natstest.Start(t, "")
	nc := natstest.Connect(t, url)
	cfg := config()
	if s := NewReader(nc, cfg).Status(t.Context()); s.Stream != nil || s.Lease != nil ||
		s.Watermark != nil || s.Leader != "" {
		t.Errorf("an empty server: %+v", s)
	}
	cfg.Manage = false
	if s := NewReader(nc, cfg).Status(t.Context()); !isSetup(s.Stream, "Manage") ||
		!isSetup(s.Lease, "Manage") {
		t.Errorf("an empty server, and nothing may be created: %+v", s)
	}
	js, _ := jetstream.New(nc)
	if _, err := js.Stream(t.Context(), schemas.Stream); !errors.Is(err,
		jetstream.ErrStreamNotFound) {
		t.Fatalf("a look has created the stream: %v", err)
	}

	p, _ := counting(t, nc)
	if err := p.Commit(t.Context(), Batch{Health: &schemas.Health{State: schemas.HealthFailing,
		Reason: schemas.Unusable}, Watermark: complete(7)}); err != nil {
		t.Fatal(err)
	}
	s := NewReader(nc, cfg).Status(t.Context())
	if s.Stream != nil || s.Lease != nil || s.Watermark == nil || s.Watermark.Sweep != 7 ||
		s.Health == nil || s.Health.Reason != schemas.Unusable {
		t.Errorf("%+v", s)
	}
	cfg.Tenant = 0
	if s := NewReader(nc, cfg).Status(t.Context()); s.Stream != nil || s.Lease != nil ||
		s.Watermark != nil || s.Health != nil {
		t.Errorf("without a tenant: %+v", s)
	}
	forge(t, nc, schemas.WatermarkSubject(tenant), "nonsense")
	forge(t, nc, schemas.HealthSubject(tenant), "nonsense")
	if s := p.Status(t.Context()); s.Stream != nil || s.Watermark != nil || s.Health != nil {
		t.Errorf("nonsense: %+v", s)
	}

	odd := streamConfig(config())
	odd.MaxAge = time.Hour
	if _, err := js.UpdateStream(t.Context(), odd); err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteKeyValue(t.Context(), schemas.Bucket); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateKeyValue(t.Context(),
		jetstream.KeyValueConfig{Bucket: schemas.Bucket}); err != nil {
		t.Fatal(err)
	}
	if s := p.Status(t.Context()); !isSetup(s.Stream, "max age is 1h0m0s") ||
		!isSetup(s.Lease, "limit marker TTL") {
		t.Errorf("a stream and a bucket that do not fit: %+v", s)
	}
}

func isSetup(err error, text string) bool {
	var setup *SetupError
	return errors.As(err, &setup) && strings.Contains(err.Error(), text)
}

// A server that does not answer is told of, in the time there is.
func TestLookAway(t *testing.T) {
	url, stop := natstest.Start(t, "")
	nc := natstest.Connect(t, url)
	p := open(t, nc)
	stop()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if s := p.Status(ctx); s.Stream == nil || s.Lease == nil {
		t.Errorf("%+v", s)
	}
}
