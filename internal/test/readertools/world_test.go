//go:build unix

package readertools

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/rollcall-events/rollcall/internal/test/e2e"
	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
	"github.com/rollcall-events/rollcall/internal/test/wait"
)

// toolDir holds what tests install; it is gone when they have ended.
var toolDir string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if toolDir, err = os.MkdirTemp("", "rollcall-readertools-"); err != nil {
			fmt.Fprintln(os.Stderr, "readertools:", err)
			return 1
		}
		defer os.RemoveAll(toolDir)
		return e2e.Main(m)
	}())
}

const (
	tenant = 886
	// 2^53 + 1: a float64, and so a number of JavaScript, can't hold it
	large = int64(9007199254740993)
)

// A world is a rollcall that follows a simulated tenant to which everything has happened that makes
// a message of its own kind.
type world struct {
	t      *testing.T
	vendor *e2e.Vendor
	nc     *nats.Conn
	live   *e2e.Recorder // from before the first message on
	url    string
}

// newWorld runs the built binary with these settings of where its log is, and returns when the
// script has been played.
func newWorld(t *testing.T, where map[string]string, url string) *world {
	t.Helper()
	w := &world{t: t, vendor: e2e.NewVendor(t, isdpsim.Config{Agents: 30, Seed: 7}),
		nc: e2e.Connect(t, url), live: e2e.Record(t, url), url: url}
	v := w.vendor
	v.Add(patched(t, v.NewRow(large), isdpsim.Fields{"onlineStatus": "1"}))
	ids := v.IDs()
	in, out, edited, deleted, gone := ids[0], ids[1], ids[2], ids[3], ids[4]
	for _, id := range ids[:len(ids)-1] {
		v.SetOnline(id, id == out || id == deleted || id == gone)
	}

	release := v.Hold()
	e2e.Rollcall(t, e2e.Settings(v.Env(), where))
	w.live.Ready(t)
	release()
	w.health(`"ok","since":`)

	v.SetOnline(in, true)
	v.SetOnline(out, false)
	w.state(in, `"agent.online"`, `"reason":"status"`)
	w.state(out, `"agent.offline"`, `"reason":"status"`)
	v.Edit(edited, isdpsim.Fields{"agentName": `"欧阳\u0000 \"<晓>\" \u2028\ud83d\ude00"`,
		"areaName": "null", "cityId": `""`, "type": `"a.b"`,
		"skills": `[ "5G", {"b" :  1.50e+3,"a":"\u0026\/", "a": 12345678901234567890.0 } ]`,
		"字段 ":    "null"})
	w.state(edited, `"reason":"fields"`, "欧阳")
	v.Edit(edited, isdpsim.Fields{"type": `"10"`, "skills": ""})
	w.state(edited, `"revision":3`)
	v.SetOnline(large, false)
	w.state(large, `"agent.offline"`)

	v.Delete(deleted)
	w.state(deleted, `"agent.offline"`, `"reason":"removed"`)
	v.Remove(gone)
	w.state(gone, `"agent.offline"`, `"reason":"removed"`)
	v.Undelete(deleted)
	v.Restore(gone)
	w.state(deleted, `"agent.online"`, `"reason":"appeared"`)
	w.state(gone, `"agent.online"`, `"reason":"appeared"`)
	fresh := v.AddAgent()
	w.state(fresh, `"reason":"appeared"`, `"revision":1`)

	v.SetFault(isdpsim.OnAgents(isdpsim.HTML()))
	w.health(`"failing"`, `"unusable"`)
	v.SetFault(nil)
	w.health(`"ok"`)
	v.Remove(ids[5:29]...)
	w.health(`"holding"`, `"missing"`)
	v.Restore(ids[5:29]...)
	w.health(`"ok"`)
	return w
}

func patched(t testing.TB, row json.RawMessage, fields isdpsim.Fields) json.RawMessage {
	t.Helper()
	p, err := isdpsim.Patch(row, fields)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// state waits until an agent's state contains each of the parts; health does so for the health
// message.
func (w *world) state(id int64, parts ...string) {
	w.t.Helper()
	w.last(fmt.Sprintf("agent.state.%d.%d", tenant, id), parts)
}

func (w *world) health(parts ...string) {
	w.t.Helper()
	w.last(fmt.Sprintf("agent.health.%d", tenant), parts)
}

func (w *world) last(subject string, parts []string) {
	w.t.Helper()
	wait.Eventually(w.t, subject+" to have "+strings.Join(parts, " and "), func() bool {
		m, ok := e2e.Last(w.nc, subject)
		return ok && !slices.ContainsFunc(parts, func(p string) bool {
			return !strings.Contains(m.Body, p)
		})
	})
}

// messages are all that a plain subscriber has had, up to the watermark that stands now.
func (w *world) messages() []e2e.Msg {
	w.t.Helper()
	m, ok := e2e.Last(w.nc, fmt.Sprintf("agent.watermark.%d", tenant))
	if !ok {
		w.t.Fatal("no watermark")
	}
	return w.live.Through(w.t, m.Seq)
}
