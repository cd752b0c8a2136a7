package isdp

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"github.com/rollcall-events/rollcall/internal/test/sweeptest"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-events/rollcall/internal/test/isdpsim"

	"github.com/rollcall-events/rollcall/internal/listing"
)

// tokenThen answers token requests as the simulated tenant does, and pages with the handler.
func tokenThen(pages http.HandlerFunc) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", isdpsim.New(isdpsim.Config{}))
	mux.HandleFunc("/openapi/v1/openTask/findOnlineAgent", pages)
	return mux
}

func TestOversizedAnswers(t *testing.T) {
	const most = 64 << 20 // what the kernel may have buffered besides
	var written atomic.Int64
	endless := func(w http.ResponseWriter) {
		block := bytes.Repeat([]byte(`{"agentId": 1}, `), 1<<12)
		for written.Load() < 512<<20 {
			n, err := w.Write(block)
			written.Add(int64(n))
			if err != nil {
				return
			}
		}
	}
	for name, answer := range map[string]http.HandlerFunc{
		"chunked": func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, `{"stateCode": "0", "result": {"total_count": 1, "data": [`)
			endless(w)
		},
		"announced": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "536870912")
			endless(w)
		},
		"compressed": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z, _ := gzip.NewWriterLevel(w, gzip.BestSpeed)
			z.Write(make([]byte, maxBody+1))
			z.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			written.Store(0)
			p := served(t, tokenThen(answer), func(c *settings) { c.RateLimit = 1000 })
			tok, e := p.tokens.get(t.Context())
			if e != nil {
				t.Fatal(e)
			}
			r, e := p.caller.post(t.Context(), p.agentsURL, tok, []byte("{}"))
			if e == nil {
				t.Fatalf("%d bytes were accepted", len(r.utf8))
			}
			sweeptest.WantClass(t, e, listing.Unusable, "8 MiB")
			p.caller.http.(*connections).CloseIdleConnections()
			if n := written.Load(); n > most {
				t.Errorf("%d bytes were read", n)
			}
		})
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	for _, status := range []int{301, 302, 303, 307, 308} {
		synctest.Test(t, func(t *testing.T) {
			redirect := func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(status)
				if r.URL.Path == "/elsewhere" {
					t.Error("the redirect was followed")
				}
			}
			for _, vendor := range []http.Handler{tokenThen(redirect), http.HandlerFunc(redirect)} {
				v, _ := sweeptest.Once(t, direct(t, vendor, nil))
				sweeptest.WantClass(t, v.Err, listing.Unusable, fmt.Sprint(status), "redirect")
			}
		})
	}
}

// readOnce tries to read page 0 once.
func readOnce(t *testing.T, p *rig) error {
	t.Helper()
	_, err := p.Read(t.Context(), listing.Request{})
	if err == nil {
		t.Fatal("the page could be read")
	}
	sweeptest.NoSecrets(t, err.Error())
	return err
}

func TestBrokenConnections(t *testing.T) {
	reset := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		io.WriteString(w, `{"stateCode": "0"`)
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	p := served(t, tokenThen(reset), func(c *settings) { c.RateLimit = 1000 })
	sweeptest.WantClass(t, readOnce(t, p), listing.Unreachable, "EOF")

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close() // nobody listens there any more
	p.agentsURL = "http://" + ln.Addr().String()
	sweeptest.WantClass(t, readOnce(t, p), listing.Unreachable, "connection refused")
}

// A server that is none, and shows what it was sent, must not bring a secret into an error.
func TestEchoedSecrets(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			b := make([]byte, 4096)
			n, _ := c.Read(b)
			_, body, _ := bytes.Cut(b[:n], []byte("\r\n\r\n"))
			c.Write(append(body, "\r\n\r\n"...))
			c.Close()
		}
	}()
	echo := tokenThen(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(
			w,
			`{"stateCode": "1", "errorMessage": "no\u0007\n %s %s %s"}`,
			r.Header.Get("Authorization"),
			isdpsim.DemoPassword,
			strings.Repeat("长", 1000),
		)
	})
	p := served(t, echo, func(c *settings) { c.RateLimit = 1000 })
	failure := readOnce(t, p)
	sweeptest.WantClass(t, failure, listing.Unusable, `"no   bearer [secret] [secret] 长`)
	tok, _ := p.tokens.get(t.Context())
	if text := failure.Error(); strings.Contains(text, tok) || len(text) > 1000 ||
		strings.ContainsAny(text, "\a\n") {
		t.Errorf("%d bytes: %s", len(text), text)
	}

	p.tokens.url = "http://" + ln.Addr().String()
	_, _, e := p.tokens.once(t.Context())
	sweeptest.WantClass(t, e, listing.Unreachable, "malformed HTTP")
	sweeptest.NoSecrets(t, e.Error())
}

func TestRequestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := isdpsim.New(isdpsim.Config{Agents: sweeptest.SmallTenant})
		sim.SetFault(isdpsim.OnPage(2, isdpsim.Delay(time.Hour)))
		start := time.Now()
		v, pages := sweeptest.Once(
			t,
			direct(t, sim, func(c *settings) { c.RequestTimeout = 3 * time.Second }),
		)
		sweeptest.WantClass(t, v.Err, listing.Unreachable, "page 2", "within 3s")
		if !errors.Is(v.Err, context.DeadlineExceeded) || len(pages) != 6 {
			t.Errorf("%d pages, error %v", len(pages), v.Err)
		}
		if took := time.Since(start); took < 12*time.Second || took > 20*time.Second {
			t.Errorf("four tries of 3s took %v", took)
		}
	})
}

// However an answer fails to end, and whatever its status, the request ends in its time, and with
// the caller's.
func TestAnswersWithoutEnd(t *testing.T) {
	const head = "Content-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{"
	drip := func(line string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			for err == nil {
				_, err = io.WriteString(conn, line)
				time.Sleep(time.Millisecond)
			}
		}
	}
	answers := map[string]http.Handler{
		"a flood of 100":     drip("HTTP/1.1 100 Continue\r\n\r\n"),
		"a flood of 103":     drip("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"),
		"a header in drips":  drip("X"),
		"a body in drips":    drip("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"),
		"a trailer in drips": drip("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"),
	}
	for _, protocol := range []string{"websocket", "h2c", "TLS/1.2, HTTP/1.1", ""} {
		sim := isdpsim.New(isdpsim.Config{})
		sim.SetFault(func(isdpsim.Request) isdpsim.Fault { return isdpsim.Switch(protocol) })
		answers["101 "+protocol] = sim
	}
	for _, status := range []string{"100 Continue", "101 Switching Protocols", "200 OK",
		"204 No Content", "206 Partial Content",
		"302 Found", "304 Not Modified", "401 Unauthorized", "407 Proxy Authentication Required",
		"429 Too Many", "500 No", "599 No"} {
		sim := isdpsim.New(isdpsim.Config{})
		sim.SetFault(
			func(isdpsim.Request) isdpsim.Fault {
				return isdpsim.Raw("HTTP/1.1 " + status + "\r\n" + head)
			},
		)
		answers[status] = sim
	}
	for name, vendor := range answers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := served(
				t,
				vendor,
				func(c *settings) { c.RateLimit, c.RequestTimeout = 1000, 200*time.Millisecond },
			)
			wantEnd := func(ctx context.Context) {
				ended := make(chan *listing.Error, 1)
				go func() {
					_, _, err := p.tokens.once(ctx)
					ended <- err
				}()
				select {
				case err := <-ended:
					if err == nil {
						t.Error("it counts as a token")
					}
				case <-time.After(20 * time.Second):
					t.Fatal("the request goes on")
				}
			}
			wantEnd(t.Context())
			// now it is the caller who ends it, once it is under way or before
			p.caller.timeout = time.Hour
			stopping, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer stop()
			wantEnd(stopping)
		})
	}
}

func TestRetryAfterHeader(t *testing.T) {
	now := time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)
	at := func(d time.Duration) string { return now.Add(d).Format(http.TimeFormat) }
	for _, tc := range []struct {
		value, date string
		want        time.Duration
		ok          bool
	}{
		{"7", "", 7 * time.Second, true},
		{"0", "", 0, true},
		{"99999999999999", "", maxPause, true},
		{at(7 * time.Second), "", 7 * time.Second, true},
		// the vendor's clock is wrong
		{at(time.Hour + 7*time.Second), at(time.Hour), 7 * time.Second, true},
		{at(-time.Hour), "", 0, true},
		{at(24 * time.Hour), "", maxPause, true},
		{"", "", 0, false},
		{"-7", "", 0, false},
		{"soon", "", 0, false},
	} {
		h := http.Header{"Retry-After": {tc.value}, "Date": {tc.date}}
		if got, ok := retryAfter(h, now); got != tc.want || ok != tc.ok {
			t.Errorf("Retry-After %q, Date %q: %v, %v", tc.value, tc.date, got, ok)
		}
	}
}

