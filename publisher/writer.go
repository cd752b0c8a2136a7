package publisher

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/rollcall-events/rollcall/schemas"
)

// Error codes of the server that decide what becomes of a commit (nats-server,
// jetstream_errors_generated.go). Whatever else it answers, the commit is looked up in the stream
// and, where it is not there, sent again.
const (
	codeBatchDisabled jetstream.ErrorCode = 10174
	codeBatchTooLarge jetstream.ErrorCode = 10199
	codeRollupTwice   jetstream.ErrorCode = 10111
	codeTTLInvalid    jetstream.ErrorCode = 10165
)

const (
	slowest      = 32 << 10              // bytes a second that the way to the server takes at least
	retryFirst   = 50 * time.Millisecond // before a commit is sent again the first time …
	retryLongest = 5 * time.Second       // … and at the most
)

// Batch is what a commit brings.
type Batch struct {
	Events []schemas.Event // in the order of the stream; at most MaxChanges
	Bodies [][]byte        // the events as JSON, where they have been encoded; nil: they have not
	Health *schemas.Health // nil: unchanged

	// Unobserved is the interval that the sweep ends which the watermark completes; nil: none. Its
	// tenant is filled in.
	Unobserved *schemas.Unobserved

	// Watermark is the commit's last message. Its tenant, instance and commit are filled in.
	Watermark schemas.Watermark

	// Lapsed is kept beside the watermark for the next one who reads it (Recovered.Lapsed): a
	// nextBy has passed since the last complete sweep.
	Lapsed bool
}

// tells reports whether the batch itself says that readers could not tell until it came.
func (b *Batch) tells() bool { return b.Unobserved != nil && len(b.Unobserved.Types) == 0 }

// dueHeader of a watermark says by when it was due: the nextBy of the one before it, which it takes
// the place of; or hasPassed, where Batch.Lapsed is true. It is left out where the commit tells of
// it itself. It is for whoever takes over: readers are told by the sweep that ends the interval.
const (
	dueHeader = "Rollcall-Due"
	hasPassed = "passed"
)

// lapsed reports what the header of a watermark says that was stored then.
func lapsed(due string, stored time.Time) bool {
	at, err := time.Parse(schemas.TimeFormat, due)
	return due == hasPassed || err == nil && stored.After(at)
}

// A writer commits what a tenant's stream gets, one commit after another.
type writer struct {
	*Reader
	metrics *metrics
	trouble trouble

	last position  // of the last commit that we know of: what the next one expects
	due  time.Time // its nextBy; zero: not known, or no complete sweep had been
	late bool      // see Late
	gaps []gap     // between our commits, where it is not yet known that only other tenants wrote

	// When the stream was last known to end, for this tenant, with our last commit, and how many
	// reconnects there had been. Once either has moved on, the stream is looked at before the next
	// commit: a server that has lost data may hold somebody else's watermark at the very sequence
	// that we expect.
	checked    time.Time
	reconnects uint64
}

// begin has the next commit expect what was just read of the stream.
func (p *writer) begin(at position, w *schemas.Watermark, reconnects uint64) {
	p.gaps = nil
	p.follows(w)
	p.reconnects = reconnects
	p.advance(at)
}

// follows says which watermark the next one takes the place of; nil: none that can be read.
func (p *writer) follows(w *schemas.Watermark) {
	if p.due = (time.Time{}); w != nil && w.Sweep > 0 {
		p.due = w.NextBy
	}
}

func (p *writer) advance(at position) { p.last, p.checked = at, time.Now() }

