package jsonwalk

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// rebuild reads a value member by member and element by element, and writes it anew.
func rebuild(w *Walker, out *bytes.Buffer) error {
	sep := ""
	err := w.Object(func(name []byte) error {
		if sep == "" {
			out.WriteByte('{')
		}
		out.WriteString(sep)
		sep = ","
		quoted, err := json.Marshal(string(name))
		if err != nil {
			return err
		}
		out.Write(quoted)
		out.WriteByte(':')
		return rebuild(w, out)
	})
	switch {
	case err == nil && sep == "":
		out.WriteString("{}")
		return nil
	case err == nil:
		out.WriteByte('}')
		return nil
	case !errors.Is(err, ErrKind) || sep != "":
		return err
	}
	err = w.Array(func() error {
		out.WriteByte('[')
		for sep := ""; w.More(); sep = "," {
			out.WriteString(sep)
			if err := rebuild(w, out); err != nil {
				return err
			}
		}
		out.WriteByte(']')
		return w.End()
	})
	if !errors.Is(err, ErrKind) {
		return err
	}
	v, err := w.Value()
	out.Write(v)
	return err
}

func walk(text []byte) (string, error) {
	var out bytes.Buffer
	err := Walk(text, func(w *Walker) error {
		if err := rebuild(w, &out); err != nil {
			return err
		}
		return w.Done()
	})
	return out.String(), err
}

func TestWalk(t *testing.T) {
	for text, want := range map[string]string{
		`{}`: `{}`,
		" {\n\t\"a\" : [ 1 , -2.5e+3 ,true ] , \"b\":{\"c\":null}\r} ": `{"a":[1,-2.5e+3,true],` +
			`"b":{"c":null}}`,
		`{"\u0061\n":"\u0061\n","":""}`: `{"a\n":"\u0061\n","":""}`,
		`{"a":1,"a":2}`:                 `{"a":1,"a":2}`,
		`[]`:                            `[]`,
		`"x"`:                           `"x"`,
		` 7`:                            `7`,
		`{"张":"张, : "}`:                 `{"张":"张, : "}`,
	} {
		if got, err := walk([]byte(text)); err != nil || got != want {
			t.Errorf("%s: %s, %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{``, `{`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{"a":1 "b":2}`, `[1,]`,
		`[1 2]`, `01`, `{"a":1}x`, `{"a":"\x"}`, "{\"a\":\"\n\"}", `nul`, `{a:1}`} {
		if got, err := walk([]byte(text)); err == nil {
			t.Errorf("%s was read as %s", text, got)
		}
	}
}

// What is not read is the text's own.
func TestValueSharesMemory(t *testing.T) {
	text := []byte(`{"a": [1, {"b": "c"}] , "d": "e"}`)
	var values []string
	err := Walk(text, func(w *Walker) error {
		return w.Object(func(name []byte) error {
			v, err := w.Value()
			values = append(values, string(v))
			if &v[0] != &text[w.Offset()-len(v)] || cap(v) != len(v) {
				t.Errorf("%s: a value of its own memory, or one that can be appended to", name)
			}
			return err
		})
	})
	if got := strings.Join(values, "; "); err != nil || got != `[1, {"b": "c"}]; "e"` {
		t.Errorf("%s, %v", got, err)
	}
}

func TestMemberEndsIt(t *testing.T) {
	enough := errors.New("enough")
	err := Walk([]byte(`{"a":{"b":1,"c":2}}`), func(w *Walker) error {
		return w.Object(
			func([]byte) error { return w.Object(func([]byte) error { return enough }) },
		)
	})
	if !errors.Is(err, enough) {
		t.Error(err)
	}
}

// For any text: it is read if, and only if, encoding/json takes it for JSON, and says the same.
func FuzzWalk(f *testing.F) {
	for _, s := range []string{`{"a":[1,{"b":null}],"a":"\ud800","ÿ":-0.1e5}`,
		"{\"\xff\":\"\xff\"}", `[[],{},[{}]]`, `{"a":1,}`, `1 2`, "\ufeff{}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 5000 { // might be nested deeper than either reads
			return
		}
		got, err := walk(text)
		if (err == nil) != json.Valid(text) {
			t.Fatalf("error %v; valid %t", err, json.Valid(text))
		}
		if err != nil || !bytes.Equal(mark(text), text) { // names come repaired
			return
		}
		var a, b any
		if err := json.Unmarshal(text, &a); err != nil {
			return // a number beyond a float64, say
		}
		if err := json.Unmarshal([]byte(got), &b); err != nil {
			t.Fatalf("%s was read as %s: %v", text, got, err)
		}
		x, _ := json.Marshal(a)
		y, _ := json.Marshal(b)
		if !bytes.Equal(x, y) {
			t.Fatalf("%s was read as %s", text, got)
		}
	})
}
