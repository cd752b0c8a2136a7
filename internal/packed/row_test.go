package packed

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/rollcall-events/rollcall/internal/fields"
	"github.com/rollcall-events/rollcall/schemas"
)

func TestDecodeNormalises(t *testing.T) {
	const absent = ""
	tests := []struct {
		field, in string
		want      string // the encoded value, or absent
		dropped   int
	}{
		// Strings.
		{"agentName", `"张伟"`, `"张伟"`, 0},
		{"agentName", `"\u5f20\/\ud83d\ude00"`, `"张/😀"`, 0},
		{"agentName", `"<a href=\"x\">&</a>"`, `"<a href=\"x\">&</a>"`, 0},
		{"agentName", `"\ud800"`, "\"\ufffd\"", 0},
		{"agentName", "\"\xff\"", "\"\ufffd\"", 0},
		{"cityId", `""`, `""`, 0},
		{"cityId", `" "`, `" "`, 0},
		{"cityId", `null`, absent, 0},
		{"cityId", `"null"`, `"null"`, 0},
		{"type", `10`, `"10"`, 0},
		{"type", `10.0`, `"10"`, 0},
		{"type", `1e1`, `"10"`, 0},
		{"type", `10.5`, `"10.5"`, 0},
		{"type", `-1`, `"-1"`, 0},
		{"type", `"10"`, `"10"`, 0},
		{"cityId", `440300`, `"440300"`, 0},
		{"cityId", `9007199254740993`, `"9007199254740993"`, 0},
		{"cityId", `1.50`, `"1.50"`, 0},
		{"cityId", `1e400`, `"1e400"`, 0},
		{"cityId", `true`, absent, 1},
		{"cityId", `{}`, absent, 1},
		{"cityId", `["a"]`, absent, 1},

		// Integers.
		{"userId", `42`, `42`, 0},
		{"userId", `-42`, `-42`, 0},
		{"userId", `"42"`, `42`, 0},
		{"userId", `" -42 "`, `-42`, 0},
		{"userId", `"\u0034\u0032"`, `42`, 0},
		{"userId", `9007199254740993`, `9007199254740993`, 0},
		{"userId", `"9007199254740993"`, `9007199254740993`, 0},
		{"userId", `9223372036854775807`, `9223372036854775807`, 0},
		{"userId", `-9223372036854775808`, `-9223372036854775808`, 0},
		{"userId", `9223372036854775808`, absent, 1},
		{"userId", `-9223372036854775809`, absent, 1},
		{"userId", `"9223372036854775808"`, absent, 1},
		{"userId", `42.0`, `42`, 0},
		{"userId", `"42.0"`, `42`, 0},
		{"userId", `-42.000`, `-42`, 0},
		{"userId", `4.2e1`, `42`, 0},
		{"userId", `4.2E+1`, `42`, 0},
		{"userId", `4200e-2`, `42`, 0},
		{"userId", `0.0042e4`, `42`, 0},
		{"userId", `1e18`, `1000000000000000000`, 0},
		{"userId", `9223372036854775807.0`, `9223372036854775807`, 0},
		{"userId", `922337203685477580.7e1`, `9223372036854775807`, 0},
		{"userId", `-9223372036854775808.0`, `-9223372036854775808`, 0},
		{"userId", `9223372036854775808.0`, absent, 1},
		{"userId", `0`, `0`, 0},
		{"userId", `-0`, `0`, 0},
		{"userId", `-0.0`, `0`, 0},
		{"userId", `0e5`, `0`, 0},
		{"userId", `0.00e-7`, `0`, 0},
		{"userId", `0e1000000000`, `0`, 0},
		{"userId", `42.5`, absent, 1},
		{"userId", `0.1`, absent, 1},
		{"userId", `42.00000000000000000000001`, absent, 1}, // 42 as a float64
		{"userId", `9007199254740991.4`, absent, 1},         // an integer as a float64
		{"userId", `4200e-3`, absent, 1},
		{"userId", `1e19`, absent, 1},
		{"userId", `1e400`, absent, 1},
		{"userId", `1e-400`, absent, 1},
		{"userId", `1e1000000000`, absent, 1},
		{"userId", `1e-1000000000`, absent, 1},
		{"userId", `1e99999999999999999999`, absent, 1},
		{"userId", `1.5e9223372036854775807`, absent, 1},
		{"userId", `1.5e-9223372036854775808`, absent, 1},
		{"userId", `null`, absent, 0},
		{"userId", `""`, absent, 1},
		{"userId", `" "`, absent, 1},
		{"userId", `"null"`, absent, 1},
		{"userId", `"4 2"`, absent, 1},
		{"userId", `"42a"`, absent, 1},
		{"userId", `"0x2a"`, absent, 1},
		{"userId", `"0x2ap0"`, absent, 1},
		{"userId", `"4_2"`, absent, 1},
		{"userId", `"4_2.0"`, absent, 1},
		{"userId", `"4,2"`, absent, 1},
		{"userId", `"."`, absent, 1},
		{"userId", `"-"`, absent, 1},
		{"userId", `"-."`, absent, 1},
		{"userId", `"-.e1"`, absent, 1},
		{"userId", `"e1"`, absent, 1},
		{"userId", `"1e"`, absent, 1},
		{"userId", `"--1.0"`, absent, 1},
		{"userId", `"1.0.0"`, absent, 1},
		{"userId", `"0.0.0"`, absent, 1},
		{"userId", `"NaN"`, absent, 1},
		{"userId", `"Inf"`, absent, 1},
		{"userId", `"٤٢"`, absent, 1},
		{"userId", `true`, absent, 1},
		{"userId", `[42]`, absent, 1},
		{"userId", `{"v":42}`, absent, 1},
		{"creationTimestamp", `"1616486694000"`, `1616486694000`, 0},
		{"creationTimestamp", `"2021-03-23T08:04:54.000+00:00"`, absent, 1},

		// Dates.
		{"creationDate", `"2021-03-23T08:04:54.000+00:00"`, `"2021-03-23T08:04:54.000+00:00"`, 0},
		{"creationDate", `"yesterday"`, `"yesterday"`, 0},
		{"creationDate", `""`, `""`, 0},
		{"creationDate", `null`, absent, 0},
		{"creationDate", `1616486694123`, `"2021-03-23T08:04:54.123+00:00"`, 0},
		{"creationDate", `1.616486694123e12`, `"2021-03-23T08:04:54.123+00:00"`, 0},
		{"lastUpdateDate", `0`, `"1970-01-01T00:00:00.000+00:00"`, 0},
		{"lastUpdateDate", `-1`, `"1969-12-31T23:59:59.999+00:00"`, 0},
		{"lastUpdateDate", `253402300799999`, `"9999-12-31T23:59:59.999+00:00"`, 0},
		{"lastUpdateDate", `253402300800000`, absent, 1},
		{"lastUpdateDate", `9223372036854775807`, absent, 1},
		{"lastUpdateDate", `-9223372036854775808`, absent, 1},
		{"lastUpdateDate", `0.5`, absent, 1},
		{"lastUpdateDate", `false`, absent, 1},

		// Undocumented fields are kept as they are, null too, and so are those that differ from a
		// documented one in case only.
		{"stray", `null`, `null`, 0},
		{"stray", `""`, `""`, 0},
		{"stray", `1.0`, `1.0`, 0},
		{"stray", `1e5`, `1e5`, 0},
		{"stray", `123456789012345678901234567890`, `123456789012345678901234567890`, 0},
		{"stray", "\"\u2028 \\u2028 <&> \\/\"", "\"\u2028 \\u2028 <&> \\/\"", 0},
		{"stray", "{ \"b\" :\t1 ,\n\"a\":[ ] }", "{ \"b\" :\t1 ,\n\"a\":[ ] }", 0},
		{"AgentName", `7`, `7`, 0},
		{"USERID", `"x"`, `"x"`, 0},
		{"onlinestatus", `null`, `null`, 0},
		{"", `[]`, `[]`, 0},
	}
	for _, tt := range tests {
		t.Run(tt.field+" "+tt.in, func(t *testing.T) {
			name, _ := json.Marshal(tt.field)
			a, dropped, err := decode(
				[]byte(
					`{"agentId":1,"tenantId":2,"onlineStatus":0, `+string(name)+" : "+tt.in+" }",
				),
				2,
			)
			if err != nil {
				t.Fatal(err)
			}
			if dropped != tt.dropped {
				t.Errorf("dropped = %d, want %d", dropped, tt.dropped)
			}
			got, ok := a.Field(tt.field)
			if string(got) != tt.want || ok != (tt.want != absent) {
				t.Errorf("Field = %s, %t, want %s", got, ok, tt.want)
			}
			want := `{"agentId":1,"tenantId":2,"onlineStatus":0}`
			if tt.want != absent {
				want = want[:len(want)-1] + "," + string(name) + ":" + tt.want + "}"
			}
			if enc := a.AppendJSON(nil); string(enc) != want {
				t.Errorf("encoded\n got: %s\nwant: %s", enc, want)
			}
		})
	}
}

