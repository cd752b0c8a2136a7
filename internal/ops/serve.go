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

// shutdownTimeout is how long answers that are under way at the end may still take.
const shutdownTimeout = time.Second

// Listen opens the address, host:port, that the variable of that name holds. Its error names both,
// and says what to do: it is [ErrInUse], which may pass, or a [*setting.Error] where no waiting
// helps. instead ends the sentence "set … to a free address".
func Listen(variable, addr, instead string) (net.Listener, error) {
	ln, err := net.Listen("tcp", addr)
	if err == nil {
		return ln, nil
	}
	var dns *net.DNSError
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s: can't listen on %s: %w: stop what uses it, or set %s to a free address%s", variable, addr, ErrInUse, variable, instead)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, &setting.Error{Field: variable, Value: addr, Want: "an address of this machine (it has none like that)"}
	case errors.Is(err, syscall.EACCES):
		return nil, &setting.Error{Field: variable, Value: addr, Want: "a port that this user may listen on, such as one above 1023"}
	case errors.As(err, &dns):
		return nil, &setting.Error{Field: variable, Value: addr, Want: "the name or the address of this machine (the name can't be resolved)"}
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err // without the address, which is told already
	}
	return nil, fmt.Errorf("%s: can't listen on %s: %w", variable, addr, err)
}

// OnLoopback reports whether nobody but this machine can reach the listener.
func OnLoopback(ln net.Listener) bool {
	addr, ok := ln.Addr().(*net.TCPAddr)
	return ok && addr.IP.IsLoopback()
}

// Serve serves the handler on ln, which it closes, until ctx ends; answers that are under way then
// get a second. The server sets no limit on how long an answer takes: its handlers do.
func Serve(ctx context.Context, ln net.Listener, h http.Handler, log *slog.Logger) error {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		IdleTimeout:       2 * time.Minute, // longer than most scrapers wait
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug), // mostly of clients that went away
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
		_ = srv.Close() // whoever is still there has had their second
	}
	<-ended
	return nil
}
