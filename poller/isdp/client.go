package isdp

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/rollcall-events/rollcall/internal/listing"
)

const (
	maxBody     = 8 << 20          // bytes of an answer, decompressed; a page has some 50 KB
	maxFailBody = 64 << 10         // of an answer whose status says that it holds no data
	maxExcerpt  = 200              // runes of foreign text in an error
	pingAfter   = 15 * time.Second // without a byte, an HTTP/2 connection is asked whether it lives
	keptTokens  = 32               // how many of the last tokens are kept out of errors
	keptSecrets = 32               // how many of the last credentials are
)

// client sends requests, within the limits.
type client struct {
	http    http.RoundTripper // no client: there are no redirects to follow, since they would be sent the credentials, and no cookies
	limits  *limits
	metrics *metrics
	proxy   *url.URL      // nil: none
	timeout time.Duration // for one request
	now     func() time.Time
	wanted  atomic.Bool // a server has asked for a certificate of the client …
	heard   atomic.Bool // … and one has answered a request
	last    atomic.Pointer[requestHeader]

	mu      sync.Mutex
	secrets []string          // of the credentials, those that were replaced too
	tokens  []string          // the last ones that were issued
	hidden  *strings.Replacer // of secrets and tokens
}

// reply is an answer, read completely.
type reply struct {
	status     int
	header     http.Header
	body       []byte // decompressed, as UTF-8 where it could be decoded
	lossy      bool   // see text
	charset    string // see text
	sent, read time.Time
	began      time.Time     // as sent, on the clock that timeouts go by
	took       time.Duration // until it had been read, or was given up
	throttled  bool          // the vendor wants fewer requests
}

func newClient(c Config) *client {
	secrets := c.account().secrets()
	limits := newLimits(c)
	cl := &client{
		limits:  limits,
		metrics: newMetrics(c.Metrics, limits),
		timeout: c.RequestTimeout,
		now:     c.Now,
		secrets: secrets,
		hidden:  hiding(secrets),
	}
	if base, err := parseBase(c.BaseURL); err == nil {
		cl.proxy, _ = Proxy(base) // Validate has told what is wrong with it
	}
	if cl.http = c.Transport; cl.http != nil {
		return cl
	}
	cl.http = &connections{roots: c.RootCAs, open: func(roots *x509.CertPool) *http.Transport {
		return &http.Transport{
			Proxy:                  http.ProxyURL(cl.proxy),
			OnProxyConnectResponse: proxied,
			DialContext:            (&net.Dialer{Timeout: c.RequestTimeout}).DialContext,
			TLSHandshakeTimeout:    c.RequestTimeout,
			TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots,
				GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
					cl.wanted.Store(true)
					return &tls.Certificate{}, nil // there is none
				}},
			ForceAttemptHTTP2:  true,
			DisableCompression: true, // decompressed tells by the bytes, not by the header
			HTTP2: &http.HTTP2Config{
				SendPingTimeout: pingAfter, PingTimeout: c.RequestTimeout, WriteByteTimeout: c.RequestTimeout},
			MaxIdleConnsPerHost:    math.MaxInt,
			IdleConnTimeout:        90 * time.Second,
			MaxResponseHeaderBytes: 256 << 10,
		}
	}}
	return cl
}

// post sends one request when its turn has come and reads the answer. Whatever the status, it is an
// answer; reply.sent is set once the request was about to be sent. The error is an [*listing.Error] without
// Op, or nil.
func (c *client) post(ctx context.Context, url, token string, body []byte) (r reply, _ *listing.Error) {
	if err := c.limits.turn(ctx); err != nil {
		return r, err
	}

	one, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(one, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return r, c.lost(ctx, err)
	}
	req.Header = c.header(token)
	r.began, r.sent = time.Now(), c.now()
	defer func() { r.took = time.Since(r.began) }()
	resp, err := c.http.RoundTrip(req)
	if err != nil {
		return r, c.lost(ctx, err)
	}
	defer resp.Body.Close()
	c.heard.Store(true)
	r.throttled = c.limits.heard(resp, r.began)
	r.status, r.header = resp.StatusCode, resp.Header
	if r.status == http.StatusSwitchingProtocols {
		// What follows is the connection itself, which no timeout ends.
		r.read = c.now()
		return r, nil
	}
	if r.status/100 != 2 {
		// What matters is the status; the body may say more, and may as well be missing.
		r.body, _ = io.ReadAll(io.LimitReader(resp.Body, maxFailBody))
		r.read = c.now()
		_ = r.decode()
		return r, nil
	}
	if resp.ContentLength > maxBody {
		return r, tooLarge()
	}
	r.body, err = bodies.read(io.LimitReader(resp.Body, maxBody+1), resp.ContentLength)
	r.read = c.now()
	switch {
	case err != nil:
		return r, c.lost(ctx, err)
	case len(r.body) > maxBody:
		return r, tooLarge()
	}
	if err := r.decode(); err != nil {
		return r, &listing.Error{Class: listing.Unusable, Err: err}
	}
	return r, nil
}

