package publisher

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/schemas"
)

// goldens are events as every version has encoded them.
func goldens(t testing.TB) map[string][]byte {
	paths, err := filepath.Glob("../schemas/testdata/v1/*.json")
	if err != nil {
		t.Fatal(err)
	}
	events := make(map[string][]byte)
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		if json.Unmarshal(b, new(schemas.Event)) == nil {
			events[filepath.Base(p)] = b
		}
	}
	if len(events) < 5 {
		t.Fatalf("%d events among the goldens", len(events))
	}
	return events
}

// What rollcall has encoded is read in the short way: otherwise a take-over would be slow, and
// nobody would know.
func TestOwnEventsAreTakenApart(t *testing.T) {
	for name, b := range goldens(t) {
		var e schemas.Event
		if err := json.Unmarshal(b, &e); err != nil {
			t.Fatal(err)
		}
		s, sweep, ok := takeApart(e.AppendJSON(nil))
		if !ok {
			t.Errorf("%s is not taken apart", name)
			continue
		}
		if d := cmp.Diff(packed.StateOf(&e), s); d != "" || sweep != e.Data.Sweep {
			t.Errorf("%s: sweep %d, want %d; state (-plain way +short cut):\n%s", name, sweep, e.Data.Sweep, d)
		}
	}
}

// For any bytes: what is taken apart is an event, and is what the plain way makes of it.
func FuzzTakeApart(f *testing.F) {
	for _, b := range goldens(f) {
		f.Add(b)
	}
	const head, tail = `{"specversion":"1.0","type":"agent.online","source":"/isdp/tenants/886","subject":"1","id":"886-1-2","time":"2026-11-22T08:04:55.123Z",` +
		`"datacontenttype":"application/json","dataschema":"urn:rollcall:agent-event:v1","data":{"revision":2,"reason":"status","sweep":7,"online":true,` +
		`"since":"2026-11-22T08:04:55.123Z","agent":{"agentId":1,"tenantId":886,"onlineStatus":1,"agentName":"张\u4e09"}`, `}}`
	for _, more := range []string{
		`,"changes":[]`, `,"changes":[{"field":"x","from":1,"to":{}}]`, `,"changes":null`, `,"changes":{}`, `,"changes":[1]`, `,"changes":[{"field":1}]`,
		`,"changes":[{"FIELD":1}]`, `,"Agent":{}`, `,"agent":null`, `,"agent":{"agentId":2}`, `,"online":null`, `,"Online":false`, `,"notBefore":null`,
		`,"notBefore":"yesterday"`, `,"notBefore":"2026-11-22T09:04:55.1234567+01:00"`, `,"previousSince":"2026-11-22T08:04:55.123\u005a"`, `,"new":1`, `,"revision":1`, `,`,
	} {
		f.Add([]byte(head + more + tail))
	}
	f.Add([]byte(head + tail + "x"))
	f.Add([]byte(head + tail + ` `))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, sweep, ok := takeApart(b)
		if !ok {
			return
		}
		var e schemas.Event
		if err := json.Unmarshal(b, &e); err != nil {
			t.Fatalf("taken apart, and not an event: %v", err)
		}
		if d := cmp.Diff(packed.StateOf(&e), s); d != "" || sweep != e.Data.Sweep {
			t.Fatalf("sweep %d, want %d; state (-plain way +short cut):\n%s", sweep, e.Data.Sweep, d)
		}
	})
}

// BenchmarkDecodeState is held against the plain way, which has to take several times as long.
func BenchmarkDecodeState(b *testing.B) {
	var e schemas.Event
	if err := json.Unmarshal(goldens(b)["event-status-online.json"], &e); err != nil {
		b.Fatal(err)
	}
	body := e.AppendJSON(nil)
	for _, bc := range []struct {
		name   string
		decode func() bool
	}{
		{"short", func() bool { _, _, ok := takeApart(body); return ok }},
		{"plain", func() bool { var e schemas.Event; return json.Unmarshal(body, &e) == nil && packed.StateOf(&e) != nil }},
	} {
		b.Run(bc.name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if !bc.decode() {
					b.Fatal("no event")
				}
			}
		})
	}
}
