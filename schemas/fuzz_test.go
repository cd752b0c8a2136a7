package schemas

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func FuzzDecodeAgent(f *testing.F) {
	for _, row := range []string{
		`{}`, `[]`, `null`, `17813`, `"x"`, `{"agentId":1}`,
		`{"agentId":"17813","onlineStatus":1.0,"type":10,"creationDate":1616486694000,"areaName":null,"cityId":""}`,
		`{"agentId":1e400,"onlineStatus":1}`, `{"agentId":9223372036854775808,"onlineStatus":1}`,
		`{"agentId":1,"tenantId":887,"onlineStatus":1}`,
		`{"agentId":1,"onlineStatus":1,"x":[ 1.0, 1e5 ],"x":null,"AgentId":{},"\u0061":"\ud800"}`,
		"{\"agentId\":1,\"onlineStatus\":\"1\",\"agentName\":\"\xff\",\"\xff\":\"\xfe\"}",
	} {
		f.Add([]byte(row), int64(886))
	}
	for _, b := range readGoldens(f, "event-") {
		var e struct {
			Data struct{ Agent json.RawMessage }
		}
		if err := json.Unmarshal(b, &e); err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(e.Data.Agent), int64(0))
	}
	f.Fuzz(func(t *testing.T, row []byte, tenant int64) {
		a, dropped, err := DecodeAgent(row, tenant)
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
			if Listed(name) {
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
		for _, f := range listedFields {
			v, came := raw[f.name]
			_, has := a.Field(f.name)
			switch {
			case !came || isNull(v):
				if has && f.name != "tenantId" { // the token's
					t.Fatalf("%s comes from nowhere", f.name)
				}
			case f.name == "tenantId":
				if _, ok := integer(v); !ok {
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
		b, dropped, err := DecodeAgent(enc, tenant)
		if err != nil || dropped != 0 {
			t.Fatalf("what was encoded does not decode: dropped %d, error %v: %s", dropped, err, enc)
		}
		if again := b.AppendJSON(nil); !bytes.Equal(again, enc) {
			t.Fatalf("not stable\nonce:  %s\ntwice: %s", enc, again)
		}
		if c := Changes(&a, &b); len(c) != 0 {
			t.Fatalf("encoding changed the agent: %s", dump(c))
		}
	})
}

func FuzzDecodeEvent(f *testing.F) {
	for _, b := range readGoldens(f, "event-") {
		f.Add(b)
	}
	f.Add([]byte(sound))
	f.Add([]byte(`{}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var e Event
		if json.Unmarshal(b, &e) != nil {
			return
		}
		enc := e.AppendJSON(nil)
		var again Event
		if err := json.Unmarshal(enc, &again); err != nil {
			t.Fatalf("what was encoded does not decode: %v: %s", err, enc)
		}
		if got := again.AppendJSON(nil); !bytes.Equal(got, enc) {
			t.Fatalf("not stable\nonce:  %s\ntwice: %s", enc, got)
		}
		if _, err := ParseSubject(again.Subject()); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzParseSubject(f *testing.F) {
	for _, s := range []string{
		"", "agent", "agent.online.886.10.17813", "agent.offline.886._.17813", "agent.updated.886.x.-1",
		"agent.state.886.17813", "agent.watermark.886", "agent.health.886", "agent.state.+1.01", "rollcall.log.state.1.1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParseSubject(s)
		if err != nil {
			return
		}
		if got := build(p); got != s {
			t.Fatalf("%q parsed as %+v, which is %q", s, p, got)
		}
	})
}

// checkPacked checks that packing keeps an agent as it is.
func checkPacked(t *testing.T, a *Agent) {
	t.Helper()
	p := a.Pack()
	back := p.Agent()
	if d := cmp.Diff(*a, back); d != "" {
		t.Fatalf("packing changed the agent: %s", d)
	}
	if back.Pack() != p {
		t.Fatalf("packed once %q, twice %q", p, back.Pack())
	}
	var of *string
	if s, ok := p.Type(); ok {
		of = &s
	}
	if d := cmp.Diff(a.Type, of); d != "" || p.AgentID() != a.AgentID || p.There() != a.There() || p.Online() != a.Online() {
		t.Fatalf("packed, it is agent %d, there %t, online %t, of type %s", p.AgentID(), p.There(), p.Online(), d)
	}
}
