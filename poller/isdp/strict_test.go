package isdp

import (
	"bytes"
	"encoding/json"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// strict reports whether every parser takes a JSON text: it is valid UTF-8, has no half of a
// surrogate pair, and no U+0000, which PostgreSQL's jsonb refuses.
func strict(text string) bool {
	if !utf8.ValidString(text) ||
		!jsontext.Value(text).IsValid(jsontext.AllowDuplicateNames(true)) {
		return false
	}
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	for {
		token, err := d.Token()
		if err != nil {
			return err.Error() == "EOF"
		}
		if s, ok := token.(string); ok && strings.ContainsRune(s, 0) {
			return false
		}
	}
}
