// Routing is a small routing engine: it gives video calls to agents that are on duty, as rollcall's
// stream says. With go run ./cmd/rollcall demo in one terminal:
//
//	go run ./examples/routing
//
// and in another:
//
//	curl 127.0.0.1:8090/agents
//	curl -X PUT 127.0.0.1:8090/calls/room-1
//	curl -X DELETE 127.0.0.1:8090/calls/room-1
//
// The caller names the call, so a caller without an answer can ask again and gets the same agent.
// An agent gets as many calls at a time as its capacity; the least loaded one is next. When
// rollcall's picture is stale the answer is 503: nobody knows who is on duty, so do what you do
// without rollcall. Health "holding" or "failing" is only passed on: the picture is still the best
// there is until it is stale.
//
// Who is on duty is read from the stream at every start. The calls are kept in a file, which a
// crash leaves whole.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/rollcall-events/rollcall/schemas/follow"
)

func main() {
	url := os.Getenv("NATS_URL")
	if url == "" {
		url = nats.DefaultURL
	}
	natsURL := flag.String("nats", url,
		"the NATS servers that rollcall publishes to, separated by commas; default: NATS_URL")
	tenant := flag.Int64("tenant", 886, "whose agents")
	listen := flag.String("listen", "127.0.0.1:8090", "where to answer")
	file := flag.String("calls", "routing-calls.json", "the file to keep the calls in")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *natsURL, *tenant, *listen, *file); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, natsURL string, tenant int64, listen, file string) error {
	router, err := newRouter(follow.New(tenant), file)
	if err != nil {
		return err
	}
	// A server that can't be reached now is tried again, for ever.
	nc, err := nats.Connect(natsURL, nats.Name("routing example"),
		nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(time.Second))
	if err != nil {
		return fmt.Errorf("connect to NATS: %w", err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("use JetStream: %w", err)
	}
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("answer at %s: %w", listen, err)
	}
	server := &http.Server{Handler: router, ReadHeaderTimeout: 5 * time.Second}
	log.Printf("answering at http://%s", ln.Addr())

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := router.roster.Run(ctx, js, logUpdate); !errors.Is(err, context.Canceled) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		return server.Shutdown(last)
	})
	return group.Wait()
}

// logUpdate logs what an operator wants to know. The changes are in the roster already.
func logUpdate(u follow.Update) {
	switch {
	case u.Err != nil:
		log.Print(u.Err)
	case u.Anew:
		log.Print("all states have been read")
	case u.Health != nil:
		log.Printf("health: %s %s %s", u.Health.State, u.Health.Reason, u.Health.Detail)
	}
}
