package jsonwalk

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Mark begins what stands in a repaired text for something that no text may hold: the mark, its
// value in hexadecimal digits, and "}". A mark that a text has of its own is marked itself, so that
// texts that were different stay different.
const Mark = "\ufffd{"

// Repair makes a JSON value, which [Walker] reads, one that every parser takes: valid UTF-8,
// without half a surrogate pair, without the character U+0000 (which PostgreSQL's jsonb refuses),
// and without numbers that no float64 holds, which become strings. What can't stay is marked. Of a
// value that needs none of this, repaired is false, and the value is returned as it is.
func Repair(value []byte) (_ []byte, repaired bool) {
	if plain(value) {
		return value, false
	}
	marked := mark(value)
	return marked, !bytes.Equal(marked, value)
}

// plain reports whether a value surely needs no repair: nothing in it is escaped, or begins a mark,
// and no number in it is too large.
func plain(value []byte) bool {
	if len(value) > 308 && value[0] != '"' { // as many digits always fit into a float64
		return false
	}
	ascii := true
	for _, c := range value {
		if c == '\\' || c == 'e' || c == 'E' { // an exponent
			return false
		}
		ascii = ascii && c < utf8.RuneSelf
	}
	return ascii || utf8.Valid(value) && !bytes.Contains(value, []byte("\ufffd"))
}

// mark replaces what has to be marked. Outside strings JSON has none of it.
func mark(value []byte) []byte {
	out := make([]byte, 0, len(value)+16)
	quoted := false
	for i := 0; i < len(value); {
		if n := number(value[i:]); !quoted && n > 0 {
			if _, err := strconv.ParseFloat(string(value[i:i+n]), 64); err != nil {
				out = fmt.Appendf(out, `"%snumber}%s"`, Mark, value[i:i+n])
			} else {
				out = append(out, value[i:i+n]...)
			}
			i += n
			continue
		}
		r, n := character(value[i:])
		if r == '"' && n == 1 {
			quoted = !quoted
		}
		switch next := i + n; {
		case r == invalid:
			out = fmt.Appendf(out, "%s%02x}", Mark, value[i])
		case r == 0, utf16.IsSurrogate(r):
			out = fmt.Appendf(out, "%s%04x}", Mark, r)
		case r == utf8.RuneError && startsBrace(value[next:]):
			out = append(out, Mark+"fffd}"...)
		default:
			out = append(out, value[i:next]...)
		}
		i += n
	}
	return out
}

// number returns how long the number is that text begins with; 0: it begins with none.
func number(text []byte) int {
	if text[0] != '-' && (text[0] < '0' || text[0] > '9') {
		return 0
	}
	n := bytes.IndexFunc(
		text,
		func(r rune) bool { return !strings.ContainsRune("0123456789+-.eE", r) },
	)
	if n < 0 {
		return len(text)
	}
	return n
}

// invalid is the character of a byte that begins none.
const invalid = -1

// character returns the first character of text, half a surrogate pair where an escape is one, and
// how many bytes it takes. Of escapes other than \u… it returns the backslash, and takes both
// bytes.
func character(text []byte) (r rune, n int) {
	if text[0] != '\\' {
		r, n = utf8.DecodeRune(text)
		if r == utf8.RuneError && n == 1 {
			r = invalid
		}
		return r, n
	}
	first, ok := escaped(text)
	if !ok {
		return '\\', min(2, len(text))
	}
	if second, ok := escaped(text[6:]); ok {
		if pair := utf16.DecodeRune(first, second); pair != utf8.RuneError {
			return pair, 12
		}
	}
	return first, 6
}

// escaped reads an escape of the form \uXXXX.
func escaped(text []byte) (rune, bool) {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return 0, false
	}
	v, err := strconv.ParseUint(string(text[2:6]), 16, 16)
	return rune(v), err == nil
}

// startsBrace reports whether text begins with "{", escaped or not.
func startsBrace(text []byte) bool {
	if len(text) == 0 {
		return false
	}
	r, _ := character(text)
	return r == '{'
}
