//go:build unix

package vendor

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/text/encoding/simplifiedchinese"

	"github.com/rollcall-events/rollcall/internal/packed"
	. "github.com/rollcall-events/rollcall/internal/test/isdpsim"

	"github.com/rollcall-events/rollcall/internal/test/checker"
	"github.com/rollcall-events/rollcall/internal/test/wait"
	"github.com/rollcall-events/rollcall/schemas"
)

// A fault is one misbehaviour of the vendor, and what has to come of it.
type fault struct {
	name    string
	setup   setup
	variant bool // of one that is much the same to rollcall: left out of the quick set

	hook  func(r *rig) Hook // what is wrong with answers; nil: nothing
	begin func(r *rig)      // what happens besides, when it begins
	end   func(r *rig)      // and when it is over

	// What has to come of it while it lasts.
	goes   bool // the watermark goes on; otherwise it stops
	health string
	during func(r *rig, on time.Time)

	lies     bool // pages show what the tenant's history never had
	slanders bool // they say that agents are offline
	abandons bool // requests are given up
	options  checker.Options
}

// Healths, as state and reason.
const (
	unreachable  = "failing unreachable"
	credentials  = "failing credentials"
	unusable     = "failing unusable"
	inconsistent = "failing inconsistent"
	missing      = "holding missing"
	unidentified = "holding unidentified"
)

func agents(f Fault) func(*rig) Hook { return func(*rig) Hook { return OnAgents(f) } }

func token(f Fault) func(*rig) Hook { return func(*rig) Hook { return OnToken(f) } }

func page(n int, f Fault) func(*rig) Hook { return func(*rig) Hook { return OnPage(n, f) } }

// eachRow writes every row in another way; what comes of it counts as shown.
func eachRow(change func([]byte) []byte) Fault {
	return Rows(func(rows []Row) []Row {
		for i := range rows {
			rows[i].JSON = change(rows[i].JSON)
		}
		return rows
	})
}

func replace(old, with string) Fault {
	return Body(func(b []byte) []byte { return bytes.Replace(b, []byte(old), []byte(with), 1) })
}

func prefixed(with string) Fault {
	return Respelled(func(b []byte) []byte { return append([]byte(with), b...) })
}

// commas puts a comma before the end of every row, as the vendor's own example answer has it, and
// of what is around them.
func commas(b []byte) []byte { return ends.ReplaceAll(b, []byte("\t,\n}$1")) }

// ends are those of rows, of the result and of the answer.
var ends = regexp.MustCompile(`\}(,\{|\],|\}$|$)`)

// inGBK is a text in GBK.
func inGBK(b []byte) []byte {
	out, err := simplifiedchinese.GBK.NewEncoder().Bytes(b)
	if err != nil {
		panic(err) // the tenant's names are Chinese
	}
	return out
}

func gzipped(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(b)
	_ = w.Close()
	return out.Bytes()
}

var emptyResult = regexp.MustCompile(`"result":\{.*"total_count":0,.*\}\}$`)

// nullResult is an answer without rows as some gateways write it.
func nullResult(b []byte) []byte { return emptyResult.ReplaceAll(b, []byte(`"result":null}`)) }

var listOfOne = regexp.MustCompile(`"data":\[(\{[^{}]*\})\]`)

// objectForOne is an answer with one row as some gateways write it.
func objectForOne(b []byte) []byte { return listOfOne.ReplaceAll(b, []byte(`"data":$1`)) }

// still is a tenant whose listing keeps its length: agents sign in and out, and no more.
var still = setup{churn: -1, agents: 33}

