//go:build unix

package vendor

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/rollcall-events/rollcall/internal/test/e2e"
	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
	"github.com/rollcall-events/rollcall/internal/test/natstest"
	"github.com/rollcall-events/rollcall/internal/test/wait"
)

// The secrets. Each consists of two parts that no way of quoting or escaping changes, and of
// characters between them that every one does: a search for the parts finds it however it is
// written.
const (
	clientSecret = `kQ7vXz2LmT "<&>'\%/+=ü pR9wYb4NcH`
	password     = `hJ3tFs8VdK\"{$}` + "`" + ` gM6uWe1ZaB`
	brokerSecret = `xC5rPo9QiU"@:/?#%\lS2nDy7JkE`
	proxySecret  = `vB8mRt4XcO%yN3hGq6TzL`
)

func parts(secrets ...string) (out []string) {
	for _, s := range secrets {
		out = append(out, s[:10], s[len(s)-10:])
	}
	return out
}

// An echo is a vendor that repeats what it was sent, and what it knows besides, in its errors.
type echo struct {
	*e2e.Vendor
	url string

	// errors, each told once, one after the other
	tokens, agents []func(e *echo, w http.ResponseWriter, all string)
	told           [2]atomic.Int64
}

func newEcho(t *testing.T, tokens,
	agents []func(e *echo, w http.ResponseWriter, all string)) *echo {
	e := &echo{Vendor: e2e.NewVendor(t, isdpsim.Config{Agents: 12, ClientSecret: clientSecret,
		Password: password}), tokens: tokens, agents: agents}
	srv := httptest.NewServer(e)
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	e.url = srv.URL
	return e
}

// ServeHTTP implements http.Handler.
func (e *echo) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i, errors := 0, e.tokens
	if strings.HasSuffix(r.URL.Path, "findOnlineAgent") {
		i, errors = 1, e.agents
	}
	n := int(e.told[i].Add(1)) - 1
	if n >= len(errors) {
		e.Vendor.ServeHTTP(w, r)
		return
	}
	body, _ := io.ReadAll(r.Body)
	errors[n](e, w, fmt.Sprintf("%s %s %s %s %s", r.Header.Get("Authorization"),
		strings.Join(e.Tokens(), " "), clientSecret, password, body))
}

// done reports whether all errors have been told.
func (e *echo) done() bool {
	return int(e.told[0].Load()) >= len(e.tokens) && int(e.told[1].Load()) >= len(e.agents)
}

func quoted(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// line is all in the form in which it can stand in a line of a header.
func line(all string) string { return strings.NewReplacer("\n", " ", "\r", " ").Replace(all) }

func answer(status int, contentType, body string) func(*echo, http.ResponseWriter, string) {
	return func(_ *echo, w http.ResponseWriter, all string) {
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("WWW-Authenticate", "Bearer error="+url.QueryEscape(all))
		w.Header().Set("X-Debug", line(all))
		w.WriteHeader(status)
		s := strings.NewReplacer("ALL", all, "QUOTED", quoted(all), "TWICE", quoted(quoted(all)),
			"ESCAPED", url.QueryEscape(all)).Replace(body)
		_, _ = io.WriteString(w, s)
	}
}

// raw writes bytes to the connection that are no answer.
func raw(format string) func(*echo, http.ResponseWriter, string) {
	return func(_ *echo, w http.ResponseWriter, all string) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, strings.NewReplacer("ALL", line(all)).Replace(format))
	}
}

func redirected(_ *echo, w http.ResponseWriter, all string) {
	w.Header().Set("Location", "/login?"+url.Values{"all": {all}}.Encode())
	w.WriteHeader(http.StatusFound)
}

// revoked makes more tokens.
func revoked(e *echo, w http.ResponseWriter, all string) {
	e.RevokeTokens()
	answer(401, "application/xml",
		"<InvalidTokenException><error>ALL</error></InvalidTokenException>")(e, w, all)
}

