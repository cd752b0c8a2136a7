package publisher

import (
	"context"
	"encoding/json"
	"net"
	neturl "net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/internal/test/natstest"
	"github.com/rollcall-events/rollcall/internal/test/wait"
	"github.com/rollcall-events/rollcall/schemas"
)

func alarmOf(t *testing.T, url string, tenant int64) *Alarm {
	t.Helper()
	a, err := NewAlarm(natstest.Connect(t, url), Config{Tenant: tenant, Replicas: 1, Manage: true})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// running runs the alarm until the test ends or stop is called.
func running(t *testing.T, a *Alarm) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); a.Run(ctx) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

func listen(t *testing.T, url, subject string) *nats.Subscription {
	t.Helper()
	nc := natstest.Connect(t, url)
	sub, err := nc.SubscribeSync(subject)
	if err == nil {
		err = nc.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	return sub
}

// stale waits for the alarm, and returns what it says.
func stale(t *testing.T, sub *nats.Subscription) (s schemas.Stale) {
	t.Helper()
	m, err := sub.NextMsg(20 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(m.Data, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// armedAt waits until the server holds an alarm for that time.
func armedAt(t *testing.T, url string, tenant int64, at time.Time) {
	t.Helper()
	js, err := jetstream.New(natstest.Connect(t, url))
	if err != nil {
		t.Fatal(err)
	}
	for ctx := t.Context(); ; {
		if s, err := js.Stream(ctx, schemas.AlarmStream); err == nil {
			m, err := s.GetLastMsgForSubject(ctx, schemas.AlarmArmedSubject(tenant))
			var is schemas.Stale
			if err == nil && json.Unmarshal(m.Data, &is) == nil && is.NextBy.Equal(at) {
				return
			}
		}
		select {
		case <-ctx.Done():
			t.Fatal("the alarm is not armed")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func overdueAt(d time.Duration, sweep uint64) schemas.Watermark {
	now := schemas.FloorTime(time.Now())
	return schemas.Watermark{Sweep: sweep, StartedAt: now, NextBy: now.Add(d)}
}

// The alarm goes off once, at the last nextBy, after whoever armed it is gone; each tenant has its
// own.
func TestAlarm(t *testing.T) {
	t.Parallel()
	url, _ := natstest.Start(t, "")
	heard := listen(t, url, "agent.stale.*")
	first, other := alarmOf(t, url, 886), alarmOf(t, url, 887)
	stop := running(t, first)
	running(t, other)

	early, late := overdueAt(4*time.Second, 7), overdueAt(6*time.Second, 8)
	far := overdueAt(time.Hour, 3)
	other.PutOff(far)
	armedAt(t, url, 887, far.NextBy)
	first.PutOff(early)
	armedAt(t, url, 886, early.NextBy)
	first.PutOff(late)
	armedAt(t, url, 886, late.NextBy)
	stop() // nobody is left to put it off

	got := stale(t, heard)
	if got.TenantID != 886 || got.Sweep != 8 || !got.StartedAt.Equal(late.StartedAt) ||
		!got.NextBy.Equal(late.NextBy) {
		t.Errorf("the server says %+v, want sweep 8's, overdue at %v", got, late.NextBy)
	}
	if now := time.Now(); now.Before(late.NextBy) {
		t.Errorf("it says so at %v, before %v", now, late.NextBy)
	}
	if n, _, _ := heard.Pending(); n != 0 {
		t.Errorf("%d messages more", n)
	}

	// The next watermark ends it, and arms it anew.
	again := alarmOf(t, url, 886)
	running(t, again)
	w := overdueAt(2*time.Second, 9)
	again.PutOff(w)
	if got := stale(t, heard); got.Sweep != 9 {
		t.Errorf("the second alarm is %+v", got)
	}
}

// However close watermarks follow one another, the last one is armed, while others come too.
func TestAlarmOfTheLast(t *testing.T) {
	t.Parallel()
	url, _ := natstest.Start(t, "")
	a := alarmOf(t, url, 886)
	running(t, a)
	w := overdueAt(time.Hour, 0)
	for range 40 {
		w.Sweep, w.NextBy = w.Sweep+1, w.NextBy.Add(10*time.Millisecond)
		a.PutOff(w)
		time.Sleep(10 * time.Millisecond)
	}
	armedAt(t, url, 886, w.NextBy)
	js, err := jetstream.New(natstest.Connect(t, url))
	if err != nil {
		t.Fatal(err)
	}
	s, err := js.Stream(t.Context(), schemas.AlarmStream)
	if err != nil {
		t.Fatal(err)
	}
	if n := s.CachedInfo().State.LastSeq; n > 5 {
		t.Errorf("the server was told %d times within 0.4s", n)
	}
}

// A server that was away when the alarm was due tells it when it is back.
func TestAlarmOutlivesTheServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	url, stop := natstest.Start(t, dir)
	a := alarmOf(t, url, 886)
	end := running(t, a)
	w := overdueAt(2*time.Second, 7)
	a.PutOff(w)
	armedAt(t, url, 886, w.NextBy)
	end()
	stop()
	time.Sleep(time.Until(w.NextBy))
	natstest.StartAt(t, dir, url)

	js, err := jetstream.New(natstest.Connect(t, url))
	if err != nil {
		t.Fatal(err)
	}
	for ctx := t.Context(); ; { // who subscribes now may be too late: the stream keeps the last one
		s, err := js.Stream(ctx, schemas.AlarmStream)
		if err == nil {
			if _, err = s.GetLastMsgForSubject(ctx, schemas.AlarmFiredSubject(886)); err == nil {
				return
			}
		}
		select {
		case <-ctx.Done():
			t.Fatal(err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Where the stream can't be had, the alarm says so once and goes on trying; what is there is never
// altered.
func TestAlarmCantBeHad(t *testing.T) {
	t.Parallel()
	url, _ := natstest.Start(t, "")
	js, err := jetstream.New(natstest.Connect(t, url))
	if err != nil {
		t.Fatal(err)
	}
	unfit := jetstream.StreamConfig{Name: schemas.AlarmStream,
		Subjects: []string{"rollcall.alarm.>"}}
	s, err := js.CreateStream(t.Context(), unfit)
	if err != nil {
		t.Fatal(err)
	}
	bad := AlarmMisfits(s.CachedInfo().Config)
	if len(bad) != 3 {
		t.Errorf("misfits: %q", strings.Join(bad, "; "))
	}
	a := alarmOf(t, url, 886)
	ready := false
	if err := a.prepare(t.Context(), &ready); err == nil || ready ||
		!strings.Contains(err.Error(), "never alters") {
		t.Errorf("an unfit stream: %v", err)
	}
	if err := js.DeleteStream(t.Context(), schemas.AlarmStream); err != nil {
		t.Fatal(err)
	}
	a.cfg.Manage = false
	if err := a.prepare(t.Context(), &ready); err == nil || ready ||
		!strings.Contains(err.Error(), "does not exist") {
		t.Errorf("no stream: %v", err)
	}
	a.cfg.Manage = true
	if err := a.prepare(t.Context(), &ready); err != nil || !ready {
		t.Errorf("a stream that may be created: %v", err)
	}
	if bad := AlarmMisfits(alarmConfig(1)); len(bad) > 0 {
		t.Errorf("rollcall's own stream does not fit: %q", bad)
	}
}

// A watermark that waited while the process was paused is not armed: another replica may lead.
func TestAlarmAfterAPause(t *testing.T) {
	t.Parallel()
	url, _ := natstest.Start(t, "")
	a := alarmOf(t, url, 886)
	old := overdueAt(time.Hour, 7)
	a.latest <- due{old, time.Now().Add(-2 * alarmPause)}
	running(t, a)
	fresh := overdueAt(2*time.Hour, 8)
	for len(a.latest) > 0 {
		time.Sleep(time.Millisecond)
	}
	a.PutOff(fresh)
	armedAt(t, url, 886, fresh.NextBy)
	js, err := jetstream.New(natstest.Connect(t, url))
	if err != nil {
		t.Fatal(err)
	}
	s, err := js.Stream(t.Context(), schemas.AlarmStream)
	if err != nil {
		t.Fatal(err)
	}
	if n := s.CachedInfo().State.LastSeq; n != 1 {
		t.Errorf("the server was told %d times, want once", n)
	}
}

// The last watermark before the end is armed, and what has waited for too long is not.
func TestAlarmAtTheEnd(t *testing.T) {
	t.Parallel()
	url, _ := natstest.Start(t, "")
	a := alarmOf(t, url, 886)
	last := overdueAt(time.Hour, 7)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	a.PutOff(last)
	a.Run(over)
	armedAt(t, url, 886, last.NextBy)
	a.latest <- due{overdueAt(2*time.Hour, 8), time.Now().Add(-2 * alarmPause)}
	a.Run(over)
	armedAt(t, url, 886, last.NextBy)
}

// On a cluster the alarm stays armed when the stream's leader changes, and when its server goes.
func TestAlarmOnACluster(t *testing.T) {
	t.Parallel()
	var routes, urls []string
	for range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		routes = append(routes, "nats://"+l.Addr().String())
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	stops := make(map[string]func())
	for i, route := range routes {
		u, err := neturl.Parse(route)
		if err != nil {
			t.Fatal(err)
		}
		port, err := strconv.Atoi(u.Port())
		if err != nil {
			t.Fatal(err)
		}
		name := "n" + strconv.Itoa(i+1)
		url, stop := natstest.StartOptions(t, &server.Options{ServerName: name,
			Routes:  server.RoutesFromStr(strings.Join(routes, ",")),
			Cluster: server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: port}})
		urls, stops[name] = append(urls, url), stop
	}
	all := strings.Join(urls, ",")
	heard := listen(t, all, "agent.stale.*")
	a := alarmOf(t, all, 886)
	a.cfg.Replicas = 3
	stop := running(t, a)
	js, err := jetstream.New(natstest.Connect(t, all), jetstream.WithDefaultTimeout(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	// leader is the server that leads the stream, with all replicas there and up to date.
	leader := func(replicas int) (name string) {
		wait.Eventually(t, "a leader of the alarm's stream", func() bool {
			s, err := js.Stream(t.Context(), schemas.AlarmStream)
			if err != nil {
				return false
			}
			c := s.CachedInfo().Cluster
			current := 0
			for _, r := range c.Replicas {
				if r.Current && !r.Offline {
					current++
				}
			}
			name = c.Leader
			return name != "" && current == replicas-1
		})
		return name
	}

	far := overdueAt(time.Hour, 7)
	// The servers have to meet first; until then the alarm can't be had.
	wait.Eventually(t, "the stream on three servers", func() bool {
		a.PutOff(far)
		s, err := js.Stream(t.Context(), schemas.AlarmStream)
		return err == nil && s.CachedInfo().State.Msgs == 1
	})
	w := overdueAt(15*time.Second, 8)
	a.PutOff(w)
	armedAt(t, all, 886, w.NextBy)
	stop() // nobody is left to put it off

	was := leader(3)
	if _, err := js.Conn().Request("$JS.API.STREAM.LEADER.STEPDOWN."+schemas.AlarmStream, nil,
		5*time.Second); err != nil {
		t.Fatal(err)
	}
	var now string
	wait.Eventually(t, "another leader", func() bool { now = leader(3); return now != was })
	stops[now]()

	m, err := heard.NextMsg(wait.Patience)
	var got schemas.Stale
	if err != nil || json.Unmarshal(m.Data, &got) != nil || got.Sweep != 8 ||
		!got.NextBy.Equal(w.NextBy) {
		t.Fatalf("the cluster says %v %v, want sweep 8's", m, err)
	}
	leader(2)
	if n, _, _ := heard.Pending(); n != 0 {
		t.Errorf("%d messages more", n)
	}
}
