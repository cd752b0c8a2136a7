package natsdial_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/rollcall-events/rollcall/internal/natsdial"
)

// run runs a nats-server; port 0: a free one.
func run(t *testing.T, opts *server.Options) (url string, stop func()) {
	t.Helper()
	opts.Host, opts.NoLog, opts.NoSigs = "127.0.0.1", true, true
	if opts.Port == 0 {
		opts.Port = server.RANDOM_PORT
	}
	s, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	deadline := time.Now().Add(10 * time.Second)
	for s.Addr() == nil { // it can't be asked whether it is ready where it wants TLS first
		if time.Now().After(deadline) {
			t.Fatal("the nats-server does not listen")
		}
		time.Sleep(time.Millisecond)
	}
	stop = func() {
		s.Shutdown()
		s.WaitForShutdown()
	}
	t.Cleanup(stop)
	return fmt.Sprintf("nats://127.0.0.1:%d", s.Addr().(*net.TCPAddr).Port), stop
}

func port(t *testing.T, raw string) int {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	p, err := net.LookupPort("tcp", u.Port())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A mount is a directory whose files are swapped all at once, as Kubernetes does it: they are links
// through a link.
type mount struct {
	t   *testing.T
	dir string
	n   int
}

func newMount(t *testing.T) *mount { return &mount{t: t, dir: t.TempDir()} }

func (m *mount) path(name string) string { return filepath.Join(m.dir, name) }

func (m *mount) swap(files map[string]string) {
	m.t.Helper()
	m.n++
	check := func(err error) {
		m.t.Helper()
		if err != nil {
			m.t.Fatal(err)
		}
	}
	version := fmt.Sprintf("..%d", m.n)
	check(os.Mkdir(m.path(version), 0o700))
	for name, content := range files {
		check(os.WriteFile(filepath.Join(m.dir, version, name), []byte(content), 0o600))
		if m.n == 1 {
			check(os.Symlink(filepath.Join("..data", name), m.path(name)))
		}
	}
	check(os.Symlink(version, m.path("..next")))
	check(os.Rename(m.path("..next"), m.path("..data")))
	if m.n > 1 {
		check(os.RemoveAll(m.path(fmt.Sprintf("..%d", m.n-1))))
	}
}

func (m *mount) read(name string) func() (string, error) {
	return func() (string, error) {
		b, err := os.ReadFile(m.path(name))
		return string(b), err
	}
}

// quickly are options of a connection that comes back quickly.
var quickly = []nats.Option{
	nats.MaxReconnects(-1), nats.ReconnectWait(20 * time.Millisecond), nats.ReconnectJitter(0, 0),
	nats.IgnoreAuthErrorAbort(),
	nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}),
}

