//go:build ci && unix

package board

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"math/big"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// A login is a provider of OpenID Connect: who presses its button is a leader. It is there for
// oauth2-proxy, which asks for no more than this.
type login struct {
	url string // its own
	key *rsa.PrivateKey
	mux *http.ServeMux

	mu     sync.Mutex
	nonces map[string]string // by code
}

func newLogin(url string) (*login, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	l := &login{url: url, key: key, mux: http.NewServeMux(), nonces: map[string]string{}}
	l.mux.HandleFunc("GET /.well-known/openid-configuration", l.configuration)
	l.mux.HandleFunc("GET /authorize", l.form)
	l.mux.HandleFunc("GET /pressed", l.pressed)
	l.mux.HandleFunc("POST /token", l.token)
	l.mux.HandleFunc("GET /keys", l.keys)
	return l, nil
}

func answer(w http.ResponseWriter, what map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(what)
}

func (l *login) configuration(w http.ResponseWriter, _ *http.Request) {
	answer(w, map[string]any{"issuer": l.url, "authorization_endpoint": l.url + "/authorize",
		"token_endpoint": l.url + "/token", "jwks_uri": l.url + "/keys",
		"id_token_signing_alg_values_supported": []string{"RS256"}})
}

var loginForm = template.Must(template.New("").Parse(`<!doctype html><title>Login</title>
<form action="/pressed">{{range $name, $value := .}}
<input type="hidden" name="{{$name}}" value="{{$value}}">{{end}}
<button>I am a leader</button></form>`))

func (l *login) form(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = loginForm.Execute(w, map[string]string{"state": r.FormValue("state"),
		"nonce": r.FormValue("nonce"), "redirect_uri": r.FormValue("redirect_uri")})
}

func (l *login) pressed(w http.ResponseWriter, r *http.Request) {
	code := rand.Text()
	l.mu.Lock()
	l.nonces[code] = r.FormValue("nonce")
	l.mu.Unlock()
	http.Redirect(w, r, r.FormValue("redirect_uri")+"?"+url.Values{"code": {code},
		"state": {r.FormValue("state")}}.Encode(), http.StatusFound)
}

func (l *login) token(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	nonce, ok := l.nonces[r.FormValue("code")]
	l.mu.Unlock()
	if !ok {
		http.Error(w, `{"error": "invalid_grant"}`, http.StatusBadRequest)
		return
	}
	now := time.Now()
	encode := base64.RawURLEncoding.EncodeToString
	claims, _ := json.Marshal(map[string]any{"iss": l.url, "aud": "rollcall", "sub": "7",
		"email": "leader@example.com", "email_verified": true, "nonce": nonce,
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix()})
	signed := encode([]byte(`{"alg":"RS256","kid":"1"}`)) + "." + encode(claims)
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(nil, l.key, crypto.SHA256, sum[:])
	if err != nil {
		http.Error(w, fmt.Sprint(err), http.StatusInternalServerError)
		return
	}
	answer(w, map[string]any{"access_token": rand.Text(), "token_type": "Bearer",
		"expires_in": 3600, "id_token": signed + "." + encode(signature)})
}

func (l *login) keys(w http.ResponseWriter, _ *http.Request) {
	encode := base64.RawURLEncoding.EncodeToString
	answer(w, map[string]any{"keys": []any{map[string]string{"kty": "RSA", "alg": "RS256",
		"use": "sig", "kid": "1", "n": encode(l.key.N.Bytes()),
		"e": encode(big.NewInt(int64(l.key.E)).Bytes())}}})
}