// Commit writes the batch, all or nothing, and returns when that is resolved: nil when it is in the
// stream, [ErrTampered] when it is and something else is too, [ErrSuperseded], [ErrTooLarge] or
// [ErrMaxBody] when it is not, a *[SetupError] when the stream can't be written to as it is. While
// the server is away or full it goes on trying until ctx ends; then the commit may or may not be in
// the stream.
func (p *writer) Commit(ctx context.Context, b Batch) error {
	before := p.last.seq
	msgs, id := p.messages(b, nil)
	if err := p.commit(ctx, msgs, id); err != nil {
		return err
	}
	p.arrived(&b)
	// Between two commits of a tenant only other tenants write.
	if first := p.last.seq + 1 - uint64(len(msgs)); first > before+1 {
		p.gaps = append(p.gaps[max(0, len(p.gaps)-maxGaps):], gap{before, first})
	}
	for len(p.gaps) > 0 {
		m, err := p.foreign(ctx, p.gaps[0].above)
		if err != nil {
			p.log.Debug("can't tell whether somebody else has written: "+
				"asking again after the next commit", "err", err)
			return nil
		}
		below := p.gaps[0].below
		p.gaps = p.gaps[1:]
		if m != nil && m.Seq < below {
			return fmt.Errorf("publisher: %w: %s at sequence %d", ErrTampered, m.Subject, m.Seq)
		}
	}
	return nil
}

// arrived says that a commit is in the stream, and expects the next one by its nextBy.
func (p *writer) arrived(b *Batch) {
	p.late = p.late && !b.tells()
	p.follows(&b.Watermark)
}

// Late reports whether the last commit, or the first watermark of a take-over, came into the stream
// only after the nextBy of the watermark before it, and does not say so itself: meanwhile readers
// could not tell. It is not to be called while there is one under way.
func (p *writer) Late() bool { return p.late }

// A gap lies between two commits of the tenant: what is in it others have written.
type gap struct{ above, below uint64 }

// maxGaps is how many gaps are remembered while nobody answers what is in them.
const maxGaps = 100

// messages encodes a batch, with states (by agent) besides those of its events, and returns the
// commit's id. Messages of a kind share their header, to which send adds what tells them apart.
func (p *writer) messages(b Batch, states map[int64][]byte) ([]*nats.Msg, string) {
	msgs := make([]*nats.Msg, 0, 2*len(b.Events)+len(states)+3)
	header := func(contentType, name, value string) nats.Header {
		return nats.Header{"Content-Type": {contentType}, name: {value}}
	}
	add := func(stored string, h nats.Header, body []byte) {
		msgs = append(msgs, &nats.Msg{Subject: publishSubject(stored), Header: h, Data: body})
	}
	const event, other = schemas.ContentTypeEvent, schemas.ContentTypeJSON
	seconds := strconv.FormatInt(int64(p.cfg.EventsMaxAge/time.Second), 10)
	ttl := header(event, jetstream.MsgTTLHeader, seconds)
	rollup := header(event, jetstream.MsgRollup, jetstream.MsgRollupSubject)
	latest := make(map[int64]int, len(b.Events)) // agent: its last event
	for i := range b.Events {
		e := &b.Events[i]
		latest[e.Data.Agent.AgentID] = i
		if b.Bodies == nil {
			add(e.Subject(), ttl, e.AppendJSON(nil))
		} else {
			add(e.Subject(), ttl, b.Bodies[i])
		}
	}
	for i := range b.Events {
		if agent := b.Events[i].Data.Agent.AgentID; latest[agent] == i {
			add(schemas.StateSubject(p.cfg.Tenant, agent), rollup, msgs[i].Data)
		}
	}
	for agent, body := range states {
		add(schemas.StateSubject(p.cfg.Tenant, agent), rollup, body)
	}
	if b.Health != nil {
		h := *b.Health
		h.TenantID = p.cfg.Tenant
		add(schemas.HealthSubject(p.cfg.Tenant),
			header(other, jetstream.MsgRollup, jetstream.MsgRollupSubject), h.AppendJSON(nil))
	}
	if b.Unobserved != nil {
		u := *b.Unobserved
		u.TenantID = p.cfg.Tenant
		add(schemas.UnobservedSubject(p.cfg.Tenant),
			header(other, jetstream.MsgTTLHeader, seconds), u.AppendJSON(nil))
	}
	w := b.Watermark
	w.TenantID, w.Instance = p.cfg.Tenant, p.cfg.Instance
	w.Commit = schemas.Commit{ID: nuid.Next(), Messages: len(msgs) + 1}
	fence := header(other, jetstream.MsgRollup, jetstream.MsgRollupSubject)
	fence.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(p.last.seq, 10))
	switch {
	case b.Lapsed:
		fence.Set(dueHeader, hasPassed)
	case !p.due.IsZero() && !b.tells():
		fence.Set(dueHeader, p.due.UTC().Format(schemas.TimeFormat))
	}
	add(schemas.WatermarkSubject(p.cfg.Tenant), fence, w.AppendJSON(nil))
	return msgs, w.Commit.ID
}