func TestSlowDown(t *testing.T) {
	for name, fault := range map[string]isdpsim.Fault{
		"429, seconds": isdpsim.RetryAfter(429, 5*time.Second),
		"503, seconds": isdpsim.RetryAfter(503, 5*time.Second),
		"500, seconds": isdpsim.RetryAfter(500, 5*time.Second),
		"403, seconds": isdpsim.RetryAfter(403, 5*time.Second),
		"429, date": func(p *isdpsim.Plan) {
			isdpsim.RetryAt(429, p.Request.Time.Add(5*time.Second))(p)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				sim := isdpsim.New(isdpsim.Config{Agents: 500})
				sim.SetFault(isdpsim.Times(1, isdpsim.After(9, isdpsim.OnAgents(fault))))
				p := direct(t, sim, logTo(&log))
				v, pages := sweeptest.Once(t, p)
				sweeptest.WantAll(t, sim, v, pages)
				requests := sim.Requests()
				gap := func(i int) time.Duration { return requests[i+1].Time.Sub(requests[i].Time) }
				// The token, nine pages, and the one that is told to wait.
				if g := gap(10); g < 5*time.Second {
					t.Errorf("the next request came after %v", g)
				}
				if g := gap(11); g < 190*time.Millisecond {
					t.Errorf("after it the rate is one in %v, want about half of 10 a second", g)
				}
				if g := gap(len(requests) - 2); g > 101*time.Millisecond {
					t.Errorf("it ends with a request in %v, want the full rate", g)
				}
				if n := strings.Count(log.String(), "level=WARN"); n != 1 {
					t.Errorf("told %d times: %s", n, &log)
				}
			})
		})
	}
	t.Run("always", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			sim := isdpsim.New(isdpsim.Config{Agents: 500})
			sim.SetFault(isdpsim.OnAgents(isdpsim.Status(429)))
			p := direct(t, sim, nil)
			start := time.Now()
			for time.Since(start) < 10*time.Minute {
				v, _ := sweeptest.Once(t, p)
				sweeptest.WantClass(t, v.Err, listing.Unreachable, "HTTP 429")
				time.Sleep(time.Second)
			}
			if n := sim.Stats().Requests; n > 250 {
				t.Errorf("%d requests in ten minutes", n)
			}
		})
	})
	t.Run("longer than a sweep", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			sim := isdpsim.New(isdpsim.Config{Agents: sweeptest.SmallTenant})
			sim.SetFault(isdpsim.Times(1, isdpsim.OnAgents(isdpsim.RetryAfter(429, 2*time.Minute))))
			p := direct(t, sim, func(c *settings) { c.SweepTimeout = 30 * time.Second })
			start := time.Now()
			for range 2 {
				v, _ := sweeptest.Once(t, p)
				sweeptest.WantClass(t, v.Err, listing.Unreachable)
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("two sweeps that could do nothing took %v", took)
			}
			time.Sleep(2 * time.Minute)
			v, pages := sweeptest.Once(t, p)
			sweeptest.WantAll(t, sim, v, pages)
			if n := sim.Stats().PageRequests; n != 8 {
				t.Errorf("%d pages were asked for, want one and then all seven", n)
			}
		})
	})
}

// A throttle that answers with refusals alone, by one of the ways in which it can: 60 calls a
// minute.
func TestThrottleWithoutSayingSo(t *testing.T) {
	for _, tc := range []struct {
		name   string
		agents int
		limit  float64
		fault  isdpsim.Fault
		words  string
		// refused calls; without slowing down 4,600, of a single page 2,300, at twice the speed 950
		most int
	}{
		{"403", 500, 10, isdpsim.Status(403), "HTTP 403", 1000},
		{"403 in JSON", 500, 10,
			isdpsim.Answer(403, "application/json", `{"error":"access_denied"}`), "HTTP 403", 1000},
		{"418", 500, 10, isdpsim.Status(418), "HTTP 418", 1000},
		{"stateCode", 500, 10, isdpsim.StateCode("1010", "too many"), "stateCode 1010", 1000},
		{"a single page", 3, 10, isdpsim.StateCode("1010", "too many"), "stateCode 1010", 1000},
		{"twice as fast", 60, 2, isdpsim.Status(403), "HTTP 403", 300},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const window, allowed = time.Minute, 60
				var log bytes.Buffer
				sim := isdpsim.New(isdpsim.Config{Agents: tc.agents, TokenTTL: time.Hour})
				refused, asked := 0, 0
				var mu sync.Mutex
				var in []time.Time
				counting := func() (over bool) {
					mu.Lock()
					defer mu.Unlock()
					asked++
					for len(in) > 0 && time.Since(in[0]) >= window {
						in = in[1:]
					}
					if len(in) >= allowed {
						refused++
						return true
					}
					in = append(in, time.Now())
					return false
				}
				sim.SetFault(func(r isdpsim.Request) isdpsim.Fault {
					if r.Endpoint == isdpsim.AgentsEndpoint && counting() {
						return tc.fault
					}
					return nil
				})
				p := direct(t, sim, func(c *settings) { c.RateLimit = tc.limit; logTo(&log)(c) })
				for start := time.Now(); time.Since(start) < 20*time.Minute; time.Sleep(
					100 * time.Millisecond) {
					if v, _ := sweeptest.Once(t, p); !v.Complete {
						if c := v.Err.(*listing.Error).Class; c != listing.Unusable &&
							c != listing.Unreachable {
							t.Errorf("class %s: %v", c, v.Err)
						}
					}
				}
				if !strings.Contains(log.String(), tc.words) {
					t.Errorf("told: %s", &log)
				}
				t.Logf(
					"%d of %d requests refused in 20 minutes; told %d times",
					refused,
					asked,
					strings.Count(log.String(), "level=WARN"),
				)
				if refused > tc.most {
					t.Errorf("%d of %d requests were refused: it did not slow down", refused, asked)
				}
				if n := strings.Count(log.String(), "level=WARN"); n > 2 {
					t.Errorf("told %d times", n)
				}
				sim.SetFault(nil)
				for start := time.Now(); p.caller.limits.now() < tc.limit; time.Sleep(time.Second) {
					if time.Since(start) > 20*time.Minute {
						t.Fatalf("the rate stays at %v", p.caller.limits.now())
					}
					sweeptest.Once(t, p)
				}
			})
		})
	}
}

