package poller

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-events/rollcall/internal/isdpsim"
)

func TestLifetime(t *testing.T) {
	for raw, want := range map[string]time.Duration{
		`359`:         359 * time.Second,
		`"359"`:       359 * time.Second,
		`1799`:        1799 * time.Second,
		`" 1799 "`:    1799 * time.Second,
		`1799.5`:      1799500 * time.Millisecond,
		`0.001`:       minLife,
		`1e300`:       maxLife,
		`0`:           defaultLife,
		`-5`:          defaultLife,
		`null`:        defaultLife,
		`"soon"`:      defaultLife,
		`{}`:          defaultLife,
		``:            defaultLife,
		`"NaN"`:       defaultLife,
		`99999999999`: maxLife,
	} {
		if got := lifetime(json.RawMessage(raw)); got != want {
			t.Errorf("expires_in %s: %v, want %v", raw, got, want)
		}
	}
}

func TestOneRefreshForAll(t *testing.T) {
	for _, test := range []struct {
		name     string
		patient  bool // whoever asks first waits for the answer
		requests int
	}{
		{"one asks, all wait", true, 1},
		{"one asks and gives up, another one follows", false, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sim := isdpsim.New(isdpsim.Config{Agents: smallTenant})
				sim.SetFault(isdpsim.OnToken(isdpsim.Delay(5 * time.Second)))
				p := direct(t, sim, nil)
				var wg sync.WaitGroup
				get := func(patient bool) {
					wg.Go(func() {
						ctx, start := t.Context(), time.Now()
						if !patient {
							var cancel func()
							ctx, cancel = context.WithTimeout(ctx, time.Second)
							defer cancel()
						}
						_, err := p.tokens.get(ctx)
						switch {
						case patient && err != nil:
							t.Error(err)
						case !patient && (!errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second):
							t.Errorf("after %v: %v", time.Since(start), err)
						}
					})
				}
				get(test.patient)
				synctest.Wait()
				for i := range 49 {
					get(!test.patient || i%2 == 0)
				}
				wg.Wait()
				if n := sim.Stats().TokenRequests; n != test.requests {
					t.Errorf("%d token requests, want %d", n, test.requests)
				}
			})
		})
	}
}

func TestEarlyRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := isdpsim.New(isdpsim.Config{TokenTTL: 100 * time.Second})
		p := direct(t, sim, nil)
		get := func(after time.Duration, requests int) string {
			t.Helper()
			time.Sleep(after)
			tok, err := p.tokens.get(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if n := sim.Stats().TokenRequests; n != requests {
				t.Errorf("%d token requests, want %d", n, requests)
			}
			return tok
		}
		first := get(0, 1)
		get(79*time.Second, 1)
		second := get(2*time.Second, 2)
		if first == second {
			t.Error("the token was not renewed")
		}
		// While the endpoint is down the old token serves until its end.
		sim.SetFault(isdpsim.OnToken(isdpsim.Status(500)))
		if tok := get(81*time.Second, 6); tok != second {
			t.Error("a token that is still valid was given up")
		}
		time.Sleep(20 * time.Second)
		_, err := p.tokens.get(t.Context())
		wantClass(t, err, Unreachable, "HTTP 500")
	})
}

func TestReusedTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := isdpsim.New(isdpsim.Config{Agents: 10, TokenTTL: 359 * time.Second, ReuseTokens: true})
		p := direct(t, sim, nil)
		for range 120 {
			if v, _ := sweepOnce(t, p); !v.Complete {
				t.Error(v.Err)
			}
			time.Sleep(15 * time.Second)
		}
		if n := sim.Stats().TokenRequests; n > 40 {
			t.Errorf("%d token requests in half an hour, for tokens of six minutes", n)
		}
	})
}

