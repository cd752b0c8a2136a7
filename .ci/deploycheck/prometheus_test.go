package deploycheck

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
	"sigs.k8s.io/yaml"
)

func TestPromtool(t *testing.T) {
	t.Parallel()
	promtool, dir := tool(t, "promtool", "prometheus"), root+"/deploy/prometheus"
	run(t, dir, promtool, "check", "rules", "--lint=all", "--lint-fatal", "rules.yml")
	run(t, dir, promtool, "check", "config", "--lint=all", "--lint-fatal", "prometheus.yml")
	run(t, dir, promtool, "test", "rules", "rules_test.yml")
}

type rules struct {
	Groups []struct {
		Name  string
		Rules []struct {
			Alert, Expr, For    string
			Labels, Annotations map[string]string
		}
	}
}

type ruleTests struct {
	Tests []struct {
		PromqlExprTest []struct {
			Expr       string
			ExpSamples []struct{ Labels string } `json:"exp_samples"`
		} `json:"promql_expr_test"`
	}
}

// TestAlerts: each says what happened, what to do and where to read on, and is tested where it
// fires and where it does not.
func TestAlerts(t *testing.T) {
	var r rules
	if err := yaml.Unmarshal([]byte(read(t, "deploy/prometheus/rules.yml")), &r); err != nil {
		t.Fatal(err)
	}
	var tests ruleTests
	if err := yaml.Unmarshal([]byte(read(t, "deploy/prometheus/rules_test.yml")),
		&tests); err != nil {
		t.Fatal(err)
	}
	fires, silent := make(map[string]bool), make(map[string]bool)
	name := regexp.MustCompile(`alertname="(\w+)"`)
	for _, test := range tests.Tests {
		for _, expr := range test.PromqlExprTest {
			if m := name.FindStringSubmatch(expr.Expr); m != nil && len(expr.ExpSamples) == 0 {
				silent[m[1]] = true
			}
			for _, sample := range expr.ExpSamples {
				if m := name.FindStringSubmatch(sample.Labels); m != nil {
					fires[m[1]] = true
				}
			}
		}
	}
	seen := make(map[string]bool)
	for _, g := range r.Groups {
		for _, a := range g.Rules {
			if a.Alert == "" || seen[a.Alert] {
				t.Errorf("group %s: no alert, or one of that name before: %q", g.Name, a.Alert)
			}
			seen[a.Alert] = true
			if s := a.Labels["severity"]; s != "critical" && s != "warning" {
				t.Errorf("%s: severity %q", a.Alert, s)
			}
			if a.Annotations["summary"] == "" || len(a.Annotations["description"]) < 80 {
				t.Errorf("%s: no summary, or no description that says what to do", a.Alert)
			}
			if want := "docs/operations.md#" +
				strings.ToLower(a.Alert); !strings.HasSuffix(a.Annotations["runbook_url"],
				"/"+want) {
				t.Errorf("%s: runbook_url %q, want …/%s", a.Alert, a.Annotations["runbook_url"],
					want)
			}
			if !fires[a.Alert] {
				t.Errorf("%s: no test where it fires", a.Alert)
			}
			if !silent[a.Alert] {
				t.Errorf("%s: no test where it does not fire", a.Alert)
			}
			checkQuery(t, a.Alert, a.Expr)
		}
	}
	if len(seen) < 10 {
		t.Errorf("only %d alerts: is the reading broken?", len(seen))
	}
}

// A dashboard is what the checks need of Grafana's model.
type dashboard struct {
	UID           string  `json:"uid"`
	Title         string  `json:"title"`
	SchemaVersion int     `json:"schemaVersion"`
	Panels        []panel `json:"panels"`
	Annotations   struct {
		List []struct {
			Name, Expr string
		}
	} `json:"annotations"`
	Templating struct {
		List []struct {
			Name  string          `json:"name"`
			Query json.RawMessage `json:"query"`
		}
	} `json:"templating"`
}

type panel struct {
	ID          int     `json:"id"`
	Type        string  `json:"type"`
	Title       string  `json:"title"`
	Panels      []panel `json:"panels"`
	GridPos     struct{ X, Y, W, H int }
	FieldConfig struct {
		Overrides []struct{ Matcher struct{ Options string } }
	} `json:"fieldConfig"`
	Datasource struct{ UID string }
	Targets    []struct {
		Expr, RefID, LegendFormat string

		Datasource struct{ UID string }
	} `json:"targets"`
}

