package isdp

import (
	"context"
	"fmt"
	"github.com/rollcall-events/rollcall/internal/test/sweeptest"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
	"github.com/rollcall-events/rollcall/internal/test/metrictest"
)

// measured is [direct], with the registry that the poller's metrics are in.
func measured(
	t *testing.T,
	sim *isdpsim.Tenant,
	change func(*settings),
) (*rig, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	p := direct(t, sim, func(c *settings) {
		c.Metrics = reg
		if change != nil {
			change(c)
		}
	})
	return p, reg
}

// of are the counters that are not 0, and how many observations histograms have.
func of(t *testing.T, reg *prometheus.Registry) metrictest.Series {
	t.Helper()
	out := metrictest.Series{}
	for series, n := range metrictest.Gather(t, reg).Some() {
		if !strings.Contains(series, "_sum") && !strings.HasSuffix(series, "rate_limit") {
			out[series] = n
		}
	}
	return out
}

func TestMetrics(t *testing.T) {
	quick := func(c *settings) { c.SweepTimeout, c.RequestTimeout = 20*time.Second, 2*time.Second }
	tests := []struct {
		name   string
		fault  isdpsim.Hook
		before func(*isdpsim.Tenant)
		sweeps int
		want   metrictest.Series // without what a plain sweep of seven pages has
	}{
		{name: "plain", sweeps: 3, want: metrictest.Series{
			`rollcall_requests_total{call="token",result="ok"}`: 1,
			`rollcall_token_refreshes_total{result="ok"}`:       1,
			`rollcall_requests_total{call="page",result="ok"}`:  21, "rollcall_pages_total": 21,
		}},
		{name: "odd rows", sweeps: 2,
			before: func(sim *isdpsim.Tenant) {
				sim.Edit(isdpsim.FirstID, isdpsim.Fields{"capacity": `"many"`, "isArea": "{}"})
				sim.Edit(isdpsim.FirstID+1, isdpsim.Fields{"onlineStatus": "null"})
				sim.Edit(isdpsim.FirstID+2, isdpsim.Fields{"agentId": `"x"`})
				sim.Edit(isdpsim.FirstID+8, isdpsim.Fields{"tenantId": "887"})
				sim.Edit(
					isdpsim.FirstID+9,
					isdpsim.Fields{"agentName": `"` + strings.Repeat("长", 100_000) + `"`},
				)
			},
			want: metrictest.Series{
				`rollcall_requests_total{call="token",result="ok"}`: 1,
				`rollcall_token_refreshes_total{result="ok"}`:       1,
				`rollcall_requests_total{call="page",result="ok"}`:  14, "rollcall_pages_total": 14,
				`rollcall_rejected_records_total{reason="onlineStatus"}`: 2,
				`rollcall_rejected_records_total{reason="agentId"}`:      2,
				`rollcall_rejected_records_total{reason="tenant"}`:       2,
				`rollcall_rejected_records_total{reason="size"}`:         2,
				"rollcall_dropped_values_total":                          4,
			}},
		{name: "no row at all", sweeps: 1, fault: isdpsim.OnPage(0, isdpsim.InsertRow(`[]`)),
			want: metrictest.Series{
				`rollcall_requests_total{call="token",result="ok"}`: 1,
				`rollcall_token_refreshes_total{result="ok"}`:       1,
				// page 0 does not fit, and is read in each of five rounds
				`rollcall_requests_total{call="page",result="ok"}`: 11, "rollcall_pages_total": 11,
				`rollcall_rejected_records_total{reason="syntax"}`: 5,
			}},
		{
			name:   "an expired token",
			sweeps: 1,
			fault:  isdpsim.Times(tokenRefusals, isdpsim.OnPage(0, isdpsim.InvalidToken(200))),
			want: metrictest.Series{
				`rollcall_requests_total{call="token",result="ok"}`:     2,
				`rollcall_token_refreshes_total{result="ok"}`:           2,
				`rollcall_requests_total{call="page",result="ok"}`:      7,
				`rollcall_requests_total{call="page",result="expired"}`: tokenRefusals,
				"rollcall_pages_total":                                  7,
			},
		},
		{
			name:   "throttled",
			sweeps: 1,
			fault:  isdpsim.Times(2, isdpsim.OnPage(3, isdpsim.RetryAfter(503, time.Second))),
			want: metrictest.Series{
				`rollcall_requests_total{call="token",result="ok"}`:       1,
				`rollcall_token_refreshes_total{result="ok"}`:             1,
				`rollcall_requests_total{call="page",result="ok"}`:        7,
				`rollcall_requests_total{call="page",result="throttled"}`: 2,
				"rollcall_pages_total":                                    7,
			},
		},
		{name: "errors", sweeps: 1, fault: isdpsim.Hooks(
			isdpsim.Times(
				1,
				isdpsim.OnToken(isdpsim.Status(502)),
			),
			isdpsim.Times(1, isdpsim.OnPage(0, isdpsim.HTML())),
			isdpsim.Times(
				1,
				isdpsim.OnPage(1, isdpsim.StateCode("1", "no")),
			),
			isdpsim.Times(1, isdpsim.OnPage(2, isdpsim.Status(500))),
			isdpsim.Times(1, isdpsim.OnPage(4, isdpsim.Delay(3*time.Second))),
		),
			want: metrictest.Series{
				`rollcall_requests_total{call="token",result="ok"}`:          1,
				`rollcall_token_refreshes_total{result="ok"}`:                1,
				`rollcall_requests_total{call="token",result="unreachable"}`: 1,
				`rollcall_requests_total{call="page",result="ok"}`:           7,
				"rollcall_pages_total":                                       7,
				`rollcall_requests_total{call="page",result="unusable"}`:     2,
				`rollcall_requests_total{call="page",result="unreachable"}`:  2,
			}},
		{name: "credentials", sweeps: 5, fault: isdpsim.OnToken(isdpsim.CredentialsRefused()),
			want: metrictest.Series{ // the other sweeps are told so without a request
				`rollcall_requests_total{call="token",result="credentials"}`: 1,
				`rollcall_token_refreshes_total{result="failed"}`:            1,
			}},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sim := isdpsim.New(isdpsim.Config{Agents: sweeptest.SmallTenant})
				if c.before != nil {
					c.before(sim)
				}
				sim.SetFault(c.fault)
				p, reg := measured(t, sim, quick)
				for range c.sweeps {
					sweeptest.Once(t, p)
				}
				got := of(t, reg)
				sums := map[string]float64{} // of the requests, by call
				for _, call := range []string{callToken, callPage} {
					label := fmt.Sprintf("{call=%q}", call)
					if n := got["rollcall_request_duration_seconds_count"+label]; n > 0 {
						sums[call] = n
					}
					delete(got, "rollcall_request_duration_seconds_count"+label)
				}
				if d := cmp.Diff(c.want, got); d != "" {
					t.Errorf("-want, +got:\n%s", d)
				}
				s := sim.Stats()
				if sums[callToken] != float64(s.TokenRequests) ||
					sums[callPage] != float64(s.PageRequests) {
					t.Errorf(
						"the durations of %v requests, and the vendor had %d for tokens and %d "+
							"for pages",
						sums,
						s.TokenRequests,
						s.PageRequests,
					)
				}
			})
		})
	}
}