// commit sends the messages until it is known what became of them, and whether they came late.
// Where there is no error, arrived has to be called.
func (p *writer) commit(ctx context.Context, msgs []*nats.Msg, id string) error {
	// The server may be away for as long as it likes: ctx ends this.
	wait := backoff.NewExponentialBackOff(backoff.WithInitialInterval(retryFirst),
		backoff.WithMaxInterval(retryLongest), backoff.WithMaxElapsedTime(0))
	// A slow way to the server may take longer, the more there is to send.
	patience, longest := ackTimeout, ackTimeout
	for _, m := range msgs {
		longest += time.Duration(len(m.Data)) * time.Second / slowest
	}
	failures, began := 0, time.Now()
	var lost error // why it is not known what became of the last try
	arrive := func() error {
		if p.nc.IsClosed() { // for good
			return backoff.Permanent(nats.ErrConnectionClosed)
		}
		if err := p.checkServer(); err != nil {
			return final(err)
		}
		if lost != nil { // it may be in the stream by now, in whole or in part
			if there, err := p.resolve(ctx, msgs, id, lost); there || err != nil {
				return final(err)
			}
		} else if err := p.lookAgain(ctx); err != nil {
			return final(err)
		}
		seq, err := p.send(ctx, msgs, patience)
		if err == nil {
			p.advance(position{seq, id})
			return nil
		}
		if err := refused(err); err != nil {
			return backoff.Permanent(err)
		}
		lost = err
		if there, err := p.resolve(ctx, msgs, id, lost); there || err != nil {
			return final(err)
		}
		if errors.Is(lost, ErrMaxBody) {
			// An earlier try may still be on its way. Where it arrives, it shuts out whatever is
			// formed in its place, and is read from the stream: the fence lets only one of them in.
			return backoff.Permanent(lost)
		}
		return lost
	}
	there := false
	try := func() (err error) {
		if !there {
			if err := arrive(); err != nil {
				return err
			}
			there = true
		}
		p.late, err = p.cameLate(ctx)
		return err
	}
	notify := func(err error, next time.Duration) {
		failures++
		p.metrics.retries.Inc()
		p.fails(began, err)
		patience = min(2*patience, longest)
		level := p.log.Debug
		if failures == 3 || failures%20 == 0 { // not at every hiccup, and not for ever silently
			level = p.log.Warn
		}
		level("the commit is not in the stream yet, trying again",
			"messages", len(msgs), "tries", failures, "in", next, "err", p.advise(err))
	}
	err := backoff.RetryNotify(try, backoff.WithContext(wait, ctx), notify)
	p.metrics.commit(len(msgs), began, err)
	if err != nil {
		p.fails(began, err)
		return fmt.Errorf("publisher: commit %d messages: %w", len(msgs), err)
	}
	p.succeeds()
	if failures >= 3 {
		p.log.Info("the commit is in the stream after all",
			"messages", len(msgs), "tries", failures+1)
	}
	return nil
}

// cameLate reports whether the last commit came into the stream after the nextBy of the watermark
// before it. Where its acknowledgement came in time, so did it; else the stream says when it came.
func (p *writer) cameLate(ctx context.Context) (bool, error) {
	if p.due.IsZero() || !time.Now().After(p.due) {
		return false, nil
	}
	_, m, err := p.Watermark(ctx)
	if err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return false, fmt.Errorf("look when the commit at sequence %d came: %w", p.last.seq, err)
	}
	// Where somebody else has gone on since, whoever takes over next judges by what stands there.
	return m != nil && m.Seq == p.last.seq && m.Time.After(p.due), nil
}

