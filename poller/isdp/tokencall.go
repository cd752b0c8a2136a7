package isdp

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/rollcall-events/rollcall/internal/listing"
)

const (
	defaultLife = 5 * time.Minute // of a token whose expires_in says nothing usable
	maxLife     = 24 * time.Hour  // however much later it says
	minLife     = time.Second     // however little it says
	maxToken    = 16 << 10        // bytes of a token: servers take less in a header
)

// once sends one token request. The tenant is 0 where the answer names none.
func (t *tokens) once(ctx context.Context) (tok token, tenant int64, err *listing.Error) {
	start := time.Now() // a token lives from when it was asked for at the earliest
	r, err := t.caller.post(ctx, t.url, "", t.credentials.get().body())
	if err == nil {
		tok, tenant, err = t.read(&r, start)
	}
	t.caller.metrics.request(callToken, &r, err)
	return tok, tenant, err
}

// read reads the answer of a token call that was made at start.
func (t *tokens) read(r *reply, start time.Time) (tok token, tenant int64, err *listing.Error) {
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
		said = " " + strconv.Quote(t.caller.scrub(refusal.code))
	} else {
		refusal.code = ""
	}
	if err := tokenStatusError(r, refusal.code, said); err != nil {
		if r.status == http.StatusForbidden && t.askedOften() {
			t.caller.limits.refused(callToken, r.began, err)
		}
		return tok, 0, err
	}
	switch {
	case answer.AccessToken == "" && refusal.said:
		err = refusedCredentials(fmt.Errorf("HTTP %d, and an error in the place of a token%s",
			r.status, said), refusal.code)
	case bad != nil:
		err = notJSON(r.utf8, bad, nil)
	case answer.AccessToken == "":
		err = unusable("the answer has no access_token")
	case len(answer.AccessToken) > maxToken:
		err = unusable("the access_token has %d bytes, and no header takes more than %d",
			len(answer.AccessToken), maxToken)
	case len(answer.RefreshToken) > maxToken+len(`""`):
		err = unusable("the refresh_token has more than %d bytes", maxToken)
	case strings.ContainsFunc(answer.AccessToken, func(r rune) bool { return r <= ' ' || r > '~' }):
		err = unusable("the access_token has characters that no token can have")
	}
	if err != nil {
		return tok, 0, err
	}
	t.caller.limits.answered(callToken)
	t.caller.keepToken(answer.AccessToken)
	var refresh string // never used
	if json.Unmarshal(answer.RefreshToken, &refresh) == nil && refresh != "" {
		t.caller.keepToken(refresh)
	}
	var user struct {
		TenantID json.RawMessage `json:"tenantId"`
	}
	_ = json.Unmarshal(answer.PlatUser, &user) // what is no object names no tenant
	tenant, _ = integer(user.TenantID)
	life := lifetime(answer.ExpiresIn)
	tok = token{value: answer.AccessToken, expire: start.Add(life)}
	tok.renew = tok.expire.Add(-min(time.Minute, life/5))
	return tok, max(tenant, 0), nil
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
