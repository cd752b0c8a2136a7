// Package setting holds the one error type by which every package reports an unusable field of its
// Config.
package setting

import "fmt"

// Error says that one field of a Config can't be used. A Validate method joins all of them with
// [errors.Join], so that whoever has to mend a configuration is told everything at once.
type Error struct {
	Field string // the Go name of the Config's field
	Value string // what it holds; empty where it is a secret or not set
	Want  string // what would be right, as the end of a sentence: "a duration above zero"
}

func (e *Error) Error() string {
	if e.Value == "" {
		return fmt.Sprintf("%s: want %s", e.Field, e.Want)
	}
	return fmt.Sprintf("%s is %q: want %s", e.Field, e.Value, e.Want)
}
