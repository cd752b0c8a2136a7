package isdp

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/rollcall-events/rollcall/internal/listing"
	"github.com/rollcall-events/rollcall/internal/setting"
)

const (
	maxTries    = 4                // of one token that may fail
	revokedGap  = 3 * time.Second  // between two tokens asked for because one was refused
	tellRefused = 15 * time.Minute // between two lines that say the same of refused credentials

	// So many fresh tokens that are refused in a row count as refused credentials, but not so soon
	// after a token was accepted.
	freshTries = 3
	justWorked = time.Minute
)

// Of several nodes that answer at one address, some may not know a token (yet) that the others
// take. So a token that is refused is tried again, before another is asked for and, on the same
// page, until that counts as a failure.
const (
	tokenRefusals = 3 // of a token, by whichever pages, with no acceptance in between
	pageRefusals  = 6 // of a try of a page, by whichever tokens
)

// How long the token endpoint is left alone after n failures in a row: refused credentials, and
// everything else. The last one repeats.
var (
	refusedGaps = []int{2, 5, 15, 30, 60} // seconds
	failedGaps  = []int{1, 2, 4, 8, 10}
)

func gap(gaps []int, n int) time.Duration {
	return time.Duration(gaps[min(n, len(gaps))-1]) * time.Second
}

// newBackOff spaces the tries of one operation. How many there are and when it is all over is for
// the wrappers to say: no time of its own ends it.
func newBackOff() *backoff.ExponentialBackOff {
	return backoff.NewExponentialBackOff(backoff.WithInitialInterval(250*time.Millisecond),
		backoff.WithMultiplier(2), backoff.WithMaxInterval(5*time.Second),
		backoff.WithMaxElapsedTime(0))
}

// token is an access token, and until when it is good.
type token struct {
	value    string
	renew    time.Time // from when on the next one is asked for
	expire   time.Time
	accepted bool // an agents call has succeeded with it
	refusals int  // so often it was refused since
}

// tokens keeps one valid token. Whoever finds that a new one is due asks for it, everybody else
// waits for that answer.
type tokens struct {
	caller      *caller
	url         string
	want        int64 // the configured tenant, 0: none
	credentials *credentials
	log         *slog.Logger

	mu      sync.Mutex
	current token
	tenant  int64         // whose tokens these are; 0 before the first. Never changes afterwards
	flight  chan struct{} // closed when the call under way is over; nil: none

	held     time.Time      // the endpoint is left alone until then
	heldErr  *listing.Error // what to say meanwhile; nil: just wait
	failures int            // failed calls in a row
	fresh    int            // tokens in a row that were refused before any acceptance
	worked   time.Time      // when an agents call last succeeded with a token; zero: never
	replaced time.Time      // when a refused token was, or will be, replaced

	trouble trouble   // that was told and is not over
	toldAt  time.Time // when it was last told
}

// trouble with tokens that operators are told.
type trouble int

const (
	none trouble = iota
	callRefused
	freshOnesRefused
)

func newTokens(c Config, cl *caller, url string) *tokens {
	creds := &credentials{reread: c.Reread, keep: cl.keepAccount, log: c.Logger, inUse: c.account()}
	return &tokens{caller: cl, url: url, want: c.TenantID, log: c.Logger, credentials: creds}
}

func (t *tokens) op() string { return "get a token from " + t.url }

// tenantID returns whose tokens these are; 0 before the first.
func (t *tokens) tenantID() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.tenant
}

// get returns a valid token. Every error is fatal to a sweep: without a token there are no pages.
func (t *tokens) get(ctx context.Context) (string, *listing.Error) {
	for ctx.Err() == nil {
		t.rereadRefused()
		t.mu.Lock()
		now := time.Now()
		cur, flight, held, heldErr := t.current, t.flight, t.held, t.heldErr
		usable := cur.value != "" && now.Before(cur.expire)
		lead := flight == nil && !now.Before(held) && !(usable && now.Before(cur.renew))
		if lead {
			t.flight = make(chan struct{})
		}
		t.mu.Unlock()

		switch {
		case lead:
			t.replace(ctx)
		case usable: // not yet due, being renewed, or not renewable just now
			return cur.value, nil
		case flight != nil:
			select {
			case <-flight:
			case <-ctx.Done():
			}
		case heldErr != nil:
			return "", heldErr
		default:
			if deadline, ok := ctx.Deadline(); ok && held.After(deadline) {
				why := "the token was refused, and it is too early to ask for another"
				return "", late(why).Doing(t.op())
			}
			_ = sleep(ctx, held.Sub(now))
		}
	}
	return "", ended(ctx).Doing(t.op())
}

// rereadRefused reads credentials that are refused again. Others than those are tried at once.
func (t *tokens) rereadRefused() {
	t.mu.Lock()
	refused := t.heldErr != nil && t.heldErr.Class == listing.Credentials
	t.mu.Unlock()
	if !refused || !t.credentials.renewed() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.held, t.heldErr, t.failures, t.fresh, t.toldAt = time.Time{}, nil, 0, 0, time.Time{}
}

