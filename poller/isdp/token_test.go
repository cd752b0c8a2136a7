package isdp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"github.com/rollcall-events/rollcall/internal/test/sweeptest"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-events/rollcall/internal/test/isdpsim"

	"github.com/rollcall-events/rollcall/internal/listing"
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
				sim := isdpsim.New(isdpsim.Config{Agents: sweeptest.SmallTenant})
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
						case !patient && (!errors.Is(err, context.DeadlineExceeded) ||
							time.Since(start) != time.Second):
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

// A token's answer comes through gateways too.
func TestTokenAsMeant(t *testing.T) {
	for what, fault := range map[string]isdpsim.Fault{
		"a byte order mark": isdpsim.Respelled(func(b []byte) []byte {
			return append([]byte("\ufeff"), b...)
		}),
		"a comma": isdpsim.Respelled(func(b []byte) []byte {
			return append(b[:len(b)-1:len(b)-1], ",\n}"...)
		}),
		"no compression": isdpsim.Header("Content-Encoding", "gzip"),
	} {
		sim := isdpsim.New(isdpsim.Config{})
		sim.SetFault(isdpsim.OnToken(fault))
		if id, err := served(t, sim, nil).Tenant(t.Context()); err != nil || id != 886 {
			t.Errorf("%s: tenant %d, %v", what, id, err)
		}
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
		sweeptest.WantClass(t, err, listing.Unreachable, "HTTP 500")
	})
}

func TestReusedTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := isdpsim.New(
			isdpsim.Config{Agents: 10, TokenTTL: 359 * time.Second, ReuseTokens: true},
		)
		p := direct(t, sim, nil)
		for range 120 {
			if v, _ := sweeptest.Once(t, p); !v.Complete {
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
				sim := isdpsim.New(
					isdpsim.Config{Agents: sweeptest.SmallTenant, InvalidTokenStatus: status},
				)
				p := direct(t, sim, nil)
				for range 3 {
					v, pages := sweeptest.Once(t, p)
					sweeptest.WantAll(t, sim, v, pages)
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
			sim := isdpsim.New(isdpsim.Config{Agents: sweeptest.SmallTenant})
			sim.SetFault(isdpsim.Times(1, isdpsim.OnAgents(isdpsim.Status(401))))
			v, pages := sweeptest.Once(t, direct(t, sim, nil))
			sweeptest.WantAll(t, sim, v, pages)
		})
	})
	t.Run("again and again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			sim := isdpsim.New(isdpsim.Config{Agents: sweeptest.SmallTenant})
			sim.SetFault(isdpsim.Sometimes(7, 0.1, isdpsim.OnAgents(isdpsim.RevokeTokens())))
			p := direct(t, sim, nil)
			complete, start := 0, time.Now()
			for range 60 {
				if v, _ := sweeptest.Once(t, p); v.Complete {
					complete++
				}
				time.Sleep(5 * time.Second)
			}
			if complete < 55 {
				t.Errorf("%d of 60 sweeps were complete", complete)
			}
			if n, most := sim.Stats().TokenRequests,
				int(time.Since(start)/(2*time.Second)); n > most {
				t.Errorf("%d token requests in %v", n, time.Since(start))
			}
		})
	})
}

// Tokens that are issued and then refused must not make a loop.
func TestFreshTokensRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		sim := isdpsim.New(isdpsim.Config{Agents: sweeptest.SmallTenant})
		sim.SetFault(isdpsim.OnAgents(isdpsim.InvalidToken(200)))
		p := direct(t, sim, logTo(&log))
		for start := time.Now(); time.Since(start) < 10*time.Minute; time.Sleep(5 * time.Second) {
			v, _ := sweeptest.Once(t, p)
			sweeptest.WantClass(t, v.Err, listing.Credentials)
		}
		if n := sim.Stats().TokenRequests; n > 16 {
			t.Errorf("%d token requests in ten minutes", n)
		}
		if n := strings.Count(log.String(), "level=ERROR"); n != 1 {
			t.Errorf("told %d times: %s", n, &log)
		}
		sim.SetFault(nil)
		time.Sleep(time.Minute)
		v, pages := sweeptest.Once(t, p)
		sweeptest.WantAll(t, sim, v, pages)
	})
}

