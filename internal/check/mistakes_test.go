//go:build unix

package check_test

import (
	"bufio"
	"context"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/internal/setting"
	"github.com/rollcall-events/rollcall/internal/test/e2e"
	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
	"github.com/rollcall-events/rollcall/internal/test/natstest"
	"github.com/rollcall-events/rollcall/internal/test/wait"
	"github.com/rollcall-events/rollcall/schemas"
)

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil { // these tests wait more than they work
		panic(err)
	}
	setting.Use(map[string]string{ // as the command does
		"RateLimit": "ROLLCALL_RATE_LIMIT", "Concurrency": "ROLLCALL_CONCURRENCY",
		"Interval":     "ROLLCALL_POLL_INTERVAL",
		"SweepTimeout": "ROLLCALL_POLL_TIMEOUT", "PageSize": "ROLLCALL_PAGE_SIZE",
		"MaxBytes": "ROLLCALL_NATS_MAX_BYTES",
		"Replicas": "ROLLCALL_NATS_REPLICAS", "HTTPListen": "ROLLCALL_HTTP_LISTEN",
	})
	os.Exit(e2e.Main(m))
}

const brokerSecret = "s3cret-of-the-broker"

// spoken is what a process has printed, without its line breaks.
func spoken(p *e2e.Process) string { return strings.Join(strings.Fields(p.Output()), " ") }

// wantSpoken fails the test unless the text is among what the process has printed.
func wantSpoken(t *testing.T, p *e2e.Process, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(spoken(p), want) {
			t.Errorf("it does not say %q:\n%s", want, p.Output())
		}
	}
}

// at80 fails the test where a line would break at 80 columns.
func at80(t *testing.T, p *e2e.Process) {
	t.Helper()
	for line := range strings.Lines(p.Stdout()) {
		if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
		if strings.Contains(line, "\x1b") {
			t.Errorf("colours, and it is no terminal: %q", line)
		}
	}
}

// site serves a handler until the test ends and returns its address.
func site(t *testing.T, secure bool, h http.Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that fail on purpose
	s.EnableHTTP2 = false
	if secure {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s
}

// caFile holds the server's certificate.
func caFile(t *testing.T, s *httptest.Server) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ca.pem")
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func html(status int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(status)
		io.WriteString(w, "<!DOCTYPE html><html><body>Welcome</body></html>")
	})
}

// broker runs a nats-server in the test.
func broker(t *testing.T, opts *server.Options) string {
	t.Helper()
	url, _ := natstest.StartOptions(t, opts)
	return url
}

// plainBroker runs one without JetStream.
func plainBroker(t *testing.T) string {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT,
		NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	go s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the nats-server does not become ready")
	}
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	return s.ClientURL()
}

// oldBroker says that it is a nats-server of a version, and no more than a client needs to believe
// it. members are others of its cluster.
func oldBroker(t *testing.T, version string, members ...string) string {
	t.Helper()
	ln := listen(t)
	for i, m := range members {
		members[i] = strings.TrimPrefix(m, "nats://")
	}
	more, err := json.Marshal(members)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				fmt.Fprintf(conn, `INFO {"server_id":"OLD","version":%q,"proto":1,"headers":true,`+
					`"jetstream":true,"max_payload":1048576,"connect_urls":%s}`+"\r\n",
					version, more)
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					if lines.Text() == "PING" {
						io.WriteString(conn, "PONG\r\n")
					}
				}
			}()
		}
	}()
	return "nats://" + ln.Addr().String()
}

// listen takes a port until the test ends.
func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// streamAt makes a stream.
func streamAt(t *testing.T, url string, c jetstream.StreamConfig) {
	t.Helper()
	js, err := jetstream.New(natstest.Connect(t, url))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), wait.Patience)
	defer cancel()
	if _, err := js.CreateStream(ctx, c); err != nil {
		t.Fatal(err)
	}
}

// withUser is the URL with a user and the secret password.
func withUser(url, user string) string {
	return strings.Replace(url, "://", "://"+user+":"+brokerSecret+"@", 1)
}

// limited are the users of a broker: one of them may not do what the permissions deny.
func limited(deny ...string) *server.Options {
	return &server.Options{Users: []*server.User{
		{Username: "rollcall", Password: brokerSecret,
			Permissions: &server.Permissions{Publish: &server.SubjectPermission{Deny: deny}}},
	}}
}

