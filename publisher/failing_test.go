package publisher

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/internal/test/metrictest"
	"github.com/rollcall-events/rollcall/internal/test/natstest"
	"github.com/rollcall-events/rollcall/schemas"
)

// failing is what the publisher says and what its gauge says, which have to agree.
func failing(t *testing.T, p *Publisher, gauge func() float64) (time.Time, error) {
	t.Helper()
	since, err := p.Failing()
	if since.IsZero() != (err == nil) || since.IsZero() != (gauge() == 0) {
		t.Errorf("since %v, err %v, gauge %v", since, err, gauge())
	}
	return since, err
}

// A commit that a full stream refuses fails from its first try on until it is in the stream.
func TestFailing(t *testing.T) {
	url, _ := natstest.Start(t, "")
	nc := natstest.Connect(t, url)
	p, reg := counting(t, nc)
	gauge := func() float64 {
		return metrictest.Gather(t, reg)["rollcall_commit_failing_since_timestamp_seconds"]
	}
	commit(t, p, 1, event(1, 1))
	if since, _ := failing(t, p, gauge); !since.IsZero() {
		t.Fatalf("it fails since %v", since)
	}

	stream, err := p.js.Stream(t.Context(), schemas.Stream)
	if err != nil {
		t.Fatal(err)
	}
	resize := func(bytes int64) {
		t.Helper()
		cfg := stream.CachedInfo().Config
		cfg.MaxBytes = bytes
		if _, err := p.js.UpdateStream(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
	}
	resize(10)
	before := time.Now()
	done := make(chan error, 1)
	go func() {
		done <- p.Commit(t.Context(), Batch{Events: []schemas.Event{event(1, 2)},
			Watermark: complete(2)})
	}()
	var first time.Time
	for first.IsZero() {
		first, _ = p.Failing()
		time.Sleep(time.Millisecond)
	}
	for metrictest.Gather(t, reg)["rollcall_commit_retries_total"] < 3 {
		time.Sleep(time.Millisecond)
	}
	since, err := failing(t, p, gauge)
	if since != first || since.Before(before) {
		t.Errorf("it fails since %v, then %v; the commit began after %v", first, since, before)
	}
	if err == nil || !strings.Contains(err.Error(), "--max-bytes") {
		t.Errorf("what to do is not said: %v", err)
	}
	resize(1 << 30)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if since, _ := failing(t, p, gauge); !since.IsZero() {
		t.Errorf("it fails since %v", since)
	}

	// What is refused for good fails until something gets through; what nobody waits for any more
	// does not.
	other, _ := counting(t, natstest.Connect(t, url))
	commit(t, other, 3)
	for range 2 {
		err := p.Commit(t.Context(), Batch{Events: []schemas.Event{event(1, 3)}})
		if !errors.Is(err, ErrSuperseded) {
			t.Fatal(err)
		}
	}
	if since, err := failing(t, p, gauge); since.IsZero() || !errors.Is(err, ErrSuperseded) {
		t.Errorf("refused twice: since %v, %v", since, err)
	}
	r, err := p.recover(t.Context(), func(*packed.State) {})
	if err != nil {
		t.Fatal(err)
	}
	if since, _ := failing(t, p, gauge); since.IsZero() {
		t.Error("a look at the stream counts as a commit")
	}
	if err := p.shutOut(t.Context(), r, Batch{}); err != nil {
		t.Fatal(err)
	}
	if since, _ := failing(t, p, gauge); !since.IsZero() {
		t.Errorf("it fails since %v", since)
	}
}

// Who leads no longer has no trouble with commits.
func TestFailingEndsWithLead(t *testing.T) {
	url, _ := natstest.Start(t, "")
	p, reg := counting(t, natstest.Connect(t, url))
	err := p.Lead(t.Context(), func(context.Context) error {
		p.fails(time.Now(), errors.New("no answer"))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	failing(t, p, func() float64 {
		return metrictest.Gather(t, reg)["rollcall_commit_failing_since_timestamp_seconds"]
	})
	if since, _ := p.Failing(); !since.IsZero() {
		t.Errorf("it fails since %v", since)
	}
}

func TestAdvice(t *testing.T) {
	url, _ := natstest.Start(t, "")
	nc := natstest.Connect(t, url)
	for _, c := range []struct {
		err   error
		embed bool
		want  string // empty: nothing to add
	}{
		{&jetstream.APIError{ErrorCode: 10077}, false, "--max-bytes"},
		{&jetstream.APIError{ErrorCode: 10077}, true, "docs/operations.md"},
		{&jetstream.APIError{ErrorCode: 10002}, false, "limit of the account"},
		{&jetstream.APIError{ErrorCode: 10023}, false, "limit of the account"},
		{&jetstream.APIError{ErrorCode: 10047}, false, "limit of the account"},
		{&jetstream.APIError{ErrorCode: 10008}, false, "only after a restart"},
		{&jetstream.APIError{ErrorCode: 10176}, true, "DataDir"},
		{context.DeadlineExceeded, true, "DataDir"},
		{context.DeadlineExceeded, false, "only after a restart"},
		{nats.ErrNoResponders, false, "only after a restart"},
		{&jetstream.APIError{ErrorCode: 10071}, false, ""},
		{fmt.Errorf("%w: it moved: %w", ErrSuperseded, context.DeadlineExceeded), false, ""},
		{errors.New("other"), false, ""},
	} {
		p := &writer{Reader: NewReader(nc, Config{Exclusive: c.embed})}
		got := p.advise(fmt.Errorf("tried: %w", c.err))
		if !errors.Is(got, c.err) || !strings.Contains(got.Error(), c.want) ||
			c.want == "" && got.Error() != "tried: "+c.err.Error() {
			t.Errorf("%v: %v", c.err, got)
		}
	}
}