func faults() []fault {
	out := []fault{
		// No answer that is one.
		{name: "500", hook: agents(Status(500)), health: unreachable},
		{name: "503 without Retry-After", variant: true, hook: agents(Status(503)),
			health: unreachable},
		{name: "503 with Retry-After", hook: agents(RetryAfter(503, time.Second)),
			health: unreachable, during: pauses},
		{name: "503 with Retry-After, a date", hook: func(r *rig) Hook {
			return func(q Request) Fault {
				return when(q.Endpoint == AgentsEndpoint,
					RetryAt(503, time.Now().Add(2*time.Second)))
			}
		}, health: unreachable},
		{name: "429", hook: agents(Status(429)), health: unreachable, during: pauses},
		{name: "429 with Retry-After", hook: agents(RetryAfter(429, time.Second)),
			health: unreachable, during: pauses},
		{name: "429 to tokens as well", variant: true, hook: func(*rig) Hook {
			return Hooks(OnAgents(RetryAfter(429, time.Second)),
				OnToken(RetryAfter(429, time.Second)))
		}, begin: (*rig).revoke, health: unreachable, during: pauses},
		{name: "500 with the right page", hook: agents(WithStatus(500)), health: unreachable},
		{name: "404", variant: true, hook: agents(Status(404)), health: unusable},
		{name: "500 now and then", hook: func(r *rig) Hook {
			return Sometimes(r.setup.seed, 0.15, OnAgents(Status(500)))
		}, goes: true},
		{name: "500 on one page", variant: true, hook: page(3, Status(500)), health: unreachable},
		{name: "connections refused", begin: func(r *rig) { r.door.set(true) },
			end: func(r *rig) { r.door.set(false) }, health: unreachable},
		{name: "reset before the answer", variant: true, hook: agents(Reset(0)),
			health: unreachable},
		{name: "reset in mid-body", hook: agents(Reset(500)), health: unreachable},
		{name: "closed in mid-body", variant: true, hook: agents(Cut(500)), health: unreachable},
		{name: "reset in mid-body now and then", variant: true, hook: func(r *rig) Hook {
			return Sometimes(r.setup.seed, 0.15, OnAgents(Reset(500)))
		}, goes: true},
		{name: "a switch of protocols", hook: agents(Switch("websocket")), health: unusable,
			abandons: true},
		{name: "a switch of protocols for tokens", begin: (*rig).revoke, hook: token(Switch("h2c")),
			health: unusable, abandons: true},
		{name: "a flood of 100", variant: true,
			setup:  setup{requestTimeout: 300 * time.Millisecond},
			hook:   agents(Raw(strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 1000))),
			health: unreachable, abandons: true},
		{name: "truncated JSON", hook: agents(Truncated(500)), health: unusable},
		{name: "a byte order mark", variant: true, hook: agents(prefixed("\ufeff")), goes: true},
		{name: "commas before ends, and tabs between", hook: agents(Respelled(commas)), goes: true},
		{name: "GBK, and says so",
			hook: agents(All(Respelled(inGBK),
				Header("Content-Type", "application/json;charset=GBK"))), goes: true},
		{name: "GBK, unsaid", setup: still, hook: agents(eachRow(inGBK)), health: unusable,
			goes: true, lies: true},
		{name: "compressed, unsaid", hook: agents(Respelled(gzipped)), goes: true},
		{name: "not compressed, though it says so", variant: true,
			hook: agents(Header("Content-Encoding", "gzip")), goes: true},
		{name: "compressed with another method than it says", variant: true,
			hook: agents(All(Respelled(gzipped), Header("Content-Encoding", "br"))), goes: true},
		{name: "a listing of nobody, spelt null", setup: setup{types: []int{7, 10}},
			hook: agents(Respelled(nullResult)), goes: true},
		{name: "a list of one as an object", setup: setup{churn: -1, agents: 31},
			hook: page(6, Respelled(objectForOne)), goes: true},
		{name: "JSON of another kind", variant: true,
			hook: agents(Answer(200, "application/json", `[]`)), health: unusable},
		{name: "data that is no list", variant: true, hook: agents(Answer(200, "application/json",
			`{"stateCode":"0","result":{"pos":0,"total_count":60,"data":"none"}}`)),
			health: unusable},
		{name: "no data, though total_count says so", variant: true,
			hook: agents(Answer(200, "application/json",
				`{"stateCode":"0","result":{"pos":0,"total_count":60,"data":null}}`)),
			health: inconsistent},
		{name: "no result", variant: true, setup: still,
			hook: agents(All(EmptyListing(), Respelled(nullResult))), goes: true, health: missing,
			lies: true, during: keeps},
		{name: "no stateCode", hook: agents(replace(`"stateCode":"0"`, `"code":"0"`)),
			health: unusable},
		{name: "HTML with 200", hook: agents(HTML()), health: unusable},
		{name: "an empty body", variant: true, hook: agents(Empty()), health: unusable},
		{name: "stateCode 1", hook: agents(StateCode("1", "系统繁忙")), health: unusable},
		{name: "stateCode not 0 with the right page",
			hook: agents(replace(`"stateCode":"0"`, `"stateCode":"500"`)), health: unusable},

		// Slow, endless, huge.
		{name: "slow", hook: agents(Delay(80 * time.Millisecond)), goes: true},
		{name: "out of date", hook: agents(Late(150 * time.Millisecond)), goes: true},
		{name: "in drips", hook: agents(Drip(200, 4*time.Millisecond)), goes: true},
		{name: "never an answer", setup: setup{requestTimeout: 300 * time.Millisecond},
			hook: agents(Hang(0)), health: unreachable, abandons: true},
		{name: "never the rest", variant: true,
			setup: setup{requestTimeout: 300 * time.Millisecond}, hook: agents(Hang(500)),
			health: unreachable, abandons: true},
		{name: "in drips without end", setup: setup{requestTimeout: 300 * time.Millisecond},
			hook: agents(Drip(20, 20*time.Millisecond)), health: unreachable, abandons: true},
		{name: "huge", hook: agents(Huge(1 << 20)), goes: true,
			options: checker.Options{BrokenPages: true}},
		{name: "too huge", variant: true, hook: agents(Huge(9 << 20)), health: unusable,
			abandons: true},
		{name: "endless", hook: agents(Endless()), health: unusable, abandons: true},

		// Listings that contradict themselves.
		{name: "an empty page", setup: still, hook: page(2, Rows(func([]Row) []Row {
			return nil
		})), health: inconsistent, lies: true},
		{name: "rows left out", setup: still, hook: page(2, DropRows(0, 3)), health: inconsistent,
			lies: true},
		{name: "total_count too large", variant: true, setup: still, hook: agents(TotalCountOff(7)),
			health: inconsistent},
		{name: "total_count too small", setup: still, hook: agents(TotalCountOff(-1)),
			health: inconsistent},
		{name: "total_count of one page off", setup: still, hook: page(1, TotalCountOff(-1)),
			health: inconsistent},
		{name: "total_count a million", setup: still, hook: agents(TotalCount(1_000_000)),
			health: inconsistent, during: noDeeper},
		{name: "total_count below zero", hook: agents(TotalCount(-1)), health: unusable},
		{name: "total_count beyond belief", variant: true, hook: agents(TotalCount(3_000_000)),
			health: unusable},
		{name: "total_count no number", variant: true,
			hook:   agents(replace(`"total_count":`, `"total_count":"many","was":`)),
			health: unusable},
		{name: "total_count at random", setup: still, hook: func(r *rig) Hook {
			return func(q Request) Fault {
				return when(q.Endpoint == AgentsEndpoint, TotalCountOff(q.Number%5-2))
			}
		}, health: inconsistent},
		{name: "pos of another page", hook: page(2, Pos(5)), health: inconsistent},
		{name: "pos of another page, and its rows", setup: still,
			hook: page(2, All(SamePage(4), Pos(4))), health: inconsistent},
		{name: "the same page for every pageStart", setup: still, hook: agents(SamePage(0)),
			health: inconsistent, during: noDeeper},
		{name: "the same page for every pageStart, and says so", setup: still,
			hook: agents(All(SamePage(0), Pos(0))), health: inconsistent, during: noDeeper},
		{name: "a row twice, the second time in the other state", setup: still, hook: agents(twice),
			goes: true, lies: true},
		{name: "a row on two pages, in different states", setup: still, hook: page(4, elsewhere),
			health: inconsistent, lies: true, slanders: true},
		{name: "pages shift while they are read", setup: still, hook: shifting, goes: true},
		{name: "total_count changes while it is read", setup: still, hook: resizing, goes: true},

		// Listings that lack agents.
		{name: "an empty listing", setup: still, hook: agents(EmptyListing()), goes: true,
			health: missing, lies: true, during: keeps},
		{name: "total_count falls, and the rows behind it are still there", setup: still,
			hook: agents(TotalCount(10)), health: inconsistent, during: nobodyRemoved},
		{name: "half the listing", setup: still, hook: endsAt(10), goes: true, health: missing,
			lies: true, during: keeps},
		{name: "half the listing, for longer than the guard holds",
			setup: setup{churn: -1, missingHold: time.Second}, hook: endsAt(10),
			goes: true, health: missing, lies: true, slanders: true, during: (*rig).letsGo},
		{name: "some agents, in every other sweep", setup: still, hook: everyOther(endsAt(20)),
			goes: true, lies: true, during: keeps},

		// Tokens.
		{name: "token endpoint down", begin: (*rig).revoke, hook: token(Status(503)),
			health: unreachable},
		{name: "token endpoint resets", begin: (*rig).revoke, hook: token(Reset(0)),
			health: unreachable},
		{name: "token endpoint answers HTML", begin: (*rig).revoke, hook: token(HTML()),
			health: unusable},
		{name: "token endpoint never answers", setup: setup{requestTimeout: 300 * time.Millisecond},
			begin: (*rig).revoke, hook: token(Hang(0)),
			health: unreachable, abandons: true},
		{name: "token endpoint down while tokens run out", setup: setup{tokenTTL: time.Second},
			hook: token(Status(500)),
			begin: func(r *rig) {
				r.waitHealth(schemas.HealthFailing, schemas.Unreachable)
			}, health: unreachable},
		{name: "token endpoint down between two tokens", hook: token(Status(503)), goes: true,
			during: noFault},
		{name: "credentials refused", begin: (*rig).revoke, hook: token(CredentialsRefused()),
			health: credentials, during: fewTokens},
		{name: "credentials refused, 403", variant: true, begin: (*rig).revoke,
			hook: token(All(CredentialsRefused(), WithStatus(403))), health: credentials,
			during: fewTokens},
		{name: "credentials refused, 200", begin: (*rig).revoke,
			hook: token(All(CredentialsRefused(), WithStatus(200))), health: credentials,
			during: fewTokens},
		{name: "the token call is nowhere", begin: (*rig).revoke, hook: token(Status(404)),
			health: credentials, during: fewTokens},
		{name: "every second request refuses the token", hook: func(*rig) Hook {
			return EverySecond(OnAgents(InvalidToken(401)))
		}, goes: true, during: noAlarm},
		{name: "every second request refuses the token, in JSON", variant: true,
			hook: func(*rig) Hook { return EverySecond(OnAgents(InvalidTokenJSON(200))) },
			goes: true, during: noAlarm},
		{name: "a token revoked, in JSON", hook: func(*rig) Hook {
			return Times(3, OnAgents(InvalidTokenJSON(403)))
		}, goes: true, during: fewTokens},
		{name: "tokens revoked early", begin: (*rig).revoke, goes: true},
		{name: "tokens revoked in mid-sweep", hook: func(*rig) Hook {
			return Times(2, OnPage(3, RevokeTokens()))
		}, goes: true, during: fewTokens},
		{name: "short-lived tokens", setup: setup{tokenTTL: time.Second}, goes: true,
			during: func(r *rig, on time.Time) {
				wait.Eventually(r.t, "some renewals", func() bool {
					return r.asked(TokenEndpoint, on) >= 2
				})
			}},
	}
	for _, status := range []int{200, 302, 401, 403, 429, 503} {
		out = append(out, fault{name: fmt.Sprintf("XML once, status %d", status),
			variant: status != 200 && status != 401 && status != 503, goes: true, during: fewTokens,
			hook: func(*rig) Hook { return Times(1, OnPage(2, InvalidToken(status))) }})
	}
	for _, status := range []int{302, 307} {
		out = append(out, fault{name: fmt.Sprintf("redirects of pages, %d", status),
			variant: status == 302, hook: redirect(status, AgentsEndpoint), health: unusable})
	}
	out = append(out, fault{name: "redirects of tokens, 307", begin: (*rig).revoke,
		hook: redirect(307, TokenEndpoint), health: unusable})

	// A field that is of another kind now, in all rows.
	out = append(out, fault{name: "onlineStatus a boolean", setup: still, goes: true,
		health: unusable, lies: true, during: nobodyRemoved,
		hook: agents(eachRow(func(row []byte) []byte {
			row, err := Patch(row, Fields{"onlineStatus": "true"})
			if err != nil {
				panic(err)
			}
			return row
		}))})

	// Bad records. Those that can be told whose they are spoil nothing.
	for name, fields := range map[string]Fields{
		"without onlineStatus":   {"onlineStatus": ""},
		"onlineStatus null":      {"onlineStatus": "null"},
		"onlineStatus no number": {"onlineStatus": `"on"`},
		"of another tenant":      {"tenantId": "999"},
		"too large":              {"note": `"` + strings.Repeat("x", 2*maxRowBytes) + `"`},
	} {
		out = append(out, badRecord(name, fields, true))
	}
	for name, fields := range map[string]Fields{
		"without agentId":    {"agentId": ""},
		"agentId null":       {"agentId": "null"},
		"agentId a fraction": {"agentId": "17.5"},
		"agentId no number":  {"agentId": `"A-17"`},
	} {
		out = append(out, badRecord(name, fields, false))
	}
	out = append(out, badRecord("that is GBK", Fields{"agentName": "\"\xd5\xc5\xc8\xfd\""}, true))
	for name, row := range map[string]string{"a number": "17", "null": "null",
		"a list":          `["agentId",17]`,
		"that is no JSON": `{"onlineStatus":1,"agentName":"5" tall"}`} {
		f := badRecord(name, nil, false)
		f.begin = badRow(func(r *rig, id int64) { r.sim.Replace(id, json.RawMessage(row)) }, false)
		out = append(out, f)
	}
	return out
}