// What is refused for good after good answers is asked for rarely, and is the same trouble as
// before.
func TestRefusedForGood(t *testing.T) {
	for name, tc := range map[string]struct {
		fault   isdpsim.Hook
		class   listing.Class
		slowest float64 // of the full rate
	}{
		"pages, 403": {isdpsim.OnAgents(isdpsim.Status(403)), listing.Unusable, 1. / 32},
		"pages, stateCode": {isdpsim.OnAgents(isdpsim.StateCode("7", "no")), listing.Unusable,
			1. / 32},
		"tokens, 403": {isdpsim.OnToken(isdpsim.Status(403)), listing.Credentials, 1. / 2},
	} {
		for _, timeout := range []time.Duration{0, time.Minute} {
			t.Run(fmt.Sprintf("%s, %v", name, timeout), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var log bytes.Buffer
					sim := isdpsim.New(isdpsim.Config{Agents: sweeptest.SmallTenant})
					p := direct(
						t,
						sim,
						func(c *settings) {
							c.RateLimit, c.SweepTimeout = 1, timeout
							logTo(&log)(c)
						},
					)
					for range 2 {
						v, pages := sweeptest.Once(t, p)
						sweeptest.WantAll(t, sim, v, pages)
					}
					sim.RevokeTokens()
					sim.SetFault(tc.fault)
					for start := time.Now(); time.Since(start) < 30*time.Minute; time.Sleep(
						5 * time.Second) {
						v, _ := sweeptest.Once(t, p)
						sweeptest.WantClass(t, v.Err, tc.class)
					}
					if got := p.caller.limits.now(); got != tc.slowest {
						t.Errorf("a rate of %v, want %v", got, tc.slowest)
					}
					if n := strings.Count(log.String(), "slowing down"); n != 1 {
						t.Errorf("told %d times: %s", n, &log)
					}
					sim.SetFault(nil)
					start := time.Now()
					for complete := false; !complete; time.Sleep(5 * time.Second) {
						v, _ := sweeptest.Once(t, p)
						complete = v.Complete
						if time.Since(start) > 10*time.Minute {
							t.Fatalf("not complete again after %v", time.Since(start))
						}
					}
				})
			})
		}
	}
}

// One page that is refused over and over, or refusals before any good answer, say nothing about how
// often one may ask.
func TestRefusedButNotThrottled(t *testing.T) {
	for name, tc := range map[string]struct {
		agents int
		fault  isdpsim.Hook
	}{
		"one page": {sweeptest.SmallTenant, isdpsim.OnPage(3, isdpsim.Status(403))},
		"one page of two": {2 * sweeptest.SmallPage,
			isdpsim.OnPage(1, isdpsim.StateCode("1", "no"))},
		"from the start": {sweeptest.SmallTenant, isdpsim.OnAgents(isdpsim.Status(403))},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sim := isdpsim.New(isdpsim.Config{Agents: tc.agents})
				sim.SetFault(tc.fault)
				p := direct(t, sim, nil)
				for range 50 {
					v, _ := sweeptest.Once(t, p)
					sweeptest.WantClass(t, v.Err, listing.Unusable)
					if got := p.caller.limits.now(); got != 10 {
						t.Fatalf("a rate of %v", got)
					}
					time.Sleep(5 * time.Second)
				}
			})
		})
	}
}

