package isdpsim

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rollcall-events/rollcall/internal/tenantsim"
)

func TestTokenAnswer(t *testing.T) {
	clk := newClock()
	tenant, c := start(t, Config{Agents: 3, TenantID: 4711, Now: clk.Now})
	var forms []string
	for range 2 {
		in := c.login()
		if in.TokenType != "bearer" || in.Scope != "all" || in.PlatUser.TenantID != 4711 ||
			in.RefreshToken == "" {
			t.Errorf("token answer %+v", in)
		}
		forms = append(forms, string(in.ExpiresIn))
	}
	if want := []string{`"1799"`, `1799`}; !slices.Equal(forms, want) {
		t.Errorf("expires_in came as %q, want %q", forms, want)
	}
	if n := tenant.Stats().TokensIssued; n != 3 || len(tenant.Tokens()) != 6 {
		t.Errorf("%d tokens issued, %d told, want 3 and 6", n, len(tenant.Tokens()))
	}
}

func TestTokensReused(t *testing.T) {
	clk := newClock()
	_, c := start(t, Config{Agents: 3, ReuseTokens: true, ExpiresIn: tenantsim.ExpiresNumber,
		Now: clk.Now})
	first := c.token
	clk.Add(1440 * time.Second)
	if in := c.login(); in.AccessToken != first || string(in.ExpiresIn) != "359" {
		t.Errorf("the second answer was a fresh token (%t) for %s, want the first one for 359",
			in.AccessToken != first, in.ExpiresIn)
	}
	clk.Add(360 * time.Second)
	if in := c.login(); in.AccessToken == first || string(in.ExpiresIn) != "1799" {
		t.Errorf("an expired token was issued again, for %s", in.ExpiresIn)
	}
}

func TestCredentialsRefused(t *testing.T) {
	for _, tc := range []struct {
		name, from, to string
		refused        int
		status         int
		code           string
	}{
		{"secret", DemoClientSecret, "nope", 0, 401, "invalid_client"},
		{"password", DemoPassword, "nope", 0, 400, "invalid_grant"},
		{"status", DemoPassword, "nope", 403, 403, "invalid_grant"},
		{"grant", `"password","username`, `"guess","username`, 0, 400, "unsupported_grant_type"},
		{"body", "{", "", 0, 400, "invalid_request"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, c := start(t, Config{Agents: 1, RefusedStatus: tc.refused})
			a := c.post(t.Context(), tenantsim.TokenPath, "application/json",
				strings.Replace(demoLogin, tc.from, tc.to, 1))
			var in struct{ Error string }
			if err := json.Unmarshal(a.body, &in); err != nil || a.status != tc.status ||
				in.Error != tc.code {
				t.Errorf("got %d %s, want %d %s", a.status, a.body, tc.status, tc.code)
			}
		})
	}
}

func TestInvalidToken(t *testing.T) {
	clk := newClock()
	tenant, c := start(t, Config{Agents: 3, TokenTTL: time.Minute, Now: clk.Now})
	good := c.token
	check := func(what string, valid bool) {
		t.Helper()
		a := c.agents(`{}`)
		if xml := string(a.body) == invalidToken; a.status != 200 || xml == valid {
			t.Errorf("%s: %d %.80s", what, a.status, a.body)
		}
	}
	check("fresh", true)
	clk.Add(time.Minute - 1)
	check("at the last moment", true)
	clk.Add(1)
	check("expired", false)
	c.token = ""
	check("none", false)
	c.login()
	check("fresh again", true)
	tenant.RevokeTokens()
	check("revoked", false)
	c.token = good
	check("long gone", false)
	if n := tenant.Stats().InvalidTokens; n != 4 {
		t.Errorf("%d answers to an invalid token counted, want 4", n)
	}

	_, c = start(t, Config{Agents: 3, InvalidTokenStatus: 401})
	c.token = "unknown"
	if a := c.agents(`{}`); a.status != 401 || string(a.body) != invalidToken {
		t.Errorf("got %d %s", a.status, a.body)
	}
}

