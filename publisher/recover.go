package publisher

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/schemas"
)

const (
	// readTimeout bounds the wait for the next message while the stream is read. A server that
	// finds that a state has been replaced since the consumer was created stands still until
	// something new comes (seen with nats-server 2.15.2): reading again helps.
	readTimeout = 4 * time.Second

	// readAhead is how many messages the server may send before more are asked for.
	readAhead = 2000

	// inactive is how long a consumer outlives a reader that has died.
	inactive = time.Minute

	// forgottenSweeps is how many sweeps may have been since the last one that changed anything,
	// where the watermark that said so can't be read any more: sweep numbers go on above them.
	forgottenSweeps = 1 << 20

	// consumerPrefix begins the names of rollcall's own consumers. The embedded server keeps
	// readers' hands off these.
	consumerPrefix = "rollcall-"
)

// Recovered is what the stream says of a tenant, besides the states.
type Recovered struct {
	// Watermark is nil where there is none, none that can be read, or one that vouches for a commit
	// of which a part is missing.
	Watermark *schemas.Watermark
	Health    *schemas.Health // nil: none
	LastSweep uint64          // the highest sweep number found
	Lapsed    bool            // the watermark's Batch.Lapsed, or it was late itself

	behind map[int64][]byte // the last events of agents whose state is older, or not there
}

// position is where a tenant's watermark stands in the stream.
type position struct {
	seq    uint64 // 0: there is none
	commit string // the id of the commit that it ended
}

// unreadable stands for the commit of a watermark that can't be read. It is nobody's id.
const unreadable = "unreadable"

// A reading is what reading a tenant's part of the stream has shown so far.
type reading struct {
	r *Reader
	Recovered
	state     func(*packed.State)
	at        position
	revisions map[int64]uint64 // of the agents found so far
	from      uint64           // where to look for events that are newer than their states
	doubtful  bool             // a state can't be read: all events have to be looked at
}

// read reads what the stream says of the tenant, and where its watermark stood meanwhile.
func (r *Reader) read(
	ctx context.Context, state func(*packed.State),
) (*Recovered, position, error) {
	s := &reading{r: r, state: state, from: 1, revisions: make(map[int64]uint64),
		Recovered: Recovered{behind: make(map[int64][]byte)}}
	t := r.cfg.Tenant

	// The watermark is the last message of every commit: a replica that has it has all that came
	// before. So the three are read together, and the watermark that came with the states is the
	// one that the fence expects.
	err := r.consume(ctx, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy,
		FilterSubjects: []string{
			schemas.StateFilter(t), schemas.WatermarkSubject(t), schemas.HealthSubject(t)},
	}, s.lastMessage)
	if err != nil {
		return nil, position{}, err
	}
	// Whatever stands above the last whole commit is a torn one: its events are the truth, and
	// their states are missing.
	if s.doubtful {
		s.from = 1
	}
	err = r.consume(ctx, jetstream.OrderedConsumerConfig{
		DeliverPolicy:  jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:    s.from,
		FilterSubjects: schemas.EventFilters(t),
	}, s.event)
	if err != nil {
		return nil, position{}, err
	}
	if n := len(s.behind); n > 0 {
		r.log.Warn("the stream has events whose states are missing, as after a commit that was "+
			"torn: the events count, and the states are written again", "agents", n)
	}
	return &s.Recovered, s.at, s.judgeWatermark(ctx)
}

// judgeWatermark drops a watermark that vouches for nothing, since its own commit is torn.
func (s *reading) judgeWatermark(ctx context.Context) error {
	switch w := s.Watermark; {
	case s.at.seq == 0:
	case w == nil:
		s.LastSweep += forgottenSweeps
	case w.Commit.Messages > 1:
		whole, err := s.r.whole(ctx, s.at.seq, w.Commit.Messages)
		if err != nil {
			return fmt.Errorf("look whether the last commit is whole: %w", err)
		}
		if !whole {
			s.r.log.Error("the last commit in the stream is torn, so nobody can tell up to which "+
				"sweep everything is published; the next complete sweep puts it right, and until "+
				"then the watermark says that there has been none",
				"seq", s.at.seq, "sweep", w.Sweep)
			s.Watermark = nil
		}
	}
	return nil
}