// A request that was given up since nobody wanted its answer any more says nothing about the
// vendor.
func TestMetricsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := isdpsim.New(isdpsim.Config{Agents: sweeptest.SmallTenant})
		sim.SetFault(isdpsim.OnAgents(isdpsim.Delay(time.Hour)))
		p, reg := measured(t, sim, nil)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		sweeptest.Under(ctx, t, p)
		if got := of(t, reg).Of("rollcall_requests_total"); len(got) != 1 ||
			got[`rollcall_requests_total{call="token",result="ok"}`] != 1 {
			t.Errorf("%v", got)
		}
	})
}

func TestMetricsRateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := isdpsim.New(isdpsim.Config{Agents: sweeptest.SmallTenant})
		sim.SetFault(isdpsim.Times(1, isdpsim.OnPage(6, isdpsim.Status(429))))
		p, reg := measured(t, sim, nil)
		limit := func() float64 { return metrictest.Gather(t, reg)["rollcall_request_rate_limit"] }
		if l := limit(); l != 10 {
			t.Errorf("the limit is %v at first", l)
		}
		sweeptest.Once(t, p)
		if l := limit(); l < 5 || l > 6 {
			t.Errorf("the limit is %v after the vendor has asked for fewer requests", l)
		}
		for range 10 {
			sweeptest.Once(t, p)
		}
		if l := limit(); l != 10 {
			t.Errorf("the limit is %v in the end", l)
		}
	})
}

// Whatever the vendor answers, no series is added to those that there are from the start.
func TestMetricsBounded(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := config("http://localhost")
	c.Metrics = reg
	newRig(t, c, nil)
	start := metrictest.Gather(t, reg)
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(5, 6))
		faults := []isdpsim.Fault{
			isdpsim.HTML(), isdpsim.Empty(), isdpsim.CredentialsRefused(),
			isdpsim.InvalidToken(200), isdpsim.InvalidToken(401), isdpsim.Truncated(100),
			isdpsim.StateCode(
				"-7",
				"\x00",
			), isdpsim.InsertRow(`null`), isdpsim.InsertRow(`{"agentId":1}`),
			isdpsim.TotalCountOff(3), isdpsim.Corrupt(),
		}
		for code := 300; code < 600; code += 1 + random.IntN(20) {
			faults = append(faults, isdpsim.Status(code))
		}
		sim := isdpsim.New(isdpsim.Config{Agents: sweeptest.SmallTenant})
		p, reg := measured(t, sim, nil)
		for _, f := range faults {
			hook := isdpsim.OnAgents(f)
			if random.IntN(3) == 0 {
				sim.RevokeTokens()
				hook = isdpsim.OnToken(f)
			}
			sim.SetFault(isdpsim.Sometimes(random.Uint64(), .5, hook))
			sweeptest.Once(t, p)
			time.Sleep(2 * time.Minute)
		}
		for series := range metrictest.Gather(t, reg) {
			if _, ok := start[series]; !ok {
				t.Errorf("%s was not there from the start", series)
			}
		}
	})
	for _, reason := range []string{packed.RejectSyntax, packed.RejectID, packed.RejectStatus,
		packed.RejectTenant, packed.RejectSize} {
		if _, ok := start[fmt.Sprintf("rollcall_rejected_records_total{reason=%q}", reason)]; !ok {
			t.Errorf("no series for %s", reason)
		}
	}
}
