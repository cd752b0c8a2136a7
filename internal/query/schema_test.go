package query

import (
	"bytes"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/rollcall-events/rollcall/internal/test/wait"
	"github.com/rollcall-events/rollcall/schemas"
)

// What is answered follows the schema, and so does what is asked.
func TestSchema(t *testing.T) {
	t.Parallel()
	text, _ := schemas.Document("query")
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	const id = "urn:rollcall:query:v1"
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource(id, doc); err != nil {
		t.Fatal(err)
	}
	valid := func(of, body string) error {
		t.Helper()
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader([]byte(body)))
		if err != nil {
			t.Fatal(err)
		}
		return c.MustCompile(id + of).Validate(v)
	}
	w := emptyWorld(t)
	w.replica("a")
	for range 2 {
		for question, requests := range map[string][]string{
			"roster": {"{}", `{"type":"10","online":true,"area":"North","after":"3","limit":1}`,
				`{"type":"_"}`, `{"area":""}`},
			"agent":  {`{"agentId":"17813"}`, `{"agentId":"3"}`},
			"counts": {"{}"},
		} {
			for _, request := range requests {
				if err := valid("#/$defs/"+question+"Request", request); err != nil {
					t.Errorf("%s %s: %v", question, request, err)
				}
				body := w.ask(question, request).body
				for _, of := range []string{"#/$defs/" + question + "Reply", ""} {
					if err := valid(of, body); err != nil {
						t.Errorf("%s %s: %s: %v", question, request, body, err)
					}
				}
			}
		}
		w.open()
		w.commit(people(w)...)
		wait.Eventually(t, "the states to be read", func() bool {
			return *w.ask("counts", "").Trusted
		})
	}
	// What is refused does not follow it.
	for _, r := range [][2]string{{"roster", `{"limit":1000000}`}, {"roster", `{"type":10}`},
		{"roster", `{"name":"x"}`}, {"roster", `{"after":"007"}`}, {"roster", `{"type":"a b"}`},
		{"agent", `{}`}, {"agent", `{"agentId":1}`}, {"counts", `{"type":"10"}`}} {
		if valid("#/$defs/"+r[0]+"Request", r[1]) == nil {
			t.Errorf("%s may be asked by %s", r[0], r[1])
		}
	}
	for _, body := range []string{`{"trusted":false,"agents":[]}`, `{"trusted":true,"agents":[]}`} {
		if valid("#/$defs/rosterReply", body) == nil {
			t.Errorf("%s is an answer", body)
		}
	}
}
