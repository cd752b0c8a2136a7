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
//
// To sign in: a user and a password in the URL, -creds, -nkey, -tlsca, -tlscert and -tlskey, or
// -context with a context of the nats command line. -js-domain rollcall is for an account that has
// JetStream of its own.
package main

import (
	"cmp"
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

	"golang.org/x/sync/errgroup"

	"github.com/rollcall-events/rollcall/examples/signin"
	"github.com/rollcall-events/rollcall/schemas/follow"
)

func main() {
	signIn := signin.Add(flag.CommandLine)
	tenant := flag.Int64("tenant", 886, "whose agents")
	listen := flag.String("listen", "127.0.0.1:8090", "where to answer")
	file := flag.String("calls", "routing-calls.json", "the file to keep the calls in")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, signIn, *tenant, *listen, *file); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, signIn *signin.Flags, tenant int64, listen, file string) error {
	router, err := newRouter(follow.New(tenant), file)
	if err != nil {
		return err
	}
	nc, js, err := signIn.Connect("routing example")
	if err != nil {
		return err
	}
	defer nc.Close()
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("answer at %s: %w", listen, err)
	}
	server := &http.Server{Handler: router, ReadHeaderTimeout: 5 * time.Second}
	log.Printf("answering at http://%s", ln.Addr())

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		err := router.roster.Run(ctx, js, logUpdate)
		if errors.Is(err, context.Canceled) {
			return nil
		}
		return cmp.Or(signin.Ended(nc), err)
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
	case u.Fresh:
		log.Print("the picture is fresh")
	case u.Stale:
		log.Print("the picture is stale: nobody knows who is on duty")
	case u.Health != nil:
		log.Printf("health: %s %s %s", u.Health.State, u.Health.Reason, u.Health.Detail)
	}
}