// replace asks for a token and keeps what comes of it. The caller has set t.flight.
func (t *tokens) replace(ctx context.Context) {
	tok, tenant, err := t.ask(ctx)

	t.mu.Lock()
	defer t.mu.Unlock()
	defer func() { close(t.flight); t.flight = nil }()
	// An endpoint may hand out the same token again as long as it lives.
	tok.accepted = tok.value == t.current.value && t.current.accepted
	if err == nil {
		err = t.check(tenant)
	}
	if err != nil && ctx.Err() != nil {
		return // says nothing about the endpoint: whoever needs a token next asks
	}
	t.caller.metrics.refreshed(err)
	if err == nil {
		t.current, t.heldErr, t.failures = tok, nil, 0
		if t.trouble == callRefused {
			t.trouble = none
			t.log.Info("the token call is answered again")
		}
		return
	}
	err = err.Doing(t.op())
	err.Fatal = true
	t.failures++
	gaps := failedGaps
	if err.Class == listing.Credentials {
		gaps = refusedGaps
		if t.tell(callRefused) {
			t.log.Error("the token call is refused; trying again rarely", "err", err)
		}
	}
	t.held, t.heldErr = time.Now().Add(gap(gaps, t.failures)), err
}

// tell reports whether a trouble is to be told: when it begins, and from time to time. mu is held.
func (t *tokens) tell(what trouble) bool {
	if t.trouble == what && time.Since(t.toldAt) < tellRefused {
		return false
	}
	t.trouble, t.toldAt = what, time.Now()
	return true
}

// check says whether a token's tenant, 0 where it is not known, is the right one. mu is held.
func (t *tokens) check(tenant int64) *listing.Error {
	switch {
	case tenant == 0 && t.want == 0 && t.tenant == 0:
		return hinted(badCredentials("%w: the answer does not say whose token it is "+
			"(plat_user.tenantId)", ErrTenant), "set {TenantID}")
	case tenant != 0 && t.want != 0 && tenant != t.want:
		return badCredentials("%w: the credentials are tenant %d's, but %s is %d: "+
			"one of the two is wrong", ErrTenant, tenant, setting.Text("{TenantID}"), t.want)
	case tenant != 0 && t.tenant != 0 && tenant != t.tenant:
		return hinted(badCredentials("the credentials have become tenant %d's and were tenant %d's",
			tenant, t.tenant), "restart if that is meant")
	}
	t.tenant = max(t.tenant, tenant, t.want) // those that are known are the same
	return nil
}

// probe sends one token request, whatever came of earlier ones, and keeps the token. Where that is
// not the right tenant's, it is returned with the error.
func (t *tokens) probe(ctx context.Context) (token, int64, *listing.Error) {
	tok, tenant, err := t.once(ctx)
	if err == nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.current = tok
		err = t.check(tenant)
	}
	return tok, tenant, err
}

// refused is told that an agents call refused a token. It reports whether that says nothing about
// the credentials: a moment ago a token was accepted.
func (t *tokens) refused(value string) (moot bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	moot = !t.worked.IsZero() && now.Sub(t.worked) < justWorked
	if t.current.value != value {
		return moot // replaced already
	}
	if t.current.refusals++; t.current.refusals < tokenRefusals {
		return moot
	}
	until := t.replaced.Add(revokedGap)
	if !t.current.accepted {
		t.fresh++
		until = now.Add(gap(refusedGaps, t.fresh))
	}
	t.current = token{}
	if until.After(t.held) {
		t.held, t.heldErr = until, nil
	}
	if t.fresh >= freshTries && !moot {
		t.heldErr = freshRefused().Doing(t.op())
		t.heldErr.Fatal = true
		if t.tell(freshOnesRefused) {
			t.log.Error("tokens are refused as soon as they are issued; trying again rarely",
				"err", t.heldErr)
		}
	}
	t.replaced = now
	if t.held.After(now) {
		t.replaced = t.held
	}
	return moot
}

// freshRefused says that tokens are refused as soon as they are issued.
func freshRefused() *listing.Error {
	return hinted(badCredentials("tokens are issued and then refused"), mayUse)
}

// accepted is told that an agents call succeeded with a token.
func (t *tokens) accepted(value string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.worked, t.fresh = time.Now(), 0
	if t.trouble == freshOnesRefused {
		t.trouble = none
	}
	if t.current.value == value {
		t.current.accepted, t.current.refusals = true, 0
	}
}

// ask asks for a token, a few times where that may help.
func (t *tokens) ask(ctx context.Context) (tok token, tenant int64, err *listing.Error) {
	tries := backoff.WithContext(backoff.WithMaxRetries(newBackOff(), maxTries-1), ctx)
	_ = backoff.Retry(func() error {
		if tok, tenant, err = t.once(ctx); err == nil {
			return nil
		}
		if err.Class == listing.Credentials || err.Fatal {
			return backoff.Permanent(err)
		}
		return err
	}, tries)
	return tok, tenant, err
}

// askedOften reports whether the endpoint is not left alone for long yet because it refused the
// credentials.
func (t *tokens) askedOften() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.failures < 2
}
