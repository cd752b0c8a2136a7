package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rollcall-events/rollcall/internal/tenantsim"
)

const (
	roleTenant = "tenant"
	tenantID   = 886
	pageSize   = tenantsim.MaxPageSize
	tokenPath  = "/oauth2/oauth/rest_token"
	agentsPath = "/openapi/v1/openTask/findOnlineAgent"
	aToken     = "6f1f7a52-8c1e-4b7e-9a33-0c4d5e6f7a8b" // the only one there ever is
)

// A listing is a simulated tenant whose pages have been prepared, so that serving one is little
// more than writing it.
type listing struct {
	pages []*page
	total int

	drift atomic.Bool
	stamp atomic.Int64 // the last agentSignInDate of a drifting answer
	first atomic.Int64 // when the first page was answered since the mark, in Unix nanoseconds; 0: none was

	mu    sync.Mutex
	order []int32 // of the agents, in which they flip one by one
	next  int
	shown []shown
}

// shown says when the answer that was the first to show an agent's flip had been written.
type shown struct {
	Agent int64 `json:"agent"`
	At    int64 `json:"at"` // Unix nanoseconds
}

// A page's bytes are replaced, never altered.
type page struct {
	body    atomic.Pointer[[]byte]
	length  []string // the Content-Length
	rows    []rowAt
	flipped atomic.Bool // some are in pending

	mu      sync.Mutex
	pending []int64 // agents whose flip has not been shown yet
}

// rowAt is where the fields that change stand in a page's bytes.
type rowAt struct {
	agent                   int64
	status, updated, signIn int
}

const stampDigits = 13 // of a time in milliseconds

var jsonType = []string{"application/json;charset=UTF-8"}

// newListing prepares the pages of n agents that look like the vendor's.
func newListing(n int) (*listing, error) {
	sim := tenantsim.New(tenantsim.Config{Agents: n, TenantID: tenantID})
	l := &listing{total: n}
	l.stamp.Store(1_700_000_000_000)
	rows := sim.Listing()
	for first := 0; first < n; first += pageSize {
		p := &page{}
		b := fmt.Appendf(nil, `{"stateCode":"0","errorMessage":null,"result":{"pos":%d,"total_count":%d,"data":[`, len(l.pages), n)
		for i, r := range rows[first:min(first+pageSize, n)] {
			if i > 0 {
				b = append(b, ',')
			}
			row, err := tenantsim.Patch(r.JSON, tenantsim.Fields{"agentSignInDate": "1699999999999"})
			if err != nil {
				return nil, err
			}
			at := rowAt{agent: r.ID}
			for name, into := range map[string]*int{"onlineStatus": &at.status, "lastUpdateTimestamp": &at.updated, "agentSignInDate": &at.signIn} {
				key := []byte(`"` + name + `":`)
				i := bytes.Index(row, key)
				if i < 0 {
					return nil, fmt.Errorf("a row without %s: %s", name, row)
				}
				*into = len(b) + i + len(key)
			}
			b = append(b, row...)
			p.rows = append(p.rows, at)
		}
		b = append(b, `],"entityName":null}}`...)
		p.length = []string{strconv.Itoa(len(b))}
		p.body.Store(&b)
		l.pages = append(l.pages, p)
	}
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(n) {
		l.order = append(l.order, int32(i))
	}
	return l, nil
}

// online counts the agents that are online.
func (l *listing) online() int {
	n := 0
	for _, p := range l.pages {
		b := *p.body.Load()
		for _, r := range p.rows {
			n += int(b[r.status] - '0')
		}
	}
	return n
}

// flip signs some of a page's agents in or out.
func (p *page) flip(note bool, rows ...rowAt) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := bytes.Clone(*p.body.Load())
	for _, r := range rows {
		b[r.status] ^= 1
		putStamp(b[r.updated:], time.Now().UnixMilli())
		if note {
			p.pending = append(p.pending, r.agent)
		}
	}
	p.body.Store(&b)
	if note {
		p.flipped.Store(true)
	}
}

// flipNext flips the next n agents, each on its page, and returns which.
func (l *listing) flipNext(n int) []int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var agents []int64
	for range n {
		i := int(l.order[l.next%len(l.order)])
		l.next++
		p := l.pages[i/pageSize]
		p.flip(true, p.rows[i%pageSize])
		agents = append(agents, p.rows[i%pageSize].agent)
	}
	return agents
}

func (l *listing) flipAll() {
	for _, p := range l.pages {
		p.flip(false, p.rows...)
	}
}

// putStamp writes a time in milliseconds over the one that b begins with.
func putStamp(b []byte, ms int64) {
	for i := stampDigits - 1; i >= 0; i-- {
		b[i] = byte('0' + ms%10)
		ms /= 10
	}
}

var buffers = sync.Pool{New: func() any { return new([]byte) }}

