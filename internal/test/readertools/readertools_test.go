//go:build unix

package readertools

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/rollcall-events/rollcall/internal/test/e2e"
	"github.com/rollcall-events/rollcall/schemas"
)

// A judge holds messages against the schemas, as a JSON Schema library reads them.
type judge struct {
	payload map[string]*jsonschema.Schema // by the kind of subject
	headers map[string]*jsonschema.Schema
	known   map[string]map[string]bool // the headers that are described
}

func newJudge(t testing.TB) *judge {
	t.Helper()
	parsed := func(name string) map[string]any {
		text, ok := schemas.Document(name)
		if !ok {
			t.Fatalf("no document %s", name)
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		return doc.(map[string]any)
	}
	compiled := func(draft *jsonschema.Draft, doc any, fragment string) *jsonschema.Schema {
		c := jsonschema.NewCompiler()
		c.DefaultDraft(draft)
		c.AssertFormat()
		const url = "urn:document"
		if err := c.AddResource(url, doc); err != nil {
			t.Fatal(err)
		}
		s, err := c.Compile(url + fragment)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	j := &judge{map[string]*jsonschema.Schema{}, map[string]*jsonschema.Schema{},
		map[string]map[string]bool{}}
	api := parsed("asyncapi")
	parts := api["components"].(map[string]any)["schemas"].(map[string]any)
	for _, kind := range []string{"online", "offline", "updated", "state", "watermark", "health",
		"unobserved"} {
		document, headers := "event", "eventHeaders"
		switch kind {
		case "state":
			headers = "stateHeaders"
		case "watermark", "health", "unobserved":
			document, headers = kind, kind+"Headers"
		}
		j.payload[kind] = compiled(jsonschema.Draft2020, parsed(document), "")
		j.headers[kind] = compiled(jsonschema.Draft7, api, "#/components/schemas/"+headers)
		j.known[kind] = make(map[string]bool)
		for _, of := range []string{"commonHeaders", headers} {
			for name := range parts[of].(map[string]any)["properties"].(map[string]any) {
				j.known[kind][name] = true
			}
		}
	}
	return j
}

// message tells what is wrong with a message; nothing: "".
func (j *judge) message(m e2e.Msg) string {
	kind := m.Tokens()[1]
	schema, ok := j.payload[kind]
	if !ok {
		return "no schema for " + m.Subject
	}
	body, err := jsonschema.UnmarshalJSON(strings.NewReader(m.Body))
	if err != nil {
		return err.Error()
	}
	if err := schema.Validate(body); err != nil {
		return err.Error()
	}
	headers := make(map[string]any)
	for name, values := range m.Header {
		if len(values) != 1 || !j.known[kind][name] {
			return fmt.Sprintf("header %s: %q is not described", name, values)
		}
		headers[name] = values[0]
	}
	if err := j.headers[kind].Validate(headers); err != nil {
		return err.Error()
	}
	return ""
}

// cloudEvent parses an event or a state as the CloudEvents SDK does, and tells what is wrong.
func cloudEvent(m e2e.Msg) error {
	e := event.New()
	if err := json.Unmarshal([]byte(m.Body), &e); err != nil {
		return err
	}
	if err := e.Validate(); err != nil {
		return err
	}
	tokens := m.Tokens()
	agent, tenantToken := tokens[len(tokens)-1], tokens[2]
	var data struct {
		Revision uint64
		Agent    struct{ AgentID, TenantID int64 }
	}
	if err := e.DataAs(&data); err != nil {
		return err
	}
	if string(e.Data()) != m.Body[strings.Index(m.Body, `"data":`)+len(`"data":`):len(m.Body)-1] {
		return fmt.Errorf("its data is %s", e.Data())
	}
	want := map[string]string{
		"specversion": "1.0", "source": "/isdp/tenants/" + tenantToken, "subject": agent,
		"datacontenttype": "application/json",
		"id":              fmt.Sprintf("%s-%s-%d", tenantToken, agent, data.Revision),
		"dataschema":      "urn:rollcall:agent-event:v1", "agentId": agent, "tenantId": tenantToken,
		"extensions": "0",
	}
	got := map[string]string{
		"specversion": e.SpecVersion(), "source": e.Source(), "subject": e.Subject(),
		"datacontenttype": e.DataContentType(),
		"id":              e.ID(), "dataschema": e.DataSchema(),
		"agentId":    strconv.FormatInt(data.Agent.AgentID, 10),
		"tenantId":   strconv.FormatInt(data.Agent.TenantID, 10),
		"extensions": strconv.Itoa(len(e.Extensions())),
	}
	if tokens[1] != "state" {
		want["type"], got["type"] = tokens[0]+"."+tokens[1], e.Type()
	}
	var raw struct{ Time string }
	if err := json.Unmarshal([]byte(m.Body), &raw); err != nil {
		return err
	}
	want["time"], got["time"] = raw.Time, e.Time().Format("2006-01-02T15:04:05.000Z")
	if d := cmp.Diff(want, got); d != "" {
		return fmt.Errorf("its attributes (+) are not the message's (-):\n%s", d)
	}
	return nil
}

// Whatever a run stores and sends, in every kind of message, is what the schemas say, and
// CloudEvents where it should be.
func TestEveryMessage(t *testing.T) {
	t.Parallel()
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		env, url := e2e.Embedded(t)
		everyMessage(t, newWorld(t, env, url))
	})
	t.Run("external", func(t *testing.T) {
		t.Parallel()
		server := e2e.NewNATSServer(t, "")
		server.Start()
		everyMessage(t, newWorld(t, map[string]string{"ROLLCALL_NATS_URL": server.URL}, server.URL))
	})
}

