package schemas

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// payloads are the kinds of messages that have a schema, and its $id.
var payloads = map[string]string{
	"event":      DataSchema,
	"watermark":  "urn:rollcall:watermark:v1",
	"health":     "urn:rollcall:health:v1",
	"unobserved": "urn:rollcall:unobserved:v1",
}

// kindOf is the kind of message that a golden is one of.
func kindOf(golden string) string {
	kind, _, _ := strings.Cut(golden, "-")
	return kind
}

func document(t testing.TB, name string) []byte {
	t.Helper()
	text, ok := Document(name)
	if !ok {
		t.Fatalf("no document %s", name)
	}
	return text
}

// parseJSON keeps numbers as they are written.
func parseJSON(t testing.TB, text []byte) any {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func parseObject(t testing.TB, text []byte) map[string]any {
	t.Helper()
	o, ok := parseJSON(t, text).(map[string]any)
	if !ok {
		t.Fatalf("no object: %s", text)
	}
	return o
}

// A compiled schema of a kind of message: the document itself, and how a reader of the AsyncAPI
// document has it.
type compiledSchemas map[string]*jsonschema.Schema

func compile(t testing.TB, kind string) compiledSchemas {
	t.Helper()
	compileAt := func(c *jsonschema.Compiler, url string) *jsonschema.Schema {
		c.AssertFormat()
		s, err := c.Compile(url)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	own := jsonschema.NewCompiler()
	id := payloads[kind]
	if err := own.AddResource(id, parseJSON(t, document(t, kind))); err != nil {
		t.Fatal(err)
	}
	return compiledSchemas{
		"2020-12":  compileAt(own, id),
		"asyncapi": compileAt(asyncAPICompiler(t), asyncAPIURL+"#/components/schemas/"+kind),
	}
}

const asyncAPIURL = "urn:rollcall:asyncapi"

// asyncAPICompiler reads the AsyncAPI document's schemas as what they are there: a superset of
// draft-07.
func asyncAPICompiler(t testing.TB) *jsonschema.Compiler {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft7)
	if err := c.AddResource(asyncAPIURL, parseJSON(t, document(t, "asyncapi"))); err != nil {
		t.Fatal(err)
	}
	return c
}

// accept fails the test where one of the schemas refuses the message; refuse where one accepts it.
func (s compiledSchemas) accept(t testing.TB, what string, message any) {
	t.Helper()
	for name, schema := range s {
		if err := schema.Validate(message); err != nil {
			t.Errorf("%s: refused by %s: %v", what, name, err)
		}
	}
}

func (s compiledSchemas) refuse(t testing.TB, what string, message any) {
	t.Helper()
	for name, schema := range s {
		err := schema.Validate(message)
		var invalid *jsonschema.ValidationError
		if !errors.As(err, &invalid) {
			t.Errorf("%s: %s says %v, want it refused", what, name, err)
		}
	}
}

func TestDocuments(t *testing.T) {
	if d := cmp.Diff([]string{"event", "watermark", "health", "unobserved",
		"query", "asyncapi"}, Documents()); d != "" {
		t.Error(d)
	}
	for _, name := range Documents() {
		text := document(t, name)
		if !json.Valid(text) || !bytes.HasSuffix(text, []byte("}\n")) {
			t.Errorf("%s is no JSON that ends in a newline", name)
		}
		clear(text) // the caller's own
		if again := document(t, name); again[0] != '{' {
			t.Errorf("%s can be altered", name)
		}
	}
	if text, ok := Document("events"); ok || text != nil {
		t.Errorf("a document of no name: %s", text)
	}
	for kind, id := range payloads {
		s := parseObject(t, document(t, kind))
		if s["$id"] != id || s["$schema"] != "https://json-schema.org/draft/2020-12/schema" ||
			!strings.HasSuffix(id, ":"+Version) {
			t.Errorf("%s is %v of %v", kind, s["$id"], s["$schema"])
		}
	}
}

func TestGoldensFollowTheSchemas(t *testing.T) {
	for kind := range payloads {
		schemas := compile(t, kind)
		for name, b := range readGoldens(t, kind) {
			schemas.accept(t, name, parseJSON(t, b))
		}
	}
}

// A property is what a schema says of a field.
type property struct {
	Kind     string // of JSON; time: a string of that form; any: all of them
	Required bool
}

// properties lists a schema's fields by their paths: data.agent.agentId, data.changes[].field.
func properties(t testing.TB, schema map[string]any, path string, into map[string]property) {
	t.Helper()
	fields, _ := schema["properties"].(map[string]any)
	required, _ := schema["required"].([]any)
	for _, name := range required {
		if _, ok := fields[name.(string)]; !ok {
			t.Errorf("%s%s is required, and there is no such field", path, name)
		}
	}
	for name, f := range fields {
		field := f.(map[string]any)
		if field["description"] == nil && field["type"] != "object" {
			t.Errorf("%s%s has no description", path, name)
		}
		into[path+name] = property{kindOfSchema(t, field), slices.Contains(required, any(name))}
		properties(t, field, path+name+".", into)
		if each, ok := field["additionalProperties"].(map[string]any); ok {
			into[path+name+".*"] = property{kindOfSchema(t, each), true}
			properties(t, each, path+name+".*.", into)
		}
		if items, ok := field["items"].(map[string]any); ok {
			properties(t, items, path+name+"[].", into)
		}
	}
}

func kindOfSchema(t testing.TB, s map[string]any) string {
	t.Helper()
	values, _ := s["enum"].([]any)
	if c, ok := s["const"]; ok {
		values = append(values, c)
	}
	switch {
	case s["type"] == "string" && s["format"] == "date-time" && s["pattern"] != nil:
		return "time"
	case s["type"] != nil:
		return s["type"].(string)
	case len(values) > 0:
		for _, v := range values {
			if _, ok := v.(string); !ok {
				t.Fatalf("%v is no string", v)
			}
		}
		return "string"
	}
	return "any"
}

// goProperties is properties for a type of Go; what is required it does not know.
func goProperties(t testing.TB, typ reflect.Type, path string, into map[string]string) {
	t.Helper()
	for i := range typ.NumField() {
		f := typ.Field(i)
		if f.Type == reflect.TypeFor[[]Field]() {
			continue // what the vendor does not document
		}
		name := strings.ToLower(f.Name[:1]) + f.Name[1:]
		if s, ok := strings.CutSuffix(f.Name, "ID"); ok {
			name = strings.ToLower(s[:min(1, len(s))]) + s[min(1, len(s)):] + "Id"
			if s == "" {
				name = "id"
			}
		}
		inner := f.Type
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		switch {
		case inner == reflect.TypeFor[time.Time]():
			into[path+name] = "time"
		case inner == reflect.TypeFor[json.RawMessage]():
			into[path+name] = "any"
		case inner.Kind() == reflect.Struct:
			into[path+name] = "object"
			goProperties(t, inner, path+name+".", into)
		case inner.Kind() == reflect.Map: // what a * stands for, the message chooses
			into[path+name], into[path+name+".*"] = "object", "object"
			goProperties(t, inner.Elem(), path+name+".*.", into)
		case inner.Kind() == reflect.Slice:
			into[path+name] = "array"
			if inner.Elem().Kind() == reflect.String {
				continue
			}
			goProperties(t, inner.Elem(), path+name+"[].", into)
		default:
			kind := map[reflect.Kind]string{reflect.String: "string", reflect.Bool: "boolean",
				reflect.Int:   "integer",
				reflect.Int64: "integer", reflect.Uint64: "integer"}[inner.Kind()]
			if kind == "" {
				t.Fatalf("%s%s is a %s", path, name, inner)
			}
			into[path+name] = kind
		}
	}
}

// fill gives every field of a value something that is not its zero.
func fill(t testing.TB, v reflect.Value) {
	t.Helper()
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(read))
	case v.Type() == reflect.TypeFor[json.RawMessage]():
		v.SetBytes([]byte("1"))
	case v.Type() == reflect.TypeFor[[]Field](): // what the vendor does not document
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i))
		}
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem())
	case v.Kind() == reflect.Map:
		each := reflect.New(v.Type().Elem()).Elem()
		fill(t, each)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("*"), each)
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(t, v.Index(0))
	case v.Kind() == reflect.String:
		v.SetString("x")
	case v.Kind() == reflect.Bool:
		v.SetBool(true)
	case v.CanInt():
		v.SetInt(7)
	case v.CanUint():
		v.SetUint(7)
	default:
		t.Fatalf("no value for a %s", v.Type())
	}
}

