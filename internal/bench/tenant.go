package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rollcall-events/rollcall/internal/tenantsim"
)

const (
	roleTenant   = "tenant"     // the first argument of its process; the second: its agents
	roleVariable = "BENCH_ROLE" // has a test binary know that it is to be the tenant
	tenantID     = 886
	pageSize     = tenantsim.MaxPageSize
)

// credentials are those that the tenant takes.
var credentials = tenantsim.Config{
	TenantID: tenantID, TokenTTL: 24 * time.Hour, InvalidTokenStatus: http.StatusUnauthorized,
	ClientID: "bench", ClientSecret: "bench-secret",
	Username: "bench-user", Password: "bench-password",
}

// A listing is a simulated tenant whose pages have been prepared, so that serving one is little
// more than writing it.
type listing struct {
	sim   *tenantsim.Tenant // without agents: it knows the credentials
	pages []*page
	total int
	order []int // of the agents, in which they flip one by one

	mu    sync.Mutex // guards everything below, and what is in the pages
	drift bool
	stamp int64 // the last agentSignInDate of a drifting answer
	first int64 // when the first page was answered since the mark, in Unix nanoseconds; 0: none was
	next  int   // of order
	shown []shown
}

// shown says when the answer that was the first to show an agent's flip had been written.
type shown struct {
	Agent int64 `json:"agent"`
	At    int64 `json:"at"` // Unix nanoseconds
}

// A page's bytes are replaced, never altered, and their length stays the same.
type page struct {
	body    []byte
	rows    []rowAt
	pending []int64 // agents whose flip has not been shown yet
}

// rowAt is where the fields that change stand in a page's bytes.
type rowAt struct {
	agent                   int64
	status, updated, signIn int
}

// newListing prepares the pages of n agents that look like the vendor's.
func newListing(n int) (*listing, error) {
	full, empty := credentials, credentials
	full.Agents, empty.Agents = n, -1
	l := &listing{sim: tenantsim.New(empty), total: n, stamp: 1_700_000_000_000}
	l.order = rand.New(rand.NewPCG(1, 2)).Perm(n)
	for rows := range slices.Chunk(tenantsim.New(full).Listing(), pageSize) {
		for i, r := range rows { // all have the field, of one length
			var err error
			signedIn := tenantsim.Fields{"agentSignInDate": "1699999999999"}
			if rows[i].JSON, err = tenantsim.Patch(r.JSON, signedIn); err != nil {
				return nil, err
			}
		}
		p := &page{body: tenantsim.PageReply(len(l.pages), n, rows).Body}
		at := 0
		for _, r := range rows {
			at += bytes.Index(p.body[at:], r.JSON)
			value := func(name string) int {
				key := `"` + name + `":`
				return at + bytes.Index(r.JSON, []byte(key)) + len(key)
			}
			p.rows = append(p.rows, rowAt{
				r.ID, value("onlineStatus"), value("lastUpdateTimestamp"), value("agentSignInDate"),
			})
		}
		l.pages = append(l.pages, p)
	}
	return l, nil
}

// online counts the agents that are online.
func (l *listing) online() (n int) {
	for _, p := range l.pages {
		for _, r := range p.rows {
			n += int(p.body[r.status] - '0')
		}
	}
	return n
}

// flip signs some of a page's agents in or out.
func (p *page) flip(rows ...rowAt) {
	p.body = bytes.Clone(p.body)
	for _, r := range rows {
		p.body[r.status] ^= 1
		putStamp(p.body[r.updated:], time.Now().UnixMilli())
	}
}

// flipNext flips the next n agents, each on its page, and returns which.
func (l *listing) flipNext(n int) (agents []int64) {
	for range n {
		i := l.order[l.next%len(l.order)]
		l.next++
		p := l.pages[i/pageSize]
		row := p.rows[i%pageSize]
		p.flip(row)
		p.pending = append(p.pending, row.agent)
		agents = append(agents, row.agent)
	}
	return agents
}