var noAnswers = []func(*echo, http.ResponseWriter, string){
	answer(200, "text/html", "<html>ALL ESCAPED</html>"),
	answer(200, "application/json", `{"all":"ALL`),
	answer(500, "application/json", `{"error":QUOTED}`),
	redirected,
	raw("ALL\r\n\r\n"),
	raw("HTTP/1.1 2x0 ALL\r\n\r\n"),
	raw("HTTP/1.1 503 ALL\r\nContent-Length: 0\r\n\r\n"),
	raw("HTTP/1.1 200 OK\r\nALL\r\n\r\n"),
	raw("HTTP/1.1 200 OK\r\nContent-Length: ALL\r\n\r\n"),
	raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: ALL\r\n\r\n"),
	raw("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2000\r\n\r\nALL"),
}

// formats are those of the log that a case is tried with: by turns in the quick set, both with
// -long.
func formats(i int) []string {
	if *long > 0 {
		return []string{"text", "json"}
	}
	return [][]string{{"text"}, {"json"}}[i%2]
}

// TestSecretsVendor runs the binary while the vendor repeats all secrets and tokens in whatever
// goes wrong.
func TestSecretsVendor(t *testing.T) {
	t.Parallel()
	for i, c := range []struct {
		name   string
		tokens []func(*echo, http.ResponseWriter, string)
		agents []func(*echo, http.ResponseWriter, string)
	}{
		{name: "credentials refused", tokens: []func(*echo, http.ResponseWriter, string){
			answer(401, "application/json", `{"error":QUOTED,"error_description":QUOTED}`),
			answer(400, "application/json", `{"error":TWICE,"error_description":TWICE}`),
		}},
		{name: "credentials refused, otherwise", tokens: []func(*echo, http.ResponseWriter, string){
			answer(403, "text/html", "<html>ALL</html>"),
			answer(400, "application/json", `{"error":"ESCAPED","error_description":"ESCAPED"}`),
		}},
		{name: "no tokens", tokens: noAnswers},
		{name: "answers without tokens", tokens: []func(*echo, http.ResponseWriter, string){
			answer(200, "application/json", `{"error":QUOTED}`),
			answer(200, "application/json", `{"error":TWICE}`),
			answer(200, "application/json", `{"access_token":QUOTED}`),
			answer(200, "application/json", `{"access_token":null,"error":"ESCAPED"}`),
		}},
		{name: "no pages", agents: append([]func(*echo, http.ResponseWriter, string){
			revoked,
			answer(200, "application/json", `{"stateCode":"401","errorMessage":QUOTED}`),
			answer(200, "application/json", `{"stateCode":"401","errorMessage":TWICE}`),
			answer(200, "application/json", `{"stateCode":"401","errorMessage":"ESCAPED"}`),
			answer(200, "application/json", `{"stateCode":QUOTED,"errorMessage":QUOTED}`),
			answer(200, "application/json",
				`{"stateCode":"0","result":{"pos":QUOTED,"total_count":QUOTED,"data":QUOTED}}`),
		}, noAnswers...)},
	} {
		for _, format := range formats(i) {
			t.Run(c.name+", "+format, func(t *testing.T) {
				t.Parallel()
				e := newEcho(t, c.tokens, c.agents)
				env, url := e2e.Embedded(t)
				live := e2e.Record(t, url)
				p := e2e.Rollcall(t, e2e.Settings(e.Env(), env, map[string]string{
					"ROLLCALL_ISDP_URL": e.url, "ROLLCALL_TENANT_ID": "886",
					"ROLLCALL_LOG_FORMAT": format, "ROLLCALL_REQUEST_TIMEOUT": "2s",
				}))
				wait.Eventually(t, "all errors to be told", e.done)
				nc := e2e.Connect(t, url)
				state := "ok"
				if len(c.tokens) == 2 { // refused credentials take their time
					state = "failing"
				}
				wait.Eventually(t, "health "+state, func() bool {
					m, ok := e2e.Last(nc, "agent.health.886")
					return ok && strings.Contains(m.Body, `"state":"`+state+`"`)
				})
				log := e2e.ReadStream(t, nc, 1)
				log = append(log, live.Through(t, log[len(log)-1].Seq)...)
				if code, _ := p.Terminate(); code != 0 {
					t.Errorf("exit %d", code)
				}
				secrets := append(parts(clientSecret, password), e.Tokens()...)
				wantNone(t, "the process", p.Output(), secrets)
				for _, m := range log {
					wantNone(t, m.Subject, fmt.Sprint(m.Header, m.Body), secrets)
				}
				if len(log) == 0 || len(p.Output()) < 500 {
					t.Errorf("%d messages and %d bytes of output to look through", len(log),
						len(p.Output()))
				}
			})
		}
	}
}