// present collects the paths of the fields in a message.
func present(v any, path string, into map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		for name, f := range v {
			into[path+name] = true
			present(f, path+name+".", into)
		}
	case []any:
		for _, e := range v {
			present(e, strings.TrimSuffix(path, ".")+"[].", into)
		}
	}
}

// The fields of the Go types, of what they encode to and of the schemas are the same, of the same
// types, and those are required that are never left out.
func TestSchemasAreTheTypes(t *testing.T) {
	var event Event
	var mark Watermark
	var sick Health
	var gap Unobserved
	for _, p := range []any{&event, &mark, &sick, &gap} {
		fill(t, reflect.ValueOf(p).Elem())
	}
	least := Event{
		Time: read,
		Data: EventData{Since: read},
	} // no event lacks these two: see TestEventUnmarshalRefuses
	change := least
	change.Data.Changes = []Change{{}}
	for _, tt := range []struct {
		kind     string
		typ      reflect.Type
		envelope []string // fields that are made up of others
		messages []wire   // the first is full; then without whatever can be left out
	}{
		{"event", reflect.TypeFor[Event](), []string{"specversion", "source", "subject", "id",
			"datacontenttype", "dataschema"},
			[]wire{&event, &least, &change}},
		{"watermark", reflect.TypeFor[Watermark](), nil,
			[]wire{watermark(mark), watermark(Watermark{}),
				watermark(Watermark{InProgress: &InProgress{}})}},
		{"health", reflect.TypeFor[Health](), nil,
			[]wire{health(sick), health(Health{Since: read})}},
		{"unobserved", reflect.TypeFor[Unobserved](), nil,
			[]wire{unobserved(gap), unobserved(Unobserved{From: asked, To: read})}},
	} {
		t.Run(tt.kind, func(t *testing.T) {
			kinds := make(map[string]string)
			goProperties(t, tt.typ, "", kinds)
			for _, name := range tt.envelope {
				kinds[name] = "string"
			}
			var encoded []map[string]bool
			for _, m := range tt.messages {
				paths := make(map[string]bool)
				present(parseJSON(t, m.AppendJSON(nil)), "", paths)
				encoded = append(encoded, paths)
			}
			if d := cmp.Diff(slices.Sorted(maps.Keys(kinds)),
				slices.Sorted(maps.Keys(encoded[0]))); d != "" {
				t.Errorf("the fields of the type (-) and of its encoding (+):\n%s", d)
			}
			want := make(map[string]property)
			for path, kind := range kinds {
				parent := strings.TrimSuffix(path[:strings.LastIndexByte("."+path, '.')], ".")
				always := true
				for _, paths := range encoded {
					there := parent == "" || paths[strings.TrimSuffix(parent, "[]")]
					if strings.HasSuffix(parent, "[]") {
						there = paths[parent+".field"]
					}
					always = always && (!there || paths[path])
				}
				want[path] = property{kind, always}
			}
			got := make(map[string]property)
			properties(t, inlined(parseObject(t, document(t, tt.kind))), "", got)
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("the fields of the type (-) and of the schema (+):\n%s", d)
			}
		})
	}
}