func TestCredentialsRefused(t *testing.T) {
	for _, status := range []int{400, 401, 403, 404} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				sim := isdpsim.New(isdpsim.Config{Agents: sweeptest.SmallTenant})
				refuse := isdpsim.All(isdpsim.CredentialsRefused(), isdpsim.WithStatus(status))
				sim.SetFault(isdpsim.OnToken(refuse))
				p := direct(t, sim, logTo(&log))
				start := time.Now()
				_, err := p.Tenant(t.Context())
				sweeptest.WantClass(
					t,
					err,
					listing.Credentials,
					"refused",
					fmt.Sprint(status),
					"invalid_grant",
					"ROLLCALL_ISDP_PASSWORD",
				)
				for ; time.Since(start) < 10*time.Minute; time.Sleep(time.Second) {
					before := time.Now()
					v, _ := sweeptest.Once(t, p)
					sweeptest.WantClass(t, v.Err, listing.Credentials)
					if time.Since(before) > time.Second {
						t.Errorf("it took %v to say so", time.Since(before))
					}
				}
				requests := sim.Requests()
				for i := range requests[1:] {
					if gap := requests[i+1].Time.Sub(requests[i].Time); i >= 4 &&
						gap < time.Minute ||
						i < 4 && gap < time.Second {
						t.Errorf("try %d came %v after the one before", i+2, gap)
					}
				}
				if len(requests) < 8 {
					t.Errorf("%d tries in ten minutes", len(requests))
				}
				if n := strings.Count(log.String(), "\n"); n != 1 {
					t.Errorf("told %d times: %s", n, &log)
				}
				sweeptest.NoSecrets(t, log.String())
				sim.SetFault(nil)
				time.Sleep(time.Minute)
				v, pages := sweeptest.Once(t, p)
				sweeptest.WantAll(t, sim, v, pages)
			})
		})
	}
}

// Whatever refuses a token call is asked rarely, whatever its form.
func TestTokenCallRefused(t *testing.T) {
	const spring = `<InvalidGrantException><error>invalid_grant</error>` +
		`<error_description>x</error_description></InvalidGrantException>`
	for _, tc := range []struct {
		name, words string
		fault       isdpsim.Fault
	}{
		{"200 and an error", "invalid_grant",
			isdpsim.Answer(200, "application/json", `{"error":"invalid_grant"}`)},
		{"200 and another error", "invalid_client", isdpsim.Answer(200, "application/json",
			"\ufeff{\" error\":\"invalid_client \",\"access_token\":null}")},
		{"200 and an error of the vendor's own", "refused",
			isdpsim.Answer(200, "application/json", `{"error":"app disabled"}`)},
		{"200 and an error that is no text", "refused",
			isdpsim.Answer(200, "application/json", `{"error":{"code":17}}`)},
		{"200 and an error in XML", "invalid_grant",
			isdpsim.Answer(200, "application/xml", spring)},
		{"200 and an exception", "refused",
			isdpsim.Answer(200, "application/xml", `<UnauthorizedException/>`)},
		{"400 in XML", "invalid_grant", isdpsim.Answer(400, "application/xml", spring)},
		{"403 in HTML", "HTTP 403", isdpsim.Answer(403, "text/html", `<html>no</html>`)},
		{"404", "ROLLCALL_ISDP_URL", isdpsim.Status(404)},
		{"405", "ROLLCALL_ISDP_URL", isdpsim.Status(405)},
		{"408", "HTTP 408", isdpsim.Status(408)},
		{"422", "HTTP 422", isdpsim.Status(422)},
		{"451", "HTTP 451", isdpsim.Status(451)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				sim := isdpsim.New(isdpsim.Config{Agents: sweeptest.SmallTenant})
				sim.SetFault(isdpsim.OnToken(tc.fault))
				p := direct(t, sim, logTo(&log))
				for start := time.Now(); time.Since(start) < 2*time.Minute; time.Sleep(
					time.Second) {
					v, _ := sweeptest.Once(t, p)
					sweeptest.WantClass(t, v.Err, listing.Credentials, tc.words)
				}
				if n := sim.Stats().TokenRequests; n != 6 {
					t.Errorf(
						"%d token requests in two minutes, want 6: after 2, 5, 15, 30 and 60 s",
						n,
					)
				}
				if n := strings.Count(log.String(), "level=ERROR"); n != 1 {
					t.Errorf("told %d times: %s", n, &log)
				}
				sweeptest.NoSecrets(t, log.String())
			})
		})
	}
}

