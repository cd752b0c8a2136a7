package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rollcall-events/rollcall/schemas"
)

func schemaOutput(args ...string) (stdout, stderr string, err error) {
	root := rootCommand()
	var out, errs bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&errs)
	root.SetArgs(args)
	err = root.Execute()
	return out.String(), errs.String(), err
}

func TestSchema(t *testing.T) {
	names := []string{"event", "watermark", "health", "unobserved", "query", "asyncapi"}
	if out, _, err := schemaOutput("schema"); err != nil || out != strings.Join(names, "\n")+"\n" {
		t.Errorf("without a name: %q, error %v", out, err)
	}
	for _, name := range names {
		want, ok := schemas.Document(name)
		if !ok {
			t.Fatalf("no document %s", name)
		}
		out, stderr, err := schemaOutput("schema", name)
		if err != nil || stderr != "" {
			t.Errorf("%s: %q, error %v", name, stderr, err)
		}
		if d := cmp.Diff(string(want), out); d != "" {
			t.Errorf("%s:\n%s", name, d)
		}
	}
}

func TestSchemaUsage(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"schema", "events"}, `there is no schema "events"; there are event, watermark, ` +
			`health, unobserved, query, asyncapi`},
		{[]string{"schema", ""}, `there is no schema ""`},
		{[]string{"schema", "event", "health"}, "at most 1"},
	} {
		out, _, err := schemaOutput(tt.args...)
		if _, ok := errors.AsType[*usageError](err); out != "" || !ok ||
			!strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: printed %q, error %v; want one about %q", tt.args, out, err, tt.want)
		}
	}
}

func TestSchemaCompletion(t *testing.T) {
	out, _, err := schemaOutput("__complete", "schema", "")
	want := "event\nwatermark\nhealth\nunobserved\nquery\nasyncapi\n"
	if err != nil || !strings.HasPrefix(out, want) {
		t.Errorf("completed with %q, error %v", out, err)
	}
}

// The fixtures are lines of JSON whose bodies are the goldens', byte for byte.
func TestSchemaFixtures(t *testing.T) {
	out, stderr, err := schemaOutput("schema", "--fixtures")
	if err != nil || stderr != "" {
		t.Fatalf("%q, error %v", stderr, err)
	}
	all := schemas.Fixtures()
	for line := range strings.Lines(out) {
		var f struct{ Name, Subject, ContentType, Body string }
		if err := json.Unmarshal([]byte(line), &f); err != nil || len(all) == 0 {
			t.Fatalf("%v: %s", err, line)
		}
		if d := cmp.Diff(all[0], schemas.Fixture{Name: f.Name, Subject: f.Subject,
			ContentType: f.ContentType, Body: json.RawMessage(f.Body)}); d != "" {
			t.Error(d)
		}
		all = all[1:]
	}
	if len(all) > 0 {
		t.Errorf("%d are missing", len(all))
	}
	_, _, err = schemaOutput("schema", "event", "--fixtures")
	if _, ok := errors.AsType[*usageError](err); !ok {
		t.Errorf("of events only: %v", err)
	}
}
