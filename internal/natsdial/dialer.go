package natsdial

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// tryFor is how long a server may take to be found, to take the connection and to greet.
	tryFor = 5 * time.Second
	// keptFor is how long a connection waits for the client to come back for it. A server closes
	// one that does not sign in within 2 s of its greeting.
	keptFor = time.Second
	// patience is how long the client waits for one server before it goes on to the next. It holds
	// its lock meanwhile: nothing can be asked of it, nor can it be closed.
	patience = 300 * time.Millisecond
	// latePatience is for a server that has answered, though too late.
	latePatience = 2 * time.Second
)

// The types of the records that a server's side of a TLS handshake begins with (RFC 8446, 5.1).
const (
	tlsAlert     = 21
	tlsHandshake = 22
)

var (
	// ErrPending says that a server has not answered yet, and is given more time while others are
	// tried.
	ErrPending = errors.New("no answer yet")

	errSilent = errors.New("it took the connection and said nothing: " +
		"it hangs, or is not a NATS server")
	// errHungUp is what a server does that wants TLS first.
	errHungUp = errors.New("it took the connection and closed it without a word: " +
		"it is not a NATS server, or wants TLS that this side can't give")
)

// A dialer connects in the background. The client asks for a server's connection, waits for it for
// a moment, and goes on to the next server; when it comes back, the connection may be there.
type dialer struct {
	opening opening
	secure  bool // the settings want TLS from every server
	servers *Servers

	mu       sync.Mutex
	nc       *nats.Conn         // nil: not connected yet
	tries    map[string]*try    // by address
	late     map[string]bool    // addresses that answered when nobody waited any longer
	openings map[string]opening // by address, where another one than the first was wanted since
	hungUp   bool               // a server did, without a word, since the dialer was made
	failed   error              // what came of the last try that came to nothing
	closed   bool
}

// An opening is how a conversation with a server begins.
type opening int

const (
	greeting   opening = iota // the server speaks first: no connection is there before it has
	handshake                 // TLS comes first (handshake_first)
	webRequest                // the client speaks first, in HTTP
)

// A try is one try to reach a server.
type try struct {
	opening opening
	done    chan struct{} // closed when one of the following is set
	conn    net.Conn
	err     error
}

func newDialer(s *Servers, o opening, secure bool) *dialer {
	return &dialer{
		servers: s, opening: o, secure: secure,
		tries: make(map[string]*try), late: make(map[string]bool),
		openings: make(map[string]opening),
	}
}

// Dial implements nats.CustomDialer. The client calls it with its lock held.
func (d *dialer) Dial(_, address string) (net.Conn, error) {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil, net.ErrClosed
	}
	nc, patient := d.nc, patience
	if d.late[address] { // it is far away, and would miss the client every time
		patient = latePatience
	}
	t := d.tries[address]
	if t == nil {
		t = &try{opening: d.openingFor(address), done: make(chan struct{})}
		d.tries[address] = t
		go d.run(t, address)
	}
	d.mu.Unlock()
	if nc != nil {
		d.servers.renew(nc)
	}

	wait := time.NewTimer(patient)
	defer wait.Stop()
	select {
	case <-t.done:
	case <-wait.C:
		return nil, fmt.Errorf("connect to %s: %w after %v", address, ErrPending, patient)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tries[address] == t {
		delete(d.tries, address)
	}
	conn := t.conn
	if conn == nil && t.err == nil {
		t.err = errors.New("it was not asked for in time")
	}
	t.conn = nil // it is the client's now
	if t.err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, t.err)
	}
	if nc != nil && t.opening != webRequest {
		nc.Opts.TLSHandshakeFirst = t.opening == handshake
		nc.Opts.Secure = d.secure || t.opening == handshake
	}
	return conn, nil
}

// openingFor says how to begin with a server. Before the client has got through once, it can't be
// told of another opening. d.mu must be held.
func (d *dialer) openingFor(address string) opening {
	if o, ok := d.openings[address]; ok && d.nc != nil {
		return o
	}
	return d.opening
}

