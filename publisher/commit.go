package publisher

import (
	"context"
	"encoding/json"
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
// jetstream_errors_generated.go). Whatever else it answers, the commit is looked up in the log and,
// where it is not there, sent again.
const (
	codeBatchDisabled jetstream.ErrorCode = 10174
	codeBatchTooLarge jetstream.ErrorCode = 10199
	codeRollupTwice   jetstream.ErrorCode = 10111
	codeTTLInvalid    jetstream.ErrorCode = 10165
)

const (
	ackTimeout   = 5 * time.Second        // for one answer of the broker; then the log is asked
	slowest      = 32 << 10               // bytes a second that the way to the broker is trusted to take
	askAgain     = time.Second            // before a question that was not answered is asked again
	retryFirst   = 50 * time.Millisecond  // before a commit is sent again the first time …
	retryLongest = 5 * time.Second        // … and at the most
	headerRollup = jetstream.MsgRollup    // Nats-Rollup
	headerTTL    = jetstream.MsgTTLHeader // Nats-TTL
)

// Batch is what a commit brings.
type Batch struct {
	Events []schemas.Event // in the order in which they shall stand in the log; at most MaxChanges
	Health *schemas.Health // nil: unchanged
	// Watermark is the commit's last message. Its tenant, instance and commit are filled in.
	Watermark schemas.Watermark
}

// Commit writes the batch, all or nothing, and returns when that is resolved: nil when it is in the
// log, [ErrTampered] when it is and something else is too, [ErrSuperseded], [ErrTooLarge] or
// [ErrMaxBody] when it is not, a *[SetupError] when the log can't be written to as it is. While the
// broker is away or full it goes on trying until ctx ends; then the commit may or may not be in the
// log.
func (p *Publisher) Commit(ctx context.Context, b Batch) error {
	before := p.last.seq
	msgs, id := p.messages(b, nil)
	if err := p.commit(ctx, msgs, id); err != nil {
		return err
	}
	// Between two commits of a tenant only other tenants write.
	if first := p.last.seq + 1 - uint64(len(msgs)); first > before+1 {
		p.gaps = append(p.gaps[max(0, len(p.gaps)-maxGaps):], gap{before, first})
	}
	for len(p.gaps) > 0 {
		m, err := p.foreign(ctx, p.gaps[0].above)
		if err != nil {
			p.log.Debug("it can't be told whether somebody else has written; asking again after the next commit", "err", err)
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

// A gap lies between two commits of the tenant: what is in it others have written.
type gap struct{ above, below uint64 }

// maxGaps is how many gaps are remembered while nobody answers what is in them.
const maxGaps = 100

// slack is by how many bytes an event may be longer than the one before it, and need no second
// piece of memory.
const slack = 128

// messages encodes a batch, with the states in lacking besides those of its events. Messages of a
// kind share their header, to which send adds what tells them apart.
func (p *Publisher) messages(b Batch, lacking []lackingState) ([]*nats.Msg, string) {
	all := make([]nats.Msg, 0, 2*len(b.Events)+len(lacking)+2)
	header := func(contentType, name, value string) nats.Header {
		return nats.Header{"Content-Type": {contentType}, name: {value}}
	}
	add := func(stored string, h nats.Header, body []byte) {
		all = append(all, nats.Msg{Subject: publishSubject(stored), Header: h, Data: body})
	}
	ttl := header(schemas.ContentTypeEvent, headerTTL, strconv.FormatInt(int64(p.cfg.EventsMaxAge/time.Second), 10))
	bodies := make([][]byte, len(b.Events))
	size := 0                                    // about that of the next event: they are much alike
	latest := make(map[int64]int, len(b.Events)) // agent: its last event
	for i := range b.Events {
		e := &b.Events[i]
		bodies[i] = e.AppendJSON(make([]byte, 0, size))
		size = len(bodies[i]) + slack
		latest[e.Data.Agent.AgentID] = i
		add(e.Subject(), ttl, bodies[i])
	}
	rollup := header(schemas.ContentTypeEvent, headerRollup, jetstream.MsgRollupSubject)
	state := func(agent int64, body []byte) {
		add(schemas.StateSubject(p.cfg.Tenant, agent), rollup, body)
	}
	for i := range b.Events {
		if e := &b.Events[i]; latest[e.Data.Agent.AgentID] == i {
			state(e.Data.Agent.AgentID, bodies[i])
		}
	}
	for _, s := range lacking {
		state(s.agent, s.body)
	}
	if b.Health != nil {
		h := *b.Health
		h.TenantID = p.cfg.Tenant
		add(schemas.HealthSubject(p.cfg.Tenant), header(schemas.ContentTypeJSON, headerRollup, jetstream.MsgRollupSubject), h.AppendJSON(nil))
	}
	w := b.Watermark
	w.TenantID, w.Instance = p.cfg.Tenant, p.cfg.Instance
	w.Commit = schemas.Commit{ID: nuid.Next(), Messages: len(all) + 1}
	fence := header(schemas.ContentTypeJSON, headerRollup, jetstream.MsgRollupSubject)
	fence.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(p.last.seq, 10))
	add(schemas.WatermarkSubject(p.cfg.Tenant), fence, w.AppendJSON(nil))
	msgs := make([]*nats.Msg, len(all))
	for i := range all {
		msgs[i] = &all[i]
	}
	return msgs, w.Commit.ID
}

// commit sends the messages until it is known what became of them.
func (p *Publisher) commit(ctx context.Context, msgs []*nats.Msg, id string) error {
	wait := backoff.NewExponentialBackOff(backoff.WithInitialInterval(retryFirst), backoff.WithMaxInterval(retryLongest),
		backoff.WithMaxElapsedTime(0)) // the broker may be away for as long as it likes: ctx ends this
	patience, longest := ackTimeout, ackTimeout // a slow way to the broker may take longer, the more there is to send
	for _, m := range msgs {
		longest += time.Duration(len(m.Data)) * time.Second / slowest
	}
	var lost error // why it is not known what became of the last try
	try := func() error {
		if p.nc.IsClosed() { // for good
			return backoff.Permanent(nats.ErrConnectionClosed)
		}
		if err := p.checkServer(); err != nil {
			return final(err)
		}
		if lost != nil { // it may be in the log by now, in whole or in part
			if there, err := p.resolve(ctx, msgs, id, lost); there || err != nil {
				return err
			}
		} else if err := p.check(ctx); err != nil {
			return err
		}
		seq, sendErr := p.send(ctx, msgs, patience)
		if sendErr == nil {
			p.advance(position{seq, id})
			return nil
		}
		var api *jetstream.APIError
		if errors.As(sendErr, &api) {
			switch api.ErrorCode {
			case codeBatchTooLarge:
				return backoff.Permanent(fmt.Errorf("%w (%d messages): %w", ErrTooLarge, len(msgs), sendErr))
			case codeBatchDisabled, codeRollupTwice, codeTTLInvalid:
				return backoff.Permanent(&SetupError{fmt.Errorf("stream %s refuses the commit for good: %w; run rollcall again to have the stream checked",
					schemas.Stream, sendErr)})
			}
		}
		lost = sendErr
		if there, err := p.resolve(ctx, msgs, id, sendErr); there || err != nil {
			return err
		}
		if errors.Is(sendErr, ErrMaxBody) {
			// An earlier try may still be on its way. Where it arrives, it shuts out whatever is
			// formed anew, which then is read from the stream: the fence lets only one of them in.
			return backoff.Permanent(sendErr)
		}
		return sendErr
	}
	failures, began := 0, time.Now()
	notify := func(err error, next time.Duration) {
		failures++
		p.metrics.retries.Inc()
		p.fails(began, err)
		patience = min(2*patience, longest)
		level := p.log.Debug
		if failures == 3 || failures%20 == 0 { // not at every hiccup, and not for ever silently
			level = p.log.Warn
		}
		level("the commit is not in the stream yet, trying again", "messages", len(msgs), "tries", failures, "in", next, "err", p.advise(err))
	}
	err := backoff.RetryNotify(try, backoff.WithContext(wait, ctx), notify)
	p.metrics.commit(len(msgs), began, err)
	if err != nil {
		p.fails(began, err)
		return fmt.Errorf("publisher: commit %d messages: %w", len(msgs), err)
	}
	p.succeeds()
	if failures >= 3 {
		p.log.Info("the commit is in the stream after all", "messages", len(msgs), "tries", failures+1)
	}
	return nil
}

// foreign returns a message about the tenant or its agents above the given sequence, watermarks
// left out: the fence watches over these. nil: there is none.
func (p *Publisher) foreign(ctx context.Context, above uint64) (*stored, error) {
	var first *stored
	for _, filter := range []string{fmt.Sprintf("agent.*.%d.>", p.cfg.Tenant), schemas.HealthSubject(p.cfg.Tenant)} {
		m, err := p.leaderGet(ctx, schemas.Stream, map[string]any{"seq": above + 1, "next_by_subj": filter})
		if errors.Is(err, errNoMessage) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look for messages above sequence %d: %w", above, err)
		}
		if first == nil || m.Seq < first.Seq {
			first = m
		}
	}
	return first, nil
}

// send publishes the messages once, one alone as a plain fenced message, and returns the sequence
// of the last.
func (p *Publisher) send(ctx context.Context, msgs []*nats.Msg, patience time.Duration) (uint64, error) {
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
		m := msgs[0]
		ack, err := p.js.PublishMsg(ctx, m, jetstream.WithRetryAttempts(0))
		if err != nil {
			return 0, err
		}
		return ack.Sequence, nil
	}
	// While it waits for an acknowledgement in the middle of the batch, this would not see ctx end.
	// Where it is left behind, it sends no end of the batch any more, and nobody else has the
	// messages.
	type answer struct {
		ack *jetstreamext.BatchAck
		err error
	}
	sent := make(chan answer, 1)
	go func() {
		defer cancel()
		ack, err := p.sendBatch(ctx, msgs, patience)
		sent <- answer{ack, err}
	}()
	select {
	case a := <-sent:
		if a.err != nil {
			return 0, a.err
		}
		return a.ack.Sequence, nil
	case <-caller.Done():
		return 0, caller.Err() // ctx, which ends because of that, may yet be about to
	}
}

// sendBatch publishes the messages as one atomic batch. One after another, since they share
// headers: the batch's own fields are those of the message that is being sent.
func (p *Publisher) sendBatch(ctx context.Context, msgs []*nats.Msg, patience time.Duration) (*jetstreamext.BatchAck, error) {
	batch, err := jetstreamext.NewBatchPublisher(p.js, jetstreamext.BatchFlowControl{AckFirst: true, AckEvery: 200, AckTimeout: patience})
	if err != nil {
		return nil, err
	}
	last := len(msgs) - 1
	for _, m := range msgs[:last] {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		m.Reply = ""
		if err := batch.AddMsg(m); err != nil {
			return nil, err
		}
	}
	return batch.CommitMsg(ctx, msgs[last])
}

// resolve finds out what became of a commit that was sent and not acknowledged: whether it is
// there. Where it is not, the same bytes may be sent again. An error that is not permanent means
// that the log can't be asked.
func (p *Publisher) resolve(ctx context.Context, msgs []*nats.Msg, id string, cause error) (there bool, err error) {
	at, w, err := p.watermark(ctx)
	switch {
	case errors.Is(err, ErrSuperseded):
		return false, err
	case err != nil:
		return false, fmt.Errorf("%w; and the log can't be asked what became of it: %w", cause, err)
	case at.commit == id:
		if len(msgs) > 1 {
			whole, err := p.whole(ctx, at.seq, w.Commit.Messages)
			if err != nil {
				return false, fmt.Errorf("look whether the commit at sequence %d is whole: %w", at.seq, err)
			}
			if !whole {
				return false, backoff.Permanent(tornError{fmt.Errorf("%w: the commit at sequence %d is torn (%w)", ErrSuperseded, at.seq, cause)})
			}
		}
		p.log.Debug("the commit was in the log, its acknowledgement was lost", "seq", at.seq, "err", cause)
		p.advance(at)
		return true, nil
	case at == p.last:
		// Not there, and perhaps on its way; or torn by a server that ran full, which left what it
		// had taken.
		m, err := p.foreign(ctx, p.last.seq)
		if err != nil {
			return false, fmt.Errorf("%w; and the log can't be asked what became of it: %w", cause, err)
		}
		if m != nil {
			return false, backoff.Permanent(tornError{fmt.Errorf("%w: %s stands above the last watermark, at sequence %d (%w)", ErrSuperseded, m.Subject, m.Seq, cause)})
		}
		return false, nil
	default:
		return false, backoff.Permanent(fmt.Errorf("%w: we expected the watermark at sequence %d, and it is at %d", ErrSuperseded, p.last.seq, at.seq))
	}
}

// check looks at the log where it may have changed behind our back: after a reconnect, and after a
// pause.
func (p *Publisher) check(ctx context.Context) error {
	now, reconnects := time.Now(), p.nc.Stats().Reconnects
	// A machine that sleeps stops the monotonic clock, and a clock that is set moves the other one.
	pause := max(now.Sub(p.checked), now.Round(0).Sub(p.checkedAt))
	if reconnects == p.reconnects && pause < p.cfg.LeaseTTL {
		return nil
	}
	at, _, err := p.watermark(ctx)
	if errors.Is(err, ErrSuperseded) {
		return err
	}
	if err != nil {
		return fmt.Errorf("look at the log before writing to it again: %w", err)
	}
	if at != p.last {
		return backoff.Permanent(fmt.Errorf("%w: since we last looked, the watermark went from sequence %d to %d", ErrSuperseded, p.last.seq, at.seq))
	}
	p.checked, p.checkedAt, p.reconnects = now, now.Round(0), reconnects
	return nil
}

func (p *Publisher) advance(at position) {
	now := time.Now()
	p.last, p.checked, p.checkedAt = at, now, now.Round(0)
}

// stored is a message as the stream's leader gives it.
type stored struct {
	Subject string    `json:"subject"`
	Seq     uint64    `json:"seq"`
	Header  []byte    `json:"hdrs"`
	Data    []byte    `json:"data"`
	Time    time.Time `json:"time"`
}

var errNoMessage = errors.New("no such message")

// ask is a request that is sent again every askAgain until it is answered or ctx ends: what a
// stream is asked while it has no leader is never answered.
func (p *Publisher) ask(ctx context.Context, subject string, body []byte) (*nats.Msg, error) {
	inbox := p.nc.NewInbox()
	sub, err := p.nc.SubscribeSync(inbox)
	if err != nil {
		return nil, err
	}
	defer func() { _ = sub.Unsubscribe() }()
	for {
		if err := p.nc.PublishRequest(subject, inbox, body); err != nil {
			return nil, err
		}
		wait, cancel := context.WithTimeout(ctx, askAgain)
		m, err := sub.NextMsgWithContext(wait)
		cancel()
		if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return m, err
		}
	}
}