// decode makes the body text: decompressed, and UTF-8. A body that can't be stays as it is.
func (r *reply) decode() error {
	body, err := decompressed(r.body)
	if err != nil {
		return err
	}
	t := decodeText(body, r.header.Get("Content-Type"))
	r.body, r.lossy, r.charset = t.utf8, t.lossy, t.charset
	return nil
}

// text is the body, decoded.
func (r *reply) text() text { return text{r.body, r.lossy, r.charset} }

// A requestHeader is the header of all requests with a token.
type requestHeader struct {
	token  string
	header http.Header
}

// header returns the header of a request with that token. Requests share it, and a transport does
// not alter it.
func (c *client) header(token string) http.Header {
	if last := c.last.Load(); last != nil && last.token == token {
		return last.header
	}
	h := http.Header{"Content-Type": {"application/json"}, "Accept": {"application/json"},
		"Accept-Encoding": {"gzip"}, "User-Agent": {"rollcall"}}
	if token != "" {
		h.Set("Authorization", "bearer "+token)
	}
	c.last.Store(&requestHeader{token, h})
	return h
}

func tooLarge() *listing.Error {
	return &listing.Error{Class: listing.Unusable, Err: fmt.Errorf("the answer is larger than %d MiB and was not read", maxBody>>20)}
}

// lost is the error of a request that got no answer.
func (c *client) lost(ctx context.Context, err error) *listing.Error {
	if ctx.Err() != nil {
		return ended(ctx)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		via := ""
		if c.proxy != nil {
			via = " through the proxy (" + proxyVariable() + ")"
		}
		return &listing.Error{Class: listing.Unreachable, Err: fmt.Errorf("no whole answer within %v%s: %w", c.timeout, via, err)}
	}
	hint := Hint(err, c.wanted.Load() && !c.heard.Load())
	return &listing.Error{Class: listing.Unreachable, Err: &foreign{hinted(c.scrub(err.Error()), hint), err}}
}

// foreign is an error whose text others have written.
type foreign struct {
	text string // scrubbed
	err  error
}

func (f *foreign) Error() string { return f.text }
func (f *foreign) Unwrap() error { return f.err }

// ended is the error of what was not done because ctx was over.
func ended(ctx context.Context) *listing.Error { return listing.Ended(ctx.Err(), context.Cause(ctx)) }

// failed returns the error that an answer's status is, or nil.
func failed(status int) *listing.Error {
	switch {
	case status/100 == 2:
		return nil
	case status == http.StatusSwitchingProtocols:
		return &listing.Error{Class: listing.Unusable, Err: fmt.Errorf("HTTP %d, a switch of protocols that nobody asked for: "+
			"does a gateway or proxy of yours answer in the vendor's place? Is ROLLCALL_ISDP_URL right?", status)}
	case status/100 == 3:
		return &listing.Error{Class: listing.Unusable, Err: fmt.Errorf("HTTP %d, a redirect: never followed, since it would resend the credentials; is ROLLCALL_ISDP_URL right?", status)}
	case status == http.StatusRequestTimeout, status == http.StatusTooManyRequests, status >= 500:
		return &listing.Error{Class: listing.Unreachable, Err: fmt.Errorf("HTTP %d", status),
			Refused: status == http.StatusInternalServerError}
	default:
		return &listing.Error{Class: listing.Unusable, Err: fmt.Errorf("HTTP %d", status), Refused: status/100 == 4}
	}
}

// keepSecrets has new credentials kept out of errors too from now on.
func (c *client) keepSecrets(added Account) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.secrets = append(added.secrets(), c.secrets[:min(len(c.secrets), keptSecrets-4)]...)
	c.hidden = hiding(slices.Concat(c.secrets, c.tokens))
}

// keepSecret has a token kept out of errors from now on.
func (c *client) keepSecret(token string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Contains(c.tokens, token) {
		c.tokens = append(c.tokens[max(0, len(c.tokens)-keptTokens+1):], token)
		c.hidden = hiding(slices.Concat(c.secrets, c.tokens))
	}
}

// scrub makes foreign text fit for an error: no secrets, no control characters, not long.
func (c *client) scrub(s string) string {
	c.mu.Lock()
	hidden := c.hidden
	c.mu.Unlock()
	s = hidden.Replace(s)
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	if r := []rune(s); len(r) > maxExcerpt {
		s = string(r[:maxExcerpt]) + "…"
	}
	return strings.TrimSpace(s)
}

// hiding replaces each secret, also where it has been quoted or escaped in the ways that errors and
// requests are, once or on top of being a part of a JSON text.
func hiding(secrets []string) *strings.Replacer {
	var forms []string
	for _, secret := range secrets {
		for _, s := range []string{secret, inJSON(secret, true), inJSON(secret, false)} {
			quoted := strconv.Quote(s)
			forms = append(forms, s, inJSON(s, true), inJSON(s, false), quoted[1:len(quoted)-1], url.QueryEscape(s), url.PathEscape(s))
		}
	}
	slices.SortFunc(forms, func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), strings.Compare(a, b)) })
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

// excerpt shows what the vendor says of an error, scrubbed and quoted; "" where that is no text.
func (c *client) excerpt(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) != nil || s == "" {
		return ""
	}
	return strconv.Quote(c.scrub(s))
}
