package tenantsim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"
)

// A Server serves a tenant on the loopback interface.
type Server struct {
	URL string // "http://127.0.0.1:8081", the base URL of both calls

	tenant http.Handler
	ln     net.Listener
}

// Listen takes a port: addr is "127.0.0.1:8081" or ":8081", or with port 0 any that is free. Any
// host but the loopback interface is refused. From then on clients can connect; they are answered
// while Serve runs.
func Listen(addr string, tenant http.Handler) (*Server, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("simulated tenant: listening on %q: %w", addr, err)
	}
	if host == "" || host == "localhost" {
		host = "127.0.0.1"
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return nil, fmt.Errorf(
			"simulated tenant: listening on %q: only the loopback interface is served, as in "+
				"127.0.0.1:8081", addr)
	}
	ln, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, fmt.Errorf("simulated tenant: %w", err)
	}
	return &Server{URL: "http://" + ln.Addr().String(), tenant: tenant, ln: ln}, nil
}

// Serve answers requests until ctx ends, and then returns nil after it has closed the port and all
// connections. It may be called once.
func (s *Server) Serve(ctx context.Context) error {
	srv := &http.Server{
		Handler:           s.tenant,
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          log.New(io.Discard, "", 0), // broken connections are its trade
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(s.ln) }()
	select {
	case err := <-served:
		srv.Close()
		return fmt.Errorf("simulated tenant: serving %s: %w", s.URL, err)
	case <-ctx.Done():
	}
	// Every handler has seen ctx end; a client that does not read is cut off.
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	err := srv.Shutdown(grace)
	if err != nil {
		err = srv.Close()
	}
	<-served
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("simulated tenant: closing %s: %w", s.URL, err)
	}
	return nil
}

// Close closes the port of a Server that is not going to Serve.
func (s *Server) Close() error { return s.ln.Close() }