// The mistakes that are most likely, each of them made for rollcall check and for the start.
func TestMistakes(t *testing.T) {
	t.Parallel()
	type env = map[string]string
	var look []func()
	const goesOn = -1 // of the start's exit codes: it tells, and tries again
	for _, c := range []struct {
		name  string
		make  func(t *testing.T, v *e2e.Vendor) env // over a good setting
		exit  int                                   // check's
		check []string                              // what check says
		start int                                   // the start's exit code
		says  []string                              // what the start says
	}{
		{"wrong domain", func(*testing.T, *e2e.Vendor) env {
			// no resolver asks anybody for such a name
			return env{"ROLLCALL_ISDP_URL": "https://isdp..example.com"}
		}, 1, []string{"FAIL dns isdp..example.com: there is no such domain > is the domain in " +
			"ROLLCALL_ISDP_URL right?", "skip token needs tls"},
			goesOn, []string{"no such host: there is no such domain; is ROLLCALL_ISDP_URL right?"}},

		{"a web server that is no ISDP", func(t *testing.T, _ *e2e.Vendor) env {
			return env{"ROLLCALL_ISDP_URL": site(t, false, html(404)).URL}
		}, 1, []string{"FAIL token HTTP 404: there is no ISDP+ OpenAPI at this address > is " +
			"ROLLCALL_ISDP_URL right?"},
			goesOn, []string{"HTTP 404: there is no ISDP+ OpenAPI at this address; is " +
				"ROLLCALL_ISDP_URL right?"}},

		{"a web page for everything", func(t *testing.T, _ *e2e.Vendor) env {
			return env{"ROLLCALL_ISDP_URL": site(t, false, html(200)).URL}
		}, 1, []string{"FAIL token the answer is HTML or XML, not JSON > is there a gateway in " +
			"between, is ROLLCALL_ISDP_URL right?"},
			goesOn, []string{"the answer is HTML or XML, not JSON; is there a gateway in " +
				"between, is ROLLCALL_ISDP_URL right?"}},

		{"nothing there", func(t *testing.T, _ *e2e.Vendor) env {
			return env{"ROLLCALL_ISDP_URL": fmt.Sprintf("https://127.0.0.1:%d", e2e.FreePort(t))}
		}, 1, []string{"connection refused > nothing listens there: are domain and port of " +
			"ROLLCALL_ISDP_URL right?"},
			goesOn, []string{"nothing listens there; " +
				"are domain and port of ROLLCALL_ISDP_URL right?"}},

		{"http to the vendor", func(*testing.T, *e2e.Vendor) env {
			return env{"ROLLCALL_ISDP_URL": "http://isdp.example.com"}
		}, 2, []string{`FAIL settings ROLLCALL_ISDP_URL is "http://isdp.example.com": want the ` +
			`base URL of the ISDP+ domain, https://…`, "http:// for loopback only"},
			2, []string{`rollcall: ROLLCALL_ISDP_URL is "http://isdp.example.com": want the base ` +
				`URL of the ISDP+ domain, https://…`}},

		{"https to a plain port", func(t *testing.T, v *e2e.Vendor) env {
			return env{"ROLLCALL_ISDP_URL": strings.Replace(v.URL, "http:", "https:", 1)}
		}, 1, []string{"FAIL tls port", "speaks plain http, not https > is the port in " +
			"ROLLCALL_ISDP_URL right?"},
			goesOn, []string{"that port speaks plain http, not https; is the port in " +
				"ROLLCALL_ISDP_URL right?"}},

		{"http to a TLS port", func(t *testing.T, v *e2e.Vendor) env {
			return env{"ROLLCALL_ISDP_URL": strings.Replace(site(t, true, v).URL, "https:", "http:",
				1)}
		}, 1, []string{"FAIL token HTTP 400: that port wants https > make ROLLCALL_ISDP_URL " +
			"begin with https://"},
			goesOn, []string{"HTTP 400: that port wants https; make ROLLCALL_ISDP_URL begin with " +
				"https://"}},

		{"a certificate that nobody vouches for", func(t *testing.T, v *e2e.Vendor) env {
			return env{"ROLLCALL_ISDP_URL": site(t, true, v).URL}
		}, 1, []string{"FAIL tls nobody whom this machine trusts vouches for the certificate for " +
			"example.com", "from Acme Co > is there a gateway of yours in between? Then set " +
			"ROLLCALL_ISDP_CA_FILE to its CA"},
			goesOn, []string{"nobody whom this machine trusts vouches for the certificate; is it " +
				"a gateway of yours? Then set ROLLCALL_ISDP_CA_FILE to its CA"}},

		{"swapped id and secret", func(_ *testing.T, v *e2e.Vendor) env {
			e := v.Env()
			e["ROLLCALL_ISDP_CLIENT_ID"],
				e["ROLLCALL_ISDP_CLIENT_SECRET"] = e["ROLLCALL_ISDP_CLIENT_SECRET"],
				e["ROLLCALL_ISDP_CLIENT_ID"]
			return e
		}, 1, []string{`FAIL token refused: HTTP 401 "invalid_client": ROLLCALL_ISDP_CLIENT_ID ` +
			`and ROLLCALL_ISDP_CLIENT_SECRET must be right, not expired and not swapped`},
			goesOn, []string{"invalid_client", "ROLLCALL_ISDP_CLIENT_ID and " +
				"ROLLCALL_ISDP_CLIENT_SECRET must be right, not expired and not swapped"}},

		{"expired credentials", func(_ *testing.T, v *e2e.Vendor) env {
			v.SetFault(isdpsim.OnToken(isdpsim.CredentialsRefused()))
			return nil
		}, 1, []string{`FAIL token refused: HTTP 400 "invalid_grant": ROLLCALL_ISDP_USERNAME ` +
			`(the application's id) and ROLLCALL_ISDP_PASSWORD (its token) must be right`},
			goesOn, []string{"invalid_grant", "ROLLCALL_ISDP_USERNAME (the application's id) and " +
				"ROLLCALL_ISDP_PASSWORD (its token) must be right"}},

		{"a token that is no good", func(_ *testing.T, v *e2e.Vendor) env {
			v.SetFault(isdpsim.OnAgents(isdpsim.InvalidToken(200)))
			return nil
		}, 1, []string{"FAIL listing the token that was just issued is refused > may this " +
			"account use the agents call?"},
			goesOn, nil},

		{"API not subscribed", func(_ *testing.T, v *e2e.Vendor) env {
			v.SetFault(isdpsim.OnAgents(isdpsim.StateCode("1403", "应用未订阅该API")))
			return nil
		}, 1, []string{`FAIL listing the vendor says stateCode 1403 "应用未订阅该API" > if this lasts: ` +
			`has the application subscribed to the API findOnlineAgent?`},
			goesOn, []string{"stateCode 1403", "应用未订阅该API",
				"if this lasts: has the application subscribed to the API findOnlineAgent?"}},

		{"API forbidden", func(_ *testing.T, v *e2e.Vendor) env {
			v.SetFault(isdpsim.OnAgents(isdpsim.Status(403)))
			return nil
		}, 1, []string{"FAIL listing HTTP 403 > if this lasts: has the application subscribed to " +
			"the API findOnlineAgent?"},
			goesOn, []string{"HTTP 403; if this lasts: has the application subscribed to the API " +
				"findOnlineAgent?"}},

		{"tenant mismatch", func(*testing.T, *e2e.Vendor) env {
			return env{"ROLLCALL_TENANT_ID": "887"}
		}, 2, []string{"FAIL token the credentials are tenant 886's, but ROLLCALL_TENANT_ID is " +
			"887 > set ROLLCALL_TENANT_ID to 886 or leave it out, or use the credentials of " +
			"tenant 887"},
			2, []string{`rollcall: ROLLCALL_TENANT_ID is "887": want the tenant of the ` +
				`credentials, or nothing`, "the credentials are tenant 886's"}},

		{"no NATS", func(t *testing.T, _ *e2e.Vendor) env {
			return env{"ROLLCALL_NATS_URL": fmt.Sprintf("nats://127.0.0.1:%d", e2e.FreePort(t))}
		}, 1, []string{"FAIL nats no server answers > is one running, and is ROLLCALL_NATS_URL " +
			"right?", "skip stream needs jetstream"},
			goesOn, []string{"is it running, and is ROLLCALL_NATS_URL right?"}},

		{"NATS without JetStream", func(t *testing.T, _ *e2e.Vendor) env {
			return env{"ROLLCALL_NATS_URL": plainBroker(t)}
		}, 1, []string{"FAIL jetstream JetStream is off > start the server with -js, or put " +
			"jetstream {store_dir: …} into its configuration"},
			goesOn, []string{"the stream can't be opened yet",
				"enable JetStream on the server and for this account"}},

		{"NATS too old", func(t *testing.T, _ *e2e.Vendor) env {
			return env{"ROLLCALL_NATS_URL": oldBroker(t, "2.12.7")}
		}, 1, []string{"nats-server 2.12.7: too old, 2.12.8 or later is needed (atomic batch " +
			"publishing) > upgrade the NATS servers, all of the cluster"},
			1, []string{"the NATS server is version 2.12.7, and rollcall needs 2.12.8 or later"}},

		{"NATS with a small max_payload", func(t *testing.T, _ *e2e.Vendor) env {
			return env{"ROLLCALL_NATS_URL": broker(t, &server.Options{MaxPayload: 8 << 10})}
		}, 1, []string{"FAIL nats nats://127.0.0.1:", "the NATS server takes messages of 8192 " +
			"bytes at most, and rollcall needs 32768"},
			1, []string{"the NATS server takes messages of 8192 bytes at most, and rollcall " +
				"needs 32768: raise its max_payload"}},

		{"NATS too old, another of the cluster", func(t *testing.T, _ *e2e.Vendor) env {
			return env{"ROLLCALL_NATS_URL": oldBroker(t, "2.15.2", oldBroker(t, "2.12.8"),
				oldBroker(t, "2.12.8-RC.3"))}
		}, 1, []string{"nats-server 2.15.2", "others of its cluster are too old: nats://127.0.0.1:",
			"(nats-server 2.12.8-RC.3); 2.12.8 or later is needed > upgrade the NATS servers, " +
				"all of the cluster"},
			goesOn, []string{"the stream can't be opened yet"}},

		{"wrong password of NATS", func(t *testing.T, _ *e2e.Vendor) env {
			return env{"ROLLCALL_NATS_URL": withUser(broker(t, limited()), "somebody")}
		}, 1, []string{"FAIL nats the server refuses these credentials: nats: Authorization " +
			"Violation > check ROLLCALL_NATS_CREDS_FILE, ROLLCALL_NATS_NKEY_FILE or the user in " +
			"ROLLCALL_NATS_URL"},
			goesOn, []string{"Authorization Violation: check ROLLCALL_NATS_CREDS_FILE, " +
				"ROLLCALL_NATS_NKEY_FILE or the user in ROLLCALL_NATS_URL"}},

		{"no permission to write", func(t *testing.T, _ *e2e.Vendor) env {
			return env{"ROLLCALL_NATS_URL": withUser(broker(t,
				limited("rollcall.log.>", "$KV.>", "$JS.API.STREAM.CREATE.>")), "rollcall")}
		}, 1, []string{"FAIL permissions this user may not publish on rollcall.log.>, " +
			"$KV.rollcall.>, $JS.API.STREAM.CREATE.AGENT_EVENTS, " +
			"$JS.API.STREAM.CREATE.KV_rollcall > let it, or use rollcall's own user",
			"FAIL stream AGENT_EVENTS does not exist and can't be created: this user may not " +
				"publish on $JS.API.STREAM.CREATE.AGENT_EVENTS > let it, or create",
			"FAIL bucket bucket rollcall does not exist and can't be created: this user may not",
			"warn alarm this user may not publish on $JS.API.STREAM.CREATE.ROLLCALL_ALARM"},
			goesOn, []string{"Permissions Violation for Publish to",
				"$JS.API.STREAM.CREATE.AGENT_EVENTS"}},

		{"no permission to hear", func(t *testing.T, _ *e2e.Vendor) env {
			opts := limited()
			opts.Users[0].Permissions.Subscribe =
				&server.SubjectPermission{Deny: []string{"_INBOX.>"}}
			return env{"ROLLCALL_NATS_URL": withUser(broker(t, opts), "rollcall")}
		}, 1, []string{"FAIL permissions this user may not subscribe to _INBOX.> > let it, or " +
			"use rollcall's own user"},
			goesOn, []string{"Permissions Violation for Subscription to"}},

		{"no permission to ask", func(t *testing.T, _ *e2e.Vendor) env {
			return env{"ROLLCALL_NATS_URL": withUser(broker(t, limited("$JS.>")), "rollcall")}
		}, 1, []string{"ok jetstream the account's limits are not known",
			"FAIL permissions this user may not publish on $JS.API.STREAM.INFO.AGENT_EVENTS",
			"skip stream needs permission for $JS.API.STREAM.INFO.AGENT_EVENTS"},
			goesOn, []string{"Permissions Violation for Publish to",
				"$JS.API.STREAM.INFO.AGENT_EVENTS"}},

		{"someone else's stream", func(t *testing.T, _ *e2e.Vendor) env {
			url := broker(t, &server.Options{})
			streamAt(t, url, jetstream.StreamConfig{Name: schemas.Stream,
				Subjects: []string{"orders.>"}, MaxAge: time.Hour})
			return env{"ROLLCALL_NATS_URL": url}
		}, 1, []string{`FAIL stream stream AGENT_EVENTS does not fit, and rollcall never alters ` +
			`it: subjects are ["orders.>"], want "rollcall.log.>" alone`,
			"> mend it (nats stream edit), or, if it is somebody else's, remove or rename it, or " +
				"use another account", "skip watermark needs stream"},
			1, []string{"stream AGENT_EVENTS does not fit, and rollcall never alters it",
				"mend it, or remove it if it isn't rollcall's"}},

		{"someone else's subjects", func(t *testing.T, _ *e2e.Vendor) env {
			url := broker(t, &server.Options{})
			streamAt(t, url, jetstream.StreamConfig{Name: "EVERYTHING",
				Subjects: []string{"rollcall.>"}})
			return env{"ROLLCALL_NATS_URL": url}
		}, 1, []string{"FAIL stream AGENT_EVENTS can't be created: the stream EVERYTHING has " +
			"rollcall.log.> already > take the subject out of it, or use an account of " +
			"rollcall's own"},
			goesOn, []string{"another stream of this account has rollcall.log.> already"}},

		{"no stream, and none to be made", func(t *testing.T, _ *e2e.Vendor) env {
			return env{"ROLLCALL_NATS_URL": broker(t, &server.Options{}),
				"ROLLCALL_NATS_MANAGE": "false"}
		}, 1, []string{"FAIL stream AGENT_EVENTS does not exist, and ROLLCALL_NATS_MANAGE is " +
			"false > create it", "FAIL bucket bucket rollcall does not exist",
			"warn alarm ROLLCALL_ALARM does not exist, and ROLLCALL_NATS_MANAGE is false: without",
			"> create it (nats stream add --config deploy/nats/rollcall-alarm.json), or set"},
			1, []string{"stream AGENT_EVENTS does not exist: create it, or let rollcall do so " +
				"(ROLLCALL_NATS_MANAGE=true)"}},

		{"no permission for the alarm", func(t *testing.T, _ *e2e.Vendor) env {
			return env{"ROLLCALL_NATS_URL": withUser(broker(t,
				limited("rollcall.alarm.>")), "rollcall")}
		}, 0, []string{"warn alarm this user may not publish on rollcall.alarm.armed.*: without " +
			"it NATS can't tell plain subscribers", "all else works > let it"},
			goesOn, []string{"no alarm: NATS can't tell plain subscribers"}},

		{"someone else's stream for the alarm", func(t *testing.T, _ *e2e.Vendor) env {
			url := broker(t, &server.Options{})
			streamAt(t, url, jetstream.StreamConfig{Name: schemas.AlarmStream,
				Subjects: []string{"alarms.>"}})
			return env{"ROLLCALL_NATS_URL": url}
		}, 0, []string{"warn alarm ROLLCALL_ALARM does not fit, and rollcall never alters it: " +
			`subjects are ["alarms.>"], want rollcall.alarm.> alone;`, "> mend it"},
			goesOn, []string{"no alarm: NATS can't tell plain subscribers"}},

		{"more replicas than servers", func(t *testing.T, _ *e2e.Vendor) env {
			return env{"ROLLCALL_NATS_URL": broker(t, &server.Options{}),
				"ROLLCALL_NATS_REPLICAS": "3"}
		}, 1, []string{"FAIL stream AGENT_EVENTS does not exist and can't be created: 3 replicas " +
			"need a cluster, and this server is in none > set ROLLCALL_NATS_REPLICAS=1, or use a " +
			"cluster", "FAIL bucket bucket rollcall does not exist and can't be created: 3",
			"warn alarm ROLLCALL_ALARM does not exist and can't be created: 3"},
			goesOn, []string{"replicas > 1 not supported in non-clustered mode"}},

		{"NATS port in use", func(t *testing.T, _ *e2e.Vendor) env {
			return env{"ROLLCALL_NATS_URL": "", "ROLLCALL_NATS_LISTEN": listen(t).Addr().String(),
				"ROLLCALL_DATA_DIR": t.TempDir()}
		}, 1, []string{"is in use by something else > set ROLLCALL_NATS_LISTEN to a free " +
			"address, or stop what uses this one"},
			1, []string{"address already in use: set ROLLCALL_NATS_LISTEN to a free address, or " +
				"stop what uses this one"}},

		{"NATS port in use by another NATS", func(t *testing.T, _ *e2e.Vendor) env {
			return env{"ROLLCALL_NATS_URL": "",
				"ROLLCALL_NATS_LISTEN": strings.TrimPrefix(broker(t, &server.Options{}), "nats://"),
				"ROLLCALL_DATA_DIR":    t.TempDir()}
		}, 1, []string{"FAIL nats another NATS server listens on", "to use that server"},
			1, []string{"address already in use: set ROLLCALL_NATS_LISTEN to a free address, or " +
				"stop what uses this one"}},

		{"HTTP port in use", func(t *testing.T, _ *e2e.Vendor) env {
			return env{"ROLLCALL_HTTP_LISTEN": site(t, false, html(200)).Listener.Addr().String()}
		}, 1, []string{"FAIL listen", "is in use by something else > set ROLLCALL_HTTP_LISTEN to " +
			"a free address, or stop what uses this one"},
			1, []string{"ROLLCALL_HTTP_LISTEN: can't listen on",
				"stop what uses it, or set ROLLCALL_HTTP_LISTEN to a free address, or to off"}},

		{"a data directory that can't be", func(t *testing.T, _ *e2e.Vendor) env {
			file := filepath.Join(t.TempDir(), "file")
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			return env{"ROLLCALL_NATS_URL": "", "ROLLCALL_DATA_DIR": filepath.Join(file, "data")}
		}, 2, []string{"FAIL data", "can't be used: want a directory that rollcall may write",
			"> set ROLLCALL_DATA_DIR to a directory on a disk that stays"},
			2, []string{"ROLLCALL_DATA_DIR is", "want a directory that rollcall may write"}},

		{"data directory that a broken link leads to", func(t *testing.T, _ *e2e.Vendor) env {
			link := filepath.Join(t.TempDir(), "link")
			if err := os.Symlink(filepath.Join(t.TempDir(), "gone"), link); err != nil {
				t.Fatal(err)
			}
			return env{"ROLLCALL_NATS_URL": "", "ROLLCALL_DATA_DIR": filepath.Join(link, "data")}
		}, 2, []string{"FAIL data", "want a directory that rollcall may write",
			"/link is a link to", "which is not there"},
			2, []string{"ROLLCALL_DATA_DIR is", "want a directory that rollcall may write"}},
	} {
		// Most of the time goes by in waiting: everything is started before anything is looked at.
		v := e2e.NewVendor(t, isdpsim.Config{Agents: 60})
		with := e2e.Settings(v.Env(), env{"ROLLCALL_LOG_FORMAT": "text",
			"ROLLCALL_LOG_LEVEL": "info"})
		maps.Copy(with, c.make(t, v))
		if _, given := with["ROLLCALL_NATS_URL"]; !given {
			with["ROLLCALL_NATS_URL"] = broker(t, &server.Options{})
		}
		checked := e2e.Rollcall(t, with, "check")
		var started *e2e.Process
		if c.says != nil {
			if with["ROLLCALL_NATS_URL"] == "" {
				checked.Wait() // else the two would meet in the data directory
			}
			started = e2e.Rollcall(t, with, "run")
		}
		look = append(look, func() {
			t.Run(c.name, func(t *testing.T) {
				if code := checked.Wait(); code != c.exit {
					t.Errorf("check: exit %d, want %d", code, c.exit)
				}
				wantSpoken(t, checked, c.check...)
				if err := checked.Stderr(); err != "" {
					t.Errorf("on standard error: %s", err)
				}
				at80(t, checked)
				checked.NoSecrets(append(v.Secrets(), brokerSecret)...)
				if started == nil {
					return
				}
				if c.start != goesOn {
					if code := started.Wait(); code != c.start {
						t.Errorf("the start: exit %d, want %d", code, c.start)
					}
				} else {
					for _, want := range c.says {
						wait.Eventually(t, fmt.Sprintf("the start to say %q", want), func() bool {
							return strings.Contains(spoken(started), want) || !started.Running()
						})
					}
				}
				wantSpoken(t, started, c.says...)
				started.NoSecrets(append(v.Secrets(), brokerSecret)...)
				if started.Running() {
					started.Kill()
				}
			})
		})
	}
	for _, l := range look {
		l()
	}
}
