package main

import (
	"bytes"
	"io"
	"log/slog"
)

// newLogger logs to w, a line each, as the settings say: text or JSON, from the least level
// upwards. Secrets are of type [secret] and log as "[redacted]". Of lines that an [output] had to
// drop, the log itself says so.
func newLogger(w io.Writer, s *settings) *slog.Logger {
	withUnits := func(_ []string, a slog.Attr) slog.Attr {
		if a.Value.Kind() == slog.KindDuration { // JSON would say nanoseconds
			a.Value = slog.StringValue(a.Value.Duration().String())
		}
		return a
	}
	opts := &slog.HandlerOptions{Level: s.LogLevel, ReplaceAttr: withUnits}
	to := func(w io.Writer) *slog.Logger {
		if s.LogFormat == "json" {
			return slog.New(slog.NewJSONHandler(w, opts))
		}
		return slog.New(slog.NewTextHandler(w, opts))
	}
	if o, ok := w.(*output); ok {
		o.markWith(func(lines int) []byte {
			var b bytes.Buffer
			to(&b).Warn("log lines are missing here: whoever reads them did not keep up; "+
				"polling and publishing went on", "lines", lines)
			return b.Bytes()
		})
	}
	return to(w)
}
