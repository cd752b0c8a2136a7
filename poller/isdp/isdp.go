// Package isdp reads the agent listings of an ISDP+ tenant, a page at a time: it keeps a token, asks
// within the limits of rate, and makes pages of whatever the vendor and the gateways in between
// answer.
//
// Every error of a [Client] is a [*listing.Error] of one of four classes. When the vendor asks for
// fewer requests (429, Retry-After) nobody asks before it said so, and the rate halves and recovers
// with success; it does so too when the vendor begins to refuse what it answered before. Refused
// credentials are logged once and then tried again rarely, in the end once a minute; requests in
// between fail at once, without one to the vendor. No error and no log entry shows a secret, a
// token, or more of an answer than a short excerpt of the vendor's own error message.
package isdp

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/rollcall-events/rollcall/internal/listing"
)

// ErrTenant says that the token and the configuration do not agree on a tenant, or that neither
// names one.
var ErrTenant = errors.New("no agreement on the tenant")

// Client reads one tenant. Its methods are safe for concurrent use.
type Client struct {
	cfg       Config
	client    *client
	tokens    *tokens
	agentsURL string

	mu    sync.Mutex
	pages map[listing.Request]*pageContent // what pages showed when they were last read
}

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
	cl := newClient(c)
	return &Client{
		cfg:       c,
		client:    cl,
		tokens:    newTokens(c, cl, base.JoinPath("oauth2/oauth/rest_token").String()),
		agentsURL: base.JoinPath("openapi/v1/openTask/findOnlineAgent").String(),
		pages:     make(map[listing.Request]*pageContent),
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
func (c *Client) Rate() float64 { return c.client.limits.now() }

// CloseIdleConnections closes the connections that no request is using.
func (c *Client) CloseIdleConnections() {
	if t, ok := c.client.http.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// Read asks for a page, once: but where its token is refused, a few times, with that or another
// token.
func (c *Client) Read(ctx context.Context, r listing.Request) (*listing.Page, *listing.Error) {
	page, err := c.read(ctx, r)
	if err != nil {
		return nil, err.Doing(c.reading(r))
	}
	return page, nil
}

func (c *Client) read(ctx context.Context, r listing.Request) (_ *listing.Page, err *listing.Error) {
	body := c.request(r)
	// refused tells the limits that a page was refused, once for all tries that follow one another.
	refused := func(a *reply, why error) {
		if !r.Again {
			c.client.limits.refused(string(body), a.began, why)
		}
	}
	answer, token, err := c.ask(ctx, body)
	defer func() { c.client.metrics.request(callPage, &answer, err) }()
	if err != nil {
		return nil, err
	}
	if err := failed(answer.status); err != nil {
		err = refusedCall(err, answer.status)
		if err.Refused && err.Class == listing.Unusable {
			refused(&answer, err)
		}
		return nil, err
	}
	place := listing.Request{Listing: r.Listing, Page: r.Page}
	c.mu.Lock()
	last := c.pages[place]
	c.mu.Unlock()
	content, bad := c.pageReader(c.tokens.tenantID()).read(answer.text(), r.Page, last)
	if bad != nil {
		_, no := errors.AsType[refusal](bad)
		if no {
			refused(&answer, bad)
		}
		return nil, &listing.Error{Class: listing.Unusable, Err: bad, Refused: no}
	}
	c.mu.Lock()
	c.pages[place] = content
	c.mu.Unlock()
	c.client.limits.answered(string(body))
	bodies.give(answer.body)
	c.tokens.accepted(token)
	page := content.Page
	page.Listing, page.Number, page.Sent, page.Read = r.Listing, r.Page, answer.sent, answer.read
	return &page, nil
}

// ask sends one agents request; where its token is refused, a few times more, with that or another
// token.
func (c *Client) ask(ctx context.Context, body []byte) (reply, string, *listing.Error) {
	pause := newBackOff()
	for n := 1; ; n++ {
		token, err := c.tokens.get(ctx)
		if err != nil {
			return reply{}, "", err
		}
		answer, err := c.client.post(ctx, c.agentsURL, token, body)
		if err != nil {
			c.client.metrics.request(callPage, &answer, err)
			return reply{}, "", err
		}
		if !answer.refusesToken() {
			return answer, token, nil
		}
		c.client.metrics.answered(callPage, &answer, requestExpired)
		moot := c.tokens.refused(token)
		switch {
		case n == pageRefusals && moot:
			return reply{}, "", &listing.Error{Class: listing.Unreachable, Err: errors.New("a token that works is refused by turns: if this lasts, do all servers behind this address know it? Ask the vendor")}
		case n == pageRefusals:
			return reply{}, "", &listing.Error{Class: listing.Credentials, Err: errors.New("tokens are issued and then refused: may this account use the agents call?")}
		case sleep(ctx, pause.NextBackOff()) != nil:
			return reply{}, "", ended(ctx)
		}
	}
}

// pageReader reads the pages of a tenant.
func (c *Client) pageReader(tenant int64) *pageReader {
	return &pageReader{c.cfg.PageSize, tenant, c.cfg.MaxRowBytes(), c.client.excerpt}
}

// request is the body of a request for a page.
func (c *Client) request(r listing.Request) []byte {
	b := append(make([]byte, 0, 64), '{')
	if len(c.cfg.Types) > 0 {
		b = fmt.Appendf(b, `"type":%d,`, c.cfg.Types[r.Listing])
	}
	return fmt.Appendf(b, `"pageStart":%d,"pageSize":%d}`, r.Page, c.cfg.PageSize)
}

// reading is what asking for a page is called in errors.
func (c *Client) reading(r listing.Request) string {
	of := ""
	if len(c.cfg.Types) > 0 {
		of = fmt.Sprintf(" of type %d", c.cfg.Types[r.Listing])
	}
	return fmt.Sprintf("read page %d%s from %s", r.Page, of, c.agentsURL)
}
