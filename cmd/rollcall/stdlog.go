package main

import (
	stdlog "log"
	"log/slog"
	"strings"
	"unicode"
)

// takeStandardLog has what libraries write to Go's standard logger go to log. What they quote is
// left out: net/http quotes what follows an answer on a connection, and that may be a token.
func takeStandardLog(log *slog.Logger) {
	stdlog.SetFlags(0)
	stdlog.SetPrefix("")
	stdlog.SetOutput(&libraryLog{log: log})
}

// A libraryLog logs the lines that are written to it, in words of our own as far as they are known,
// and not too often.
type libraryLog struct {
	log  *slog.Logger
	seen repeated
}

// Write implements io.Writer.
func (l *libraryLog) Write(line []byte) (int, error) {
	text := unquoted(string(line))
	leftOut, ok := l.seen.worth(text)
	switch {
	case !ok:
	case strings.HasPrefix(text, "Unsolicited response received"):
		l.log.Warn("a server sends bytes behind an answer; they are dropped, "+
			"and the connection is closed", "leftOut", leftOut)
	default:
		l.log.Warn("a library reports something, which concerns no event",
			"text", text, "leftOut", leftOut)
	}
	return len(line), nil
}

// unquoted is the first line of a text up to where it quotes something, without what no terminal
// should be sent.
func unquoted(text string) string {
	text, _, _ = strings.Cut(strings.TrimSpace(text), "\n")
	if i := strings.IndexAny(text, "\"`"); i >= 0 {
		text = text[:i] + "…"
	}
	return shortened(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, text))
}