func TestRevokedToken(t *testing.T) {
	for _, status := range []int{200, 400, 401, 403, 500, 503} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sim := isdpsim.New(isdpsim.Config{Agents: smallTenant, InvalidTokenStatus: status})
				p := direct(t, sim, nil)
				for range 3 {
					v, pages := sweepOnce(t, p)
					wantAll(t, sim, v, pages)
					sim.RevokeTokens()
					time.Sleep(5 * time.Second)
				}
				if n := sim.Stats().TokenRequests; n != 3 {
					t.Errorf("%d token requests, want one for each token revoked", n)
				}
			})
		})
	}
	t.Run("401 without XML", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			sim := isdpsim.New(isdpsim.Config{Agents: smallTenant})
			sim.SetFault(isdpsim.Times(1, isdpsim.OnAgents(isdpsim.Status(401))))
			v, pages := sweepOnce(t, direct(t, sim, nil))
			wantAll(t, sim, v, pages)
		})
	})
	t.Run("again and again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			sim := isdpsim.New(isdpsim.Config{Agents: smallTenant})
			sim.SetFault(isdpsim.Sometimes(7, 0.1, isdpsim.OnAgents(isdpsim.RevokeTokens())))
			p := direct(t, sim, nil)
			complete, start := 0, time.Now()
			for range 60 {
				if v, _ := sweepOnce(t, p); v.Complete {
					complete++
				}
				time.Sleep(5 * time.Second)
			}
			if complete < 55 {
				t.Errorf("%d of 60 sweeps were complete", complete)
			}
			if n, most := sim.Stats().TokenRequests, int(time.Since(start)/(2*time.Second)); n > most {
				t.Errorf("%d token requests in %v", n, time.Since(start))
			}
		})
	})
}

// Tokens that are issued and then refused must not make a loop.
func TestFreshTokensRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		sim := isdpsim.New(isdpsim.Config{Agents: smallTenant})
		sim.SetFault(isdpsim.OnAgents(isdpsim.InvalidToken(200)))
		p := direct(t, sim, logTo(&log))
		for start := time.Now(); time.Since(start) < 10*time.Minute; time.Sleep(5 * time.Second) {
			v, _ := sweepOnce(t, p)
			wantClass(t, v.Err, Credentials)
		}
		if n := sim.Stats().TokenRequests; n > 16 {
			t.Errorf("%d token requests in ten minutes", n)
		}
		if n := strings.Count(log.String(), "level=ERROR"); n != 1 {
			t.Errorf("told %d times: %s", n, &log)
		}
		sim.SetFault(nil)
		time.Sleep(time.Minute)
		v, pages := sweepOnce(t, p)
		wantAll(t, sim, v, pages)
	})
}

func TestCredentialsRefused(t *testing.T) {
	for _, status := range []int{400, 401, 403, 404} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				sim := isdpsim.New(isdpsim.Config{Agents: smallTenant})
				refuse := isdpsim.All(isdpsim.CredentialsRefused(), isdpsim.WithStatus(status))
				sim.SetFault(isdpsim.OnToken(refuse))
				p := direct(t, sim, logTo(&log))
				start := time.Now()
				_, err := p.Tenant(t.Context())
				wantClass(t, err, Credentials, "refused", fmt.Sprint(status), "invalid_grant", "ROLLCALL_ISDP_PASSWORD")
				for ; time.Since(start) < 10*time.Minute; time.Sleep(time.Second) {
					before := time.Now()
					v, _ := sweepOnce(t, p)
					wantClass(t, v.Err, Credentials)
					if time.Since(before) > time.Second {
						t.Errorf("it took %v to say so", time.Since(before))
					}
				}
				requests := sim.Requests()
				for i := range requests[1:] {
					if gap := requests[i+1].Time.Sub(requests[i].Time); i >= 4 && gap < time.Minute || i < 4 && gap < time.Second {
						t.Errorf("try %d came %v after the one before", i+2, gap)
					}
				}
				if len(requests) < 8 {
					t.Errorf("%d tries in ten minutes", len(requests))
				}
				if n := strings.Count(log.String(), "\n"); n != 1 {
					t.Errorf("told %d times: %s", n, &log)
				}
				noSecrets(t, log.String())
				sim.SetFault(nil)
				time.Sleep(time.Minute)
				v, pages := sweepOnce(t, p)
				wantAll(t, sim, v, pages)
			})
		})
	}
}

