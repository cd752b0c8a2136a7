package poller

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/rollcall-events/rollcall/internal/setting"
	"github.com/rollcall-events/rollcall/internal/test/isdpsim"

	"github.com/rollcall-events/rollcall/internal/listing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// config fits a simulated tenant with the default credentials.
func config(url string) Config {
	return Config{
		BaseURL:      url,
		ClientID:     isdpsim.DemoClientID,
		ClientSecret: isdpsim.DemoClientSecret,
		Username:     isdpsim.DemoUsername,
		Password:     isdpsim.DemoPassword,
		RateLimit:    10,
	}
}

// served returns a poller of a vendor behind a real HTTP server.
func served(t *testing.T, vendor http.Handler, change func(*Config)) *Poller {
	t.Helper()
	srv := httptest.NewServer(vendor)
	c := config(srv.URL)
	if change != nil {
		change(&c)
	}
	p, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.client.http.(*connections).CloseIdleConnections()
		srv.CloseClientConnections()
		srv.Close()
	})
	return p
}

// Tests on virtual time take small pages, since decoding is what costs them real time: this tenant
// has seven, the last of four agents.
const (
	smallPage   = 5
	smallTenant = 34
)

// direct returns a poller that calls the vendor's handler without a network: for tests on virtual
// time.
func direct(t *testing.T, vendor http.Handler, change func(*Config)) *Poller {
	t.Helper()
	c := config("http://localhost")
	c.PageSize = smallPage
	if change != nil {
		change(&c)
	}
	p, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	p.client.http = handlerTransport{vendor}
	return p
}

type handlerTransport struct{ h http.Handler }

func (d handlerTransport) RoundTrip(r *http.Request) (resp *http.Response, err error) {
	w := httptest.NewRecorder()
	defer func() {
		if v := recover(); v == http.ErrAbortHandler {
			resp, err = nil, errors.New("connection reset")
			if r.Context().Err() != nil {
				err = r.Context().Err()
			}
		} else if v != nil {
			panic(v)
		}
	}()
	d.h.ServeHTTP(w, r)
	return w.Result(), nil
}

// sweepOnce sweeps once and returns what was emitted.
func sweepOnce(t *testing.T, p *Poller) (listing.Verdict, []*listing.Page) {
	t.Helper()
	return sweepUnder(t.Context(), t, p)
}

func sweepUnder(ctx context.Context, t *testing.T, p *Poller) (listing.Verdict, []*listing.Page) {
	t.Helper()
	var pages []*listing.Page
	over := false
	v := p.Sweep(ctx, func(page *listing.Page) {
		if over {
			t.Error("emit after Sweep had returned")
		}
		if page.Sent.IsZero() || page.Read.Before(page.Sent) {
			t.Errorf("page %d was sent at %v and read at %v", page.Number, page.Sent, page.Read)
		}
		pages = append(pages, page)
	})
	over = true
	if v.EndedAt.Before(v.StartedAt) || v.StartedAt.IsZero() {
		t.Errorf("the sweep ran from %v to %v", v.StartedAt, v.EndedAt)
	}
	if v.Complete != (v.Err == nil) {
		t.Errorf("complete is %v, the error %v", v.Complete, v.Err)
	}
	noSecrets(t, fmt.Sprint(v.Err))
	return v, pages
}

func noSecrets(t *testing.T, text string) {
	t.Helper()
	for _, secret := range []string{isdpsim.DemoClientSecret, isdpsim.DemoPassword} {
		if strings.Contains(text, secret) {
			t.Errorf("a secret shows: %s", text)
		}
	}
}

func wantClass(t *testing.T, err error, class listing.Class, words ...string) {
	t.Helper()
	var e *listing.Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v, want an *listing.Error of class %s", err, class)
	}
	if e.Class != class {
		t.Errorf("error of class %s, want %s: %v", e.Class, class, err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not say %q", err, w)
		}
	}
}

