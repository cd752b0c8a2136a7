//go:build unix

package vendor

import (
	"os"
	"testing"

	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
	"github.com/rollcall-events/rollcall/internal/test/wait"
	"github.com/rollcall-events/rollcall/schemas"
)

// The example answer of the vendor's own page, byte for byte, served as page 0: what arrives in the
// stream. It has commas that JSON refuses.
func TestVendorExample(t *testing.T) {
	body, err := os.ReadFile("../../../poller/isdp/testdata/vendor-example.txt")
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, setup{churn: -1})
	r.inject(isdpsim.OnPage(0, isdpsim.Answer(200, "application/json", string(body))))
	var e schemas.Event
	wait.Eventually(r.t, "the example's agent", func() bool {
		e = r.state(17813)
		return e.Data.Agent.AgentCode != nil &&
			*e.Data.Agent.AgentCode == "0e626733-07d8-45af-af23-aff287b118b8"
	})
	want := `{"agentId":17813,"tenantId":886,"onlineStatus":1,"userId":307457,` +
		`"agentCode":"0e626733-07d8-45af-af23-aff287b118b8","agentAccount":"111111111",` +
		`"agentName":"111111111","type":"0","areaName":"","isArea":0,"capacity":1,"deleteFlag":0,` +
		`"createdBy":277881,"lastUpdatedBy":277881,"createName":"管理员","lastUpdateName":"管理员",` +
		`"creationTimestamp":1616486693402,"lastUpdateTimestamp":1616486693402,` +
		`"creationDate":"2021-03-23T08:04:54.000+00:00",` +
		`"lastUpdateDate":"2021-03-23T08:05:32.000+00:00","appName":"isdp-qc-server",` +
		`"entityName":"agent"}`
	if got := string(e.Data.Agent.AppendJSON(nil)); got != want || !e.Data.Online {
		t.Errorf("online %t, agent\n%s\nwant\n%s", e.Data.Online, got, want)
	}
}
