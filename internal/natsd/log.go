package natsd

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"golang.org/x/time/rate"
)

// serverLog hands the server's messages on to slog. What the server calls fatal is kept instead,
// for Start to return: its usual logger would end the process.
type serverLog struct {
	log   *slog.Logger
	limit *rate.Limiter // of warnings and errors: a network client can provoke most of them

	mu    sync.Mutex
	first error // the first fatal message
	left  int   // messages left out since the last one that was let through
}

func newServerLog(log *slog.Logger) *serverLog {
	return &serverLog{log: log.With("component", "nats-server"), limit: rate.NewLimiter(1, 20)}
}

// fatal is what made the server give up, or nil.
func (l *serverLog) fatal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first
}

// fatalError carries a fatal message and, to be told apart by, the error that was formatted into
// it.
type fatalError struct {
	msg   string
	cause error
}

func (e *fatalError) Error() string { return e.msg }
func (e *fatalError) Unwrap() error { return e.cause }

// Fatalf implements [server.Logger].
func (l *serverLog) Fatalf(format string, v ...any) {
	e := &fatalError{msg: fmt.Sprintf(format, v...)}
	for _, a := range v {
		if err, ok := a.(error); ok {
			e.cause = err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first == nil {
		l.first = e
	}
}

// Errorf implements [server.Logger].
func (l *serverLog) Errorf(format string, v ...any) {
	if strings.Contains(format, "Violation") {
		// A reader tried what it may not do, and has been told so: not this server's error.
		l.emit(slog.LevelDebug, format, v)
		return
	}
	l.limited(slog.LevelError, format, v)
}

// Warnf implements [server.Logger].
func (l *serverLog) Warnf(format string, v ...any) { l.limited(slog.LevelWarn, format, v) }

// Noticef implements [server.Logger]. Notices are about starting and stopping, of which rollcall
// gives its own account.
func (l *serverLog) Noticef(format string, v ...any) { l.emit(slog.LevelDebug, format, v) }

// Debugf implements [server.Logger]; the server is not asked for these.
func (l *serverLog) Debugf(string, ...any) {}

// Tracef implements [server.Logger]; the server is not asked for these.
func (l *serverLog) Tracef(string, ...any) {}

func (l *serverLog) limited(level slog.Level, format string, v []any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.limit.Allow() {
		l.left++
		return
	}
	var attrs []slog.Attr
	if l.left > 0 {
		attrs = append(attrs, slog.Int("leftOut", l.left))
		l.left = 0
	}
	l.emit(level, format, v, attrs...)
}

func (l *serverLog) emit(level slog.Level, format string, v []any, attrs ...slog.Attr) {
	if !l.log.Enabled(context.Background(), level) {
		return // before the work of formatting it
	}
	l.log.LogAttrs(context.Background(), level, fmt.Sprintf(format, v...), attrs...)
}
