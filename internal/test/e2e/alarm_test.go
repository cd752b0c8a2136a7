//go:build unix

package e2e

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
	"github.com/rollcall-events/rollcall/internal/test/wait"
	"github.com/rollcall-events/rollcall/schemas"
)

// An alarmed server is a nats-server with a plain subscriber of agent.stale.* and nothing else.
type alarmed struct {
	*NATSServer
	t  *testing.T
	nc *nats.Conn
	js jetstream.JetStream

	heard *nats.Subscription
}

func newAlarmed(t *testing.T) *alarmed {
	t.Helper()
	a := &alarmed{NATSServer: NewNATSServer(t, ""), t: t}
	a.Start()
	a.nc = Connect(t, a.URL)
	wait.Eventually(t, "a connection", a.nc.IsConnected)
	var err error
	if a.js, err = jetstream.New(a.nc); err != nil {
		t.Fatal(err)
	}
	if a.heard, err = a.nc.SubscribeSync("agent.stale.*"); err == nil {
		err = a.nc.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// replica starts a rollcall that polls often enough to put the alarm off all the time.
func (a *alarmed) replica(v *Vendor, name string) *Process {
	a.t.Helper()
	return Rollcall(a.t, Settings(v.Env(), map[string]string{
		"ROLLCALL_NATS_URL": a.URL, "ROLLCALL_INSTANCE": name}))
}

// armed is when the server is to tell of a tenant; zero where nothing is armed just now.
func (a *alarmed) armed(tenant int64) time.Time {
	a.t.Helper()
	s, err := a.js.Stream(a.t.Context(), schemas.AlarmStream)
	if err != nil {
		return time.Time{}
	}
	m, err := s.GetLastMsgForSubject(a.t.Context(), schemas.AlarmArmedSubject(tenant))
	var is schemas.Stale
	if err != nil || json.Unmarshal(m.Data, &is) != nil {
		return time.Time{}
	}
	return is.NextBy
}

// armedAnew waits until the alarm of a tenant has been put off, and returns for when.
func (a *alarmed) armedAnew(tenant int64) (at time.Time) {
	a.t.Helper()
	was := a.armed(tenant)
	wait.Eventually(a.t, "the alarm to be put off", func() bool {
		at = a.armed(tenant)
		return at.After(was)
	})
	return at
}

// watermark is a tenant's last one.
func (a *alarmed) watermark(tenant int64) (w schemas.Watermark) {
	a.t.Helper()
	m, ok := Last(a.nc, schemas.WatermarkSubject(tenant))
	if !ok || json.Unmarshal([]byte(m.Body), &w) != nil {
		a.t.Fatalf("tenant %d's watermark: %v %s", tenant, ok, m.Body)
	}
	return w
}

// silent fails the test where anything has been heard.
func (a *alarmed) silent(why string) {
	a.t.Helper()
	for {
		if err := a.nc.Flush(); err != nil {
			a.t.Fatal(err)
		}
		n, _, err := a.heard.Pending()
		if err != nil || n == 0 {
			return
		}
		m, err := a.heard.NextMsg(time.Second)
		if err != nil {
			a.t.Fatal(err)
		}
		a.t.Errorf("heard although %s: %s %s", why, m.Subject, m.Data)
	}
}

// With every rollcall of a tenant killed, the NATS server tells who only listens: once, at the
// time that the last watermark has promised, and of that tenant alone. The next rollcall ends it.
func TestAlarmWhenAllAreKilled(t *testing.T) {
	t.Parallel()
	a := newAlarmed(t)
	v := NewVendor(t, isdpsim.Config{Agents: 20})
	other := NewVendor(t, isdpsim.Config{Agents: 20, TenantID: 887})
	leader := a.replica(v, "leader")
	leader.WaitFor("took over the stream")
	standby := a.replica(v, "standby")
	standby.WaitFor("standing by")
	a.replica(other, "other").WaitFor("took over the stream")
	a.armedAnew(886)
	a.armedAnew(887)
	standby.Kill()
	leader.Kill()

	m, err := a.heard.NextMsg(wait.Patience)
	if err != nil {
		t.Fatal(err)
	}
	var is schemas.Stale
	if err := json.Unmarshal(m.Data, &is); err != nil || m.Subject != schemas.StaleSubject(886) {
		t.Fatalf("heard: %s %s: %v", m.Subject, m.Data, err)
	}
	last := a.watermark(886)
	// It is armed anew when nextBy has moved by more than a second; the rest is a busy machine's.
	if early := last.NextBy.Sub(is.NextBy); is.TenantID != 886 || early < 0 ||
		early > 5*time.Second {
		t.Errorf("heard %s; the last watermark is sweep %d's, the next one due by %v", m.Data,
			last.Sweep, last.NextBy)
	}
	at, err := time.Parse(time.RFC3339Nano, m.Header.Get("Nats-Time-Stamp"))
	if err != nil || at.Before(is.NextBy) {
		t.Errorf("told at %q, due by %v: %v", m.Header.Get("Nats-Time-Stamp"), is.NextBy, err)
	}

	a.replica(v, "next").WaitFor("took over the stream")
	if at := a.armedAnew(886); !at.After(is.NextBy) {
		t.Errorf("armed for %v, after an alarm of %v", at, is.NextBy)
	}
	a.armedAnew(887)
	a.silent("it has been told, and both tenants are polled")
}

// A leader that is paused beyond its lease, while another one leads, sets off no alarm, neither
// meanwhile nor when it goes on.
func TestAlarmAfterAPause(t *testing.T) {
	t.Parallel()
	a := newAlarmed(t)
	v := NewVendor(t, isdpsim.Config{Agents: 20})
	paused := a.replica(v, "paused")
	paused.WaitFor("took over the stream")
	a.armedAnew(886)
	second := a.replica(v, "second")
	second.WaitFor("standing by")

	paused.Pause()
	promised := a.watermark(886).NextBy
	second.WaitFor("took over the stream")
	wait.Eventually(t, "what the paused leader has promised to be over", func() bool {
		return time.Now().After(promised) && a.armed(886).After(promised)
	})
	a.silent("another one leads")

	before := a.armed(886)
	paused.Continue()
	paused.WaitFor("standing by")
	for range 3 {
		at := a.armedAnew(886)
		if !at.After(before) {
			t.Errorf("the alarm was put back from %v to %v", before, at)
		}
		before = at
	}
	a.silent("another one leads, and the one that was paused has gone on")
}