// pauses waits for what the vendor wished for to have been heeded: after an answer that said so
// there came no request for about a second, but for those that were under way.
func pauses(r *rig, on time.Time) {
	wait.Eventually(r.t, "some more requests", func() bool { return r.injected.Load() >= 2 })
	in := 0
	var first time.Time
	for _, q := range r.sim.Requests() {
		if q.Time.Before(on) {
			continue
		}
		if first.IsZero() {
			first = q.Time
		}
		if q.Time.Sub(first) < 900*time.Millisecond {
			in++
		}
	}
	if in > 2*concurrency {
		r.t.Errorf("%d requests within a second of an answer that wished for none", in)
	}
}

// noDeeper checks that a listing that never ends is not read without end.
func noDeeper(r *rig, on time.Time) {
	for _, q := range r.sim.Requests() {
		if q.Page > 7+2*concurrency {
			r.t.Errorf("page %d was asked for", q.Page)
			return
		}
	}
}

// endsAt lets the listing end after n agents, the last pages empty.
func endsAt(n int) func(*rig) Hook {
	return func(*rig) Hook {
		return func(q Request) Fault {
			f := TotalCount(n)
			if q.Page*q.PageSize >= n {
				f = All(f, Rows(func([]Row) []Row { return nil }))
			}
			return when(q.Endpoint == AgentsEndpoint, f)
		}
	}
}

