package listing

import (
	"errors"
	"strings"
	"testing"
)

func TestErrorText(t *testing.T) {
	e := (&Error{Class: Unusable, Err: errors.New("HTTP 404")}).Doing("read page 3").
		Doing("something else")
	if got := e.Error(); got != "poller: read page 3: HTTP 404" {
		t.Error(got)
	}
	if !strings.HasPrefix((&Error{Err: errors.New("x")}).Error(), "poller: x") {
		t.Error("no operation, no text")
	}
}