// refused says of an error of sending that the server refuses the commit as it is, so that sending
// it again is of no use; nil: it does not.
func refused(err error) error {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		switch api.ErrorCode {
		case codeBatchTooLarge:
			return fmt.Errorf("%w: %w", ErrTooLarge, err)
		case codeBatchDisabled, codeRollupTwice, codeTTLInvalid:
			return &SetupError{fmt.Errorf("stream %s refuses the commit for good: %w",
				schemas.Stream, err), "run rollcall again to have the stream checked"}
		}
	}
	return nil
}

// send publishes the messages once, one alone as a plain fenced message, and returns the sequence
// of the last.
func (p *writer) send(
	ctx context.Context, msgs []*nats.Msg, patience time.Duration,
) (uint64, error) {
	limit := MaxBody(p.nc)
	for _, m := range msgs { // before any is sent: a batch without an end keeps the server waiting
		if len(m.Data) > limit {
			return 0, fmt.Errorf("%w: %d bytes, and %d are allowed", ErrMaxBody, len(m.Data), limit)
		}
	}
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, patience)
	if len(msgs) == 1 {
		defer cancel()
		ack, err := p.js.PublishMsg(ctx, msgs[0], jetstream.WithRetryAttempts(0))
		if err != nil {
			return 0, err
		}
		return ack.Sequence, nil
	}
	// While it waits for an acknowledgement in the middle of the batch, this would not see ctx end.
	// Where it is left behind, it sends no end of the batch any more, and nobody else has the
	// messages.
	type answer struct {
		seq uint64
		err error
	}
	sent := make(chan answer, 1)
	go func() {
		defer cancel()
		seq, err := p.sendBatch(ctx, msgs, patience)
		sent <- answer{seq, err}
	}()
	select {
	case a := <-sent:
		return a.seq, a.err
	case <-caller.Done():
		return 0, caller.Err() // ctx, which ends because of that, may yet be about to
	}
}

// sendBatch publishes the messages as one atomic batch. One after another, since they share
// headers: the batch's own fields are those of the message that is being sent.
func (p *writer) sendBatch(
	ctx context.Context, msgs []*nats.Msg, patience time.Duration,
) (uint64, error) {
	batch, err := jetstreamext.NewBatchPublisher(p.js,
		jetstreamext.BatchFlowControl{AckFirst: true, AckEvery: 200, AckTimeout: patience})
	if err != nil {
		return 0, err
	}
	last := len(msgs) - 1
	for _, m := range msgs[:last] {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		m.Reply = ""
		if err := batch.AddMsg(m); err != nil {
			return 0, err
		}
	}
	ack, err := batch.CommitMsg(ctx, msgs[last])
	if err != nil {
		return 0, err
	}
	return ack.Sequence, nil
}

// resolve finds out what became of a commit that was sent and not acknowledged: whether it is
// there. Where it is not, the same bytes may be sent again. [ErrSuperseded] is final; any other
// error means that the stream can't be asked.
func (p *writer) resolve(
	ctx context.Context, msgs []*nats.Msg, id string, cause error,
) (there bool, err error) {
	const unasked = "%w; and the stream can't be asked what became of it: %w"
	at, messages, err := p.position(ctx)
	switch {
	case errors.Is(err, ErrSuperseded):
		return false, err
	case err != nil:
		return false, fmt.Errorf(unasked, cause, err)
	case at.commit == id:
		if len(msgs) > 1 {
			whole, err := p.whole(ctx, at.seq, messages)
			if err != nil {
				return false, fmt.Errorf("look whether the commit at sequence %d is whole: %w",
					at.seq, err)
			}
			if !whole {
				return false, tornError{fmt.Errorf("%w: the commit at sequence %d is torn (%w)",
					ErrSuperseded, at.seq, cause)}
			}
		}
		p.log.Debug("the commit was in the stream, its acknowledgement was lost",
			"seq", at.seq, "err", cause)
		p.advance(at)
		return true, nil
	case at == p.last:
		// Not there, and perhaps on its way; or torn by a server that ran full, which left what it
		// had taken.
		m, err := p.foreign(ctx, p.last.seq)
		if err != nil {
			return false, fmt.Errorf(unasked, cause, err)
		}
		if m != nil {
			return false, tornError{fmt.Errorf(
				"%w: %s stands above the last watermark, at sequence %d (%w)",
				ErrSuperseded, m.Subject, m.Seq, cause)}
		}
		return false, nil
	default:
		return false, fmt.Errorf("%w: we expected the watermark at sequence %d, and it is at %d",
			ErrSuperseded, p.last.seq, at.seq)
	}
}

