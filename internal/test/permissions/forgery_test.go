//go:build unix

package permissions

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/rollcall-events/rollcall/internal/test/e2e"
	"github.com/rollcall-events/rollcall/internal/test/wait"
)

// targets are what forgers aim at, each with a subscriber on exactly that subject: push consumers
// deliver to nobody else's.
var targets = []string{"agent.online.886.10.1", "agent.state.886.1", "agent.watermark.886"}

// A victim is a plain subscriber.
type victim struct {
	name string
	sub  *nats.Subscription
}

func victims(t *testing.T, conns map[string]*nats.Conn) (all []victim) {
	t.Helper()
	for name, nc := range conns {
		for _, subject := range append(slices.Clone(targets), "agent.>") {
			sub, err := nc.SubscribeSync(subject)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, victim{name + " on " + subject, sub})
		}
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// seen is what has come, while nothing is committed.
func seen(all []victim) (forged []string) {
	for _, v := range all {
		for {
			m, err := v.sub.NextMsg(time.Millisecond)
			if errors.Is(err, nats.ErrTimeout) {
				break
			}
			if err != nil {
				forged = append(forged, fmt.Sprintf("%s: %v", v.name, err))
				break
			}
			forged = append(forged,
				fmt.Sprintf("%s: %s %v %.60s", v.name, m.Subject, m.Header, m.Data))
		}
	}
	return forged
}

// A forger is a reader who tries what can be tried.
type forger struct {
	t  *testing.T
	nc *nats.Conn
}

// replies directs every answer that the API gives, and every message that it delivers, to the
// targets.
func (f forger) replies() {
	f.t.Helper()
	pull := `{"stream_name":"AGENT_EVENTS","config":{"name":"forger","durable_name":"forger",` +
		`"ack_policy":"explicit","filter_subject":"agent.online.>"}}`
	var created server.JSApiConsumerCreateResponse
	request(f.t, f.nc, "$JS.API.CONSUMER.CREATE.AGENT_EVENTS.forger.agent.online.>", []byte(pull),
		&created)
	if created.Error != nil {
		f.t.Fatal(created.Error)
	}
	inbox, err := f.nc.SubscribeSync(f.nc.NewInbox())
	if err != nil {
		f.t.Fatal(err)
	}
	// A message of one's own, whose acknowledgement asks for the next one, to go anywhere. On a
	// cluster the way to a new consumer may not be known yet.
	var m *nats.Msg
	wait.Eventually(f.t, "a message", func() bool {
		if err := f.nc.PublishRequest("$JS.API.CONSUMER.MSG.NEXT.AGENT_EVENTS.forger",
			inbox.Subject, nil); err != nil {
			f.t.Fatal(err)
		}
		m, err = inbox.NextMsg(5 * time.Second)
		return err == nil
	})
	f.publish(&nats.Msg{Subject: m.Reply, Reply: targets[0], Data: []byte("+NXT 2")})
	for _, to := range targets {
		for _, r := range [][2]string{
			{"$JS.API.INFO", ""}, {"$JS.API.STREAM.NAMES", ""}, {"$JS.API.STREAM.LIST", ""},
			{"$JS.API.STREAM.INFO.AGENT_EVENTS", ""},
			{"$JS.API.STREAM.MSG.GET.AGENT_EVENTS", `{"seq":13}`},
			{"$JS.API.DIRECT.GET.AGENT_EVENTS", `{"seq":12}`},
			{"$JS.API.DIRECT.GET.AGENT_EVENTS", `{"batch":10,"multi_last":["agent.>"]}`},
			{"$JS.API.DIRECT.GET.AGENT_EVENTS.agent.online.886.10.1", ""},
			{"$JS.API.CONSUMER.CREATE.AGENT_EVENTS.forger.agent.online.>", pull},
			{"$JS.API.CONSUMER.CREATE.AGENT_EVENTS", "nonsense"},
			{"$JS.API.CONSUMER.DURABLE.CREATE.AGENT_EVENTS.forger", pull},
			{"$JS.API.CONSUMER.INFO.AGENT_EVENTS.forger", ""},
			{"$JS.API.CONSUMER.MSG.NEXT.AGENT_EVENTS.forger", `{"batch":1}`},
			{"$JS.API.CONSUMER.MSG.NEXT.AGENT_EVENTS.forger", `{"batch":1,"no_wait":true}`},
			{"$JS.API.CONSUMER.MSG.NEXT.AGENT_EVENTS.forger",
				`{"batch":100,"expires":50000000,"idle_heartbeat":10000000}`},
			{"$JS.API.CONSUMER.DELETE.AGENT_EVENTS.nobody", ""},
			{"$JS.ACK.AGENT_EVENTS.forger.1.1.1.1.1", "+NXT 1"},
			{"$JS.ACK._.hash.AGENT_EVENTS.forger.1.1.1.1.1.x", "+NXT 1"},
			{"rollcall.query.886.roster", ""}, {"rollcall.query.886.agent", "nonsense"},
			{"rollcall.query.886.x", ""}, {"$SRV.PING", ""}, {"$SRV.STATS.rollcall", ""},
			{"$SYS.REQ.USER.INFO", ""}, {"$JS.API.CONSUMER.MSG.NEXT.AGENT_EVENTS.nobody", ""},
			{to, "plain"}, {"rollcall.log.online.886.10.1", "plain"},
		} {
			m := nats.NewMsg(r[0])
			m.Reply, m.Data = to, []byte(r[1])
			f.publish(m)
			m.Header.Set("Nats-Trace-Dest", to) // a trace of the request, to anywhere
			f.publish(m)
		}
	}
}

func (f forger) publish(m *nats.Msg) {
	f.t.Helper()
	if err := f.nc.PublishMsg(m); err != nil {
		f.t.Fatal(err)
	}
}

// elsewhere is where a push consumer could do harm besides.
var elsewhere = []string{
	"rollcall.log.online.886.10.1", "rollcall.log.watermark.886", "$KV.rollcall.lease.886",
	"rollcall.copy.1", "_INBOX.victim", "_INBOX.victim.1",
	"$JS.API.STREAM.PURGE.AGENT_EVENTS", "$JS.API.STREAM.DELETE.AGENT_EVENTS",
	"$JS.API.STREAM.PURGE.KV_rollcall", "$JS.API.STREAM.DELETE.KV_rollcall",
	"$JS.log.API.STREAM.PURGE.AGENT_EVENTS", "$JS.log.API.STREAM.DELETE.AGENT_EVENTS",
	"$JS.log.API.CONSUMER.CREATE.AGENT_EVENTS",
	"$JS.API.CONSUMER.DELETE.AGENT_EVENTS.audit", "$JS.API.STREAM.LEADER.STEPDOWN.AGENT_EVENTS",
	"$JS.FC.AGENT_EVENTS.x.y", "$JS.ACK.AGENT_EVENTS.audit.1.1.1.1.1", "$SYS.REQ.SERVER.PING",
	"$JS.EVENT.ADVISORY.x",
	"rollcall.alarm.armed.886", "rollcall.alarm.fired.886",
	"$JS.API.STREAM.DELETE.ROLLCALL_ALARM", "agent.stale.886",
}

// pushes creates push consumers that deliver there, whole messages and empty ones: those are what
// purges and deletes.
func (f forger) pushes(to ...string) {
	f.t.Helper()
	for i, to := range to {
		for _, headersOnly := range []bool{false, true} {
			name := fmt.Sprintf("push-%d-%v", i, headersOnly)
			body, err := json.Marshal(server.CreateConsumerRequest{Stream: e2e.Stream,
				Config: server.ConsumerConfig{
					Name: name, DeliverSubject: to, HeadersOnly: headersOnly,
					AckPolicy:     server.AckNone,
					FilterSubject: "agent.online.>",
					FlowControl:   true, Heartbeat: 100 * time.Millisecond,
				}})
			if err != nil {
				f.t.Fatal(err)
			}
			// yes or no: what counts is what then comes
			var answer server.JSApiConsumerCreateResponse
			request(f.t, f.nc, "$JS.API.CONSUMER.CREATE.AGENT_EVENTS."+name+".agent.online.>", body,
				&answer)
		}
	}
}

// No reader can make a plain subscriber see what was not committed, nor reach anything else by what
// the server sends for it.
func TestForgery(t *testing.T) {
	t.Parallel()
	u, other := newUsers(t), newUser(t)
	w := newWorld(t, filepath.Join(twoReaders(t, u, other), "server.conf"), u)
	conns := map[string]*nats.Conn{"its own account": w.connect(u.reader.opt),
		"another reader's account": w.connect(other.opt), "the stream's account": w.operatorConn}
	all := victims(t, conns)
	inboxes := make([]victim, 0)
	for _, subject := range []string{"_INBOX.victim", "_INBOX.victim.1"} {
		for name, nc := range conns {
			sub, err := nc.SubscribeSync(subject)
			if err != nil {
				t.Fatal(err)
			}
			inboxes = append(inboxes, victim{name + " on " + subject, sub})
		}
	}
	before := w.state()
	f := forger{t, w.readerConn}
	for _, forge := range []func(){func() {
		f.pushes(append(slices.Clone(targets), elsewhere...)...)
	}, f.replies} {
		forge()
		w.settle()
		// Time for what should not come. That it comes quickly where it can, TestForgerySeen shows.
		time.Sleep(300 * time.Millisecond)
		for _, line := range seen(append(all, inboxes...)) {
			t.Error("forged, seen in " + line)
		}
	}
	if after := w.state(); !slices.Equal(before, after) {
		t.Errorf("the stream, the lease or the copy has changed:\n%s\nnow\n%s",
			strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
	// They do see what is committed, each once.
	for _, to := range targets {
		w.publish(strings.TrimPrefix(to, "agent."), "committed", "Nats-TTL", "1h")
	}
	for _, v := range all {
		n := 1
		if strings.HasSuffix(v.name, ">") {
			n = len(targets)
		}
		for range n {
			if m, err := v.sub.NextMsg(5 * time.Second); err != nil ||
				string(m.Data) != "committed" {
				t.Errorf("%s: %v %v", v.name, m, err)
			}
		}
	}
}

// What the files prevent does happen without: a right too many, and TestForgery would fail.
func TestForgerySeen(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		edit  []string // of accounts.conf
		forge func(f forger)
	}{
		{"consumers on the stream itself", []string{
			`{service: "$JS.FC.AGENT_EVENTS.>", accounts: [ROLLCALL_COPY]}`,
			`{service: "$JS.FC.AGENT_EVENTS.>", accounts: [ROLLCALL_COPY]}, {service: ` +
				`"$JS.API.CONSUMER.CREATE.AGENT_EVENTS.>"}`,
			`include "reader.conf"`, `include "reader-on-the-log.conf"`,
		}, func(f forger) { f.pushes(targets...) }},
		{"agent.… not mapped", []string{`include "reader.conf"`, `include "reader-unmapped.conf"`},
			func(f forger) { f.replies() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			u := newUsers(t)
			dir := edited(t, "accounts.conf", c.edit...)
			copyAs := func(name string, oldNew ...string) {
				edit(t, filepath.Join(dir, "reader.conf"), oldNew...)
				if err := os.Rename(filepath.Join(dir, "reader.conf"),
					filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
			}
			if strings.Contains(c.name, "stream itself") {
				copyAs("reader-on-the-log.conf",
					`{account: ROLLCALL_COPY, subject: "$JS.API.CONSUMER.CREATE.AGENT_EVENTS.>"}`,
					`{account: ROLLCALL, subject: "$JS.API.CONSUMER.CREATE.AGENT_EVENTS.>"}`)
			} else {
				copyAs("reader-unmapped.conf", `"agent.>": "refused.agent.>"`, "")
			}
			w := newWorld(t, filepath.Join(dir, "server.conf"), u)
			all := victims(t, map[string]*nats.Conn{"its own account": w.connect(u.reader.opt)})
			c.forge(forger{t, w.readerConn})
			wait.Eventually(t, "a forgery to be seen", func() bool { return len(seen(all)) > 0 })
		})
	}
}
