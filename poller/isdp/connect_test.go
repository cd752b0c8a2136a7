package isdp

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"github.com/rollcall-events/rollcall/internal/test/sweeptest"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rollcall-events/rollcall/internal/test/isdpsim"

	"github.com/rollcall-events/rollcall/internal/listing"
	"github.com/rollcall-events/rollcall/internal/test/wait"
)

// An authority makes certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{}
	a.cert, a.key = a.make(
		t,
		&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign},
	)
	return a
}

func (a *authority) make(t *testing.T, c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c.SerialNumber, c.Subject = big.NewInt(
		time.Now().UnixNano(),
	), pkix.Name{
		CommonName: "rollcall test",
	}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return c, key
}

// server is a certificate for 127.0.0.1.
func (a *authority) server(t *testing.T) tls.Certificate {
	t.Helper()
	cert, key := a.make(
		t,
		&x509.Certificate{
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		},
	)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// secure serves a vendor over TLS as the configuration has it, and returns the server, which ends
// with the test.
func secure(t *testing.T, vendor http.Handler, c *tls.Config) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(vendor)
	srv.TLS, srv.EnableHTTP2 = c, true
	srv.Config.ErrorLog = quiet
	srv.StartTLS()
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	return srv
}

// towards returns a poller of the vendor at url.
func towards(t *testing.T, url string, change func(*settings)) *rig {
	t.Helper()
	c := config(url)
	c.RateLimit, c.PageSize = 1000, sweeptest.SmallPage
	p := newRig(t, c, change)
	t.Cleanup(p.caller.http.(*connections).CloseIdleConnections)
	return p
}

// A relay passes connections on to a server until they are frozen: then it goes on taking what
// comes, and passes on nothing. New connections are passed on.
type relay struct {
	net.Listener
	to     string
	opened atomic.Int64
	closed atomic.Int64 // by the client

	mu      sync.Mutex
	frozen  []*atomic.Bool
	clients []net.Conn
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{Listener: ln, to: to}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { r.pass(c) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		r.mu.Lock()
		for _, c := range r.clients {
			c.Close()
		}
		r.mu.Unlock()
		wg.Wait()
	})
	return r
}

func (r *relay) pass(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", r.to)
	if err != nil {
		return
	}
	defer server.Close()
	r.opened.Add(1)
	frozen := &atomic.Bool{}
	r.mu.Lock()
	r.frozen, r.clients = append(r.frozen, frozen), append(r.clients, client)
	r.mu.Unlock()
	go func() { _, _ = io.Copy(gate{client, frozen}, server) }()
	_, _ = io.Copy(gate{server, frozen}, client)
	r.closed.Add(1)
}

func (r *relay) freeze() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.frozen {
		f.Store(true)
	}
}

// A gate swallows what is written to it while it is frozen.
type gate struct {
	net.Conn
	frozen *atomic.Bool
}

func (g gate) Write(b []byte) (int, error) {
	if g.frozen.Load() {
		return len(b), nil
	}
	return g.Conn.Write(b)
}

// shortPings shortens the times that HTTP/2 connections have to show that they live, where they are
// asked at all.
func shortPings(t *testing.T, p *rig, d time.Duration) {
	conns := p.caller.http.(*connections)
	open := conns.open
	conns.open = func(roots *x509.CertPool) *http.Transport {
		tr := open(roots)
		if tr.HTTP2 == nil || tr.HTTP2.SendPingTimeout == 0 || tr.HTTP2.PingTimeout == 0 {
			t.Error("connections are not asked whether they live")
			return tr
		}
		tr.HTTP2.SendPingTimeout, tr.HTTP2.PingTimeout = d, d
		return tr
	}
}

// protocols are those that the vendor may speak.
var protocols = map[string][]string{"HTTP/2": {"h2", "http/1.1"}, "HTTP/1.1": {"http/1.1"}}

