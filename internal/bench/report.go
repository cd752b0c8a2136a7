package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"strings"
	"time"
)

// A report is what a run has found.
type report struct {
	Machine    string    `json:"machine"`
	Began      time.Time `json:"began"`
	Ended      time.Time `json:"ended"`
	LoadBefore string    `json:"loadBefore"` // over 1, 5 and 15 minutes
	LoadAfter  string    `json:"loadAfter"`
	Rounds     int       `json:"rounds"`
	Modes      []string  `json:"modes"`
	Rows       []row     `json:"rows"`

	Glances []*glancing `json:"glances,omitempty"`

	// Samples has every single figure, by "<agents> <name>", in the order in which they were taken.
	Samples map[string][]float64 `json:"samples"`

	sizes []int
}

// A row is one measure beside its floor.
type row struct {
	Measure  string `json:"measure"`
	Agents   int    `json:"agents"`
	Unit     string `json:"unit"`
	Measured figure `json:"measured"`
	Floor    figure `json:"floor"`  // NaN: there is none
	Ratio    figure `json:"ratio"`  // measured to floor
	Target   string `json:"target"` // empty: there is none at this size
	OK       *bool  `json:"ok"`     // nil: there is no target
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

// newReport begins a report.
func newReport(o options) *report {
	machine := fmt.Sprintf("%d cores, %s, %s", runtime.NumCPU(), machine(), runtime.Version())
	return &report{
		Machine: machine, Began: time.Now().UTC().Truncate(time.Second), LoadBefore: load(),
		Rounds: o.rounds, Modes: o.modes, Samples: make(map[string][]float64), sizes: o.sizes,
	}
}

func (r *report) add(agents int, name string, v float64) {
	key := fmt.Sprintf("%d %s", agents, name)
	r.Samples[key] = append(r.Samples[key], v)
}

// finish makes the rows of what has been measured.
func (r *report) finish() {
	r.Ended, r.LoadAfter = time.Now().UTC().Truncate(time.Second), load()
	for i, n := range r.sizes {
		s := size{r, n}
		s.polling()
		if i > 0 {
			s.growth(size{r, r.sizes[i-1]})
		}
		s.delays()
		s.rates()
		s.restarts()
		s.history()
	}
	for i, n := range r.sizes {
		s := size{r, n}
		s.memory()
		if i > 0 {
			s.memoryGrowth(size{r, r.sizes[i-1]})
		}
	}
}

// A size is what was measured with a number of agents.
type size struct {
	*report
	n int
}

func (s size) of(name string) []float64 { return s.Samples[fmt.Sprintf("%d %s", s.n, name)] }

func (s size) median(name string) float64 { return median(s.of(name)) }

// row adds a row, unless it was not measured. floor is NaN where there is none.
func (s size) row(measure, unit string, measured, floor float64, t *target) {
	if math.IsNaN(measured) {
		return
	}
	w := row{
		Measure: measure, Agents: s.n, Unit: unit,
		Measured: figure(measured), Floor: figure(floor), Ratio: figure(measured / floor),
	}
	if t != nil {
		ok := t.met(w)
		w.Target, w.OK = t.String(), &ok
	}
	s.Rows = append(s.Rows, w)
}

func (s size) polling() {
	for _, m := range []struct {
		mode string
		most float64 // µs of CPU an agent, in all
	}{{"static", 2}, {"drift", 15}} {
		cpu, client := s.median(m.mode+".cpu"), s.median(m.mode+".client.cpu")
		s.row("CPU of a sweep, "+m.mode, "ms", cpu, client, nil)
		if s.n >= 100_000 { // fewer agents share what a sweep costs without any
			each, most := 1000/float64(s.n), &target{limit: m.most, absolute: true}
			s.row("CPU of a sweep, an agent, "+m.mode, "µs", cpu*each, client*each, most)
		}
		wall, floor := s.median(m.mode+".wall"), s.median(m.mode+".client.wall")
		s.row("time of a sweep, "+m.mode, "ms", wall, floor, nil)
	}
}

// growth is what another agent costs a sweep, between two sizes.
func (s size) growth(from size) {
	for _, mode := range []string{"static", "drift"} {
		more := func(name string) float64 {
			return 1000 * (s.median(mode+name) - from.median(mode+name)) / float64(s.n-from.n)
		}
		name := fmt.Sprintf("CPU of one more agent in a sweep, %s, from %d", mode, from.n)
		s.row(name, "µs", more(".cpu"), more(".client.cpu"), nil)
	}
}

func (s size) delays() {
	for _, m := range []struct {
		mode, name string
		half, most *target
	}{
		{"churn", "page read to event", nil, nil},
		{"paced", "page read to event, a sweep of 2 s", &target{limit: 1.8}, &target{limit: 6}},
	} {
		if s.n > 10_000 { // which needs more than 100 requests a second
			m.half, m.most = nil, nil
		}
		one, slow := s.median(m.mode+".commit"), s.median(m.mode+".commit.p99")
		s.row(m.name+", p50", "ms", s.median(m.mode+".p50"), one, m.half)
		s.row(m.name+", p99", "ms", s.median(m.mode+".p99"), one, m.most)
		s.row("… one commit on an idle broker, p99", "ms", slow, one, nil)
	}
}

func (s size) rates() {
	for _, m := range []struct{ what, mode, floor string }{
		{"first start", "start", "floor.new"}, {"mass change", "mass", "floor.mass"},
	} {
		var least, most *target
		if m.mode == "mass" && s.n >= 10_000 {
			least, most = &target{limit: 0.75, least: true}, &target{limit: 60, absolute: true}
		}
		s.row(m.what, "events/s", s.median(m.mode+".rate"), s.median(m.floor+".rate"), least)
		cpu, floor := s.median(m.mode+".cpu"), s.median(m.floor+".cpu")
		s.row(m.what+", CPU an event", "µs", cpu, floor, most)
	}
}

func (s size) restarts() {
	var most *target
	if s.n >= 100_000 {
		most = &target{limit: 4}
	}
	for _, m := range []struct {
		name, mode string
		lease      time.Duration
	}{
		{"restart after SIGTERM", "restart.term", 0},
		{"restart after SIGKILL, beyond the lease's 5s", "restart.kill", leaseTTL},
	} {
		s.row(m.name, "ms", s.median(m.mode)-millis(m.lease), s.median(m.mode+".floor"), most)
		if events := s.of(m.mode + ".events"); len(events) > 0 {
			extra := max(slices.Max(events), -slices.Min(events))
			none := &target{limit: 0, absolute: true}
			s.row(m.name+", events too many or too few", "", extra, math.NaN(), none)
		}
	}
}

// peak is the most memory that a process had, whatever it went through.
func (s size) peak() float64 {
	bytes := math.NaN()
	for name, values := range s.Samples {
		if strings.HasPrefix(name, fmt.Sprintf("%d peak.", s.n)) && !(slices.Max(values) <= bytes) {
			bytes = slices.Max(values)
		}
	}
	return bytes
}

func (s size) memory() {
	var most *target
	if s.n == 100_000 {
		most = &target{limit: 200, absolute: true}
	}
	s.row("peak memory", "MB", s.peak()/1e6, math.NaN(), most)
	s.row("peak memory, first start", "MB", s.median("peak.start")/1e6, math.NaN(), nil)
}

func (s size) memoryGrowth(from size) {
	var most *target
	if from.n >= 10_000 {
		most = &target{limit: 2500, absolute: true}
	}
	each := (s.peak() - from.peak()) / float64(s.n-from.n)
	name := fmt.Sprintf("peak memory of one more agent, from %d", from.n)
	s.row(name, "bytes", each, math.NaN(), most)
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
	fmt.Fprintf(
		&b,
		"%s; load before %s, after %s; %d rounds, %d pages in flight; %s, %v\n\n",
		r.Machine,
		r.LoadBefore,
		r.LoadAfter,
		r.Rounds,
		inFlight,
		r.Began.Format(time.DateTime),
		r.Ended.Sub(r.Began),
	)
	if len(r.Glances) > 0 {
		writeGlances(&b, r.Glances)
	}
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
		cells = append(
			cells,
			[]string{
				x.Measure,
				fmt.Sprint(x.Agents),
				short(float64(x.Measured)) + unit,
				short(float64(x.Floor)),
				short(float64(x.Ratio)),
				x.Target,
				verdict,
			},
		)
	}
	if len(r.Rows) > 0 {
		writeTable(&b, cells)
	}
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
