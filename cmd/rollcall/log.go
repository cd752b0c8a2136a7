package main

import (
	"io"
	"log/slog"
)

// newLogger logs to w, a line each, as the settings say: text or JSON, from the least level upwards. Secrets are of type
// [secret] and log as "[redacted]".
func newLogger(w io.Writer, s *settings) *slog.Logger {
	opts := &slog.HandlerOptions{Level: s.LogLevel.value}
	if s.LogFormat.value == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}
