package watch

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/mattn/go-runewidth"
)

// cells counts the columns that characters take. Those of ambiguous width count as narrow whatever
// the locale: that is how nearly all terminals draw them, in China too, and the output does not
// depend on where it was made.
var cells = &runewidth.Condition{StrictEmojiNeutral: true}

// maxMarks is how many combining marks may follow a character. Some scripts need a few; a tower of
// them covers other lines.
const maxMarks = 3

// clean makes a value safe to show on a line of its own. Control characters, escape sequences, line
// breaks, characters that reverse or hide text, and bytes that are not UTF-8 become escapes.
func clean(s string) string {
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

// width is how many columns a clean string takes.
func width(s string) int { return cells.StringWidth(s) }

// cut shortens a clean string to at most w columns; what is left out shows as "…".
func cut(s string, w int) string {
	if w <= 0 {
		return ""
	}
	return cells.Truncate(s, w, "…")
}

// pad makes a clean string take exactly w columns.
func pad(s string, w int, right bool) string {
	if s = cut(s, w); right {
		return cells.FillLeft(s, w)
	}
	return cells.FillRight(s, w)
}

// span tells a duration in its two largest units: 7s, 12m03s, 3h02m, 2d04h.
func span(d time.Duration) string {
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

// clock tells a time in now's zone: to the second, with as much of the date as it takes.
func clock(t, now time.Time) string {
	t = t.In(now.Location())
	switch {
	case t.Year() != now.Year():
		return t.Format("2006-01-02 15:04:05")
	case t.YearDay() != now.YearDay():
		return t.Format("01-02 15:04:05")
	}
	return t.Format("15:04:05")
}
