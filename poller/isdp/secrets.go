package isdp

import (
	"cmp"
	"encoding/json"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"
)

const (
	maxExcerpt = 200 // runes of foreign text in an error
	kept       = 32  // of the last credentials, and of the last tokens, that are kept out of errors
)

// secrets are what no error may show: credentials and tokens, those that were replaced too.
type secrets struct {
	mu                  sync.Mutex
	credentials, tokens []string
}

// keepAccount has credentials kept out of errors from now on.
func (s *secrets) keepAccount(a Account) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.credentials = append(s.credentials[max(0, len(s.credentials)+4-kept):],
		a.ClientSecret, a.Password, a.ClientID, a.Username)
}

// keepToken has a token kept out of errors from now on.
func (s *secrets) keepToken(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.tokens, token) {
		s.tokens = append(s.tokens[max(0, len(s.tokens)+1-kept):], token)
	}
}

// scrub makes foreign text fit for an error: no secrets, no control characters, not long.
func (s *secrets) scrub(text string) string {
	s.mu.Lock()
	hidden := hiding(slices.Concat(s.credentials, s.tokens))
	s.mu.Unlock()
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, hidden.Replace(text))
	if r := []rune(text); len(r) > maxExcerpt {
		text = string(r[:maxExcerpt]) + "…"
	}
	return strings.TrimSpace(text)
}

// excerpt shows what the vendor says of an error, scrubbed and quoted; "" where that is no text.
func (s *secrets) excerpt(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) != nil || text == "" {
		return ""
	}
	return strconv.Quote(s.scrub(text))
}

// hiding replaces each secret, also where it has been quoted or escaped in the ways that errors and
// requests are, once or on top of being a part of a JSON text.
func hiding(secrets []string) *strings.Replacer {
	var forms []string
	for _, secret := range secrets {
		for _, s := range []string{secret, inJSON(secret, true), inJSON(secret, false)} {
			quoted := strconv.Quote(s)
			forms = append(forms, s, inJSON(s, true), inJSON(s, false), quoted[1:len(quoted)-1],
				url.QueryEscape(s), url.PathEscape(s))
		}
	}
	slices.SortFunc(forms, func(a, b string) int { // the longest first
		return cmp.Or(cmp.Compare(len(b), len(a)), strings.Compare(a, b))
	})
	var pairs []string
	for _, s := range slices.Compact(forms) {
		if s != "" {
			pairs = append(pairs, s, "[secret]")
		}
	}
	return strings.NewReplacer(pairs...)
}

// inJSON is s as it stands within a JSON string, with or without HTML's characters escaped.
func inJSON(s string, html bool) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(html)
	if e.Encode(s) != nil {
		return s
	}
	return b.String()[1 : b.Len()-2] // without the quotes and the end of the line
}
