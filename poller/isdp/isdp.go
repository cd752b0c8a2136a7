// Package isdp reads the agent listings of an ISDP+ tenant, a page at a time: it keeps a token,
// asks within the limits of rate, and makes pages of whatever the vendor and the gateways in
// between answer.
//
// The way of a page: a request is sent (caller.go) when the rate allows it (limits.go), with a
// token (token.go, tokencall.go), over connections that are replaced when they are old or silent
// (connect.go). The body is decompressed and decoded to UTF-8 (text.go). Its JSON is read
// (answer.go), leniently where it is not quite JSON (lenient.go). Each row becomes an agent or is
// rejected (page.go).
//
// Every error of a [Client] is a [*listing.Error] of one of four classes (errors.go). When the
// vendor asks for fewer requests (429, Retry-After), or begins to refuse what it answered before,
// the rate is halved, and rises again with every good answer. Refused credentials are logged once
// and tried again rarely, in the end once a minute; requests in between fail at once. No error and
// no log line shows a secret, a token, or more of an answer than a short excerpt of the vendor's
// own error message.
package isdp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"net/http"
	"sync"
	"time"

	"github.com/rollcall-events/rollcall/internal/listing"
)

// ErrTenant says that the token and the configuration do not agree on a tenant, or that neither
// names one.
var ErrTenant = errors.New("no agreement on the tenant")

// Client reads one tenant. Its methods are safe for concurrent use.
type Client struct {
	cfg       Config
	caller    *caller
	tokens    *tokens
	agentsURL string

	mu   sync.Mutex
	seen map[listing.Request]seenPage // what pages showed when they were last read
}

// A seenPage is a page, and the fingerprint of the answer that showed it.
type seenPage struct {
	answer fingerprint
	page   *listing.Page
}

// A fingerprint is equal for answers that are the same, byte for byte, and are read the same way.
type fingerprint struct {
	bytes, maxRow int
	sum           uint64
	lossy         bool
}

// seed makes the sums unpredictable, so that nobody can send two answers with the same one.
var seed = maphash.MakeSeed()

// New returns a Client, without asking the vendor anything. Its error is that of [Config.Validate].
func New(c Config) (*Client, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	base, err := parseBase(c.BaseURL)
	if err != nil {
		return nil, err
	}
	c = c.withDefaults()
	cl := newCaller(c)
	return &Client{
		cfg:       c,
		caller:    cl,
		tokens:    newTokens(c, cl, base.JoinPath("oauth2/oauth/rest_token").String()),
		agentsURL: base.JoinPath("openapi/v1/openTask/findOnlineAgent").String(),
		seen:      make(map[listing.Request]seenPage),
	}, nil
}

// Tenant gets a token, where there is none yet, and says whose it is. A token is asked for a few
// times; then, or at once where the credentials are refused, the token is another tenant's than
// Config.TenantID, or neither names a tenant, the error says why there is none. It may be called
// again: how often the vendor is asked does not depend on that.
func (c *Client) Tenant(ctx context.Context) (int64, error) {
	if _, err := c.tokens.get(ctx); err != nil {
		return 0, err
	}
	return c.tokens.tenantID(), nil
}

// PageSize is how many agents a full page has.
func (c *Client) PageSize() int { return c.cfg.PageSize }

// Rate is how many requests a second are allowed at present.
func (c *Client) Rate() float64 { return c.caller.limits.now() }