// keeps checks that nobody is removed while listings lack agents that never leave.
func keeps(r *rig, on time.Time) {
	r.sweeps(6)
	nobodyRemoved(r, on)
}

// nobodyRemoved checks that nobody has been removed so far.
func nobodyRemoved(r *rig, _ time.Time) {
	for _, m := range r.live.Messages() {
		var e schemas.Event
		if e.UnmarshalJSON(m.Body) == nil && e.Data.Reason == schemas.Removed {
			r.t.Errorf("agent %d was removed at %v, and nobody ever left", e.Data.Agent.AgentID,
				e.Time)
			return
		}
	}
}

// letsGo waits until those that stayed missing for longer than the guard holds have been removed.
func (r *rig) letsGo(on time.Time) {
	wait.Eventually(r.t, "the agents to be removed after all", func() bool {
		w := r.mark()
		return w.StartedAt.After(on) && w.Agents < 15 && w.Missing < 10
	})
}

// noFault checks that the fault met nobody.
func noFault(r *rig, on time.Time) {
	if n := r.asked(TokenEndpoint, on); n > 0 {
		r.t.Errorf("%d tokens asked for, while there was a good one", n)
	}
}

// fewTokens checks that not every request brings a token request.
func fewTokens(r *rig, on time.Time) {
	if n := r.asked(TokenEndpoint, on); n > 3 {
		r.t.Errorf("%d tokens asked for", n)
	}
}