// constants are the values of the package's string constants of a type.
func constants(t testing.TB, typ string) []any {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var values []any
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok {
				return true
			}
			if id, ok := spec.Type.(*ast.Ident); !ok || id.Name != typ {
				return true
			}
			for _, v := range spec.Values {
				if lit, ok := v.(*ast.BasicLit); ok {
					s, err := strconv.Unquote(lit.Value)
					if err != nil {
						t.Fatal(err)
					}
					values = append(values, s)
				}
			}
			return true
		})
	}
	if len(values) < 3 {
		t.Fatalf("constants of type %s: %v", typ, values)
	}
	return values
}

// at is the part of a JSON document at a path of member names.
func at(t testing.TB, v any, path ...string) any {
	t.Helper()
	for _, name := range path {
		o, ok := v.(map[string]any)
		if !ok || o[name] == nil {
			t.Fatalf("no %s of %s", name, strings.Join(path, "."))
		}
		v = o[name]
	}
	return v
}

// The values that a field can have are those of the code. Where others may be added, they are
// examples.
func TestSchemasKnowTheConstants(t *testing.T) {
	event, health := parseJSON(t, document(t, "event")), parseJSON(t, document(t, "health"))
	reason := []string{"properties", "data", "properties", "reason"}
	for _, tt := range []struct {
		name      string
		want, got any
	}{
		{"types", constants(t, "EventType"), at(t, event, "properties", "type", "enum")},
		{"reasons", constants(t, "Reason"), at(t, event, append(reason, "examples")...)},
		{"states of health", constants(t, "HealthState"),
			at(t, health, "properties", "state", "enum")},
		{"reasons of health", append([]any{""}, constants(t, "HealthReason")...),
			at(t, health, "properties", "reason", "examples")},
		{"specversion", SpecVersion, at(t, event, "properties", "specversion", "const")},
		{"datacontenttype", DataContentType, at(t, event, "properties", "datacontenttype",
			"const")},
		{"dataschema", DataSchema, at(t, event, "properties", "dataschema", "const")},
	} {
		if d := cmp.Diff(tt.want, tt.got); d != "" {
			t.Errorf("%s of the code (-) and of the schema (+):\n%s", tt.name, d)
		}
	}
	for _, c := range []struct {
		values []any
		text   any
	}{
		{constants(t, "EventType"), at(t, event, "properties", "type", "description")},
		{constants(t, "Reason"), at(t, event, append(reason, "description")...)},
		{constants(t, "HealthState"), at(t, health, "properties", "state", "description")},
		{constants(t, "HealthReason"), at(t, health, "properties", "reason", "description")},
	} {
		for _, v := range c.values {
			if !regexp.MustCompile(`\b` + regexp.QuoteMeta(v.(string)) + `\b`).
				MatchString(c.text.(string)) {
				t.Errorf("%s is not explained in %q", v, c.text)
			}
		}
	}
}

