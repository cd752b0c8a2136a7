package schemas

import (
	"encoding/json"
	"fmt"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPacked(t *testing.T) {
	full := filled()
	for _, a := range []*Agent{
		{}, {AgentID: math.MaxInt64, TenantID: math.MinInt64, OnlineStatus: -1}, full,
		{AgentName: new(""), UserID: new(int64(0)), DeleteFlag: new(int64(1)), Type: new("")},
		{EntityName: new("\xff\x00"), Capacity: new(int64(math.MinInt64))},
		{Other: []Field{{"", json.RawMessage(`{}`)}, {"x", json.RawMessage("null")}}},
	} {
		checkPacked(t, a)
	}
	if n, enc := len(full.Pack()), len(full.AppendJSON(nil)); n > enc/2 {
		t.Errorf("packed, an agent has %d bytes of the %d of its encoding", n, enc)
	}
	if Packed("").Size() != 0 || full.Pack().Size() < len(full.AppendJSON(nil))-200 {
		t.Error("the size is far off")
	}
}

// filled is an agent with every listed field, no two of the same value.
func filled() *Agent {
	var a Agent
	for i, f := range listedFields {
		switch p := f.at(&a).(type) {
		case *int64:
			*p = int64(i + 1)
		case **int64:
			*p = new(int64(i + 1))
		case **string:
			*p = new(string(rune('a' + i)))
		}
	}
	return &a
}

func BenchmarkPack(b *testing.B) {
	a := filled()
	b.ReportAllocs()
	for b.Loop() {
		a.Pack()
	}
}

func BenchmarkUnpack(b *testing.B) {
	p := filled().Pack()
	b.ReportAllocs()
	for b.Loop() {
		p.Agent()
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
		want, _, err := DecodeAgent([]byte(text+"}"), 886)
		if err != nil {
			t.Fatal(err)
		}
		got, dropped, err := r.Agent(886)
		if d := cmp.Diff(want, got); err != nil || dropped != 0 || d != "" {
			t.Errorf("%v: %v, %d dropped: %s", names, err, dropped, d)
		}
	}
	for i := range 3 * maxSeats {
		r.Set(fmt.Append(nil, "f", i), json.RawMessage("1"))
	}
	r.Reset()
	if len(r.seats) > 0 {
		t.Errorf("%d fields are remembered", len(r.seats))
	}
}
