package packed

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/rollcall-events/rollcall/schemas"
)

func TestPacked(t *testing.T) {
	full := filled()
	for _, a := range []*schemas.Agent{
		{}, {AgentID: math.MaxInt64, TenantID: math.MinInt64, OnlineStatus: -1}, full,
		{AgentName: new(""), UserID: new(int64(0)), DeleteFlag: new(int64(1)), Type: new("")},
		{EntityName: new("\ufffd\x00"), Capacity: new(int64(math.MinInt64))},
		{Other: []schemas.Field{{Name: "", Value: json.RawMessage(`{}`)},
			{Name: "x", Value: json.RawMessage("null")}}},
	} {
		checkPacked(t, a)
	}
	if n, enc := len(Pack(full)), len(full.AppendJSON(nil)); n > enc/2 {
		t.Errorf("packed, an agent has %d bytes of the %d of its encoding", n, enc)
	}
	if Agent("").Size() != 0 || Pack(full).Size() < len(full.AppendJSON(nil))-200 {
		t.Error("the size is far off")
	}
}

// filled is an agent with every listed field, no two of the same value.
func filled() *schemas.Agent {
	var a schemas.Agent
	for i, f := range table.Fields {
		a.SetField(f.Name, fmt.Append(nil, i+1))
	}
	return &a
}

func BenchmarkPack(b *testing.B) {
	a := filled()
	b.ReportAllocs()
	for b.Loop() {
		Pack(a)
	}
}

func BenchmarkUnpack(b *testing.B) {
	p := Pack(filled())
	b.ReportAllocs()
	for b.Loop() {
		p.Unpack()
	}
}

// A row that is used again is what its fields say, whatever the one before it had, and in whatever
// order.
func TestRowIsUsedAgain(t *testing.T) {
	var r Row
	for _, names := range [][]string{
		{"agentId", "onlineStatus", "agentName", "x"},
		{"agentId", "onlineStatus", "agentName", "x"},
		{"x", "agentName", "onlineStatus", "agentId"},
		{"onlineStatus", "agentId", "", "agentName", "areaName", "y", "x", "x"},
		{"agentId", "onlineStatus"},
	} {
		r.Reset()
		text := "{"
		for i, name := range names {
			value := json.RawMessage(fmt.Sprint(i + 1))
			r.Set([]byte(name), value)
			if i > 0 {
				text += ","
			}
			text += fmt.Sprintf("%q:%s", name, value)
		}
		want, _, err := decode([]byte(text+"}"), 886)
		if err != nil {
			t.Fatal(err)
		}
		p, dropped, err := r.Pack(886)
		if d := cmp.Diff(want, p.Unpack()); err != nil || dropped != 0 || d != "" {
			t.Errorf("%v: %v, %d dropped: %s", names, err, dropped, d)
		}
	}
}

// decode is Decode, unpacked.
func decode(row []byte, tenant int64) (schemas.Agent, int, error) {
	p, dropped, err := Decode(row, tenant)
	if err != nil {
		return schemas.Agent{}, dropped, err
	}
	return p.Unpack(), dropped, nil
}

// Two agents differ in what schemas says they differ in, packed or not.
func TestChanges(t *testing.T) {
	names := []string{"agentId", "type", "areaName", "deleteFlag", "userId", "", "a", "b", "zz"}
	value := rapid.SampledFrom([]string{"", "1", "2", `"1"`, `"x\"y"`})
	agent := rapid.Custom(func(t *rapid.T) schemas.Agent {
		var a schemas.Agent
		for _, name := range names {
			if v := value.Draw(t, name); v != "" {
				a.SetField(name, json.RawMessage(v))
			}
		}
		return a
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := agent.Draw(t, "a"), agent.Draw(t, "b")
		want := schemas.Changes(&a, &b)
		if d := cmp.Diff(want, Pack(&a).Changes(Pack(&b))); d != "" {
			t.Fatal(d)
		}
		var fields []string
		for name := range Pack(&a).Differing(Pack(&b)) {
			fields = append(fields, name)
		}
		if slices.Sort(fields); len(fields) != len(want) ||
			(Pack(&a) == Pack(&b)) != (len(want) == 0) {
			t.Fatalf("they differ in %q, want %v", fields, want)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	row := filled().AppendJSON(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := Decode(row, 0); err != nil {
			b.Fatal(err)
		}
	}
}