// leaderGet reads one message from a stream's leader. (The client's own GetMsg would use direct
// get, which any replica answers, lagging ones too.) It proves presence, never absence.
func (p *Publisher) leaderGet(ctx context.Context, stream string, request any) (*stored, error) {
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	m, err := p.ask(ctx, "$JS.API.STREAM.MSG.GET."+stream, body)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Error   *jetstream.APIError `json:"error"`
		Message *stored             `json:"message"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return nil, fmt.Errorf("decode the server's answer: %w", err)
	}
	switch {
	case answer.Error != nil && answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return nil, errNoMessage
	case answer.Error != nil:
		return nil, answer.Error
	case answer.Message == nil:
		return nil, errors.New("the server's answer has no message")
	}
	return answer.Message, nil
}

// watermark reads where the tenant's watermark stands. One that can't be read has no commit, and is
// nobody's.
func (p *Publisher) watermark(ctx context.Context) (position, schemas.Watermark, error) {
	m, err := p.leaderGet(ctx, schemas.Stream, map[string]string{"last_by_subj": schemas.WatermarkSubject(p.cfg.Tenant)})
	if errors.Is(err, errNoMessage) {
		return position{}, schemas.Watermark{}, nil
	}
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return position{}, schemas.Watermark{}, backoff.Permanent(fmt.Errorf("%w: the stream is gone: %w", ErrSuperseded, err))
	}
	if err != nil {
		return position{}, schemas.Watermark{}, fmt.Errorf("read the watermark of tenant %d: %w", p.cfg.Tenant, err)
	}
	w, err := decodeWatermark(m.Data, p.cfg.Tenant)
	if err != nil {
		return position{seq: m.Seq, commit: "unreadable"}, schemas.Watermark{}, nil
	}
	return position{m.Seq, w.Commit.ID}, *w, nil
}

// whole reports whether all n messages of the batch that ended at sequence last are in the log, as
// far as can be told: its first message is there, or has been rolled up or expired since and
// another one is there. A server that runs full in the middle of a commit can leave a part of it.
func (p *Publisher) whole(ctx context.Context, last uint64, n int) (bool, error) {
	end, err := p.leaderGet(ctx, schemas.Stream, map[string]uint64{"seq": last})
	if err != nil {
		return false, err
	}
	batch := batchHeaders(end)
	if batch.id == "" || batch.seq != n || uint64(n) > last {
		return false, nil
	}
	for i := 1; i < n; i++ {
		m, err := p.leaderGet(ctx, schemas.Stream, map[string]uint64{"seq": last - uint64(n-i)})
		if errors.Is(err, errNoMessage) {
			continue
		}
		if err != nil {
			return false, err
		}
		got := batchHeaders(m)
		return got.id == batch.id && got.seq == i, nil
	}
	return false, nil
}

type batchPlace struct {
	id  string
	seq int
}

func batchHeaders(m *stored) batchPlace {
	h, err := nats.DecodeHeadersMsg(m.Header)
	if err != nil {
		return batchPlace{}
	}
	seq, _ := strconv.Atoi(h.Get(jetstreamext.BatchSeqHeader))
	return batchPlace{h.Get(jetstreamext.BatchIDHeader), seq}
}
