package board

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/schemas"
)

const (
	maxHistory  = 50   // events of an agent that are shown
	mostRead    = 1000 // events that are read for that
	historyWait = 5 * time.Second
)

// history answers with an agent's latest events in the log, the newest first.
func (b *Board) history(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil || strconv.FormatInt(id, 10) != r.PathValue("id") {
		http.NotFound(w, r)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), historyWait)
	defer cancel()
	select {
	case b.reading <- struct{}{}:
		defer func() { <-b.reading }()
	case <-ctx.Done():
		http.Error(w, "too many histories are being read", http.StatusServiceUnavailable)
		return
	}
	events, err := b.past(ctx, id)
	if err != nil {
		if r.Context().Err() == nil {
			b.cfg.Logger.Warn("an agent's history can't be read", "err", err)
		}
		http.Error(w, "the log can't be read at the moment", http.StatusServiceUnavailable)
		return
	}
	answer := struct {
		Events []json.RawMessage `json:"events"`
		More   bool              `json:"more"` // there were older ones
	}{Events: []json.RawMessage{}}
	for _, e := range slices.Backward(events) {
		answer.Events = append(answer.Events, encodeEvent(e, b.cfg.Quiet, false))
		answer.More = e.Data.Revision > 1
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(mustEncode(answer)) // who has left does not want it
}

// past reads the latest events of an agent, the oldest first.
func (b *Board) past(ctx context.Context, id int64) ([]*schemas.Event, error) {
	doing := func(what string, err error) error {
		return fmt.Errorf("board: %s for the events of agent %d in the stream %s: %w", what, id, schemas.Stream, err)
	}
	var consumer jetstream.Consumer
	// A consumer can begin somewhere and not end somewhere, so where there are many events, begin
	// later.
	for _, back := range []time.Duration{0, 24 * time.Hour, time.Hour, 5 * time.Minute} {
		cfg := jetstream.ConsumerConfig{FilterSubject: fmt.Sprintf("agent.*.%d.*.%d", b.cfg.Tenant, id), AckPolicy: jetstream.AckNonePolicy,
			MemoryStorage: true, Replicas: 1, InactiveThreshold: 5 * time.Second} // it need not be deleted, which takes another right
		if back > 0 {
			since := time.Now().Add(-back)
			cfg.DeliverPolicy, cfg.OptStartTime = jetstream.DeliverByStartTimePolicy, &since
		}
		var err error
		if consumer, err = b.cfg.JetStream.CreateConsumer(ctx, schemas.Stream, cfg); err != nil {
			return nil, doing("create a consumer", err)
		}
		if consumer.CachedInfo().NumPending <= mostRead {
			break
		}
	}
	pending := consumer.CachedInfo().NumPending
	if pending == 0 {
		return nil, nil
	}
	batch, err := consumer.Fetch(int(min(pending, mostRead)), jetstream.FetchContext(ctx))
	if err != nil {
		return nil, doing("ask", err)
	}
	var events []*schemas.Event
	for m := range batch.Messages() {
		e := new(schemas.Event)
		if err := json.Unmarshal(m.Data(), e); err == nil && e.Data.Agent.AgentID == id {
			events = append(events, e) // what is none is told by who follows
		}
		if meta, err := m.Metadata(); err == nil && meta.NumPending == 0 {
			break
		}
	}
	if err := batch.Error(); err != nil && !errors.Is(err, jetstream.ErrNoMessages) {
		return nil, doing("read", err)
	}
	return events[max(0, len(events)-maxHistory):], nil
}