func TestDecodeRows(t *testing.T) {
	tests := []struct {
		name, row string
		tenant    int64
		want      string
		dropped   int
	}{
		{
			"least",
			`{"agentId":17813,"onlineStatus":1}`,
			886,
			`{"agentId":17813,"tenantId":886,"onlineStatus":1}`,
			0,
		},
		{
			"white space",
			" {\n\"agentId\" : 17813 ,\t\"onlineStatus\" : 1 }\r\n",
			886,
			`{"agentId":17813,"tenantId":886,"onlineStatus":1}`,
			0,
		},
		{
			"strings for numbers",
			`{"agentId":"17813","tenantId":"886","onlineStatus":"1"}`,
			886,
			`{"agentId":17813,"tenantId":886,"onlineStatus":1}`,
			0,
		},
		{
			"fractions of zero",
			`{"agentId":17813.0,"tenantId":8.86e2,"onlineStatus":1.0}`,
			886,
			`{"agentId":17813,"tenantId":886,"onlineStatus":1}`,
			0,
		},
		{
			"largest id",
			`{"agentId":9223372036854775807,"onlineStatus":0}`,
			886,
			`{"agentId":9223372036854775807,"tenantId":886,"onlineStatus":0}`,
			0,
		},
		{
			"id beyond 2^53",
			`{"agentId":"9007199254740993","onlineStatus":0}`,
			886,
			`{"agentId":9007199254740993,"tenantId":886,"onlineStatus":0}`,
			0,
		},
		{
			"tenant null",
			`{"agentId":1,"tenantId":null,"onlineStatus":0}`,
			886,
			`{"agentId":1,"tenantId":886,"onlineStatus":0}`,
			0,
		},
		{
			"tenant unusable",
			`{"agentId":1,"tenantId":"?","onlineStatus":0}`,
			886,
			`{"agentId":1,"tenantId":886,"onlineStatus":0}`,
			1,
		},
		{
			"any tenant",
			`{"agentId":1,"tenantId":7,"onlineStatus":0}`,
			0,
			`{"agentId":1,"tenantId":7,"onlineStatus":0}`,
			0,
		},
		{
			"unknown status",
			`{"agentId":1,"tenantId":7,"onlineStatus":-3}`,
			0,
			`{"agentId":1,"tenantId":7,"onlineStatus":-3}`,
			0,
		},
		{
			"names with escapes",
			`{"\u0061gentId":1,"onlineStatu\u0073":0,"a\"\u4f60":1}`,
			886,
			`{"agentId":1,"tenantId":886,"onlineStatus":0,"a\"你":1}`,
			0,
		},
		{
			"undocumented, sorted by name",
			`{"z":1,"b":{ },"agentId":1,"B":2,"onlineStatus":0,"a":3}`,
			886,
			`{"agentId":1,"tenantId":886,"onlineStatus":0,"B":2,"a":3,"b":{ },"z":1}`,
			0,
		},
		{
			"twice: the last wins",
			`{"agentId":1,"agentId":2,"onlineStatus":"x","onlineStatus":1,"x":[1],"x":[2],` +
				`"areaName":"a","areaName":null}`,
			886,
			`{"agentId":2,"tenantId":886,"onlineStatus":1,"x":[2]}`,
			0,
		},
		{
			"twice: the last is unusable",
			`{"agentId":1,"onlineStatus":1,"areaName":"a","areaName":{}}`,
			886,
			`{"agentId":1,"tenantId":886,"onlineStatus":1}`,
			1,
		},
		{
			"three unusable",
			`{"agentId":1,"onlineStatus":1,"areaName":[],"userId":"x","creationDate":true,` +
				`"capacity":null,"x":true}`,
			886,
			`{"agentId":1,"tenantId":886,"onlineStatus":1,"x":true}`,
			3,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, dropped, err := decode([]byte(tt.row), tt.tenant)
			if err != nil {
				t.Fatal(err)
			}
			if got := a.AppendJSON(nil); string(got) != tt.want {
				t.Errorf("encoded\n got: %s\nwant: %s", got, tt.want)
			}
			if dropped != tt.dropped {
				t.Errorf("dropped = %d, want %d", dropped, tt.dropped)
			}
		})
	}
}