// noAlarm checks that nobody doubts the credentials.
func noAlarm(r *rig, on time.Time) {
	fewTokens(r, on)
	if strings.Contains(r.logged.String(), "level=ERROR") {
		r.t.Error("an error was told")
	}
}

func when(ok bool, f Fault) Fault {
	if ok {
		return f
	}
	return nil
}

func (r *rig) revoke() { r.sim.RevokeTokens() }

// flip is the row with the other onlineStatus.
func flip(row Row) Row {
	a, _, err := packed.Decode(row.JSON, tenant)
	if err != nil {
		return row
	}
	if row.JSON,
		err = Patch(row.JSON,
		Fields{"onlineStatus": fmt.Sprint(1 - a.Unpack().OnlineStatus)}); err != nil {
		panic(err)
	}
	return row
}

// twice shows the page's first row again, behind all others, in the other state.
func twice(p *Plan) {
	Rows(func(rows []Row) []Row {
		if len(rows) == 0 {
			return rows
		}
		return append(rows, flip(rows[0]))
	})(p)
}

// elsewhere shows on a page, in the place of its first row, an agent that page 0 shows in the other
// state.
func elsewhere(p *Plan) {
	var first Row
	Meanwhile(func(t *Tenant) { first = t.Listing()[0] })(p)
	Rows(func(rows []Row) []Row { rows[0] = flip(first); return rows })(p)
}