func everyMessage(t *testing.T, w *world) {
	t.Helper()
	live, stored := w.messages(), e2e.ReadStream(t, w.nc, 1)
	j := newJudge(t)
	seen := make(map[string]int)
	for _, m := range slices.Concat(live, stored) {
		if wrong := j.message(m); wrong != "" {
			t.Errorf("%s, sequence %d: %s\n%s\n%v", m.Subject, m.Seq, wrong, m.Body, m.Header)
		}
		kind := m.Tokens()[1]
		if !slices.Contains([]string{"watermark", "health", "unobserved"}, kind) {
			if err := cloudEvent(m); err != nil {
				t.Errorf("%s, sequence %d: no CloudEvent as it should be: %v\n%s", m.Subject, m.Seq,
					err, m.Body)
			}
		}
		for _, part := range wanted {
			if strings.Contains(kind+" "+m.Body, part) {
				seen[part]++
			}
		}
	}
	for _, part := range wanted {
		if seen[part] == 0 {
			t.Errorf("no message with %s", part)
		}
	}
	if len(stored) < 40 || len(live) <= len(stored) {
		t.Errorf("%d messages live, %d stored", len(live), len(stored))
	}

	// What both have had is the same, but for the headers that only plain subscribers get.
	known := bySequence(live)
	for _, m := range stored {
		l, ok := known[m.Seq]
		if !ok {
			if m.Seq <= live[len(live)-1].Seq {
				t.Errorf("%s, sequence %d, did not come to the plain subscriber", m.Subject, m.Seq)
			}
			continue
		}
		headers := nats.Header(maps.Clone(l.Header))
		for _, name := range []string{"Nats-Stream", "Nats-Subject", "Nats-Sequence",
			"Nats-Time-Stamp", "Nats-Last-Sequence"} {
			if len(headers[name]) != 1 {
				t.Errorf("%s, sequence %d, has no header %s", l.Subject, l.Seq, name)
			}
			delete(headers, name)
		}
		if d := cmp.Diff(m,
			e2e.Msg{Subject: l.Subject, Seq: l.Seq, Header: headers, Body: l.Body}); d != "" {
			t.Errorf("stored (-) and live (+):\n%s", d)
		}
	}
}