func TestDecodeRejects(t *testing.T) {
	deep := `{"agentId":1,"onlineStatus":1,"x":` + strings.Repeat(
		"[",
		20_000,
	) + strings.Repeat(
		"]",
		20_000,
	) + `}`
	tests := []struct {
		row    string
		reason string
		id     int64 // 0: unknown
	}{
		{``, RejectSyntax, 0},
		{` `, RejectSyntax, 0},
		{`null`, RejectSyntax, 0},
		{`true`, RejectSyntax, 0},
		{`17813`, RejectSyntax, 0},
		{`"17813"`, RejectSyntax, 0},
		{`[]`, RejectSyntax, 0},
		{`[{"agentId":1,"onlineStatus":1}]`, RejectSyntax, 0},
		{`{"agentId":1,"onlineStatus":1`, RejectSyntax, 0},
		{`{"agentId":1,"onlineStatus":1}}`, RejectSyntax, 0},
		{`{"agentId":1,"onlineStatus":1,}`, RejectSyntax, 0},
		{`{"agentId":01,"onlineStatus":1}`, RejectSyntax, 0},
		{`<html></html>`, RejectSyntax, 0},
		{deep, RejectSyntax, 0},

		{`{}`, RejectID, 0},
		{`{"onlineStatus":1}`, RejectID, 0},
		{`{"AGENTID":1,"onlineStatus":1}`, RejectID, 0},
		{`{"agentId":null,"onlineStatus":1}`, RejectID, 0},
		{`{"agentId":"","onlineStatus":1}`, RejectID, 0},
		{`{"agentId":"x","onlineStatus":1}`, RejectID, 0},
		{`{"agentId":true,"onlineStatus":1}`, RejectID, 0},
		{`{"agentId":[1],"onlineStatus":1}`, RejectID, 0},
		{`{"agentId":{"id":1},"onlineStatus":1}`, RejectID, 0},
		{`{"agentId":1.5,"onlineStatus":1}`, RejectID, 0},
		{`{"agentId":17813.00000000000000001,"onlineStatus":1}`, RejectID, 0},
		{`{"agentId":9223372036854775808,"onlineStatus":1}`, RejectID, 0},
		{`{"agentId":"9223372036854775808","onlineStatus":1}`, RejectID, 0},
		{`{"agentId":1e400,"onlineStatus":1}`, RejectID, 0},
		{`{"agentId":1e-400,"onlineStatus":1}`, RejectID, 0},
		{`{"agentId":1,"agentId":null,"onlineStatus":1}`, RejectID, 0},
		{`{"agentId":"x","tenantId":999,"onlineStatus":1}`, RejectID, 0},

		{`{"agentId":17813}`, RejectStatus, 17813},
		{`{"agentId":"17813","onlineStatus":null}`, RejectStatus, 17813},
		{`{"agentId":17813,"onlineStatus":""}`, RejectStatus, 17813},
		{`{"agentId":17813,"onlineStatus":"online"}`, RejectStatus, 17813},
		{`{"agentId":17813,"onlineStatus":true}`, RejectStatus, 17813},
		{`{"agentId":17813,"onlineStatus":0.5}`, RejectStatus, 17813},
		{`{"agentId":17813,"onlineStatus":1,"onlineStatus":"x"}`, RejectStatus, 17813},
		{`{"agentId":9223372036854775807,"OnlineStatus":1}`, RejectStatus, 9223372036854775807},

		{`{"agentId":17813,"tenantId":887,"onlineStatus":1}`, RejectTenant, 17813},
		{`{"agentId":17813,"tenantId":"887","onlineStatus":1}`, RejectTenant, 17813},
		{`{"agentId":17813,"tenantId":0,"onlineStatus":1}`, RejectTenant, 17813},
		{`{"agentId":17813,"tenantId":887}`, RejectTenant, 17813},
	}
	for _, tt := range tests {
		t.Run(tt.row[:min(len(tt.row), 60)], func(t *testing.T) {
			a, dropped, err := decode([]byte(tt.row), 886)
			var re *RowError
			if !errors.As(err, &re) {
				t.Fatalf("error %v (%T), want a *RowError", err, err)
			}
			if want := (RowError{Reason: tt.reason, AgentID: tt.id,
				HasID: tt.id != 0}); *re != want {
				t.Errorf("%+v, want %+v", *re, want)
			}
			if got := string(a.AppendJSON(nil)); got != string(
				new(schemas.Agent).AppendJSON(nil),
			) ||
				dropped != 0 {
				t.Errorf("agent %s, dropped %d, of a rejected row", got, dropped)
			}
		})
	}
}

