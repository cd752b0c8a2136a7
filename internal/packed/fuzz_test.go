package packed

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rollcall-events/rollcall/internal/fields"
	"github.com/rollcall-events/rollcall/schemas"
)

func FuzzDecode(f *testing.F) {
	for _, row := range []string{
		`{}`, `[]`, `null`, `17813`, `"x"`, `{"agentId":1}`,
		`{"agentId":"17813","onlineStatus":1.0,"type":10,"creationDate":1616486694000,` +
			`"areaName":null,"cityId":""}`,
		`{"agentId":1e400,"onlineStatus":1}`, `{"agentId":9223372036854775808,"onlineStatus":1}`,
		`{"agentId":1,"tenantId":887,"onlineStatus":1}`,
		`{"agentId":1,"onlineStatus":1,"x":[ 1.0, 1e5 ],"x":null,"AgentId":{},"\u0061":"\ud800"}`,
		"{\"agentId\":1,\"onlineStatus\":\"1\",\"agentName\":\"\xff\",\"\xff\":\"\xfe\"}",
	} {
		f.Add([]byte(row), int64(886))
	}
	f.Add(filled().AppendJSON(nil), int64(0))
	f.Fuzz(func(t *testing.T, row []byte, tenant int64) {
		a, dropped, err := decode(row, tenant)
		if err != nil {
			var re *RowError
			if !errors.As(err, &re) {
				t.Fatalf("error %v (%T), want a *RowError", err, err)
			}
			return
		}
		var raw map[string]json.RawMessage
		if err := json.Unmarshal(row, &raw); err != nil {
			t.Fatalf("decoded, though it is no object: %v", err)
		}

		// Undocumented fields are there, all of them, byte for byte.
		undocumented := 0
		for name, want := range raw {
			if schemas.Listed(name) {
				continue
			}
			undocumented++
			if got, ok := a.Field(name); !ok || !bytes.Equal(got, want) {
				t.Fatalf("%q: %s, want %s", name, got, want)
			}
		}
		if len(a.Other) != undocumented {
			t.Fatalf("%d undocumented fields, want %d", len(a.Other), undocumented)
		}

		// Every documented one is there, absent, null or counted.
		for _, f := range table.Fields {
			v, came := raw[f.Name]
			_, has := a.Field(f.Name)
			switch {
			case !came || fields.IsNull(v):
				if has && f.Name != "tenantId" { // the token's
					t.Fatalf("%s comes from nowhere", f.Name)
				}
			case f.Name == "tenantId":
				if _, ok := fields.Integer(v); !ok {
					dropped--
				}
			case !has:
				dropped--
			}
		}
		if dropped != 0 {
			t.Fatalf("dropped is off by %d", dropped)
		}

		checkPacked(t, &a)
		enc := a.AppendJSON(nil)
		b, dropped, err := decode(enc, tenant)
		if err != nil || dropped != 0 {
			t.Fatalf(
				"what was encoded does not decode: dropped %d, error %v: %s",
				dropped,
				err,
				enc,
			)
		}
		if again := b.AppendJSON(nil); !bytes.Equal(again, enc) {
			t.Fatalf("not stable\nonce:  %s\ntwice: %s", enc, again)
		}
		if c := schemas.Changes(&a, &b); len(c) != 0 {
			t.Fatalf("encoding changed the agent: %s", fmt.Sprint(c))
		}
	})
}

// checkPacked checks that packing keeps an agent as it is.
func checkPacked(t *testing.T, a *schemas.Agent) {
	t.Helper()
	p := Pack(a)
	back := p.Unpack()
	if d := cmp.Diff(*a, back); d != "" {
		t.Fatalf("packing changed the agent: %s", d)
	}
	if Pack(&back) != p {
		t.Fatalf("packed once %q, twice %q", p, Pack(&back))
	}
	var of *string
	if s, ok := p.Type(); ok {
		of = &s
	}
	if d := cmp.Diff(a.Type, of); d != "" || p.AgentID() != a.AgentID || p.There() != a.There() ||
		p.Online() != a.Online() {
		t.Fatalf(
			"packed, it is agent %d, there %t, online %t, of type %s",
			p.AgentID(),
			p.There(),
			p.Online(),
			d,
		)
	}
}
