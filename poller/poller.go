// Package poller reads one ISDP+ tenant: it keeps a token, reads the listing page by page within
// the limits of rate and concurrency, and says how far a listing can be trusted.
//
// A sweep reads every page of every listing once, page 0 first, and hands each page over as soon as
// it has been read. Pages that are missing or do not fit together are asked for again, in a few
// rounds. At the end the verdict says whether the sweep is complete: every page arrived, all pages
// of a listing name the same total_count, and the distinct agents plus the rejected rows make that
// number. Whoever draws conclusions from an agent's absence may do so in complete sweeps only; what
// a page shows has been seen in any case.
//
// # Order
//
// Pages arrive in no particular order, and a page that was read twice is handed over twice.
// [Page.Sent] and [Page.Read] are the means to order what they show: of two pages that show the
// same agent, one is known to be newer only if its request was sent after the other had been read.
//
// # Trouble
//
// Every error is an [*listing.Error] of one of four classes. Requests that failed for whatever reason but
// refused credentials are tried again with growing gaps, a page four times in a sweep. When the
// vendor asks for fewer requests (429, Retry-After) nobody asks before it said so, and the rate
// halves and recovers with success; it does so too when the vendor begins to refuse what it
// answered before. Refused credentials are logged once and then tried again rarely, in the end once
// a minute; sweeps in between end at once, without a request. No error and no log entry shows a
// secret, a token, or more of an answer than a short excerpt of the vendor's own error message.
package poller

import (
	"context"
	"errors"
)

// ErrTenant says that the token and the configuration do not agree on a tenant, or that neither
// names one.
var ErrTenant = errors.New("no agreement on the tenant")

// Poller reads one tenant. Its methods are safe for concurrent use, but for Sweep: one at a time.
type Poller struct {
	cfg       Config
	client    *client
	tokens    *tokens
	agentsURL string

	// Sweep's own.
	rejected map[rejection]bool // what the last sweep rejected
	contents [][]*pageContent   // by listing and page, as last read
	totals   []int              // total_count of each listing in the last complete sweep
	expected []int              // what Expect said since then
}

// New returns a Poller, without asking the vendor anything. Its error is that of [Config.Validate].
func New(c Config) (*Poller, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	base, err := parseBase(c.BaseURL)
	if err != nil {
		return nil, err
	}
	c = c.withDefaults()
	cl := newClient(c)
	return &Poller{
		cfg:       c,
		client:    cl,
		tokens:    newTokens(c, cl, base.JoinPath("oauth2/oauth/rest_token").String()),
		agentsURL: base.JoinPath("openapi/v1/openTask/findOnlineAgent").String(),
	}, nil
}

// Tenant gets a token, where there is none yet, and says whose it is. A token is asked for a few
// times; then, or at once where the credentials are refused, the token is another tenant's than
// Config.TenantID, or neither names a tenant, the error says why there is none. It may be called
// again: how often the vendor is asked does not depend on that.
func (p *Poller) Tenant(ctx context.Context) (int64, error) {
	if _, err := p.tokens.get(ctx); err != nil {
		return 0, err
	}
	return p.tokens.tenantID(), nil
}

// Expect says how many agents each listing had, at the least, when somebody else looked last: a
// listing that is shorter may be cut off. It holds until a sweep is complete, and must not be
// called during one.
func (p *Poller) Expect(agents []int) { p.expected = agents }
