package watch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/internal/setting"
	"github.com/rollcall-events/rollcall/schemas"
	"github.com/rollcall-events/rollcall/schemas/follow"
)

// readersDomain is the JetStream domain under which readers in an account of their own can find the
// log, where that account has a JetStream of its own or none.
const readersDomain = "rollcall"

// patience is how long an attempt to read the log may take at the start.
const patience = 5 * time.Second

// open finds the way to the log, and the tenants in it.
func open(ctx context.Context, nc *nats.Conn, where string) (jetstream.JetStream, []int64, error) {
	var first error
	for _, domain := range []string{"", readersDomain} {
		js, err := jetstream.New(nc)
		if domain != "" {
			js, err = jetstream.NewWithDomain(nc, domain)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("use JetStream at %s: %w", where, err)
		}
		tenants, err := tenantsOf(ctx, nc, js)
		if err == nil {
			return js, tenants, nil
		}
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		if first == nil {
			first = err
		}
		if !elsewhere(err) { // this is where JetStream is
			first = err
			break
		}
	}
	return nil, nil, hint(first, where)
}

// tenantsOf lists the tenants. That a request is not permitted comes as an error of the connection:
// nobody answers the request.
func tenantsOf(ctx context.Context, nc *nats.Conn, js jetstream.JetStream) ([]int64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	before := nc.ErrorHandler()
	nc.SetErrorHandler(func(nc *nats.Conn, s *nats.Subscription, err error) {
		if errors.Is(err, nats.ErrPermissionViolation) {
			cancel(err)
			return
		}
		if before != nil {
			before(nc, s, err)
		}
	})
	defer nc.SetErrorHandler(before)
	limited, stop := context.WithTimeout(ctx, patience)
	defer stop()
	tenants, err := follow.Tenants(limited, js)
	if cause := context.Cause(ctx); cause != nil && err != nil {
		return nil, cause
	}
	return tenants, err
}

// elsewhere reports whether JetStream may be had under another prefix.
func elsewhere(err error) bool {
	return errors.Is(err, nats.ErrNoResponders) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) ||
		errors.Is(err, nats.ErrPermissionViolation) || errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount)
}

// hint says what an error at the start means and what to do about it.
func hint(err error, where string) error {
	switch {
	case errors.Is(err, nats.ErrPermissionViolation):
		return fmt.Errorf("no permission to read the stream %s at %s: sign in as somebody who may (ROLLCALL_NATS_CREDS_FILE, ROLLCALL_NATS_NKEY_FILE or the user in ROLLCALL_NATS_URL), or see deploy/nats for what a reader needs: %s",
			schemas.Stream, where, oneLine(err))
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return fmt.Errorf("there is no stream %s at %s: rollcall makes it when it has its first token from the vendor: start it, or see its log and rollcall check, or set ROLLCALL_NATS_URL to where it publishes",
			schemas.Stream, where)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		return fmt.Errorf("JetStream at %s does not answer within %v: try again when its servers have a leader, or look at their logs", where, patience)
	case elsewhere(err):
		return fmt.Errorf("there is no JetStream at %s for this user: enable it on the server, sign in to the account that has the stream %s, or set ROLLCALL_NATS_URL to where rollcall publishes",
			where, schemas.Stream)
	}
	return fmt.Errorf("read the stream %s at %s: %s", schemas.Stream, where, oneLine(err))
}

// oneLine is an error's text as part of a line.
func oneLine(err error) string { return clean(strings.TrimSpace(err.Error())) }

// tenant decides which tenant is watched; 0: none of those that could be is in the log yet.
func tenant(asked int64, known []int64) (int64, error) {
	var names []string
	for _, t := range known {
		names = append(names, strconv.FormatInt(t, 10))
	}
	switch {
	case len(known) == 0:
		return 0, nil
	case asked != 0 && !slices.Contains(known, asked):
		return 0, &setting.Error{Field: "--tenant", Value: strconv.FormatInt(asked, 10), Want: "a tenant of the log, which has " + strings.Join(names, ", ")}
	case asked == 0 && len(known) > 1:
		return 0, &setting.Error{Field: "--tenant", Want: "one of " + strings.Join(names, ", ") + ", since the log has several tenants"}
	case asked == 0:
		return known[0], nil
	}
	return asked, nil
}
