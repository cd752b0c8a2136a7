package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rollcall-events/rollcall/internal/listing"
	"github.com/rollcall-events/rollcall/internal/test/metrictest"
	"github.com/rollcall-events/rollcall/publisher"
	"github.com/rollcall-events/rollcall/schemas"
)

// observed runs an engine in virtual time, calls look after d, and then ends it.
func observed(t *testing.T, cfg Config, v *vendor, m *memory, d time.Duration,
	look func(*Engine, metrictest.Series)) (metrictest.Series, error) {
	t.Helper()
	reg := prometheus.NewRegistry()
	cfg.Metrics = reg
	e := New(cfg, v, m)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	time.Sleep(d)
	synctest.Wait()
	if look != nil {
		look(e, metrictest.Gather(t, reg))
	}
	cancel()
	err := <-done
	return metrictest.Gather(t, reg), err
}

func typed(a schemas.Agent, kind string) schemas.Agent {
	a.Type = &kind
	return a
}

// counted are the series that said counts.
var counted = []string{"rollcall_events_total", "rollcall_agents",
	"rollcall_publish_delay_seconds_count", "rollcall_detection_delay_seconds_count"}

// said is what the commits of a stream say, counted from its messages alone.
func said(m *memory) metrictest.Series {
	out := metrictest.Series{}
	last := map[int64]*schemas.Event{}
	for _, b := range m.commits {
		for i := range b.Events {
			e := &b.Events[i]
			out[fmt.Sprintf("rollcall_events_total{reason=%q,type=%q}", e.Data.Reason,
				strings.TrimPrefix(string(e.Type), "agent."))]++
			last[e.Data.Agent.AgentID] = e
			out["rollcall_publish_delay_seconds_count"]++
			if !e.Data.NotBefore.IsZero() {
				out["rollcall_detection_delay_seconds_count"]++
			}
		}
	}
	for _, e := range last {
		if e.Data.Reason == schemas.Removed {
			continue
		}
		state, kind := "offline", "none"
		if e.Data.Online {
			state = "online"
		}
		if t := e.Data.Agent.TypeToken(); t != schemas.NoType {
			if kind = "other"; slices.Contains([]string{"0", "1", "2", "10"}, t) {
				kind = t
			}
		}
		out[fmt.Sprintf("rollcall_agents{state=%q,type=%q}", state, kind)]++
	}
	return out
}

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{
			gate: func(context.Context) error { time.Sleep(300 * time.Millisecond); return nil }}
		stamp := func(a schemas.Agent, at time.Time) schemas.Agent {
			ms := at.UnixMilli()
			a.LastUpdateTimestamp = &ms
			return a
		}
		start := time.Now()
		v := &vendor{scripts: []func(*sweep) error{
			listed(typed(on(1), "10"), typed(off(2), "0"), off(3), typed(off(5), "10")),
			// 2s late
			listed(typed(on(1), "10"), stamp(typed(on(2), "0"), start.Add(3*time.Second)), off(3),
				typed(off(5), "10")),
			listed(typed(off(1), "2"), typed(on(2), "0"), off(3), typed(off(5), "99")),
			// during 3's commit 1 flips twice: two events of it in the next one
			func(s *sweep) error {
				s.page(typed(off(1), "2"), typed(on(2), "0"), on(3))
				s.wait(time.Millisecond)
				s.page(typed(on(1), "10"), on(4))
				s.wait(time.Millisecond)
				s.page(typed(off(1), "2"))
				return &listing.Error{Class: listing.Inconsistent, Err: errors.New("torn")}
			},
			failing(listing.Credentials),
			listed(off(4)), // 1, 2, 3 and 5 are missing: too many together
		}}
		end, err := observed(t, config(), v, m, 29*time.Second,
			func(e *Engine, got metrictest.Series) {
				if d := cmp.Diff(said(m), got.Of(counted...).Some()); d != "" {
					t.Errorf("events and agents (-the stream, +the metrics):\n%s\n%s", d, m.story())
				}
				w := m.commits[len(m.commits)-1].Watermark
				unix := func(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
				want := metrictest.Series{
					`rollcall_sweeps_total{result="complete"}`:          4,
					`rollcall_sweeps_total{result="inconsistent"}`:      1,
					`rollcall_sweeps_total{result="credentials"}`:       1,
					"rollcall_sweep_duration_seconds_count":             4,
					"rollcall_missing_agents":                           4,
					`rollcall_health{reason="missing",state="holding"}`: 1,
					"rollcall_watermark_started_timestamp_seconds":      unix(w.StartedAt),
					"rollcall_watermark_stale_after_timestamp_seconds":  unix(w.StaleAfter),
					"rollcall_watermark_next_by_timestamp_seconds":      unix(w.NextBy),
				}
				rest := metrictest.Series{}
				for series, n := range got.Some() {
					if len(got.Of(counted...).Of(series)) == 0 &&
						!strings.HasSuffix(series, "_sum") {
						rest[series] = n
					}
				}
				if d := cmp.Diff(want, rest); d != "" {
					t.Errorf("-want, +got:\n%s\n%s", d, m.story())
				}
				s := e.Status()
				if s.State != schemas.HealthHolding || s.Reason != schemas.MissingMany ||
					s.LastSweep != "complete" || s.Watermark.Sweep != w.Sweep {
					t.Errorf("the status is %+v", s)
				}
			})
		if err != nil {
			t.Fatal(err)
		}
		for _, gauge := range []string{"rollcall_agents", "rollcall_health", "rollcall_missing",
			"rollcall_watermark", "rollcall_pending"} {
			if left := end.Of(gauge).Some(); len(left) > 0 {
				t.Errorf("a replica that does not lead tells %v", left)
			}
		}
		if n := end["rollcall_dropped_changes_total"]; n != 0 {
			t.Errorf("%v changes dropped", n)
		}
	})
}