// shifting lets, once in each sweep, the first agent of all leave and a new one join while the
// pages are read, so that everybody moves up one place and every count stays right.
func shifting(*rig) Hook {
	return onceASweep(3, func(t *Tenant) {
		t.Remove(t.IDs()[0])
		t.AddAgent()
	})
}

// resizing lets one agent leave, or two join, once in each sweep.
func resizing(*rig) Hook {
	var turn atomic.Int64
	return onceASweep(3, func(t *Tenant) {
		if turn.Add(1)%2 == 1 {
			t.AddAgent()
			t.AddAgent()
		} else {
			t.Remove(t.IDs()[0], t.IDs()[11])
		}
	})
}

// onceASweep does something while a page is asked for, the first time after page 0.
func onceASweep(number int, do func(*Tenant)) Hook {
	var mu sync.Mutex
	armed := false
	return func(q Request) Fault {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case q.Endpoint != AgentsEndpoint:
		case q.Page == 0:
			armed = true
		case q.Page == number && armed:
			armed = false
			return Meanwhile(do)
		}
		return nil
	}
}

// everyOther has a fault in every other sweep.
func everyOther(hook func(*rig) Hook) func(*rig) Hook {
	return func(r *rig) Hook {
		h := hook(r)
		var sweep atomic.Int64
		return func(q Request) Fault {
			if q.Endpoint == AgentsEndpoint && q.Page == 0 {
				sweep.Add(1)
			}
			return when(sweep.Load()%2 == 0, h(q))
		}
	}
}

// redirect sends one endpoint's requests to a server that would answer them rightly, and fails the
// test where one comes.
func redirect(status int, endpoint Endpoint) func(*rig) Hook {
	return func(r *rig) Hook {
		trap := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			r.t.Errorf("a redirect was followed: %s %s", q.Method, q.URL)
			http.Error(w, "no", http.StatusTeapot)
		}))
		r.t.Cleanup(trap.Close)
		return func(q Request) Fault {
			path := "/openapi/v1/openTask/findOnlineAgent"
			if endpoint == TokenEndpoint {
				path = "/oauth2/oauth/rest_token"
			}
			return when(q.Endpoint == endpoint,
				All(WithStatus(status), Header("Location", trap.URL+path)))
		}
	}
}

// badRecord is a fault of one agent's record. Where it can be told whose it is, another agent that
// leaves meanwhile is removed; otherwise nobody is.
func badRecord(name string, fields Fields, known bool) fault {
	f := fault{name: "record " + name, goes: true, variant: strings.Contains(name, "null") ||
		strings.Contains(name, "no number")}
	if !known {
		f.health = unidentified
	}
	f.begin = badRow(func(r *rig, id int64) { r.sim.Edit(id, fields) }, known)
	return f
}

