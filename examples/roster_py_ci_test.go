//go:build ci && unix

package examples

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/rollcall-events/rollcall/internal/test/e2e"
	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
	"github.com/rollcall-events/rollcall/internal/test/natstest"
	"github.com/rollcall-events/rollcall/internal/test/wait"
	"github.com/rollcall-events/rollcall/schemas"
)

// The roster in Python follows through a restart of rollcall, and with it of the embedded server:
// what changes before, meanwhile and after is told, once.
func TestRosterPython(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Fatal(err)
	}
	script, err := filepath.Abs(filepath.Join("roster-py", "roster.py"))
	if err != nil {
		t.Fatal(err)
	}
	v := e2e.NewVendor(t, isdpsim.Config{Agents: 700}) // more than a request for messages brings
	ids := v.IDs()
	v.Atomically(func() {
		for i, id := range ids {
			v.SetOnline(id, i < 10)
		}
	})
	where, url := e2e.Embedded(t)
	settings := e2e.Settings(v.Env(), where)
	rollcall := e2e.Rollcall(t, settings)
	nc := e2e.Connect(t, url)
	wait.Eventually(t, "all states", func() bool {
		m, _ := e2e.Last(nc, "agent.watermark.886")
		var w schemas.Watermark
		return json.Unmarshal([]byte(m.Body), &w) == nil && w.Agents == len(ids)
	})
	roster := e2e.Start(t, python, map[string]string{"NATS_URL": url}, script)
	says := func(line string) {
		t.Helper()
		wait.Eventually(t, line, func() bool {
			if !roster.Running() {
				t.Fatalf("it has ended: exit %d", roster.Wait())
			}
			return strings.Contains("\n"+roster.Stdout(), "\n"+line)
		})
	}
	set := func(id int64, online bool) {
		v.SetOnline(id, online)
		word := "offline"
		if online {
			word = "online"
		}
		says(fmt.Sprintf("%s %d ", word, id))
	}
	says("700 agents, 10 on duty\n")
	says("fresh\n")
	set(ids[20], true)
	if code, _ := rollcall.Terminate(); code != 0 {
		t.Fatalf("exit %d", code)
	}
	v.SetOnline(ids[21], true)
	e2e.Rollcall(t, settings)
	says(fmt.Sprintf("online %d ", ids[21]))
	set(ids[20], false)
	for _, id := range []int64{ids[0], ids[20], ids[21]} {
		line := fmt.Sprintf("\nonline %d ", id)
		if n := strings.Count("\n"+roster.Stdout(), line); n != 1 {
			t.Errorf("%q is told %d times", line, n)
		}
	}
}

// Refused credentials end it, with a line that says so.
func TestRosterPythonRefused(t *testing.T) {
	t.Parallel()
	url, _ := natstest.StartOptions(t, &server.Options{Username: "reader", Password: "right"})
	script, err := filepath.Abs(filepath.Join("roster-py", "roster.py"))
	if err != nil {
		t.Fatal(err)
	}
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Fatal(err)
	}
	wrong := strings.Replace(url, "nats://", "nats://reader:wrong@", 1)
	roster := e2e.Start(t, python, map[string]string{"NATS_URL": wrong}, script)
	if code := roster.Wait(); code != 1 ||
		!strings.Contains(roster.Stderr(), "refuses the credentials") {
		t.Errorf("exit %d: %s", code, roster.Output())
	}
}
