package isdpsim

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rollcall-events/rollcall/internal/tenantsim"
)

func TestMain(m *testing.M) {
	code := m.Run()
	http.DefaultClient.CloseIdleConnections()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// clock is a clock that moves when told to.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// client talks to a tenant over HTTP as rollcall would.
type client struct {
	t     *testing.T
	url   string
	http  *http.Client
	token string
}

func start(t *testing.T, cfg Config) (*Tenant, *client) {
	t.Helper()
	tenant := New(cfg)
	srv := httptest.NewServer(tenant)
	t.Cleanup(srv.Close)
	c := &client{t: t, url: srv.URL, http: srv.Client()}
	c.login()
	return tenant, c
}

type answer struct {
	status int
	header http.Header
	body   []byte
	err    error // of the request or of reading the body
}

func (c *client) post(ctx context.Context, path, contentType, body string) answer {
	c.t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+path,
		strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	if c.token != "" {
		req.Header.Set("Authorization", "bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode, header: resp.Header}
	a.body, a.err = io.ReadAll(resp.Body)
	return a
}

func (c *client) agents(body string) answer {
	c.t.Helper()
	return c.post(c.t.Context(), tenantsim.AgentsPath, "application/json", body)
}

const demoLogin = `{"client_id":"` + DemoClientID + `","client_secret":"` + DemoClientSecret +
	`","grant_type":"password",` +
	`"username":"` + DemoUsername + `","password":"` + DemoPassword + `"}`

// tokenAnswer is the token endpoint's answer.
type tokenAnswer struct {
	AccessToken  string          `json:"access_token"`
	TokenType    string          `json:"token_type"`
	RefreshToken string          `json:"refresh_token"`
	ExpiresIn    json.RawMessage `json:"expires_in"`
	Scope        string          `json:"scope"`
	PlatUser     struct {
		TenantID int64 `json:"tenantId"`
	} `json:"plat_user"`
}

func (c *client) login() tokenAnswer {
	c.t.Helper()
	a := c.post(c.t.Context(), tenantsim.TokenPath, "application/json;charset=utf-8", demoLogin)
	var in tokenAnswer
	if err := json.Unmarshal(a.body, &in); err != nil || a.status != http.StatusOK {
		c.t.Fatalf("token: %d %s %v %v", a.status, a.body, err, a.err)
	}
	c.token = in.AccessToken
	return in
}

// pageAnswer is the agents endpoint's answer.
type pageAnswer struct {
	StateCode    string
	ErrorMessage *string
	Result       *struct {
		Pos        int
		TotalCount int `json:"total_count"`
		Data       []json.RawMessage
	}
}

// page asks for a page that must come, well-formed.
func (c *client) page(body string) pageAnswer {
	c.t.Helper()
	a := c.agents(body)
	if a.err != nil || a.status != http.StatusOK {
		c.t.Fatalf("%s: %d %.200s %v", body, a.status, a.body, a.err)
	}
	return c.parse(a)
}

func (c *client) parse(a answer) (p pageAnswer) {
	c.t.Helper()
	if err := json.Unmarshal(a.body, &p); err != nil {
		c.t.Fatalf("%v: %.200s", err, a.body)
	}
	return p
}

func (p pageAnswer) ids(t *testing.T) (ids []int64) {
	t.Helper()
	for _, row := range p.Result.Data {
		id, ok := fieldOf(row, "agentId")
		if !ok {
			t.Fatalf("a row without an agentId: %s", row)
		}
		ids = append(ids, id)
	}
	return ids
}

// fieldOf is a field of a row that is a number, or a string that holds one.
func fieldOf(row json.RawMessage, name string) (n int64, ok bool) {
	var fields map[string]json.RawMessage
	if json.Unmarshal(row, &fields) != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.Trim(string(fields[name]), `"`), 10, 64)
	return n, err == nil
}

// invalidToken is the answer to a token that the tenant does not know.
var invalidToken = string(tenantsim.InvalidToken(0).Body)
