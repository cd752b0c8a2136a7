package isdpsim

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-events/rollcall/internal/tenantsim"
)

// TestReplies holds the faults whose answer is another one altogether.
func TestReplies(t *testing.T) {
	tenant, c := start(t, Config{Agents: 60})
	for _, tc := range []struct {
		name        string
		fault       Fault
		status      int
		contentType string
		body        string // a part of it
		header      string // Retry-After
	}{
		{"status", Status(503), 503, "text/plain", "Service Unavailable", ""},
		{"retry after", RetryAfter(429, 1500*time.Millisecond), 429, "text/plain", "Too Many", "2"},
		{"retry at", RetryAt(503, time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)), 503, "text/plain",
			"", "Sun, 22 Nov 2026 08:00:00 GMT"},
		{"html", HTML(), 200, "text/html", "<html>", ""},
		{"xml", InvalidToken(403), 403, "application/xml", invalidToken, ""},
		{"token refused in JSON", InvalidTokenJSON(400), 400, "application/json",
			`"error":"invalid_token"`, ""},
		{"state code", StateCode("500", `no "luck"`), 200, "application/json",
			`{"stateCode":"500","errorMessage":"no \"luck\"","result":null}`, ""},
		{"refused", CredentialsRefused(), 400, "application/json", "invalid_grant", ""},
		{"empty", Empty(), 200, "application/json", "", ""},
		{"right page, wrong status", WithStatus(500), 500, "application/json", `"total_count":60`,
			""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tenant.SetFault(OnAgents(tc.fault))
			a := c.agents(`{}`)
			if a.err != nil || a.status != tc.status ||
				!strings.HasPrefix(a.header.Get("Content-Type"), tc.contentType) ||
				!strings.Contains(string(a.body), tc.body) ||
				a.header.Get("Retry-After") != tc.header {
				t.Errorf("got %d %v %.200q %v", a.status, a.header, a.body, a.err)
			}
			c.login() // is not affected
		})
	}
}

// TestLies holds the faults after which the answer is still well-formed.
func TestLies(t *testing.T) {
	tenant, c := start(t, Config{Agents: 60})
	all := tenant.IDs()
	first, second := all[:50], all[50:]
	for _, tc := range []struct {
		name       string
		fault      Fault
		pos, total int
		ids        []int64
	}{
		{"none", nil, 1, 60, second},
		{"total", TotalCount(999), 1, 999, second},
		{"total off", TotalCountOff(-1), 1, 59, second},
		{"pos", Pos(7), 7, 60, second},
		{"same page", SamePage(0), 1, 60, first},
		{"torn", DropRows(0, 3, 99), 1, 60, append(slices.Clone(second[1:3]), second[4:]...)},
		{"duplicate", DuplicateRow(2, nil), 1, 60, append(slices.Clone(second), second[2])},
		{"changed", ChangeRow(0, Fields{"agentId": "5"}), 1, 60, append([]int64{5}, second[1:]...)},
		{"inserted", InsertRow(`{"agentId":6}`), 1, 60, append(slices.Clone(second), 6)},
		{"empty listing", EmptyListing(), 1, 0, nil},
		{"out of range", All(DuplicateRow(70, nil), ChangeRow(70, nil)), 1, 60, second},
		{"composed", All(TotalCount(5), nil, DropRows(0), DropRows(0), TotalCountOff(1)), 1, 6,
			second[2:]},
		// last: it stays removed
		{"meanwhile", Meanwhile(func(t *Tenant) { t.Remove(all[0]) }), 1, 59, second[1:]},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tenant.SetFault(OnPage(1, tc.fault))
			p := c.page(`{"pageStart":1}`)
			if got := p.ids(t); p.Result.Pos != tc.pos || p.Result.TotalCount != tc.total ||
				!slices.Equal(got, tc.ids) {
				t.Errorf("pos %d, total_count %d, agents %v\nwant %d, %d, %v", p.Result.Pos,
					p.Result.TotalCount, got, tc.pos, tc.total, tc.ids)
			}
		})
	}
	tenant.SetFault(nil)
	for _, row := range tenant.Listing() { // lies leave the truth alone
		if want := tenant.NewRow(row.ID); string(row.JSON) != string(want) {
			t.Errorf("row %s became %s", want, row.JSON)
		}
	}
}

