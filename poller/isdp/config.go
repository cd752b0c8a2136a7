package isdp

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rollcall-events/rollcall/internal/setting"
)

// MaxPageSize is the most agents that the vendor puts on one page.
const MaxPageSize = 50

// Config says where the vendor is, who asks, and how hard it may be asked. The zero value of a
// field with a default means that default.
type Config struct {
	// BaseURL is https://<isdp domain>, with a path in front of the vendor's own where a gateway
	// wants one. http is for loopback only; user info, a query and a fragment are not allowed.
	BaseURL string

	// The credentials of the token call, all required. None of them ever shows in an error or a
	// log.
	ClientID, ClientSecret, Username, Password string

	// Reread reads the credentials anew. It is asked when the vendor has refused those in use,
	// every few seconds at the most, and what it returns is used where it differs. Nil: they stay
	// the same.
	Reread func() (Account, error)

	// RootCAs reads the CAs to trust. It is asked when connections are made, and when the vendor's
	// certificate is not trusted. Nil: the system's.
	RootCAs func() (*x509.CertPool, error)

	Types          []int         // business types, one listing each; empty: one listing of all
	TenantID       int64         // whose agents these are; 0: as the token says
	RequestTimeout time.Duration // for one request and its answer, without waiting; default 10s
	PageSize       int           // agents a page, 1 to 50; default 50
	RateLimit      float64       // the most requests a second, token calls included; default 1

	// MaxRowBytes is the longest encoding (schemas.Agent.AppendJSON) of an agent that is accepted.
	// It is asked for every page, and may be called from any goroutine. Nil: 256 KiB.
	MaxRowBytes func() int

	// Logger gets what no return value says: refused credentials, and that the vendor wants fewer
	// requests. Nil: that is not logged.
	Logger *slog.Logger

	// Metrics is where the collectors are registered. They have no labels to tell clients apart:
	// one client a registerer. Nil: nowhere.
	Metrics prometheus.Registerer

	// Now stamps pages; it must be safe for concurrent use, and not jump during a sweep: pages are
	// compared by it. Timeouts, rates and token lives always go by the monotonic clock. Nil:
	// time.Now.
	Now func() time.Time

	// Transport sends the requests. Nil: over the network; anything else is for tests.
	Transport http.RoundTripper
}

// account is the one that the configuration begins with.
func (c Config) account() Account {
	return Account{c.ClientID, c.ClientSecret, c.Username, c.Password}
}

// Validate reports everything that is unusable, as a join of [*setting.Error]s.
func (c Config) Validate() error {
	var errs []error
	want := func(ok bool, field string, value any, what string) {
		if !ok {
			errs = append(errs, &setting.Error{Field: field, Value: fmt.Sprint(value), Want: what})
		}
	}
	if base, err := parseBase(c.BaseURL); err != nil {
		errs = append(errs, err)
	} else if _, err := Proxy(base); err != nil {
		errs = append(errs, err)
	}
	want(c.ClientID != "", "ClientID", "", "the client id of the OpenAPI account")
	want(c.ClientSecret != "", "ClientSecret", "", "the client secret of the OpenAPI account")
	want(c.Username != "", "Username", "", "the application id")
	want(c.Password != "", "Password", "", "the application token")
	types := slices.Sorted(slices.Values(c.Types))
	want(len(types) == 0 || types[0] >= 0 && len(slices.Compact(types)) == len(c.Types),
		"Types", strings.Trim(fmt.Sprint(c.Types), "[]"), "different numbers, none below zero")
	want(c.TenantID >= 0, "TenantID", c.TenantID,
		"a number above zero, or 0 for the token's tenant")
	want(c.RequestTimeout >= 0, "RequestTimeout", c.RequestTimeout, "a duration above zero")
	want(c.PageSize >= 0 && c.PageSize <= MaxPageSize, "PageSize", c.PageSize,
		"a number from 1 to 50")
	want(c.RateLimit >= 0 && !math.IsInf(c.RateLimit, 1), "RateLimit", c.RateLimit,
		"a number of requests a second above zero")
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	c.RequestTimeout = cmp.Or(c.RequestTimeout, 10*time.Second)
	c.PageSize = cmp.Or(c.PageSize, MaxPageSize)
	c.RateLimit = cmp.Or(c.RateLimit, 1)
	if c.MaxRowBytes == nil {
		c.MaxRowBytes = func() int { return 256 << 10 }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// parseBase reads a base URL. Its error never shows user info, a query, or what can't be told apart
// from them.
func parseBase(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || raw == "" || u.Opaque != "" || u.Hostname() == "" ||
		u.Scheme != "https" && u.Scheme != "http" {
		shown := raw
		if strings.ContainsAny(raw, "@?#") {
			shown = ""
		}
		return nil, &setting.Error{Field: "BaseURL", Value: shown,
			Want: "the ISDP+ domain as a URL, https://…"}
	}
	plain := &url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}
	fail := func(want string) (*url.URL, error) {
		return nil, &setting.Error{Field: "BaseURL", Value: plain.String(), Want: want}
	}
	switch {
	case u.User != nil:
		return fail("a URL without user info: credentials have settings of their own")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return fail("a URL without query and fragment")
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return fail("https: credentials go over plain http towards loopback only")
	}
	return plain, nil
}

func loopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}