func connect(t *testing.T, s *natsdial.Servers, opts ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := s.Connect(t.Context(), append(quickly, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// works waits until the connection is there and answers.
func works(t *testing.T, nc *nats.Conn, what string) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !nc.IsConnected() || nc.FlushTimeout(time.Second) != nil {
		if time.Now().After(deadline) {
			t.Fatalf("no connection after %s: %v", what, nc.LastError())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// lost waits until the connection is not there.
func lost(t *testing.T, nc *nats.Conn) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for nc.IsConnected() {
		if time.Now().After(deadline) {
			t.Fatal("the connection is still there")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func user(t *testing.T) (seed, public string) {
	t.Helper()
	kp, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	s, _ := kp.Seed()
	p, _ := kp.PublicKey()
	return string(s), p
}

// A seed that was rotated is another user: it signs in with the next connection.
func TestNKeyRotates(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	oldSeed, oldUser := user(t)
	newSeed, newUser := user(t)
	m.swap(map[string]string{"seed": oldSeed + "\n"})
	at, stop := run(t, &server.Options{Nkeys: []*server.NkeyUser{{Nkey: oldUser}}})
	s := natsdial.At(at)
	s.NKeyFile = m.path("seed")
	nc := connect(t, s)
	stop()
	lost(t, nc)
	run(t, &server.Options{Port: port(t, at), Nkeys: []*server.NkeyUser{{Nkey: newUser}}})
	m.swap(map[string]string{"seed": newSeed})
	works(t, nc, "the seed was rotated")
}

// Both halves of a creds file are read again: the JWT and the seed. The new user is of another
// account of the same operator's.
func TestCredsRotate(t *testing.T) {
	t.Parallel()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	key := func(create func() (nkeys.KeyPair, error)) (nkeys.KeyPair, string) {
		t.Helper()
		kp, err := create()
		check(err)
		public, err := kp.PublicKey()
		check(err)
		return kp, public
	}
	operator, operatorID := key(nkeys.CreateOperator)
	// A server that knows one account only, and the creds of a user of that.
	world := func() (*server.Options, string) {
		account, accountID := key(nkeys.CreateAccount)
		claims, err := jwt.NewAccountClaims(accountID).Encode(operator)
		check(err)
		resolver := &server.MemAccResolver{}
		check(resolver.Store(accountID, claims))
		u, userID := key(nkeys.CreateUser)
		token, err := jwt.NewUserClaims(userID).Encode(account)
		check(err)
		seed, err := u.Seed()
		check(err)
		creds, err := jwt.FormatUserConfig(token, seed)
		check(err)
		return &server.Options{TrustedKeys: []string{operatorID}, AccountResolver: resolver},
			string(creds)
	}
	m := newMount(t)
	before, oldCreds := world()
	after, newCreds := world()
	m.swap(map[string]string{"creds": oldCreds})
	at, stop := run(t, before)
	s := natsdial.At(at)
	s.CredsFile = m.path("creds")
	nc := connect(t, s)
	stop()
	lost(t, nc)
	after.Port = port(t, at)
	run(t, after)
	m.swap(map[string]string{"creds": newCreds})
	works(t, nc, "the creds were rotated")
}

// Servers, and the password in their URL, are read again: also where the same server wants another
// password now.
func TestURLsChange(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	with := func(raw, user string) string { return strings.Replace(raw, "://", "://"+user+"@", 1) }
	at, stop := run(t, &server.Options{Username: "u", Password: "old"})
	m.swap(map[string]string{"urls": with(at, "u:old")})
	nc := connect(t, &natsdial.Servers{URLs: m.read("urls")})

	stop()
	_, stop = run(t, &server.Options{Port: port(t, at), Username: "u", Password: "new"})
	m.swap(map[string]string{"urls": with(at, "u:new")})
	works(t, nc, "the password was changed")

	other, _ := run(t, &server.Options{Username: "u", Password: "other"})
	stop()
	m.swap(map[string]string{"urls": with(at, "u:new") + ", " + with(other, "u:other")})
	works(t, nc, "a server was added")
	port := other[strings.LastIndex(other, ":"):]
	if got := nc.ConnectedUrlRedacted(); !strings.HasSuffix(got, port) {
		t.Errorf("connected to %s, want %s", got, other)
	}
}

// An authority makes certificates for 127.0.0.1.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t}
	_, a.pem, _ = a.issue(func(c *x509.Certificate) {
		c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign
	})
	return a
}

func (a *authority) issue(
	changes ...func(*x509.Certificate),
) (pair tls.Certificate, cert, key string) {
	a.t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	c := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "test"}, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	for _, change := range changes {
		change(c)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, k
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &k.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	if a.cert == nil {
		if a.cert, err = x509.ParseCertificate(der); err != nil {
			a.t.Fatal(err)
		}
		a.key = k
	}
	pkcs8, _ := x509.MarshalPKCS8PrivateKey(k)
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	if pair, err = tls.X509KeyPair(certPEM, keyPEM); err != nil {
		a.t.Fatal(err)
	}
	return pair, string(certPEM), string(keyPEM)
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// secure are options of a server with a certificate of the authority's, which changes may alter.
func (a *authority) secure(changes ...func(*server.Options)) *server.Options {
	pair, _, _ := a.issue()
	o := &server.Options{TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}},
		TLSTimeout: 1}
	for _, change := range changes {
		change(o)
	}
	return o
}

// The CA, and the client's own certificate, are read again at each connection.
func TestCertificatesRotate(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	mutual := func(o *server.Options, a *authority) *server.Options {
		o.TLSConfig.ClientAuth, o.TLSConfig.ClientCAs = tls.RequireAndVerifyClientCert, a.pool()
		return o
	}
	files := func(a *authority) map[string]string {
		_, cert, key := a.issue()
		return map[string]string{"ca": a.pem, "cert": cert, "key": key}
	}
	before, after := newAuthority(t), newAuthority(t)
	m.swap(files(before))
	at, stop := run(t, mutual(before.secure(), before))
	s := natsdial.At(at)
	s.CAFile, s.CertFile, s.KeyFile = m.path("ca"), m.path("cert"), m.path("key")
	nc := connect(t, s)
	stop()
	run(t, mutual(after.secure(func(o *server.Options) { o.Port = port(t, at) }), after))
	m.swap(files(after))
	works(t, nc, "CA and certificates were changed")
}

// A server that takes nothing but TLS, and says nothing before, is reached, again as well, by
// either kind of URL.
func TestHandshakeFirst(t *testing.T) {
	t.Parallel()
	a, m := newAuthority(t), newMount(t)
	m.swap(map[string]string{"ca": a.pem})
	first := func(o *server.Options) { o.TLSHandshakeFirst = true }
	for _, scheme := range []string{"nats://", "tls://"} {
		at, stop := run(t, a.secure(first))
		s := natsdial.At(strings.Replace(at, "nats://", scheme, 1))
		s.CAFile = m.path("ca")
		nc := connect(t, s)
		works(t, nc, "it was connected")
		stop()
		lost(t, nc)
		run(t, a.secure(first, func(o *server.Options) { o.Port = port(t, at) }))
		works(t, nc, "the server came back")
	}
}

// Whether a server wants TLS first may be changed while it is away, both ways and for each server
// by itself: the connection comes back.
func TestHandshakeFirstIsSwitched(t *testing.T) {
	t.Parallel()
	a, m := newAuthority(t), newMount(t)
	m.swap(map[string]string{"ca": a.pem})
	first := func(o *server.Options) { o.TLSHandshakeFirst = true }
	for _, scheme := range []string{"nats://", "tls://"} {
		at, stop := run(t, a.secure())
		again := func(o *server.Options) { o.Port = port(t, at) }
		s := natsdial.At(strings.Replace(at, "nats://", scheme, 1))
		s.CAFile = m.path("ca")
		nc := connect(t, s)
		for _, on := range []bool{true, false, true} {
			stop()
			lost(t, nc)
			opts := a.secure(again)
			if on {
				opts = a.secure(again, first)
			}
			_, stop = run(t, opts)
			works(t, nc, fmt.Sprintf("handshake_first was set to %t", on))
		}

		// Another server, which wants it the other way.
		stop()
		lost(t, nc)
		other, stopOther := run(t, a.secure())
		if err := nc.SetServerPool([]string{at, other}); err != nil {
			t.Fatal(err)
		}
		works(t, nc, "another server was there")
		run(t, a.secure(again, first))
		stopOther()
		works(t, nc, "the first server came back and the other one left")
	}
}

// What keeps TLS from coming about is told in words that say what to do.
func TestWords(t *testing.T) {
	t.Parallel()
	a, m := newAuthority(t), newMount(t)
	m.swap(map[string]string{"ca": a.pem})
	stranger := newAuthority(t)
	expired, _, _ := a.issue(func(c *x509.Certificate) {
		c.NotAfter = time.Now().Add(-time.Minute)
	})
	elsewhere, _, _ := a.issue(func(c *x509.Certificate) {
		c.IPAddresses, c.DNSNames = nil, []string{"nats.example.com"}
	})
	cert := func(pair tls.Certificate) func(*server.Options) {
		return func(o *server.Options) { o.TLSConfig.Certificates = []tls.Certificate{pair} }
	}
	for name, c := range map[string]struct {
		opts *server.Options
		want string
	}{
		"old ciphers only": {a.secure(func(o *server.Options) {
			o.TLSConfig.MaxVersion = tls.VersionTLS12
			o.TLSConfig.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_RC4_128_SHA}
		}), "offers nothing that is safe enough"},
		"old protocols only": {a.secure(func(o *server.Options) {
			o.TLSConfig.MinVersion, o.TLSConfig.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
		}),
			"has to offer TLS 1.2 at least"},
		"a client certificate is wanted": {a.secure(func(o *server.Options) {
			o.TLSConfig.ClientAuth, o.TLSConfig.ClientCAs = tls.RequireAndVerifyClientCert, a.pool()
		}), "CertFile"},
		"a client certificate is wanted, TLS 1.2": {a.secure(func(o *server.Options) {
			o.TLSConfig.ClientAuth, o.TLSConfig.ClientCAs = tls.RequireAndVerifyClientCert, a.pool()
			o.TLSConfig.MaxVersion = tls.VersionTLS12
		}), "CertFile"},
		"another CA": {stranger.secure(), "CAFile has to hold the CA"},
		"expired":    {a.secure(cert(expired)), "needs a new certificate"},
		"another name": {a.secure(cert(elsewhere)),
			"has to name the server as its certificate does"},
		"no TLS": {&server.Options{}, "the server has no TLS"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at, _ := run(t, c.opts)
			s := natsdial.At(at)
			s.CAFile = m.path("ca")
			nc, err := s.Connect(t.Context(), quickly...)
			if err == nil {
				nc.Close()
				t.Fatal("it has connected")
			}
			if told := natsdial.Advise(err).Error(); !strings.Contains(told, c.want) {
				t.Errorf("it says %q, want %q in it", told, c.want)
			}
		})
	}
}

// What takes connections and is not a NATS server is named as that.
func TestNoServer(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		do   func(net.Conn)
		want string
	}{
		"hangs up": {func(c net.Conn) { _ = c.Close() }, "closed it without a word"},
		"silent":   {func(net.Conn) {}, "said nothing"},
		"http": {func(c net.Conn) { fmt.Fprint(c, "HTTP/1.1 400 Bad Request\r\n\r\n") },
			"nats: "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			go func() {
				var conns []net.Conn // one that nobody holds is closed
				for {
					conn, err := ln.Accept()
					if err != nil {
						_ = conns
						return
					}
					conns = append(conns, conn)
					c.do(conn)
				}
			}()
			_, err = natsdial.At("nats://"+ln.Addr().String()).Connect(t.Context(), quickly...)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("it says %v, want %q in it", err, c.want)
			}
		})
	}
}

