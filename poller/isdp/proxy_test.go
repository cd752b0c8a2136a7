package isdp

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"github.com/rollcall-events/rollcall/internal/test/sweeptest"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-events/rollcall/internal/setting"
	"github.com/rollcall-events/rollcall/internal/test/isdpsim"

	"github.com/rollcall-events/rollcall/internal/listing"
)

func TestProxyEnvironment(t *testing.T) {
	const secret = "prxy-s3cret"
	for _, tc := range []struct {
		target, proxy, no string
		want              string // "error": unusable
	}{
		{"https://isdp.example", "", "", ""},
		{"https://isdp.example", "http://proxy:3128", "", "http://proxy:3128"},
		{"https://isdp.example", "proxy:3128", "", "http://proxy:3128"},
		{"https://isdp.example", "proxy", "", "http://proxy"},
		{"https://isdp.example", "http://u:" + secret + "@proxy:3128/", "",
			"http://u:" + secret + "@proxy:3128"},
		{"https://isdp.example", "u:" + secret + "@proxy:3128", "",
			"http://u:" + secret + "@proxy:3128"},
		{"https://isdp.example", "https://proxy", "", "https://proxy"},
		{"https://isdp.example", "socks5://proxy:1080", "", "socks5://proxy:1080"},
		{"https://isdp.example", "http://[::1]:3128", "", "http://[::1]:3128"},
		{"https://isdp.example", "http://proxy", "isdp.example", ""},
		{"https://isdp.example", "http://proxy", "*", ""},
		{"https://127.0.0.1", "http://proxy", "", ""},
		{"http://127.0.0.1", ":::", "", ""},
		{"https://isdp.example", ":::", "", "error"},
		{"https://isdp.example", "http://u:" + secret + "@[::", "", "error"},
		{"https://isdp.example", "http://u:" + secret + "%zz@proxy", "", "error"},
		{"https://isdp.example", "http://proxy:0", "", "error"},
		{"https://isdp.example", "http://proxy:99999", "", "error"},
		{"https://isdp.example", "http://proxy:" + secret, "", "error"},
		{"https://isdp.example", "http://:3128", "", "error"},
		{"https://isdp.example", "ftp://" + secret + "@proxy", "", "error"},
		{"https://isdp.example", "http//proxy:3128 ", "", "error"},
		{"https://isdp.example", "http://", "", "error"},
		{"https://isdp.example", " ", "", "error"},
		{"https://isdp.example", ":::", "isdp.example", ""}, // not used, so not a word
		{"https://127.0.0.1", ":::", "", ""},
	} {
		for _, name := range []string{"HTTPS_PROXY", "https_proxy"} {
			t.Run(name+" "+tc.proxy+" "+tc.no, func(t *testing.T) {
				for _, n := range []string{"HTTPS_PROXY", "https_proxy", "no_proxy"} {
					t.Setenv(n, "")
				}
				t.Setenv(name, tc.proxy)
				t.Setenv("NO_PROXY", tc.no)
				target, err := url.Parse(tc.target)
				if err != nil {
					t.Fatal(err)
				}
				u, err := Proxy(target)
				if tc.want != "error" {
					if got := fmt.Sprint(u); err != nil || tc.want == "" && u != nil ||
						tc.want != "" && got != tc.want {
						t.Errorf("%v, %v, want %q", u, err, tc.want)
					}
					return
				}
				var unusable *setting.Error
				if !errors.As(err, &unusable) || unusable.Field != name ||
					strings.Contains(err.Error(), secret) {
					t.Errorf("%v, %v", u, err)
				}
				if _, err := New(config(tc.target).Config); !errors.As(err, &unusable) {
					t.Errorf("a poller with it: %v", err)
				}
			})
		}
	}
}

// A proxy that is in the way is called the proxy, and what it says in refusing is not repeated: it
// may be its own credentials.
func TestProxyWords(t *testing.T) {
	const secret = "prxy-s3cret"
	ca := newAuthority(t)
	cert, key := ca.make(t, &x509.Certificate{DNSNames: []string{"isdp.invalid"}})
	sim := isdpsim.New(isdpsim.Config{Agents: sweeptest.SmallTenant})
	vendor := secure(
		t,
		sim,
		&tls.Config{
			Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}},
		},
	)
	proxy := func(answer string) string {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			if answer != "" {
				_, _ = io.WriteString(conn, answer)
				return
			}
			server, err := net.Dial("tcp", vendor.Listener.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			defer server.Close()
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
			go func() { _, _ = io.Copy(conn, server) }()
			_, _ = io.Copy(server, conn)
		}))
		t.Cleanup(srv.Close)
		return strings.Replace(srv.URL, "http://", "http://someone:"+secret+"@", 1)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	working := proxy("")
	for _, tc := range []struct {
		name, proxy string
		words       []string
	}{
		{"wants a password",
			proxy("HTTP/1.1 407 denied: " + secret + "\r\nContent-Length: 0\r\n\r\n"),
			[]string{"HTTP 407", "HTTPS_PROXY", "user:password@"}},
		{"refuses", proxy("HTTP/1.1 403 " + secret + "\r\nContent-Length: 0\r\n\r\n"),
			[]string{"HTTP 403", "HTTPS_PROXY", "isdp.invalid:443"}},
		{"can't reach the vendor",
			proxy("HTTP/1.1 502 " + secret + "\r\nContent-Length: 0\r\n\r\n"),
			[]string{"the proxy", "can't connect to isdp.invalid:443"}},
		{"switches protocols",
			proxy("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"),
			[]string{"HTTPS_PROXY", "HTTP 101"}},
		{"is down", "http://someone:" + secret + "@127.0.0.1:1",
			[]string{"connection refused", "no proxy listens there", "HTTPS_PROXY"}},
		{"has no address", "http://someone:" + secret + "@proxy.invalid",
			[]string{"proxy.invalid", "HTTPS_PROXY"}},
		{"speaks no TLS", strings.Replace(working, "http://", "https://", 1),
			[]string{"HTTPS_PROXY"}},
		{"says nothing", "http://someone:" + secret + "@" + silent.Addr().String(),
			[]string{"within 500ms through the proxy (HTTPS_PROXY)"}},
		{"down, a SOCKS one", "socks5://someone:" + secret + "@127.0.0.1:1",
			[]string{"no proxy listens there", "HTTPS_PROXY"}},
		{"works", working, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Setenv("HTTPS_PROXY", tc.proxy)
			for _, n := range []string{"https_proxy", "NO_PROXY", "no_proxy"} {
				t.Setenv(n, "")
			}
			p := towards(t, "https://isdp.invalid", func(c *settings) {
				c.RootCAs = func() (*x509.CertPool, error) { return ca.pool(), nil }
				c.RequestTimeout = 10 * time.Second
				if tc.name == "says nothing" {
					c.RequestTimeout = 500 * time.Millisecond
				}
			})
			_, _, err := p.tokens.once(t.Context())
			if tc.words == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			sweeptest.WantClass(t, err, listing.Unreachable, tc.words...)
			if text := err.Error(); strings.Contains(text, secret) ||
				tc.name != "can't reach the vendor" && strings.Contains(text, "ROLLCALL_ISDP_URL") {
				t.Error(text)
			}
		})
	}
}
