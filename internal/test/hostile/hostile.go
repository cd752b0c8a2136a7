// Package hostile makes text that nobody should trust, and knows what a terminal may be shown.
package hostile

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// Text is what somebody might write into a name to do harm, or just by accident.
var Text = rapid.OneOf(rapid.String(), rapid.StringOf(rapid.RuneFrom(nil, unicode.C, unicode.M,
	unicode.Z, unicode.Han, unicode.Arabic)),
	rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }))

// Harmless reports whether nothing in s can move a terminal's cursor, end a line or turn text
// around.
func Harmless(s string) bool {
	bad := func(c rune) bool {
		return unicode.In(c, unicode.C, unicode.Zl, unicode.Zp) ||
			unicode.Is(unicode.Bidi_Control, c)
	}
	return utf8.ValidString(s) && strings.IndexFunc(s, bad) < 0
}
