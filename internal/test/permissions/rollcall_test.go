//go:build unix

package permissions

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/rollcall-events/rollcall/internal/test/e2e"
	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
	"github.com/rollcall-events/rollcall/internal/test/wait"
)

// What ROLLCALL_NATS_MANAGE=false does not need, as accounts.conf says.
var manages = []string{
	`"$JS.API.INFO"
`, "\n",
	`"$JS.API.STREAM.CREATE.AGENT_EVENTS"`, "",
	`"$JS.API.STREAM.CREATE.KV_rollcall"`, "",
	`"$JS.API.STREAM.CREATE.ROLLCALL_ALARM"`, "",
}

// rollcall does everything that it must, with the permissions that it is given and no more.
func TestRollcall(t *testing.T) {
	t.Parallel()
	for _, manage := range []bool{true, false} {
		t.Run(fmt.Sprintf("manage=%v", manage), func(t *testing.T) {
			t.Parallel()
			u := newUsers(t)
			file := filepath.Join(deployed, "server.conf")
			if !manage {
				file = filepath.Join(edited(t, "accounts.conf", manages...), "server.conf")
			}
			log := &serverLog{published: make(map[string]bool)}
			n := startLogging(t, file, u.variables(t), log)
			operator := n.connect(u.operator.opt)
			if !manage {
				add(t, operator, "agent-events.json", 1)
				add(t, operator, "kv-rollcall.json", 1)
				add(t, operator, "rollcall-alarm.json", 1)
			}
			v := e2e.NewVendor(t, isdpsim.Config{Agents: 20})
			env := func(name string) map[string]string {
				return e2e.Settings(v.Env(), map[string]string{
					"ROLLCALL_NATS_URL":       n.url,
					"ROLLCALL_NATS_NKEY_FILE": u.rollcall.seedFile,
					"ROLLCALL_NATS_MANAGE":    fmt.Sprint(manage),
					"ROLLCALL_INSTANCE":       name,
				})
			}
			first := e2e.Rollcall(t, env("first"))
			online(t, n, u, v, isdpsim.FirstID, true)
			asks(t, n.connect(u.reader.opt), 20)
			second := e2e.Rollcall(t, env("second"))
			second.WaitFor("standing by")

			// Longer than the lease, so that it has been renewed.
			before := last(stream(t, operator, ""))
			wait.Eventually(t, "some sweeps", func() bool {
				return last(stream(t, operator, "")) > before+12
			})

			first.Kill() // the lease expires
			online(t, n, u, v, isdpsim.FirstID, false)
			third := e2e.Rollcall(t, env("third"))
			third.WaitFor("standing by")
			if code, _ := second.Terminate(); code != 0 { // the lease is given up
				t.Errorf("exit %d", code)
			}
			online(t, n, u, v, isdpsim.FirstID, true)

			n.stop()
			n.start()
			online(t, n, u, v, isdpsim.FirstID, false)

			v.SetFault(isdpsim.OnToken(isdpsim.CredentialsRefused()))
			v.RevokeTokens()
			operator = n.connect(u.operator.opt)
			wait.Eventually(t, "a failing health", func() bool {
				m, ok := e2e.Last(operator, "agent.health.886")
				return ok && strings.Contains(m.Body, `"failing"`)
			})
			if code, _ := third.Terminate(); code != 0 {
				t.Errorf("exit %d", code)
			}
			for _, line := range n.log.violations() {
				t.Error(line)
			}
			n.stop()
			leastRights(t, n, u.rollcall)
			for _, p := range []*e2e.Process{first, second, third} {
				if strings.Contains(strings.ToLower(p.Output()), "violation") {
					t.Error("rollcall was refused something")
				}
			}
		})
	}
}

// online changes an agent and waits until the log says so.
func online(t *testing.T, n *node, u users, v *e2e.Vendor, id int64, to bool) {
	t.Helper()
	nc := n.connect(u.operator.opt)
	defer nc.Close()
	v.Atomically(func() { v.SetOnline(id, to) })
	wait.Eventually(t, fmt.Sprintf("agent %d to be online: %v", id, to), func() bool {
		m, ok := e2e.Last(nc, fmt.Sprintf("agent.state.886.%d", id))
		return ok && strings.Contains(m.Body, fmt.Sprintf(`"online":%v`, to))
	})
}

// seldom is what the client needs when a heartbeat is missed or a watch is slow.
var seldom = []string{"$JS.API.CONSUMER.INFO.AGENT_EVENTS.*", "$JS.API.CONSUMER.INFO.KV_rollcall.*",
	"$JS.FC.KV_rollcall.>"}

// leastRights fails the test where the user may publish what it has not published.
func leastRights(t *testing.T, n *node, u user) {
	t.Helper()
	opts, err := options(n.file, n.vars)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(opts.Nkeys, func(k *server.NkeyUser) bool { return k.Nkey == u.public })
	for _, allowed := range opts.Nkeys[i].Permissions.Publish.Allow {
		if slices.Contains(seldom, allowed) {
			continue
		}
		if !slices.ContainsFunc(slices.Collect(maps.Keys(n.log.published)),
			func(subject string) bool { return server.SubjectsCollide(subject, allowed) }) {
			t.Errorf("rollcall may publish on %s and has not done so", allowed)
		}
	}
}
