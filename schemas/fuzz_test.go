package schemas

import (
	"bytes"
	"encoding/json"
	"testing"
)

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
		"", "agent", "agent.online.886.10.17813", "agent.offline.886._.17813",
		"agent.updated.886.x.-1",
		"agent.state.886.17813", "agent.watermark.886", "agent.health.886", "agent.state.+1.01",
		"rollcall.log.state.1.1",
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
