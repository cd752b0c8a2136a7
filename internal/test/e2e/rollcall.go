//go:build unix

package e2e

import (
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/rollcall-events/rollcall/internal/natsd"
)

// Settings are those that tests start from: a fast pace, no page but the log's, and the log as JSON
// at debug level. Those in each of more are added in order; an empty value takes a setting out.
func Settings(more ...map[string]string) map[string]string {
	env := map[string]string{
		"ROLLCALL_POLL_INTERVAL":  "200ms",
		"ROLLCALL_RATE_LIMIT":     "1000",
		"ROLLCALL_PAGE_SIZE":      "25",
		"ROLLCALL_NATS_MAX_BYTES": "64MiB",
		"ROLLCALL_LEASE_TTL":      "2s",
		"ROLLCALL_INSTANCE":       "e2e",
		"ROLLCALL_HTTP_LISTEN":    "off",
		"ROLLCALL_LOG_LEVEL":      "debug",
		"ROLLCALL_LOG_FORMAT":     "json",
	}
	for _, m := range more {
		maps.Copy(env, m)
	}
	maps.DeleteFunc(env, func(_, v string) bool { return v == "" })
	return env
}

// Embedded are the settings of an embedded server on a port and a store of its own, and its URL.
func Embedded(t testing.TB) (env map[string]string, url string) {
	t.Helper()
	listen := fmt.Sprintf("127.0.0.1:%d", FreePort(t))
	return map[string]string{
		"ROLLCALL_NATS_LISTEN": listen,
		"ROLLCALL_DATA_DIR":    filepath.Join(t.TempDir(), "data"),
	}, "nats://" + listen
}

// Rollcall starts the built binary with these settings and nothing else.
func Rollcall(t testing.TB, env map[string]string, args ...string) *Process {
	t.Helper()
	return Start(t, Binary(t), env, args...)
}

// OpenStore serves the store that an embedded server has left behind, until the test ends.
func OpenStore(t testing.TB, dataDir string) *nats.Conn {
	t.Helper()
	srv, err := natsd.Start(natsd.Config{Listen: "127.0.0.1:0", DataDir: dataDir,
		MaxBytes: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Shutdown)
	nc, err := srv.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// NoSecrets fails the test where the process has written one of the secrets.
func (p *Process) NoSecrets(secrets ...string) {
	p.t.Helper()
	out := p.Output()
	for _, s := range secrets {
		if i := strings.Index(out, s); i >= 0 {
			line := out[strings.LastIndexByte(out[:i], '\n')+1:]
			line, _, _ = strings.Cut(line, "\n")
			p.t.Errorf("%s wrote a secret: %s", p.p.Name,
				strings.ReplaceAll(line, s, "«the secret»"))
		}
	}
}