// TestBrokenBodies holds the faults of the way that an answer takes.
func TestBrokenBodies(t *testing.T) {
	tenant, c := start(t, Config{Agents: 60})
	whole := string(c.agents(`{}`).body)
	isReset := func(err error) bool {
		return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF)
	}
	for _, tc := range []struct {
		name  string
		fault Fault
		ok    func(a answer) bool
	}{
		{"truncated", Truncated(100), func(a answer) bool {
			return a.err == nil && string(a.body) == whole[:100]
		}},
		{"truncated beyond its end", Truncated(1e6), func(a answer) bool {
			return a.err == nil && string(a.body) == whole
		}},
		{"corrupt", Corrupt(), func(a answer) bool {
			return a.err == nil && len(a.body) == len(whole) && !json.Valid(a.body)
		}},
		{"cut", Cut(100), func(a answer) bool {
			return errors.Is(a.err, io.ErrUnexpectedEOF) && string(a.body) == whole[:100]
		}},
		{"cut beyond its end", Cut(1e6), func(a answer) bool {
			return errors.Is(a.err, io.ErrUnexpectedEOF)
		}},
		{"reset", Reset(100), func(a answer) bool { return a.err != nil }},
		{"reset at once", Reset(0), func(a answer) bool { return isReset(a.err) && a.status == 0 }},
		{"huge", Huge(1 << 20), func(a answer) bool {
			return a.err == nil && len(a.body) == 1<<20 && json.Valid(a.body)
		}},
		{"huge, but less than it is", Huge(10), func(a answer) bool {
			return a.err == nil && string(a.body) == whole
		}},
		{"huge error", All(Empty(), Huge(1000)), func(a answer) bool {
			return a.err == nil && len(a.body) == 1000
		}},
		{"drip", Drip(7000, time.Microsecond), func(a answer) bool {
			return a.err == nil && string(a.body) == whole
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tenant.SetFault(OnAgents(tc.fault))
			if a := c.agents(`{}`); !tc.ok(a) {
				t.Errorf("got %d, %d bytes: %.200q %v", a.status, len(a.body), a.body, a.err)
			}
		})
	}
	for i, p := range tenant.Pages() {
		if want := i > 0 && i < len(tenant.Pages())-1; p.Broken != want {
			t.Errorf("answer %d: broken %t, want %t", i, p.Broken, want)
		}
	}
}