// wantNone fails the test where text holds one of the secrets.
func wantNone(t *testing.T, what, text string, secrets []string) {
	t.Helper()
	for _, s := range secrets {
		if i := strings.Index(text, s); i >= 0 {
			from := strings.LastIndexByte(text[:i], '\n') + 1
			l, _, _ := strings.Cut(text[from:], "\n")
			t.Errorf("%s wrote %.6s…: %.700s", what, s, l)
		}
	}
}

// withUser is a NATS URL with a user and a password.
func withUser(natsURL, user, password string) string {
	u, err := url.Parse(natsURL)
	if err != nil {
		panic(err)
	}
	u.User = url.UserPassword(user, password)
	return u.String()
}

// TestSecretsBroker runs the binary while the broker is away, refuses the password, comes back,
// goes and refuses it again.
func TestSecretsBroker(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"text", "json"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			v := e2e.NewVendor(t,
				isdpsim.Config{Agents: 5, ClientSecret: clientSecret, Password: password})
			dir, port := t.TempDir(), e2e.FreePort(t)
			where := fmt.Sprintf("nats://127.0.0.1:%d", port)
			start := func(password string) (stop func()) {
				_, stop = natstest.StartOptions(t, &server.Options{StoreDir: dir, Port: port,
					Username: "rollcall", Password: password})
				return stop
			}
			p := e2e.Rollcall(t, e2e.Settings(v.Env(), map[string]string{
				"ROLLCALL_NATS_URL":   withUser(where, "rollcall", brokerSecret),
				"ROLLCALL_LOG_FORMAT": format,
			}))
			p.WaitFor("can't connect to NATS yet")
			stop := start("another")
			p.WaitFor("Authorization Violation")
			stop()
			stop = start(brokerSecret)
			p.WaitFor("first complete sweep")
			stop()
			p.WaitFor("lost the connection to NATS")
			stop = start("another")
			seen := len(p.Output())
			wait.Eventually(t, "a refusal of the reconnect", func() bool {
				return strings.Contains(strings.ToLower(p.Output()[seen:]), "authorization")
			})
			stop()
			start(brokerSecret)
			p.WaitFor("reconnected to NATS")
			if code, _ := p.Terminate(); code != 0 {
				t.Errorf("exit %d", code)
			}
			nc := e2e.Connect(t, withUser(where, "rollcall", brokerSecret))
			secrets := append(parts(clientSecret, password, brokerSecret), v.Tokens()...)
			wantNone(t, "the process", p.Output(), secrets)
			for _, m := range e2e.ReadStream(t, nc, 1) {
				wantNone(t, m.Subject, fmt.Sprint(m.Header, m.Body), secrets)
			}
		})
	}
}

