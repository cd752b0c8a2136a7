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

// proxied refuses a proxy's refusal, whose words might be the proxy's credentials.
func proxied(_ context.Context, _ *url.URL, r *http.Request, resp *http.Response) error {
	return ProxyRefusal(resp.StatusCode, r.Host)
}

// ProxyRefusal is the error of a proxy that answered with that status when it was to connect to
// target, host:port; nil for 200.
func ProxyRefusal(status int, target string) error {
	name := proxyVariable()
	switch status {
	case http.StatusOK:
		return nil
	case http.StatusProxyAuthRequired:
		return fmt.Errorf("the proxy (%s) refused the connection: HTTP %d; it wants a user and a password, "+
			"or others: put them into %s, as http://user:password@host:port", name, status, name)
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return fmt.Errorf("the proxy (%s) can't connect to %s: HTTP %d; is ROLLCALL_ISDP_URL right?",
			name, target, status)
	default:
		return fmt.Errorf("the proxy (%s) refused the connection: HTTP %d; does it let this machine reach %s?",
			name, status, target)
	}
}

// proxyHint says what to look at when the proxy can't be reached; "" where err is about something
// else.
func proxyHint(err error) string {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "proxyconnect" {
		return ""
	}
	var dns *net.DNSError
	name := proxyVariable()
	switch err := op.Err; {
	case errors.As(err, &dns) && dns.IsNotFound:
		return "there is no such domain; is the proxy in " + name + " right?"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "no proxy listens there; does the one in " + name + " run, and is its port right?"
	default:
		return "that is about the proxy; is " + name + " right, and does its proxy work?"
	}
}
