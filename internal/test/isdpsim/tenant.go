// Package isdpsim is the vendor of the tests: a simulated ISDP+ tenant ([tenantsim]) that can be
// told to misbehave, and that keeps a record of all that was asked of it and all that it showed.
//
// History lists the tenant's changes in the order in which pages could show them; Pages says what
// was shown, and after how many of those changes. Faults are described at [Fault] and [Hook].
package isdpsim

import (
	"bytes"
	"context"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rollcall-events/rollcall/internal/tenantsim"
)

// What the tenant is made of, so that tests need one package only.
type (
	Config = tenantsim.Config
	Fields = tenantsim.Fields
	Row    = tenantsim.Row
	Change = tenantsim.Change
	Reply  = tenantsim.Reply
)

// Of tenantsim, likewise.
const (
	FirstID          = tenantsim.FirstID
	MaxPageSize      = tenantsim.MaxPageSize
	DemoClientID     = tenantsim.DemoClientID
	DemoClientSecret = tenantsim.DemoClientSecret
	DemoUsername     = tenantsim.DemoUsername
	DemoPassword     = tenantsim.DemoPassword
	Removed          = tenantsim.Removed
	Restored         = tenantsim.Restored
)

// Patch is that of tenantsim.
var Patch = tenantsim.Patch

// A Tenant is a simulated tenant with faults and a record. It is an http.Handler; all its methods
// are safe for concurrent use.
type Tenant struct {
	*tenantsim.Tenant
	now       func() time.Time
	bytesSent atomic.Int64

	historyMu sync.Mutex
	history   []Change

	// guards everything below; never held while a hook runs or an answer is written
	mu    sync.Mutex
	pages []*PageAnswer
	shown map[tenantsim.Query]*PageAnswer // the last answer to each query, to share its rows
	hook  Hook
	stats stats
}

// New returns a tenant with its first agents. Config.Changed is its own.
func New(cfg Config) *Tenant {
	t := &Tenant{now: cfg.Now, shown: make(map[tenantsim.Query]*PageAnswer), stats: newStats()}
	if t.now == nil {
		t.now = time.Now
	}
	cfg.Changed = func(c Change) {
		t.historyMu.Lock()
		defer t.historyMu.Unlock()
		t.history = append(t.history, c)
	}
	t.Tenant = tenantsim.New(cfg)
	return t
}

// SetFault installs the hook that all requests from now on pass through; nil: none.
func (t *Tenant) SetFault(h Hook) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.hook = h
}

// ServeHTTP answers the vendor's two calls, as the faults set by SetFault have it.
func (t *Tenant) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, ok := tenantsim.ReadBody(w, r)
	if !ok {
		return
	}
	req, hook, leave := t.arrive(r, body)
	defer leave()

	plan := &Plan{Request: req, Page: req.Page}
	if hook != nil {
		if fault := hook(req); fault != nil {
			fault(plan)
		}
	}
	for _, do := range plan.Meanwhile {
		do(t)
	}
	if !wait(r.Context(), plan.Delay) {
		panic(http.ErrAbortHandler) // returning would be an answer: 200 without a body
	}
	reply, shown := t.reply(r, body, plan)
	out := &countingWriter{ResponseWriter: w, sent: &t.bytesSent}
	sent := false
	defer func() {
		if !sent || out.failed {
			t.broken(shown)
		}
	}()
	if !wait(r.Context(), plan.Late) {
		panic(http.ErrAbortHandler)
	}
	for _, change := range plan.Body {
		reply.Body = change(reply.Body)
	}
	for name, values := range plan.Header {
		w.Header()[name] = values
	}
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", reply.ContentType)
	}
	send := plan.Send
	if send == nil {
		send = sendWhole
	}
	send(&Delivery{W: out, Context: r.Context(), Status: plan.status(reply), Body: reply.Body,
		Last: leave})
	sent = true
}