func TestRefusesToken(t *testing.T) {
	const plain = `<InvalidTokenException><error>invalid_token</error></InvalidTokenException>`
	for body, want := range map[string]bool{
		plain: true,
		"\n " + `<?xml version="1.0" encoding="GBK"?><!-- x -->` + plain: true,
		`<o:InvalidTokenException xmlns:o="urn:x"/>`:                     true,
		plain[:40]:       true,
		"\ufeff" + plain: true,
		`{"error":"invalid_token","error_description":"check_token error"}`:            true,
		"\ufeff\r\n{ \" error \" : \" invalid_token\" , \"error_description\": null }": true,
		`{"error":"invalid_grant","error_description":"invalid_token"}`:                false,
		"{\"error\":\"invalid_token\",\n\"error_description\":\"check\ttoken\",}":      true,
		`{"error":["invalid_token"]}`:                                                  false,
		`{"stateCode":"0","result":{"data":[{"error":"invalid_token"}]}}`:              false,
		`[{"error":"invalid_token"}]`:                                                  false,
		`{"error":"invalid_token"`:                                                     false,
		`<AccessDeniedException><error>invalid_token</error></AccessDeniedException>`:  false,
		`<html><body>` + plain + `</body></html>`:                                      false,
		`<UnauthorizedException/>`:                                                     false,
		`{"stateCode": "0", "errorMessage": "<InvalidTokenException>"}`:                false,
		`"<InvalidTokenException>"`:                                                    false,
		``:                                                                             false,
		`<`:                                                                            false,
	} {
		for _, status := range []int{200, 400, 403, 500} {
			r := reply{status: status, text: text{utf8: []byte(body)}}
			if err := r.decode(); err != nil {
				t.Fatal(err)
			}
			if got := r.refusesToken(); got != want {
				t.Errorf("HTTP %d %s: %v", status, body, got)
			}
		}
		if r := (reply{status: 401, text: text{utf8: []byte(body)}}); !r.refusesToken() {
			t.Errorf("401 %s is not taken for it", body)
		}
	}
}

func TestExcerpt(t *testing.T) {
	c := newCaller(config("http://localhost").Config.withDefaults())
	for raw, want := range map[string]string{
		`"系统繁忙"`:   `"系统繁忙"`,
		`null`:     ``,
		`{"a": 1}`: ``,
		`""`:       ``,
		`"a\u001b[31m ` + isdpsim.DemoClientSecret + `"`: `"a [31m [secret]"`,
	} {
		if got := c.excerpt(json.RawMessage(raw)); got != want {
			t.Errorf("%s: %s, want %s", raw, got, want)
		}
	}
}

// Secrets that come back quoted or escaped are secrets still.
func TestHiding(t *testing.T) {
	const secret = `kQ7v"<&>'\%/+=ü pR9w`
	c := newCaller(Config{ClientSecret: secret, Password: "pw-1"}.withDefaults())
	c.keepToken("tok-1")
	encoded := func(s string, html bool) string {
		var b strings.Builder
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(html)
		if err := e.Encode(s); err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(b.String())
	}
	for _, s := range []string{
		secret, strconv.Quote(secret), url.QueryEscape(secret), url.PathEscape(secret),
		encoded(secret, true), encoded(secret, false),
		encoded(encoded(secret, true), true), encoded(encoded(secret, false), true),
		encoded(encoded(secret, false), false),
		strconv.Quote(encoded(secret, true)), url.QueryEscape(encoded(secret, false)),
		"bearer tok-1 pw-1",
	} {
		got := c.scrub("before " + s + " after")
		for _, part := range []string{"kQ7v", "pR9w", "tok-1", "pw-1"} {
			if strings.Contains(got, part) {
				t.Errorf("%s became %s", s, got)
			}
		}
		if !strings.HasPrefix(got, "before ") || !strings.HasSuffix(got, " after") ||
			!strings.Contains(got, "[secret]") {
			t.Errorf("%s became %s", s, got)
		}
	}
}

func TestIsCode(t *testing.T) {
	for code, want := range map[string]bool{
		"invalid_grant": true, "unauthorized": true, "": false, "Bad credentials": false,
		"s3cret":                        false,
		`invalid_{"client_secret":"x"}`: false,
	} {
		if got := isCode(code); got != want {
			t.Errorf("%s: %t", code, got)
		}
	}
}
