package schemas

import (
	"encoding/json"
	"testing"
)

func TestAgentUnmarshalJSON(t *testing.T) {
	a := Agent{AgentID: 9, AreaName: new("old")}
	row := `{"agentId":"1","tenantId":2,"onlineStatus":1,"type":10,"userId":[],"cityId":null,` +
		`"x":[ 1 ]}`
	if err := json.Unmarshal([]byte(row), &a); err != nil {
		t.Fatal(err)
	}
	want := `{"agentId":1,"tenantId":2,"onlineStatus":1,"type":"10","x":[ 1 ]}`
	if got := string(a.AppendJSON(nil)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, row := range []string{
		`{"agentId":1}`, `{"onlineStatus":1}`, `{"agentId":null,"onlineStatus":1}`,
		`{"agentId":1,"onlineStatus":true}`, `null`, `[]`, `7`,
	} {
		if err := json.Unmarshal([]byte(row), &a); err == nil || a.TenantID != 2 {
			t.Errorf("%s: error %v, agent %+v: want an error and the agent as it was", row, err, a)
		}
	}
	// encoding/json compacts.
	want = `{"agentId":1,"tenantId":2,"onlineStatus":1,"type":"10","x":[1]}`
	if b, err := json.Marshal(a); err != nil || string(b) != want {
		t.Errorf("json.Marshal: %s, %v", b, err)
	}
}
