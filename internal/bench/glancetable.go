package main

import (
	"fmt"
	"slices"
	"strings"
)

// meanTargets are the cells whose mean delay has a bound, in seconds.
var meanTargets = map[cell]float64{
	{340, 1, 15, 0.2, 1}:   2.6,
	{2_000, 1, 15, 0.2, 1}: 10,
	{10_000, 10, 15, 1, 1}: 5,
}

// A pace is what was measured of one way to poll, in seconds.
type pace struct {
	SignIns  []float64 `json:"signIns"` // from the flip in the tenant to the event's arrival
	SignOuts []float64 `json:"signOuts"`
	Sweeps   []float64 `json:"sweeps"` // how long complete ones took
}

func (p *pace) add(more pace) {
	p.SignIns = append(p.SignIns, more.SignIns...)
	p.SignOuts = append(p.SignOuts, more.SignOuts...)
	p.Sweeps = append(p.Sweeps, more.Sweeps...)
}

func (p *pace) all() []float64 { return slices.Concat(p.SignIns, p.SignOuts) }

// A glancing is a cell as it was measured, all rounds together.
type glancing struct {
	cell
	Floor   float64 `json:"floor"`
	Alone   pace    `json:"alone"` // sweeps alone
	Glances pace    `json:"glances"`
}

func mean(v []float64) (sum float64) {
	for _, x := range v {
		sum += x
	}
	return sum / float64(len(v)) // NaN of none
}

// missed says which bounds a cell has missed; empty: none.
func (g *glancing) missed() string {
	var all []string
	delay, alone := mean(g.Glances.all()), mean(g.Alone.all())
	if most, ok := meanTargets[g.cell]; ok && !(delay <= most) {
		all = append(all, "mean above "+short(most))
	}
	if delay > 1.1*alone {
		all = append(all, "a tenth above sweeps alone")
	}
	if mean(g.Glances.Sweeps) > 3*mean(g.Alone.Sweeps) {
		all = append(all, "sweeps three times as long")
	}
	return strings.Join(all, ", ")
}

// writeGlances writes what was measured of glances as a table; all but counts in seconds.
func writeGlances(b *strings.Builder, all []*glancing) {
	cells := [][]string{{
		"agents", "requests/s", "online", "flips/s", "", "n", "mean", "p90", "sign-ins", "p90",
		"sign-outs", "p90", "a sweep", "floor", "target", "",
	}}
	for _, g := range all {
		for _, p := range []struct {
			name string
			pace
		}{{"sweeps alone", g.Alone}, {"glances", g.Glances}} {
			flips := short(g.Flips)
			if g.Burst > 1 {
				flips += fmt.Sprintf(", %d at once", g.Burst)
			}
			line := []string{
				fmt.Sprint(g.Agents), short(g.Requests), short(g.Online) + " %", flips, p.name,
				fmt.Sprint(len(p.all())),
			}
			for _, v := range [][]float64{p.all(), p.SignIns, p.SignOuts} {
				line = append(line, short(mean(v)), short(percentile(v, 0.9)))
			}
			line = append(line, short(mean(p.Sweeps)), "", "", "")
			if p.name == "glances" {
				target := ""
				if most, ok := meanTargets[g.cell]; ok {
					target = "≤ " + short(most)
				}
				verdict := "ok"
				if missed := g.missed(); missed != "" {
					verdict = "MISSED: " + missed
				}
				line = append(line[:len(line)-3], short(g.Floor), target, verdict)
			}
			cells = append(cells, line)
		}
	}
	writeTable(b, cells)
}
