package schemas

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// baselinePath is where the schema of version 1 is kept as readers have it. It only ever gains
// fields.
func baselinePath(kind string) string {
	return filepath.Join(goldenDir, "schemas", kind+".schema.json")
}

// annotations are the keywords that no message is judged by.
var annotations = []string{
	"$comment",
	"$schema",
	"default",
	"deprecated",
	"description",
	"examples",
	"readOnly",
	"title",
	"writeOnly",
}

// breaches tells in what a schema breaks the promise of version 1, given an earlier one: it may
// gain optional fields, and words. Whatever else is changed hurts somebody: a new constraint those
// who sent, or replay, what was allowed before, and one that is gone those who relied on it.
func breaches(earlier, later map[string]any) []string {
	earlier, later = inlined(earlier), inlined(later)
	var told []string
	tell := func(path, format string, args ...any) {
		told = append(told, strings.TrimPrefix(path+": ", ": ")+fmt.Sprintf(format, args...))
	}
	var compare func(path string, earlier, later map[string]any)
	compare = func(path string, earlier, later map[string]any) {
		for keyword := range mapKeys(earlier, later) {
			was, did := earlier[keyword]
			is, does := later[keyword]
			switch {
			case slices.Contains(annotations, keyword):
			case keyword == "properties":
				before, _ := was.(map[string]any)
				after, _ := is.(map[string]any)
				for name, field := range before {
					if after[name] == nil {
						tell(path, "field %s is gone", name)
						continue
					}
					f, ok1 := field.(map[string]any)
					g, ok2 := after[name].(map[string]any)
					if !ok1 || !ok2 {
						if !reflect.DeepEqual(field, after[name]) {
							tell(path, "field %s has changed", name)
						}
						continue
					}
					compare(strings.TrimPrefix(path+"."+name, "."), f, g)
				}
			case keyword == "items":
				before, ok1 := was.(map[string]any)
				after, ok2 := is.(map[string]any)
				if !ok1 || !ok2 {
					tell(path, "items has changed")
					continue
				}
				compare(path+"[]", before, after)
			case keyword == "required":
				before, after := names(was), names(is)
				for name := range after {
					if !before[name] {
						tell(path, "field %s is required now", name)
					}
				}
				for name := range before {
					if !after[name] {
						tell(path, "field %s is optional now", name)
					}
				}
			case keyword == "anyOf" && !did && isAnyType(is):
			case did && !does:
				tell(path, "%s is gone", keyword)
			case !did && does:
				tell(path, "%s is new", keyword)
			// Conditions included: a further field in one could mean more, or less.
			case !reflect.DeepEqual(unannotated(was), unannotated(is)):
				tell(path, "%s has changed", keyword)
			}
		}
	}
	compare("", earlier, later)
	slices.Sort(told)
	return told
}

// isAnyType reports whether an "anyOf" allows everything, as none does. A list in "type" would say
// the same, but Ajv's strict mode refuses those.
func isAnyType(v any) bool {
	list, _ := v.([]any)
	set := make(map[any]bool)
	for _, e := range list {
		if only, ok := e.(map[string]any); ok && len(only) == 1 {
			set[only["type"]] = true
		}
	}
	for _, name := range []string{"string", "number", "boolean", "object", "array", "null"} {
		if !set[name] {
			return false
		}
	}
	return true
}

// inlined is a copy of a schema with its definitions where they are used.
func inlined(schema map[string]any) map[string]any {
	c := inlineRefs(schema, schema).(map[string]any)
	delete(c, "$defs")
	return c
}

// inlineRefs copies a part of a document with what its references lead to in place of them.
func inlineRefs(root, part any) any {
	switch part := part.(type) {
	case map[string]any:
		if ref, ok := part["$ref"].(string); ok {
			to := root
			for name := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
				to = to.(map[string]any)[name]
			}
			return inlineRefs(root, to)
		}
		c := make(map[string]any)
		for name, v := range part {
			c[name] = inlineRefs(root, v)
		}
		return c
	case []any:
		c := make([]any, len(part))
		for i, v := range part {
			c[i] = inlineRefs(root, v)
		}
		return c
	}
	return part
}

// names are the members of a "required".
func names(required any) map[string]bool {
	set := make(map[string]bool)
	list, _ := required.([]any)
	for _, name := range list {
		set[name.(string)] = true
	}
	return set
}

// unannotated is a copy of a schema's part without annotations.
func unannotated(v any) any {
	switch v := v.(type) {
	case map[string]any:
		c := make(map[string]any)
		for keyword, part := range v {
			if !slices.Contains(annotations, keyword) {
				c[keyword] = unannotated(part)
			}
		}
		return c
	case []any:
		c := make([]any, len(v))
		for i := range v {
			c[i] = unannotated(v[i])
		}
		return c
	}
	return v
}

