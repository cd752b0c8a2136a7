package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"
)

// A report is what a run has found.
type report struct {
	Machine     string    `json:"machine"`
	Began       time.Time `json:"began"`
	Ended       time.Time `json:"ended"`
	LoadBefore  string    `json:"loadBefore"` // over 1, 5 and 15 minutes
	LoadAfter   string    `json:"loadAfter"`
	Rounds      int       `json:"rounds"`
	Modes       []string  `json:"modes"`
	Concurrency int       `json:"concurrency"`
	Rows        []row     `json:"rows"`

	// Samples has every single figure, by "<agents> <name>", in the order in which they were taken.
	Samples map[string][]float64 `json:"samples"`

	sizes   []int
	samples map[sampleKey][]float64
}

type sampleKey struct {
	agents int
	name   string
}

// A row is one measure beside its floor.
type row struct {
	Measure  string `json:"measure"`
	Agents   int    `json:"agents"`
	Unit     string `json:"unit"`
	Measured figure `json:"measured"`
	Floor    figure `json:"floor"`   // NaN: there is none
	FloorIs  string `json:"floorIs"` // what the floor is; empty: there is none
	Ratio    figure `json:"ratio"`   // measured to floor
	Target   string `json:"target"`  // empty: there is none at this size
	OK       *bool  `json:"ok"`      // nil: there is no target
	Note     string `json:"note,omitempty"`
}

// A figure is null in JSON where it is not a number.
type figure float64

// MarshalJSON implements json.Marshaler.
func (f figure) MarshalJSON() ([]byte, error) {
	if v := float64(f); math.IsNaN(v) || math.IsInf(v, 0) {
		return []byte("null"), nil
	}
	return json.Marshal(float64(f))
}

// A target is what a row has to reach.
type target struct {
	limit    float64
	least    bool // the limit is the least, not the most
	absolute bool // it is the figure's, not the ratio's
}

func (t target) String() string {
	s := "≤ "
	if t.least {
		s = "≥ "
	}
	return s + short(t.limit)
}

func (t target) met(r row) bool {
	v := float64(r.Ratio)
	if t.absolute {
		v = float64(r.Measured)
	}
	if t.least {
		return v >= t.limit
	}
	return v <= t.limit // never of NaN
}

func (r *report) add(agents int, name string, v float64) {
	k := sampleKey{agents, name}
	r.samples[k] = append(r.samples[k], v)
}

func (r *report) median(agents int, name string) float64 {
	return median(r.samples[sampleKey{agents, name}])
}

// finish makes the rows of what has been measured.
func (r *report) finish() {
	r.Ended, r.LoadAfter = time.Now().UTC().Truncate(time.Second), load()
	r.Samples = make(map[string][]float64, len(r.samples))
	for k, v := range r.samples {
		r.Samples[fmt.Sprintf("%d %s", k.agents, k.name)] = v
	}
	r.Rows = nil
	for i, n := range r.sizes {
		r.polling(n)
		if i > 0 {
			r.growth(r.sizes[i-1], n)
		}
		r.delays(n)
		r.rates(n)
		r.restarts(n)
	}
	r.memory()
}

// row adds a row, unless it was not measured.
func (r *report) row(w row, measured, floor float64, t *target) {
	if math.IsNaN(measured) {
		return
	}
	w.Measured, w.Floor, w.Ratio = figure(measured), figure(floor), figure(measured/floor)
	if t != nil {
		ok := t.met(w)
		w.Target, w.OK = t.String(), &ok
	}
	r.Rows = append(r.Rows, w)
}

const theClient = "a client that reads the same pages and throws them away"

