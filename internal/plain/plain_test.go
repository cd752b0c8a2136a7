package plain

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/rollcall-events/rollcall/internal/test/hostile"
)

func TestClean(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"jian.guo_17813@x <a&b>", "jian.guo_17813@x <a&b>"},
		{"欧阳婷婷", "欧阳婷婷"},
		{"王\u3000芳", "王\u3000芳"},
		{"Zoë Ñandú", "Zoë Ñandú"},
		{"e\u0301", "e\u0301"},
		{"a\u00a0b", "a b"},
		{"\x1b[2J\x1b]0;owned\x07", `\x1b[2J\x1b]0;owned\x07`},
		{"\u009b31m", `\x9b31m`},
		{"a\nb\r\tc\x00\x7f", `a\nb\r\tc\x00\x7f`},
		{"admin\u202egnp.exe", `admin\u202egnp.exe`},
		{"\u2066x\u2069\u200b\u200f\ufeff", `\u2066x\u2069\u200b\u200f\ufeff`},
		{"a\u2028b\u2029", `a\u2028b\u2029`},
		{"\U000e0041\U000f0000", `\U000e0041\U000f0000`},
		{"\xff\x9b王", `\xff\x9b王`},
		{"\ufffd", "\ufffd"},
		{"\u0301x", "x"},
		{"a" + strings.Repeat("\u0300", 50) + "b", "a" + strings.Repeat("\u0300", maxMarks) + "b"},
	} {
		if got := Clean(c.in); got != c.want {
			t.Errorf("Clean(%+q) = %+q, want %+q", c.in, got, c.want)
		}
	}
}

func TestCleanIsHarmless(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := hostile.Text.Draw(t, "value")
		if got := Clean(s); !hostile.Harmless(got) {
			t.Fatalf("Clean(%+q) = %+q", s, got)
		}
	})
}

func TestPad(t *testing.T) {
	for _, c := range []struct {
		in    string
		w     int
		right bool
		want  string
	}{
		{"王芳", 6, false, "王芳  "},
		{"王芳", 6, true, "  王芳"},
		{"王芳", 4, false, "王芳"},
		{"王芳", 3, false, "王…"},
		{"王芳", 2, false, "… "},
		{"欧阳婷婷", 6, false, "欧阳… "},
		{"jianguo", 4, false, "jia…"},
		{"jianguo", 1, false, "…"},
		{"jianguo", 0, false, ""},
		{"", 2, false, "  "},
	} {
		if got := Pad(c.in, c.w, c.right); got != c.want {
			t.Errorf("Pad(%q, %d, %t) = %q, want %q", c.in, c.w, c.right, got, c.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		s, w := Clean(hostile.Text.Draw(t, "value")), rapid.IntRange(0, 40).Draw(t, "width")
		if got := Pad(s, w, rapid.Bool().Draw(t, "right")); Width(got) != w {
			t.Fatalf("Pad(%+q, %d) is %d wide: %+q", s, w, Width(got), got)
		}
	})
}

func TestSpan(t *testing.T) {
	for _, c := range []struct {
		in   time.Duration
		want string
	}{
		{-time.Second, "0s"}, {0, "0s"}, {999 * time.Millisecond, "0s"}, {59 * time.Second, "59s"},
		{time.Minute, "1m00s"},
		{time.Hour - time.Second, "59m59s"}, {3*time.Hour + 2*time.Minute, "3h02m"},
		{24 * time.Hour, "1d00h"}, {52 * time.Hour, "2d04h"},
	} {
		if got := Span(c.in); got != c.want {
			t.Errorf("Span(%v) = %s, want %s", c.in, got, c.want)
		}
	}
}

func TestClock(t *testing.T) {
	now := time.Date(2026, 11, 22, 0, 30, 0, 0, time.FixedZone("CST", 8*3600))
	for _, c := range []struct {
		in   time.Time
		want string
	}{
		{now.Add(-29 * time.Minute), "00:01:00"},
		{now.Add(-31 * time.Minute).UTC(), "11-21 23:59:00"},
		{now.AddDate(-1, 0, 0), "2025-11-22 00:30:00"},
	} {
		if got := Clock(c.in, now); got != c.want {
			t.Errorf("Clock(%v) = %s, want %s", c.in, got, c.want)
		}
	}
}
