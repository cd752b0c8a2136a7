package schemas

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// asyncAPIFrame is the AsyncAPI document without what stands elsewhere already: an object
// {"$embed": "FILE"} is to be replaced by that file, a schema without its $schema, of which
// AsyncAPI has its own.
const asyncAPIFrame = "testdata/asyncapi.json"

// kindStale is the one channel that the stream does not have: the server's own.
const kindStale = "stale"

// questions are the channels with a request and a reply.
var questions = []string{QueryRoster, QueryAgent, QueryCounts}

var (
	embedded = regexp.MustCompile(`\{\s*"\$embed":\s*"([^"#]+)#?([^"]*)"\s*\}`)
	// A schema with an $id of its own could not refer to the document's other parts.
	dialect = regexp.MustCompile(`^\{\s*"\$schema": "[^"]+",\s*"\$id": "[^"]+",`)
	defs    = regexp.MustCompile(`(?s),\s*"\$defs": (\{.*\})\s*\}\s*$`) // at the end
)

func TestAsyncAPIIsUpToDate(t *testing.T) {
	frame, err := os.ReadFile(asyncAPIFrame)
	if err != nil {
		t.Fatal(err)
	}
	whole := embedded.ReplaceAllFunc(frame, func(m []byte) []byte {
		match := embedded.FindSubmatch(m)
		file, err := os.ReadFile(filepath.FromSlash(string(match[1])))
		if err != nil {
			t.Fatal(err)
		}
		part := dialect.ReplaceAll(defs.ReplaceAll(file, []byte("}")), []byte("{"))
		if name := string(match[2]); name != "" {
			var all map[string]json.RawMessage
			if err := json.Unmarshal(defs.FindSubmatch(file)[1], &all); err != nil {
				t.Fatal(err)
			}
			part = all[name]
		}
		return bytes.ReplaceAll(part, []byte("#/$defs/"), []byte("#/components/schemas/"))
	})
	var want bytes.Buffer
	if err := json.Indent(&want, whole, "", "  "); err != nil {
		t.Fatal(err)
	}
	text := append(bytes.TrimSpace(want.Bytes()), '\n')
	if *update {
		if err := os.WriteFile("asyncapi.json", text, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := cmp.Diff(string(text), string(document(t, "asyncapi"))); d != "" {
		t.Errorf(
			"asyncapi.json is not what %s and the schemas make; go test ./schemas -run AsyncAPI "+
				"-update makes it so:\n%s",
			asyncAPIFrame,
			d,
		)
	}
}

// What the AsyncAPI document says of the stream.
type (
	apiChannel struct {
		Address    string
		Parameters map[string]map[string]any
		Messages   map[string]map[string]any
		Stream     struct{ Stream string } `json:"x-jetstream"`
	}
	apiMessage struct {
		Name, ContentType string
		Headers, Payload  map[string]any
		Examples          []struct {
			Name             string
			Headers, Payload json.RawMessage
		}
	}
	apiDocument struct {
		AsyncAPI   string
		Channels   map[string]apiChannel
		Operations map[string]struct {
			Action   string
			Channel  map[string]any
			Messages []map[string]any
			Reply    struct{ Messages []map[string]any }
		}
		Components struct {
			Messages map[string]apiMessage
			Schemas  map[string]map[string]any
		}
	}
)

func asyncAPIDocument(t testing.TB) apiDocument {
	t.Helper()
	var d apiDocument
	if err := json.Unmarshal(document(t, "asyncapi"), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func channels(t testing.TB) map[string]apiChannel {
	t.Helper()
	return asyncAPIDocument(t).Channels
}

// Every channel is a kind of subject, and the other way round; its address is the subject that the
// code makes.
func TestAsyncAPISubjects(t *testing.T) {
	event := func(kind EventType) string { return EventSubject(kind, 886, "10", 17813) }
	subjects := map[Kind]string{
		KindOnline: event(Online), KindOffline: event(Offline), KindUpdated: event(Updated),
		KindState: StateSubject(
			886,
			17813,
		), KindWatermark: WatermarkSubject(886), KindHealth: HealthSubject(886),
		KindUnobserved: UnobservedSubject(886),
	}
	if n := len(constants(t, "Kind")); n != len(subjects) {
		t.Errorf("%d kinds, and %d subjects here", n, len(subjects))
	}
	subjects[kindStale] = StaleSubject(886)
	for _, q := range questions {
		subjects[Kind(q)] = QuerySubject(886, q)
	}
	all := channels(t)
	for kind, subject := range subjects {
		c, ok := all[string(kind)]
		if !ok {
			t.Errorf("no channel %s", kind)
			continue
		}
		delete(all, string(kind))
		values := map[string]string{"tenantId": "886", "type": "10", "agentId": "17813"}
		address := c.Address
		for name := range c.Parameters {
			if !strings.Contains(address, "{"+name+"}") {
				t.Errorf("%s has no parameter %s", c.Address, name)
			}
			address = strings.ReplaceAll(address, "{"+name+"}", values[name])
		}
		if address != subject {
			t.Errorf("%s is %s, want %s", c.Address, address, subject)
		}
		want := Stream
		switch {
		case kind == kindStale:
			want = AlarmStream
		case slices.Contains(questions, string(kind)):
			want = ""
		}
		if c.Stream.Stream != want {
			t.Errorf("%s is in stream %q, want %q", kind, c.Stream.Stream, want)
		}
	}
	if len(all) > 0 {
		t.Errorf("channels that the code knows nothing of: %q", slices.Sorted(maps.Keys(all)))
	}
}

// Every reference leads somewhere, every channel has one message and one operation that sends it,
// and every message has the schema of its kind.
func TestAsyncAPIParts(t *testing.T) {
	root := parseJSON(t, document(t, "asyncapi"))
	var refs func(v any)
	refs = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok {
				path, ok := strings.CutPrefix(ref, "#/")
				if !ok {
					t.Fatalf("%s leads out of the document", ref)
				}
				at(t, root, strings.Split(path, "/")...)
			}
			for _, f := range v {
				refs(f)
			}
		case []any:
			for _, e := range v {
				refs(e)
			}
		}
	}
	refs(root)

	d := asyncAPIDocument(t)
	if !strings.HasPrefix(d.AsyncAPI, "3.") {
		t.Errorf("AsyncAPI %s", d.AsyncAPI)
	}
	if len(d.Operations) != len(d.Channels) ||
		len(d.Components.Messages) != len(d.Channels)+len(questions) {
		t.Errorf(
			"%d operations and %d messages for %d channels",
			len(d.Operations),
			len(d.Components.Messages),
			len(d.Channels),
		)
	}
	for kind, c := range d.Channels {
		if slices.Contains(questions, kind) {
			continue
		}
		if len(c.Messages) != 1 || c.Messages[kind]["$ref"] != "#/components/messages/"+kind {
			t.Errorf("channel %s has messages %v", kind, c.Messages)
		}
		found := false
		for _, o := range d.Operations {
			if o.Channel["$ref"] == "#/channels/"+kind {
				found = o.Action == "send" && len(o.Messages) == 1 &&
					o.Messages[0]["$ref"] == "#/channels/"+kind+"/messages/"+kind
			}
		}
		if !found {
			t.Errorf("no operation sends the message of channel %s", kind)
		}
		m := d.Components.Messages[kind]
		schema, headers, content := "event", "eventHeaders", ContentTypeEvent
		switch Kind(kind) {
		case KindState:
			headers = "stateHeaders"
		case KindWatermark, KindHealth, KindUnobserved, kindStale:
			schema, headers, content = kind, kind+"Headers", ContentTypeJSON
		}
		if m.ContentType != content || m.Payload["$ref"] != "#/components/schemas/"+schema ||
			m.Headers["$ref"] != "#/components/schemas/"+headers {
			t.Errorf(
				"message %s is %s of %v, with headers of %v",
				kind,
				m.ContentType,
				m.Payload,
				m.Headers,
			)
		}
		if got := at(t, root, "components", "schemas", headers, "properties", "Content-Type",
			"const"); got != content {
			t.Errorf("the Content-Type of %s is %v, want %s", kind, got, content)
		}
	}
	for _, q := range questions {
		o := d.Operations["answer"+strings.ToUpper(q[:1])+q[1:]]
		request := "/channels/" + q + "/messages/" + q + "Request"
		reply := "/channels/" + q + "/messages/" + q + "Reply"
		if o.Action != "receive" || len(o.Messages) != 1 || o.Messages[0]["$ref"] != "#"+request ||
			len(o.Reply.Messages) != 1 || o.Reply.Messages[0]["$ref"] != "#"+reply ||
			len(d.Channels[q].Messages) != 2 {
			t.Errorf("%s is asked and answered by %+v", q, o)
		}
		for _, name := range []string{q + "Request", q + "Reply"} {
			if m := d.Components.Messages[name]; m.ContentType != ContentTypeJSON ||
				m.Payload["$ref"] != "#/components/schemas/"+name {
				t.Errorf("message %s is %+v", name, m)
			}
		}
	}
	for kind := range payloads {
		want := inlined(parseObject(t, document(t, kind)))
		delete(want, "$schema")
		delete(want, "$id")
		got := inlineRefs(root, at(t, root, "components", "schemas", kind))
		if d := cmp.Diff(any(want), got); d != "" {
			t.Errorf(
				"the schema of %s (-) and what the AsyncAPI document has of it (+):\n%s",
				kind,
				d,
			)
		}
	}
}

// The examples are messages that could have been sent on their channels.
func TestAsyncAPIExamples(t *testing.T) {
	c := asyncAPICompiler(t)
	c.AssertFormat()
	for kind, m := range asyncAPIDocument(t).Components.Messages {
		ref := func(part map[string]any) string { return asyncAPIURL + part["$ref"].(string) }
		if m.Headers == nil { // a question, or its answer
			payload := c.MustCompile(ref(m.Payload))
			for _, e := range m.Examples {
				if err := payload.Validate(parseJSON(t, e.Payload)); err != nil {
					t.Errorf("%s, example %s: %v", kind, e.Name, err)
				}
			}
			if len(m.Examples) == 0 {
				t.Errorf("%s has no example", kind)
			}
			continue
		}
		payload, headers := c.MustCompile(ref(m.Payload)), c.MustCompile(ref(m.Headers))
		withHeaders := 0
		for _, e := range m.Examples {
			if err := payload.Validate(parseJSON(t, e.Payload)); err != nil {
				t.Errorf("%s, example %s: %v", kind, e.Name, err)
			}
			subject := ""
			switch Kind(kind) {
			case KindWatermark:
				var w Watermark
				if err := json.Unmarshal(e.Payload, &w); err != nil {
					t.Fatal(err)
				}
				subject = WatermarkSubject(w.TenantID)
			case KindHealth:
				var h Health
				if err := json.Unmarshal(e.Payload, &h); err != nil {
					t.Fatal(err)
				}
				subject = HealthSubject(h.TenantID)
			case KindUnobserved:
				var u Unobserved
				if err := json.Unmarshal(e.Payload, &u); err != nil {
					t.Fatal(err)
				}
				subject = UnobservedSubject(u.TenantID)
			case kindStale: // its subject is none of the stream's
				var s Stale
				if err := json.Unmarshal(e.Payload, &s); err != nil {
					t.Fatal(err)
				}
				var want bytes.Buffer
				if err := json.Compact(&want, e.Payload); err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(want.String(), string(s.AppendJSON(nil))); d != "" {
					t.Errorf("%s, example %s, and what the code makes of it:\n%s", kind, e.Name, d)
				}
				subject = AlarmFiredSubject(s.TenantID)
			default:
				var ev Event
				if err := json.Unmarshal(e.Payload, &ev); err != nil {
					t.Fatal(err)
				}
				subject = ev.Subject()
				if Kind(kind) == KindState {
					subject = StateSubject(ev.Data.Agent.TenantID, ev.Data.Agent.AgentID)
				}
			}
			if p, err := ParseSubject(subject); Kind(kind) != kindStale &&
				(err != nil || p.Kind != Kind(kind)) {
				t.Errorf("%s, example %s: of kind %s, error %v", kind, e.Name, p.Kind, err)
			}
			if e.Headers == nil {
				continue
			}
			withHeaders++
			h := parseObject(t, e.Headers)
			if err := headers.Validate(h); err != nil {
				t.Errorf("%s, example %s: %v", kind, e.Name, err)
			}
			if got, ok := h["Nats-Subject"]; ok && got != subject {
				t.Errorf("%s, example %s: Nats-Subject %v, want %s", kind, e.Name, got, subject)
			}
		}
		if withHeaders == 0 {
			t.Errorf("%s: no example has headers", kind)
		}
	}
}