// Several nodes answer at one address, and not all of them know a token that the others take.
// Sweeps are slower then, but they are complete, tokens are asked for rarely, and nobody doubts the
// credentials.
func TestTokenRefusedByTurns(t *testing.T) {
	const xmlBody = "<InvalidTokenException><error>invalid_token</error></InvalidTokenException>"
	const agentsPath = "/openapi/v1/openTask/findOnlineAgent"
	refuse := func(w http.ResponseWriter, n int) {
		switch n % 4 {
		case 0:
			io.WriteString(w, xmlBody)
		case 1:
			w.WriteHeader(http.StatusUnauthorized)
		case 2:
			w.WriteHeader(http.StatusForbidden)
			io.WriteString(w, `{"error": "invalid_token"}`)
		case 3:
			io.WriteString(w, `{"error": "invalid_token"}`)
		}
	}
	type request struct {
		n, page int // of the requests for pages
		token   string
	}
	for _, tc := range []struct {
		name    string
		reuse   bool // the endpoint hands the same token out again as long as it lives
		refuses func() func(request) bool
	}{
		{"every second request", false,
			func() func(request) bool { return func(r request) bool { return r.n%2 == 1 } }},
		{"every second request, one token", true,
			func() func(request) bool { return func(r request) bool { return r.n%2 == 1 } }},
		{"two of three requests", false,
			func() func(request) bool { return func(r request) bool { return r.n%3 != 0 } }},
		{"two of three requests, one token", true,
			func() func(request) bool { return func(r request) bool { return r.n%3 != 2 } }},
		{"the first of every page", false, func() func(request) bool {
			var last [100]int
			return func(r request) bool { last[r.page]++; return last[r.page]%2 == 1 }
		}},
		{"a second node that takes no token which the first has seen", false,
			func() func(request) bool {
				first := map[string]bool{}
				return func(r request) bool {
					if r.page%2 == 1 {
						return first[r.token]
					}
					first[r.token] = true
					return false
				}
			}},
		{"a second node that knows a token half a minute late", false, func() func(request) bool {
			since := map[string]time.Time{}
			return func(r request) bool {
				if since[r.token].IsZero() {
					since[r.token] = time.Now()
				}
				return r.n%2 == 1 && time.Since(since[r.token]) < 30*time.Second
			}
		}},
	} {
		for _, limit := range []float64{1, 10} {
			t.Run(fmt.Sprintf("%s, %v a second", tc.name, limit), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var log bytes.Buffer
					sim := isdpsim.New(
						isdpsim.Config{
							Agents:      sweeptest.SmallTenant,
							ReuseTokens: tc.reuse,
							TokenTTL:    5 * time.Minute,
						},
					)
					refuses := tc.refuses()
					var mu sync.Mutex
					n := -1
					vendor := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if r.URL.Path != agentsPath {
							sim.ServeHTTP(w, r)
							return
						}
						body, _ := io.ReadAll(r.Body)
						r.Body = io.NopCloser(bytes.NewReader(body))
						var q struct{ PageStart int }
						_ = json.Unmarshal(body, &q)
						mu.Lock()
						defer mu.Unlock()
						n++
						if refuses(request{n, q.PageStart, r.Header.Get("Authorization")}) {
							refuse(w, n)
							return
						}
						sim.ServeHTTP(w, r)
					})
					p := direct(
						t,
						vendor,
						func(c *settings) { c.RateLimit = limit; logTo(&log)(c) },
					)
					start := time.Now()
					for range 30 {
						v, pages := sweeptest.Once(t, p)
						sweeptest.WantAll(t, sim, v, pages)
						time.Sleep(5 * time.Second)
					}
					took := time.Since(start)
					if n, most := sim.Stats().TokenRequests, 2+int(took/revokedGap); n > most {
						t.Errorf("%d token requests in %v, want one in %v", n, took, revokedGap)
					}
					t.Logf(
						"30 sweeps in %v, %d requests, %d of them for tokens",
						took,
						sim.Stats().Requests,
						sim.Stats().TokenRequests,
					)
					if log.Len() > 0 {
						t.Errorf("told: %s", &log)
					}
				})
			})
		}
	}
}

