package listing

import (
	"fmt"
	"slices"
)

// Class is what kind of trouble an error is. They are the reasons that health gives too.
type Class string

const (
	// Inconsistent: pages that arrived, and do not fit together.
	Inconsistent Class = "inconsistent"
	// Unusable: an answer that is none: HTML, cut short, too large, or one that says no.
	Unusable Class = "unusable"
	// Unreachable: network, timeouts, 5xx, 429, time that ran out, a context that ended.
	Unreachable Class = "unreachable"
	// Credentials: refused, or for another tenant. Somebody has to look.
	Credentials Class = "credentials"
)

// worst are the classes, the most telling last.
var worst = []Class{Inconsistent, Unusable, Unreachable, Credentials}

// An Error is why a page, or a whole listing, can't be had.
type Error struct {
	Class Class
	Op    string // what was being done, to what: "read page 3 of type 10 from https://…"
	Err   error  // what went wrong; its text holds no secret
	Hint  string // what to look at: "is the URL right?"; empty where Err speaks for itself

	Fatal   bool // no other request of this sweep would fare better
	Refused bool // the vendor said no: to a page behind the last one, that there is none
}

// Error implements error.
func (e *Error) Error() string {
	text := "poller: "
	if e.Op != "" {
		text += e.Op + ": "
	}
	text += e.Err.Error()
	if e.Hint != "" {
		text += "; " + e.Hint
	}
	return text
}

// Unwrap returns what went wrong.
func (e *Error) Unwrap() error { return e.Err }

// Doing returns e with what was being done, unless it says so already.
func (e *Error) Doing(op string) *Error {
	if e.Op != "" {
		return e
	}
	named := *e
	named.Op = op
	return &named
}

// Worse returns the more telling of two errors, the first of equals; either may be nil.
func Worse(a, b *Error) *Error {
	if a == nil || b != nil && slices.Index(worst, b.Class) > slices.Index(worst, a.Class) {
		return b
	}
	return a
}

// Ended is the error of what was not done because a context was over, with its Err and its Cause.
func Ended(err, cause error) *Error {
	if cause != err {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	return &Error{Class: Unreachable, Err: err, Fatal: true}
}
