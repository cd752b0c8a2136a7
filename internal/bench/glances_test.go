package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseCells(t *testing.T) {
	got, err := parseCells(" 340,2000:1:15:0.2 10000:10:30:1:1,50")
	want := []cell{
		{340, 1, 15, 0.2, 1}, {2000, 1, 15, 0.2, 1},
		{10_000, 10, 30, 1, 1}, {10_000, 10, 30, 1, 50},
	}
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Errorf("%v\n%s", err, d)
	}
	for _, s := range []string{"340", "340:1:15:x", "340:1:15:0", "340:1:15:1:1:1", "340:1::1"} {
		if _, err := parseCells(s); err == nil {
			t.Errorf("%q is taken", s)
		}
	}
	all, err := parseCells(targetCells)
	if err != nil || len(all) != len(meanTargets) {
		t.Errorf("cells with a target: %+v, %v", all, err)
	}
	for _, c := range all {
		if meanTargets[c] == 0 {
			t.Errorf("%+v has no target", c)
		}
	}
	if f := (cell{2_000, 1, 15, 0.2, 1}).floor(); f != 4 {
		t.Errorf("the floor of six pages is %v s", f)
	}
}

// An event is of the last flip; a flip that another has undone before it was read counts nowhere.
func TestFlips(t *testing.T) {
	at := time.Now()
	after := func(s int) time.Time { return at.Add(time.Duration(s) * time.Second) }
	p := &poller{pending: make(map[int64]flip)}
	p.flipped(1, flip{at, true, true})
	p.arrived(1, false, after(1)) // of a flip before
	p.arrived(1, true, after(2))
	p.arrived(1, true, after(3))
	p.flipped(2, flip{at, true, true})
	p.flipped(2, flip{after(1), false, true})
	p.arrived(2, false, after(2))
	p.flipped(3, flip{at, false, false}) // too early to count
	p.arrived(3, false, after(2))
	p.flipped(4, flip{at, false, true})
	p.arrived(4, false, after(4))
	if d := cmp.Diff(pace{SignIns: []float64{2}, SignOuts: []float64{4}}, p.pace); d != "" {
		t.Error(d)
	}
	if len(p.pending) > 0 {
		t.Errorf("flips that are still to be told: %+v", p.pending)
	}
}

func TestGlanceTargets(t *testing.T) {
	c := cell{2_000, 1, 15, 0.2, 1}
	for _, tc := range []struct {
		alone, glances, sweep float64
		missed                string
	}{
		{20, 10, 120, ""},
		{20, 11, 80, "mean above 10"},
		{8, 9, 121, "a tenth above sweeps alone, sweeps three times as long"},
	} {
		g := &glancing{
			cell:    c,
			Alone:   pace{SignIns: []float64{tc.alone}, Sweeps: []float64{40}},
			Glances: pace{SignOuts: []float64{tc.glances}, Sweeps: []float64{tc.sweep}},
		}
		if got := g.missed(); got != tc.missed {
			t.Errorf("%+v: %q", tc, got)
		}
	}
	var b strings.Builder
	writeGlances(&b, []*glancing{{cell: c, Floor: 4, Alone: pace{SignIns: []float64{1, 3}}}})
	if want := "| sweeps alone | 2   | 2    | 3   | 2        | 3   | –         | –   |"; !strings.
		Contains(b.String(), want) {
		t.Errorf("no %q in:\n%s", want, b.String())
	}
}