// wantAll checks that the sweep was complete and that its pages show exactly the tenant's listing.
func wantAll(t *testing.T, sim *isdpsim.Tenant, v listing.Verdict, pages []*listing.Page) {
	t.Helper()
	if !v.Complete {
		t.Fatalf("incomplete: %v", v.Err)
	}
	var got []int64
	for _, p := range pages {
		for _, a := range p.Agents {
			got = append(got, a.AgentID())
		}
	}
	slices.Sort(got)
	got = slices.Compact(got)
	if want := slices.Sorted(slices.Values(sim.IDs())); !slices.Equal(got, want) {
		t.Errorf("%d agents were read, %d are listed", len(got), len(want))
	}
}

// logTo gives a poller a logger.
func logTo(b *bytes.Buffer) func(*Config) {
	return func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(b, nil)) }
}

func TestValidate(t *testing.T) {
	ok := config("https://isdp.example")
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
		{"user info", func(c *Config) { c.BaseURL = "https://u:" + c.Password + "@isdp.example" }, []string{"BaseURL"}},
		{"bad user info", func(c *Config) { c.BaseURL = "https://u:" + c.Password + "@%zz" }, []string{"BaseURL"}},
		{"query", func(c *Config) { c.BaseURL = "https://isdp.example/?k=" + c.Password }, []string{"BaseURL"}},
		{"fragment", func(c *Config) { c.BaseURL = "https://isdp.example/#x" }, []string{"BaseURL"}},
		{"no scheme", func(c *Config) { c.BaseURL = "isdp.example" }, []string{"BaseURL"}},
		{"other scheme", func(c *Config) { c.BaseURL = "ftp://isdp.example" }, []string{"BaseURL"}},
		{"no host", func(c *Config) { c.BaseURL = "https:///x" }, []string{"BaseURL"}},
		{"all at once", func(c *Config) {
			*c = Config{Types: []int{1, 1}, TenantID: -1, SweepTimeout: -1, RequestTimeout: -1, PageSize: 51, Concurrency: -1, RateLimit: -1}
		}, []string{"BaseURL", "ClientID", "ClientSecret", "Username", "Password", "Types", "TenantID", "SweepTimeout", "RequestTimeout", "PageSize", "Concurrency", "RateLimit"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := ok
			tc.change(&c)
			err := c.Validate()
			if got := fields(err); !slices.Equal(got, tc.want) {
				t.Errorf("complaints about %v, want %v", got, tc.want)
			}
			noSecrets(t, fmt.Sprint(err))
			if _, newErr := New(c); (newErr == nil) != (err == nil) {
				t.Errorf("New says %v, Validate %v", newErr, err)
			}
		})
	}
}

func TestSweep(t *testing.T) {
	for _, tc := range []struct {
		name   string
		agents int
		change func(*Config)
		pages  int
	}{
		{"340", 340, nil, 7},
		{"full last page", 100, nil, 2},
		{"one", 1, nil, 1},
		{"none", -1, nil, 1},
		{"small pages, one by one", 30, func(c *Config) { c.PageSize, c.Concurrency = 7, 1 }, 5},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sim := isdpsim.New(isdpsim.Config{Agents: tc.agents})
			p := served(t, sim, func(c *Config) {
				c.RateLimit = 1000
				if tc.change != nil {
					tc.change(c)
				}
			})
			for range 2 {
				v, pages := sweepOnce(t, p)
				wantAll(t, sim, v, pages)
				if v.Pages != tc.pages || len(pages) != tc.pages || v.Agents != max(0, tc.agents) || v.Rejected != 0 {
					t.Errorf("%d pages emitted, verdict %+v", len(pages), v)
				}
			}
			if s := sim.Stats(); s.TokenRequests != 1 || s.PageRequests != 2*tc.pages || s.MaxInFlight > 4 {
				t.Errorf("the vendor saw %+v", s)
			}
		})
	}
}

