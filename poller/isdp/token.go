package isdp

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/rollcall-events/rollcall/internal/listing"
	"github.com/rollcall-events/rollcall/internal/setting"
)

const (
	defaultLife = 5 * time.Minute  // of a token whose expires_in says nothing usable
	maxLife     = 24 * time.Hour   // however much later it says
	minLife     = time.Second      // however little it says
	maxToken    = 16 << 10         // bytes of a token: servers take less in a header
	revokedGap  = 3 * time.Second  // between two tokens asked for because one was refused
	freshTries  = 3                // fresh tokens that may be refused in a row before it counts as refused credentials
	lookAgain   = 2 * time.Second  // between two looks at credentials that may have been replaced
	tellRefused = 15 * time.Minute // between two lines that say the same of them
	justWorked  = time.Minute      // so long after a token was accepted no refusal of one says anything about the credentials
)

// Of several nodes that answer at one address, some may not know a token (yet) that the others
// take. So a token that is refused is tried again, before another is asked for and, on the same
// page, until that counts as a failure.
const (
	tokenRefusals = 3 // of a token, by whichever pages, with no acceptance in between
	pageRefusals  = 6 // of a try of a page, by whichever tokens
)

const maxTries = 4 // of one token that may fail

// newBackOff spaces the tries of one operation. How many there are and when it is all over is for
// the wrappers to say: no time of its own ends it.
func newBackOff() *backoff.ExponentialBackOff {
	return backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(250*time.Millisecond),
		backoff.WithMultiplier(2),
		backoff.WithMaxInterval(5*time.Second),
		backoff.WithMaxElapsedTime(0),
	)
}

// How long the token endpoint is left alone after n failures in a row: refused credentials, and
// everything else. The last one repeats.
var (
	refusedGaps = []time.Duration{2 * time.Second, 5 * time.Second, 15 * time.Second, 30 * time.Second, time.Minute}
	failedGaps  = []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 10 * time.Second}
)

func gap(gaps []time.Duration, n int) time.Duration { return gaps[min(max(n, 1), len(gaps))-1] }

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
	client *client
	url    string
	want   int64                   // the configured tenant, 0: none
	reread func() (Account, error) // Config.Reread
	log    *slog.Logger

	mu       sync.Mutex
	creds    Account   // in use
	looked   time.Time // when they were last read again …
	unread   time.Time // … and when it was last told that they can't be
	current  token
	tenant   int64          // whose tokens these are; 0 before the first. Never changes afterwards
	flight   chan struct{}  // closed when the call under way is over; nil: none
	held     time.Time      // the endpoint is left alone until then
	heldErr  *listing.Error // what to say meanwhile; nil: just wait
	failures int            // failed calls in a row
	unproven int            // fresh tokens refused in a row
	told     bool           // that fresh tokens are refused
	alarmed  bool           // it was told that the token call is refused, and not that it is no more
	toldAt   time.Time      // when it was last told that credentials or fresh tokens are
	worked   time.Time      // when an agents call last succeeded with a token; zero: never
	replaced time.Time      // when a refused token was, or will be, replaced
}

func newTokens(c Config, cl *client, url string) *tokens {
	return &tokens{client: cl, url: url, want: c.TenantID, reread: c.Reread, log: c.Logger, creds: c.account()}
}

// body is the body of the token call.
func (a Account) body() []byte {
	b, err := json.Marshal(map[string]string{
		"client_id":     a.ClientID,
		"client_secret": a.ClientSecret,
		"grant_type":    "password",
		"username":      a.Username,
		"password":      a.Password,
	})
	if err != nil {
		panic(err) // strings can always be marshalled
	}
	return b
}

// inUse are the credentials in use.
func (t *tokens) inUse() Account {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.creds
}

// renewed reads the credentials again, after they were refused, and reports whether they are others
// now, which nobody has refused yet.
func (t *tokens) renewed() bool {
	now := time.Now()
	t.mu.Lock()
	due := t.reread != nil && now.Sub(t.looked) >= lookAgain
	if due {
		t.looked = now
	}
	t.mu.Unlock()
	if !due {
		return false
	}
	found, err := t.reread()
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err != nil:
		if t.unread.IsZero() || now.Sub(t.unread) >= tellRefused {
			t.unread = now
			t.log.Warn("the credentials are refused and can't be read again; going on with those that are refused", "error", err)
		}
		return false
	case found == t.creds:
		return false
	}
	t.client.keepAccount(found)
	t.creds, t.held, t.heldErr, t.failures, t.unproven = found, time.Time{}, nil, 0, 0
	t.log.Info("the credentials are others than those that were refused: trying them")
	return true
}