// TestSecretsConnections runs the binary against what answers in no way that it should.
func TestSecretsConnections(t *testing.T) {
	t.Parallel()
	tls := httptest.NewUnstartedServer(http.NotFoundHandler())
	tls.Config.ErrorLog = log.New(io.Discard, "", 0) // it tells of every handshake
	tls.StartTLS()
	t.Cleanup(tls.Close)
	// tells what it was told
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw("HTTP/1.1 407 denied: ALL\r\nContent-Length: 0\r\n\r\n")(nil, w,
			proxySecret+" "+r.Header.Get("Proxy-Authorization"))
	}))
	t.Cleanup(proxy.Close)
	plain, err := net.Listen("tcp", "127.0.0.1:0") // says what no server says
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = plain.Close() })
	go func() {
		for {
			c, err := plain.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "INFO {\r\n")
			_ = c.Close()
		}
	}()
	broken := "nats://" + plain.Addr().String()
	for i, c := range []struct {
		name string
		env  map[string]string
		says string
	}{
		{"an unknown authority", map[string]string{"ROLLCALL_ISDP_URL": tls.URL}, "certificate"},
		{"TLS towards a port without",
			map[string]string{"ROLLCALL_ISDP_URL": "https://" + plain.Addr().String()},
			"read page 0|get a token"},
		{"a proxy that refuses", map[string]string{"ROLLCALL_ISDP_URL": "https://isdp.invalid",
			"HTTPS_PROXY": withUser(proxy.URL, "someone", proxySecret)}, "HTTP 407"},
		{"a proxy that is away", map[string]string{"ROLLCALL_ISDP_URL": "https://isdp.invalid",
			"HTTPS_PROXY": withUser("http://127.0.0.1:1", "someone", proxySecret)},
			"no proxy listens there"},
		{"a broker that is none",
			map[string]string{"ROLLCALL_NATS_URL": withUser(broken, "rollcall", brokerSecret)},
			"can't connect to NATS yet"},
		{"TLS towards a broker that is none", map[string]string{
			"ROLLCALL_NATS_URL": withUser(strings.Replace(broken, "nats", "tls", 1), "rollcall",
				brokerSecret)}, "can't connect to NATS yet"},
		{"several brokers", map[string]string{
			"ROLLCALL_NATS_URL": withUser("nats://127.0.0.1:1", "rollcall", brokerSecret) + "," +
				withUser("nats://broker.invalid", "u", brokerSecret)}, "can't connect to NATS yet"},
		{"a token for a broker",
			map[string]string{"ROLLCALL_NATS_URL": "nats://" + url.QueryEscape(brokerSecret) +
				"@127.0.0.1:1"}, "can't connect to NATS yet"},
		{"WebSocket", map[string]string{
			"ROLLCALL_NATS_URL": withUser("ws://"+plain.Addr().String(), "rollcall", brokerSecret)},
			"can't connect to NATS yet"},
	} {
		format := formats(i)[0]
		t.Run(c.name+", "+format, func(t *testing.T) {
			t.Parallel()
			v := e2e.NewVendor(t,
				isdpsim.Config{Agents: 5, ClientSecret: clientSecret, Password: password})
			env, _ := e2e.Embedded(t)
			settings := e2e.Settings(v.Env(), env, map[string]string{"ROLLCALL_LOG_FORMAT": format,
				"ROLLCALL_TENANT_ID": "886"}, c.env)
			p := e2e.Rollcall(t, settings)
			wait.Eventually(t, c.says, func() bool {
				for _, s := range strings.Split(c.says, "|") {
					if strings.Contains(p.Output(), s) {
						return true
					}
				}
				return false
			})
			if code, _ := p.Terminate(); code != 0 {
				t.Errorf("exit %d", code)
			}
			wantNone(t, "the process", p.Output(),
				append(parts(clientSecret, password, brokerSecret, proxySecret), v.Tokens()...))
		})
	}
}