func TestNeverEnding(t *testing.T) {
	tenant, c := start(t, Config{Agents: 60})
	for _, tc := range []struct {
		name  string
		fault Fault
		bytes int // at least so many come before the client gives up
	}{{"silent", Hang(0), 0}, {"stalled", Hang(100), 100}, {"endless", Endless(), 1 << 20}} {
		t.Run(tc.name, func(t *testing.T) {
			tenant.SetFault(OnAgents(tc.fault))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			req, _ := http.NewRequestWithContext(ctx, http.MethodPost, c.url+tenantsim.AgentsPath,
				strings.NewReader(`{}`))
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set("Authorization", "Bearer "+c.token)
			if tc.bytes == 0 {
				time.AfterFunc(20*time.Millisecond, cancel)
			}
			resp, err := c.http.Do(req)
			if tc.bytes == 0 {
				if err == nil {
					t.Fatal("an answer that was never to come came")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if n, err := io.CopyN(io.Discard, resp.Body, int64(tc.bytes)); err != nil {
				t.Errorf("after %d bytes: %v", n, err)
			}
			cancel()
		})
	}
	tenant.SetFault(nil)
	for tenant.Stats().InFlight > 0 { // every handler notices that its client has gone
		time.Sleep(time.Millisecond)
	}
}

func TestHooks(t *testing.T) {
	tenant, c := start(t, Config{Agents: 160})
	statuses := func() (got []int) {
		for page := range 3 {
			got = append(got, c.agents(`{"pageStart":`+strconv.Itoa(page)+`}`).status)
		}
		return got
	}
	check := func(what string, want ...int) {
		t.Helper()
		if got := statuses(); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	tenant.SetFault(Times(2, OnAgents(Status(500))))
	check("the first two", 500, 500, 200)
	tenant.SetFault(After(1, OnAgents(Status(500))))
	check("all but the first", 200, 500, 500)
	tenant.SetFault(Hooks(OnPage(0, Status(500)), OnPage(2, Status(501)), OnToken(Status(502))))
	check("each its own", 500, 200, 501)
	if a := c.post(t.Context(), tenantsim.TokenPath, "application/json",
		demoLogin); a.status != 502 {
		t.Errorf("token: %d", a.status)
	}
	tenant.SetFault(OnPage(1, All(RevokeTokens(), WithStatus(401))))
	check("revoked in between", 200, 401, 200) // the last one with the XML
	c.login2(tenant)
	tenant.SetFault(func(r Request) Fault { return when(r.Visit == 5 && r.Page == 2, Status(500)) })
	check("one visit", 200, 200, 500)
	tenant.SetFault(Sometimes(1, 0, OnAgents(Status(500))))
	check("never", 200, 200, 200)
	tenant.SetFault(Sometimes(1, 1, OnAgents(Status(500))))
	check("always", 500, 500, 500)
}

// login2 gets a token whatever the hook says.
func (c *client) login2(tenant *Tenant) {
	tenant.SetFault(nil)
	c.login()
}

// TestLate sees that a delayed answer shows what is true when it comes, a late one what was true
// when it was asked for.
func TestLate(t *testing.T) {
	for _, tc := range []struct {
		name  string
		fault Fault
		want  int
	}{{"delay", Delay(time.Minute), 9}, {"late", Late(time.Minute), 10}} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tenant := New(Config{Agents: 10})
				tenant.SetFault(OnAgents(tc.fault))
				rec := httptest.NewRecorder()
				tenant.ServeHTTP(rec, post(tenantsim.TokenPath, "", demoLogin))
				var in tokenAnswer
				if err := json.Unmarshal(rec.Body.Bytes(), &in); err != nil {
					t.Fatal(err)
				}
				time.AfterFunc(30*time.Second, func() { tenant.Remove(FirstID) })
				begin := time.Now()
				rec = httptest.NewRecorder()
				tenant.ServeHTTP(rec, post(tenantsim.AgentsPath, in.AccessToken, `{}`))
				var p pageAnswer
				if err := json.Unmarshal(rec.Body.Bytes(), &p); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(begin); took != time.Minute ||
					p.Result.TotalCount != tc.want {
					t.Errorf("%d agents after %v, want %d after a minute", p.Result.TotalCount,
						took, tc.want)
				}
			})
		})
	}
}

func post(path, token, body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "bearer "+token)
	return r
}

func TestEverySecond(t *testing.T) {
	tenant, c := start(t, Config{Agents: 60})
	tenant.SetFault(EverySecond(OnAgents(Status(503))))
	for i := range 6 {
		if a, want := c.agents(`{}`), []int{200, 503}[i%2]; a.status != want {
			t.Errorf("answer %d has status %d, want %d", i, a.status, want)
		}
	}
}

func TestRaw(t *testing.T) {
	tenant, c := start(t, Config{Agents: 60})
	whole := string(c.agents(`{}`).body)
	tenant.SetFault(Times(1,
		OnAgents(Raw("HTTP/1.1 201 Made\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"))))
	if a := c.agents(`{}`); a.status != 201 || string(a.body) != "hi" {
		t.Errorf("got %d %q %v", a.status, a.body, a.err)
	}
	tenant.SetFault(Times(1, OnAgents(Behind("HTTP/1.1 200 OK\r\n"))))
	if a := c.agents(`{}`); a.status != 200 || string(a.body) != whole {
		t.Errorf("got %d %q %v", a.status, a.body, a.err)
	}
}