// The delays are those of virtual time.
func TestDelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{
			gate: func(context.Context) error { time.Sleep(300 * time.Millisecond); return nil }}
		start := time.Now()
		v := &vendor{scripts: []func(*sweep) error{
			listed(off(1)),
			listed(off(1)), // sent at 5s: does not show yet what the vendor says was at 4s
			func(s *sweep) error {
				a, ms := on(1), start.Add(4*time.Second).UnixMilli()
				a.LastUpdateTimestamp = &ms
				s.page(a) // read at 10.1s
				return nil
			},
		}}
		_, err := observed(t, config(), v, m, 14*time.Second,
			func(_ *Engine, got metrictest.Series) {
				want := metrictest.Series{
					"rollcall_publish_delay_seconds_count": 2,
					"rollcall_publish_delay_seconds_sum":   .6,
					// nobody knows since when the first one was as it is
					"rollcall_detection_delay_seconds_count": 1,
					"rollcall_detection_delay_seconds_sum":   5.1,
					"rollcall_vendor_lag_seconds_count":      1,
					"rollcall_vendor_lag_seconds_sum":        1,
					"rollcall_sweep_duration_seconds_count":  3,
					"rollcall_sweep_duration_seconds_sum":    .3,
				}
				for series, n := range want {
					if diff := got[series] - n; diff < -1e-9 || diff > 1e-9 {
						t.Errorf("%s is %v, want %v", series, got[series], n)
					}
				}
			})
		if err != nil {
			t.Fatal(err)
		}
	})
}

// Whatever the vendor calls a type, the labels stay the same.
func TestMetricsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(1, 2))
		kinds := []string{"", "0", "00", "10", "10 ", "video", "{evil=\"1\"}", "\n", "\xff",
			"other", "none", strings.Repeat("9", 300)}
		var agents []schemas.Agent
		for id := range int64(500) {
			a := off(id + 1)
			if random.IntN(2) == 1 {
				a = on(id + 1)
			}
			if random.IntN(5) > 0 {
				a = typed(a,
					kinds[random.IntN(len(kinds))]+strings.Repeat("x",
						random.IntN(2)*random.IntN(9)))
			}
			agents = append(agents, a)
		}
		before := prometheus.NewRegistry()
		newMetrics(before)
		names := func(s metrictest.Series) (out []string) {
			for series := range s {
				out = append(out, series)
			}
			slices.Sort(out)
			return out
		}
		m := &memory{}
		_, err := observed(t, config(), &vendor{scripts: []func(*sweep) error{listed(agents...)}},
			m, 3*time.Second, func(_ *Engine, got metrictest.Series) {
				if d := cmp.Diff(names(metrictest.Gather(t, before)), names(got)); d != "" {
					t.Errorf("-from the start, +after odd types:\n%s", d)
				}
				if d := cmp.Diff(said(m), got.Of(counted...).Some()); d != "" {
					t.Errorf("-the stream, +the metrics:\n%s", d)
				}
				if n := got[`rollcall_agents{state="online",type="other"}`]; n == 0 {
					t.Error("no agent of an odd type")
				}
			})
		if err != nil {
			t.Fatal(err)
		}
	})
}

// Health that rollcall would not have written is shown as none.
func TestMetricsOddHealth(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := newMetrics(reg)
	m.show(Status{State: schemas.HealthFailing, Reason: schemas.Unusable})
	m.show(Status{State: "splendid", Reason: "no reason"})
	if got := metrictest.Gather(t, reg).Of("rollcall_health").Some(); len(got) > 0 {
		t.Errorf("%v", got)
	}
}