// wanted are parts of messages, each of which a run has to bring lest it proves too little.
var wanted = []string{
	`online {`, `offline {`, `updated {`, `state {`, `watermark {`, `health {`,
	`unobserved {`,
	`"reason":"baseline"`, `"reason":"appeared"`, `"reason":"status"`, `"reason":"fields"`,
	`"reason":"removed"`,
	`"notBefore":`, `"previousSince":`, `"changes":[]`, `欧阳`, `"skills":[ "5G"`, `"字段 ":null`,
	`"deleteFlag":1`, `"agentId":9007199254740993`,
	`"sweep":0,`, `"inProgress":`, `"missing":24,`, `"startedAt":`, `"state":"ok"`,
	`"state":"failing"`, `"state":"holding"`,
}

func bySequence(msgs []e2e.Msg) map[uint64]e2e.Msg {
	m := make(map[uint64]e2e.Msg, len(msgs))
	for _, msg := range msgs {
		m[msg.Seq] = msg
	}
	return m
}

// The judges can say no.
func TestJudges(t *testing.T) {
	good := e2e.Msg{
		Subject: "agent.online.886.10.17813",
		Header: nats.Header{"Content-Type": {"application/cloudevents+json"},
			"Nats-TTL": {"604800"}, "Nats-Batch-Id": {"x"},
			"Nats-Batch-Sequence": {"1"}},
		Body: `{"specversion":"1.0","type":"agent.online","source":"/isdp/tenants/886",` +
			`"subject":"17813","id":"886-17813-2",` +
			`"time":"2026-11-22T08:04:55.123Z","datacontenttype":"application/json",` +
			`"dataschema":"urn:rollcall:agent-event:v1",` +
			`"data":{"revision":2,"reason":"status","sweep":7,"online":true,` +
			`"since":"2026-11-22T08:04:55.123Z",` +
			`"agent":{"agentId":17813,"tenantId":886,"onlineStatus":1},"changes":[]}}`,
	}
	j := newJudge(t)
	if wrong, err := j.message(good), cloudEvent(good); wrong != "" || err != nil {
		t.Fatalf("%s, %v", wrong, err)
	}
	for _, tt := range []struct {
		what  string
		spoil func(*e2e.Msg)
		cloud bool // the CloudEvents SDK has to see it
	}{
		{"another kind of subject", func(m *e2e.Msg) {
			m.Subject = "agent.busy.886.10.17813"
		}, true},
		{"an undescribed header", func(m *e2e.Msg) {
			m.Header["Nats-Msg-Id"] = []string{"1"}
		}, false},
		{"no content type", func(m *e2e.Msg) { delete(m.Header, "Content-Type") }, false},
		{"a body of another type", func(m *e2e.Msg) { m.Body = `[]` }, true},
		{"a time of another form", func(m *e2e.Msg) {
			m.Body = strings.Replace(m.Body, `55.123Z","datac`, `55Z","datac`, 1)
		}, true},
		{"no id", func(m *e2e.Msg) {
			m.Body = strings.Replace(m.Body, `"id":"886-17813-2",`, ``, 1)
		}, true},
		{"no source", func(m *e2e.Msg) {
			m.Body = strings.Replace(m.Body, `"source":"/isdp/tenants/886",`, ``, 1)
		}, true},
		{"no CloudEvents version", func(m *e2e.Msg) {
			m.Body = strings.Replace(m.Body, `"specversion":"1.0",`, ``, 1)
		}, true},
	} {
		m := good
		m.Header = maps.Clone(good.Header)
		tt.spoil(&m)
		if j.message(m) == "" {
			t.Errorf("%s: the schemas say nothing", tt.what)
		}
		if tt.cloud && cloudEvent(m) == nil {
			t.Errorf("%s: the SDK says nothing", tt.what)
		}
	}
}