// TestRowShape holds every row against the table of the contract.
func TestRowShape(t *testing.T) {
	_, c := start(t, Config{Agents: 400})
	uuids := regexp.MustCompile(`^"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"$`)
	dates := regexp.MustCompile(`^"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.000\+00:00"$`)
	listed := map[string]string{
		"agentId": "long", "tenantId": "long", "userId": "long", "agentCode": "string",
		"agentAccount": "string", "agentName": "string",
		"type": "string", "onlineStatus": "long", "productType": "string?",
		"deliveryScene": "string?", "businessType": "string?",
		"areaName": "string?", "cityId": "string?", "isArea": "long", "capacity": "long",
		"deleteFlag":      "long",
		"agentSignInTime": "long??", "agentSignInDate": "long??", "createdBy": "long",
		"lastUpdatedBy": "long", "createName": "string",
		"lastUpdateName": "string", "creationTimestamp": "long", "lastUpdateTimestamp": "long",
		"creationDate":   "string",
		"lastUpdateDate": "string", "appName": "string", "entityName": "string?",
	}
	seen := map[string]int{} // what was met, to see that the variety is there
	for page := range 8 {
		p := c.page(`{"pageStart":` + strconv.Itoa(page) + `}`)
		for _, raw := range p.Result.Data {
			var row map[string]json.RawMessage
			if err := json.Unmarshal(raw, &row); err != nil {
				t.Fatal(err)
			}
			for name, kind := range listed {
				v, ok := row[name]
				var s string
				var n int64
				switch {
				case !ok:
					seen[name+" absent"]++
					if !strings.HasSuffix(kind, "??") {
						t.Errorf("no %s in %s", name, raw)
					}
				case string(v) == "null":
					seen[name+" null"]++
					if !strings.HasSuffix(kind, "?") {
						t.Errorf("%s is null in %s", name, raw)
					}
				case strings.HasPrefix(kind, "string") && json.Unmarshal(v, &s) != nil,
					strings.HasPrefix(kind, "long") && json.Unmarshal(v, &n) != nil:
					t.Errorf("%s is %s", name, v)
				}
				delete(row, name)
				if name == "type" || name == "onlineStatus" || name == "areaName" && s == "" {
					seen[name+" "+string(v)]++
				}
				if name == "agentCode" && !uuids.Match(v) || strings.HasSuffix(name, "Date") &&
					kind == "string" && !dates.Match(v) {
					t.Errorf("%s is %s", name, v)
				}
			}
			for name := range row {
				seen["undocumented "+name]++
			}
		}
	}
	for _, want := range []string{"areaName null", `areaName ""`, "productType null",
		"agentSignInTime absent", "agentSignInTime null",
		`type "0"`, `type "1"`, `type "2"`, `type "10"`, "onlineStatus 0", "onlineStatus 1",
		"entityName null",
		"undocumented ext", "undocumented rowVersion", "undocumented version"} {
		if seen[want] == 0 {
			t.Errorf("in 400 rows there is none with: %s", want)
		}
	}
	if n := seen[`type "10"`]; n < 280 {
		t.Errorf("%d of 400 agents are of type 10, want most", n)
	}
}

func TestPaging(t *testing.T) {
	tenant, c := start(t, Config{Agents: 120})
	all := tenant.IDs()
	if all[0] != FirstID || len(all) != 120 {
		t.Fatalf("%d agents from %d", len(all), all[0])
	}
	for _, tc := range []struct {
		body string
		pos  int
		want []int64
	}{
		{`{}`, 0, all[:50]},
		{`{"pageStart":null,"pageSize":null}`, 0, all[:50]},
		{`{"pageStart":1}`, 1, all[50:100]},
		{`{"pageStart":2}`, 2, all[100:]},
		{`{"pageStart":3}`, 3, nil},
		{`{"pageStart":9223372036854775807}`, 9223372036854775807, nil},
		{`{"pageStart":1,"pageSize":7,"unknown":[]}`, 1, all[7:14]},
		{`{"pageStart":1,"pageSize":500}`, 1, all[50:100]},
		{`{"pageSize":0}`, 0, all[:50]},
		{`{"pageStart":12,"pageSize":10}`, 12, nil},
	} {
		p := c.page(tc.body)
		if p.StateCode != "0" || p.ErrorMessage != nil || p.Result.Pos != tc.pos ||
			p.Result.TotalCount != 120 || p.Result.Data == nil {
			t.Errorf("%s: %+v", tc.body, p.Result)
		}
		if got := p.ids(t); !slices.Equal(got, tc.want) {
			t.Errorf("%s: agents %v, want %v", tc.body, got, tc.want)
		}
	}
}

