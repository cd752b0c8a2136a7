package isdp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

// lineAge is how long connections are used before new ones are made, however well they do: the
// vendor's address may be another one by then, and so may the CAs.
const lineAge = 5 * time.Minute

// connections sends requests, over connections that it gives up when they are old, and when a
// request on one of them was not answered in time. A proxy, for example, may go on acknowledging
// packets that it no longer forwards; it would then swallow every request. It is safe for
// concurrent use.
type connections struct {
	// open makes a transport that trusts roots; nil: the system's. All its other properties stay
	// the same.
	open  func(roots *x509.CertPool) *http.Transport
	roots func() (*x509.CertPool, error) // reads them; nil: the system's

	mu   sync.Mutex
	line *line // the one that requests begin on; nil: a new one is due
}

// A line is a transport, whose connections are made and given up together.
type line struct {
	*http.Transport
	roots  *x509.CertPool
	opened time.Time
}

// RoundTrip implements http.RoundTripper.
func (c *connections) RoundTrip(req *http.Request) (*http.Response, error) {
	l, err := c.take()
	if err != nil {
		return nil, err
	}
	resp, err := l.RoundTrip(req)
	if err != nil {
		c.release(l, req, err)
		return nil, err
	}
	resp.Body = &lineBody{resp.Body, sync.OnceFunc(func() { c.release(l, req, nil) })}
	return resp, nil
}

// take returns the line to begin a request on; release must follow.
func (c *connections) take() (*line, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := c.line
	if last != nil && time.Since(last.opened) < lineAge {
		return last, nil
	}
	next := &line{opened: time.Now()}
	if c.roots != nil {
		var err error
		if next.roots, err = c.roots(); err != nil {
			if last == nil {
				return nil, err
			}
			next.roots = last.roots // when those are not enough it is told
		}
	}
	next.Transport = c.open(next.roots)
	c.line = next
	if last != nil {
		last.close()
	}
	return next, nil
}

// release is told that a request is over, and what its error was. Where its time was over, or the
// vendor's certificate is not trusted (then the CAs are read again), no other one begins on its
// line. A line that was given up is closed with its last request.
func (c *connections) release(l *line, req *http.Request, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	untrusted := (*tls.CertificateVerificationError)(nil)
	late := errors.Is(req.Context().Err(), context.DeadlineExceeded)
	if c.line == l && (late || errors.As(err, &untrusted)) {
		c.line = nil
	}
	if c.line != l {
		l.close()
	}
}

// close closes the connections that are idle. It does not wait for peers that do not answer.
func (l *line) close() { go l.CloseIdleConnections() }

// CloseIdleConnections closes the connections that are idle.
func (c *connections) CloseIdleConnections() {
	c.mu.Lock()
	l := c.line
	c.mu.Unlock()
	if l != nil {
		l.CloseIdleConnections()
	}
}

// A lineBody is an answer's body, with which its request is over.
type lineBody struct {
	io.ReadCloser
	close func()
}

func (b *lineBody) Close() error {
	err := b.ReadCloser.Close()
	b.close()
	return err
}
