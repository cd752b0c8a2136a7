package tenantsim

import (
	"cmp"
	"net/http"
	"time"
)

// Credentials that a Tenant takes where its Config names none.
const (
	DemoClientID     = "isdp-demo-openapi"
	DemoClientSecret = "demo-client-secret"
	DemoUsername     = "rollcall-demo"
	DemoPassword     = "demo-application-token"
)

// The vendor's own figures.
const (
	MaxPageSize = 50    // rows a page, both the default and the most
	FirstID     = 17813 // the agentId of the first agent; the others follow without gaps
)

// ExpiresIn says how a token answer writes its expires_in.
type ExpiresIn int

const (
	ExpiresAlternating ExpiresIn = iota // a number, then a string, and so on
	ExpiresNumber                       // 1799
	ExpiresString                       // "1799"
)

// Config describes a simulated tenant. Its zero value is a tenant of 340 agents that change only
// when told to.
type Config struct {
	Agents   int   // agents at the start; 0 means 340, below zero none
	TenantID int64 // the tenant in rows and token answers; 0 means 886
	Seed     uint64

	// Churn is how many changes a second Run makes, on average. 0 or less: none.
	Churn float64

	// ClientID and the rest are the credentials to expect. Empty: the Demo constants.
	ClientID, ClientSecret, Username, Password string

	TokenTTL  time.Duration // how long a token lives, by Now; 0 means 1799s
	ExpiresIn ExpiresIn     // default: alternating

	// ReuseTokens answers a token request with the token issued last for as long as that lives,
	// with what is left of its life. By default every request gets a fresh token and the others
	// stay valid.
	ReuseTokens bool

	// RefusedStatus answers wrong credentials. 0: 401 for a wrong client, 400 for a wrong user or
	// password.
	RefusedStatus int

	// InvalidTokenStatus goes with the XML that answers an unknown, expired or revoked token. 0
	// means 200, the least helpful that the vendor sends.
	InvalidTokenStatus int

	// Now is the tenant's clock: times in rows and changes, the life of tokens. It must be safe for
	// concurrent use and must not call the Tenant. Nil means time.Now. The pace of Run follows the
	// real clock.
	Now func() time.Time

	// Changed is told of every change of the listing, in order, the first agents included. It must
	// not call the Tenant. Nil: nobody is.
	Changed func(Change)
}

func (c Config) withDefaults() Config {
	c.Agents = max(0, cmp.Or(c.Agents, 340))
	c.TenantID = cmp.Or(c.TenantID, 886)
	c.ClientID = cmp.Or(c.ClientID, DemoClientID)
	c.ClientSecret = cmp.Or(c.ClientSecret, DemoClientSecret)
	c.Username = cmp.Or(c.Username, DemoUsername)
	c.Password = cmp.Or(c.Password, DemoPassword)
	c.TokenTTL = cmp.Or(c.TokenTTL, 1799*time.Second)
	c.InvalidTokenStatus = cmp.Or(c.InvalidTokenStatus, http.StatusOK)
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}
