package isdp

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rollcall-events/rollcall/internal/listing"
	"github.com/rollcall-events/rollcall/internal/packed"
)

func plainExcerpt(raw json.RawMessage) string {
	var s string
	_ = json.Unmarshal(raw, &s)
	return s
}

func TestDecodeAnswer(t *testing.T) {
	page := func(pos, total, data string) string {
		return fmt.Sprintf(
			`{"stateCode": "0", "errorMessage": null, "result": {"pos": %s, "total_count": %s, `+
				`"data": %s, "entityName": null}}`,
			pos,
			total,
			data,
		)
	}
	for _, tc := range []struct {
		name, body string
		page       int
		rows       int
		total      int
		otherPos   bool
		bad        string
	}{
		{"plain", page("0", "5", `[{"a": [1, {"b": "]"}]}, {}]`), 0, 2, 5, false, ""},
		{"strings", page(`"1"`, `"5"`, `[{},{}]`), 1, 2, 5, false, ""},
		{"stateCode a number", `{"stateCode": 0, "result": {"total_count": 1, "data": [{}]}}`, 0, 1,
			1, false, ""},
		{"pos null", page("null", "1", `[{}]`), 0, 1, 1, false, ""},
		{"pos of another page", page("0", "5", `[{},{}]`), 1, 2, 5, true, ""},
		{"pos blank", page(`" "`, "1", `[{}]`), 0, 1, 1, false, ""},
		{"pos no number", page(`true`, "5", `[{},{}]`), 1, 2, 5, true, ""},
		{"empty", page("0", "0", `[]`), 0, 0, 0, false, ""},
		{"null, nobody there", page("0", "0", `null`), 0, 0, 0, false, ""},
		{"null beyond the end", page("3", "5", `null`), 3, 0, 5, false, ""},
		{"null where rows belong", page("2", "5", `null`), 2, 0, 5, false, ""},
		{"data missing", `{"stateCode": "0", "result": {"total_count": 1}}`, 0, 0, 1, false, ""},
		{"data an empty string", page("0", "0", `""`), 0, 0, 0, false, ""},
		{"data an empty object", page("0", "0", `{ }`), 0, 0, 0, false, ""},
		{"data an object", page("0", "1", `{"a":1}`), 0, 1, 1, false, ""},
		{"data text", page("0", "1", `"x"`), 0, 0, 0, false, "not a list"},
		{"odd rows", page("0", "9", `[1, null, "x,]", [], [[1,2],3], {"a":"\"}"}]`), 0, 6, 9, false,
			""},
		{"too many rows", page("0", "9", `[`+strings.Repeat("1,", 1_000_000)+`1]`), 0, 0, 0, false,
			"more than 1000 rows"},
		{"total missing, no rows", `{"stateCode": "0", "result": {"data": []}}`, 0, 0, 0, false,
			""},
		{"total null, no rows", page("0", "null", `[]`), 0, 0, 0, false, ""},
		{"total null behind the end", page("1", "null", `[]`), 1, 0, listing.NoTotal, false, ""},
		{"total missing, rows", `{"stateCode": "0", "result": {"data": [{}]}}`, 0, 0, 0, false,
			"total_count"},
		{"total null, rows", page("0", "null", `[{}]`), 0, 0, 0, false, "total_count"},
		{"total negative", page("0", "-1", `[]`), 0, 0, 0, false, "total_count"},
		{"total a fraction", page("0", "1.5", `[]`), 0, 0, 0, false, "total_count"},
		{"total a lie", page("0", "1000000000000", `[{},{}]`), 0, 0, 0, false, "total_count"},
		{"total beyond 64 bits", page("0", "1e30", `[]`), 0, 0, 0, false, "total_count"},
		{"failure", `{"stateCode": "500", "errorMessage": "系统繁忙", "result": null}`, 0, 0, 0, false,
			"stateCode 500 系统繁忙"},
		{"failure without message", `{"stateCode": "500"}`, 0, 0, 0, false, "stateCode 500"},
		{"failure in words", `{"stateCode": "ERR", "errorMessage": "no"}`, 0, 0, 0, false,
			"stateCode is no number no"},
		{"no stateCode", `{"result": {"total_count": 0, "data": []}}`, 0, 0, 0, false,
			"no stateCode"},
		{"no result", `{"stateCode": "0"}`, 0, 0, 0, false, ""},
		{"result null", `{"stateCode": "0", "result": null}`, 0, 0, 0, false, ""},
		{"result an empty string", `{"stateCode": "0", "result": ""}`, 0, 0, 0, false, ""},
		{"result an empty list", `{"stateCode": "0", "result": []}`, 0, 0, 0, false, ""},
		{"result an empty object", `{"stateCode": "0", "result": {}}`, 0, 0, 0, false, ""},
		{"result null, and no success", `{"stateCode": "7", "result": null}`, 0, 0, 0, false,
			"stateCode 7"},
		{"result a list", `{"stateCode": "0", "result": [{"agentId":1}]}`, 0, 0, 0, false,
			"another kind"},
		{"result a number", `{"stateCode": "0", "result": 5}`, 0, 0, 0, false, "another kind"},
		{"null", `null`, 0, 0, 0, false, "another kind"},
		{"empty body", "  \n", 0, 0, 0, false, "empty"},
		{"HTML", "\n<!DOCTYPE html><html></html>", 0, 0, 0, false, "HTML"},
		{"truncated", page("0", "1", `[{}]`)[:60], 0, 0, 0, false, "cut short"},
		{"trailing", page("0", "1", `[{}]`) + "{}", 0, 0, 0, false, "more follows"},
		{"not UTF-16", "\xff\xfe{\x00", 0, 0, 0, false, "not JSON"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, err := readAnswer([]byte(tc.body), tc.page, plainExcerpt)
			if tc.bad != "" {
				if err == nil || !strings.Contains(err.Error(), tc.bad) {
					t.Fatalf("error %v, want one about %q", err, tc.bad)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if a.total != tc.total || len(a.rows) != tc.rows || a.misplaced != tc.otherPos {
				t.Errorf("total %d, %d rows, pos fits: %v", a.total, len(a.rows), !a.misplaced)
			}
		})
	}
}

func TestDecodeRows(t *testing.T) {
	good := `{"agentId": 1, "onlineStatus": "1", "agentName": 5, "capacity": {}}`
	rows := []string{
		good,
		`{"agentId": 2}`,
		`{"onlineStatus": 1}`,
		`17`,
		`{"agentId": 3, "onlineStatus": 1, "tenantId": 7}`,
		`{"agentId": 4, "onlineStatus": 1, "note": "` + strings.Repeat("x", 1000) + `"}`,
		`{"agentId": 9007199254740993, "onlineStatus": 0, "tenantId": "886"}`,
	}
	var raw []json.RawMessage
	for _, r := range rows {
		raw = append(raw, json.RawMessage(r))
	}
	p := (&pageReader{tenant: 886, maxRow: 1000}).page(answer{rows: raw}, text{})
	want := []listing.Rejected{
		{Index: 1, AgentID: 2, Known: true, Reason: packed.RejectStatus},
		{Index: 2, Reason: packed.RejectID},
		{Index: 3, Reason: packed.RejectSyntax, Detail: "no JSON object from its byte 0 on"},
		{Index: 4, AgentID: 3, Known: true, Reason: packed.RejectTenant},
		{Index: 5, AgentID: 4, Known: true, Reason: packed.RejectSize},
	}
	if diff := cmp.Diff(want, p.Rejected); diff != "" {
		t.Error(diff)
	}
	if len(p.Agents) != 2 || p.Agents[0].AgentID() != 1 ||
		p.Agents[1].AgentID() != 9007199254740993 ||
		p.Dropped != 1 {
		t.Errorf("agents %+v, dropped %d", p.Agents, p.Dropped)
	}
}

// No string escapes to more than six times its length, which decodeRows relies on.
func TestRowSizeIsExact(t *testing.T) {
	for _, name := range []string{"x", "\x01", "<", "世", "\u2028", "\xff"} {
		raw, err := json.Marshal(
			map[string]any{"agentId": 1, "onlineStatus": 1, "agentName": strings.Repeat(name, 300)},
		)
		if err != nil {
			t.Fatal(err)
		}
		a, _, err := packed.Decode(raw, 886)
		if err != nil {
			t.Fatal(err)
		}
		n := len(new(a.Unpack()).AppendJSON(nil))
		for limit, rejected := range map[int]int{n: 0, n - 1: 1} {
			r := pageReader{tenant: 886, maxRow: limit}
			p := r.page(answer{rows: []json.RawMessage{raw}}, text{})
			if len(p.Rejected) != rejected {
				t.Errorf(
					"%q: an encoding of %d bytes, a limit of %d: %d rejected",
					name,
					n,
					limit,
					len(p.Rejected),
				)
			}
		}
	}
}

func FuzzDecodeAnswer(f *testing.F) {
	f.Add(
		[]byte(
			`{"stateCode":"0","result":{"pos":0,"total_count":2,"data":[{"agentId":1,` +
				`"onlineStatus":1},{"agentId":"x"}]}}`,
		),
	)
	f.Add(
		[]byte(
			`{"stateCode":"0","result":{"pos":0,"total_count":"2","data":[1,[2,{"a":"],\\"}],` +
				`null,"\u005d"]}}`,
		),
	)
	f.Add([]byte(`{"stateCode":"1","errorMessage":"x"}`))
	f.Add([]byte(`<html>`))
	f.Fuzz(func(t *testing.T, body []byte) {
		a, err := readAnswer(body, 0, plainExcerpt)
		if err != nil {
			return
		}
		p := (&pageReader{tenant: 886, maxRow: 200}).page(a, text{})
		if len(p.Agents)+len(p.Rejected) != len(a.rows) {
			t.Fatalf(
				"%d rows became %d agents and %d rejections",
				len(a.rows),
				len(p.Agents),
				len(p.Rejected),
			)
		}
		for _, agent := range p.Agents {
			if got := encoded(agent); !strict(got) {
				t.Fatalf("published, but not what every parser takes: %q", got)
			}
		}
		if a.total < 0 || a.total > maxAgents {
			t.Fatalf("total %d", a.total)
		}
	})
}