// A connection that dies without a word costs the requests that are on it, and no other.
func TestConnectionDiesSilently(t *testing.T) {
	ca := newAuthority(t)
	for name, offered := range protocols {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sim := isdpsim.New(isdpsim.Config{Agents: sweeptest.SmallTenant})
			srv := secure(
				t,
				sim,
				&tls.Config{Certificates: []tls.Certificate{ca.server(t)}, NextProtos: offered},
			)
			relay := newRelay(t, srv.Listener.Addr().String())
			p := towards(t, "https://"+relay.Addr().String(), func(c *settings) {
				c.RequestTimeout = time.Second
				c.RootCAs = func() (*x509.CertPool, error) { return ca.pool(), nil }
			})
			for range 3 {
				v, pages := sweeptest.Once(t, p)
				sweeptest.WantAll(t, sim, v, pages)
				opened := relay.opened.Load()
				if name == "HTTP/2" && opened != 1 && sim.Stats().Requests < 10 {
					t.Errorf("%d connections, want one", opened)
				}
				relay.freeze()
				start := time.Now()
				v, pages = sweeptest.Once(t, p)
				sweeptest.WantAll(t, sim, v, pages)
				t.Logf("a sweep over a dead connection took %v", time.Since(start))
				if relay.opened.Load() == opened {
					t.Error("no new connection")
				}
			}
		})
	}
}

// One that dies while nothing is asked is found out, and given up.
func TestIdleConnectionDies(t *testing.T) {
	ca := newAuthority(t)
	sim := isdpsim.New(isdpsim.Config{Agents: sweeptest.SmallTenant})
	srv := secure(t, sim, &tls.Config{Certificates: []tls.Certificate{ca.server(t)}})
	relay := newRelay(t, srv.Listener.Addr().String())
	p := towards(t, "https://"+relay.Addr().String(), func(c *settings) {
		c.RootCAs = func() (*x509.CertPool, error) { return ca.pool(), nil }
	})
	shortPings(t, p, 20*time.Millisecond)
	v, pages := sweeptest.Once(t, p)
	sweeptest.WantAll(t, sim, v, pages)
	relay.freeze()
	wait.Eventually(
		t,
		"the connection to be given up",
		func() bool { return relay.closed.Load() == relay.opened.Load() },
	)
}

// However well a connection does, it is used for a few minutes only: the vendor's address may have
// changed.
func TestConnectionsAge(t *testing.T) {
	ca := newAuthority(t)
	for name, offered := range protocols {
		t.Run(name, func(t *testing.T) {
			var sims []*isdpsim.Tenant
			var addresses []string
			for range 2 {
				sim := isdpsim.New(isdpsim.Config{Agents: sweeptest.SmallTenant})
				srv := secure(
					t,
					sim,
					&tls.Config{Certificates: []tls.Certificate{ca.server(t)}, NextProtos: offered},
				)
				relay := newRelay(t, srv.Listener.Addr().String())
				sims, addresses = append(sims, sim), append(addresses, relay.Addr().String())
			}
			var now atomic.Int64 // which address the domain has
			p := towards(t, "https://127.0.0.1:443", func(c *settings) {
				c.Concurrency = 1
				c.RootCAs = func() (*x509.CertPool, error) { return ca.pool(), nil }
			})
			conns := p.caller.http.(*connections)
			open := conns.open
			conns.open = func(roots *x509.CertPool) *http.Transport {
				tr := open(roots)
				tr.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
					return (&net.Dialer{}).DialContext(ctx, network, addresses[now.Load()])
				}
				return tr
			}
			v, pages := sweeptest.Once(t, p)
			sweeptest.WantAll(t, sims[0], v, pages)
			now.Store(1)
			v, pages = sweeptest.Once(t, p)
			sweeptest.WantAll(t, sims[0], v, pages)
			if n := sims[1].Stats().Requests; n > 0 {
				t.Errorf("%d requests on a new connection", n)
			}
			conns.mu.Lock()
			conns.line.opened = conns.line.opened.Add(-lineAge)
			conns.mu.Unlock()
			before := sims[0].Stats().Requests
			// The second one does not know the token of the first.
			v, pages = sweeptest.Once(t, p)
			sweeptest.WantAll(t, sims[1], v, pages)
			if n := sims[0].Stats().Requests; n != before {
				t.Errorf("%d requests on an old connection", n-before)
			}
		})
	}
}