// clone copies what parseJSON gives.
func clone(v any) any {
	switch v := v.(type) {
	case map[string]any:
		c := make(map[string]any, len(v))
		for name, f := range v {
			c[name] = clone(f)
		}
		return c
	case []any:
		c := make([]any, len(v))
		for i, e := range v {
			c[i] = clone(e)
		}
		return c
	}
	return v
}

// oneOfEach is a value of every type of JSON, those that a time may be mistaken for included.
var oneOfEach = map[string][]any{
	"null": {
		nil,
	}, "boolean": {true, false}, "integer": {json.Number("7")}, "number": {json.Number("1.5")},
	"string": {
		"x",
		"1",
	}, "array": {[]any{}, []any{"x"}}, "object": {map[string]any{}, map[string]any{"x": "y"}},
}

var badTimes = []any{
	"", "now", "2026-11-22", "2026-11-22T08:04:55Z", "2026-11-22T08:04:55.1Z",
	"2026-11-22T08:04:55.123456Z", "2026-11-22 08:04:55.123Z",
	"2026-11-22T08:04:55.123", "2026-11-22T08:04:55.123+00:00", "2026-11-22T16:04:55.123+08:00",
	"2026-11-22t08:04:55.123z", "2026-13-22T08:04:55.123Z",
	"2026-02-30T08:04:55.123Z", "2026-11-22T24:04:55.123Z", "2026-11-22T08:60:55.123Z",
	" 2026-11-22T08:04:55.123Z", "2026-11-22T08:04:55.123Z\n",
	json.Number("1795334695123"),
}

