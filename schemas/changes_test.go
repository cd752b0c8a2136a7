package schemas

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/rollcall-events/rollcall/internal/fields"
)

func optional[T any](g *rapid.Generator[T]) *rapid.Generator[*T] { return rapid.Ptr(g, true) }

// Small sets, so that two agents often agree.
var (
	someInt    = rapid.OneOf(rapid.SampledFrom([]int64{0, 1, 2, 9007199254740993}), rapid.Int64())
	someString = rapid.OneOf(
		rapid.SampledFrom([]string{"", "a", "10", "张伟", "<&>\u2028", "\"\\\n"}),
		rapid.String(),
	)
	someName = rapid.OneOf(
		rapid.SampledFrom(
			[]string{"", "a", "b", "c", "d", "AgentId", "agentid", "aaa", "zzz", "字段", "q\"\n"},
		),
		rapid.String().Filter(func(s string) bool { return !Listed(s) }),
	)
	someValue = rapid.OneOf(
		rapid.SampledFrom(
			[]string{
				`null`,
				`0`,
				`1`,
				`1.0`,
				`1e5`,
				`""`,
				`"a"`,
				`"\u0061"`,
				`[]`,
				`[ ]`,
				`{"a" : [1,  2]}`,
				`123456789012345678901234567890`,
			},
		),
		rapid.Map(
			rapid.String(),
			func(s string) string { return string(fields.AppendString(nil, s)) },
		),
	)
)

// someAgent is any agent of any tenant.
var someAgent = rapid.Custom(func(t *rapid.T) Agent {
	var a Agent
	for i, f := range documented.Fields {
		switch p := a.at(i).(type) {
		case *int64:
			*p = someInt.Draw(t, f.Name)
		case **int64:
			*p = optional(someInt).Draw(t, f.Name)
		case **string:
			*p = optional(someString).Draw(t, f.Name)
		}
	}
	others := rapid.MapOfN(someName, someValue, 0, 6).Draw(t, "other")
	for _, name := range slices.Sorted(maps.Keys(others)) {
		a.Other = append(a.Other, Field{name, json.RawMessage(others[name])})
	}
	return a
})

// somePair is two agents that agree in some fields: b is a with some of another agent's.
func somePair(t *rapid.T) (a, b Agent) {
	a, c := someAgent.Draw(t, "a"), someAgent.Draw(t, "c")
	b = a
	for _, f := range documented.Fields {
		if v, _ := c.Field(f.Name); rapid.Bool().Draw(t, f.Name+" differs") &&
			(v != nil || !always[f.Name]) {
			b.SetField(f.Name, v)
		}
	}
	others := make(map[string]json.RawMessage)
	for _, f := range append(slices.Clone(a.Other), c.Other...) {
		if rapid.Bool().Draw(t, "keep other") {
			others[f.Name] = f.Value
		}
	}
	b.Other = nil
	for _, name := range slices.Sorted(maps.Keys(others)) {
		b.Other = append(b.Other, Field{name, others[name]})
	}
	return a, b
}

// fieldMap is what a reader of the encoded agent sees.
func fieldMap(t *rapid.T, a *Agent) map[string]json.RawMessage {
	var m map[string]json.RawMessage
	if err := json.Unmarshal(a.AppendJSON(nil), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestChanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := somePair(t)
		changes := Changes(&a, &b)

		// They are the differences between what readers see, sorted by name.
		am, bm := fieldMap(t, &a), fieldMap(t, &b)
		var want []Change
		for name := range mapKeys(am, bm) {
			from, inA := am[name]
			to, inB := bm[name]
			if inA != inB || !bytes.Equal(from, to) {
				want = append(want, Change{name, from, to})
			}
		}
		slices.SortFunc(want, func(x, y Change) int { return strings.Compare(x.Field, y.Field) })
		if !slices.EqualFunc(changes, want, equalChange) {
			t.Fatalf("Changes = %s\nwant %s", dump(changes), dump(want))
		}

		// Backwards they give the previous agent, without touching this one.
		now := string(b.AppendJSON(nil))
		prev, err := Revert(&b, changes)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := string(prev.AppendJSON(nil)), string(a.AppendJSON(nil)); got != want {
			t.Fatalf("Revert\n got: %s\nwant: %s", got, want)
		}
		if got := string(b.AppendJSON(nil)); got != now {
			t.Fatalf("Revert altered its agent\n got: %s\nwant: %s", got, now)
		}

		// Nothing differs from itself.
		if c := Changes(&a, &a); len(c) != 0 {
			t.Fatalf("Changes(a, a) = %s", dump(c))
		}
	})
}