func (r *report) polling(n int) {
	for _, m := range []struct {
		mode string
		most float64 // µs of CPU an agent, in all
	}{{"static", 2}, {"drift", 15}} {
		r.row(row{Measure: "CPU of a sweep, " + m.mode, Agents: n, Unit: "ms", FloorIs: theClient},
			r.median(n, m.mode+".cpu"), r.median(n, m.mode+".client.cpu"), nil)
		if n >= 100_000 { // fewer agents share what a sweep costs without any
			r.row(row{Measure: "CPU of a sweep, an agent, " + m.mode, Agents: n, Unit: "µs", FloorIs: theClient},
				1000*r.median(n, m.mode+".cpu")/float64(n), 1000*r.median(n, m.mode+".client.cpu")/float64(n),
				&target{limit: m.most, absolute: true})
		}
		r.row(row{Measure: "time of a sweep, " + m.mode, Agents: n, Unit: "ms", FloorIs: theClient},
			r.median(n, m.mode+".wall"), r.median(n, m.mode+".client.wall"), nil)
	}
	note := ""
	if v := r.median(n, "static.messages"); !math.IsNaN(v) {
		note = fmt.Sprintf("messages a sweep: %s", short(v))
	}
	r.row(row{Measure: "broker's CPU of a sweep, static", Agents: n, Unit: "ms", FloorIs: "one watermark published at the same pace", Note: note},
		r.median(n, "static.broker"), r.median(n, "static.floor.broker"), nil)
}

// growth is what another agent costs a sweep, between two sizes.
func (r *report) growth(from, to int) {
	for _, mode := range []string{"static", "drift"} {
		of := func(name string) float64 {
			return 1000 * marginal(float64(from), r.median(from, name), float64(to), r.median(to, name))
		}
		r.row(row{Measure: fmt.Sprintf("CPU of one more agent in a sweep, %s, from %d", mode, from), Agents: to, Unit: "µs", FloorIs: "the same of the client"},
			of(mode+".cpu"), of(mode+".client.cpu"), nil)
	}
}

func (r *report) delays(n int) {
	const one = "p50 of one commit on an idle broker"
	for _, m := range []struct{ mode, name string }{{"churn", "page read to event"}, {"paced", "page read to event, a sweep of 2 s"}} {
		commit := r.median(n, m.mode+".commit")
		var half, most *target
		if m.mode == "paced" && n <= 10_000 { // 100 requests a second
			half, most = &target{limit: 1.8}, &target{limit: 6}
		}
		r.row(row{Measure: m.name + ", p50", Agents: n, Unit: "ms", FloorIs: one}, r.median(n, m.mode+".p50"), commit, half)
		r.row(row{Measure: m.name + ", p99", Agents: n, Unit: "ms", FloorIs: one}, r.median(n, m.mode+".p99"), commit, most)
		r.row(row{Measure: "… one commit on an idle broker, p99", Agents: n, Unit: "ms", FloorIs: one}, r.median(n, m.mode+".commit.p99"), commit, nil)
	}
}

func (r *report) rates(n int) {
	for _, m := range []struct {
		what, mode, floor, floorIs string
		rate, cpu                  *target
		least                      int
	}{
		{"first start", "start", "floor.new", "atomic batches on new subjects", nil, nil, 100_000},
		{"mass change", "mass", "floor.mass", "atomic batches of event and replaced state", &target{limit: 0.75, least: true}, &target{limit: 60, absolute: true}, 10_000},
	} {
		if n < m.least {
			m.rate, m.cpu = nil, nil
		}
		r.row(row{Measure: m.what, Agents: n, Unit: "events/s", FloorIs: m.floorIs}, r.median(n, m.mode+".rate"), r.median(n, m.floor+".rate"), m.rate)
		r.row(row{Measure: m.what + ", CPU an event", Agents: n, Unit: "µs", FloorIs: "the client's of those batches"},
			r.median(n, m.mode+".cpu"), r.median(n, m.floor+".cpu"), m.cpu)
	}
}