func TestTokenEndpointInTrouble(t *testing.T) {
	for _, tc := range []struct {
		name  string
		fault isdpsim.Fault
		class Class
		words string
	}{
		{"down", isdpsim.Status(503), Unreachable, "HTTP 503"},
		{"busy", isdpsim.Status(429), Unreachable, "HTTP 429"},
		{"silent", isdpsim.Delay(time.Hour), Unreachable, "within 10s"},
		{"HTML", isdpsim.HTML(), Unusable, "HTML or XML"},
		{"empty", isdpsim.Empty(), Unusable, "empty"},
		{"no token", isdpsim.Answer(200, "application/json", `{"error": "invalid_client"}`), Unusable, "invalid_client"},
		{"no object", isdpsim.Answer(200, "application/json", `[]`), Unusable, "another kind"},
		{"odd token", isdpsim.Answer(200, "application/json", `{"access_token": "a\r\nX-Evil: b", "plat_user": {"tenantId": 1}}`), Unusable, "access_token"},
		{"redirect", isdpsim.All(isdpsim.Status(302), isdpsim.Header("Location", "http://localhost/elsewhere")), Unusable, "redirect"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sim := isdpsim.New(isdpsim.Config{Agents: smallTenant})
				sim.SetFault(isdpsim.OnToken(tc.fault))
				p := direct(t, sim, nil)
				start := time.Now()
				for time.Since(start) < 10*time.Minute {
					v, _ := sweepOnce(t, p)
					wantClass(t, v.Err, tc.class, tc.words)
					time.Sleep(time.Second)
				}
				if n := sim.Stats().TokenRequests; n > 4*70 {
					t.Errorf("%d token requests in ten minutes", n)
				}
				// Who waits for the tenant waits for the endpoint.
				time.AfterFunc(5*time.Minute, func() { sim.SetFault(nil) })
				start = time.Now()
				id, err := p.Tenant(t.Context())
				for ; err != nil && time.Since(start) < 10*time.Minute; id, err = p.Tenant(t.Context()) {
					wantClass(t, err, tc.class, tc.words)
					time.Sleep(time.Second)
				}
				if took := time.Since(start); err != nil || id != 886 || took < 5*time.Minute {
					t.Errorf("tenant %d after %v, error %v", id, took, err)
				}
			})
		})
	}
}

func TestTenant(t *testing.T) {
	for _, tc := range []struct {
		name, user string
		configured int64
		want       int64
		words      string
	}{
		{"number", `{"tenantId": 886}`, 0, 886, ""},
		{"string", `{"tenantId": "886"}`, 0, 886, ""},
		{"above 2^53", `{"tenantId": 9007199254740993}`, 0, 9007199254740993, ""},
		{"both", `{"tenantId": 886}`, 886, 886, ""},
		{"configured only", `{}`, 886, 886, ""},
		{"configured, null", `null`, 886, 886, ""},
		{"differ", `{"tenantId": 886}`, 887, 0, "ROLLCALL_TENANT_ID"},
		{"neither", `{}`, 0, 0, "set ROLLCALL_TENANT_ID"},
		{"neither, no object", `[]`, 0, 0, "set ROLLCALL_TENANT_ID"},
		{"zero", `{"tenantId": 0}`, 0, 0, "set ROLLCALL_TENANT_ID"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				vendor := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					fmt.Fprintf(w, `{"access_token": "tok", "expires_in": "359", "plat_user": %s}`, tc.user)
				})
				got, err := direct(t, vendor, func(c *Config) { c.TenantID = tc.configured }).Tenant(t.Context())
				if got != tc.want {
					t.Errorf("tenant %d, want %d (%v)", got, tc.want, err)
				}
				if tc.words != "" {
					wantClass(t, err, Credentials, tc.words)
				}
			})
		})
	}
}

func TestTenantChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tenant := 886
		vendor := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, `{"access_token": "tok-%d", "expires_in": 60, "plat_user": {"tenantId": %d}}`, tenant, tenant)
		})
		p := direct(t, vendor, nil)
		if _, err := p.Tenant(t.Context()); err != nil {
			t.Fatal(err)
		}
		tenant = 887
		time.Sleep(time.Hour)
		_, err := p.Tenant(t.Context())
		wantClass(t, err, Credentials, "887", "886")
	})
}
