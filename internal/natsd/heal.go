package natsd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// How the server gets over a store that can't be written
//
// A stream of a nats-server that could not write a message, most often since the disk was full,
// never writes again: it keeps the error, and answers nothing to whoever publishes, for as long as
// the server runs (seen with 2.15.2; so does an external one). Some of them deadlock on top of
// that, and never end. What helps is a new server on the same directory. It is started in this
// process, so that polling goes on and what has been seen meanwhile is kept; to the connections it
// is a restart. Where the old one does not end it may still write to the directory, so no second
// one may be opened on it in this process: then the process has to end, which Failed says.

const (
	lookEvery  = time.Second     // how often the server is asked how it is
	lookWait   = 5 * time.Second // for its answer, and its end; one that deadlocks gives neither
	illEnough  = 3               // bad answers in a row: a stream that is being made looks ill, too
	logEvery   = time.Minute     // how often it is logged that there still is no room
	restartGap = 10 * time.Second
	restartMax = 5 * time.Minute // between restarts that did not help
)

var errHangs = errors.New("it does not answer")

// ill says why a server can't go on; nil: it can.
func ill(ns *server.Server) error {
	for _, e := range ns.Healthz(&server.HealthzOptions{Details: true}).Errors {
		switch {
		case e.Type != server.HealthzErrorStream && e.Type != server.HealthzErrorJetStream:
		case strings.HasSuffix(e.Error, "could not be recovered"):
			// Nor will it be by the next server.
		default:
			return errors.New(e.Error)
		}
	}
	return nil
}

// heal restarts the server where it can't go on, until ctx ends or that is of no use.
func (s *Server) heal(ctx context.Context) {
	defer close(s.healed)
	var last time.Time // of the last restart
	gap := restartGap
	for {
		err := s.awaitIll(ctx)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errGone) {
			s.log.Error("the store of the embedded NATS server was removed while it was in use: "+
				"the server is restarted on what is there now, and what still stands is published "+
				"again; find out who removed it", "dir", s.cfg.DataDir, "err", err)
		} else {
			s.log.Error("the embedded NATS server can't write its store any more, so nothing is "+
				"committed; what is seen meanwhile is kept; it is restarted as soon as the disk "+
				"has room", "dir", s.cfg.DataDir, "err", err)
		}
		if time.Since(last) > 2*restartMax {
			gap = restartGap
		} else if !sleep(ctx, gap-time.Since(last)) {
			return
		} else {
			gap = min(2*gap, restartMax)
		}
		if !s.awaitRoom(ctx) {
			return
		}
		if err := s.restart(ctx, err); err != nil {
			if ctx.Err() == nil {
				s.failed <- err
			}
			return
		}
		last = time.Now()
	}
}

// restart replaces the server that is ill for that reason. It fails where only a new process helps,
// or where ctx ends.
func (s *Server) restart(ctx context.Context, why error) error {
	if !s.endSoon(ctx) {
		return fmt.Errorf("the embedded NATS server on %s can't write its store any more (%w) and "+
			"does not end, so that it can't be restarted in this process: start rollcall again; "+
			"what is not committed is read again from the vendor", s.cfg.DataDir, why)
	}
	if errors.Is(why, errGone) {
		if err := s.relock(); err != nil {
			return fmt.Errorf("take the data directory of the embedded NATS server again, "+
				"whose store was removed: %w", err)
		}
	}
	for err := s.start(); err != nil; err = s.start() {
		s.endSoon(ctx)
		if !errors.Is(err, ErrNoRoom) {
			return fmt.Errorf("restart the embedded NATS server: %w", err)
		}
		if !sleep(ctx, s.cfg.lookEvery) {
			return ctx.Err()
		}
	}
	clear(s.seen) // a start may tidy the store
	_ = s.gone()
	s.log.Info("the embedded NATS server has been restarted",
		"dir", s.cfg.DataDir, "url", s.ClientURL())
	return nil
}

// endSoon is endRunning, within the time that an answer may take.
func (s *Server) endSoon(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.lookWait)
	defer cancel()
	return s.endRunning(ctx)
}

// awaitIll returns what is wrong with the server as soon as that is certain, or when ctx ends.
func (s *Server) awaitIll(ctx context.Context) (err error) {
	for bad := 0; bad < illEnough; {
		if !sleep(ctx, s.cfg.lookEvery) {
			return nil
		}
		if err = s.look(ctx); err == nil {
			bad = 0
		} else {
			bad++
		}
	}
	return err
}

// look asks the server how it is, and waits so long for the answer.
func (s *Server) look(ctx context.Context) error {
	if err := s.gone(); err != nil {
		return err
	}
	ns, answer := s.running.Load(), make(chan error, 1)
	go func() { answer <- s.cfg.ill(ns) }()
	timeout := time.NewTimer(s.cfg.lookWait)
	defer timeout.Stop()
	select {
	case err := <-answer:
		return err
	case <-timeout.C:
		return errHangs
	case <-ctx.Done():
		return nil
	}
}

// awaitRoom waits until the disk has room, and reports whether it has: not so where ctx ends.
func (s *Server) awaitRoom(ctx context.Context) bool {
	var logged time.Time
	for {
		err := s.cfg.roomFor(s.cfg.DataDir)
		if err == nil {
			return true
		}
		if time.Since(logged) >= logEvery {
			logged = time.Now()
			s.log.Warn("the embedded NATS server waits for room on the disk; "+
				"until then nothing is committed, and what is seen is kept in memory",
				"dir", s.cfg.DataDir, "err", err)
		}
		if !sleep(ctx, s.cfg.lookEvery) {
			return false
		}
	}
}

// sleep waits, and reports whether ctx lasted.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// leastRoom is how much of a disk has to be free for a server to be started on it: a twentieth, and
// 16 MiB of a large one.
func leastRoom(size int64) int64 { return min(size/20, 16<<20) }

// roomFor fails with ErrNoRoom where the disk below dir is full.
func roomFor(dir string) error {
	free, size, ok := disk(dir)
	if least := leastRoom(size); ok && free < least {
		return fmt.Errorf("%w: %d KiB are free below %s, "+
			"and the embedded NATS server needs %d KiB to start: make room",
			ErrNoRoom, free>>10, named(dir), least>>10)
	}
	return nil
}

// full reports whether an error says that the disk, or what the user may have of it, is full.
func full(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