// lookAgain looks at the stream where it may have changed behind our back: after a reconnect, and
// after a pause.
func (p *writer) lookAgain(ctx context.Context) error {
	now, reconnects := time.Now(), p.nc.Stats().Reconnects
	// A machine that sleeps stops the monotonic clock, and a clock that is set moves the other one.
	pause := max(now.Sub(p.checked), now.Round(0).Sub(p.checked.Round(0)))
	if reconnects == p.reconnects && pause < p.cfg.LeaseTTL {
		return nil
	}
	at, _, err := p.position(ctx)
	if err != nil {
		return fmt.Errorf("look at the stream before writing to it again: %w", err)
	}
	if at != p.last {
		return fmt.Errorf("%w: since we last looked, the watermark went from sequence %d to %d",
			ErrSuperseded, p.last.seq, at.seq)
	}
	p.checked, p.reconnects = now, reconnects
	return nil
}

// position reads where the tenant's watermark stands now, and of how many messages its commit is.
// A stream that is gone has moved on without us.
func (r *Reader) position(ctx context.Context) (at position, messages int, err error) {
	w, m, err := r.Watermark(ctx)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return position{}, 0, fmt.Errorf("%w: the stream is gone: %w", ErrSuperseded, err)
	case err != nil || m == nil:
		return position{}, 0, err
	case w == nil:
		return position{m.Seq, unreadable}, 0, nil
	}
	return position{m.Seq, w.Commit.ID}, w.Commit.Messages, nil
}

// foreign returns the first message about the tenant or its agents above the given sequence; nil:
// there is none. Watermarks are left out: the fence watches over these.
func (r *Reader) foreign(ctx context.Context, above uint64) (first *Message, err error) {
	for _, filter := range []string{
		schemas.ChangeFilter(r.cfg.Tenant), schemas.HealthSubject(r.cfg.Tenant),
		schemas.UnobservedSubject(r.cfg.Tenant),
	} {
		m, err := r.next(ctx, above+1, filter)
		if err != nil {
			return nil, fmt.Errorf("look for messages above sequence %d: %w", above, err)
		}
		if m != nil && (first == nil || m.Seq < first.Seq) {
			first = m
		}
	}
	return first, nil
}

// whole reports whether all n messages of the batch that ended at sequence last are in the stream,
// as far as can be told: its first message is there, or has been rolled up or expired since and
// another one is there. A server that runs full in the middle of a commit can leave a part of it.
func (r *Reader) whole(ctx context.Context, last uint64, n int) (bool, error) {
	end, err := r.at(ctx, last)
	if err == nil && end == nil {
		err = fmt.Errorf("the watermark at sequence %d has been replaced", last)
	}
	if err != nil {
		return false, err
	}
	id, place := batchPlace(end)
	if id == "" || place != n || uint64(n) > last {
		return false, nil
	}
	for i := 1; i < n; i++ {
		m, err := r.at(ctx, last-uint64(n-i))
		if err != nil {
			return false, err
		}
		if m != nil {
			of, place := batchPlace(m)
			return of == id && place == i, nil
		}
	}
	return false, nil
}

// batchPlace says of which batch a message is, and its place there, from 1; "": of none.
func batchPlace(m *Message) (id string, place int) {
	h, err := nats.DecodeHeadersMsg(m.Header)
	if err != nil {
		return "", 0
	}
	place, _ = strconv.Atoi(h.Get(jetstreamext.BatchSeqHeader))
	return h.Get(jetstreamext.BatchIDHeader), place
}