// Several silent servers are named as one is.
func TestSilentServers(t *testing.T) {
	t.Parallel()
	var urls []string
	for range 3 {
		ln, err := net.Listen("tcp", "127.0.0.1:0") // whose connections nobody accepts
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		urls = append(urls, "nats://"+ln.Addr().String())
	}
	_, err := natsdial.At(strings.Join(urls, ",")).Connect(t.Context(), quickly...)
	if err == nil || !strings.Contains(err.Error(), "said nothing") {
		t.Errorf("it says %v", err)
	}
}

// ws:// at a port that is none of a WebSocket server's is told in plain words, which stay the same,
// at first and when the client reconnects. What the server sent is not in them.
func TestNoWebSocket(t *testing.T) {
	t.Parallel()
	a, m := newAuthority(t), newMount(t)
	m.swap(map[string]string{"ca": a.pem})
	page := func(answer string) func(t *testing.T) string {
		return func(t *testing.T) string {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = ln.Close() })
			go func() {
				for {
					conn, err := ln.Accept()
					if err != nil {
						return
					}
					_, _ = http.ReadRequest(bufio.NewReader(conn))
					_, _ = io.WriteString(conn, answer)
					_ = conn.Close()
				}
			}()
			return "ws://" + ln.Addr().String()
		}
	}
	real := func(opts *server.Options, scheme string) func(t *testing.T) string {
		return func(t *testing.T) string {
			at, _ := run(t, opts)
			return strings.Replace(at, "nats://", scheme, 1)
		}
	}
	for name, start := range map[string]func(t *testing.T) string{
		"NATS": real(&server.Options{ServerName: "server_bytes"}, "ws://"),
		"NATS TLS": real(a.secure(func(o *server.Options) { o.TLSHandshakeFirst = true }),
			"wss://"),
		"a page":   page("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nserver_bytes"),
		"a header": page("HTTP/1.1 200 OK\r\nserver_bytes\r\n\r\n"),
		"TLS":      page("\x15\x03\x01\x00\x02\x02\x46\n"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := natsdial.At(start(t))
			if strings.Contains(name, "NATS TLS") {
				s.CAFile = m.path("ca")
			}
			for range 2 {
				_, err := s.Connect(t.Context(), quickly...)
				if err == nil || !strings.Contains(err.Error(), "is not a WebSocket server") ||
					strings.Contains(err.Error(), "server_bytes") {
					t.Fatalf("it says %v", err)
				}
				if told := natsdial.Advise(err).Error(); !strings.Contains(told, "URLs") {
					t.Errorf("it says %q", told)
				}
			}
		})
	}
	raw := errors.New(`malformed HTTP status code "{\"server_bytes\":1}"`) // as it comes later
	if told := natsdial.Advise(raw).Error(); strings.Contains(told, "server_bytes") {
		t.Errorf("it says %q", told)
	}
}