// A token that worked is revoked for good in mid-sweep, and so is every one after it.
func TestRevokedForGood(t *testing.T) {
	for _, reuse := range []bool{false, true} {
		t.Run(fmt.Sprint(reuse), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				sim := isdpsim.New(
					isdpsim.Config{Agents: sweeptest.SmallTenant, ReuseTokens: reuse},
				)
				p := direct(t, sim, logTo(&log))
				v, pages := sweeptest.Once(t, p)
				sweeptest.WantAll(t, sim, v, pages)
				sim.SetFault(
					isdpsim.After(
						3,
						isdpsim.OnAgents(
							isdpsim.Answer(403, "application/json", `{"error":"invalid_token"}`),
						),
					),
				)
				start := time.Now()
				for ; time.Since(start) < 10*time.Minute; time.Sleep(5 * time.Second) {
					if v, _ = sweeptest.Once(t, p); v.Complete {
						t.Fatal("a complete sweep")
					}
				}
				sweeptest.WantClass(t, v.Err, listing.Credentials)
				if n := sim.Stats().TokenRequests; n > 20 {
					t.Errorf("%d token requests in ten minutes", n)
				}
				if n := strings.Count(log.String(), "level=ERROR"); n != 1 {
					t.Errorf("told %d times: %s", n, &log)
				}
				sim.SetFault(nil)
				time.Sleep(time.Minute)
				v, pages = sweeptest.Once(t, p)
				sweeptest.WantAll(t, sim, v, pages)
			})
		})
	}
}

// Credentials that were replaced are taken up with the next sweep after that, and nobody asks more
// often for it.
func TestCredentialsReplaced(t *testing.T) {
	const renewed = "another-application-token"
	for _, tc := range []struct {
		name   string
		revoke bool // tokens too; otherwise the last one serves until its end
		status int  // of the refusal; 0: the vendor's
	}{
		{"tokens revoked", true, 0}, {"tokens stay", false, 0}, {"200", true, 200},
		{"403", true, 403},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				sim := isdpsim.New(
					isdpsim.Config{
						Agents:        sweeptest.SmallTenant,
						TokenTTL:      5 * time.Minute,
						RefusedStatus: tc.status,
					},
				)
				first := config("").account()
				var mu sync.Mutex
				file, unreadable, reads := first, error(nil), 0
				p := direct(t, sim, func(c *settings) {
					logTo(&log)(c)
					c.Reread = func() (Account, error) {
						mu.Lock()
						defer mu.Unlock()
						reads++
						return file, unreadable
					}
				})
				set := func(a Account, err error) {
					mu.Lock()
					defer mu.Unlock()
					file, unreadable = a, err
				}
				sweepFor := func(d time.Duration) (v listing.Verdict) {
					for start := time.Now(); time.Since(start) < d; time.Sleep(5 * time.Second) {
						v, _ = sweeptest.Once(t, p)
					}
					return v
				}
				if v := sweepFor(time.Minute); !v.Complete || reads > 0 {
					t.Fatalf("%v, read %d times", v.Err, reads)
				}
				sim.SetPassword(renewed)
				if tc.revoke {
					sim.RevokeTokens()
				}
				sweeptest.WantClass(t, sweepFor(20*time.Minute).Err, listing.Credentials)
				set(Account{}, errors.New("no such file")) // while it is being replaced
				sweeptest.WantClass(t, sweepFor(20*time.Minute).Err, listing.Credentials)
				half := first
				half.ClientID = "wrong" // the one was replaced before the other
				set(half, nil)
				sweeptest.WantClass(t, sweepFor(time.Minute).Err, listing.Credentials)
				calls := sim.Stats().TokenRequests
				good := first
				good.Password = renewed
				set(good, nil)
				v, pages := sweeptest.Once(t, p)
				sweeptest.WantAll(t, sim, v, pages)
				if n := sim.Stats().TokenRequests - calls; n != 1 {
					t.Errorf("%d token calls with the new credentials, want one", n)
				}
				if calls > 60 {
					t.Errorf("%d token calls in 41 minutes", calls)
				}
				text := log.String()
				for what, most := range map[string]int{"level=ERROR": 5, "can't be read again": 2,
					"trying them": 2, "answered again": 1} {
					if n := strings.Count(text, what); n == 0 || n > most {
						t.Errorf("%q was told %d times:\n%s", what, n, text)
					}
				}
				sweeptest.NoSecrets(t, text)
				if strings.Contains(text, renewed) ||
					strings.Contains(p.caller.scrub("x "+renewed+" y "+first.Password), renewed) ||
					strings.Contains(p.caller.scrub(first.Password), first.Password) {
					t.Error("a secret shows")
				}
				// Refused once more, for good: as rarely as ever.
				sim.SetPassword("a third one")
				sim.RevokeTokens()
				calls = sim.Stats().TokenRequests
				sweepFor(2 * time.Minute)
				if n := sim.Stats().TokenRequests - calls; n > 6 {
					t.Errorf("%d token calls in two minutes, want 6 at the most", n)
				}
			})
		})
	}
}

