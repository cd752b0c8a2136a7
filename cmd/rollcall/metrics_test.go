package main

import (
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rollcall-events/rollcall/internal/engine"
	"github.com/rollcall-events/rollcall/internal/test/natstest"
	"github.com/rollcall-events/rollcall/poller"
	"github.com/rollcall-events/rollcall/poller/isdp"
	"github.com/rollcall-events/rollcall/publisher"
)

var update = flag.Bool("update", false, "rewrite the table of docs/metrics.md from the registry")

// documented is the table of docs/metrics.md as it should be: every series that there is from the
// start. look is the last column, which only people can write, by metric.
func documented(t *testing.T, look map[string]string) string {
	t.Helper()
	setEnv(t, working(map[string]string{"ROLLCALL_HTTP_LISTEN": "off"}))
	s, _, err := loadSettings(withVendor)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	o, err := newDaemon(s, log, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	vendor, poll, tenant := s.vendor(log), s.poller(log), o.ofTenant(886)
	vendor.Metrics, poll.Metrics = o.registry, o.registry
	client, err := isdp.New(vendor)
	if err != nil {
		t.Fatal(err)
	}
	source, err := poller.New(poll, client)
	if err != nil {
		t.Fatal(err)
	}
	url, _ := natstest.Start(t, "")
	cfg := s.publisher(886, log)
	cfg.Metrics = tenant
	pub, err := publisher.Open(t.Context(), natstest.Connect(t, url), cfg)
	if err != nil {
		t.Fatal(err)
	}
	engine.New(engine.Config{Tenant: 886, Interval: time.Second, Metrics: tenant}, source, pub)

	families, err := o.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("| metric | type | labels | meaning | what to look at |\n| --- | --- | --- | " +
		"--- | --- |\n")
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "rollcall_") {
			continue // Go's and the process's are client_golang's
		}
		values := map[string]map[string]bool{}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if values[l.GetName()] == nil {
					values[l.GetName()] = map[string]bool{}
				}
				values[l.GetName()][l.GetValue()] = true
			}
		}
		var labels []string
		for _, name := range slices.Sorted(maps.Keys(values)) {
			label := "`" + name + "`"
			if name != "tenant" && f.GetName() != "rollcall_build_info" {
				label += ": `" + strings.Join(slices.Sorted(maps.Keys(values[name])), "`, `") + "`"
			}
			labels = append(labels, label)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", f.GetName(),
			strings.ToLower(f.GetType().String()),
			strings.Join(labels, "; "), f.GetHelp(), look[f.GetName()])
	}
	return b.String()
}

// docs/metrics.md tells every metric as the registry has it. To bring it up to date, all but what
// to look at:
//
//	go test ./cmd/rollcall -run TestMetricsDocumented -update
func TestMetricsDocumented(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "metrics.md")
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- metrics -->\n", "<!-- /metrics -->"
	before, rest, ok := strings.Cut(string(doc), begin)
	got, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no part between %s and %s", path, strings.TrimSpace(begin), end)
	}
	look := map[string]string{}
	for line := range strings.Lines(got) {
		if cells := strings.Split(strings.TrimSpace(line), " | "); len(cells) == 5 {
			look[strings.Trim(cells[0], "|` ")] = strings.TrimSuffix(cells[4], " |")
		}
	}
	want := "\n" + documented(t, look) + "\n"
	if *update {
		if err := os.WriteFile(path, []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("the table is not the registry's; run this test with -update:\n%s", d)
	}
	for line := range strings.Lines(got) {
		if strings.HasSuffix(strings.TrimSpace(line), "|  |") {
			t.Errorf("what is to be looked at? %s", line)
		}
	}
}
