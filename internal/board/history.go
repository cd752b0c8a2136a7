package board

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/schemas"
)

const (
	maxHistory     = 50   // events of an agent that are shown
	maxRead        = 1000 // events that are read for that
	maxTries       = 20   // to find out since when there are not more than that
	historyTimeout = 5 * time.Second
)

// ofAgent answers with what read finds out about the agent that the path names.
func (b *Board) ofAgent(read func(context.Context, int64) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
		if err != nil || strconv.FormatInt(id, 10) != r.PathValue("id") {
			http.NotFound(w, r)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), historyTimeout)
		defer cancel()
		select {
		case b.reading <- struct{}{}:
			defer func() { <-b.reading }()
		case <-ctx.Done():
			http.Error(w, "too many histories are being read", http.StatusServiceUnavailable)
			return
		}
		answer, err := read(ctx, id)
		if err != nil {
			if r.Context().Err() == nil {
				b.cfg.Logger.Warn("an agent's history can't be read", "agent", id, "err", err)
			}
			http.Error(w, "the stream can't be read at the moment", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(mustEncode(answer)) // an error means that the browser has left
	}
}

// history is an agent's latest events, the newest first.
func (b *Board) history(ctx context.Context, id int64) (any, error) {
	events, err := b.past(ctx, id)
	if err != nil {
		return nil, err
	}
	answer := struct {
		Events []json.RawMessage `json:"events"`
		More   bool              `json:"more"` // there were older ones
	}{Events: []json.RawMessage{}}
	var before begun
	for _, e := range events {
		answer.Events = append(answer.Events,
			encodeEvent(e, before, e.Data.Changes, b.cfg.Quiet))
		before = before.after(e)
	}
	answer.Events = answer.Events[max(0, len(events)-maxHistory):]
	slices.Reverse(answer.Events)
	if n := len(answer.Events); n > 0 {
		answer.More = events[len(events)-n].Data.Revision > 1
	}
	return answer, nil
}

// past reads the latest events of an agent, the oldest first.
func (b *Board) past(ctx context.Context, id int64) ([]*schemas.Event, error) {
	cfg := jetstream.ConsumerConfig{
		FilterSubject: schemas.AgentEventFilter(b.cfg.Tenant, id),
		AckPolicy:     jetstream.AckNonePolicy, MemoryStorage: true, Replicas: 1,
		InactiveThreshold: 5 * time.Second, // to delete it would take another right
	}
	var consumer jetstream.Consumer
	var pending uint64
	create := func() (err error) {
		if consumer, err = b.cfg.JetStream.CreateConsumer(ctx, schemas.Stream, cfg); err == nil {
			pending = consumer.CachedInfo().NumPending
		}
		return err
	}
	if err := create(); err != nil {
		return nil, err
	}
	// A consumer can't begin a number of messages before the end. So where there are many, look for
	// how long ago it has to begin.
	now, few, many := time.Now(), time.Duration(0), time.Duration(0)
	for range maxTries {
		if pending <= maxRead && (pending >= maxHistory || cfg.OptStartTime == nil) {
			break
		}
		back := (few + many) / 2
		if many == 0 {
			back = max(5*time.Minute, 4*few)
		}
		since := now.Add(-back)
		cfg.DeliverPolicy, cfg.OptStartTime = jetstream.DeliverByStartTimePolicy, &since
		if err := create(); err != nil {
			return nil, err
		}
		if pending < maxHistory {
			few = back
		} else {
			many = back
		}
	}
	if pending == 0 {
		return nil, nil
	}
	batch, err := consumer.Fetch(int(min(pending, maxRead)), jetstream.FetchContext(ctx))
	if err != nil {
		return nil, err
	}
	var events []*schemas.Event
	for m := range batch.Messages() {
		e := new(schemas.Event)
		if err := json.Unmarshal(m.Data(), e); err == nil && e.Data.Agent.AgentID == id {
			events = append(events, e) // Run logs what can't be read
		}
		if meta, err := m.Metadata(); err == nil && meta.NumPending == 0 {
			break
		}
	}
	if err := batch.Error(); err != nil && !errors.Is(err, jetstream.ErrNoMessages) {
		return nil, err
	}
	return events, nil
}