// CloseIdleConnections closes the connections that no request is using.
func (c *Client) CloseIdleConnections() {
	if t, ok := c.caller.http.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// Turn waits until a request may be sent. The next one is then sent at once.
func (c *Client) Turn(ctx context.Context) *listing.Error { return c.caller.limits.reserve(ctx) }

// Read asks for a page, once; but where its token is refused, a few times, with that or another
// token.
func (c *Client) Read(ctx context.Context, r listing.Request) (*listing.Page, *listing.Error) {
	call := string(c.body(r))
	answer, token, err := c.ask(ctx, call)
	var page *listing.Page
	if err == nil {
		page, err = c.page(r, &answer)
		if err == nil {
			answer.release()
			c.caller.limits.answered(call)
			c.tokens.accepted(token)
		} else if err.Refused && err.Class == listing.Unusable && !r.Again {
			c.caller.limits.refused(call, answer.began, err.Err)
		}
	}
	c.caller.metrics.request(callPage, &answer, err)
	if err != nil {
		return nil, err.Doing(c.op(r))
	}
	return page, nil
}

// ask sends one agents request; where its token is refused, a few times more, with that or another
// token, which it returns. Requests whose token is refused are counted here.
func (c *Client) ask(ctx context.Context, call string) (reply, string, *listing.Error) {
	pause := newBackOff()
	for n := 1; ; n++ {
		token, err := c.tokens.get(ctx)
		if err != nil {
			return reply{}, "", err
		}
		answer, err := c.caller.post(ctx, c.agentsURL, token, []byte(call))
		if err != nil || !answer.refusesToken() {
			return answer, token, err
		}
		c.caller.metrics.answered(callPage, &answer, requestExpired)
		moot := c.tokens.refused(token)
		switch {
		case n == pageRefusals && moot:
			err := unreachable(errors.New("a token that works is refused by turns"))
			return reply{}, "", hinted(err, "if this lasts: do all servers "+
				"behind this address know it? Ask the vendor")
		case n == pageRefusals:
			return reply{}, "", freshRefused()
		case sleep(ctx, pause.NextBackOff()) != nil:
			return reply{}, "", ended(ctx)
		}
	}
}

// page makes a page of an answer. One that is, byte for byte, what it was when the page was last
// read is not decoded again, unless rows may be longer or shorter now.
func (c *Client) page(r listing.Request, answer *reply) (*listing.Page, *listing.Error) {
	if err := pageStatusError(answer.status); err != nil {
		return nil, err
	}
	r.Again = false
	read := c.pageReader()
	sum := maphash.Bytes(seed, answer.utf8)
	print := fingerprint{len(answer.utf8), read.maxRow, sum, answer.lossy}
	c.mu.Lock()
	seen := c.seen[r]
	c.mu.Unlock()
	if seen.page == nil || seen.answer != print {
		page, err := read.read(answer.text, r.Page)
		if err != nil {
			return nil, err
		}
		seen = seenPage{print, page}
		c.mu.Lock()
		c.seen[r] = seen
		c.mu.Unlock()
	}
	page := *seen.page
	page.Listing, page.Number, page.Sent, page.Read = r.Listing, r.Page, answer.sent, answer.read
	return &page, nil
}

func (c *Client) pageReader() *pageReader {
	return &pageReader{c.tokens.tenantID(), c.cfg.MaxRowBytes(), c.caller.excerpt}
}

// body is the body of a request for a page.
func (c *Client) body(r listing.Request) []byte {
	b := []byte("{")
	if len(c.cfg.Types) > 0 {
		b = fmt.Appendf(b, `"type":%d,`, c.cfg.Types[r.Listing])
	}
	if r.Online {
		b = append(b, `"onlineStatus":1,`...)
	}
	return fmt.Appendf(b, `"pageStart":%d,"pageSize":%d}`, r.Page, c.cfg.PageSize)
}

// op is what asking for a page is called in errors.
func (c *Client) op(r listing.Request) string {
	of := ""
	if len(c.cfg.Types) > 0 {
		of = fmt.Sprintf(" of type %d", c.cfg.Types[r.Listing])
	}
	if r.Online {
		of += " of those who are online"
	}
	return fmt.Sprintf("read page %d%s from %s", r.Page, of, c.agentsURL)
}

// TokenSeen is what one token call showed.
type TokenSeen struct {
	Tenant int64         // whose token it is; 0: the answer does not say
	Life   time.Duration // how long it is good for, as far as rollcall trusts it
	Took   time.Duration
}

// ProbeToken makes one token call, whatever came of earlier ones, and keeps the token for
// [Client.ProbePage]. Nothing is tried again. Where the tenant is not the configured one, or nobody
// names one, both results are there: the error is [ErrTenant].
func (c *Client) ProbeToken(ctx context.Context) (TokenSeen, error) {
	start := time.Now()
	tok, tenant, err := c.tokens.probe(ctx)
	seen := TokenSeen{Tenant: tenant, Took: time.Since(start)}
	if tok.value != "" {
		seen.Life = tok.expire.Sub(start).Round(time.Second)
	}
	if err != nil {
		return seen, err.Doing(c.tokens.op())
	}
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
func (c *Client) ProbePage(ctx context.Context, index int) (*PageSeen, error) {
	r := listing.Request{Listing: index}
	token, err := c.tokens.get(ctx)
	if err != nil {
		return nil, err
	}
	answer, err := c.caller.post(ctx, c.agentsURL, token, c.body(r))
	switch {
	case err != nil:
	case answer.refusesToken():
		err = hinted(badCredentials("the token that was just issued is refused"), mayUse)
	default:
		err = pageStatusError(answer.status)
	}
	if err != nil {
		return nil, err.Doing(c.op(r))
	}
	a, err := readAnswer(answer.utf8, 0, c.caller.excerpt)
	if err != nil {
		return nil, err.Doing(c.op(r))
	}
	seen := &PageSeen{Page: *c.pageReader().page(a, answer.text), Rows: a.rows,
		Expected: min(a.total, c.cfg.PageSize), Bytes: len(answer.utf8)}
	seen.Listing, seen.Sent, seen.Read = index, answer.sent, answer.read
	seen.Date, _ = http.ParseTime(answer.header.Get("Date")) // the zero time where it has none
	return seen, nil
}
