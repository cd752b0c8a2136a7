// Package query answers questions about one tenant's agents: who is there (roster), how one of them
// is (agent), how many they are (counts). It answers in NATS, as a micro service
// ([Service.Answer]), and over HTTP ([Service.Handler]).
//
// It is a consumer of the stream like any other, so every replica answers, a standby too. The first
// question has it read the states; then it follows them until nobody has asked for a while. So it
// costs nothing before, and one roster afterwards: each agent's state, byte for byte, once.
//
// The states of a commit count when its watermark has come, all together. So an answer is the
// published state at exactly the watermark that it names.
package query

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/schemas/follow"
)

const (
	// linger is how long the states are followed after the last question.
	linger = 10 * time.Minute
	// patience is how long a question waits for the states to be read. It leaves a client that
	// waits for two seconds the time to be told.
	patience = 1500 * time.Millisecond
)

// Config is what a Service needs to know.
type Config struct {
	Tenant    int64               // whose agents are asked about
	JetStream jetstream.JetStream // has the stream; its connection should reconnect for ever
	// Consumer begins the names of the consumers that are created; empty: the server names them.
	Consumer string
	Instance string // this replica's name, shown to who looks for services; may be empty
	Version  string // rollcall's own, shown in the same place
	// Polled reports whether anybody polls another tenant, and so answers questions about it; nil:
	// nobody does.
	Polled func(ctx context.Context, tenant int64) (bool, error)
	Now    func() time.Time // by which freshness is judged; nil: time.Now
	Logger *slog.Logger     // nil: discard
}

// A Service knows the answers while [Service.Run] runs. Its methods may be called from any
// goroutine.
type Service struct {
	cfg              Config
	linger, patience time.Duration
	wanted           chan struct{} // holds a token when Run is to follow the stream

	mu        sync.RWMutex // guards what follows
	table     *table       // nil: the states have not been read
	settled   chan struct{}
	isSettled bool      // settled is closed: the states have been read, can't be, or take long
	following bool      // Run follows the stream, or has been asked to
	away      bool      // reading is interrupted
	asking    int       // questions that are being answered
	asked     time.Time // when the last one came, or was answered
}

// New returns the service of a tenant.
func New(cfg Config) *Service {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Service{cfg: cfg, linger: linger, patience: patience,
		wanted: make(chan struct{}, 1), settled: make(chan struct{})}
}

// Run reads the states when somebody asks, until ctx ends, and then returns nil. It returns an
// error if the connection to NATS is closed for good. It may be called once.
func (s *Service) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.wanted:
		}
		if err := s.follow(ctx); ctx.Err() != nil {
			return nil
		} else if errors.Is(err, nats.ErrConnectionClosed) {
			return fmt.Errorf("query: %w", err)
		}
	}
}

// follow keeps the table like the stream until ctx ends or nobody asks any more.
func (s *Service) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var idle sync.WaitGroup
	idle.Go(func() {
		defer cancel()
		s.untilIdle(ctx)
	})
	defer idle.Wait()
	defer cancel()
	r := follow.Reading{Tenant: s.cfg.Tenant, Begin: s.begin, Interrupted: s.interrupted}
	if s.cfg.Consumer != "" {
		r.Consumer = func() string { return s.cfg.Consumer + rand.Text() }
	}
	return follow.Read(ctx, s.cfg.JetStream, r)
}

// untilIdle returns when nobody has asked for a while, and has forgotten the states then; or when
// ctx ends. What is known while the stream can't be read is kept.
func (s *Service) untilIdle(ctx context.Context) {
	wait := s.linger
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		s.mu.Lock()
		if wait = s.linger - time.Since(s.asked); wait <= 0 && s.asking == 0 && !s.away {
			s.table, s.settled, s.isSettled = nil, make(chan struct{}), false
			s.following = false
			s.mu.Unlock()
			return
		}
		wait = max(wait, s.linger/10)
		s.mu.Unlock()
	}
}

// begin returns what takes the messages of one reading.
func (s *Service) begin() func(m jetstream.Msg, pending uint64) {
	fresh, complete := &table{}, false
	return func(m jetstream.Msg, pending uint64) {
		if m != nil {
			c, err := decode(m, s.cfg.Tenant)
			if err != nil {
				s.cfg.Logger.Warn("questions are answered without a message in the stream that "+
					"can't be used", "err", err)
			}
			s.mu.Lock()
			fresh.take(c)
			s.mu.Unlock()
		}
		if complete || pending > 0 {
			return
		}
		complete = true
		s.mu.Lock()
		defer s.mu.Unlock()
		fresh.complete()
		s.table = fresh
		if s.away {
			s.away = false
			s.cfg.Logger.Info("the stream is read again, to answer questions")
		}
		s.settle()
	}
}

func (s *Service) interrupted(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.away { // each further attempt would say the same
		s.away = true
		s.cfg.Logger.Warn("the stream can't be read, so questions are answered with what was "+
			"known last; trying again", "err", err)
	}
	s.settle()
}

// settle lets waiting questions go on. s.mu must be held.
func (s *Service) settle() {
	if !s.isSettled {
		s.isSettled = true
		close(s.settled)
	}
}

// ask has the states read where they are not, and waits a little for them. They are kept until done
// has been called, and for a while longer.
func (s *Service) ask(ctx context.Context) (done func()) {
	s.mu.Lock()
	s.asking++
	s.asked = time.Now()
	if !s.following {
		s.following = true
		s.wanted <- struct{}{} // empty: its last token was taken before following was unset
	}
	settled := s.settled
	s.mu.Unlock()
	select {
	case <-settled: // as a rule, and then no timer is needed
	default:
		s.await(ctx, settled)
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.asking--
		s.asked = time.Now()
	}
}

func (s *Service) await(ctx context.Context, settled <-chan struct{}) {
	limit := time.NewTimer(s.patience)
	defer limit.Stop()
	select {
	case <-settled:
	case <-ctx.Done():
	case <-limit.C:
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.settled == settled {
			s.settle() // the next ones need not wait as long: they are told the same
		}
	}
}
