//go:build ci && unix

package e2e

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
)

// All of /metrics is as Prometheus' own tool (Debian's package prometheus) wants it.
func TestPromtool(t *testing.T) {
	t.Parallel()
	v := NewVendor(t, isdpsim.Config{Agents: 60})
	env, _ := Embedded(t)
	w := watch(t, "promtool", v.Env(), env)
	w.until("healthy", is("ok", ""))
	code, text := w.get(w.ops+"/metrics", "")
	if code != 200 {
		t.Fatalf("/metrics answers HTTP %d", code)
	}
	check := exec.CommandContext(t.Context(), "promtool", "check", "metrics")
	check.Stdin = strings.NewReader(text)
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}