// TestSecretsSettings runs the binary with settings that can't be used and hold secrets, where they
// belong and where they don't.
func TestSecretsSettings(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage.creds")
	if err := os.WriteFile(garbage,
		[]byte("-----BEGIN NATS USER JWT-----\n"+brokerSecret+"\n------END NATS USER JWT------\n"),
		0o600); err != nil {
		t.Fatal(err)
	}
	good := map[string]string{
		"ROLLCALL_ISDP_URL": "https://isdp.invalid", "ROLLCALL_ISDP_CLIENT_ID": "id",
		"ROLLCALL_ISDP_CLIENT_SECRET": clientSecret,
		"ROLLCALL_ISDP_USERNAME":      "u", "ROLLCALL_ISDP_PASSWORD": password,
	}
	for i, bad := range []map[string]string{
		{"ROLLCALL_ISDP_URL": "https://u:" + url.QueryEscape(password) + "@isdp.invalid"},
		{"ROLLCALL_ISDP_URL": "https://u:" + password + "@isdp.invalid"},
		{"ROLLCALL_ISDP_URL": "https://isdp.invalid/?token=" + url.QueryEscape(password)},
		{"ROLLCALL_ISDP_URL": "https://isdp.invalid/#" + password},
		{"ROLLCALL_ISDP_URL": "https://isdp.invalid:" + password},
		{"ROLLCALL_ISDP_URL": "u:" + password + "@isdp.invalid"},
		{"ROLLCALL_ISDP_CLIENT_SECRET": "", "ROLLCALL_ISDP_CLIENT_SECRET_FILE": clientSecret},
		{"ROLLCALL_ISDP_CLIENT_SECRET_FILE": filepath.Join(dir, "missing")},
		{"ROLLCALL_ISDP_PASSWORD": "", "ROLLCALL_ISDP_PASSWORD_FILE": dir},
		{"ROLLCALL_ISDP_PASSWORD": password + "\n", "ROLLCALL_PAGE_SIZE": "none"},
		{"ROLLCALL_NATS_URL": "nats://u:" + brokerSecret + "@ broker"},
		{"ROLLCALL_NATS_URL": withUser("nats://broker:99999", "u", brokerSecret)},
		{"ROLLCALL_NATS_URL": withUser("nats://broker", "u", brokerSecret) + ",http://" +
			url.QueryEscape(brokerSecret) + "@other"},
		{"ROLLCALL_NATS_URL": "nats://u:%zz" + brokerSecret + "@broker"},
		{"ROLLCALL_NATS_URL_FILE": brokerSecret},
		{"ROLLCALL_NATS_URL": "nats://broker", "ROLLCALL_NATS_CREDS_FILE": garbage},
		{"ROLLCALL_NATS_URL": "nats://broker", "ROLLCALL_NATS_CREDS_FILE": brokerSecret},
		{"ROLLCALL_NATS_URL": "nats://broker", "ROLLCALL_NATS_NKEY_FILE": garbage},
		{"ROLLCALL_NATS_URL": "nats://broker", "ROLLCALL_NATS_NKEY_FILE": brokerSecret},
		{"ROLLCALL_NATS_URL": "nats://broker", "ROLLCALL_NATS_KEY_FILE": garbage,
			"ROLLCALL_NATS_CERT_FILE": garbage},
		{"ROLLCALL_ISDP_PASWORD": password, "ROLLCALL_ISDP_PASSWORD": ""},
		{"ROLLCALL_ISDP_PASSWORDS_FILE": password, "ROLLCALL_ISDP_PASSWORD": ""},
	} {
		for _, format := range formats(i) {
			t.Run(strconv.Itoa(i)+" "+format, func(t *testing.T) {
				t.Parallel()
				env := maps.Clone(good)
				maps.Copy(env, bad)
				p := e2e.Rollcall(t,
					e2e.Settings(env, map[string]string{"ROLLCALL_LOG_FORMAT": format}))
				if code := p.Wait(); code != 2 {
					t.Errorf("exit %d, want 2", code)
				}
				wantNone(t, "the process", p.Output(), parts(clientSecret, password, brokerSecret))
			})
		}
	}
}

// TestSwitchedProtocols runs the binary while a gateway answers every request with 101 and keeps
// the connection: it goes on asking, ends when told to, and the check ends by itself.
func TestSwitchedProtocols(t *testing.T) {
	t.Parallel()
	for name, endpoint := range map[string]func(isdpsim.Fault) isdpsim.Hook{
		"tokens": isdpsim.OnToken, "pages": isdpsim.OnAgents} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := e2e.NewVendor(t, isdpsim.Config{Agents: 12})
			v.SetFault(endpoint(isdpsim.Switch("websocket")))
			env, _ := e2e.Embedded(t)
			p := e2e.Rollcall(t,
				e2e.Settings(v.Env(), env, map[string]string{"ROLLCALL_TENANT_ID": "886"}))
			wait.Eventually(t, "some requests more", func() bool {
				return v.Stats().Requests >= 12
			})
			if code, _ := p.Terminate(); code != 0 {
				t.Errorf("exit %d", code)
			}
			check := e2e.Rollcall(t, e2e.Settings(v.Env(), env), "check")
			if code := check.Wait(); code != 1 {
				t.Errorf("the check ended with %d, want 1", code)
			}
			if !strings.Contains(check.Output(), "HTTP 101") {
				t.Errorf("the check does not say why: %s", check.Output())
			}
		})
	}
}

