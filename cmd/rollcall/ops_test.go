package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-events/rollcall/internal/ops"
)

// listening are operators with the given environment besides what must be.
func listening(t *testing.T, spare bool, env map[string]string) (*daemon, error) {
	t.Helper()
	setEnv(t, working(env))
	s, _, err := loadSettings(withVendor)
	if err != nil {
		t.Fatal(err)
	}
	return newDaemon(s, slog.New(slog.DiscardHandler), nil, spare)
}

// The pages are served until what they tell of has ended, and say that it is about to.
func TestPagesDuringAStop(t *testing.T) {
	o, err := listening(t, false, map[string]string{"ROLLCALL_HTTP_LISTEN": "localhost:0",
		"ROLLCALL_OPS_LISTEN": "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	failed := errors.New("what do returned")
	err = o.during(ctx, func(ctx context.Context) error {
		asked, end := context.WithTimeout(t.Context(), 10*time.Second)
		defer end()
		for _, base := range []string{o.url(), "http://" + o.probes.Addr().String()} {
			if r, err := ops.Ready(asked, base); err != nil || r.Role != ops.RoleStarting {
				t.Errorf("%s: %+v, %v", base, r, err)
			}
		}
		cancel()
		for {
			r, err := ops.Ready(asked, o.url())
			if err != nil {
				t.Fatal(err)
			}
			if r.Role == ops.RoleStopping {
				return failed
			}
		}
	})
	if err != failed {
		t.Errorf("during returned %v", err)
	}
	if _, err := ops.Ready(t.Context(), o.url()); err == nil {
		t.Error("somebody still answers")
	}
}

// The demo moves where nobody has asked for the address, and the daemon never does.
func TestPagesElsewhere(t *testing.T) {
	// another test's demo may have it, and give it back
	for deadline := time.Now().Add(5 * time.Second); ; {
		ln, err := net.Listen("tcp", "127.0.0.1:8080")
		if err == nil {
			defer ln.Close()
			break
		}
		if time.Now().After(deadline) {
			break // it is taken, and stays so
		}
		time.Sleep(10 * time.Millisecond)
	}
	o, err := listening(t, true, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer o.pages.Close()
	if url := o.url(); !strings.HasPrefix(url, "http://127.0.0.1:") ||
		url == "http://127.0.0.1:8080/" {
		t.Errorf("the pages are at %s", url)
	}
	for name, c := range map[string]struct {
		spare bool
		env   map[string]string
	}{
		"the daemon": {false, nil},
		"a demo that was told": {true,
			map[string]string{"ROLLCALL_HTTP_LISTEN": "127.0.0.1:8080"}},
		"a demo that was told ops": {true, map[string]string{"ROLLCALL_HTTP_LISTEN": "off",
			"ROLLCALL_OPS_LISTEN": "127.0.0.1:8080"}},
	} {
		if _, err := listening(t, c.spare, c.env); !errors.Is(err, ops.ErrInUse) ||
			!strings.Contains(err.Error(), "127.0.0.1:8080") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if o, err := listening(t, false,
		map[string]string{"ROLLCALL_HTTP_LISTEN": "off"}); err != nil || o.url() != "" ||
		o.pages != nil || o.probes != nil {
		t.Errorf("off: %+v, %v", o, err)
	}
}

// Profiles are for those who have asked for them, on loopback.
func TestProfilesOnRequest(t *testing.T) {
	for _, c := range []struct {
		listen, level string
		want          bool
	}{
		{"127.0.0.1:0", "debug", true}, {"[::1]:0", "debug", true}, {"127.0.0.1:0", "info", false},
		{":0", "debug", false}, {"0.0.0.0:0", "debug", false},
	} {
		o, err := listening(t, false, map[string]string{"ROLLCALL_HTTP_LISTEN": c.listen,
			"ROLLCALL_LOG_LEVEL": c.level})
		if err != nil {
			if strings.HasPrefix(c.listen, "[") {
				continue // a machine without IPv6
			}
			t.Fatal(err)
		}
		if o.profiles != c.want {
			t.Errorf("on %s at level %s: %v", c.listen, c.level, o.profiles)
		}
		_ = o.pages.Close()
	}
}

// Who opens the board to others is told what that means, in the one line that warns of it.
func TestBeyondLoopbackIsLogged(t *testing.T) {
	for listen, want := range map[string]bool{"127.0.0.1:0": false, ":0": true} {
		setEnv(t, working(map[string]string{"ROLLCALL_HTTP_LISTEN": listen}))
		s, _, err := loadSettings(withVendor)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		o, err := newDaemon(s, slog.New(slog.NewTextHandler(&out, nil)), nil, false)
		if err != nil {
			t.Fatal(err)
		}
		_ = o.pages.Close()
		if !strings.Contains(out.String(), "serving pages") {
			t.Errorf("on %s nothing is logged", listen)
		}
		warns := strings.Contains(out.String(), "level=WARN") &&
			strings.Contains(out.String(), "without a password and under any Host")
		if warns != want {
			t.Errorf("on %s it is logged: %t, want %t\n%s", listen, warns, want, &out)
		}
	}
}