// keep keeps a token, whatever is known of earlier ones; an error says that it is not the right
// tenant's.
func (t *tokens) keep(tok token, tenant int64) *listing.Error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.current = tok
	err := t.check(tenant)
	if err == nil {
		t.tenant = max(tenant, t.want) // where both are known they are the same
	}
	return err
}

// kept is the token that was kept, and whose it is.
func (t *tokens) kept() (string, int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.current.value, t.tenant
}

// tenantID returns whose tokens these are; 0 before the first.
func (t *tokens) tenantID() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.tenant
}

// get returns a valid token. Every error is fatal to a sweep: without a token there are no pages.
func (t *tokens) get(ctx context.Context) (string, *listing.Error) {
	for {
		if ctx.Err() != nil {
			return "", ended(ctx).Doing(t.op())
		}
		t.mu.Lock()
		now := time.Now()
		usable := t.current.value != "" && now.Before(t.current.expire)
		cur, flight, held, heldErr := t.current, t.flight, t.held, t.heldErr
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
			if heldErr.Class == listing.Credentials && t.renewed() {
				continue
			}
			return "", heldErr
		default:
			if deadline, ok := ctx.Deadline(); ok && held.After(deadline) {
				return "", late("the token was refused, and it is too early to ask for another").Doing(t.op())
			}
			_ = sleep(ctx, held.Sub(now))
		}
	}
}

func (t *tokens) op() string { return "get a token from " + t.url }

// replace asks for a token and keeps what comes of it. The caller has set t.flight.
func (t *tokens) replace(ctx context.Context) {
	if t.areRefused() {
		t.renewed()
	}
	tok, tenant, err := t.ask(ctx)

	t.mu.Lock()
	defer t.mu.Unlock()
	defer func() { close(t.flight); t.flight = nil }()
	now := time.Now()
	if err == nil {
		err = t.check(tenant)
	}
	if err == nil || ctx.Err() == nil {
		t.client.metrics.refreshed(err)
	}
	switch {
	case err == nil:
		if t.tenant == 0 {
			t.tenant = max(tenant, t.want) // where both are known they are the same
		}
		if t.alarmed {
			t.log.Info("the token call is answered again")
		}
		t.alarmed = false
		// An endpoint may hand out the same token again as long as it lives.
		tok.accepted = tok.value == t.current.value && t.current.accepted
		t.current, t.heldErr, t.failures = tok, nil, 0
	case ctx.Err() != nil:
		// Says nothing about the endpoint: whoever needs a token next asks.
	default:
		err = err.Doing(t.op())
		err.Fatal = true
		t.failures++
		gaps := failedGaps
		if err.Class == listing.Credentials {
			gaps = refusedGaps
			if t.failures == 1 || t.heldErr == nil || t.heldErr.Class != listing.Credentials || now.Sub(t.toldAt) >= tellRefused {
				t.log.Error("the token call is refused; trying again rarely", "error", err)
				t.toldAt, t.alarmed = now, true
			}
		}
		t.held, t.heldErr = now.Add(gap(gaps, t.failures)), err
	}
}

// areRefused reports whether the credentials in use were refused when they were last tried.
func (t *tokens) areRefused() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.heldErr != nil && t.heldErr.Class == listing.Credentials
}

