package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/rollcall-events/rollcall/internal/engine"
	"github.com/rollcall-events/rollcall/internal/natsdial"
	"github.com/rollcall-events/rollcall/internal/test/natstest"
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
		{"a closed connection", fails, at(fmt.Errorf("commit: %w", nats.ErrConnectionClosed)),
			fails, nil},
		{"one that nobody explains", nil, at(nats.ErrConnectionClosed), nats.ErrConnectionClosed,
			nil},
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

// A server that is reached again, and then refuses, is told with what to do about it, and how often
// is bounded; so is one beside another that is not reached.
func TestRefusedAgain(t *testing.T) {
	t.Parallel()
	certFile, keyFile := pair(t)
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, others := range []string{"", ",nats://127.0.0.1:1"} {
		at, stop := natstest.Start(t, "")
		lines := make(logLines, 100)
		log := slog.New(slog.NewTextHandler(lines, nil))
		nc, err := natsdial.At(at+others).Connect(t.Context(), connectOptions(&settings{}, log)...)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		stop()
		port, err := strconv.Atoi(at[strings.LastIndexByte(at, ':')+1:])
		if err != nil {
			t.Fatal(err)
		}
		natstest.StartOptions(t, &server.Options{
			Port: port, TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}},
		})
		await := func(want string) {
			t.Helper()
			for deadline := time.After(30 * time.Second); ; {
				select {
				case line := <-lines:
					if strings.Contains(line, want) {
						return
					}
				case <-deadline:
					t.Fatalf("it is not told that %s", want)
				}
			}
		}
		await("ROLLCALL_NATS_CA_FILE has to hold the CA")
		tries := nc.Stats().Reconnects
		for nc.Stats().Reconnects < tries+4 {
			time.Sleep(50 * time.Millisecond)
		}
		for told := len(lines); told > 0; told-- {
			if line := <-lines; strings.Contains(line, "has to hold the CA") {
				t.Errorf("it is told at every try: %s", line)
			}
		}
	}
}

// logLines gets the lines of a log.
type logLines chan string

// Write implements io.Writer.
func (l logLines) Write(line []byte) (int, error) {
	select {
	case l <- string(line):
	default:
	}
	return len(line), nil
}
