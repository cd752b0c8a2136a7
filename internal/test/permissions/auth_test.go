//go:build unix

package permissions

import (
	"encoding/json"
	"maps"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rollcall-events/rollcall/internal/test/e2e"
	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
	"github.com/rollcall-events/rollcall/internal/test/natstest"
	"github.com/rollcall-events/rollcall/internal/test/wait"
)

// tries runs rollcall with settings that it can't connect with, and wants the words in one of its
// warnings or errors.
func tries(t *testing.T, v *e2e.Vendor, env map[string]string, words ...string) {
	t.Helper()
	p := e2e.Rollcall(t, e2e.Settings(v.Env(), env))
	defer p.Kill()
	var told string
	wait.Eventually(t, "rollcall to say what is wrong: "+strings.Join(words, ", "), func() bool {
	lines:
		for _, l := range p.Log() {
			text, _ := l["err"].(string)
			for _, w := range words {
				if !strings.Contains(l.Message()+" "+text, w) {
					continue lines
				}
			}
			told = l.Level() + " " + l.Message() + ": " + text
			return l.Level() == "WARN" || l.Level() == "ERROR"
		}
		return false
	})
	t.Log(told)
}

// works runs rollcall with settings that it can connect with, until its log says that an agent is
// online.
func works(t *testing.T, v *e2e.Vendor, operator *nats.Conn, env map[string]string) {
	t.Helper()
	p := e2e.Rollcall(t, e2e.Settings(v.Env(), env))
	v.Atomically(func() { v.SetOnline(isdpsim.FirstID, true) })
	wait.Eventually(t, "a state", func() bool {
		m, ok := e2e.Last(operator, "agent.state.886.17813")
		return ok && strings.Contains(m.Body, `"online":true`)
	})
	if code, _ := p.Terminate(); code != 0 {
		t.Errorf("exit %d", code)
	}
	if strings.Contains(p.Output(), "iolation") {
		t.Error("rollcall was refused something")
	}
}

// asks waits until rollcall's answers can be trusted, and wants so many agents.
func asks(t *testing.T, nc *nats.Conn, agents int) {
	t.Helper()
	var a struct {
		Trusted bool
		Agents  int
	}
	wait.Eventually(t, "an answer that can be trusted", func() bool {
		m, err := nc.Request("rollcall.query.886.counts", nil, 5*time.Second)
		return err == nil && json.Unmarshal(m.Data, &a) == nil && a.Trusted
	})
	if a.Agents != agents {
		t.Errorf("%d agents, want %d", a.Agents, agents)
	}
}

// with is a with some settings changed.
func with(a map[string]string, nameValue ...string) map[string]string {
	b := maps.Clone(a)
	for i := 0; i < len(nameValue); i += 2 {
		b[nameValue[i]] = nameValue[i+1]
	}
	return b
}

func TestNKey(t *testing.T) {
	t.Parallel()
	u := newUsers(t)
	n := start(t, filepath.Join(deployed, "server.conf"), u.variables(t))
	v := e2e.NewVendor(t, isdpsim.Config{Agents: 5})
	env := map[string]string{"ROLLCALL_NATS_URL": n.url,
		"ROLLCALL_NATS_NKEY_FILE": u.rollcall.seedFile}
	works(t, v, n.connect(u.operator.opt), env)
	t.Run("unknown", func(t *testing.T) {
		tries(t, v, with(env, "ROLLCALL_NATS_NKEY_FILE", newUser(t).seedFile),
			"Authorization Violation", "ROLLCALL_NATS_NKEY_FILE")
	})
	t.Run("none", func(t *testing.T) {
		tries(t, v, with(env, "ROLLCALL_NATS_NKEY_FILE", ""), "Authorization Violation",
			"ROLLCALL_NATS_NKEY_FILE")
	})
	t.Run("a reader's", func(t *testing.T) {
		tries(t, v, with(env, "ROLLCALL_NATS_NKEY_FILE", u.reader.seedFile),
			"Permissions Violation", "$JS.API.STREAM.CREATE.AGENT_EVENTS")
	})
}

func TestTLS(t *testing.T) {
	t.Parallel()
	u, ca := newUsers(t), natstest.NewAuthority(t)
	clients, other := natstest.NewAuthority(t), natstest.NewAuthority(t)
	v := e2e.NewVendor(t, isdpsim.Config{Agents: 5})
	vars := u.variables(t)
	vars["NATS_TLS_CERT"], vars["NATS_TLS_KEY"] = ca.Issue("server")
	vars["NATS_TLS_CA"] = clients.File
	cert, key := clients.Issue("rollcall")
	strangeCert, strangeKey := other.Issue("stranger")

	t.Run("server", func(t *testing.T) {
		n := start(t, filepath.Join(deployed, "server-tls.conf"), vars)
		url := strings.Replace(n.url, "nats:", "tls:", 1)
		env := map[string]string{"ROLLCALL_NATS_URL": url,
			"ROLLCALL_NATS_NKEY_FILE": u.rollcall.seedFile, "ROLLCALL_NATS_CA_FILE": ca.File}
		works(t, v, n.connect(u.operator.opt, nats.RootCAs(ca.File)), env)
		tries(t, v, with(env, "ROLLCALL_NATS_CA_FILE", other.File),
			"certificate signed by unknown authority")
		tries(t, v, with(env, "ROLLCALL_NATS_CA_FILE", ""),
			"certificate signed by unknown authority")
	})
	t.Run("mutual", func(t *testing.T) {
		n := start(t, filepath.Join(deployed, "server-mtls.conf"),
			with(vars, "NATS_STORE_DIR", t.TempDir()))
		url := strings.Replace(n.url, "nats:", "tls:", 1)
		env := map[string]string{"ROLLCALL_NATS_URL": url,
			"ROLLCALL_NATS_NKEY_FILE": u.rollcall.seedFile, "ROLLCALL_NATS_CA_FILE": ca.File,
			"ROLLCALL_NATS_CERT_FILE": cert, "ROLLCALL_NATS_KEY_FILE": key}
		works(t, v, n.connect(u.operator.opt, nats.RootCAs(ca.File), nats.ClientCert(cert, key)),
			env)
		tries(t, v, with(env, "ROLLCALL_NATS_CERT_FILE", "", "ROLLCALL_NATS_KEY_FILE", ""),
			"certificate required")
		tries(t, v, with(env, "ROLLCALL_NATS_CERT_FILE", strangeCert, "ROLLCALL_NATS_KEY_FILE",
			strangeKey), "tls:")
		tries(t, v, with(env, "ROLLCALL_NATS_NKEY_FILE", ""), "Authorization Violation")
		tries(t, v, with(env, "ROLLCALL_NATS_CA_FILE", other.File),
			"certificate signed by unknown authority")
	})
}