// check says whether a token's tenant, 0 where it is not known, is the right one. mu is held.
func (t *tokens) check(tenant int64) *listing.Error {
	switch {
	case tenant == 0 && t.want == 0 && t.tenant == 0:
		return hinted(badCredentials("%w: the answer does not say whose token it is (plat_user.tenantId)", ErrTenant),
			"set {TenantID}")
	case tenant != 0 && t.want != 0 && tenant != t.want:
		return badCredentials("%w: the credentials are tenant %d's, but %s is %d: one of the two is wrong",
			ErrTenant, tenant, setting.Text("{TenantID}"), t.want)
	case tenant != 0 && t.tenant != 0 && tenant != t.tenant:
		return hinted(badCredentials("the credentials have become tenant %d's and were tenant %d's", tenant, t.tenant),
			"restart if that is meant")
	}
	return nil
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
	proven := t.current.accepted
	t.current = token{}
	until := t.replaced.Add(revokedGap)
	if !proven {
		t.unproven++
		until = now.Add(gap(refusedGaps, t.unproven))
	}
	if until.After(t.held) {
		t.held, t.heldErr = until, nil
	}
	if t.unproven >= freshTries && !moot {
		t.heldErr = freshRefused().Doing(t.op())
		t.heldErr.Fatal = true
		if !t.told || now.Sub(t.toldAt) >= tellRefused {
			t.log.Error("tokens are refused as soon as they are issued; trying again rarely", "error", t.heldErr)
			t.toldAt = now
		}
		t.told = true
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
	t.worked, t.unproven, t.told = time.Now(), 0, false
	if t.current.value == value {
		t.current.accepted, t.current.refusals = true, 0
	}
}

// ask asks for a token, a few times where that may help.
func (t *tokens) ask(ctx context.Context) (tok token, tenant int64, err *listing.Error) {
	b := backoff.WithContext(backoff.WithMaxRetries(newBackOff(), maxTries-1), ctx)
	_ = backoff.Retry(func() error {
		if tok, tenant, err = t.once(ctx); err == nil {
			return nil
		}
		if err.Class == listing.Credentials || err.Fatal {
			return backoff.Permanent(err)
		}
		return err
	}, b)
	return tok, tenant, err
}

// once sends one token request.
func (t *tokens) once(ctx context.Context) (_ token, _ int64, err *listing.Error) {
	start := time.Now() // a token lives from when it was asked for at the earliest
	r, e := t.client.post(ctx, t.url, "", t.inUse().body())
	defer func() { t.client.metrics.request(callToken, &r, err) }()
	if e != nil {
		return token{}, 0, e
	}
	var answer struct {
		AccessToken  string          `json:"access_token"`
		RefreshToken json.RawMessage `json:"refresh_token"`
		ExpiresIn    json.RawMessage `json:"expires_in"`
		PlatUser     json.RawMessage `json:"plat_user"`
	}
	bad := unmarshalAsMeant(r.utf8, &answer)
	refusal := oauthError(r.utf8)
	said := ""
	if isCode(refusal.code) { // any other text may repeat the request, which is all secrets
		said = " " + strconv.Quote(t.client.scrub(refusal.code))
	} else {
		refusal.code = ""
	}
	if e := tokenStatusError(&r, refusal.code, said); e != nil {
		if r.status == http.StatusForbidden && t.askedOften() {
			t.client.limits.refused(callToken, r.began, e)
		}
		return token{}, 0, e
	}
	switch {
	case answer.AccessToken == "" && refusal.said:
		err = refusedCredentials(fmt.Errorf("HTTP %d, and an error in the place of a token%s", r.status, said), refusal.code)
	case bad != nil:
		err = notJSON(r.utf8, bad, nil)
	case answer.AccessToken == "":
		err = unusable("the answer has no access_token")
	case len(answer.AccessToken) > maxToken:
		err = unusable("the access_token has %d bytes, and no header takes more than %d", len(answer.AccessToken), maxToken)
	case len(answer.RefreshToken) > maxToken+len(`""`):
		err = unusable("the refresh_token has more than %d bytes", maxToken)
	case !printable(answer.AccessToken):
		err = unusable("the access_token has characters that no token can have")
	}
	if err != nil {
		return token{}, 0, err
	}
	t.client.limits.answered(callToken)
	t.client.keepToken(answer.AccessToken)
	var refresh string // never used
	if json.Unmarshal(answer.RefreshToken, &refresh) == nil && refresh != "" {
		t.client.keepToken(refresh)
	}
	var user struct {
		TenantID json.RawMessage `json:"tenantId"`
	}
	_ = json.Unmarshal(answer.PlatUser, &user) // what is no object names no tenant
	tenant, _ := integer(user.TenantID)
	life := lifetime(answer.ExpiresIn)
	return token{
		value:  answer.AccessToken,
		renew:  start.Add(life - min(time.Minute, life/5)),
		expire: start.Add(life),
	}, max(tenant, 0), nil
}

// askedOften reports whether the endpoint is not left alone for long yet because it refused the
// credentials.
func (t *tokens) askedOften() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.failures < 2
}

// isCode reports whether s is an error code as OAuth has them, "invalid_grant" for one (RFC 6749,
// section 5.2).
func isCode(s string) bool {
	return s != "" && len(s) <= 40 &&
		!strings.ContainsFunc(s, func(r rune) bool { return r != '_' && (r < 'a' || r > 'z') })
}

// lifetime reads expires_in: seconds, a number or a string.
func lifetime(raw json.RawMessage) time.Duration {
	s, err := strconv.ParseFloat(strings.Trim(string(raw), `" `), 64)
	if err != nil || !(s > 0) {
		return defaultLife
	}
	return time.Duration(min(max(s, minLife.Seconds()), maxLife.Seconds()) * float64(time.Second))
}

// printable reports whether s can stand in a header as a token.
func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}
