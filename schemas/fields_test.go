package schemas

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// documented is the contract's table of agent fields. Dates are strings.
var documented = map[string]string{
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
	for _, f := range listedFields {
		if seen[f.name] {
			t.Errorf("%s is listed twice", f.name)
		}
		seen[f.name] = true
		if documented[f.name] == "" {
			t.Errorf("%s is documented nowhere", f.name)
		}
		if !Listed(f.name) {
			t.Errorf("Listed(%q) = false", f.name)
		}
	}
	for name := range documented {
		if !seen[name] {
			t.Errorf("%s is missing", name)
		}
		for _, other := range []string{strings.ToUpper(name), strings.ToUpper(name[:1]) + name[1:], name + " ", ""} {
			if Listed(other) {
				t.Errorf("Listed(%q) = true", other)
			}
		}
	}
}

func TestListedFieldsAreTheFieldsOfAgent(t *testing.T) {
	var a Agent
	v := reflect.ValueOf(&a).Elem()
	if n := v.NumField(); n != len(documented)+1 {
		t.Errorf("Agent has %d fields, want the %d documented ones and Other", n, len(documented))
	}
	for _, f := range listedFields {
		t.Run(f.name, func(t *testing.T) {
			name := strings.ToUpper(f.name[:1]) + f.name[1:]
			if s, ok := strings.CutSuffix(name, "Id"); ok {
				name = s + "ID"
			}
			field := v.FieldByName(name)
			if !field.IsValid() {
				t.Fatalf("Agent has no field %s", name)
			}
			if got, want := f.at(&a), field.Addr().Interface(); got != want {
				t.Errorf("at is not where %s is", name)
			}
			want := map[string]string{"int": "int64", "long": "int64", "String": "string", "Date": "string"}[documented[f.name]]
			if !always[f.name] {
				want = "*" + want
			}
			if got := field.Type().String(); got != want {
				t.Errorf("%s is a %s, want %s", name, got, want)
			}
			if want := documented[f.name] == "Date"; f.date != want {
				t.Errorf("date = %t, want %t", f.date, want)
			}
		})
	}
}

// Every field by itself goes through decoding, Field and encoding, under its own name.
func TestEveryFieldByItself(t *testing.T) {
	for name, kind := range documented {
		t.Run(name, func(t *testing.T) {
			value := "7"
			if kind == "String" || kind == "Date" {
				value = `"7"`
			}
			row := fmt.Sprintf(`{"agentId":1,"tenantId":2,"onlineStatus":0,%q:%s}`, name, value)
			a, dropped, err := DecodeAgent([]byte(row), 0)
			if err != nil || dropped != 0 {
				t.Fatalf("dropped %d, error %v", dropped, err)
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
			for n := range Differing(&none, &a) {
				differ = append(differ, n)
			}
			if len(differ) != 1 || differ[0] != name {
				t.Errorf("Differing = %q, want %s only", differ, name)
			}
		})
	}
}