// lastMessage takes the last message of a state's, the watermark's or health's subject.
func (s *reading) lastMessage(m jetstream.Msg, seq uint64) {
	var err error
	switch m.Subject() {
	case schemas.WatermarkSubject(s.r.cfg.Tenant):
		s.at = position{seq, unreadable}
		var w *schemas.Watermark
		if w, err = decodeWatermark(m.Data(), s.r.cfg.Tenant); err != nil {
			s.r.log.Error("skipping a malformed watermark in the stream: "+
				"all events that the stream still has are read instead", "seq", seq, "err", err)
			return
		}
		s.at.commit, s.Watermark = w.Commit.ID, w
		if meta, err := m.Metadata(); err == nil { // as consume has seen it
			s.Lapsed = lapsed(m.Headers().Get(dueHeader), meta.Timestamp)
		}
		s.LastSweep = max(s.LastSweep, w.LastSweep())
		s.from = seq + 1 - min(seq, uint64(w.Commit.Messages))
	case schemas.HealthSubject(s.r.cfg.Tenant):
		if s.Health, err = decodeHealth(m.Data(), s.r.cfg.Tenant); err != nil {
			s.r.log.Error("skipping a malformed health message in the stream: "+
				"it will be written again", "seq", seq, "err", err)
		}
	default:
		state, sweep, err := readEvent(m, s.r.cfg.Tenant)
		if err != nil {
			s.r.log.Error("skipping a malformed state in the stream: "+
				"all events that the stream still has are read instead",
				"subject", m.Subject(), "seq", seq, "err", err)
			s.doubtful = true
			return
		}
		s.found(state, sweep)
	}
}

// event takes an event as the truth where it is newer than what is known of its agent.
func (s *reading) event(m jetstream.Msg, seq uint64) {
	state, sweep, err := readEvent(m, s.r.cfg.Tenant)
	if err != nil {
		s.r.log.Error("skipping a malformed event in the stream: "+
			"find out who else may publish on "+schemas.LogPrefix+">",
			"subject", m.Subject(), "seq", seq, "err", err)
		return
	}
	if id := state.Agent.AgentID(); state.Revision > s.revisions[id] {
		s.behind[id] = m.Data()
		s.found(state, sweep)
	}
}

func (s *reading) found(state *packed.State, sweep uint64) {
	s.revisions[state.Agent.AgentID()] = state.Revision
	s.LastSweep = max(s.LastSweep, sweep)
	s.state(state)
}

// consume delivers every message that a consumer of the stream finds now.
func (r *Reader) consume(
	ctx context.Context, cfg jetstream.OrderedConsumerConfig,
	each func(m jetstream.Msg, seq uint64),
) error {
	cfg.InactiveThreshold = inactive
	cfg.NamePrefix = consumerPrefix + rand.Text() // which nobody can guess, to ask for its messages
	c, err := r.js.OrderedConsumer(ctx, schemas.Stream, cfg)
	if err != nil {
		return fmt.Errorf("create a consumer: %w", err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = r.js.DeleteConsumer(ctx, schemas.Stream, c.CachedInfo().Name) // it would go by itself
	}()
	if c.CachedInfo().NumPending == 0 {
		return nil
	}
	messages, err := c.Messages(jetstream.PullMaxMessages(readAhead))
	if err != nil {
		return fmt.Errorf("consume: %w", err)
	}
	defer messages.Stop()
	// One timer for all messages: a context for each would cost more than most of them.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stuck := time.AfterFunc(readTimeout, func() {
		cancel(fmt.Errorf("the server sent nothing for %v", readTimeout))
	})
	defer stuck.Stop()
	for {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return fmt.Errorf("wait for the next message: %w", err)
		}
		stuck.Reset(readTimeout)
		meta, err := m.Metadata()
		if err != nil {
			return fmt.Errorf("read a message's metadata: %w", err)
		}
		each(m, meta.Sequence.Stream)
		if meta.NumPending == 0 {
			return nil
		}
	}
}
