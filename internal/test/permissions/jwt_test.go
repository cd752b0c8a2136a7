//go:build unix

package permissions

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/conf"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/rollcall-events/rollcall/internal/test/e2e"
	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
	"github.com/rollcall-events/rollcall/internal/test/wait"
)

// A decentralised is accounts.conf as an operator's JWTs: the same accounts, exports, imports,
// limits, mappings and permissions.
type decentralised struct {
	t        testing.TB
	operator nkeys.KeyPair
	keys     map[string]nkeys.KeyPair // of the accounts, by name
	claims   map[string]*jwt.AccountClaims
	// by the variable that holds the user's key in accounts.conf
	users   map[string]jwt.Permissions
	account map[string]string // of a user
}

func (d *decentralised) check(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d *decentralised) public(kp nkeys.KeyPair) string {
	d.t.Helper()
	p, err := kp.PublicKey()
	d.check(err)
	return p
}

func translate(t testing.TB) *decentralised {
	t.Helper()
	d := &decentralised{t: t, keys: map[string]nkeys.KeyPair{},
		claims: map[string]*jwt.AccountClaims{}, users: map[string]jwt.Permissions{},
		account: map[string]string{}}
	environment.Lock()
	defer environment.Unlock()
	for _, name := range []string{"NATS_NKEY_ROLLCALL", "NATS_NKEY_OPERATOR",
		"NATS_NKEY_COPY_OPERATOR", "NATS_NKEY_READER"} {
		d.check(os.Setenv(name, name)) // so that a user's key is its name
		defer os.Unsetenv(name)
	}
	file, err := conf.ParseFile(filepath.Join(deployed, "accounts.conf"))
	d.check(err)
	d.operator, err = nkeys.CreateOperator()
	d.check(err)
	accounts := file["accounts"].(map[string]any)
	for name := range accounts {
		d.keys[name], err = nkeys.CreateAccount()
		d.check(err)
		d.claims[name] = jwt.NewAccountClaims(d.public(d.keys[name]))
		d.claims[name].Name = name
	}
	for name, v := range accounts {
		d.translate(name, v.(map[string]any))
	}
	return d
}

func (d *decentralised) translate(name string, acc map[string]any) {
	c := d.claims[name]
	list := func(m map[string]any, key string) []any { l, _ := m[key].([]any); return l }
	text := func(m map[string]any, key string) string { s, _ := m[key].(string); return s }
	permissions := func(m map[string]any) (p jwt.Permissions) {
		for key, into := range map[string]*jwt.Permission{"publish": &p.Pub, "subscribe": &p.Sub} {
			for _, s := range list(m[key].(map[string]any), "allow") {
				into.Allow.Add(s.(string))
			}
			for _, s := range list(m[key].(map[string]any), "deny") {
				into.Deny.Add(s.(string))
			}
		}
		if m, ok := m["allow_responses"].(map[string]any); ok {
			expires, err := time.ParseDuration(text(m, "expires"))
			d.check(err)
			p.Resp = &jwt.ResponsePermission{MaxMsgs: int(m["max"].(int64)), Expires: expires}
		}
		return p
	}
	for _, v := range list(acc, "exports") {
		m := v.(map[string]any)
		e := &jwt.Export{Name: text(m, "stream") + text(m, "service"),
			Subject: jwt.Subject(text(m, "stream") + text(m, "service")), Type: jwt.Service,
			TokenReq: m["accounts"] != nil}
		if m["stream"] != nil {
			e.Type = jwt.Stream
		}
		if text(m, "response_type") == "stream" {
			e.ResponseType = jwt.ResponseTypeStream
			var err error
			e.ResponseThreshold, err = time.ParseDuration(text(m, "threshold"))
			d.check(err)
		}
		c.Exports.Add(e)
	}
	for _, v := range list(acc, "imports") {
		m := v.(map[string]any)
		i := &jwt.Import{Type: jwt.Service, LocalSubject: jwt.RenamingSubject(text(m, "to"))}
		from, ok := m["service"].(map[string]any)
		if !ok {
			from, i.Type = m["stream"].(map[string]any), jwt.Stream
		}
		exporter := text(from, "account")
		i.Account, i.Subject = d.public(d.keys[exporter]), jwt.Subject(text(from, "subject"))
		i.Name = string(i.Subject)
		// An export that names its accounts is a private one here, which takes a token of the
		// exporter's.
		activation := jwt.NewActivationClaims(c.Subject)
		activation.ImportSubject, activation.ImportType = i.Subject, i.Type
		token, err := activation.Encode(d.keys[exporter])
		d.check(err)
		i.Token = token
		c.Imports.Add(i)
	}
	if m, ok := acc["mappings"].(map[string]any); ok {
		for from, to := range m {
			c.AddMapping(jwt.Subject(from),
				jwt.WeightedMapping{Subject: jwt.Subject(to.(string)), Weight: 100})
		}
	}
	switch js := acc["jetstream"].(type) {
	case string, bool:
		c.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1,
			Streams: -1, Consumer: -1}
	case map[string]any:
		c.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: js["max_mem"].(int64),
			DiskStorage: js["max_file"].(int64),
			Streams:     js["max_streams"].(int64), Consumer: js["max_consumers"].(int64)}
	}
	if m, ok := acc["default_permissions"].(map[string]any); ok {
		c.DefaultPermissions = permissions(m)
	}
	for _, v := range list(acc, "users") {
		m := v.(map[string]any)
		user := text(m, "nkey")
		d.account[user] = name
		if p, ok := m["permissions"].(map[string]any); ok {
			d.users[user] = permissions(p)
		}
	}
}