func TestSweepByType(t *testing.T) {
	sim := isdpsim.New(isdpsim.Config{})
	p := served(t, sim, func(c *Config) { c.RateLimit, c.Types = 1000, []int{10, 0, 99} })
	v, pages := sweepOnce(t, p)
	if !v.Complete {
		t.Fatal(v.Err)
	}
	agents := 0
	for _, page := range pages {
		agents += len(page.Agents)
		for _, a := range page.Agents {
			if of, _ := a.Type(); of != fmt.Sprint(p.cfg.Types[page.Listing]) {
				t.Errorf("agent %d of type %s in the listing of type %d", a.AgentID(), of, p.cfg.Types[page.Listing])
			}
		}
	}
	if agents == 0 || v.Agents != agents {
		t.Errorf("%d agents on the pages, %d in the verdict", agents, v.Agents)
	}
}

// The limits hold whatever happens: what the vendor counts is what the configuration says.
func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := isdpsim.New(isdpsim.Config{Agents: 200, TokenTTL: 7 * time.Second})
		sim.SetFault(isdpsim.Hooks(
			isdpsim.OnAgents(isdpsim.Delay(900*time.Millisecond)),
			isdpsim.Sometimes(1, 0.2, isdpsim.OnAgents(isdpsim.Status(500))),
			isdpsim.Sometimes(2, 0.1, isdpsim.OnAgents(isdpsim.RevokeTokens())),
		))
		p := direct(t, sim, func(c *Config) { c.RateLimit, c.Concurrency = 4, 3 })
		for range 3 {
			sweepOnce(t, p)
		}
		if s := sim.Stats(); s.MaxInFlight != 3 {
			t.Errorf("%d requests in flight, want up to 3 and that often", s.MaxInFlight)
		}
		requests := sim.Requests()
		for i := range requests[1:] {
			if gap := requests[i+1].Time.Sub(requests[i].Time); gap < 250*time.Millisecond-time.Microsecond {
				t.Errorf("requests %d and %d are %v apart, want a quarter of a second", i, i+1, gap)
			}
		}
	})
}

func TestSweepTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := isdpsim.New(isdpsim.Config{Agents: 500})
		p := direct(t, sim, func(c *Config) { c.SweepTimeout = 5 * time.Second })
		start := time.Now()
		v, pages := sweepOnce(t, p)
		wantClass(t, v.Err, listing.Unreachable)
		if !errors.Is(v.Err, context.DeadlineExceeded) {
			t.Errorf("error %v", v.Err)
		}
		if took := time.Since(start); took > 5*time.Second || len(pages) < 45 {
			t.Errorf("%d pages in %v", len(pages), took)
		}

		p = direct(t, sim, func(c *Config) { c.RateLimit = 1 }) // 100 pages: 100s, of three times that
		v, pages = sweepOnce(t, p)
		wantAll(t, sim, v, pages)
	})
}

func TestCancel(t *testing.T) {
	sim := isdpsim.New(isdpsim.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	sim.SetFault(func(r isdpsim.Request) isdpsim.Fault {
		if r.Page == 3 {
			cancel()
		}
		if r.Page > 0 {
			return isdpsim.Delay(time.Hour)
		}
		return nil
	})
	p := served(t, sim, func(c *Config) { c.RateLimit = 1000 })
	start := time.Now()
	v, _ := sweepUnder(ctx, t, p)
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %v to give up", took)
	}
	wantClass(t, v.Err, listing.Unreachable)
	if !errors.Is(v.Err, context.Canceled) || v.Pages != 1 {
		t.Errorf("verdict %+v", v)
	}
	asked := sim.Stats().Requests
	if v, pages := sweepUnder(ctx, t, p); sim.Stats().Requests != asked || len(pages) != 0 || !errors.Is(v.Err, context.Canceled) {
		t.Errorf("a sweep that was over before it began: %+v", v)
	}
}

func TestEmitBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := isdpsim.New(isdpsim.Config{Agents: 100})
		p := direct(t, sim, nil)
		n := 0
		v := p.Sweep(t.Context(), func(*listing.Page) {
			n++
			time.Sleep(2 * time.Second)
			if s := sim.Stats(); s.PageRequests > n+4 {
				t.Errorf("%d pages asked for while the %d. is being handled", s.PageRequests, n)
			}
		})
		if !v.Complete {
			t.Error(v.Err)
		}
	})
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
