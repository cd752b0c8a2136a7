package main

import (
	"bytes"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestOfAProcess(t *testing.T) {
	if peak := peakMemory(os.Getpid()); peak < 1e6 {
		t.Errorf("this process has had %v bytes at its peak", peak)
	}
	const much = 10 * time.Millisecond
	var used time.Duration
	before, err := cpuTime(os.Getpid())
	for began := time.Now(); err == nil && used < much && time.Since(began) < 10*time.Second; {
		used, err = cpuTime(os.Getpid())
		used -= before
	}
	if err != nil || used < much || used > time.Second {
		t.Errorf("a busy process has used %v of CPU (%v)", used, err)
	}
}

// All modes, as little of each as there can be, with real processes. It says nothing about speed.
func TestSmoke(t *testing.T) {
	o, err := parseOptions([]string{"-sizes", "340", "-rounds", "1"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	o.quick = true
	o.modes, o.lasts = append(o.modes, glancesMode), 2*time.Second
	if o.cells, err = parseCells("340:10:15:10"); err != nil {
		t.Fatal(err)
	}
	if o.nats, err = os.Executable(); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	r := newReport(o)
	if err := measure(t.Context(), o, r, &said); err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	r.finish()
	var measured []string
	for _, x := range r.Rows {
		measured = append(measured, x.Measure)
		if v := float64(x.Measured); math.IsNaN(v) || math.IsInf(v, 0) ||
			!math.IsNaN(float64(x.Floor)) && !(x.Floor > 0) {
			t.Errorf("%+v", x)
		}
		if strings.HasSuffix(x.Measure, "too many or too few") && x.Measured != 0 {
			t.Errorf("%s: %v", x.Measure, x.Measured)
		}
	}
	if len(r.Glances) != 1 || len(r.Glances[0].Alone.all()) == 0 ||
		len(r.Glances[0].Glances.all()) == 0 {
		t.Errorf("of glances: %+v", r.Glances)
	}
	want := []string{
		"CPU of a sweep, static", "time of a sweep, static",
		"CPU of a sweep, drift", "time of a sweep, drift",
		"page read to event, p50", "page read to event, p99", "… one commit on an idle broker, p99",
		"first start", "first start, CPU an event", "mass change", "mass change, CPU an event",
		"restart after SIGTERM", "restart after SIGTERM, events too many or too few",
		"peak memory", "peak memory, first start",
	}
	if d := cmp.Diff(want, measured); d != "" {
		t.Errorf("measured (-want +got):\n%s", d)
	}
	if left, err := filepath.Glob(filepath.Join(tmp, "rollcall-bench-*")); err != nil ||
		len(left) > 0 {
		t.Errorf("left behind: %q (%v)", left, err)
	}
}
