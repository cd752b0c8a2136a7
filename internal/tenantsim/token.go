package tenantsim

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
)

// InvalidToken is what the vendor answers to a token that it does not know, or no longer.
func InvalidToken(status int) Reply {
	return Reply{status, "application/xml;charset=UTF-8",
		[]byte("<InvalidTokenException><error>invalid_token</error>" +
			"<error_description>check_token error</error_description></InvalidTokenException>")}
}

// tokens are those that a tenant has issued.
type tokens struct {
	rand   *rand.Rand
	valid  map[string]time.Time // until when
	issued []string             // every one ever, refresh tokens too
	last   struct{ access, refresh string }
	count  int // answers so far
}

func newTokens(seed uint64) tokens {
	return tokens{rand: rand.New(rand.NewPCG(seed, 3)), valid: make(map[string]time.Time)}
}

// RevokeTokens makes every token issued so far invalid.
func (t *Tenant) RevokeTokens() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.tokens.valid)
}

// SetPassword changes the password to expect. Tokens that were issued stay valid.
func (t *Tenant) SetPassword(password string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cfg.Password = password
}

// Tokens returns every access and refresh token ever issued, for tests that look for them where
// they should not be.
func (t *Tenant) Tokens() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]string(nil), t.tokens.issued...)
}

// token answers the token endpoint.
func (t *Tenant) token(body []byte) Reply {
	var in struct {
		ClientID     string `json:"client_id"`
		ClientSecret string `json:"client_secret"`
		GrantType    string `json:"grant_type"`
		Username     string `json:"username"`
		Password     string `json:"password"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return OAuthError(http.StatusBadRequest, "invalid_request",
			"the body is not the JSON object expected")
	}
	t.mu.Lock()
	c := t.cfg
	t.mu.Unlock()
	switch {
	case in.ClientID != c.ClientID || in.ClientSecret != c.ClientSecret:
		return OAuthError(cmp.Or(c.RefusedStatus, http.StatusUnauthorized), "invalid_client",
			"Bad client credentials")
	case in.GrantType != "password":
		return OAuthError(http.StatusBadRequest, "unsupported_grant_type",
			"Unsupported grant type: "+in.GrantType)
	case in.Username != c.Username || in.Password != c.Password:
		return OAuthError(cmp.Or(c.RefusedStatus, http.StatusBadRequest), "invalid_grant",
			"Bad credentials")
	}
	return t.issue(in.Username)
}

// issue answers with a token.
func (t *Tenant) issue(username string) Reply {
	t.mu.Lock()
	defer t.mu.Unlock()
	now, tk := t.cfg.Now(), &t.tokens
	until, alive := tk.valid[tk.last.access]
	if !t.cfg.ReuseTokens || !alive || !now.Before(until) {
		tk.last.access, tk.last.refresh = uuid(tk.rand), uuid(tk.rand)
		tk.issued = append(tk.issued, tk.last.access, tk.last.refresh)
		until = now.Add(t.cfg.TokenTTL)
		for old, end := range tk.valid {
			if !now.Before(end) {
				delete(tk.valid, old)
			}
		}
		tk.valid[tk.last.access] = until
	}
	seconds := fmt.Sprint(int64(until.Sub(now) / time.Second))
	if f := t.cfg.ExpiresIn; f == ExpiresString || f == ExpiresAlternating && tk.count%2 == 1 {
		seconds = `"` + seconds + `"`
	}
	tk.count++
	name, _ := json.Marshal(username)
	return jsonReply(http.StatusOK, fmt.Sprintf(
		`{"access_token":"%s","token_type":"bearer","refresh_token":"%s","expires_in":%s,`+
			`"scope":"all",`+
			`"plat_user":{"userId":102400,"userName":%s,"tenantId":%d,"locale":"zh_CN",`+
			`"roles":[]}}`,
		tk.last.access, tk.last.refresh, seconds, name, t.cfg.TenantID))
}

// authorized reports whether a request carries a token that is valid now.
func (t *Tenant) authorized(r *http.Request) bool {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "bearer") {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	until, ok := t.tokens.valid[token]
	return ok && t.cfg.Now().Before(until)
}

// OAuthError is how the token endpoint refuses a request.
func OAuthError(status int, code, description string) Reply {
	body, _ := json.Marshal(struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}{code, description})
	return jsonReply(status, string(body))
}