// answer writes a page.
func (l *listing) answer(w http.ResponseWriter, p *page) {
	var news []int64
	if p.flipped.Load() {
		p.mu.Lock() // what is pending is in the body by now
		news, p.pending = p.pending, nil
		p.flipped.Store(false)
		p.mu.Unlock()
	}
	body := *p.body.Load()
	if l.drift.Load() {
		buf := buffers.Get().(*[]byte)
		defer buffers.Put(buf)
		drifted := append((*buf)[:0], body...)
		*buf = drifted
		stamp := l.stamp.Add(1)
		for _, r := range p.rows {
			if drifted[r.status] == '1' {
				putStamp(drifted[r.signIn:], stamp)
			}
		}
		body = drifted
	}
	if l.first.Load() == 0 {
		l.first.CompareAndSwap(0, time.Now().UnixNano())
	}
	h := w.Header()
	h["Content-Type"], h["Content-Length"] = jsonType, p.length
	_, _ = w.Write(body)
	if len(news) > 0 {
		at := time.Now().UnixNano()
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, agent := range news {
			l.shown = append(l.shown, shown{agent, at})
		}
	}
}

// pageNumber finds pageStart in a request's body, -1 where it is not a request for a full page.
func pageNumber(body []byte) int {
	n, ok := number(body, `"pageStart":`)
	if size, sized := number(body, `"pageSize":`); !ok || !sized || size != pageSize {
		return -1
	}
	return n
}

func number(body []byte, key string) (n int, ok bool) {
	_, rest, found := bytes.Cut(body, []byte(key))
	if !found {
		return 0, false
	}
	i := 0
	for ; i < len(rest) && rest[i] >= '0' && rest[i] <= '9' && i < 9; i++ {
		n = 10*n + int(rest[i]-'0')
	}
	return n, i > 0
}

// ServeHTTP answers the vendor's two calls, and under /bench/ what bench itself wants.
func (l *listing) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case agentsPath:
		var buf [256]byte
		n, err := io.ReadFull(r.Body, buf[:])
		number := pageNumber(buf[:n])
		switch {
		case err != io.ErrUnexpectedEOF || number < 0:
			http.Error(w, "not a request for a full page", http.StatusBadRequest)
		case r.Header.Get("Authorization") != "bearer "+aToken:
			http.Error(w, "not the token", http.StatusUnauthorized)
		case number >= len(l.pages):
			w.Header()["Content-Type"] = jsonType
			fmt.Fprintf(w, `{"stateCode":"0","errorMessage":null,"result":{"pos":%d,"total_count":%d,"data":[],"entityName":null}}`, number, l.total)
		default:
			l.answer(w, l.pages[number])
		}
	case tokenPath:
		w.Header()["Content-Type"] = jsonType
		fmt.Fprintf(w, `{"access_token":"%s","token_type":"bearer","expires_in":86400,"scope":"all","plat_user":{"tenantId":%d}}`, aToken, tenantID)
	default:
		l.control(w, r)
	}
}

func (l *listing) control(w http.ResponseWriter, r *http.Request) {
	var answer any
	n, _ := strconv.Atoi(r.FormValue("n"))
	switch r.URL.Path {
	case "/bench/drift":
		l.drift.Store(n == 1)
	case "/bench/mark": // from now on, when is the first answer?
		l.first.Store(0)
	case "/bench/first":
		answer = l.first.Load()
	case "/bench/online":
		answer = l.online()
	case "/bench/flip":
		answer = l.flipNext(n)
	case "/bench/flipall":
		l.flipAll()
	case "/bench/shown": // since it was last asked
		l.mu.Lock()
		answer, l.shown = l.shown, nil
		l.mu.Unlock()
	default:
		http.NotFound(w, r)
		return
	}
	w.Header()["Content-Type"] = jsonType
	_ = json.NewEncoder(w).Encode(answer)
}

// serveTenant is the tenant's process: it tells its URL, and serves until stdin ends.
func serveTenant(args []string, stdin io.Reader, stdout io.Writer) error {
	fs := flag.NewFlagSet(roleTenant, flag.ContinueOnError)
	agents := fs.Int("agents", 340, "")
	if err := fs.Parse(args); err != nil {
		return err
	}
	l, err := newListing(*agents)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "http://%s\n", ln.Addr())
	go func() { _ = http.Serve(ln, l) }()
	_, err = io.Copy(io.Discard, stdin)
	return err
}

// A tenant is the tenant's process, as bench sees it.
type tenant struct {
	*process
	url string
}

func startTenant(self string, env []string, agents int) (*tenant, error) {
	p, err := start("the tenant", self, env, true, roleTenant, "-agents", strconv.Itoa(agents))
	if err != nil {
		return nil, err
	}
	url, err := bufio.NewReader(p.stdout).ReadString('\n')
	if err != nil {
		p.kill()
		return nil, fmt.Errorf("the tenant tells no URL: %w", err)
	}
	return &tenant{p, url[:len(url)-1]}, nil
}

// ask tells the tenant something, and decodes its answer into v, unless that is nil.
func (t *tenant) ask(what string, v any) error {
	resp, err := http.Get(t.url + "/bench/" + what)
	if err != nil {
		return fmt.Errorf("ask the tenant: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ask the tenant %s: HTTP %d", what, resp.StatusCode)
	}
	if v == nil {
		v = new(any)
	}
	if err := json.NewDecoder(resp.Body).Decode(v); err != nil {
		return fmt.Errorf("ask the tenant %s: %w", what, err)
	}
	return nil
}
