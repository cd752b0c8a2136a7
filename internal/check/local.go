package check

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/rollcall-events/rollcall/internal/natsd"
	"github.com/rollcall-events/rollcall/internal/natsdial"
	"github.com/rollcall-events/rollcall/internal/ops"
	"github.com/rollcall-events/rollcall/internal/setting"
)

// data looks at the embedded server's directory.
func (s *state) data(context.Context) {
	found, err := natsd.Look(s.Embedded)
	if bad := new(setting.Error); errors.As(err, &bad) {
		s.result(Result{Level: Failure, Setting: true,
			Text: fmt.Sprintf("%s can't be used: want %s", bad.Value, bad.Want),
			Do:   "set {DataDir} to a directory on a disk that stays, or make this one writable"})
		return
	}
	if err != nil {
		s.fail(err.Error(), "")
		return
	}
	dir, most := s.Embedded.DataDir, s.Embedded.MaxBytes
	if found.Full != nil {
		s.fail(found.Full.Error(), "rollcall goes on by itself when there is room")
	}
	if found.InUse {
		s.ok(dir + " is in use by a running rollcall")
		s.running = true
		return
	}
	text := dir + " is writable"
	if found.Missing {
		text = dir + " is not there yet and can be created"
	}
	if found.Room >= 0 {
		text += ", with room for " + bytesText(found.Room)
		if found.Room < most {
			s.warn(text+", and the stream may take "+bytesText(most),
				"a full disk can tear a commit: make room, or lower {MaxBytes} for a new stream")
			return
		}
	}
	s.ok(text)
}

// embedded looks at the embedded server: connects as a reader where it runs, or else sees that its
// port is free.
func (s *state) embedded(ctx context.Context) {
	listen := s.Embedded.Listen
	start := time.Now()
	err := s.open(ctx, natsdial.At("nats://"+Reach(listen)))
	switch {
	case err == nil && s.running && s.nc.ConnectedServerName() == natsd.ServerName:
		s.server(ctx, start)
		return
	case err == nil:
		s.stop()
		what := "another NATS server"
		if s.nc.ConnectedServerName() == natsd.ServerName {
			what = "the embedded server of a rollcall with another data directory"
		}
		s.fail(what+" listens on "+listen,
			"set {Listen} to a free address, or {URLs}=nats://"+Reach(listen)+" to use that server")
		return
	case s.running:
		s.fail("a rollcall uses the data directory, and none listens on "+listen,
			"stop that one, or set {Listen} as it has it")
		return
	}
	s.stop()
	if err := free(ctx, listen); err != nil {
		s.taken(listen, "Listen", err)
		return
	}
	s.ok("the embedded server is not running; rollcall starts it on " + listen)
}

// listen sees whether the daemon's pages have their ports.
func (s *state) listen(ctx context.Context) {
	if len(s.Listens) == 0 {
		s.ok(setting.Text("no pages: {HTTPListen} is off"))
	}
	for _, l := range s.Listens {
		by := setting.Text(" ({" + l.Field + "})")
		err := free(ctx, l.Addr)
		if err == nil {
			s.ok(l.Addr + " is free" + by)
			continue
		}
		r, dead := readiness(ctx, l.Addr)
		switch text := l.Addr + " is served by a running rollcall" + by; {
		case dead != nil || !errors.Is(err, syscall.EADDRINUSE):
			s.taken(l.Addr, l.Field, err)
		case r.Commits != nil && !r.Commits.OK:
			s.fail(text+", which can't commit", r.Commits.Problem)
		case !r.NATS.OK && s.nc != nil:
			s.warn(text+", which has no connection to NATS, though this check has one",
				"it tries again by itself, with what the settings' files hold now; where it stays "+
					"so, "+
					"its environment is another one, or it has not noticed: see its log")
		default:
			s.ok(text)
		}
	}
}

// taken reports an address that can't be listened on. field is the setting that names it.
func (s *state) taken(addr, field string, err error) {
	set := "set {" + field + "} to "
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		s.fail(addr+" is in use by something else",
			set+"a free address, or stop what uses this one")
	case errors.Is(err, syscall.EACCES):
		s.fail("this user may not listen on "+addr, set+"a port above 1023")
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		s.fail(addr+" is no address of this machine", set+"one that is, or to 127.0.0.1:…")
	default:
		s.fail(fmt.Sprintf("%s can't be listened on: %v", addr, reason(err)), set+"another address")
	}
}

// free says whether one can listen on the address, by doing it for an instant.
func free(ctx context.Context, addr string) error {
	if host, port, err := net.SplitHostPort(addr); err == nil && strings.Trim(port, "0") == "" {
		addr = net.JoinHostPort(host, "0") // any port
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return ln.Close()
}

// Reach is how to reach on this machine what listens on the address.
func Reach(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// BaseURL is where the pages of a daemon on this machine are that listens on the address.
func BaseURL(listen string) string { return "http://" + Reach(listen) }

// readiness asks the rollcall that listens there; the error says that none does.
func readiness(ctx context.Context, addr string) (ops.Readiness, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return ops.Ready(ctx, BaseURL(addr))
}
