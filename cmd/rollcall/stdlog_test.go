package main

import (
	"bytes"
	"fmt"
	stdlog "log"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// What libraries write to the standard logger comes out as lines of the log, without what they
// quote.
func TestStandardLog(t *testing.T) {
	flags, out := stdlog.Flags(), stdlog.Writer()
	defer func() { stdlog.SetFlags(flags); stdlog.SetOutput(out) }()
	const secret = "tok-s3cret"
	for _, tc := range []struct{ line, want string }{
		{fmt.Sprintf("Unsolicited response received on idle HTTP channel starting with %q; err=%v",
			"{\"access_token\":\""+secret, nil),
			"a server sends bytes behind an answer; they are dropped, " +
				"and the connection is closed"},
		{fmt.Sprintf("http2: Transport encoding header %q = %q", "authorization", "bearer "+secret),
			"http2: Transport encoding header …"},
		{"protocol error: received " + fmt.Sprintf("%q", secret), "protocol error: received …"},
		{"one\ntwo " + secret, "one"},
		{"a `" + secret + "`", "a …"},
		{"red \x1b[31m", "red [31m"},
		{strings.Repeat("x", 1000), strings.Repeat("x", 120) + "…"},
	} {
		synctest.Test(t, func(t *testing.T) {
			var b bytes.Buffer
			takeStandardLog(slog.New(slog.NewJSONHandler(&b, nil)))
			for range 100 {
				stdlog.Print(tc.line)
			}
			if n := strings.Count(b.String(), "\n"); n != 1 ||
				!strings.HasPrefix(b.String(), `{"time":`) {
				t.Errorf("%d lines: %s", n, &b)
			}
			if !strings.Contains(b.String(), tc.want) || strings.Contains(b.String(), secret) {
				t.Errorf("%q became %s", tc.line, &b)
			}
			b.Reset()
			time.Sleep(logAgain)
			stdlog.Print(tc.line)
			if !strings.Contains(b.String(), `"leftOut":99`) {
				t.Errorf("nothing tells of 99 lines left out: %s", &b)
			}
		})
	}
}
