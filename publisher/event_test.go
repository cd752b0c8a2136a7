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

// What recovery reads of an event is what a reader of the event makes of it.
func TestDecodeEvent(t *testing.T) {
	for name, b := range goldens(t) {
		var e schemas.Event
		if err := json.Unmarshal(b, &e); err != nil {
			t.Fatal(err)
		}
		s, sweep, err := decodeEvent(b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if d := cmp.Diff(packed.StateOf(&e), s); d != "" || sweep != e.Data.Sweep {
			t.Errorf("%s: sweep %d, want %d; state (-event +recovered):\n%s",
				name, sweep, e.Data.Sweep, d)
		}
	}
}

// What a reader would refuse recovery does not take for an event.
func TestDecodeNoEvent(t *testing.T) {
	const head = `{"specversion":"1.0","type":"agent.online","source":"/isdp/tenants/886",` +
		`"subject":"1","id":"886-1-2","time":"2026-11-22T08:04:55.123Z",` +
		`"datacontenttype":"application/json","dataschema":"urn:rollcall:agent-event:v1",` +
		`"data":{"revision":2,"reason":"status","sweep":7,"online":true,` +
		`"since":"2026-11-22T08:04:55.123Z"`
	const agent = `,"agent":{"agentId":1,"tenantId":886,"onlineStatus":1,"x":{"a":1,"a":2}}`
	if _, _, err := decodeEvent([]byte(head + agent + `,"new":1}}`)); err != nil {
		t.Fatalf("an event: %v", err)
	}
	for _, rest := range []string{
		`}}`, `,"agent":null}}`, `,"agent":[]}}`,
		`,"agent":{"agentId":2,"tenantId":886,"onlineStatus":1}}}`,
		`,"agent":{"agentId":1,"tenantId":886}}}`,
		agent + `,"revision":3}}`, agent + `,"online":false}}`, agent + `,"since":null}}`,
		agent + `,"since":"yesterday"}}`, agent + `}`, agent + `}}x`,
		agent + `},"specversion":"2"}`,
		agent + `},"type":"agent.asleep"}`, agent + `},"id":"886-1-3"}`,
	} {
		if s, _, err := decodeEvent([]byte(head + rest)); err == nil {
			t.Errorf("…%s is taken for an event: %+v", rest, s)
		}
	}
}

// Recovery decodes the state of every agent at each start.
func BenchmarkDecodeEvent(b *testing.B) {
	var e schemas.Event
	if err := json.Unmarshal(goldens(b)["event-status-online.json"], &e); err != nil {
		b.Fatal(err)
	}
	body := e.AppendJSON(nil)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := decodeEvent(body); err != nil {
			b.Fatal(err)
		}
	}
}
