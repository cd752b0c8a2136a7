package schemas

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/rollcall-events/rollcall/internal/fields"
)

// contractFields is the contract's table of agent fields. Dates are strings.
var contractFields = map[string]string{
	"agentId":             "long",
	"tenantId":            "long",
	"userId":              "long",
	"agentCode":           "String",
	"agentAccount":        "String",
	"agentName":           "String",
	"type":                "String",
	"onlineStatus":        "int",
	"productType":         "String",
	"deliveryScene":       "String",
	"businessType":        "String",
	"areaName":            "String",
	"cityId":              "String",
	"isArea":              "int",
	"capacity":            "int",
	"deleteFlag":          "int",
	"agentSignInTime":     "long",
	"agentSignInDate":     "long",
	"createdBy":           "long",
	"lastUpdatedBy":       "long",
	"createName":          "String",
	"lastUpdateName":      "String",
	"creationTimestamp":   "long",
	"lastUpdateTimestamp": "long",
	"creationDate":        "Date",
	"lastUpdateDate":      "Date",
	"appName":             "String",
	"entityName":          "String",
}

// always are the fields without which there is no agent.
var always = map[string]bool{"agentId": true, "tenantId": true, "onlineStatus": true}

func TestListedFieldsAreTheDocumentedOnes(t *testing.T) {
	seen := make(map[string]bool)
	for _, f := range documented.Fields {
		if seen[f.Name] {
			t.Errorf("%s is listed twice", f.Name)
		}
		seen[f.Name] = true
		if contractFields[f.Name] == "" {
			t.Errorf("%s is documented nowhere", f.Name)
		}
		if !Listed(f.Name) {
			t.Errorf("Listed(%q) = false", f.Name)
		}
	}
	for name := range contractFields {
		if !seen[name] {
			t.Errorf("%s is missing", name)
		}
		for _, other := range []string{strings.ToUpper(name), strings.ToUpper(name[:1]) + name[1:],
			name + " ", ""} {
			if Listed(other) {
				t.Errorf("Listed(%q) = true", other)
			}
		}
	}
}

func TestListedFieldsAreTheFieldsOfAgent(t *testing.T) {
	var a Agent
	v := reflect.ValueOf(&a).Elem()
	if n := v.NumField(); n != len(contractFields)+1 {
		t.Errorf(
			"Agent has %d fields, want the %d documented ones and Other",
			n,
			len(contractFields),
		)
	}
	for i, f := range documented.Fields {
		t.Run(f.Name, func(t *testing.T) {
			name := strings.ToUpper(f.Name[:1]) + f.Name[1:]
			if s, ok := strings.CutSuffix(name, "Id"); ok {
				name = s + "ID"
			}
			field := v.FieldByName(name)
			if !field.IsValid() {
				t.Fatalf("Agent has no field %s", name)
			}
			if got, want := a.at(i), field.Addr().Interface(); got != want {
				t.Errorf("at is not where %s is", name)
			}
			want := map[string]string{"int": "int64", "long": "int64", "String": "string",
				"Date": "string"}[contractFields[f.Name]]
			if !always[f.Name] {
				want = "*" + want
			}
			if got := field.Type().String(); got != want {
				t.Errorf("%s is a %s, want %s", name, got, want)
			}
			if want := contractFields[f.Name] == "Date"; (f.Kind == fields.Date) != want {
				t.Errorf("date = %t, want %t", f.Kind == fields.Date, want)
			}
		})
	}
}

// Every field by itself goes through decoding, Field and encoding, under its own name.
func TestEveryFieldByItself(t *testing.T) {
	for name, kind := range contractFields {
		t.Run(name, func(t *testing.T) {
			value := "7"
			if kind == "String" || kind == "Date" {
				value = `"7"`
			}
			row := fmt.Sprintf(`{"agentId":1,"tenantId":2,"onlineStatus":0,%q:%s}`, name, value)
			var a Agent
			if err := json.Unmarshal([]byte(row), &a); err != nil {
				t.Fatal(err)
			}
			if len(a.Other) != 0 {
				t.Errorf("%s is among the undocumented fields", name)
			}
			if got, ok := a.Field(name); string(got) != value || !ok {
				t.Errorf("Field = %s, %t, want %s", got, ok, value)
			}
			none := Agent{AgentID: 1, TenantID: 2}
			if _, ok := none.Field(name); ok != always[name] {
				t.Errorf("an agent without it: Field = _, %t", ok)
			}
			var differ []string
			for _, c := range Changes(&none, &a) {
				differ = append(differ, c.Field)
			}
			if len(differ) != 1 || differ[0] != name {
				t.Errorf("Changes = %q, want %s only", differ, name)
			}
		})
	}
}
