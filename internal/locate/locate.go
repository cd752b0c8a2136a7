// Package locate finds the stream and its tenants for commands that read it.
package locate

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/internal/plain"
	"github.com/rollcall-events/rollcall/internal/setting"
	"github.com/rollcall-events/rollcall/schemas"
	"github.com/rollcall-events/rollcall/schemas/follow"
	"github.com/rollcall-events/rollcall/schemas/history"
)

const (
	// readersDomain is the JetStream domain under which readers in an account of their own can find
	// the stream, where that account has a JetStream of its own or none.
	readersDomain = "rollcall"
	// openTimeout is how long one attempt to read the stream may take.
	openTimeout = 5 * time.Second
)

// Tenants returns the JetStream that has the stream, and the tenants in it.
func Tenants(ctx context.Context, nc *nats.Conn) (jetstream.JetStream, []int64, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, nil, err
	}
	tenants, err := tenantsOf(ctx, nc, js)
	own := errors.Is(err, jetstream.ErrStreamNotFound) // the account has a JetStream of its own
	if !own && !NoJetStream(err) {
		return js, tenants, err
	}
	imported, importedErr := jetstream.NewWithDomain(nc, readersDomain)
	if importedErr != nil {
		return nil, nil, importedErr
	}
	tenants, importedErr = tenantsOf(ctx, nc, imported)
	switch {
	case NoJetStream(importedErr) && own:
		return js, nil, err
	case NoJetStream(importedErr):
		return nil, nil, err
	}
	return imported, tenants, importedErr
}

// tenantsOf lists the tenants. A request that is not permitted shows as an error of the connection
// only: nobody answers it.
func tenantsOf(ctx context.Context, nc *nats.Conn, js jetstream.JetStream) ([]int64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	before := nc.ErrorHandler()
	nc.SetErrorHandler(func(nc *nats.Conn, s *nats.Subscription, err error) {
		if errors.Is(err, nats.ErrPermissionViolation) {
			cancel(err)
		} else if before != nil {
			before(nc, s, err)
		}
	})
	defer nc.SetErrorHandler(before)
	limited, stop := context.WithTimeout(ctx, openTimeout)
	defer stop()
	tenants, err := follow.Tenants(limited, js)
	if cause := context.Cause(ctx); cause != nil && err != nil {
		return nil, cause
	}
	return tenants, err
}

// NoJetStream reports whether JetStream may be found under another prefix.
func NoJetStream(err error) bool {
	return slices.ContainsFunc([]error{
		context.DeadlineExceeded, nats.ErrTimeout, nats.ErrNoResponders,
		nats.ErrPermissionViolation, jetstream.ErrJetStreamNotEnabled,
		jetstream.ErrJetStreamNotEnabledForAccount,
	}, func(target error) bool { return errors.Is(err, target) })
}

// Explain says in one line why the stream can't be read at the start, and what to do.
func Explain(err error, server string) error {
	what, todo := "can't read the stream "+schemas.Stream, ": "+OneLine(err)
	switch {
	case errors.Is(err, nats.ErrPermissionViolation):
		what = "no permission to read the stream " + schemas.Stream
		todo = setting.Text(": sign in as somebody who may ({CredsFile}, {NKeyFile} or the user "+
			"in {URLs}), or see deploy/nats for what a reader needs") + todo
	case errors.Is(err, jetstream.ErrStreamNotFound):
		what = "there is no stream " + schemas.Stream
		todo = setting.Text(": rollcall makes it when it has its first token from the vendor: " +
			"start it, or see its log and rollcall check, or set {URLs} to where it publishes")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		what = "no answer from JetStream"
		todo = " within " + openTimeout.String() +
			": try again when its servers have a leader, or look at their logs"
	case NoJetStream(err):
		what = "there is no JetStream"
		todo = setting.Text(" for this user: enable it on the server, sign in to the account " +
			"that has the stream " + schemas.Stream + ", or set {URLs} to where rollcall publishes")
	}
	return errors.New(what + " at " + server + todo)
}

// OneLine is an error's text as part of a line.
func OneLine(err error) string { return plain.Clean(strings.TrimSpace(err.Error())) }

// Choose decides which of the stream's tenants is meant: the one that was asked for, or without
// that (0) the only one. tenants are not empty.
func Choose(asked int64, tenants []int64) (int64, error) {
	var names []string
	for _, t := range tenants {
		names = append(names, strconv.FormatInt(t, 10))
	}
	list := strings.Join(names, ", ")
	switch {
	case asked != 0 && !slices.Contains(tenants, asked):
		return 0, &setting.Error{Field: "--tenant", Value: strconv.FormatInt(asked, 10),
			Want: "a tenant of the stream, which has " + list}
	case asked != 0:
		return asked, nil
	case len(tenants) > 1:
		return 0, &setting.Error{Field: "--tenant",
			Want: "one of " + list + ", since the stream has several tenants"}
	}
	return tenants[0], nil
}

// Archive returns the JetStream that has a stream of the name, and the tenants in it.
func Archive(ctx context.Context, nc *nats.Conn, name string) (
	jetstream.JetStream, []int64, error,
) {
	own, err := jetstream.New(nc)
	if err != nil {
		return nil, nil, err
	}
	imported, err := jetstream.NewWithDomain(nc, readersDomain)
	if err != nil {
		return nil, nil, err
	}
	var errs []error
	for _, js := range []jetstream.JetStream{own, imported} {
		limited, stop := context.WithTimeout(ctx, openTimeout)
		tenants, err := history.Tenants(limited, js, history.FromStream(name))
		stop()
		if err == nil || ctx.Err() != nil {
			return js, tenants, err
		}
		errs = append(errs, err)
	}
	for _, err := range errs {
		if errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, nats.ErrNoResponders) {
			return nil, nil, &setting.Error{Field: "--stream", Value: name,
				Want: "an archive that exists, and that this user may read"}
		}
	}
	return nil, nil, errs[0]
}