func (r *report) restarts(n int) {
	var t, none *target
	if n >= 100_000 {
		t = &target{limit: 4}
	}
	if n > 0 {
		none = &target{limit: 0, absolute: true}
	}
	for _, m := range []struct {
		name, mode, floor string
		lease             time.Duration
	}{
		{"restart after SIGTERM", "restart.term", "reading the states, and one sweep of the client", 0},
		{"restart after SIGKILL, beyond the lease's " + leaseTTL.String(), "restart.kill", "the same", leaseTTL},
	} {
		r.row(row{Measure: m.name, Agents: n, Unit: "ms", FloorIs: m.floor}, r.median(n, m.mode)-ms(m.lease), r.median(n, m.mode+".floor"), t)
		extra := 0.0
		for _, v := range r.samples[sampleKey{n, m.mode + ".events"}] {
			extra = max(extra, math.Abs(v))
		}
		if len(r.samples[sampleKey{n, m.mode + ".events"}]) > 0 {
			r.row(row{Measure: m.name + ", events too many or too few", Agents: n, Unit: ""}, extra, math.NaN(), none)
		}
	}
}

// lives are what a process has been through when its memory is noted.
var lives = []string{"start", "static", "drift", "churn", "paced", "mass", "restart", "end"}

// peak is the most memory that a process had, whatever it went through.
func (r *report) peak(n int) (bytes float64, life string) {
	bytes = math.NaN()
	for _, l := range lives {
		for _, v := range r.samples[sampleKey{n, "peak." + l}] {
			if math.IsNaN(bytes) || v > bytes {
				bytes, life = v, l
			}
		}
	}
	return bytes, life
}

func (r *report) memory() {
	for i, n := range r.sizes {
		var t *target
		if n == 100_000 {
			t = &target{limit: 200, absolute: true}
		}
		bytes, life := r.peak(n)
		r.row(row{Measure: "peak memory", Agents: n, Unit: "MB", Note: "in: " + life}, bytes/1e6, math.NaN(), t)
		r.row(row{Measure: "peak memory, first start", Agents: n, Unit: "MB"}, r.median(n, "peak.start")/1e6, math.NaN(), nil)
		if i == 0 {
			continue
		}
		from := r.sizes[i-1]
		less, _ := r.peak(from)
		t = nil
		if from >= 10_000 {
			t = &target{limit: 2500, absolute: true}
		}
		r.row(row{Measure: fmt.Sprintf("peak memory of one more agent, from %d", from), Agents: n, Unit: "bytes"},
			marginal(float64(from), less, float64(n), bytes), math.NaN(), t)
	}
}

// short writes a figure with about three digits that count.
func short(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v):
		return "–"
	case a >= 100 || v == math.Trunc(v):
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	case a >= 0.1:
		return fmt.Sprintf("%.2f", v)
	default:
		return fmt.Sprintf("%.3g", v)
	}
}

// write writes the report as a table, in Markdown.
func (r *report) write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s; load before %s, after %s; %d rounds, %d pages in flight; %s, %v\n\n", r.Machine, r.LoadBefore, r.LoadAfter, r.Rounds, r.Concurrency,
		r.Began.Format(time.DateTime), r.Ended.Sub(r.Began))
	cells := [][]string{{"measure", "agents", "measured", "floor", "ratio", "target", ""}}
	for _, x := range r.Rows {
		verdict := ""
		if x.OK != nil {
			verdict = "ok"
			if !*x.OK {
				verdict = "MISSED"
			}
		}
		unit := ""
		if x.Unit != "" {
			unit = " " + x.Unit
		}
		cells = append(cells, []string{x.Measure, fmt.Sprint(x.Agents), short(float64(x.Measured)) + unit, short(float64(x.Floor)), short(float64(x.Ratio)), x.Target, verdict})
	}
	writeTable(&b, cells)
	_, err := io.WriteString(w, b.String())
	return err
}

// writeTable writes a table in Markdown, the first row its head, the columns aligned.
func writeTable(b *strings.Builder, cells [][]string) {
	widths := make([]int, len(cells[0]))
	for _, line := range cells {
		for i, c := range line {
			widths[i] = max(widths[i], len([]rune(c)))
		}
	}
	rule := make([]string, len(widths))
	for i, n := range widths {
		rule[i] = strings.Repeat("-", max(n, 3))
	}
	for _, line := range slices.Insert(slices.Clone(cells), 1, rule) {
		for i, c := range line {
			fmt.Fprintf(b, "| %s%s ", c, strings.Repeat(" ", max(widths[i], 3)-len([]rune(c))))
		}
		b.WriteString("|\n")
	}
}