// refused says that the server did not take this opening. The next try begins with the other one:
// whether a server wants TLS first may have been changed since.
func (d *dialer) refused(address string, o opening) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch o {
	case greeting:
		d.openings[address] = handshake
	case handshake:
		d.openings[address] = greeting
	}
}

// run reaches for the server, and keeps what it gets for a moment.
func (d *dialer) run(t *try, address string) {
	ctx, cancel := context.WithTimeout(context.Background(), tryFor)
	defer cancel()
	conn, err := d.reach(ctx, address, t.opening)
	if errors.Is(err, errHungUp) {
		d.refused(address, t.opening)
	}
	d.mu.Lock()
	t.conn, t.err = conn, err
	if err != nil {
		d.failed = fmt.Errorf("connect to %s: %w", address, err)
	}
	d.hungUp = d.hungUp || errors.Is(err, errHungUp)
	if d.closed && conn != nil {
		_ = conn.Close()
	}
	close(t.done)
	d.mu.Unlock()
	time.Sleep(keptFor)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tries[address] == t { // nobody has come for it
		delete(d.tries, address)
		if t.conn != nil {
			d.late[address] = true
			_ = t.conn.Close()
			t.conn = nil
		}
	}
}

// reach connects to one of the addresses that the host has, and waits for the greeting.
func (d *dialer) reach(ctx context.Context, address string, o opening) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	ips, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		return nil, err
	}
	rand.Shuffle(len(ips), func(i, j int) { ips[i], ips[j] = ips[j], ips[i] })
	for i, ip := range ips {
		deadline, _ := ctx.Deadline()
		each := time.Until(deadline) / time.Duration(len(ips)-i)
		var conn net.Conn
		if conn, err = greeted(ctx, net.JoinHostPort(ip, port), each, o); err != nil {
			continue
		}
		if o == handshake {
			conn = &first{Conn: conn, refused: func() { d.refused(address, o) }}
		}
		return conn, nil
	}
	return nil, err
}

// greeted connects to an address, and waits for the first byte where there is one to wait for.
func greeted(
	ctx context.Context, address string, most time.Duration, o opening,
) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil || o != greeting {
		return conn, err
	}
	deadline, _ := ctx.Deadline()
	_ = conn.SetReadDeadline(deadline)
	first := make([]byte, 1)
	if _, err := io.ReadFull(conn, first); err != nil {
		_ = conn.Close()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, errSilent
		}
		return nil, fmt.Errorf("%w (%w)", errHungUp, err)
	}
	_ = conn.SetReadDeadline(time.Time{})
	return &peeked{conn, io.MultiReader(bytes.NewReader(first), conn)}, nil
}

// connected says that the client has got through.
func (d *dialer) connected(nc *nats.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.nc = nc
}

// outcome says whether a server may still answer, whether one took the connection and closed it
// without a word, and what came of the last try that came to nothing.
func (d *dialer) outcome() (pending, hungUp bool, failed error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.tries) > 0 && !d.closed, d.hungUp, d.failed
}

// close gives up what is under way.
func (d *dialer) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	for _, t := range d.tries {
		if t.conn != nil {
			_ = t.conn.Close()
		}
	}
}

// A peeked connection has had its first byte read.
type peeked struct {
	net.Conn
	all io.Reader // the first byte, then the connection
}

// Read implements net.Conn.
func (p *peeked) Read(b []byte) (int, error) { return p.all.Read(b) }

// A first connection is one on which TLS comes first. It looks at the first byte of the answer.
type first struct {
	net.Conn
	refused func() // called where the answer is not TLS
	looked  bool   // the client reads from one goroutine at a time
}

// Read implements net.Conn.
func (f *first) Read(b []byte) (int, error) {
	n, err := f.Conn.Read(b)
	if !f.looked && (n > 0 || err != nil) {
		f.looked = true
		if n == 0 || b[0] != tlsAlert && b[0] != tlsHandshake {
			f.refused()
		}
	}
	return n, err
}
