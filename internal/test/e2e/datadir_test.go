//go:build unix

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
	"github.com/rollcall-events/rollcall/internal/test/wait"
	"github.com/rollcall-events/rollcall/schemas"
)

// A data directory that is removed while it is in use, or emptied in part, is noticed and told, and
// what still stands is published again, above every revision that was used.
func TestDataDirectoryRemoved(t *testing.T) {
	t.Parallel()
	for name, part := range map[string]string{
		"whole": "", "the stream's messages": "jetstream/ROLLCALL/streams/AGENT_EVENTS/msgs",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bereft(t, part)
		})
	}
}

func bereft(t *testing.T, part string) {
	env, url := Embedded(t)
	v := NewVendor(t, isdpsim.Config{Agents: 20})
	w := watch(t, "bereft", v.Env(), env)
	w.until("healthy", is("ok", ""))
	if code, _ := w.Terminate(); code != 0 {
		t.Fatalf("exit %d", code)
	}
	w = watch(t, "bereft", v.Env(), env) // whose server finds a store
	w.until("healthy again", is("ok", ""))
	nc := Connect(t, url)
	agent := v.IDs()[0]
	subject := schemas.StateSubject(tenant, agent)
	last := func() (e schemas.Event) {
		if m, ok := Last(nc, subject); ok {
			_ = json.Unmarshal([]byte(m.Body), &e) // revision 0 then
		}
		return e
	}
	used := last().Data
	for range 3 {
		v.SetOnline(agent, !used.Online)
		wait.Eventually(t, "the agent's next revision", func() bool {
			return last().Data.Revision > used.Revision
		})
		used = last().Data
	}
	wait.Eventually(t, "the directory to be removed", func() bool {
		return os.RemoveAll(filepath.Join(env["ROLLCALL_DATA_DIR"], part)) == nil
	})
	w.WaitFor("was removed while it was in use")
	wait.Eventually(t, "a revision above the ones that were used", func() bool {
		return last().Data.Revision > used.Revision
	})
	w.until("healthy after all", is("ok", ""))
	if code, _ := w.Terminate(); code != 0 {
		t.Errorf("exit %d", code)
	}
}
