package schemas_test

import (
	"encoding/json"
	"fmt"
	"log"
	"os"

	"github.com/rollcall-events/rollcall/schemas"
)

// What a consumer of the event subjects does with each message.
func Example() {
	body, err := os.ReadFile("testdata/v1/event-status-offline.json") // a message's data
	if err != nil {
		log.Fatal(err)
	}
	var e schemas.Event
	if err := json.Unmarshal(body, &e); err != nil {
		log.Fatal(err)
	}
	agent := e.Data.Agent
	fmt.Println(e.Type, "of agent", agent.AgentID, "is revision", e.Data.Revision)
	fmt.Println("on duty:", e.Data.Online)
	fmt.Println("dedupe by:", e.ID())
	// Output:
	// agent.offline of agent 17813 is revision 43
	// on duty: false
	// dedupe by: 886-17813-43
}

func ExampleEvent_Subject() {
	e := schemas.Event{
		Type: schemas.Online,
		Data: schemas.EventData{Agent: schemas.Agent{
			AgentID: 17813, TenantID: 886, OnlineStatus: 1, Type: new("10"),
		}},
	}
	fmt.Println(e.Subject())
	// Output: agent.online.886.10.17813
}

func ExampleParseSubject() {
	s, err := schemas.ParseSubject("agent.online.886.10.17813")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(s.Kind, s.Tenant, s.Type, s.AgentID)
	// Output: online 886 10 17813
}

func ExampleRevert() {
	now := schemas.Agent{AgentID: 17813, TenantID: 886, OnlineStatus: 1, AreaName: new("East")}
	before, err := schemas.Revert(&now, []schemas.Change{
		{Field: "areaName", From: json.RawMessage(`"West"`), To: json.RawMessage(`"East"`)},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(*before.AreaName, "became", *now.AreaName)
	// Output: West became East
}

func ExampleQuiet() {
	changes := []schemas.Change{{Field: "areaName"}, {Field: "lastUpdateDate"}}
	for _, c := range schemas.DefaultQuiet.Significant(changes) {
		fmt.Println(c.Field)
	}
	// Output: areaName
}

func ExampleDocument() {
	text, ok := schemas.Document("event")
	var document struct{ Title string }
	if err := json.Unmarshal(text, &document); err != nil {
		log.Fatal(err)
	}
	fmt.Println(ok, document.Title)
	// Output: true rollcall event
}
