// Package setting lets packages talk about settings by the fields of their Config, while operators
// read the names that they know: environment variables. Only the command knows those.
//
// A field's name means one setting in the whole program, whichever Config holds it.
package setting

import (
	"fmt"
	"regexp"
)

// Error says that one field of a Config can't be used. A Validate method joins all of them with
// [errors.Join], so that whoever has to mend a configuration is told everything at once.
type Error struct {
	Field string // the Go name of the Config's field, or what the operator calls the setting
	Value string // what it holds; empty where it is a secret or not set
	Want  string // what would be right, as the end of a sentence: "a duration above zero"
}

func (e *Error) Error() string {
	if e.Value == "" {
		return fmt.Sprintf("%s: want %s", name(e.Field), e.Want)
	}
	return fmt.Sprintf("%s is %q: want %s", name(e.Field), e.Value, e.Want)
}

// names says what operators call the setting of a field.
var names map[string]string

// Use says what operators call the settings, by the names of their fields. The command calls it
// once, before anything else runs; without it, fields keep their own names.
func Use(byField map[string]string) { names = byField }

func name(field string) string {
	if n, ok := names[field]; ok {
		return n
	}
	return field
}

var placeholder = regexp.MustCompile(`\{([A-Z][A-Za-z]*)\}`)

// Text puts the names that operators know in place of fields in braces: "is {BaseURL} right?"
// becomes "is VENDOR_URL right?", where that is the variable's name. text must be the program's
// own, with nothing in it that somebody else has written.
func Text(text string) string {
	return placeholder.ReplaceAllStringFunc(text, func(field string) string {
		return name(field[1 : len(field)-1])
	})
}
