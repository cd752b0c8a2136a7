package broker

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// A frame is one operation of the NATS client protocol.
type frame struct {
	toServer bool
	op       string // upper case: PUB, HPUB, MSG, HMSG, PING …
	args     []string
	subject  string // of PUB, HPUB, MSG and HMSG
	reply    string // of the same, may be empty
	header   nats.Header
	body     []byte
	raw      []byte // all of it, as it came
}

func (f *frame) isPub() bool { return f.op == "PUB" || f.op == "HPUB" }
func (f *frame) isMsg() bool { return f.op == "MSG" || f.op == "HMSG" }

func (f *frame) String() string {
	return fmt.Sprintf("%s %s (%d bytes)", f.op, f.subject,
		len(f.body))
}

// readFrame reads the next operation.
func readFrame(r *bufio.Reader, toServer bool) (*frame, error) {
	line, err := r.ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(string(line))
	if len(fields) == 0 {
		return nil, errors.New("an empty line")
	}
	f := &frame{toServer: toServer, op: strings.ToUpper(fields[0]), args: fields[1:], raw: line}
	if !f.isPub() && !f.isMsg() {
		return f, nil
	}
	args := f.args
	f.subject = args[0]
	if f.isMsg() {
		args = args[1:] // the subscription's id stands second
	}
	args = args[1:]
	sizes := 1
	if f.op[0] == 'H' {
		sizes = 2
	}
	if len(args) > sizes {
		f.reply, args = args[0], args[1:]
	}
	total, err := strconv.Atoi(args[len(args)-1])
	if err != nil {
		return nil, fmt.Errorf("%q: %w", line, err)
	}
	payload := make([]byte, total+2)
	if _, err := io.ReadFull(r, payload); err != nil {
		return nil, err
	}
	f.raw = append(f.raw, payload...)
	f.body = payload[:total]
	if sizes == 2 {
		n, err := strconv.Atoi(args[0])
		if err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		f.header, _ = nats.DecodeHeadersMsg(payload[:n]) // a status without headers is none
		f.body = payload[n:total]
	}
	return f, nil
}

// An action is what happens to the message that a rule chose.
type action int

const (
	cutBefore action = iota // the connection breaks before the message has reached the other side
	cutAfter                // it breaks when the message has taken effect, before its answer
	// the server seems to refuse it: it gets an error for an answer, or is dropped where it asks
	// for none
	refuse
	mute    // it takes effect, and its answer never comes
	swallow // it is dropped, and no answer ever comes
	delay   // it waits for the rule's time
	pause   // it waits, and all after it, until release is called
)

func (a action) String() string {
	return [...]string{"cut before", "cut after", "refused", "answer lost", "swallowed", "delayed",
		"paused"}[a]
}

// A rule chooses a message and says what happens at it, once.
type rule struct {
	match func(*frame) bool
	skip  int // so many matches are let through first
	act   action
	dies  bool // nothing passes any more afterwards: the process is dead
	wait  time.Duration
	fired chan *frame // gets the message once it has happened
}

// A proxy stands between one process and the server.
type proxy struct {
	tb      testing.TB
	ln      net.Listener
	backend func() string

	mu    sync.Mutex // guards what follows
	open  bool       // new connections are taken
	links map[*link]bool
	rules []*rule
	gate  chan struct{}       // what the client sends waits until it is closed; nil: nothing waits
	info  func([]byte) []byte // changes what servers say of themselves; nil: nothing does

	done sync.WaitGroup
}

// newProxy returns a proxy that lets everything through, until the test ends.
func newProxy(tb testing.TB, backend func() string) *proxy {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	p := &proxy{tb: tb, ln: ln, backend: backend, open: true, links: make(map[*link]bool)}
	p.done.Go(p.accept)
	tb.Cleanup(func() {
		p.release()
		p.cut()
		ln.Close()
		p.done.Wait()
	})
	return p
}

func (p *proxy) url() string { return "nats://" + p.ln.Addr().String() }

func (p *proxy) accept() {
	for {
		c, err := p.ln.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		open := p.open
		p.mu.Unlock()
		if !open {
			c.Close()
			continue
		}
		s, err := net.Dial("tcp", strings.TrimPrefix(p.backend(), "nats://"))
		if err != nil {
			c.Close()
			continue
		}
		l := &link{p: p, client: c, server: s, subs: make(map[string]string),
			muted: make(map[string]chan struct{}), pong: make(chan struct{})}
		p.mu.Lock()
		if p.open {
			p.links[l] = true
			p.done.Go(l.toServer)
			p.done.Go(l.toClient)
		} else {
			l.close()
		}
		p.mu.Unlock()
	}
}

// says makes the servers of connections that are made from now on say something else of themselves
// than they do; nil: no more.
func (p *proxy) says(info func([]byte) []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.info = info
}

func (p *proxy) changeInfo() func([]byte) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.info
}

// version is a server's INFO with another version.
func version(v string) func([]byte) []byte {
	return func(info []byte) []byte {
		return regexp.MustCompile(`"version":"[^"]*"`).ReplaceAll(info, []byte(`"version":"`+v+`"`))
	}
}

// cut breaks all connections and takes no new ones until mend is called.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = false
	for l := range p.links {
		l.close()
	}
}

// drop breaks all connections; the client may connect again at once.
func (p *proxy) drop() {
	p.cut()
	p.mend()
}

func (p *proxy) mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = true
}

// hold lets everything that the client sends wait until release is called.
func (p *proxy) hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gate == nil {
		p.gate = make(chan struct{})
	}
}

