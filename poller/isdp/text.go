package isdp

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/unicode"
)

// A text is the body of an answer, ready to be read as UTF-8.
type text struct {
	utf8 []byte
	// lossy says that the answer is in another charset, and holds bytes that mean nothing in it:
	// there utf8 has a U+FFFD.
	lossy   bool
	charset string // as the answer's header names it; "": it names none that is known
}

// maxLayers is how often an answer may have been compressed on its way: once by the vendor, once by
// a gateway.
const maxLayers = 2

// decompressed returns the body as it was before it was compressed. Its own first bytes say
// whether it was: gateways compress without saying so, and leave the header where they decompress.
// No JSON, HTML or XML begins like that.
func decompressed(body []byte) ([]byte, error) {
	for range maxLayers {
		var in io.ReadCloser
		var err error
		switch {
		case bytes.HasPrefix(body, []byte{0x1f, 0x8b}):
			in, err = gzip.NewReader(bytes.NewReader(body))
		case isZlib(body):
			in, err = zlib.NewReader(bytes.NewReader(body))
		default:
			return body, nil
		}
		if err == nil {
			body, err = io.ReadAll(io.LimitReader(in, maxBody+1))
		}
		switch {
		case errors.Is(err, io.ErrUnexpectedEOF):
			return nil, errors.New("the answer is compressed, and cut short")
		case err != nil:
			return nil, fmt.Errorf("the answer is compressed, and damaged: %w", err)
		case len(body) > maxBody:
			return nil, fmt.Errorf("the answer is larger than %d MiB", maxBody>>20)
		}
	}
	return body, nil
}

// isZlib reports whether a body begins with zlib's two bytes (RFC 1950, section 2.2), as what HTTP
// calls deflate does.
func isZlib(body []byte) bool {
	return len(body) > 2 && body[0] == 0x78 && (int(body[0])<<8|int(body[1]))%31 == 0
}

const mark = "\ufeff" // the byte order mark

// decodeText decodes a body by its Content-Type's charset. A byte order mark knows better than the
// header; without either it is UTF-8.
func decodeText(body []byte, contentType string) text {
	charset, enc := charsetOf(contentType)
	switch {
	case bytes.HasPrefix(body, []byte(mark)):
		enc = nil
	case bytes.HasPrefix(body, []byte("\xff\xfe")), bytes.HasPrefix(body, []byte("\xfe\xff")):
		enc = unicode.UTF16(unicode.BigEndian, unicode.UseBOM)
	case charset == "utf-16" && bytes.HasPrefix(body, []byte{0}): // all begin with ASCII
		enc = unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM)
	}
	t := text{utf8: body, charset: charset}
	if enc != nil {
		// A decoder puts U+FFFD where it can't decode, and has no other errors.
		if decoded, err := enc.NewDecoder().Bytes(body); err == nil {
			t.utf8, t.lossy = decoded, bytes.Contains(decoded, []byte("\ufffd"))
		}
	}
	for bytes.HasPrefix(t.utf8, []byte(mark)) { // two gateways, two marks
		t.utf8 = t.utf8[len(mark):]
	}
	return t
}

// charsetName finds the charset in a Content-Type, however it is spelt: quoted in any way or not at
// all, with blanks, twice (the first one counts), or in a list.
var charsetName = regexp.MustCompile(`(?i)\bcharset\s*=[\s"']*([^\s"';,]+)`)

// charsetOf reads the charset of a Content-Type. The encoding is nil where the header names none,
// none that is known, or UTF-8.
func charsetOf(contentType string) (string, encoding.Encoding) {
	found := charsetName.FindStringSubmatch(contentType)
	if found == nil {
		return "", nil
	}
	name := found[1]
	switch strings.ToLower(name) {
	case "us-ascii", "ascii", "ansi_x3.4-1968":
		return "", nil // of which UTF-8 is a superset
	case "cp936", "ms936", "windows-936", "euc-cn":
		name = "gbk"
	}
	enc, err := htmlindex.Get(name)
	if err != nil {
		return "", nil
	}
	if canonical, err := htmlindex.Name(enc); err == nil && canonical == "utf-8" {
		return canonical, nil
	}
	return strings.ToLower(name), enc
}

// readsAs names a charset other than UTF-8 in which bytes are text, as far as that can be guessed.
// GBK is what Chinese systems that do not speak UTF-8 speak.
func readsAs(raw []byte) string {
	gbk, err := htmlindex.Get("gbk")
	if err != nil {
		return ""
	}
	decoded, err := gbk.NewDecoder().Bytes(raw)
	if err != nil || bytes.Contains(decoded, []byte("\ufffd")) {
		return ""
	}
	return "GBK"
}

// byChance reports whether a text in GBK may have come out as UTF-8 by chance: then all that is not
// ASCII in it are characters of two bytes, which no Chinese one has in UTF-8.
func byChance(raw []byte) bool {
	ascii := true
	for _, c := range string(raw) {
		if n := utf8.RuneLen(c); n > 2 {
			return false
		} else if n == 2 {
			ascii = false
		}
	}
	return !ascii && readsAs(raw) != ""
}