// putStamp writes a time in milliseconds, 13 digits, over the one that b begins with.
func putStamp(b []byte, ms int64) {
	for i := 12; i >= 0; i-- {
		b[i] = byte('0' + ms%10)
		ms /= 10
	}
}

// ServeHTTP answers the vendor's two calls, and under /bench/ what bench itself wants.
func (l *listing) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if what, ok := strings.CutPrefix(r.URL.Path, "/bench/"); ok {
		l.control(w, what, r.FormValue("n"))
		return
	}
	body, ok := tenantsim.ReadBody(w, r)
	if !ok {
		return
	}
	var news []int64
	reply := l.sim.Answer(r, body, func(q tenantsim.Query) (reply tenantsim.Reply) {
		switch {
		case q.Size != pageSize:
			return tenantsim.Reply{Status: http.StatusBadRequest, Body: []byte("not a full page")}
		case q.Page >= len(l.pages):
			return tenantsim.PageReply(q.Page, l.total, nil)
		}
		reply, news = l.page(l.pages[q.Page])
		return reply
	})
	w.Header().Set("Content-Type", reply.ContentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(reply.Body)))
	w.WriteHeader(reply.Status)
	_, _ = w.Write(reply.Body)
	if len(news) > 0 {
		at := time.Now().UnixNano()
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, agent := range news {
			l.shown = append(l.shown, shown{agent, at})
		}
	}
}

// page is a page as it is now, and the agents whose flip it is the first to show.
func (l *listing) page(p *page) (reply tenantsim.Reply, news []int64) {
	l.mu.Lock()
	news, p.pending = p.pending, nil
	body, drift := p.body, l.drift
	l.stamp++
	stamp := l.stamp
	if l.first == 0 {
		l.first = time.Now().UnixNano()
	}
	l.mu.Unlock()
	if drift {
		body = bytes.Clone(body)
		for _, r := range p.rows {
			if body[r.status] == '1' {
				putStamp(body[r.signIn:], stamp)
			}
		}
	}
	return tenantsim.Reply{Status: http.StatusOK, ContentType: "application/json", Body: body}, news
}

func (l *listing) control(w http.ResponseWriter, what, arg string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var answer any
	n, _ := strconv.Atoi(arg)
	switch what {
	case "drift":
		l.drift = n == 1
	case "mark": // from now on, when is the first answer?
		l.first = 0
	case "first":
		answer = l.first
	case "online":
		answer = l.online()
	case "flip":
		answer = l.flipNext(n)
	case "flipall":
		for _, p := range l.pages {
			p.flip(p.rows...)
		}
	case "shown": // since it was last asked
		answer, l.shown = l.shown, nil
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// serveTenant is the tenant's process: it tells its URL, and serves until it is ended.
func serveTenant(_ context.Context, args []string, stdout, _ io.Writer) error {
	agents, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	l, err := newListing(agents)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "http://%s\n", ln.Addr())
	return http.Serve(ln, l)
}

// A tenant is the tenant's process, as bench sees it.
type tenant struct {
	proc
	url string
}

func startTenant(agents int) *tenant {
	env := map[string]string{roleVariable: "1"}
	t := &tenant{proc: start(get(os.Executable()), env, roleTenant, strconv.Itoa(agents))}
	for t.url == "" {
		if line, _, whole := strings.Cut(t.Stdout.String(), "\n"); whole {
			t.url = line
		} else if !t.Running() {
			must(t.died())
		}
		time.Sleep(10 * time.Millisecond)
	}
	return t
}

// ask tells the tenant something, and decodes its answer into v, unless that is nil.
func (t *tenant) ask(what string, v any) {
	resp := get(http.Get(t.url + "/bench/" + what))
	defer resp.Body.Close()
	if v == nil {
		v = new(any) // to have read it, so that the connection is used again
	}
	must(json.NewDecoder(resp.Body).Decode(v))
}