const leftOut = " left out"

// spoil calls try with a name for each way to spoil one of the fields that a schema names; the
// message is spoilt during the call only.
func spoil(t testing.TB, schema map[string]any, message any, path string, try func(what string)) {
	t.Helper()
	o, ok := message.(map[string]any)
	if !ok {
		t.Fatalf("%s is no object", path)
	}
	required, _ := schema["required"].([]any)
	fields, _ := schema["properties"].(map[string]any)
	for name, f := range fields {
		field, was := f.(map[string]any), o[name]
		if _, ok := o[name]; !ok {
			continue
		}
		put := func(v any) {
			o[name] = v
			try(fmt.Sprintf("%s%s = %#v", path, name, v))
		}
		if slices.Contains(required, any(name)) {
			delete(o, name)
			try(path + name + leftOut)
		}
		kind := kindOfSchema(t, field)
		for other, values := range oneOfEach {
			same := other == kind || kind == "time" && other == "string" || kind == "any"
			for _, v := range values {
				if !same || field["const"] != nil || field["enum"] != nil {
					put(v)
				}
			}
		}
		if kind == "time" {
			for _, v := range badTimes {
				put(v)
			}
		}
		if least, ok := field["minimum"].(json.Number); ok {
			n, err := least.Int64()
			if err != nil {
				t.Fatal(err)
			}
			put(json.Number(strconv.FormatInt(n-1, 10)))
		}
		o[name] = was
		switch items, _ := field["items"].(map[string]any); {
		case kind == "object":
			spoil(t, field, was, path+name+".", try)
			if each, ok := field["additionalProperties"].(map[string]any); ok {
				members := was.(map[string]any)
				for key, member := range members {
					for other, values := range oneOfEach {
						for _, v := range values {
							if other != kindOfSchema(t, each) {
								members[key] = v
								try(fmt.Sprintf("%s%s.* = %#v", path, name, v))
							}
						}
					}
					members[key] = member
					spoil(t, each, member, path+name+".*.", try)
				}
			}
		case items != nil && kindOfSchema(t, items) != "object":
			list := was.([]any)
			first := list[0]
			for other, values := range oneOfEach {
				if other == kindOfSchema(t, items) {
					continue
				}
				for _, v := range values {
					list[0] = v
					try(fmt.Sprintf("%s%s[0] = %#v", path, name, v))
				}
			}
			list[0] = first
		case items != nil:
			for i, e := range was.([]any) {
				spoil(t, items, e, fmt.Sprintf("%s%s[%d].", path, name, i), try)
			}
		}
	}
}

// Every golden without a field that is required is refused, and with each of the fields of another
// type.
func TestSchemasRefuseSpoiltGoldens(t *testing.T) {
	for kind := range payloads {
		schemas, document := compile(t, kind), inlined(parseObject(t, document(t, kind)))
		tried, reached := make(map[string]bool), make(map[string]bool)
		for name, b := range readGoldens(t, kind) {
			message := parseJSON(t, b)
			before := clone(message)
			spoil(t, document, message, "", func(what string) {
				if tried[what] && !strings.HasSuffix(what, leftOut) {
					return // in another golden
				}
				tried[what], reached[strings.Fields(what)[0]] = true, true
				schemas.refuse(t, name+": "+what, message)
			})
			if d := cmp.Diff(before, message); d != "" {
				t.Fatalf("spoilt for good:\n%s", d)
			}
		}
		all := make(map[string]property)
		properties(t, document, "", all)
		for path, p := range all {
			if !reached[strings.ReplaceAll(path, "[]", "[0]")] && p.Kind != "any" {
				t.Errorf("no golden has %s", path)
			}
		}
	}
}

