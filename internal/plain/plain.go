// Package plain writes values and tables for people to read in a terminal. Values may be anybody's:
// nothing that could steer a terminal is written as it came; see [Clean].
package plain

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/mattn/go-runewidth"
)

// screen counts the columns that characters take. Those of ambiguous width count as narrow whatever
// the locale: that is how nearly all terminals draw them, in China too, and the output does not
// depend on where it was made.
var screen = &runewidth.Condition{StrictEmojiNeutral: true}

// maxMarks is how many combining marks may follow a character. Some scripts need a few; a tower of
// them covers other lines.
const maxMarks = 3

// Clean makes a value safe to show on a line of its own. Control characters, escape sequences, line
// breaks, characters that reverse or hide text, and bytes that are not UTF-8 become escapes.
func Clean(s string) string {
	var b strings.Builder
	marks := maxMarks // a mark at the beginning would change what stands before the value
	for i, c := range s {
		_, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case unicode.Is(unicode.M, c):
			if marks++; marks <= maxMarks {
				b.WriteRune(c)
			}
			continue
		case c == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unicode.IsPrint(c), c == '\u3000': // the space of Chinese text
			b.WriteRune(c)
		case unicode.Is(unicode.Zs, c):
			b.WriteByte(' ')
		case c < 0x100 && !strings.ContainsRune("\n\r\t", c):
			fmt.Fprintf(&b, `\x%02x`, c)
		default:
			b.WriteString(strings.Trim(strconv.QuoteRune(c), "'"))
		}
		marks = 0
	}
	return b.String()
}

// Width is how many columns a clean string takes.
func Width(s string) int { return screen.StringWidth(s) }

// Cut shortens a clean string to at most w columns; what is left out shows as "…".
func Cut(s string, w int) string {
	if w <= 0 {
		return ""
	}
	return screen.Truncate(s, w, "…")
}

// Pad makes a clean string take exactly w columns.
func Pad(s string, w int, right bool) string {
	if s = Cut(s, w); right {
		return screen.FillLeft(s, w)
	}
	return screen.FillRight(s, w)
}

// Span tells a duration in its two largest units: 7s, 12m03s, 3h02m, 2d04h.
func Span(d time.Duration) string {
	s := int64(max(0, d).Seconds())
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	case s < 24*3600:
		return fmt.Sprintf("%dh%02dm", s/3600, s/60%60)
	}
	return fmt.Sprintf("%dd%02dh", s/(24*3600), s/3600%24)
}

// Clock tells a time in now's zone: to the second, with as much of the date as it takes.
func Clock(t, now time.Time) string {
	t = t.In(now.Location())
	switch {
	case t.Year() != now.Year():
		return t.Format("2006-01-02 15:04:05")
	case t.YearDay() != now.YearDay():
		return t.Format("01-02 15:04:05")
	}
	return t.Format("15:04:05")
}

// None stands in an empty cell, so that columns can be told apart by spaces.
const None = "-"

// Value is a value in a cell; nil, or blank: [None].
func Value(s *string) string {
	if s == nil {
		return None
	}
	return cmp.Or(strings.TrimSpace(Clean(*s)), None)
}

// Gap stands between two columns.
const Gap = "  "

// A Column of a table of rows of type T.
type Column[T any] struct {
	Title string
	Right bool // aligned
	Most  int  // how wide a cell may be
	Cell  func(T) string
}

// Table is a line for the titles and one for each row. Each column is as wide as it has to be.
func Table[T any](columns []Column[T], rows []T) []string {
	lines := make([]string, 1+len(rows))
	cells := make([]string, 1+len(rows))
	for i, c := range columns {
		cells[0] = c.Title
		for j, r := range rows {
			cells[1+j] = c.Cell(r)
		}
		widest := 0
		for _, cell := range cells {
			widest = max(widest, min(Width(cell), c.Most))
		}
		for j, cell := range cells {
			if i > 0 {
				lines[j] += Gap
			}
			lines[j] += Pad(cell, widest, c.Right)
		}
	}
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return lines
}
