//go:build unix

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
	"github.com/rollcall-events/rollcall/internal/test/wait"
)

// Every replica answers, the standby too, in NATS and over HTTP, where the board's own checks hold.
func TestQuestions(t *testing.T) {
	t.Parallel()
	server := NewNATSServer(t, "")
	server.Start()
	nc := Connect(t, server.URL)
	v := NewVendor(t, isdpsim.Config{Agents: 60})
	env := map[string]string{"ROLLCALL_NATS_URL": server.URL}
	first := watch(t, "first", v.Env(), env)
	second := watch(t, "second", v.Env(), env,
		map[string]string{"ROLLCALL_QUERY": "off"})
	type counts struct {
		Trusted bool
		Agents  int
		AsOf    struct{ Instance string }
	}
	var got counts
	asked := func() bool {
		m, err := nc.Request("rollcall.query.886.counts", nil, 5*time.Second)
		return err == nil && json.Unmarshal(m.Data, &got) == nil && got.Trusted
	}
	wait.Eventually(t, "an answer that can be trusted", asked)
	if got.Agents != 60 {
		t.Errorf("%d agents", got.Agents)
	}
	m, err := nc.Request("rollcall.query.999.counts", nil, wait.Patience)
	if err != nil || m.Header.Get(micro.ErrorCodeHeader) != "400" {
		t.Errorf("another tenant: %v %v", m, err)
	}
	for _, w := range []*watched{first, second} {
		wait.Eventually(t, "an answer over HTTP that can be trusted", func() bool {
			code, body := w.get(w.pages+"/api/counts", "")
			got = counts{}
			return code == 200 && json.Unmarshal([]byte(body), &got) == nil && got.Trusted
		})
		if got.Agents != 60 {
			t.Errorf("%d agents", got.Agents)
		}
		for _, c := range []struct {
			url, host string
			code      int
		}{
			{w.pages + "/api/roster?online=true", "", 200},
			{w.pages + fmt.Sprintf("/api/agents/%d", isdpsim.FirstID), "", 200},
			{w.pages + "/api/roster?tenant=999", "", 400},
			{w.pages + "/api/agents/1", "", 404},
			{w.pages + "/api/counts", "evil.example", 403},
			{w.ops + "/api/counts", "", 404}, // for probes: no names there
		} {
			if code, body := w.get(c.url, c.host); code != c.code {
				t.Errorf("%s as %s: HTTP %d, want %d: %.200s", c.url, c.host, code, c.code, body)
			}
		}
	}
	// With the one that answers gone, nobody is there, since the other was told not to.
	if code, _ := first.Terminate(); code != 0 {
		t.Errorf("exit %d", code)
	}
	wait.Eventually(t, "nobody to answer", func() bool {
		_, err := nc.Request("rollcall.query.886.counts", nil, time.Second)
		return errors.Is(err, nats.ErrNoResponders)
	})
	third := watch(t, "third", v.Env(), env)
	wait.Eventually(t, "the standby's answer", asked)
	if got.AsOf.Instance != "second" {
		t.Errorf("%s leads", got.AsOf.Instance)
	}
	// Its connections outlive NATS.
	server.Kill()
	server.Start()
	wait.Eventually(t, "an answer after a restart of NATS", asked)
	if code, _ := third.Terminate(); code != 0 {
		t.Errorf("exit %d", code)
	}
}

// The embedded server's readers can ask too.
func TestQuestionsEmbedded(t *testing.T) {
	t.Parallel()
	v := NewVendor(t, isdpsim.Config{Agents: 5})
	addr := fmt.Sprintf("127.0.0.1:%d", FreePort(t))
	p := Rollcall(t, Settings(v.Env(), map[string]string{"ROLLCALL_NATS_LISTEN": addr}))
	nc := Connect(t, "nats://"+addr)
	wait.Eventually(t, "a roster that can be trusted", func() bool {
		m, err := nc.Request("rollcall.query.886.roster", nil, 5*time.Second)
		var got struct {
			Trusted bool
			Agents  []json.RawMessage
		}
		return err == nil && json.Unmarshal(m.Data, &got) == nil && got.Trusted &&
			len(got.Agents) == 5
	})
	if code, _ := p.Terminate(); code != 0 {
		t.Errorf("exit %d", code)
	}
}