// keepBaseline compares a schema with the baseline and, if asked to, lets that gain what is new. It
// never loses anything.
func keepBaseline(path string, schema []byte, update bool) error {
	parse := func(text []byte) (o map[string]any, err error) {
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		err = d.Decode(&o)
		return o, err
	}
	later, err := parse(schema)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		return os.WriteFile(path, schema, 0o644)
	}
	if err != nil {
		return err
	}
	earlier, err := parse(text)
	if err != nil {
		return err
	}
	if told := breaches(earlier, later); len(told) > 0 {
		return fmt.Errorf(
			"version 1 is broken; only optional fields may be added: %s",
			strings.Join(told, "; "),
		)
	}
	if update {
		return os.WriteFile(path, schema, 0o644)
	}
	// The other way round it is what is new; keeping that at once means that it can't be lost
	// again.
	if told := breaches(later, earlier); len(told) > 0 {
		return fmt.Errorf(
			"%s lacks what is new, so nothing keeps that: run go test ./schemas -run Compatible "+
				"-update (%s)",
			path,
			strings.Join(told, "; "),
		)
	}
	return nil
}

func TestSchemasAreCompatible(t *testing.T) {
	for kind := range payloads {
		if err := keepBaseline(baselinePath(kind), document(t, kind), *update); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// An edit changes a schema: it sets a keyword or a field at a path, or takes it away.
type edit func(schema map[string]any)

func set(v any, path ...string) edit {
	return func(s map[string]any) {
		for _, name := range path[:len(path)-1] {
			s = s[name].(map[string]any)
		}
		name := path[len(path)-1]
		if v == nil {
			delete(s, name)
			return
		}
		s[name] = v
	}
}

func obj(kv ...any) map[string]any {
	o := make(map[string]any)
	for i := 0; i < len(kv); i += 2 {
		o[kv[i].(string)] = kv[i+1]
	}
	return o
}

func strs(s ...string) []any {
	var l []any
	for _, v := range s {
		l = append(l, v)
	}
	return l
}

func TestBreaches(t *testing.T) {
	event := func() map[string]any { return inlined(parseObject(t, document(t, "event"))) }
	p := func(path ...string) []string { // data.agent: properties of properties
		var full []string
		for _, name := range path {
			full = append(full, "properties", name)
		}
		return full
	}
	in := func(keyword string, path ...string) []string { return append(p(path...), keyword) }
	for _, tt := range []struct {
		name string
		edit edit
		want string // empty: allowed
	}{
		{"nothing", func(map[string]any) {}, ""},
		{"an optional field", set(obj("type", "string"), p("trace")...), ""},
		{"an optional field of the data", set(obj("type", "object", "required", strs("a"),
			"properties", obj("a", obj("type", "integer"))), p("data", "route")...), ""},
		{"an optional field of the agent", set(obj("type", "integer"),
			p("data", "agent", "skill")...), ""},
		{"an optional field of a change", func(s map[string]any) {
			items := at(t, s, append(in("items", "data", "changes"),
				"properties")...).(map[string]any)
			items["quiet"] = obj("type", "boolean")
		}, ""},
		{"other words", set("other words", in("description", "data", "agent", "agentId")...), ""},
		{"no words", set(nil, in("description", "data", "agent", "agentId")...), ""},
		{"another title", set("x", "title"), ""},
		{"other examples", set(strs("x"), in("examples", "data", "reason")...), ""},
		{"another order of what is required", func(s map[string]any) {
			slices.Reverse(s["required"].([]any))
		}, ""},
		{"other words in a condition", func(s map[string]any) {
			s["allOf"].([]any)[0].(map[string]any)["$comment"] = "x"
		}, ""},

		{"a field gone", set(nil, p("subject")...), "field subject is gone"},
		{"an optional field gone", set(nil, p("data", "notBefore")...),
			"data: field notBefore is gone"},
		{"a field of the agent gone", set(nil, p("data", "agent", "areaName")...),
			"data.agent: field areaName is gone"},
		{"a field of a change gone", func(s map[string]any) {
			delete(at(t, s, append(in("items", "data", "changes"),
				"properties")...).(map[string]any), "from")
		}, "data.changes[]: field from is gone"},
		{"all fields gone", set(nil, in("properties", "data", "agent")...),
			"data.agent: field agentAccount is gone"},
		{"a field retyped", set("string", in("type", "data", "agent", "agentId")...),
			"data.agent.agentId: type has changed"},
		{"a field of more types", set(strs("string", "null"),
			in("type", "data", "agent", "areaName")...), "data.agent.areaName: type has changed"},
		{"a field of any type", set(nil, in("type", "data", "agent", "areaName")...),
			"data.agent.areaName: type is gone"},
		{"a field forbidden", set(false, p("data", "agent", "areaName")...),
			"data.agent: field areaName has changed"},
		{"an object retyped", set("array", in("type", "data")...), "data: type has changed"},
		{"an enum value gone", set(strs("agent.online", "agent.offline"), in("enum", "type")...),
			"type: enum has changed"},
		{"an enum value more", set(strs("agent.online", "agent.offline", "agent.updated",
			"agent.busy"), in("enum", "type")...), "type: enum has changed"},
		{"an enum where there was none", set(strs("baseline"), in("enum", "data", "reason")...),
			"data.reason: enum is new"},
		{"another const", set("2.0", in("const", "specversion")...),
			"specversion: const has changed"},
		{"a field required", func(s map[string]any) {
			d := at(t, s, p("data")...).(map[string]any)
			d["required"] = append(d["required"].([]any), "notBefore")
		},
			"data: field notBefore is required now"},
		{"a new field required", func(s map[string]any) {
			set(obj("type", "string"), p("trace")...)(s)
			s["required"] = append(s["required"].([]any), "trace")
		}, "field trace is required now"},
		{"a field no longer required", set(strs("revision"), in("required", "data")...),
			"data: field agent is optional now"},
		{"nothing required", set(nil, "required"), "field data is optional now"},
		{"a pattern tightened", set("^[1-9]$", in("pattern", "subject")...),
			"subject: pattern has changed"},
		{"a pattern gone", set(nil, in("pattern", "subject")...), "subject: pattern is gone"},
		{"a pattern where there was none", set("^x",
			in("pattern", "data", "agent", "agentName")...),
			"data.agent.agentName: pattern is new"},
		{"another format", set("date", in("format", "time")...), "time: format has changed"},
		{"a higher minimum", set(json.Number("2"), in("minimum", "data", "revision")...),
			"data.revision: minimum has changed"},
		{"a maximum", set(json.Number("9"), in("maximum", "data", "revision")...),
			"data.revision: maximum is new"},
		{"a shortest length", set(json.Number("1"), in("minLength", "data", "agent", "cityId")...),
			"data.agent.cityId: minLength is new"},
		{"closed", set(false, in("additionalProperties", "data", "agent")...),
			"data.agent: additionalProperties is new"},
		{"closed in another way", set(false, "unevaluatedProperties"),
			"unevaluatedProperties is new"},
		{"fewer changes", set(json.Number("3"), in("maxItems", "data", "changes")...),
			"data.changes: maxItems is new"},
		{"items of any kind", set(nil, in("items", "data", "changes")...),
			"data.changes: items has changed"},
		{"another condition", func(s map[string]any) {
			s["allOf"] = append(s["allOf"].([]any),
				obj("required", strs("traceparent")))
		}, "allOf has changed"},
		{"a condition gone", func(s map[string]any) { s["allOf"] = s["allOf"].([]any)[1:] },
			"allOf has changed"},
		{"a condition that demands more", func(s map[string]any) {
			c := s["allOf"].([]any)[0].(map[string]any)
			set(obj("pattern", "x"), "then", "properties", "subject")(c)
		}, "allOf has changed"},
		{"conditions gone", set(nil, "allOf"), "allOf is gone"},
		{"another $id", set("urn:rollcall:agent-event:v2", "$id"), "$id has changed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			later := event()
			tt.edit(later)
			told := breaches(event(), later)
			switch {
			case tt.want == "" && len(told) > 0:
				t.Errorf("told %q, want it allowed", told)
			case tt.want != "" && !slices.Contains(told, tt.want):
				t.Errorf("told %q, want %q", told, tt.want)
			}

			// With -update too: what would be lost is refused, and the baseline stays.
			text, err := json.Marshal(later)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "v1", "event.schema.json")
			if err := keepBaseline(path, document(t, "event"), false); !errors.Is(
				err,
				fs.ErrNotExist,
			) {
				t.Errorf("without a baseline: %v", err)
			}
			if err := keepBaseline(path, document(t, "event"), true); err != nil {
				t.Fatal(err)
			}
			err = keepBaseline(path, text, true)
			kept, readErr := os.ReadFile(path)
			if readErr != nil {
				t.Fatal(readErr)
			}
			if tt.want == "" {
				if err != nil || !bytes.Equal(kept, text) {
					t.Errorf("the update: error %v, changed %t", err, bytes.Equal(kept, text))
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) ||
				!bytes.Equal(kept, document(t, "event")) {
				t.Errorf(
					"the update: error %v; the baseline stays: %t",
					err,
					bytes.Equal(kept, document(t, "event")),
				)
			}
		})
	}
}

// What is new must be kept at once, lest it is lost again unseen.
func TestBaselineWantsWhatIsNew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "event.schema.json")
	later := inlined(parseObject(t, document(t, "event")))
	set(obj("type", "string"), "properties", "trace")(later)
	text, err := json.Marshal(later)
	if err != nil {
		t.Fatal(err)
	}
	if err := keepBaseline(path, document(t, "event"), true); err != nil {
		t.Fatal(err)
	}
	if err := keepBaseline(path, text, false); err == nil ||
		!strings.Contains(err.Error(), "field trace is gone") ||
		!strings.Contains(err.Error(), "-update") {
		t.Errorf("without update: %v", err)
	}
	if err := keepBaseline(path, text, true); err != nil {
		t.Error(err)
	}
	if err := keepBaseline(path, text, false); err != nil {
		t.Error(err)
	}
	if err := keepBaseline(path, document(t, "event"), true); err == nil ||
		!strings.Contains(err.Error(), "field trace is gone") {
		t.Errorf("lost again: %v", err)
	}
}
