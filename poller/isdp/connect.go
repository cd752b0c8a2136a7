package isdp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// lineAge is how long connections are used before new ones are made, however well they do: the
// vendor's address may be another one by then, and so may the CAs.
const lineAge = 5 * time.Minute

// connections sends requests, over connections that it gives up when they are old, and when a
// request on one of them was not answered in time: what goes on acknowledging and does not forward,
// a proxy for one, would otherwise hold on to all requests for good. It is safe for concurrent use.
type connections struct {
	// open makes a transport that trusts roots; nil: the system's. All its other properties stay
	// the same.
	open  func(roots *x509.CertPool) *http.Transport
	roots func() (*x509.CertPool, error) // reads them; nil: the system's

	mu   sync.Mutex
	line *line // the one that requests begin on; nil: a new one is due
}

// A line is a transport, whose connections are made and given up together. connections.mu guards
// it.
type line struct {
	*http.Transport
	roots  *x509.CertPool
	opened time.Time
	active int  // requests under way
	over   bool // no request begins on it any more
}

// RoundTrip implements http.RoundTripper. Where the vendor's certificate is not trusted and the CAs
// have been replaced since they were read, it tries once more.
func (c *connections) RoundTrip(req *http.Request) (*http.Response, error) {
	l, err := c.take()
	if err != nil {
		return nil, err
	}
	resp, err := c.send(l, req)
	if verify := (*tls.CertificateVerificationError)(nil); !errors.As(err, &verify) || c.roots == nil {
		return resp, err
	}
	roots, unread := c.roots()
	switch {
	case unread != nil:
		return nil, fmt.Errorf("the CAs can't be read again (%w): %w", unread, err)
	case roots.Equal(l.roots):
		return nil, err
	}
	c.giveUp(l)
	again := req.Clone(req.Context())
	if again.Body, unread = req.GetBody(); unread != nil {
		return nil, err
	}
	if l, unread = c.take(); unread != nil {
		return nil, unread
	}
	return c.send(l, again)
}

// send sends a request on a line that was taken for it.
func (c *connections) send(l *line, req *http.Request) (*http.Response, error) {
	resp, err := l.RoundTrip(req)
	if err != nil {
		c.release(l, req)
		return nil, err
	}
	resp.Body = &lineBody{ReadCloser: resp.Body, close: sync.OnceFunc(func() { c.release(l, req) })}
	return resp, nil
}

// take returns the line to begin a request on; release must follow.
func (c *connections) take() (*line, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.line; l != nil && time.Since(l.opened) < lineAge {
		l.active++
		return l, nil
	}
	var roots *x509.CertPool
	if c.roots != nil {
		var err error
		if roots, err = c.roots(); err != nil {
			if c.line == nil {
				return nil, err
			}
			roots = c.line.roots // those that were read last; when they are not enough it is told
		}
	}
	c.end(c.line)
	c.line = &line{Transport: c.open(roots), roots: roots, opened: time.Now(), active: 1}
	return c.line, nil
}

// release is told that a request is over. Where its time was, no other one begins on its line.
func (c *connections) release(l *line, req *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l.active--
	if errors.Is(req.Context().Err(), context.DeadlineExceeded) && c.line == l {
		c.line = nil
		c.end(l)
	} else if l.over {
		c.end(l)
	}
}

// giveUp has no further request begin on a line.
func (c *connections) giveUp(l *line) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.line == l {
		c.line = nil
	}
	c.end(l)
}

// end closes the connections of a line that are idle: all of them once its last request is over. mu
// is held.
func (c *connections) end(l *line) {
	if l == nil {
		return
	}
	l.over = true
	go l.CloseIdleConnections() // what does not take a farewell is no reason to wait
}

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