// far is the address of a server as it is seen from far away: what it says takes its time.
func far(t *testing.T, server string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer near.Close()
				time.Sleep(500 * time.Millisecond)
				to, err := net.Dial("tcp", strings.TrimPrefix(server, "nats://"))
				if err != nil {
					return
				}
				defer to.Close()
				go func() {
					_, _ = io.Copy(to, near)
					_ = to.Close()
				}()
				_, _ = io.Copy(near, to)
			}()
		}
	}()
	return "nats://" + ln.Addr().String()
}

// Servers that are far away are reached, at first and again, however many there are: none is given
// up before it can have answered.
func TestFarAway(t *testing.T) {
	t.Parallel()
	at, stop := run(t, &server.Options{})
	var urls []string
	for range 6 {
		urls = append(urls, far(t, at))
	}
	nc := connect(t, natsdial.At(strings.Join(urls, ",")), nats.ReconnectWait(750*time.Millisecond),
		nats.IgnoreDiscoveredServers())
	works(t, nc, "it was connected")
	stop()
	lost(t, nc)
	run(t, &server.Options{Port: port(t, at)})
	works(t, nc, "the server came back")
}

// Connecting ends with its context.
func TestConnectEnds(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	_, err = natsdial.At("nats://"+ln.Addr().String()).Connect(ctx, quickly...)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("it ends with %v", err)
	}
}
