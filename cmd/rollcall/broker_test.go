package main

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/rollcall-events/rollcall/internal/engine"
)

// A broker that fails for good ends what runs on it, and its reason comes first; an end of another
// kind is told as it is.
func TestBrokerFails(t *testing.T) {
	fails := errors.New("the server does not end")
	unpublished := &engine.UnpublishedError{Changes: 3}
	until := func(err error) func(context.Context) error {
		return func(ctx context.Context) error { <-ctx.Done(); return err }
	}
	at := func(err error) func(context.Context) error {
		return func(context.Context) error { return err }
	}
	for _, c := range []struct {
		name   string
		failed error
		do     func(context.Context) error
		want   error
		also   error
	}{
		{"all published", fails, until(nil), fails, nil},
		{"not all published", fails, until(unpublished), fails, unpublished},
		{"a closed connection", fails, at(fmt.Errorf("commit: %w", nats.ErrConnectionClosed)), fails, nil},
		{"one that nobody explains", nil, at(nats.ErrConnectionClosed), nats.ErrConnectionClosed, nil},
		{"another end", nil, at(unpublished), unpublished, nil},
		{"a good end", nil, at(nil), nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			failed := make(chan error, 1)
			if c.failed != nil {
				failed <- c.failed
			}
			err := (&broker{failed: failed}).during(t.Context(), c.do)
			if c.want == nil && err != nil || c.want != nil && !errors.Is(err, c.want) ||
				c.also != nil && !errors.Is(err, c.also) {
				t.Errorf("it ended with %v", err)
			}
			if err != nil && exitCode(err, t.Output()) != 1 {
				t.Errorf("exit %d", exitCode(err, t.Output()))
			}
		})
	}
}