// A reader who has an event alone can tell the previous agent.
func TestRevertFromTheWire(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := somePair(t)
		e := Event{Type: Updated, Time: read, Data: EventData{
			Revision: rapid.Uint64Min(1).
				Draw(t, "revision"),
			Reason: Fields, Since: read, Agent: b, Changes: Changes(&a, &b)}}
		enc := e.AppendJSON(nil)
		var got Event
		if err := json.Unmarshal(enc, &got); err != nil {
			t.Fatal(err)
		}
		if again := got.AppendJSON(nil); !bytes.Equal(again, enc) {
			t.Fatalf("decoded and encoded again\n got: %s\nwant: %s", again, enc)
		}
		prev, err := Revert(&got.Data.Agent, got.Data.Changes)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := string(prev.AppendJSON(nil)), string(a.AppendJSON(nil)); got != want {
			t.Fatalf("Revert\n got: %s\nwant: %s", got, want)
		}
	})
}

func TestRevertRefuses(t *testing.T) {
	a := vendorAgent()
	want := string(a.AppendJSON(nil))
	for _, c := range []Change{
		{Field: "agentId", To: json.RawMessage(`1`)},
		{Field: "tenantId", To: json.RawMessage(`1`)},
		{Field: "onlineStatus", To: json.RawMessage(`1`)},
		{Field: "onlineStatus", From: json.RawMessage(`"x"`)},
		{Field: "userId", From: json.RawMessage(`null`)},
		{Field: "userId", From: json.RawMessage(`1.5`)},
		{Field: "areaName", From: json.RawMessage(`null`)},
		{Field: "areaName", From: json.RawMessage(`[]`)},
		{Field: "areaName", From: json.RawMessage(``)},
		{Field: "creationDate", From: json.RawMessage(`1e300`)},
	} {
		if r, err := Revert(&a, []Change{{Field: "x"}, c}); err == nil || r != nil ||
			!strings.Contains(err.Error(), c.Field) {
			t.Errorf("%s: %v, error %v", dump([]Change{c}), r, err)
		}
	}
	if got := string(a.AppendJSON(nil)); got != want {
		t.Errorf("the agent was altered: %s", got)
	}
}

func TestFieldOfUndocumented(t *testing.T) {
	a := with(func(a *Agent) { a.Other = strange() })
	for _, f := range strange() {
		if v, ok := a.Field(f.Name); !ok || !bytes.Equal(v, f.Value) {
			t.Errorf("%q: %s, %t, want %s", f.Name, v, ok, f.Value)
		}
	}
	if v, ok := a.Field("elsewhere"); ok || v != nil {
		t.Errorf("elsewhere: %s, %t", v, ok)
	}
}

func equalChange(a, b Change) bool {
	return a.Field == b.Field && bytes.Equal(a.From, b.From) && bytes.Equal(a.To, b.To) &&
		(a.From == nil) == (b.From == nil) && (a.To == nil) == (b.To == nil)
}

func dump(cs []Change) string {
	b, err := json.Marshal(cs)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func mapKeys[V any](ms ...map[string]V) map[string]bool {
	keys := make(map[string]bool)
	for _, m := range ms {
		for k := range m {
			keys[k] = true
		}
	}
	return keys
}