// wait returns when nothing is held any more.
func (p *proxy) wait() {
	p.mu.Lock()
	gate := p.gate
	p.mu.Unlock()
	if gate != nil {
		<-gate
	}
}

func (p *proxy) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gate != nil {
		close(p.gate)
		p.gate = nil
	}
}

// on arms a rule.
func (p *proxy) on(r *rule) *rule {
	r.fired = make(chan *frame, 1)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules = append(p.rules, r)
	return r
}

// judge finds the rule that chooses a frame; nil: none.
func (p *proxy) judge(f *frame) *rule {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, r := range p.rules {
		if !r.match(f) {
			continue
		}
		if r.skip > 0 {
			r.skip--
			continue
		}
		p.rules = append(p.rules[:i:i], p.rules[i+1:]...)
		return r
	}
	return nil
}

// A link is one client's connection.
type link struct {
	p              *proxy
	client, server net.Conn

	mu    sync.Mutex               // guards what follows, and writing to the client
	subs  map[string]string        // subject: the id of the subscription
	muted map[string]chan struct{} // answers that do not arrive: closed when they would
	deaf  bool                     // the client gets nothing any more
	pings int                      // of the client's, unanswered
	pong  chan struct{}            // closed when the proxy's own ping has been answered
	asked bool                     // the proxy has sent it
}

func (l *link) close() {
	l.client.Close()
	l.server.Close()
}

func (l *link) gone() {
	l.close()
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	delete(l.p.links, l)
}

func (l *link) toServer() {
	defer l.gone()
	r := bufio.NewReaderSize(l.client, 64<<10)
	for {
		f, err := readFrame(r, true)
		if err != nil {
			return
		}
		l.p.wait()
		l.mu.Lock()
		switch f.op {
		case "SUB":
			l.subs[f.args[0]] = f.args[len(f.args)-1]
		case "PING":
			l.pings++
		}
		l.mu.Unlock()
		rule := l.p.judge(f)
		if rule == nil {
			if _, err := l.server.Write(f.raw); err != nil {
				return
			}
			continue
		}
		if rule.act == pause {
			l.p.hold()
			rule.fired <- f
		}
		on := l.act(rule, f)
		if !on {
			l.end(rule.dies)
		}
		if rule.act != pause {
			rule.fired <- f
		}
		if !on {
			return
		}
	}
}

// end breaks the connection, for good where the process dies.
func (l *link) end(dies bool) {
	if dies {
		l.p.cut()
	}
	l.close()
}

// act does what the rule says and reports whether the connection goes on.
func (l *link) act(r *rule, f *frame) bool {
	switch r.act {
	case cutBefore:
		return false
	case cutAfter:
		l.mu.Lock()
		l.deaf = true
		answered := l.mute(f.reply)
		l.asked = true
		l.mu.Unlock()
		_, err := l.server.Write(append(bytes.Clone(f.raw), "PING\r\n"...))
		if err == nil {
			l.await(l.pong)
			if f.reply != "" {
				l.await(answered)
			}
		}
		return false
	case mute:
		l.mu.Lock()
		l.mute(f.reply)
		l.mu.Unlock()
		_, err := l.server.Write(f.raw)
		return err == nil
	case refuse:
		if f.reply != "" {
			l.answer(f.reply,
				`{"type":"io.nats.jetstream.api.v1.error_response","stream":"AGENT_EVENTS",`+
					`"error":{"code":503,"err_code":10008,"description":"JetStream system `+
					`temporarily unavailable"}}`)
		}
		return true
	case swallow:
		return true
	case delay, pause:
		time.Sleep(r.wait)
		l.p.wait()
		_, err := l.server.Write(f.raw)
		return err == nil
	}
	panic(r.act)
}

func (l *link) await(c chan struct{}) {
	select {
	case <-c:
	case <-time.After(5 * time.Second):
		l.p.tb.Error(
			"the server does not answer the message after which the connection was to break")
	}
}

// mute lets an answer not arrive. mu is held.
func (l *link) mute(reply string) chan struct{} {
	c := make(chan struct{})
	if reply != "" {
		l.muted[reply] = c
	}
	return c
}

// answer sends the client an answer of the proxy's own.
func (l *link) answer(reply, body string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	id := l.subs[reply]
	if i := strings.LastIndexByte(reply, '.'); id == "" && i > 0 {
		id = l.subs[reply[:i]+".*"]
	}
	fmt.Fprintf(l.client, "MSG %s %s %d\r\n%s\r\n", reply, id, len(body), body)
}

func (l *link) toClient() {
	defer l.gone()
	r := bufio.NewReaderSize(l.server, 64<<10)
	for {
		f, err := readFrame(r, false)
		if err != nil {
			return
		}
		if !l.pass(f) {
			continue
		}
		if change := l.p.changeInfo(); f.op == "INFO" && change != nil {
			f.raw = change(f.raw)
		}
		// of what comes from the server only deliveries are chosen, and cut
		if rule := l.p.judge(f); rule != nil {
			if rule.act == cutAfter {
				l.write(f.raw)
			}
			l.end(rule.dies)
			rule.fired <- f
			return
		}
		if l.write(f.raw) != nil {
			return
		}
	}
}

func (l *link) write(raw []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := l.client.Write(raw)
	return err
}

// pass reports whether the client gets the frame.
func (l *link) pass(f *frame) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f.op == "PONG" {
		if l.pings > 0 {
			l.pings--
		} else if l.asked {
			close(l.pong)
			l.asked = false
			return false
		}
	}
	if c, ok := l.muted[f.subject]; ok && f.isMsg() {
		close(c)
		delete(l.muted, f.subject)
		return false
	}
	return !l.deaf
}
