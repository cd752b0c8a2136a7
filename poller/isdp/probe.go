package isdp

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/rollcall-events/rollcall/internal/listing"
)

// TokenSeen is what one token call showed.
type TokenSeen struct {
	Tenant int64         // whose token it is; 0: the answer does not say
	Life   time.Duration // how long it is good for, as far as rollcall trusts it
	Took   time.Duration
}

// ProbeToken makes one token call, whatever came of earlier ones, and keeps the token for
// [Client.ProbePage]. Nothing is tried again. Where the tenant is not the configured one, or nobody
// names one, both results are there: the error is [ErrTenant].
func (p *Client) ProbeToken(ctx context.Context) (TokenSeen, error) {
	t := p.tokens
	start := time.Now()
	tok, tenant, err := t.once(ctx)
	seen := TokenSeen{Took: time.Since(start)}
	if err != nil {
		return seen, err.Doing(t.op())
	}
	seen.Tenant, seen.Life = tenant, tok.expire.Sub(start).Round(time.Second)
	t.mu.Lock()
	defer t.mu.Unlock()
	err = t.check(tenant)
	t.current = tok
	if err != nil {
		return seen, err.Doing(t.op())
	}
	t.tenant = max(tenant, t.want)
	return seen, nil
}

// PageSeen is what one agents call showed.
type PageSeen struct {
	listing.Page
	Rows     []json.RawMessage // all rows of the answer, undecoded
	Expected int               // how many rows belong on the page
	Bytes    int               // of the answer's body, decompressed
	Date     time.Time         // by the answer's Date header, to the second; zero: it has none
}

// ProbePage asks for the first page of a listing (an index into Config.Types, 0 where there are
// none), once, with the token of [Client.ProbeToken].
func (p *Client) ProbePage(ctx context.Context, index int) (*PageSeen, error) {
	p.tokens.mu.Lock()
	token, tenant := p.tokens.current.value, p.tokens.tenant
	p.tokens.mu.Unlock()
	fail := func(e *listing.Error) (*PageSeen, error) {
		return nil, e.Doing(p.reading(listing.Request{Listing: index}))
	}
	r, err := p.client.post(ctx, p.agentsURL, token, p.request(listing.Request{Listing: index}))
	switch {
	case err != nil:
		return fail(err)
	case r.refusesToken():
		return fail(&listing.Error{Class: listing.Credentials, Err: errors.New("the token that was just issued is refused: may this account use the agents call?")})
	}
	if err := failed(r.status); err != nil {
		return fail(refusedCall(err, r.status))
	}
	read := p.pageReader(tenant)
	a, bad := readAnswer(r.text().utf8, 0, p.cfg.PageSize, p.client.excerpt)
	if bad != nil {
		return fail(&listing.Error{Class: listing.Unusable, Err: bad})
	}
	seen := &PageSeen{Page: read.content(a, r.text()).Page, Rows: a.rows, Expected: expected(a.total, 0, p.cfg.PageSize), Bytes: len(r.body)}
	seen.Listing, seen.Sent, seen.Read = index, r.sent, r.read
	if date, err := http.ParseTime(r.header.Get("Date")); err == nil {
		seen.Date = date
	}
	return seen, nil
}