func (d *decentralised) encode(name string) string {
	d.t.Helper()
	var issues jwt.ValidationResults
	d.claims[name].Validate(&issues)
	for _, e := range issues.Errors() {
		d.t.Errorf("account %s: %v", name, e)
	}
	token, err := d.claims[name].Encode(d.operator)
	d.check(err)
	return token
}

// creds makes a user's credentials file, and says what its public key is.
func (d *decentralised) creds(user string, expires time.Time) (file, public string) {
	d.t.Helper()
	kp, err := nkeys.CreateUser()
	d.check(err)
	c := jwt.NewUserClaims(d.public(kp))
	c.Permissions = d.users[user]
	if !expires.IsZero() {
		c.Expires = expires.Unix()
	}
	token, err := c.Encode(d.keys[d.account[user]])
	d.check(err)
	seed, err := kp.Seed()
	d.check(err)
	b, err := jwt.FormatUserConfig(token, seed)
	d.check(err)
	file = filepath.Join(d.t.TempDir(), "user.creds")
	d.check(os.WriteFile(file, b, 0o600))
	return file, c.Subject
}

// start runs a server that takes the JWTs.
func (d *decentralised) start(t *testing.T) *node {
	t.Helper()
	op := jwt.NewOperatorClaims(d.public(d.operator))
	op.SystemAccount = d.public(d.keys["SYS"])
	resolver := &server.MemAccResolver{}
	for name := range d.claims {
		d.check(resolver.Store(d.public(d.keys[name]), d.encode(name)))
	}
	n := &node{t: t, file: "JWTs", log: &serverLog{}}
	t.Cleanup(func() {
		n.stop()
		if t.Failed() {
			t.Logf("the server's log:\n%s", n.log.String())
		}
	})
	n.run(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, JetStream: true,
		StoreDir:         t.TempDir(),
		TrustedOperators: []*jwt.OperatorClaims{op}, SystemAccount: op.SystemAccount,
		AccountResolver: resolver,
	})
	return n
}

// The same with JWTs: rollcall works with a credentials file, readers read, and neither can do
// more.
func TestCreds(t *testing.T) {
	t.Parallel()
	d := translate(t)
	n := d.start(t)
	creds := func(user string) nats.Option {
		file, _ := d.creds(user, time.Time{})
		return nats.UserCredentials(file)
	}
	v := e2e.NewVendor(t, isdpsim.Config{Agents: 5})
	file, public := d.creds("NATS_NKEY_ROLLCALL", time.Time{})
	env := map[string]string{"ROLLCALL_NATS_URL": n.url, "ROLLCALL_NATS_CREDS_FILE": file}
	operator := n.connect(creds("NATS_NKEY_OPERATOR"))
	works(t, v, operator, env)

	add(t, n.connect(creds("NATS_NKEY_COPY_OPERATOR")), "agent-events-copy.json", 1)
	reader := n.connect(creds("NATS_NKEY_READER"))
	wait.Eventually(t, "the copy", func() bool {
		return last(stream(t, reader, "")) == last(stream(t, operator, ""))
	})
	if got := len(e2e.Roster(t, reader, 886)); got != 5 {
		t.Errorf("a reader sees %d states, want 5", got)
	}
	p := e2e.Rollcall(t, e2e.Settings(v.Env(), env))
	asks(t, reader, 5)
	if code, _ := p.Terminate(); code != 0 {
		t.Errorf("exit %d", code)
	}
	if lines := n.log.violations(); len(lines) > 0 {
		t.Errorf("refused:\n%s", strings.Join(lines, "\n"))
	}
	if _, err := reader.QueueSubscribeSync("agent.online.>", "group"); err != nil {
		t.Fatal(err)
	}
	wait.Eventually(t, "the queue group to be refused", func() bool {
		return len(n.log.with("Subscription Violation")) > 0
	})
	all := victims(t, map[string]*nats.Conn{"its own account": n.connect(creds("NATS_NKEY_READER")),
		"the stream's account": operator})
	forger{t, reader}.pushes(targets...)
	forger{t, reader}.replies()
	time.Sleep(300 * time.Millisecond) // for what should not come
	for _, line := range seen(all) {
		t.Error("forged, seen in " + line)
	}

	t.Run("expired", func(t *testing.T) {
		file, _ := d.creds("NATS_NKEY_ROLLCALL", time.Now().Add(-time.Minute))
		tries(t, v, with(env, "ROLLCALL_NATS_CREDS_FILE", file), "ROLLCALL_NATS_CREDS_FILE")
	})
	t.Run("expires", func(t *testing.T) {
		file, _ := d.creds("NATS_NKEY_ROLLCALL", time.Now().Add(2*time.Second))
		tries(t, v, with(env, "ROLLCALL_NATS_CREDS_FILE", file), "xpired")
	})
	t.Run("another operator's", func(t *testing.T) {
		file, _ := translate(t).creds("NATS_NKEY_ROLLCALL", time.Time{})
		tries(t, v, with(env, "ROLLCALL_NATS_CREDS_FILE", file), "Authorization Violation",
			"ROLLCALL_NATS_CREDS_FILE")
	})
	t.Run("revoked", func(t *testing.T) {
		p := e2e.Rollcall(t, e2e.Settings(v.Env(), env))
		p.WaitFor("sweep complete")
		d.claims["ROLLCALL"].Revoke(public)
		acc, err := n.LookupAccount(d.public(d.keys["ROLLCALL"]))
		if err != nil {
			t.Fatal(err)
		}
		n.UpdateAccountClaims(acc, d.claims["ROLLCALL"])
		wait.Eventually(t, "rollcall to be sent away", func() bool {
			return len(p.Logged("lost the connection to NATS")) > 0
		})
		t.Log(p.Logged("lost the connection to NATS")[0])
		p.Kill()
		tries(t, v, env, "Authorization Violation", "ROLLCALL_NATS_CREDS_FILE")
	})
}
