//go:build unix

package vendor

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/internal/test/e2e"
	. "github.com/rollcall-events/rollcall/internal/test/isdpsim"
	"github.com/rollcall-events/rollcall/internal/test/wait"
	"github.com/rollcall-events/rollcall/schemas"
)

// Everything that vendors and gateways do to answers, one after the other, to one process. Its log
// is rollcall's own from the first line to the last, shows no secret, and in the end the roster is
// the truth. Run it with -v to read the log as an operator would.
func TestBadDay(t *testing.T) {
	t.Parallel()
	v := e2e.NewVendor(t, Config{Agents: 40})
	env, url := e2e.Embedded(t)
	p := e2e.Rollcall(t, e2e.Settings(v.Env(), env, map[string]string{
		"ROLLCALL_POLL_INTERVAL": "100ms", "ROLLCALL_PAGE_SIZE": "10",
		"ROLLCALL_REQUEST_TIMEOUT": "1s",
		"ROLLCALL_RATE_LIMIT":      "100", "ROLLCALL_LOG_LEVEL": "info",
	}))
	p.WaitFor("first complete sweep")
	nc := e2e.Connect(t, url)
	health := func() (h schemas.Health) {
		if m, ok := e2e.Last(nc, schemas.HealthSubject(886)); ok {
			_ = json.Unmarshal([]byte(m.Body), &h)
		}
		return h
	}
	ids := v.IDs()
	for _, phase := range []struct {
		name   string
		fault  Hook
		health schemas.HealthReason // that it comes to; "": none
		until  string               // what the log says of it
	}{
		{"a switch of protocols", OnAgents(Switch("websocket")), "unusable", "switch of protocols"},
		{"cut short", OnAgents(Truncated(700)), "unusable", "cut short"},
		{"HTML", OnAgents(HTML()), "unusable", "HTML"},
		{"commas and tabs", OnAgents(Respelled(commas)), "", ""},
		{"a byte order mark", OnAgents(prefixed("\ufeff")), "", ""},
		{"GBK, named",
			OnAgents(All(Respelled(inGBK), Header("Content-Type", "application/json;charset=GBK"))),
			"", ""},
		{"GBK, unnamed", OnAgents(Body(inGBK)), "unusable", "can be read as GBK"},
		{"a row that breaks off", OnPage(1, Body(func(b []byte) []byte {
			return bytes.Replace(b, []byte(`"agentName":"`), []byte(`"agentName":""`), 1)
		})), "", "no JSON object from its byte"},
		{"values that no text may hold", OnPage(2, ChangeRow(1, Fields{"mood": `"\ud800"`})), "",
			"not every JSON parser takes"},
		{"onlineStatus a boolean",
			OnAgents(replaceAll(`"onlineStatus":`, `"onlineStatus":true,"was":`)), "unusable",
			"onlineStatus"},
		{"compressed, unsaid", OnAgents(Respelled(gzipped)), "", ""},
		{"nobody listed", OnAgents(All(EmptyListing(), Respelled(nullResult))), schemas.MissingMany,
			"went missing"},
		{"bytes behind the answer", OnAgents(Behind("leaked " + v.Secrets()[0])), "", ""},
		{"every second token refused", EverySecond(OnAgents(InvalidTokenJSON(200))), "", ""},
		{"a throttle", EverySecond(OnAgents(Status(403))), "", "slowing down"},
	} {
		v.SetFault(phase.fault)
		begun := v.Stats().PageRequests
		wait.Eventually(t, phase.name+": requests", func() bool {
			return v.Stats().PageRequests >= begun+6
		})
		if phase.health != "" {
			wait.Eventually(t, phase.name+": health "+string(phase.health), func() bool {
				return health().Reason == phase.health
			})
		}
		if phase.until != "" && !strings.Contains(p.Stderr(), phase.until) {
			wait.Eventually(t, phase.name+": "+phase.until, func() bool {
				return strings.Contains(p.Stderr(), phase.until)
			})
		}
		v.SetFault(nil)
		wait.Eventually(t, phase.name+": health is ok again", func() bool {
			return health().State == schemas.HealthOK
		})
	}
	v.SetOnline(ids[0], true)
	v.SetOnline(ids[1], false)
	v.RevokeTokens()
	wait.Eventually(t, "the roster to be the truth", func() bool {
		roster := e2e.Roster(t, nc, 886)
		for _, row := range v.Listing() {
			want, _, err := packed.Decode(row.JSON, 886)
			var got schemas.Event
			if err != nil || json.Unmarshal([]byte(roster[row.ID].Body), &got) != nil ||
				got.Data.Online != want.Online() {
				return false
			}
		}
		return len(roster) == 40
	})
	if code, _ := p.Terminate(); code != 0 {
		t.Errorf("exit %d", code)
	}
	for line := range strings.Lines(p.Stderr()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("not a line of rollcall's own log: %s", line)
		}
	}
	p.NoSecrets(v.Secrets()...)
	t.Log(p.Stderr())
}

func replaceAll(old, with string) Fault {
	return Body(func(b []byte) []byte { return bytes.ReplaceAll(b, []byte(old), []byte(with)) })
}