// reply makes the answer that goes out, unless it is sent in an unusual way, and says which page it
// showed, if any.
func (t *Tenant) reply(r *http.Request, body []byte, plan *Plan) (reply Reply, shown *PageAnswer) {
	if plan.Reply != nil {
		return *plan.Reply, nil
	}
	reply = t.Answer(r, body, func(q tenantsim.Query) (reply Reply) {
		reply, shown = t.page(q, plan)
		return reply
	})
	if shown == nil && bytes.Equal(reply.Body, tenantsim.InvalidToken(0).Body) {
		t.mu.Lock()
		t.stats.InvalidTokens++
		t.mu.Unlock()
	}
	return reply, shown
}

// page answers with one page of the listing.
func (t *Tenant) page(q tenantsim.Query, plan *Plan) (Reply, *PageAnswer) {
	t.mu.Lock()
	served := q
	served.Page = plan.Page
	found := t.Find(served)
	shown := &PageAnswer{
		Request: plan.Request.Number, Time: found.Time, Seq: found.Made, Page: q.Page,
		PageSize: q.Size,
		Type:     q.Type, Online: q.Online, Pos: q.Page, Total: found.Total, Broken: plan.Broken,
	}
	t.pages = append(t.pages, shown) // its place in the order; the rows follow
	t.mu.Unlock()

	rows, total, pos := found.Rows, found.Total, q.Page
	for _, change := range plan.Rows {
		rows = change(rows)
	}
	for _, lie := range plan.Total {
		total = lie(total)
	}
	for _, lie := range plan.Pos {
		pos = lie(pos)
	}
	t.mu.Lock()
	shown.Pos, shown.Total, shown.Rows = pos, total, rows
	t.share(q, shown)
	t.mu.Unlock()
	return tenantsim.PageReply(pos, total, rows), shown
}

// wait lets d pass and reports whether the client is still there.
func wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// History returns every change in order, the first agents included. Changes of an agent that is not
// listed are in it when the agent returns, since no page could show them before. The rows are
// shared and must not be altered.
func (t *Tenant) History() []Change { return t.HistorySince(0) }

// HistorySince is History from the change with the given Seq on.
func (t *Tenant) HistorySince(seq int) []Change {
	t.historyMu.Lock()
	defer t.historyMu.Unlock()
	return slices.Clone(t.history[min(seq, len(t.history)):])
}

// PageAnswer is what one answer of the agents endpoint showed.
type PageAnswer struct {
	Request  int       // the number of the request
	Time     time.Time // of the look-up, by the tenant's clock
	Seq      int       // how many changes of the History had been made by then
	Page     int       // the page asked for, not the one that a fault may have served
	PageSize int
	Type     int // the filter; -1: none
	Online   int // the filter; -1: none
	Pos      int // what the answer said
	Total    int // what the answer said

	// Rows is what the answer said; a row made up by a fault has the id that the fault gave it.
	// Shared between answers: not to be altered.
	Rows []Row

	// Broken says that these rows did not reach the client as one well-formed answer: a fault
	// changed the status or the body, or the client had gone.
	Broken bool
}

// Pages returns what every answer of the agents endpoint showed, in the order of the look-ups.
// Requests that were answered without a look-up are not in it.
func (t *Tenant) Pages() []PageAnswer {
	t.mu.Lock()
	defer t.mu.Unlock()
	pages := make([]PageAnswer, len(t.pages))
	for i, p := range t.pages {
		pages[i] = *p
	}
	return pages
}

// share lets an answer use the rows of the last answer to the same query where they are the same,
// so that pages without news cost next to nothing. mu is held.
func (t *Tenant) share(q tenantsim.Query, p *PageAnswer) {
	same := func(a, b Row) bool {
		return a.ID == b.ID && len(a.JSON) == len(b.JSON) &&
			(len(a.JSON) == 0 || &a.JSON[0] == &b.JSON[0])
	}
	if last, ok := t.shown[q]; ok && slices.EqualFunc(last.Rows, p.Rows, same) {
		p.Rows = last.Rows
	}
	t.shown[q] = p
}

// broken notes that a page did not reach its client.
func (t *Tenant) broken(p *PageAnswer) {
	if p == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	p.Broken = true
}
