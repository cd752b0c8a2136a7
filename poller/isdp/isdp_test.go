package isdp

import (
	"bytes"
	"errors"
	"fmt"
	"github.com/rollcall-events/rollcall/internal/test/sweeptest"
	"github.com/rollcall-events/rollcall/poller"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rollcall-events/rollcall/internal/setting"
	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
)

func TestMain(m *testing.M) {
	setting.Use(
		map[string]string{"BaseURL": "ROLLCALL_ISDP_URL", "RootCAs": "ROLLCALL_ISDP_CA_FILE",
			"ClientID": "ROLLCALL_ISDP_CLIENT_ID", "ClientSecret": "ROLLCALL_ISDP_CLIENT_SECRET",
			"Username": "ROLLCALL_ISDP_USERNAME", "Password": "ROLLCALL_ISDP_PASSWORD",
			"TenantID": "ROLLCALL_TENANT_ID"},
	)
	goleak.VerifyTestMain(m)
}

// settings are those of a vendor's client, and of the poller that uses it.
type settings struct {
	Config
	SweepTimeout time.Duration
	Concurrency  int
}

// config fits a simulated tenant with the default credentials.
func config(url string) settings {
	return settings{Config: Config{
		BaseURL:      url,
		ClientID:     isdpsim.DemoClientID,
		ClientSecret: isdpsim.DemoClientSecret,
		Username:     isdpsim.DemoUsername,
		Password:     isdpsim.DemoPassword,
		RateLimit:    10,
	}}
}

// A rig is a poller and the client that it uses.
type rig struct {
	*Client
	*poller.Poller
}

// newRig returns a poller of a vendor.
func newRig(t *testing.T, c settings, change func(*settings)) *rig {
	t.Helper()
	if change != nil {
		change(&c)
	}
	client, err := New(c.Config)
	if err != nil {
		t.Fatal(err)
	}
	var types []string
	for _, n := range c.Types {
		types = append(types, fmt.Sprint(n))
	}
	p, err := poller.New(
		poller.Config{Types: types, SweepTimeout: c.SweepTimeout, Concurrency: c.Concurrency,
			Logger: c.Logger, Metrics: c.Metrics, Now: c.Now},
		client,
	)
	if err != nil {
		t.Fatal(err)
	}
	return &rig{client, p}
}

// served returns a poller of a vendor behind a real HTTP server.
func served(t *testing.T, vendor http.Handler, change func(*settings)) *rig {
	t.Helper()
	srv := httptest.NewServer(vendor)
	p := newRig(t, config(srv.URL), change)
	t.Cleanup(func() {
		p.caller.http.(*connections).CloseIdleConnections()
		srv.CloseClientConnections()
		srv.Close()
	})
	return p
}

// direct returns a poller that calls the vendor's handler without a network: for tests on virtual
// time.
func direct(t *testing.T, vendor http.Handler, change func(*settings)) *rig {
	t.Helper()
	c := config("http://localhost")
	c.PageSize, c.Transport = sweeptest.SmallPage, sweeptest.Direct{Vendor: vendor}
	return newRig(t, c, change)
}

// logTo gives a poller a logger.
func logTo(b *bytes.Buffer) func(*settings) {
	return func(c *settings) { c.Logger = slog.New(slog.NewTextHandler(b, nil)) }
}

func TestValidate(t *testing.T) {
	ok := config("https://isdp.example").Config
	fields := func(err error) (names []string) {
		if err == nil {
			return nil
		}
		for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
			var s *setting.Error
			if !errors.As(e, &s) {
				t.Fatalf("%T in the error", e)
			}
			names = append(names, s.Field)
		}
		return names
	}
	for _, tc := range []struct {
		name   string
		change func(*Config)
		want   []string
	}{
		{"fine", func(*Config) {}, nil},
		{"prefix", func(c *Config) { c.BaseURL = "https://gw.example:8443/isdp/" }, nil},
		{"loopback", func(c *Config) { c.BaseURL = "http://127.0.0.1:80" }, nil},
		{"loopback 6", func(c *Config) { c.BaseURL = "http://[::1]:80" }, nil},
		{"localhost", func(c *Config) { c.BaseURL = "http://localhost:80" }, nil},
		{"types", func(c *Config) { c.Types = []int{10, 0} }, nil},
		{"plain http", func(c *Config) { c.BaseURL = "http://isdp.example" }, []string{"BaseURL"}},
		{"user info", func(c *Config) {
			c.BaseURL = "https://u:" + c.Password + "@isdp.example"
		}, []string{"BaseURL"}},
		{"bad user info", func(c *Config) {
			c.BaseURL = "https://u:" + c.Password + "@%zz"
		}, []string{"BaseURL"}},
		{"query", func(c *Config) {
			c.BaseURL = "https://isdp.example/?k=" + c.Password
		}, []string{"BaseURL"}},
		{"fragment", func(c *Config) {
			c.BaseURL = "https://isdp.example/#x"
		}, []string{"BaseURL"}},
		{"no scheme", func(c *Config) { c.BaseURL = "isdp.example" }, []string{"BaseURL"}},
		{"other scheme", func(c *Config) { c.BaseURL = "ftp://isdp.example" }, []string{"BaseURL"}},
		{"no host", func(c *Config) { c.BaseURL = "https:///x" }, []string{"BaseURL"}},
		{"all at once", func(c *Config) {
			*c = Config{Types: []int{1, 1}, TenantID: -1, RequestTimeout: -1, PageSize: 51,
				RateLimit: -1}
		}, []string{"BaseURL", "ClientID", "ClientSecret", "Username", "Password", "Types",
			"TenantID", "RequestTimeout", "PageSize", "RateLimit"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := ok
			tc.change(&c)
			err := c.Validate()
			if got := fields(err); !slices.Equal(got, tc.want) {
				t.Errorf("complaints about %v, want %v", got, tc.want)
			}
			sweeptest.NoSecrets(t, fmt.Sprint(err))
			if _, newErr := New(c); (newErr == nil) != (err == nil) {
				t.Errorf("New says %v, Validate %v", newErr, err)
			}
		})
	}
}

// TestNow checks that times never jump with the wall clock: they keep a monotonic reading.
func TestNow(t *testing.T) {
	now := config("https://isdp.example").withDefaults().Now()
	if !strings.Contains(now.String(), "m=") {
		t.Errorf("%v has no monotonic reading", now)
	}
}

// quiet is where a test's servers log to.
var quiet = log.New(io.Discard, "", 0)
