package isdpsim

import (
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/rollcall-events/rollcall/internal/tenantsim"
)

// Endpoint is one of the vendor's calls.
type Endpoint string

const (
	TokenEndpoint  Endpoint = "token"
	AgentsEndpoint Endpoint = "agents"
	OtherEndpoint  Endpoint = "other" // any other path
)

// Request is one request as a Hook sees it.
type Request struct {
	Number   int // of all requests, from 1, in the order in which their bodies had been read
	Endpoint Endpoint
	Call     int // of the requests to this endpoint, from 1
	Time     time.Time

	// Of the agents endpoint only:
	Page     int // pageStart; 0 too where the request could not be understood
	PageSize int // as it will be served
	Type     int // the filter; -1: none
	Online   int // the filter; -1: none
	Visit    int // of the requests for this page with this type, from 1
}

// Stats is what a tenant has been asked so far.
type Stats struct {
	Requests      int // all of them
	TokenRequests int
	PageRequests  int // to the agents endpoint, whatever they were answered
	TokensIssued  int // fresh ones
	// requests answered with the XML of an invalid token, but for those by a fault
	InvalidTokens int
	InFlight      int // requests under way now
	MaxInFlight   int // the most at any time
	MaxPages      int // the most to the agents endpoint at any time
	BytesSent     int64
}

// stats is the tenant's own count. All of it is guarded by Tenant.mu.
type stats struct {
	Stats
	pagesInFlight int
	visits        map[[2]int]int // by type and page
	requests      []Request      // the last ones, see Requests
}

func newStats() stats { return stats{visits: make(map[[2]int]int)} }

// maxRequests is how many requests are remembered one by one, at least; at most twice as many.
const maxRequests = 100_000

// Stats returns the counts so far. A request is in flight from when its body has been read until
// just before its client has the whole answer, so that a client that never has more than n requests
// open is never counted with more; but one that gives up counts until the tenant has noticed.
func (t *Tenant) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.stats.Stats
	s.BytesSent = t.bytesSent.Load()
	s.TokensIssued = len(t.Tokens()) / 2 // each with a refresh token
	return s
}

// Requests returns the requests so far in the order of their numbers, the last 100,000 at least,
// with their times: to see what rate they came at.
func (t *Tenant) Requests() []Request {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.stats.requests)
}

// arrive counts a request in and returns the hook that it passes through; leave counts it out,
// once.
func (t *Tenant) arrive(r *http.Request, body []byte) (req Request, hook Hook, leave func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &t.stats
	s.Requests++
	s.InFlight++
	s.MaxInFlight = max(s.MaxInFlight, s.InFlight)
	req = Request{Number: s.Requests, Time: t.now()}
	switch r.URL.Path {
	case tenantsim.TokenPath:
		s.TokenRequests++
		req.Endpoint, req.Call = TokenEndpoint, s.TokenRequests
	case tenantsim.AgentsPath:
		q := tenantsim.ReadQuery(body)
		s.PageRequests++
		s.pagesInFlight++
		s.MaxPages = max(s.MaxPages, s.pagesInFlight)
		key := [2]int{q.Type, q.Page}
		s.visits[key]++
		req.Endpoint, req.Call, req.Visit = AgentsEndpoint, s.PageRequests, s.visits[key]
		req.Page, req.PageSize, req.Type, req.Online = q.Page, q.Size, q.Type, q.Online
	default:
		req.Endpoint, req.Call = OtherEndpoint, s.Requests-s.TokenRequests-s.PageRequests
	}
	if len(s.requests) >= 2*maxRequests {
		s.requests = slices.Clone(s.requests[maxRequests:])
	}
	s.requests = append(s.requests, req)
	return req, t.hook, sync.OnceFunc(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		s.InFlight--
		if req.Endpoint == AgentsEndpoint {
			s.pagesInFlight--
		}
	})
}
