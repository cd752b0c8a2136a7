package poller_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"github.com/rollcall-events/rollcall/internal/test/sweeptest"
	"github.com/rollcall-events/rollcall/poller"
	"github.com/rollcall-events/rollcall/poller/isdp"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/rollcall-events/rollcall/internal/setting"
	"github.com/rollcall-events/rollcall/internal/test/isdpsim"

	"github.com/rollcall-events/rollcall/internal/listing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// settings are those of a vendor's client, and of the poller that uses it.
type settings struct {
	isdp.Config
	SweepTimeout time.Duration
	GlanceAfter  time.Duration
	Concurrency  int
}

// config fits a simulated tenant with the default credentials.
func config(url string) settings {
	return settings{Config: isdp.Config{
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
	*isdp.Client
	*poller.Poller
}

// newRig returns a poller of a vendor.
func newRig(t *testing.T, c settings, change func(*settings)) *rig {
	t.Helper()
	if change != nil {
		change(&c)
	}
	client, err := isdp.New(c.Config)
	if err != nil {
		t.Fatal(err)
	}
	var types []string
	for _, n := range c.Types {
		types = append(types, fmt.Sprint(n))
	}
	p, err := poller.New(
		poller.Config{Types: types, SweepTimeout: c.SweepTimeout, GlanceAfter: c.GlanceAfter,
			Concurrency: c.Concurrency,
			Logger:      c.Logger, Metrics: c.Metrics, Now: c.Now},
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
		p.Client.CloseIdleConnections()
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

func TestSweep(t *testing.T) {
	for _, tc := range []struct {
		name   string
		agents int
		change func(*settings)
		pages  int
	}{
		{"340", 340, nil, 7},
		{"full last page", 100, nil, 2},
		{"one", 1, nil, 1},
		{"none", -1, nil, 1},
		{"small pages, one by one", 30, func(c *settings) { c.PageSize, c.Concurrency = 7, 1 }, 5},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sim := isdpsim.New(isdpsim.Config{Agents: tc.agents})
			p := served(t, sim, func(c *settings) {
				c.RateLimit = 1000
				if tc.change != nil {
					tc.change(c)
				}
			})
			for range 2 {
				v, pages := sweeptest.Once(t, p)
				sweeptest.WantAll(t, sim, v, pages)
				if v.Pages != tc.pages || len(pages) != tc.pages || v.Agents != max(0, tc.agents) ||
					v.Rejected != 0 {
					t.Errorf("%d pages emitted, verdict %+v", len(pages), v)
				}
			}
			if s := sim.Stats(); s.TokenRequests != 1 || s.PageRequests != 2*tc.pages ||
				s.MaxInFlight > 4 {
				t.Errorf("the vendor saw %+v", s)
			}
		})
	}
}

func TestSweepByType(t *testing.T) {
	sim := isdpsim.New(isdpsim.Config{})
	types := []int{10, 0, 99}
	p := served(t, sim, func(c *settings) { c.RateLimit, c.Types = 1000, types })
	v, pages := sweeptest.Once(t, p)
	if !v.Complete {
		t.Fatal(v.Err)
	}
	agents := 0
	for _, page := range pages {
		agents += len(page.Agents)
		for _, a := range page.Agents {
			if of, _ := a.Type(); of != fmt.Sprint(types[page.Listing]) {
				t.Errorf(
					"agent %d of type %s in the listing of type %d",
					a.AgentID(),
					of,
					types[page.Listing],
				)
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
		p := direct(t, sim, func(c *settings) { c.RateLimit, c.Concurrency = 4, 3 })
		for range 3 {
			sweeptest.Once(t, p)
		}
		if s := sim.Stats(); s.MaxInFlight != 3 {
			t.Errorf("%d requests in flight, want up to 3 and that often", s.MaxInFlight)
		}
		requests := sim.Requests()
		for i := range requests[1:] {
			if gap := requests[i+1].Time.Sub(
				requests[i].Time); gap < 250*time.Millisecond-time.Microsecond {
				t.Errorf("requests %d and %d are %v apart, want a quarter of a second", i, i+1, gap)
			}
		}
	})
}

func TestSweepTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := isdpsim.New(isdpsim.Config{Agents: 500})
		p := direct(t, sim, func(c *settings) { c.SweepTimeout = 5 * time.Second })
		start := time.Now()
		v, pages := sweeptest.Once(t, p)
		sweeptest.WantClass(t, v.Err, listing.Unreachable)
		if !errors.Is(v.Err, context.DeadlineExceeded) {
			t.Errorf("error %v", v.Err)
		}
		if took := time.Since(start); took > 5*time.Second || len(pages) < 45 {
			t.Errorf("%d pages in %v", len(pages), took)
		}

		p = direct(
			t,
			sim,
			func(c *settings) { c.RateLimit = 1 },
		) // 100 pages: 100s, of three times that
		v, pages = sweeptest.Once(t, p)
		sweeptest.WantAll(t, sim, v, pages)
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
	p := served(t, sim, func(c *settings) { c.RateLimit = 1000 })
	start := time.Now()
	v, _ := sweeptest.Under(ctx, t, p)
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %v to give up", took)
	}
	sweeptest.WantClass(t, v.Err, listing.Unreachable)
	if !errors.Is(v.Err, context.Canceled) || v.Pages != 1 {
		t.Errorf("verdict %+v", v)
	}
	asked := sim.Stats().Requests
	if v, pages := sweeptest.Under(ctx, t, p); sim.Stats().Requests != asked || len(pages) != 0 ||
		!errors.Is(v.Err, context.Canceled) {
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

func TestValidate(t *testing.T) {
	if err := (poller.Config{}).Validate(); err != nil {
		t.Error(err)
	}
	bad := poller.Config{SweepTimeout: -1, Concurrency: -1}
	var fields []string
	for _, err := range bad.Validate().(interface{ Unwrap() []error }).Unwrap() {
		var e *setting.Error
		if errors.As(err, &e) {
			fields = append(fields, e.Field)
		}
	}
	if !slices.Equal(fields, []string{"SweepTimeout", "Concurrency"}) {
		t.Errorf("complaints about %v", fields)
	}
	if _, err := poller.New(bad, nil); err == nil {
		t.Error("New takes what Validate does not")
	}
}
