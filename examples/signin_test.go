//go:build unix

package examples

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"github.com/rollcall-events/rollcall/internal/test/e2e"
	"github.com/rollcall-events/rollcall/internal/test/natstest"
	"github.com/rollcall-events/rollcall/internal/test/wait"
	"github.com/rollcall-events/rollcall/schemas"
)

// programs are examples that connect to NATS, with the flags that keep what they write and where
// they answer to themselves.
type programs map[string]func(t testing.TB) (path string, args []string)

var goPrograms = programs{
	"routing": func(t testing.TB) (string, []string) {
		return e2e.Built(t, "./examples/routing"), []string{"--listen", "127.0.0.1:0"}
	},
	"audit": func(t testing.TB) (string, []string) { return e2e.Built(t, "./examples/audit"), nil },
}

// A door is a server that lets in who has the right flags.
type door struct {
	url   string
	right []string      // flags
	wrong []string      // flags of somebody else; nil: there are none
	own   []nats.Option // how the test signs in
	// spoilt are flags that can't be read, with a secret in them; nil: there are none.
	spoilt []string
}

func put(t testing.TB, name, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// must returns v where there is no error.
func must[V any](v V, err error) V {
	if err != nil {
		panic(err)
	}
	return v
}

func seedOf(t testing.TB, pair nkeys.KeyPair) (path string) {
	t.Helper()
	return put(t, "user.nk", string(must(pair.Seed()))+"\n")
}

const secret = "s%40cret%2F" // as it is written in a URL, for s@cret/

func passwordDoor(t testing.TB) door {
	at, _ := natstest.StartOptions(t, &server.Options{
		Users: []*server.User{{Username: "reader", Password: must(url.PathUnescape(secret))}}})
	with := func(password string) string {
		return strings.Replace(at, "://", "://reader:"+password+"@", 1)
	}
	return door{url: with(secret), wrong: []string{"--nats", with("other")},
		spoilt: []string{"--nats", with("p4ss/word")}}
}

func nkeyDoor(t testing.TB) door {
	pair, other := must(nkeys.CreateUser()), must(nkeys.CreateUser())
	at, _ := natstest.StartOptions(t, &server.Options{
		Nkeys: []*server.NkeyUser{{Nkey: must(pair.PublicKey())}}})
	seed := seedOf(t, pair)
	return door{at, []string{"--nkey", seed}, []string{"--nkey", seedOf(t, other)},
		[]nats.Option{must(nats.NkeyOptionFromSeed(seed))}, nil}
}

func credsDoor(t testing.TB) door {
	operator, account, system := must(nkeys.CreateOperator()), must(nkeys.CreateAccount()),
		must(nkeys.CreateAccount())
	claims := jwt.NewOperatorClaims(must(operator.PublicKey()))
	claims.SystemAccount = must(system.PublicKey())
	claims = must(jwt.DecodeOperatorClaims(must(claims.Encode(operator))))
	resolver := new(server.MemAccResolver)
	for _, pair := range []nkeys.KeyPair{account, system} {
		c := jwt.NewAccountClaims(must(pair.PublicKey()))
		if pair == account {
			c.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1,
				Streams: -1, Consumer: -1}
		}
		if err := resolver.Store(c.Subject, must(c.Encode(operator))); err != nil {
			t.Fatal(err)
		}
	}
	at, _ := natstest.StartOptions(t, &server.Options{AccountResolver: resolver,
		TrustedOperators: []*jwt.OperatorClaims{claims}, SystemAccount: claims.SystemAccount})
	creds := func(signer nkeys.KeyPair) string {
		user := must(nkeys.CreateUser())
		token := must(jwt.NewUserClaims(must(user.PublicKey())).Encode(signer))
		return put(t, "user.creds", string(must(jwt.FormatUserConfig(token, must(user.Seed())))))
	}
	right := creds(account)
	return door{at, []string{"--creds", right},
		[]string{"--creds", creds(must(nkeys.CreateAccount()))},
		[]nats.Option{nats.UserCredentials(right)}, nil}
}

func certificateDoor(t testing.TB) door {
	servers, clients := natstest.NewAuthority(t), natstest.NewAuthority(t)
	serverCert, serverKey := servers.Issue("server")
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(must(os.ReadFile(clients.File)))
	at, _ := natstest.StartOptions(t, &server.Options{TLSTimeout: wait.Patience.Seconds(),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{must(tls.LoadX509KeyPair(serverCert,
			serverKey))}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}})
	cert, key := clients.Issue("reader")
	return door{strings.Replace(at, "nats:", "tls:", 1),
		[]string{"--tlsca", servers.File, "--tlscert", cert, "--tlskey", key}, nil,
		[]nats.Option{nats.RootCAs(servers.File), nats.ClientCert(cert, key)}, nil}
}

// contextDoor is passwordDoor, with a context that says it all.
func contextDoor(t testing.TB) door {
	d := passwordDoor(t)
	context := func(password string) []string {
		at := must(url.Parse(d.url))
		return []string{"--context", put(t, "desk.json", fmt.Sprintf(
			`{"url":"nats://%s","user":"reader","password":%q}`, at.Host, password))}
	}
	d.spoilt = nil
	d.right, d.wrong = context(must(url.PathUnescape(secret))), context("other")
	return d
}

func TestSignIn(t *testing.T) {
	t.Parallel()
	testSignIn(t, goPrograms)
}

// testSignIn has each example sign in in each way; it ends with one clear line where it may not.
func testSignIn(t *testing.T, examples programs) {
	t.Helper()
	for name, open := range map[string]func(testing.TB) door{
		"password": passwordDoor, "NKey": nkeyDoor, "credentials": credsDoor,
		"certificate": certificateDoor, "context": contextDoor,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := open(t)
			nc, err := nats.Connect(d.url, d.own...)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(nc.Close)
			js := must(jetstream.New(nc))
			stream := must(js.CreateStream(t.Context(), jetstream.StreamConfig{
				Name: schemas.Stream, Subjects: []string{"agent.>"}}))
			for program, with := range examples {
				run := func(flags []string) *e2e.Process {
					path, args := with(t)
					return e2e.Start(t, path, map[string]string{"NATS_URL": d.url},
						append(args, flags...)...)
				}
				t.Run(program, func(t *testing.T) {
					if d.wrong != nil {
						p := run(d.wrong)
						if code := p.Wait(); code != 1 {
							t.Errorf("somebody else: exit %d", code)
						}
						if said := lastLine(p.Stderr()); !strings.Contains(said, "NATS") ||
							!strings.Contains(strings.ToLower(said), "authorization violation") {
							t.Errorf("somebody else: it says %q", said)
						}
						p.NoSecrets("s@cret/", secret, "other@")
					}
					if d.spoilt != nil {
						p := run(d.spoilt)
						code := p.Wait()
						if code == 0 || !strings.Contains(p.Stderr(), "can't be read") {
							t.Errorf("spoilt: exit %d: %s", code, p.Stderr())
						}
						p.NoSecrets("p4ss")
					}
					before := must(stream.Info(t.Context())).State.Consumers
					p := run(d.right)
					wait.Eventually(t, program+" to read", func() bool {
						return !p.Running() ||
							must(stream.Info(t.Context())).State.Consumers > before
					})
					if !p.Running() {
						t.Errorf("exit %d", p.Wait())
					}
					p.Kill()
				})
			}
		})
	}
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}
