package check

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// dur is a duration as people say it: about three digits of it.
func dur(d time.Duration) string {
	unit := time.Minute
	switch {
	case d < 0:
		return "-" + dur(-d)
	case d < time.Millisecond:
		return "<1ms"
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", int(d.Hours())/24)
	case d < time.Second:
		unit = time.Millisecond
	case d < 10*time.Second:
		unit = 100 * time.Millisecond
	case d < time.Hour:
		unit = time.Second
	}
	text := d.Round(unit).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// bytesText is a number of bytes in the units that the settings take.
func bytesText(n int64) string {
	for i, unit := range []string{"TiB", "GiB", "MiB", "KiB"} {
		if of := int64(1) << (40 - 10*i); n >= of {
			number := strconv.FormatFloat(float64(n)/float64(of), 'f', 1, 64)
			return strings.TrimSuffix(number, ".0") + " " + unit
		}
	}
	return fmt.Sprintf("%d bytes", n)
}

// count is "1 agent", "2 agents".
func count[T int | int64 | uint64](n T, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// at is a point in time, to the second.
func at(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

// list joins words, and leaves out what would be too many.
func list(words []string, most int) string {
	if len(words) > most {
		return strings.Join(words[:most], ", ") + fmt.Sprintf(" and %d more", len(words)-most)
	}
	return strings.Join(words, ", ")
}