// mistakes are made in goldens: what stands there once is replaced.
var mistakes = []struct{ golden, old, new string }{
	{"event-status-offline", `"online":false`, `"online":true`},
	{"event-status-offline", `"type":"agent.offline"`, `"type":"agent.online"`},
	{"event-status-offline", `"previousSince":"2026-11-21T17:30:02.007Z",`, ``},
	{"event-status-offline", `"revision":43`, `"revision":1`},
	{"event-status-online", `"online":true`, `"online":false`},
	{"event-status-online", `"revision":42`, `"revision":1`}, // with changes
	{"event-removed-absent-not-online", `"online":false`, `"online":true`},
	{"event-status-online", `"type":"agent.online"`, `"type":"agent.state"`},
	{"event-status-online", `"type":"agent.online"`, `"type":"agent.busy"`},
	{"event-status-online", `"type":"agent.online"`, `"type":"Agent.Online"`},
	{"event-status-online", `/isdp/tenants/886`, `/isdp/tenants/`},
	{"event-status-online", `/isdp/tenants/886`, `/isdp/tenants/0886`},
	{"event-status-online", `/isdp/tenants/886`, `https://isdp/tenants/886`},
	{"event-status-online", `"subject":"17813"`, `"subject":"agent.online.886.10.17813"`},
	{"event-status-online", `"id":"886-17813-42"`, `"id":"886-17813"`},
	{"event-status-online", `"id":"886-17813-42"`, `"id":"886-17813-0"`},
	{"event-status-online", `:agent-event:v1`, `:agent-event:v2`},
	{"event-status-online", `"specversion":"1.0"`, `"specversion":"0.3"`},
	{"event-status-online", `"reason":"status"`, `"reason":""`},
	{"event-status-online", `"agentId":17813`, `"agentId":"17813"`},
	{"event-status-online", `"agentName":"张伟"`, `"agentName":null`},
	{"event-status-online", `"type":"10"`, `"type":10`},
	{"event-status-online", `{"field":"onlineStatus","from":0,"to":1}`, `{"field":"onlineStatus"}`},
	{"event-status-online", `"2026-11-22T08:04:50.101Z"`, `"2026-11-22T08:04:50Z"`},
	{"watermark", `"startedAt":"2026-11-22T08:04:50.101Z",`, ``},
	{"watermark", `"completedAt":"2026-11-22T08:04:55.123Z",`, ``},
	{"watermark", `"staleAfter":"2026-11-22T08:05:10.123Z",`, ``},
	{"watermark", `"sweep":1807`, `"sweep":0`},
	{"watermark", `"commit":{"id":"9fK2","messages":21}`, `"commit":{"id":"","messages":21}`},
	{"watermark-before-any-complete-sweep", `"sweep":0`, `"sweep":1807`},
	{
		"watermark-before-any-complete-sweep",
		`"sweep":0,`,
		`"sweep":0,"startedAt":"2026-11-22T08:04:50.101Z",`,
	},
	{"watermark-before-any-complete-sweep", `,"inProgress":{"sweep":1}`, ``},
	{"health-ok", `"reason":""`, `"reason":"missing"`},
	{"health-failing", `"reason":"unreachable"`, `"reason":""`},
	{"health-holding", `"state":"holding"`, `"state":"ok"`},
	{"health-ok", `"state":"ok"`, `"state":"OK"`},
	{"watermark-types", `"online":31,`, ``},
	{"watermark-types", `"agents":120`, `"agents":-1`},
	{"unobserved", `"from":"2026-11-22T08:04:50.101Z",`, ``},
	{"unobserved-health", `"health":"unreachable"`, `"health":""`},
	{"unobserved-types", `"types":["2"]`, `"types":[]`},
}

