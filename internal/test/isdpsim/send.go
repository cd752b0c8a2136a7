package isdpsim

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync/atomic"
	"time"
)

// Delivery is an answer about to be sent, for Plan.Send, which may panic with http.ErrAbortHandler
// to close the connection.
type Delivery struct {
	// the headers are set, Content-Length apart; nothing has been written
	W       http.ResponseWriter
	Context context.Context // ends when the client leaves
	Status  int
	Body    []byte // not to be altered

	// Last is to be called before the write with which the client has its whole answer, so that its
	// next request does not count as one beside this. Where it is not called, the request counts as
	// in flight until Plan.Send returns.
	Last func()
}

// sendWhole is how answers without a fault are sent.
func sendWhole(d *Delivery) {
	d.W.Header().Set("Content-Length", strconv.Itoa(len(d.Body)))
	d.W.WriteHeader(d.Status)
	d.Last()
	d.W.Write(d.Body)
}

// start sends the headers with the length of the whole body, and its first n bytes (never all) at
// once.
func (d *Delivery) start(n int) {
	d.W.Header().Set("Content-Length", strconv.Itoa(max(1, len(d.Body))))
	d.W.WriteHeader(d.Status)
	d.W.Write(d.Body[:max(0, min(n, len(d.Body)-1))])
	d.flush()
}

func (d *Delivery) flush() { _ = http.NewResponseController(d.W).Flush() }

// sending is a fault that sends an answer that nobody can read.
func sending(send func(*Delivery)) Fault { return func(p *Plan) { p.Send, p.Broken = send, true } }

// Cut announces the whole body and closes the connection in good order after n bytes.
func Cut(n int) Fault {
	return sending(func(d *Delivery) {
		d.start(n)
		d.Last()
		panic(http.ErrAbortHandler)
	})
}

// Reset announces the whole body and resets the connection after n bytes; 0: before any byte of an
// answer.
func Reset(n int) Fault {
	return sending(func(d *Delivery) {
		if n > 0 {
			d.start(n)
		}
		conn, _, err := http.NewResponseController(d.W).Hijack()
		d.Last()
		if err != nil {
			panic(http.ErrAbortHandler) // not a connection of its own: as near as one can come
		}
		c := conn
		if wrapped, ok := c.(interface{ NetConn() net.Conn }); ok {
			c = wrapped.NetConn()
		}
		if tcp, ok := c.(*net.TCPConn); ok {
			tcp.SetLinger(0)
		}
		conn.Close()
	})
}

// Hang announces the whole body and sends nothing more after n bytes, until the client leaves; 0:
// not even the headers.
func Hang(n int) Fault {
	return sending(func(d *Delivery) {
		if n > 0 {
			d.start(n)
		}
		<-d.Context.Done()
		panic(http.ErrAbortHandler) // returning would be an answer
	})
}

// Raw sends bytes as they are in the place of an answer, and keeps the connection open until the
// client closes it or sends something else.
func Raw(text string) Fault {
	return sending(func(d *Delivery) { d.raw([]byte(text), d.Last) })
}

// Behind sends the whole answer and, behind it, bytes that belong to none. The connection stays
// open.
func Behind(text string) Fault {
	return func(p *Plan) {
		p.Send = func(d *Delivery) {
			head := fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n",
				d.Status, http.StatusText(d.Status), d.W.Header().Get("Content-Type"), len(d.Body))
			d.raw(slices.Concat([]byte(head), d.Body, []byte(text)), d.Last)
		}
	}
}

// raw takes the connection over, writes to it and waits until the client has closed it, or sends
// something else.
func (d *Delivery) raw(text []byte, last func()) {
	conn, _, err := http.NewResponseController(d.W).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // not a connection of its own: as near as one can come
	}
	defer conn.Close()
	last()
	_, _ = conn.Write(text) // a client that has gone is what it waits for
	_, _ = conn.Read(make([]byte, 1))
}

// Switch answers 101, as to a request for another protocol that nobody made, and keeps the
// connection open. Without a protocol it does not even name one.
func Switch(protocol string) Fault {
	if protocol == "" {
		return Raw("HTTP/1.1 101 Switching Protocols\r\n\r\n")
	}
	return Raw("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + protocol +
		"\r\n\r\n")
}

// Huge sends a body of n bytes without announcing its length. It is the right answer, valid JSON,
// with spaces before its last byte: whoever takes it in has read it all.
func Huge(n int64) Fault {
	return sending(func(d *Delivery) {
		d.W.WriteHeader(d.Status)
		body := d.Body
		if len(body) == 0 {
			body = []byte(" ")
		}
		end := body[len(body)-1:]
		d.W.Write(body[:len(body)-1])
		spaces := bytes.Repeat([]byte(" "), 64<<10)
		for left := n - int64(len(body)); left > 0 && d.Context.Err() == nil; {
			m, err := d.W.Write(spaces[:min(left, int64(len(spaces)))])
			if err != nil {
				return
			}
			left -= int64(m)
		}
		d.Last()
		d.W.Write(end)
	})
}

// Endless is Huge without an end: it sends until the client leaves.
func Endless() Fault { return Huge(math.MaxInt64) }

// Drip sends the answer a few bytes at a time, with a pause after each.
func Drip(bytes int, pause time.Duration) Fault {
	return func(p *Plan) {
		p.Send = func(d *Delivery) {
			d.W.Header().Set("Content-Length", strconv.Itoa(len(d.Body)))
			d.W.WriteHeader(d.Status)
			for rest := d.Body; len(rest) > 0; {
				n := min(max(1, bytes), len(rest))
				if n == len(rest) {
					d.Last()
				}
				if _, err := d.W.Write(rest[:n]); err != nil {
					return
				}
				d.flush()
				if rest = rest[n:]; len(rest) > 0 && !wait(d.Context, pause) {
					panic(http.ErrAbortHandler)
				}
			}
		}
	}
}

// countingWriter counts the bytes of all bodies, and notes whether one could not be written.
type countingWriter struct {
	http.ResponseWriter
	sent   *atomic.Int64
	failed bool
}

func (w *countingWriter) Write(b []byte) (int, error) {
	n, err := w.ResponseWriter.Write(b)
	w.sent.Add(int64(n))
	if err != nil {
		w.failed = true
	}
	return n, err
}

// Unwrap lets http.ResponseController find what the writer below can do.
func (w *countingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