// Two replicas' gauges add up to the leader's, also when one takes over what the other has left.
func TestMetricsTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		script := []func(*sweep) error{listed(typed(on(1), "10"), off(2)),
			listed(typed(on(1), "10"), on(2))}
		if _, err := observed(t, config(), &vendor{scripts: script}, m, 6*time.Second,
			nil); err != nil {
			t.Fatal(err)
		}
		_, err := observed(t, config(),
			&vendor{scripts: []func(*sweep) error{
				func(s *sweep) error { s.wait(time.Hour); return s.ctx.Err() }}}, m, time.Second,
			func(e *Engine, got metrictest.Series) {
				want := metrictest.Series{`rollcall_agents{state="online",type="10"}`: 1,
					`rollcall_agents{state="online",type="none"}`: 1}
				if d := cmp.Diff(want, got.Of("rollcall_agents").Some()); d != "" {
					t.Errorf("-want, +got:\n%s", d)
				}
				if len(got.Of("rollcall_events_total").Some()) > 0 ||
					got["rollcall_watermark_started_timestamp_seconds"] == 0 {
					t.Errorf("events that another one committed count, or its watermark "+
						"does not: %v", got.Some())
				}
				if s := e.Status(); s.Watermark.Sweep == 0 || s.State != schemas.HealthOK {
					t.Errorf("the status is %+v", s)
				}
			})
		if err != nil {
			t.Fatal(err)
		}
	})
}

func TestMetricsOfTrouble(t *testing.T) {
	flips := []func(*sweep) error{listed(on(1), on(2)), listed(off(1), on(2)), listed(on(1), on(2)),
		listed(off(1), off(2))}
	tests := []struct {
		name    string
		cfg     func(*Config)
		scripts []func(*sweep) error
		m       func() *memory
		d       time.Duration
		during  metrictest.Series // while it runs
		end     metrictest.Series
		ends    any // what Run's error is; nil: none
	}{
		{
			name: "folded", cfg: func(c *Config) { c.BufferEvents = 2 }, scripts: flips,
			d: 17 * time.Second,
			m: func() *memory {
				back := time.Now().Add(18 * time.Second)
				return &memory{
					gate: func(context.Context) error { time.Sleep(time.Until(back)); return nil }}
			},
			// Six changes were seen, two of them folded.
			during: metrictest.Series{"rollcall_pending_changes": 4,
				"rollcall_folded_changes_total": 2},
			end: metrictest.Series{"rollcall_folded_changes_total": 2},
		},
		{
			name: "unpublished", scripts: flips[:1], d: time.Second,
			m: func() *memory {
				return &memory{
					gate: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
			},
			during: metrictest.Series{"rollcall_pending_changes": 2},
			end:    metrictest.Series{"rollcall_dropped_changes_total": 2},
			ends:   new(*UnpublishedError),
		},
		{
			name: "too large", cfg: func(c *Config) { c.MaxBody = func() int { return 4000 } },
			d: time.Second,
			scripts: []func(*sweep) error{func() func(*sweep) error {
				big := on(1)
				big.Other = []schemas.Field{
					{Name: "note", Value: []byte(`"` + strings.Repeat("x", 5000) + `"`)}}
				return listed(big, on(2))
			}()},
			m:      func() *memory { return &memory{} },
			during: metrictest.Series{"rollcall_dropped_changes_total": 1},
			end:    metrictest.Series{"rollcall_dropped_changes_total": 1},
		},
		{
			name: "given up", scripts: []func(*sweep) error{listed(off(1), on(2))}, d: time.Second,
			m: func() *memory {
				return &memory{foreign: []schemas.Event{theirs(nil, on(1), 0, time.Now())}}
			},
			during: metrictest.Series{"rollcall_dropped_changes_total": 1},
			end:    metrictest.Series{"rollcall_dropped_changes_total": 1},
		},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := config()
				if c.cfg != nil {
					c.cfg(&cfg)
				}
				kept := func(s metrictest.Series) metrictest.Series {
					return s.Of("rollcall_pending", "rollcall_folded", "rollcall_dropped").Some()
				}
				end, err := observed(t, cfg, &vendor{scripts: c.scripts}, c.m(), c.d,
					func(_ *Engine, got metrictest.Series) {
						if d := cmp.Diff(c.during, kept(got)); d != "" {
							t.Errorf("while it runs, -want, +got:\n%s", d)
						}
					})
				if d := cmp.Diff(c.end, kept(end)); d != "" {
					t.Errorf("at the end, -want, +got:\n%s", d)
				}
				if c.ends == nil && err != nil || c.ends != nil && !errors.As(err, c.ends) {
					t.Errorf("Run returned %v", err)
				}
			})
		})
	}
}

// When another replica leads, what was pending is dropped.
func TestMetricsLeaseLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		cfg := config()
		cfg.Metrics = reg
		ctx, lose := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { lose(publisher.ErrLeaseLost) })
		m := &memory{gate: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
		if err := New(cfg, &vendor{scripts: []func(*sweep) error{listed(on(1), on(2))}},
			m).Run(ctx); !errors.Is(err, publisher.ErrLeaseLost) {
			t.Errorf("Run returned %v", err)
		}
		if n := metrictest.Gather(t, reg)["rollcall_dropped_changes_total"]; n != 2 {
			t.Errorf("%v changes dropped, want 2", n)
		}
	})
}