// additions are what later builds and other vendors may bring.
var additions = []struct{ golden, old, new string }{
	{
		"event-status-online",
		`"data":{`,
		`"traceparent":"00-1","later":{"a":[1]},"data":{"later":null,`,
	},
	{"event-status-online", `{"field":"onlineStatus",`, `{"later":1,"field":"onlineStatus",`},
	{"event-status-online", `"agent":{`, `"agent":{"skills":["5G",null],"type ":1,`},
	{"event-status-online", `"reason":"status"`, `"reason":"merged"`},
	{"event-status-online", `"notBefore":"2026-11-22T08:04:50.101Z",`, ``},
	{"event-status-online", `"onlineStatus":1`, `"onlineStatus":2`},
	{"event-status-online", `"type":"10"`, `"type":"video calls & more"`},
	{"event-status-online", `17813`, `-17813`},
	{"watermark", `"sweep":1807`, `"sweep":18446744073709551615,"later":{}`},
	{"watermark", `"messages":21`, `"messages":21,"later":[]`},
	{"watermark-in-progress", `"inProgress":{`, `"inProgress":{"later":"x",`},
	{"health-failing", `"reason":"unreachable"`, `"reason":"later","later":true`},
	{"health-ok", `"detail":""`, `"detail":"the log had lost messages"`},
	{"watermark-types", `"capacity":64`, `"capacity":-64,"later":1`},
	{"unobserved-health", `"health":"unreachable"`, `"health":"later","later":true`},
}

func TestSchemasRefuseMistakes(t *testing.T) {
	edited(t, mistakes, compiledSchemas.refuse)
}

func TestSchemasAcceptAdditions(t *testing.T) {
	edited(t, additions, compiledSchemas.accept)
}

func edited(
	t *testing.T,
	edits []struct{ golden, old, new string },
	check func(compiledSchemas, testing.TB, string, any),
) {
	t.Helper()
	schemas := make(map[string]compiledSchemas)
	for kind := range payloads {
		schemas[kind] = compile(t, kind)
	}
	goldens := readGoldens(t, "")
	for _, e := range edits {
		text := string(goldens[e.golden])
		if !strings.Contains(text, e.old) {
			t.Errorf("%s does not have %s", e.golden, e.old)
			continue
		}
		check(
			schemas[kindOf(e.golden)],
			t,
			fmt.Sprintf("%s: %s for %s", e.golden, e.new, e.old),
			parseJSON(t, []byte(strings.ReplaceAll(text, e.old, e.new))),
		)
	}
}