func TestFilters(t *testing.T) {
	tenant, c := start(t, Config{Agents: 200, Seed: 5})
	tenant.Add(json.RawMessage(`{"agentId":1,"onlineStatus":"1","type":2}`))
	tenant.Add(json.RawMessage(`{"agentId":2}`))
	tenant.Add(json.RawMessage(`17`))
	for _, filter := range []struct {
		body        string
		typ, online int64
	}{{`"type":2`, 2, -1}, {`"onlineStatus":1`, -1, 1}, {`"type":10,"onlineStatus":0`, 10, 0},
		{`"type":77`, 77, -1}} {
		var want, got []int64
		for _, r := range tenant.Listing() {
			typ, hasType := fieldOf(r.JSON, "type")
			status, hasStatus := fieldOf(r.JSON, "onlineStatus")
			if (filter.typ < 0 || hasType && typ == filter.typ) &&
				(filter.online < 0 || hasStatus && status == filter.online) {
				want = append(want, r.ID)
			}
		}
		for page := range 20 {
			p := c.page(`{"pageSize":10,"pageStart":` + strconv.Itoa(page) + `,` + filter.body +
				`}`)
			got = append(got, p.ids(t)...)
			if p.Result.TotalCount != len(want) {
				t.Errorf("%s: total_count %d, want %d", filter.body, p.Result.TotalCount, len(want))
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", filter.body, got, want)
		}
	}
}

func TestBadRequests(t *testing.T) {
	_, c := start(t, Config{Agents: 5})
	for _, body := range []string{``, `[]`, `null`, `{`, `{"pageStart":"0"}`, `{"pageStart":-1}`,
		`{"pageSize":1.5}`, `{"type":"10"}`, `{"onlineStatus":true}`} {
		if p := c.page(body); p.StateCode == "0" || p.ErrorMessage == nil || p.Result != nil {
			t.Errorf("%s: stateCode %s, want a failure", body, p.StateCode)
		}
	}
	if a := c.post(t.Context(), tenantsim.AgentsPath, "text/plain",
		`{}`); a.status != http.StatusUnsupportedMediaType {
		t.Errorf("a body that is not JSON: %d", a.status)
	}
	if a := c.post(t.Context(), "/openapi/v1/nothing", "application/json",
		`{}`); a.status != http.StatusNotFound {
		t.Errorf("another path: %d", a.status)
	}
	resp, err := c.http.Get(c.url + tenantsim.AgentsPath)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", resp.StatusCode)
	}
}

func TestPageBytes(t *testing.T) {
	tenant, c := start(t, Config{Agents: -1})
	tenant.Add(json.RawMessage(`{"agentId": 9007199254740993,  "x":"A"}`))
	tenant.Add(json.RawMessage(`"not a row"`))
	const want = `{"stateCode":"0","errorMessage":null,"result":{"pos":0,"total_count":2,"data":[` +
		`{"agentId": 9007199254740993,  "x":"A"},"not a row"],"entityName":null}}`
	if got := string(c.agents(`{}`).body); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestListen(t *testing.T) {
	tenant := New(Config{Agents: 3})
	for _, addr := range []string{"0.0.0.0:0", "example.org:80", "127.0.0.1", "[::]:0"} {
		if s, err := tenantsim.Listen(addr, tenant); err == nil {
			s.Close()
			t.Errorf("listening on %s was not refused", addr)
		}
	}
	s, err := tenantsim.Listen(":0", tenant)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error)
	go func() { served <- s.Serve(ctx) }()
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	c := &client{t: t, url: s.URL, http: &http.Client{Transport: tr}}
	c.login()
	arrived := make(chan struct{})
	tenant.SetFault(func(Request) Fault { close(arrived); return Hang(0) })
	hung := make(chan answer)
	go func() { hung <- c.agents(`{}`) }()
	<-arrived
	stop()
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if a := <-hung; a.err == nil {
		t.Errorf("a request that hung was answered at the end: %d %s", a.status, a.body)
	}
}

func TestStats(t *testing.T) {
	clk := newClock()
	tenant, c := start(t, Config{Agents: 120, Now: clk.Now})
	release := make(chan struct{})
	tenant.SetFault(func(r Request) Fault {
		if r.Page > 0 {
			return nil
		}
		return Meanwhile(func(*Tenant) { <-release })
	})
	done := make(chan answer)
	for range 3 {
		go func() { done <- c.agents(`{"type":10}`) }()
	}
	for tenant.Stats().InFlight < 3 {
		time.Sleep(time.Millisecond)
	}
	close(release)
	for range 3 {
		<-done
	}
	clk.Add(time.Second)
	for range 20 { // one after the other is never two at a time
		c.agents(`{"pageStart":2}`)
	}
	c.post(t.Context(), "/elsewhere", "application/json", "")
	got := tenant.Stats()
	got.BytesSent = 0
	want := Stats{Requests: 25, TokenRequests: 1, PageRequests: 23, TokensIssued: 1, MaxInFlight: 3,
		MaxPages: 3}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	reqs := tenant.Requests()
	wantLast := Request{Number: 24, Endpoint: AgentsEndpoint, Call: 23, Time: clk.Now(), Page: 2,
		PageSize: 50, Type: -1, Online: -1, Visit: 20}
	if len(reqs) != 25 || !reflect.DeepEqual(reqs[23], wantLast) || reqs[1].Type != 10 ||
		reqs[1].Time == reqs[23].Time {
		t.Errorf("%d requests, the one before the last %+v", len(reqs), reqs[23])
	}
}