// A CA that was replaced is trusted, and one that was removed is not, without a restart.
func TestCAReplaced(t *testing.T) {
	old, renewed := newAuthority(t), newAuthority(t)
	var serves atomic.Pointer[tls.Certificate]
	use := func(a *authority) { c := a.server(t); serves.Store(&c) }
	use(old)
	sim := isdpsim.New(isdpsim.Config{Agents: sweeptest.SmallTenant})
	srv := secure(
		t,
		sim,
		&tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return &tls.Config{
				Certificates: []tls.Certificate{*serves.Load()},
				NextProtos:   []string{"h2"},
			}, nil
		}},
	)
	var file atomic.Pointer[authority]
	file.Store(old)
	p := towards(t, srv.URL, func(c *settings) {
		c.RootCAs = func() (*x509.CertPool, error) {
			a := file.Load()
			if a == nil {
				return nil, errors.New("read the CA file: no such file")
			}
			return a.pool(), nil
		}
	})
	works := func() {
		t.Helper()
		if _, _, err := p.tokens.once(t.Context()); err != nil {
			t.Error(err)
		}
	}
	fails := func(words string) {
		t.Helper()
		wait.Eventually(
			t,
			words,
			func() bool { // the connection that there was may first have to be found closed
				_, _, err := p.tokens.once(t.Context())
				return err != nil && err.Class == listing.Unreachable &&
					strings.Contains(err.Error(), words)
			},
		)
	}
	works()
	use(renewed)
	works() // on the connection that there is
	srv.CloseClientConnections()
	fails("ROLLCALL_ISDP_CA_FILE")
	file.Store(nil) // in the middle of being replaced
	fails("read the CA file: no such file")
	file.Store(renewed)
	works()

	file.Store(old)
	works()
	conns := p.caller.http.(*connections)
	conns.mu.Lock()
	conns.line.opened = conns.line.opened.Add(-lineAge)
	conns.mu.Unlock()
	fails("certificate")
}

// What keeps a connection from coming about is told in words.
func TestTLSWords(t *testing.T) {
	ca := newAuthority(t)
	for _, tc := range []struct {
		name  string
		tls   *tls.Config
		words string
	}{
		{"a certificate of the client demanded", &tls.Config{ClientAuth: tls.RequireAnyClientCert},
			"demands a certificate of the client"},
		{"the same, TLS 1.2", &tls.Config{ClientAuth: tls.RequireAnyClientCert,
			MaxVersion: tls.VersionTLS12}, "demands a certificate of the client"},
		{"the same, HTTP/1.1", &tls.Config{ClientAuth: tls.RequireAnyClientCert,
			NextProtos: []string{"http/1.1"}}, "demands a certificate of the client"},
		{"TLS 1.1", &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11},
			"TLS version"},
		{"TLS 1.0", &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10},
			"TLS version"},
		{"old ciphers",
			&tls.Config{MaxVersion: tls.VersionTLS12,
				CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA,
					tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA}}, "old ones only"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.tls.Certificates = []tls.Certificate{ca.server(t)}
			srv := secure(t, isdpsim.New(isdpsim.Config{}), tc.tls)
			for range 10 { // what a server says may be overtaken by its farewell
				p := towards(
					t,
					srv.URL,
					func(c *settings) {
						c.RootCAs = func() (*x509.CertPool,
							error) {
							return ca.pool(), nil
						}
					},
				)
				_, _, err := p.tokens.once(t.Context())
				sweeptest.WantClass(t, err, listing.Unreachable, tc.words)
			}
		})
	}
	t.Run("a certificate of the client asked for, and not demanded", func(t *testing.T) {
		sim := isdpsim.New(isdpsim.Config{Agents: sweeptest.SmallTenant})
		srv := secure(
			t,
			sim,
			&tls.Config{
				Certificates: []tls.Certificate{ca.server(t)},
				ClientAuth:   tls.RequestClientCert,
			},
		)
		v, pages := sweeptest.Once(
			t,
			towards(
				t,
				srv.URL,
				func(c *settings) {
					c.RootCAs = func() (*x509.CertPool, error) {
						return ca.pool(),
							nil
					}
				},
			),
		)
		sweeptest.WantAll(t, sim, v, pages)
	})
	// Servers that have worked around all of this say it in an answer.
	sim := isdpsim.New(isdpsim.Config{})
	sim.SetFault(
		isdpsim.OnToken(
			isdpsim.Answer(
				400,
				"text/html",
				"<html><title>400 No required SSL certificate was sent</title></html>",
			),
		),
	)
	_, _, err := served(t, sim, nil).tokens.once(t.Context())
	sweeptest.WantClass(t, err, listing.Credentials, "demands a certificate of the client")
}