// TestBytesBehindAnswers runs the binary while a vendor sends, behind each of its answers, another
// one that nobody asked for and that holds a token. Nothing of it shows, and nothing is written
// that is no line of the log.
func TestBytesBehindAnswers(t *testing.T) {
	t.Parallel()
	const token = "tok-behind-an-answer"
	v := e2e.NewVendor(t, isdpsim.Config{Agents: 60})
	v.SetFault(func(isdpsim.Request) isdpsim.Fault {
		return isdpsim.Behind("HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n{\"access_token\":\"" +
			token + "\"}")
	})
	env, _ := e2e.Embedded(t)
	p := e2e.Rollcall(t, e2e.Settings(v.Env(), env))
	p.WaitFor("bytes behind an answer")
	p.WaitFor("first complete sweep")
	if code, _ := p.Terminate(); code != 0 {
		t.Errorf("exit %d", code)
	}
	for line := range strings.Lines(p.Output()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("no line of the log: %s", line)
		}
	}
	p.NoSecrets(append(v.Secrets(), token)...)
	check := e2e.Rollcall(t, e2e.Settings(v.Env(), env), "check")
	if check.Wait(); check.Stderr() != "" {
		t.Errorf("the check wrote to standard error: %s", check.Stderr())
	}
	check.NoSecrets(append(v.Secrets(), token)...)
}

// TestSecretsReplaced runs the binary while the vendor's password is replaced, and the file with it
// after that, as Kubernetes does it: each file is a link into a directory that is a link itself,
// and only that is swapped.
func TestSecretsReplaced(t *testing.T) {
	t.Parallel()
	const renewed = "another-application-token-s3cret"
	v := e2e.NewVendor(t, isdpsim.Config{Agents: 12})
	dir := t.TempDir()
	write := func(version, password string) {
		if err := os.Mkdir(filepath.Join(dir, version), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, version, "password"), []byte(password+"\n"),
			0o600); err != nil {
			t.Fatal(err)
		}
		next := filepath.Join(dir, "..data_tmp")
		if err := os.Symlink(version, next); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	write("..1", v.Env()["ROLLCALL_ISDP_PASSWORD"])
	if err := os.Symlink(filepath.Join("..data", "password"),
		filepath.Join(dir, "password")); err != nil {
		t.Fatal(err)
	}
	env, url := e2e.Embedded(t)
	settings := e2e.Settings(v.Env(), env, map[string]string{
		"ROLLCALL_ISDP_PASSWORD":      "",
		"ROLLCALL_ISDP_PASSWORD_FILE": filepath.Join(dir, "password")})
	p := e2e.Rollcall(t, settings)
	p.WaitFor("first complete sweep")
	nc := e2e.Connect(t, url)
	health := func(what string) {
		t.Helper()
		wait.Eventually(t, "health "+what, func() bool {
			m, ok := e2e.Last(nc, "agent.health.886")
			return ok && strings.Contains(m.Body, what)
		})
	}
	v.SetPassword(renewed)
	v.RevokeTokens()
	health(`"reason":"credentials"`)
	write("..2", renewed)
	if err := os.RemoveAll(filepath.Join(dir, "..1")); err != nil {
		t.Fatal(err)
	}
	check := e2e.Rollcall(t, settings, "check")
	if check.Wait(); strings.Contains(check.Output(), "failing (credentials)") &&
		!strings.Contains(strings.Join(strings.Fields(check.Output()), " "),
			"by itself within a minute") {
		t.Errorf("the check does not say that it mends itself: %s", check.Output())
	}
	health(`"state":"ok"`)
	if code, _ := p.Terminate(); code != 0 {
		t.Errorf("exit %d", code)
	}
	p.NoSecrets(append(v.Secrets(), renewed)...)
	check.NoSecrets(append(v.Secrets(), renewed)...)
}
