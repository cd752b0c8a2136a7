package main

import (
	"fmt"
	"log/slog"
)

const redacted = "[redacted]"

// A secret is a string that no log line, error or page can show by accident: every way of printing
// or encoding it gives "[redacted]". The string is behind a pointer because fmt prints what is in
// an unexported field without asking its methods.
type secret struct{ s *string }

func newSecret(s string) secret { return secret{&s} }

// reveal gives the string itself, for whoever it is meant for.
func (s secret) reveal() string {
	if s.s == nil {
		return ""
	}
	return *s.s
}

func (secret) Format(f fmt.State, _ rune)   { _, _ = f.Write([]byte(redacted)) }
func (secret) String() string               { return redacted }
func (secret) GoString() string             { return redacted }
func (secret) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