func TestRowErrorNeverRepeatsTheRow(t *testing.T) {
	for reason, want := range map[string]string{
		RejectSyntax: "not a JSON object",
		RejectID:     "no usable agentId",
		RejectStatus: "agent 17813 has no usable onlineStatus",
		RejectTenant: "agent 17813 belongs to another tenant than the token",
		RejectSize:   "agent 17813 is too large to publish",
	} {
		if got := (&RowError{Reason: reason, AgentID: 17813, HasID: true}).Error(); got != want {
			t.Errorf("%s: %q, want %q", reason, got, want)
		}
	}
	for _, row := range []string{`secret`, `{"agentId":"secret"}`,
		`{"agentId":1,"onlineStatus":"secret"}`, `{"agentId":1,"tenantId":2,"secret":1}`} {
		if _, _, err := decode([]byte(row), 886); err == nil ||
			strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: error %v", row, err)
		}
	}
}

// What an agent holds does not change when the page that it was read from is overwritten.
func TestDecodeCopies(t *testing.T) {
	row := []byte(`{"agentId":1,"onlineStatus":1,"areaName":"a","x":{ "y": "z" }}`)
	a, _, err := decode(row, 886)
	if err != nil {
		t.Fatal(err)
	}
	want := string(a.AppendJSON(nil))
	for i := range row {
		row[i] = '#'
	}
	if got := string(a.AppendJSON(nil)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestThereAndOnline(t *testing.T) {
	for _, tt := range []struct {
		row           string
		there, online bool
	}{
		{`{"agentId":1,"onlineStatus":1}`, true, true},
		{`{"agentId":1,"onlineStatus":"1","deleteFlag":null}`, true, true},
		{`{"agentId":1,"onlineStatus":1,"deleteFlag":0}`, true, true},
		{`{"agentId":1,"onlineStatus":1,"deleteFlag":2}`, true, true},
		{`{"agentId":1,"onlineStatus":1,"deleteFlag":"1"}`, false, false},
		{`{"agentId":1,"onlineStatus":0,"deleteFlag":1}`, false, false},
		{`{"agentId":1,"onlineStatus":0}`, true, false},
		{`{"agentId":1,"onlineStatus":2}`, true, false},
		{`{"agentId":1,"onlineStatus":-1}`, true, false},
	} {
		a, _, err := decode([]byte(tt.row), 886)
		if err != nil || a.There() != tt.there || a.Online() != tt.online {
			t.Errorf(
				"%s: there %t, online %t, error %v, want %t, %t",
				tt.row,
				a.There(),
				a.Online(),
				err,
				tt.there,
				tt.online,
			)
		}
	}
}

func TestAppendString(t *testing.T) {
	for in, want := range map[string]string{
		"":                 `""`,
		"plain 张伟 😀":       `"plain 张伟 😀"`,
		`"\/`:              `"\"\\/"`,
		"\b\f\n\r\t":       `"\b\f\n\r\t"`,
		"\x00\x01\x1f\x7f": "\"\\u0000\\u0001\\u001f\x7f\"",
		"<a>&'":            `"<a>&'"`,
		"\u2028\u2029":     "\"\u2028\u2029\"",
		// the same with and without something to escape beside it
		"\"\u2028<":                "\"\\\"\u2028<\"",
		"a\xffb\xed\xa0\x80\xc3":   "\"a\ufffdb\ufffd\ufffd\ufffd\ufffd\"",
		"\ufffd \U0010ffff \ufeff": "\"\ufffd \U0010ffff \ufeff\"",
	} {
		got := fields.AppendString(nil, in)
		if string(got) != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
		var back string
		if err := json.Unmarshal(got, &back); err != nil ||
			back != strings.ToValidUTF8(in, "\ufffd") && back != string([]rune(in)) {
			t.Errorf("%q: decoded as %q, %v", in, back, err)
		}
	}
}
