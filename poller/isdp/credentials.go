package isdp

import (
	"encoding/json"
	"log/slog"
	"sync"
	"time"
)

// lookAgain is between two looks at credentials that may have been replaced.
const lookAgain = 2 * time.Second

// An Account is the credentials of the token call.
type Account struct{ ClientID, ClientSecret, Username, Password string }

// body is the body of the token call.
func (a Account) body() []byte {
	b, err := json.Marshal(map[string]string{"grant_type": "password", "client_id": a.ClientID,
		"client_secret": a.ClientSecret, "username": a.Username, "password": a.Password})
	if err != nil {
		panic(err) // strings can always be marshalled
	}
	return b
}

// credentials are those in use. Where the vendor refuses them they can be read again.
type credentials struct {
	reread func() (Account, error) // Config.Reread
	keep   func(Account)           // has new ones kept out of errors
	log    *slog.Logger

	mu     sync.Mutex
	inUse  Account
	looked time.Time // when they were last read again …
	told   time.Time // … and when it was last told that they can't be
}

func (c *credentials) get() Account {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.inUse
}

// renewed reads the credentials again, after they were refused, and reports whether they are others
// now, which nobody has refused yet.
func (c *credentials) renewed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.reread == nil || now.Sub(c.looked) < lookAgain {
		return false
	}
	c.looked = now
	found, err := c.reread()
	switch {
	case err != nil && (c.told.IsZero() || now.Sub(c.told) >= tellRefused):
		c.told = now
		c.log.Warn("the credentials are refused and can't be read again; "+
			"going on with those that are refused", "err", err)
		return false
	case err != nil, found == c.inUse:
		return false
	}
	c.keep(found)
	c.inUse = found
	c.log.Info("the credentials are others than those that were refused: trying them")
	return true
}