// Tokens of megabytes are none: nothing keeps them, and no request carries them.
func TestHugeTokens(t *testing.T) {
	for _, tc := range []struct {
		name  string
		n     int
		words string // empty: it is taken
	}{
		{"access_token", maxToken, ""}, {"access_token", maxToken + 1, "16385 bytes"},
		{"access_token", 7 << 20, "7340032 bytes"},
		{"refresh_token", maxToken, ""}, {"refresh_token", maxToken + 1, "refresh_token"},
		{"refresh_token", 7 << 20, "refresh_token"},
	} {
		sim := isdpsim.New(isdpsim.Config{})
		sim.SetFault(isdpsim.OnToken(isdpsim.Answer(200, "application/json", fmt.Sprintf(
			`{"access_token": "t", %q: "%s", "expires_in": 359, "plat_user": {"tenantId": 886}}`,
			tc.name,
			strings.Repeat("x", tc.n),
		))))
		p := direct(t, sim, nil)
		switch _, _, err := p.tokens.once(t.Context()); {
		case tc.words != "":
			sweeptest.WantClass(t, err, listing.Unusable, tc.words)
			if len(p.caller.tokens) > 0 {
				t.Errorf("%s of %d bytes is kept", tc.name, tc.n)
			}
		case err != nil:
			t.Errorf("%s of %d bytes: %v", tc.name, tc.n, err)
		}
	}
}

func TestTokenEndpointInTrouble(t *testing.T) {
	for _, tc := range []struct {
		name  string
		fault isdpsim.Fault
		class listing.Class
		words string
	}{
		{"down", isdpsim.Status(503), listing.Unreachable, "HTTP 503"},
		{"busy", isdpsim.Status(429), listing.Unreachable, "HTTP 429"},
		{"silent", isdpsim.Delay(time.Hour), listing.Unreachable, "within 10s"},
		{"HTML", isdpsim.HTML(), listing.Unusable, "HTML or XML"},
		{"empty", isdpsim.Empty(), listing.Unusable, "empty"},
		{"no token", isdpsim.Answer(200, "application/json",
			`{"token_type": "bearer", "error": null}`), listing.Unusable, "no access_token"},
		{"no object", isdpsim.Answer(200, "application/json", `[]`), listing.Unusable,
			"another kind"},
		{"odd token",
			isdpsim.Answer(200, "application/json",
				`{"access_token": "a\r\nX-Evil: b", "plat_user": {"tenantId": 1}}`),
			listing.Unusable, "access_token"},
		{"redirect",
			isdpsim.All(isdpsim.Status(302),
				isdpsim.Header("Location", "http://localhost/elsewhere")), listing.Unusable,
			"redirect"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sim := isdpsim.New(isdpsim.Config{Agents: sweeptest.SmallTenant})
				sim.SetFault(isdpsim.OnToken(tc.fault))
				p := direct(t, sim, nil)
				start := time.Now()
				for time.Since(start) < 10*time.Minute {
					v, _ := sweeptest.Once(t, p)
					sweeptest.WantClass(t, v.Err, tc.class, tc.words)
					time.Sleep(time.Second)
				}
				if n := sim.Stats().TokenRequests; n > 4*70 {
					t.Errorf("%d token requests in ten minutes", n)
				}
				// Who waits for the tenant waits for the endpoint.
				time.AfterFunc(5*time.Minute, func() { sim.SetFault(nil) })
				start = time.Now()
				id, err := p.Tenant(t.Context())
				for ; err != nil && time.Since(start) < 10*time.Minute; id,
					err = p.Tenant(t.Context()) {
					sweeptest.WantClass(t, err, tc.class, tc.words)
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
					fmt.Fprintf(
						w,
						`{"access_token": "tok", "expires_in": "359", "plat_user": %s}`,
						tc.user,
					)
				})
				got, err := direct(
					t,
					vendor,
					func(c *settings) { c.TenantID = tc.configured },
				).Tenant(t.Context())
				if got != tc.want {
					t.Errorf("tenant %d, want %d (%v)", got, tc.want, err)
				}
				if tc.words != "" {
					sweeptest.WantClass(t, err, listing.Credentials, tc.words)
				}
			})
		})
	}
}

func TestTenantChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tenant := 886
		vendor := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(
				w,
				`{"access_token": "tok-%d", "expires_in": 60, "plat_user": {"tenantId": %d}}`,
				tenant,
				tenant,
			)
		})
		p := direct(t, vendor, nil)
		if _, err := p.Tenant(t.Context()); err != nil {
			t.Fatal(err)
		}
		tenant = 887
		time.Sleep(time.Hour)
		_, err := p.Tenant(t.Context())
		sweeptest.WantClass(t, err, listing.Credentials, "887", "886")
	})
}
