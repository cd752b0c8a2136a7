package isdp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/net/http/httpproxy"

	"github.com/rollcall-events/rollcall/internal/setting"
)

// Proxy returns the proxy that the environment has for requests to target (HTTPS_PROXY and
// NO_PROXY, in capitals or not); nil: none. Requests over plain http, which only go to this
// machine, have none. A proxy that can't be used is a [*setting.Error], without its value, which
// may hold a password.
func Proxy(target *url.URL) (*url.URL, error) {
	env := httpproxy.FromEnvironment()
	if target.Scheme != "https" || env.HTTPSProxy == "" {
		return nil, nil
	}
	raw := env.HTTPSProxy
	env.HTTPSProxy = "http://proxy.invalid" // what the package can't parse it leaves out silently
	if u, err := env.ProxyFunc()(target); u == nil || err != nil {
		return nil, err // NO_PROXY
	}
	if !strings.Contains(raw, "://") {
		raw = "http://" + raw
	}
	u, err := url.Parse(raw)
	if err != nil || !slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme) ||
		u.Hostname() == "" || !portOK(u.Port()) ||
		u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return nil, &setting.Error{Field: proxyVariable(), Want: "a proxy as http://host:port or " +
			"http://user:password@host:port (http, https, socks5 or socks5h), or not to be set, " +
			"or the vendor's domain in NO_PROXY"}
	}
	u.Path = ""
	return u, nil
}

// portOK reports whether a URL's port is one; none is the scheme's.
func portOK(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return port == "" || err == nil && n > 0
}

// proxyVariable is the name of the variable that names the proxy.
func proxyVariable() string {
	if os.Getenv("https_proxy") != "" {
		return "https_proxy"
	}
	return "HTTPS_PROXY"
}

// A proxyError is a proxy's refusal, and what to look at. Its words might be the proxy's
// credentials, so they are left out.
type proxyError struct{ text, hint string }

func (e *proxyError) Error() string { return e.text }

// proxied refuses what a proxy answers when it was asked to connect, but for 200.
func proxied(_ context.Context, _ *url.URL, r *http.Request, resp *http.Response) error {
	name, status := proxyVariable(), resp.StatusCode
	refused := fmt.Sprintf("the proxy (%s) refused the connection: HTTP %d", name, status)
	switch status {
	case http.StatusOK:
		return nil
	case http.StatusProxyAuthRequired:
		return &proxyError{refused, "it wants a user and a password, or others: put them into " +
			name + ", as http://user:password@host:port"}
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		away := fmt.Sprintf("the proxy (%s) can't connect to %s: HTTP %d", name, r.Host, status)
		return &proxyError{away, checkURL}
	}
	return &proxyError{refused, "does it let this machine reach " + r.Host + "?"}
}

// proxyHint says why the proxy can't be used, and what to look at; nothing where err is about
// something else.
func proxyHint(err error) (why, hint string) {
	var refusal *proxyError
	var op *net.OpError
	var dns *net.DNSError
	name := proxyVariable()
	switch {
	case errors.As(err, &refusal):
		return "", refusal.hint
	case !errors.As(err, &op) || op.Op != "proxyconnect":
		return "", ""
	case errors.As(op.Err, &dns) && dns.IsNotFound:
		return "there is no such domain", "is the proxy in " + name + " right?"
	case errors.Is(op.Err, syscall.ECONNREFUSED):
		return "no proxy listens there", "does the one in " + name + " run, and is its port right?"
	}
	return "that is about the proxy", "is " + name + " right, and does its proxy work?"
}
