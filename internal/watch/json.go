package watch

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"unicode"
	"unicode/utf8"
)

// jsonLine is a message of the log as one line: {"subject":…,"seq":…,"message":…}, the message byte
// for byte as it is stored, but for line breaks between its tokens, which rollcall does not write.
// For a terminal, what could steer it is spelt as JSON lets it be: the same values.
func jsonLine(m *message, terminal bool) []byte {
	subject, err := json.Marshal(m.subject)
	if err != nil {
		subject = []byte(`""`) // a string can be encoded
	}
	b := append([]byte(`{"subject":`), subject...)
	b = append(b, `,"seq":`...)
	b = strconv.AppendUint(b, m.seq, 10)
	b = append(b, `,"message":`...)
	body := bytes.NewBuffer(b)
	if bytes.ContainsAny(m.data, "\r\n") {
		if err := json.Compact(body, m.data); err != nil {
			body.WriteString("null") // it was decoded before
		}
	} else {
		body.Write(m.data)
	}
	body.WriteString("}\n")
	if terminal {
		return spelt(body.Bytes())
	}
	return body.Bytes()
}

// spelt writes as \u escapes what is not for a terminal. In JSON it can stand in strings only.
func spelt(line []byte) []byte {
	out := make([]byte, 0, len(line))
	for i := 0; i < len(line); {
		c, n := utf8.DecodeRune(line[i:])
		switch {
		case c == utf8.RuneError && n == 1:
			out = append(out, `\ufffd`...)
		case c == '\n' || c == '\u3000' || unicode.IsPrint(c):
			out = append(out, line[i:i+n]...)
		case c >= 0x10000:
			c -= 0x10000
			out = fmt.Appendf(out, `\u%04x\u%04x`, 0xd800+c>>10, 0xdc00+c&0x3ff)
		default:
			out = fmt.Appendf(out, `\u%04x`, c)
		}
		i += n
	}
	return out
}