// Churn may change the spoilt row, or remove its agent: then it is done again, with another agent.
func badRow(spoil func(r *rig, id int64), known bool) func(r *rig) {
	return func(r *rig) {
		ids := r.sim.IDs()
		leaver := ids[23]
		for _, victim := range ids[7:23] {
			row, _ := r.sim.Agent(victim)
			spoil(r, victim)
			spoilt, _ := r.sim.Agent(victim)
			same := func() bool {
				is, listed := r.sim.Agent(victim)
				return listed && bytes.Equal(is, spoilt)
			}
			wait.Eventually(r.t, "a sweep with the record", func() bool {
				return !same() || r.mark().Rejected == 1
			})
			r.sim.Remove(leaver)
			w := r.sweeps(4)
			if !same() {
				r.sim.Replace(victim, row)
				continue
			}
			if w.Rejected != 1 {
				r.t.Errorf("%d records rejected, want 1", w.Rejected)
			}
			if r.removed(victim) {
				r.t.Errorf("agent %d was removed, while a record that is or may be its own is bad",
					victim)
			}
			if known {
				wait.Eventually(r.t, "the removal of another agent meanwhile", func() bool {
					r.sim.Remove(leaver) // churn may have brought it back
					return r.removed(leaver)
				})
			} else if r.removed(leaver) {
				r.t.Errorf("agent %d was removed, while there was a record that could be its own",
					leaver)
			}
			r.mend = func() { r.sim.Replace(victim, row) }
			return
		}
		r.t.Fatal("churn has changed every record that was spoilt")
	}
}

// removed reports whether the stream's state of an agent is its removal.
func (r *rig) removed(id int64) bool {
	m, err := r.nc.Request("$JS.API.DIRECT.GET."+schemas.Stream+"."+schemas.StateSubject(tenant,
		id), nil, wait.Patience)
	if err != nil {
		r.t.Fatal(err)
	}
	var e schemas.Event
	return e.UnmarshalJSON(m.Data) == nil && e.Data.Reason == schemas.Removed
}

// TestFault stages every misbehaviour alone; their variants too with -long.
func TestFault(t *testing.T) {
	t.Parallel()
	began := time.Now()
	var mu sync.Mutex
	var table strings.Builder
	t.Cleanup(func() {
		t.Logf("all in %v:\n| fault | injected | watermark goes on | health | events | complete "+
			"sweeps | took | passed |\n%s", time.Since(began).Round(time.Second), &table)
	})
	for i, f := range faults() {
		if f.variant && *long == 0 {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			f.setup.seed = uint64(i + 1)
			start := time.Now()
			injected, stats := f.play(t)
			mu.Lock()
			defer mu.Unlock()
			fmt.Fprintf(&table, "| %s | %d | %t | %s | %d | %d | %v | %v |\n", f.name, injected,
				f.goes, f.health, stats.Events, stats.CompleteSweeps,
				time.Since(start).Round(100*time.Millisecond), !t.Failed())
		})
	}
}

func (f fault) play(t *testing.T) (int64, checker.Stats) {
	r := newRig(t, f.setup)
	before, heard := r.now(), len(r.heardHealth())
	if f.hook != nil {
		r.inject(f.hook(r))
	}
	if f.begin != nil {
		f.begin(r)
	}
	on := r.now()
	if f.goes {
		r.sweeps(3)
	}
	if f.health != "" {
		wait.Eventually(r.t, "health "+f.health, func() bool {
			return slices.ContainsFunc(r.heardHealth()[heard:], func(h schemas.Health) bool {
				return string(h.State)+" "+string(h.Reason) == f.health
			})
		})
	}
	if f.during != nil {
		f.during(r, on)
	}
	off := r.now()
	r.inject(nil)
	if f.end != nil {
		f.end(r)
	}
	if r.mend != nil {
		r.mend()
	}
	r.swept(off)
	r.waitHealth(schemas.HealthOK, "")
	back := r.now()
	r.quiesce()

	if f.lies {
		f.options.Outages = []checker.Interval{{From: before, To: back}}
	}
	stats := r.finish(f.options)
	if !f.slanders {
		r.wantTruth()
	}
	r.wantLimits(f.abandons)
	for _, w := range r.heardMarks() {
		if !f.goes && w.StartedAt.After(on) && w.CompletedAt.Before(off) {
			t.Errorf("sweep %d counts as complete, from %v to %v", w.Sweep, w.StartedAt,
				w.CompletedAt)
			break
		}
	}
	for _, h := range r.heardHealth() {
		switch got := strings.TrimSpace(fmt.Sprintf("%s %s", h.State, h.Reason)); {
		case got == "ok", got == f.health:
		case got == unreachable && stalled(h): // nothing else was known yet
		// slow, for these intervals
		case got == unreachable && f.goes && f.health == "" && h.Since.Before(back):
		// its length changed under way, and it is slow
		case got == inconsistent && r.setup.churn > 0 && strings.Contains(h.Detail, "total_count"):
		default:
			t.Errorf("health %s: %s", got, h.Detail)
		}
	}
	return r.injected.Load(), stats
}
