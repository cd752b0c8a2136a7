// Package metrictest reads metrics for tests: as a map from series, written as Prometheus writes
// them, to values.
package metrictest

import (
	"bufio"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// Series are the values of rollcall's own series, by name{label="value",…} with the labels in
// order. Histograms have only their _count and _sum.
type Series map[string]float64

// Gather reads a registry, and fails the test where that does not work or a metric is not as
// Prometheus wants it.
func Gather(t testing.TB, g prometheus.Gatherer) Series {
	t.Helper()
	problems, err := testutil.GatherAndLint(g)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := Series{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+strconv.Quote(l.GetValue()))
			}
			set := ""
			if len(labels) > 0 {
				set = "{" + strings.Join(labels, ",") + "}"
			}
			switch {
			case m.Counter != nil:
				out[f.GetName()+set] = m.GetCounter().GetValue()
			case m.Gauge != nil:
				out[f.GetName()+set] = m.GetGauge().GetValue()
			case m.Histogram != nil:
				out[f.GetName()+"_count"+set] = float64(m.GetHistogram().GetSampleCount())
				out[f.GetName()+"_sum"+set] = m.GetHistogram().GetSampleSum()
			}
		}
	}
	return out.own()
}

// Parse reads Prometheus's text format, as far as it holds what [Series] does.
func Parse(t testing.TB, text string) Series {
	t.Helper()
	out := Series{}
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		line := lines.Text()
		series, value, ok := strings.Cut(line, "} ")
		if ok {
			series += "}"
		} else {
			series, value, ok = strings.Cut(line, " ")
		}
		if !ok || strings.HasPrefix(line, "#") || strings.Contains(series, "_bucket{") {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatalf("no value: %s", line)
		}
		out[series] = v
	}
	return out.own()
}

func (s Series) own() Series { return s.Of("rollcall_") }

// Of are the series whose names begin with one of the prefixes.
func (s Series) Of(prefixes ...string) Series {
	out := Series{}
	for series, v := range s {
		for _, p := range prefixes {
			if strings.HasPrefix(series, p) {
				out[series] = v
			}
		}
	}
	return out
}

// Some are the series that are not 0.
func (s Series) Some() Series {
	out := Series{}
	for series, v := range s {
		if v != 0 {
			out[series] = v
		}
	}
	return out
}
