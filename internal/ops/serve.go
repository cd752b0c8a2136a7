package ops

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/rollcall-events/rollcall/internal/setting"
)

// ErrInUse says that something else listens on an address.
var ErrInUse = errors.New("the address is in use")

// shutdownTimeout is how long answers that are under way at the end may take.
const shutdownTimeout = time.Second

// Listen opens the address, host:port, that the variable of that name holds. Its error is
// [ErrInUse], which may pass, or a [*setting.Error] where waiting does not help. instead ends the
// sentence "set … to a free address".
func Listen(variable, addr, instead string) (net.Listener, error) {
	ln, err := net.Listen("tcp", addr)
	if err == nil {
		return ln, nil
	}
	want := func(want string) error {
		return &setting.Error{Field: variable, Value: addr, Want: want}
	}
	var dns *net.DNSError
	var op *net.OpError
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s: can't listen on %s: %w: stop what uses it, "+
			"or set %s to a free address%s", variable, addr, ErrInUse, variable, instead)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, want("an address of this machine (it has none like that)")
	case errors.Is(err, syscall.EACCES):
		return nil, want("a port that this user may listen on, such as one above 1023")
	case errors.As(err, &dns):
		return nil, want("the name or the address of this machine (the name can't be resolved)")
	case errors.As(err, &op):
		err = op.Err // without the address, which is in the text already
	}
	return nil, fmt.Errorf("%s: can't listen on %s: %w", variable, addr, err)
}

// OnLoopback reports whether only this machine can reach the listener.
func OnLoopback(ln net.Listener) bool {
	addr, ok := ln.Addr().(*net.TCPAddr)
	return ok && addr.IP.IsLoopback()
}

// Serve serves the handler on ln until ctx ends, and closes it. Answers that are under way then get
// another second. The handlers limit how long an answer takes.
func Serve(ctx context.Context, ln net.Listener, h http.Handler, log *slog.Logger) error {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		IdleTimeout:       2 * time.Minute, // longer than most scrapers wait
		MaxHeaderBytes:    16 << 10,
		// Most of its lines are about clients that have left.
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(ln) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve on %s: %w", ln.Addr(), err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if srv.Shutdown(grace) != nil {
		_ = srv.Close()
	}
	<-ended
	return nil
}