func TestDashboard(t *testing.T) {
	var d dashboard
	if err := json.Unmarshal([]byte(read(t, "deploy/grafana/rollcall.json")), &d); err != nil {
		t.Fatal(err)
	}
	if d.UID == "" || d.Title == "" || d.SchemaVersion < 39 || d.SchemaVersion > 42 {
		t.Errorf("uid %q, title %q, schema version %d: want those of Grafana 11 or 12", d.UID,
			d.Title, d.SchemaVersion)
	}
	ids, variables, taken := make(map[int]bool), make(map[string]bool), make(map[[2]int]string)
	for _, v := range d.Templating.List {
		variables[v.Name] = true
		if m := regexp.MustCompile(`label_values\(([^,]+)`).FindSubmatch(v.Query); m != nil {
			checkQuery(t, "variable "+v.Name,
				strings.ReplaceAll(grafanaQuery(string(m[1])), `\"`, `"`))
		}
	}
	for _, a := range d.Annotations.List {
		if a.Expr != "" {
			checkQuery(t, "annotation "+a.Name, grafanaQuery(a.Expr))
		}
	}
	used := make(map[string]bool)
	for _, p := range d.Panels {
		where := fmt.Sprintf("panel %d %q", p.ID, p.Title)
		if ids[p.ID] || p.ID == 0 {
			t.Errorf("%s: its id is not its own", where)
		}
		ids[p.ID] = true
		if p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("%s is off the grid", where)
		}
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if taken[at] != "" {
					t.Fatalf("%s lies over %s", where, taken[at])
				}
				taken[at] = where
			}
		}
		if p.Type == "row" {
			continue
		}
		if len(p.Targets) == 0 || p.Datasource.UID != "${datasource}" {
			t.Errorf("%s has no query, or another data source than the dashboard's", where)
		}
		for _, target := range p.Targets {
			for _, v := range regexp.MustCompile(`\$([a-z]\w*)`).FindAllStringSubmatch(target.Expr,
				-1) {
				if !variables[v[1]] {
					t.Errorf("%s uses the variable %s, which the dashboard does not have", where,
						v[1])
				}
			}
			for _, m := range checkQuery(t, where, grafanaQuery(target.Expr)) {
				used[m] = true
			}
		}
	}
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			if target.LegendFormat != "{{type}}" ||
				!strings.Contains(target.Expr, "rollcall_agents") {
				continue
			}
			var named []string // what people call the types
			for _, o := range p.FieldConfig.Overrides {
				named = append(named, o.Matcher.Options)
			}
			if want := labelValues(t, "rollcall_agents", "type"); !slices.Equal(
				slices.Sorted(slices.Values(named)), want) {
				t.Errorf("%q has names for the types %q, want them for %q", p.Title, named, want)
			}
		}
	}
	t.Logf("the dashboard shows %d metrics", len(used))
	for m := range metrics(t) {
		if base := strings.TrimSuffix(m, "_total"); strings.HasPrefix(m, "rollcall_") &&
			!slices.ContainsFunc(slices.Collect(maps.Keys(used)),
				func(u string) bool { return strings.HasPrefix(u, base) }) {
			t.Errorf("the dashboard does not show %s", m)
		}
	}
}

// labelValues are those that the metrics' document has for a metric's label.
func labelValues(t *testing.T, metric, label string) []string {
	t.Helper()
	data, err := os.ReadFile(*metricsTable)
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `" + metric + "` \\|.*").Find(data)
	list := regexp.MustCompile("`" + label + "`: ([^;|]+)").FindSubmatch(row)
	if list == nil {
		t.Fatalf("%s has no values for %s of %s", *metricsTable, label, metric)
	}
	return slices.Sorted(strings.SplitSeq(
		strings.NewReplacer("`", "", " ", "").Replace(string(list[1])), ","))
}

// grafanaQuery is what Grafana makes of an expression.
func grafanaQuery(expr string) string {
	return strings.NewReplacer("$__rate_interval", "1m", "$job", ".*", "$tenant",
		".*").Replace(expr)
}

// metrics are the names that the metrics' document has, and those of Prometheus and its Go client's
// collectors.
func metrics(t *testing.T) map[string]bool {
	t.Helper()
	data, err := os.ReadFile(*metricsTable)
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{
		"up": true, "ALERTS": true, "process_start_time_seconds": true,
		"process_resident_memory_bytes": true,
		"process_cpu_seconds_total":     true, "go_memstats_heap_inuse_bytes": true,
	}
	for _, name := range regexp.MustCompile(`\brollcall_[a-z_]*[a-z]\b`).FindAllString(string(data),
		-1) {
		known[strings.TrimSuffix(name, "_bucket")] = true
	}
	if len(known) < 30 {
		t.Fatalf("%s has only %d metrics", *metricsTable, len(known))
	}
	return known
}

// checkQuery parses an expression, sees whether there is every metric that it uses, and returns
// their names.
func checkQuery(t *testing.T, where, query string) []string {
	t.Helper()
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(query)
	if err != nil {
		t.Errorf("%s: %v in %s", where, err, query)
		return nil
	}
	known := metrics(t)
	var names []string
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		selector, ok := node.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		for _, m := range selector.LabelMatchers {
			if m.Name != model.MetricNameLabel {
				continue
			}
			base := m.Value
			for _, suffix := range []string{"_bucket", "_sum", "_count"} { // of a histogram
				base = strings.TrimSuffix(base, suffix)
			}
			names = append(names, base)
			if !known[m.Value] && !known[base] {
				t.Errorf("%s asks for %s, which %s does not have", where, m.Value,
					filepath.Base(*metricsTable))
			}
		}
		return nil
	})
	if len(names) == 0 {
		t.Errorf("%s asks for nothing: %s", where, query)
	}
	return names
}