// contract is the wire as it was promised: its examples as they stand there, and what they leave
// out, piece by piece.
var contract = []struct {
	golden, text string
	fill         [][2]string
}{
	{
		"event-contract",
		`{"specversion": "1.0", "type": "agent.online", "source": "/isdp/tenants/886",
     "subject": "17813", "id": "886-17813-42", "time": "2026-11-22T08:04:55.123Z",
     "datacontenttype": "application/json", "dataschema": "urn:rollcall:agent-event:v1",
     "data": {"revision": 42, "reason": "status", "sweep": 1807,
              "online": true,
              "notBefore": "2026-11-22T08:04:50.101Z", "since": "2026-11-22T08:04:55.123Z",
              "previousSince": "2026-11-21T17:30:02.007Z",
              "agent": {"agentId": 17813, "tenantId": 886, "onlineStatus": 1,
                        …every field as above…},
              "changes": [{"field": "onlineStatus", "from": 0, "to": 1}, …]}}`,
		[][2]string{
			{"…every field as above…", everyOtherField()},
			{"…", `{"field": "productType", "to": "Wireless"}`},
		},
	},
	{
		"watermark",
		`{"tenantId": 886, "sweep": 1807, "startedAt": "…", "completedAt": "…", "staleAfter": ` +
			`"…", "agents": 340, "online": 52, "missing": 0, "rejected": 0, "instance": "host-1",` +
			` "commit": {"id": "9fK2…", "messages": 21}}`,
		[][2]string{
			{"…", "2026-11-22T08:04:50.101Z"},
			{"…", "2026-11-22T08:04:55.123Z"},
			{"…", "2026-11-22T08:05:10.123Z"},
			{"…", ""},
		},
	},
	{"health-ok", `{"tenantId", "state", "since", "reason", "detail"}`,
		[][2]string{
			{`"tenantId"`, `"tenantId": 886`},
			{`"state"`, `"state": "ok"`},
			{`"since"`, `"since": "2026-11-22T08:04:55.123Z"`},
			{`"reason"`, `"reason": ""`},
			{`"detail"`, `"detail": ""`},
		}},
	{"unobserved-health", `{"tenantId", "from", "to", "sweep", "health"}`,
		[][2]string{
			{`"tenantId"`, `"tenantId": 886`},
			{`"from"`, `"from": "2026-11-22T08:04:50.101Z"`},
			{`"to"`, `"to": "2026-11-22T08:04:55.123Z"`},
			{`"sweep"`, `"sweep": 1807`},
			{`"health"`, `"health": "unreachable"`},
		}},
	{
		"watermark-in-progress",
		`{"tenantId":886,"sweep":1807,"startedAt":"2026-11-22T08:04:50.101Z",` +
			`"completedAt":"2026-11-22T08:04:55.123Z",` +
			`"staleAfter":"2026-11-22T08:05:10.123Z","agents":341,"online":53,"missing":2,` +
			`"rejected":1,"instance":"host-1","commit":{"id":"9fK3","messages":3},` +
			`…"inProgress": {"sweep": 1808}}`,
		[][2]string{{"…", ""}},
	},
}

// everyOtherField is the vendor's agent without its first three fields and its braces.
func everyOtherField() string {
	a := vendorAgent()
	text := string(a.AppendJSON(nil))
	return text[strings.Index(text, `"userId"`) : len(text)-1]
}

func TestGoldensAreTheContracts(t *testing.T) {
	goldens := readGoldens(t, "")
	for _, c := range contract {
		var text bytes.Buffer
		filled := c.text
		for _, piece := range c.fill {
			filled = strings.Replace(filled, piece[0], piece[1], 1)
		}
		if err := json.Compact(&text, []byte(filled)); err != nil {
			t.Errorf("%s: %v in %s", c.golden, err, filled)
		} else if d := cmp.Diff(text.String(), string(goldens[c.golden])); d != "" {
			t.Errorf("%s:\n%s", c.golden, d)
		}
	}
}

var jsonBlock = regexp.MustCompile("(?s)```json\n(.*?)```")

// What the README shows is what the code writes, to the byte but for white space.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join("..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	schemas := compile(t, "event")
	shown := 0
	for _, block := range jsonBlock.FindAllSubmatch(readme, -1) {
		if !bytes.Contains(block[1], []byte(DataSchema)) {
			continue
		}
		shown++
		var text bytes.Buffer
		if err := json.Compact(&text, block[1]); err != nil {
			t.Fatal(err)
		}
		schemas.accept(t, "the README's event", parseJSON(t, text.Bytes()))
		var e Event
		if err := e.UnmarshalJSON(text.Bytes()); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(text.String(), string(e.AppendJSON(nil))); d != "" {
			t.Errorf("the README (-) and what its event encodes to (+):\n%s", d)
		}
	}
	if shown == 0 {
		t.Error("the README shows no event")
	}
	for _, c := range channels(t) {
		subject := strings.NewReplacer("{tenantId}", "<tenant>", "{type}", "<type>", "{agentId}",
			"<agent>").
			Replace(c.Address)
		if !bytes.Contains(readme, []byte("`"+subject+"`")) {
			t.Errorf("the README does not know the subject %s", subject)
		}
	}
}
