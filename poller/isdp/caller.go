package isdp

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rollcall-events/rollcall/internal/listing"
)

const (
	maxBody     = 8 << 20          // bytes of an answer, decompressed; a page has some 50 KB
	maxFailBody = 64 << 10         // of an answer whose status says that it holds no data
	pingAfter   = 15 * time.Second // of silence, until an HTTP/2 connection is pinged
)

// A caller sends requests, within the limits.
type caller struct {
	secrets
	limits            *limits
	metrics           *metrics
	http              http.RoundTripper // an http.Client would send the credentials on to redirects
	proxy             *url.URL          // nil: none
	timeout           time.Duration     // for one request
	now               func() time.Time
	certificateWanted atomic.Bool // a server has asked for a client certificate …
	answered          atomic.Bool // … and one has answered a request
}

func newCaller(c Config) *caller {
	limits := newLimits(c)
	cl := &caller{limits: limits, metrics: newMetrics(c.Metrics, limits), http: c.Transport,
		timeout: c.RequestTimeout, now: c.Now}
	cl.keepAccount(c.account())
	if base, err := parseBase(c.BaseURL); err == nil {
		cl.proxy, _ = Proxy(base) // Validate has told what is wrong with it
	}
	if cl.http == nil {
		cl.http = &connections{roots: c.RootCAs, open: cl.transport}
	}
	return cl
}

// transport makes a transport that trusts roots.
func (c *caller) transport(roots *x509.CertPool) *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyURL(c.proxy),
		OnProxyConnectResponse: proxied,
		DialContext:            (&net.Dialer{Timeout: c.timeout}).DialContext,
		TLSHandshakeTimeout:    c.timeout,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots,
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				c.certificateWanted.Store(true)
				return &tls.Certificate{}, nil // there is none
			}},
		ForceAttemptHTTP2:  true,
		DisableCompression: true, // decompressed tells by the bytes, not by the header
		HTTP2: &http.HTTP2Config{
			SendPingTimeout: pingAfter, PingTimeout: c.timeout, WriteByteTimeout: c.timeout},
		MaxIdleConnsPerHost:    math.MaxInt, // there are only as many as were in use
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 256 << 10,
	}
}

// reply is an answer, read completely.
type reply struct {
	status int
	header http.Header
	text                 // the body
	buf    *bytes.Buffer // whose memory text may share; nil: none of the pool's

	sent, read time.Time
	began      time.Time     // as sent, on the clock that timeouts go by
	took       time.Duration // until it had been read, or was given up
	throttled  bool          // the vendor wants fewer requests
}

// buffers are for the bodies of answers: a sweep has thousands of them, of much the same size.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// largeBuffer is a buffer that is not kept for the next answer.
const largeBuffer = 1 << 20

// release gives the memory of the body back. Nothing that shares it may be used any more; an error
// about an answer does.
func (r *reply) release() {
	if r.buf != nil && r.buf.Cap() <= largeBuffer {
		buffers.Put(r.buf)
	}
	r.buf = nil
}

// post sends one request when its turn has come and reads the answer. Whatever the status, it is an
// answer; reply.sent is set once the request was about to be sent. The error has no Op.
func (c *caller) post(
	ctx context.Context, url, token string, body []byte,
) (r reply, _ *listing.Error) {
	if err := c.limits.turn(ctx); err != nil {
		return r, err
	}
	one, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(one, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return r, c.lost(ctx, err)
	}
	req.Header = http.Header{"Content-Type": {"application/json"}, "Accept": {"application/json"},
		"Accept-Encoding": {"gzip"}, "User-Agent": {"rollcall"}}
	if token != "" {
		req.Header.Set("Authorization", "bearer "+token)
	}
	r.began, r.sent = time.Now(), c.now()
	defer func() { r.took = time.Since(r.began) }()
	resp, err := c.http.RoundTrip(req)
	if err != nil {
		return r, c.lost(ctx, err)
	}
	defer resp.Body.Close()
	c.answered.Store(true)
	r.throttled = c.limits.heard(resp, r.began)
	r.status, r.header = resp.StatusCode, resp.Header
	switch {
	case r.status == http.StatusSwitchingProtocols:
		// What follows is the connection itself, and no timeout would end that.
		r.read = c.now()
		return r, nil
	case r.status/100 != 2:
		// The status is what matters. The body may explain it, and may be missing.
		r.utf8, _ = io.ReadAll(io.LimitReader(resp.Body, maxFailBody))
		r.read = c.now()
		_ = r.decode()
		return r, nil
	case resp.ContentLength > maxBody:
		return r, tooLarge()
	}
	r.buf = buffers.Get().(*bytes.Buffer)
	r.buf.Reset()
	r.buf.Grow(int(max(resp.ContentLength, 0)) + bytes.MinRead)
	_, err = r.buf.ReadFrom(io.LimitReader(resp.Body, maxBody+1))
	r.utf8 = r.buf.Bytes()
	r.read = c.now()
	switch {
	case err != nil:
		return r, c.lost(ctx, err)
	case len(r.utf8) > maxBody:
		return r, tooLarge()
	}
	if err := r.decode(); err != nil {
		return r, unusable("%w", err)
	}
	return r, nil
}

// decode makes the body text: decompressed, and UTF-8. A body that can't be stays as it is.
func (r *reply) decode() error {
	body, err := decompressed(r.utf8)
	if err == nil {
		r.text = decodeText(body, r.header.Get("Content-Type"))
	}
	return err
}

func tooLarge() *listing.Error {
	return unusable("the answer is larger than %d MiB and was not read", maxBody>>20)
}

// lost is the error of a request that got no answer.
func (c *caller) lost(ctx context.Context, err error) *listing.Error {
	switch {
	case ctx.Err() != nil:
		return ended(ctx)
	case errors.Is(err, context.DeadlineExceeded):
		via := ""
		if c.proxy != nil {
			via = " through the proxy (" + proxyVariable() + ")"
		}
		return unreachable(fmt.Errorf("no whole answer within %v%s: %w", c.timeout, via, err))
	}
	why, hint := connectHint(err, c.certificateWanted.Load() && !c.answered.Load())
	return hinted(unreachable(&foreign{c.scrub(err.Error()), why, err}), hint)
}
