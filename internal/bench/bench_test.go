package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/rollcall-events/rollcall/internal/tenantsim"
)

// This binary is also the processes that bench starts, but for rollcall: its own ones, and the
// nats-server, which saves building one.
func TestMain(m *testing.M) {
	if os.Getenv(roleVariable) != "" {
		main()
		return
	}
	if len(os.Args) == 3 && os.Args[1] == "-c" {
		if err := serveNATS(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func serveNATS(config string) error {
	o, err := server.ProcessConfigFile(config)
	if err != nil {
		return err
	}
	s, err := server.NewServer(o)
	if err != nil {
		return err
	}
	s.ConfigureLogger()
	s.Start()
	s.WaitForShutdown()
	return nil
}

func TestMedianAndPercentile(t *testing.T) {
	for _, c := range []struct {
		v                []float64
		median, p50, p99 float64
	}{
		{nil, math.NaN(), math.NaN(), math.NaN()},
		{[]float64{7}, 7, 7, 7},
		{[]float64{9, 1, 5}, 5, 5, 9},
		{[]float64{4, 1, 3, 2}, 2.5, 2, 4},
	} {
		before := slices.Clone(c.v)
		got := []float64{median(c.v), percentile(c.v, 0.5), percentile(c.v, 0.99)}
		if d := cmp.Diff([]float64{c.median, c.p50, c.p99}, got, cmpopts.EquateNaNs()); d != "" {
			t.Errorf("%v:\n%s", c.v, d)
		}
		if !slices.Equal(before, c.v) {
			t.Errorf("%v has been sorted in place", before)
		}
	}
	hundred := make([]float64, 200)
	for i := range hundred {
		hundred[i] = float64(200 - i)
	}
	if got := percentile(hundred, 0.99); got != 198 {
		t.Errorf("p99 of 1 to 200 is %v, want 198", got)
	}
}

func TestTarget(t *testing.T) {
	for _, c := range []struct {
		target          target
		measured, floor float64
		met             bool
		text            string
	}{
		{target{limit: 1.3}, 13, 10, true, "≤ 1.30"},
		{target{limit: 1.3}, 13.1, 10, false, "≤ 1.30"},
		{target{limit: 0.85, least: true}, 85, 100, true, "≥ 0.85"},
		{target{limit: 0.85, least: true}, 84, 100, false, "≥ 0.85"},
		{target{limit: 20, absolute: true}, 20, 1, true, "≤ 20"},
		{target{limit: 20, absolute: true}, 21, math.NaN(), false, "≤ 20"},
		{target{limit: 2}, 1, math.NaN(), false, "≤ 2"},
		{target{limit: 0.85, least: true}, 1, math.NaN(), false, "≥ 0.85"},
	} {
		r := row{
			Measured: figure(c.measured),
			Floor:    figure(c.floor),
			Ratio:    figure(c.measured / c.floor),
		}
		if got := c.target.met(r); got != c.met {
			t.Errorf("%v of %v to %v: %v", c.target, c.measured, c.floor, got)
		}
		if got := c.target.String(); got != c.text {
			t.Errorf("%+v reads %q, want %q", c.target, got, c.text)
		}
	}
}

// Rows are made of the medians of what was measured, at each size those with a target that the size
// has.
func TestRows(t *testing.T) {
	r := newReport(options{sizes: []int{340, 10_000, 100_000}, rounds: 3})
	for _, c := range []struct {
		agents int
		name   string
		values []float64
	}{
		{340, "static.cpu", []float64{4, 1, 2}}, {340, "static.client.cpu", []float64{1, 1, 9}},
		{10_000, "static.cpu", []float64{12}}, {10_000, "static.client.cpu", []float64{10}},
		{100_000, "static.cpu", []float64{201}}, {100_000, "static.client.cpu", []float64{100}},
		{10_000, "peak.start", []float64{40e6}}, {10_000, "peak.mass", []float64{50e6}},
		{100_000, "peak.static", []float64{201e6}},
		{100_000, "restart.kill", []float64{7000}},
		{100_000, "restart.kill.floor", []float64{1000}},
		{100_000, "restart.kill.events", []float64{0, -1, 0}},
		{10_000, "mass.rate", []float64{9000}}, {10_000, "floor.mass.rate", []float64{10_000}},
		{10_000, "mass.cpu", []float64{61}},
		{10_000, "churn.p99", []float64{8}}, {10_000, "churn.commit", []float64{2}},
		{10_000, "paced.p99", []float64{12}}, {10_000, "paced.commit", []float64{2}},
	} {
		for _, v := range c.values {
			r.add(c.agents, c.name, v)
		}
	}
	r.finish()
	type brief struct {
		measure  string
		agents   int
		measured float64
		ratio    float64
		target   string
		ok       string
	}
	var got []brief
	for _, x := range r.Rows {
		b := brief{
			x.Measure,
			x.Agents,
			math.Round(100*float64(x.Measured)) / 100,
			math.Round(100*float64(x.Ratio)) / 100,
			x.Target,
			"",
		}
		if x.OK != nil {
			b.ok = strconv.FormatBool(*x.OK)
		}
		got = append(got, b)
	}
	none := math.NaN()
	want := []brief{
		{"CPU of a sweep, static", 340, 2, 2, "", ""},
		{"CPU of a sweep, static", 10_000, 12, 1.2, "", ""},
		{"CPU of one more agent in a sweep, static, from 340", 10_000, 1.04, 1.11, "", ""},
		{"page read to event, p99", 10_000, 8, 4, "", ""},
		{"page read to event, a sweep of 2 s, p99", 10_000, 12, 6, "≤ 6", "true"},
		{"mass change", 10_000, 9000, 0.9, "≥ 0.75", "true"},
		{"mass change, CPU an event", 10_000, 61, none, "≤ 60", "false"},
		{"CPU of a sweep, static", 100_000, 201, 2.01, "", ""},
		{"CPU of a sweep, an agent, static", 100_000, 2.01, 2.01, "≤ 2", "false"},
		{"CPU of one more agent in a sweep, static, from 10000", 100_000, 2.1, 2.1, "", ""},
		{"restart after SIGKILL, beyond the lease's 5s", 100_000, 2000, 2, "≤ 4", "true"},
		{
			"restart after SIGKILL, beyond the lease's 5s, events too many or too few",
			100_000,
			1,
			none,
			"≤ 0",
			"false",
		},
		{"peak memory", 10_000, 50, none, "", ""},
		{"peak memory, first start", 10_000, 40, none, "", ""},
		{"peak memory", 100_000, 201, none, "≤ 200", "false"},
		{"peak memory of one more agent, from 10000", 100_000, 1677.78, none, "≤ 2500", "true"},
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(brief{}), cmpopts.EquateNaNs()); d != "" {
		t.Errorf("rows (-want +got):\n%s", d)
	}

	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(b, []byte(`"floor":null`)) ||
		!bytes.Contains(b, []byte(`"340 static.cpu":[4,1,2]`)) {
		t.Errorf("neither a missing floor as null nor the samples: %s", b)
	}
	var table strings.Builder
	if err := r.write(&table); err != nil {
		t.Fatal(err)
	}
	blanks := strings.Repeat(" ", 50)
	for _, line := range []string{
		"| CPU of a sweep, static " + blanks +
			"| 340    | 2 ms          | 1     | 2     |        |        |\n",
		"| mass change, CPU an event " + blanks[3:] +
			"| 10000  | 61 µs         | –     | –     | ≤ 60   | MISSED |\n",
	} {
		if !strings.Contains(table.String(), line) {
			t.Errorf("no line %q in:\n%s", line, table.String())
		}
	}
}

func TestOptions(t *testing.T) {
	o, err := parseOptions(
		[]string{"-sizes", "10000, 340,340", "-modes", "drift,mass", "-rounds", "5"},
		io.Discard,
	)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(o.sizes, []int{340, 10_000}) ||
		!slices.Equal(o.modes, []string{"drift", "mass"}) ||
		o.rounds != 5 {
		t.Errorf("options %+v", o)
	}
	for _, args := range [][]string{
		{"-sizes", "0"}, {"-sizes", "x"}, {"-modes", "fast"}, {"-rounds", "0"}, {"340"},
	} {
		if _, err := parseOptions(args, io.Discard); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
}

func TestMatch(t *testing.T) {
	at := func(ms int64) time.Time { return time.Unix(0, ms*1e6) }
	got, err := match(
		[]shown{{1, 10e6}, {2, 20e6}, {1, 30e6}},
		map[int64][]time.Time{1: {at(12), at(37)}, 2: {at(23)}},
	)
	if d := cmp.Diff([]float64{2, 3, 7}, got); err != nil || d != "" {
		t.Errorf("%v\n%s", err, d)
	}
	if _, err := match([]shown{{1, 10e6}}, nil); err == nil {
		t.Error("an event that never came is not missed")
	}
	if _, err := match(nil, map[int64][]time.Time{1: {at(1)}}); err == nil {
		t.Error("an event of nothing is not noticed")
	}
}

// A listing answers with rows that are whole, and changes what it says it does.
func TestListing(t *testing.T) {
	l, err := newListing(120)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(l)
	defer srv.Close()
	r, err := newClient(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	type agent struct {
		AgentID             int64 `json:"agentId"`
		OnlineStatus        int   `json:"onlineStatus"`
		AgentSignInDate     int64 `json:"agentSignInDate"`
		LastUpdateTimestamp int64 `json:"lastUpdateTimestamp"`
	}
	bytesRead := 0
	read := func() []agent {
		t.Helper()
		var all []agent
		bytesRead = 0
		for n := range 4 {
			body, err := r.post(
				tenantsim.AgentsPath,
				`{"pageStart":`+strconv.Itoa(n)+`,"pageSize":50}`,
			)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(body)
			if err != nil {
				t.Fatal(err)
			}
			var a struct {
				Result struct {
					Pos   int     `json:"pos"`
					Total int     `json:"total_count"`
					Data  []agent `json:"data"`
				} `json:"result"`
			}
			if err := json.Unmarshal(b, &a); err != nil || a.Result.Pos != n ||
				a.Result.Total != 120 {
				t.Fatalf("page %d: %v\n%s", n, err, b)
			}
			bytesRead += len(b)
			all = append(all, a.Result.Data...)
		}
		return all
	}
	before := read()
	if len(before) != 120 || bytesRead/120 < 600 || bytesRead/120 > 900 {
		t.Fatalf("%d agents of %d bytes", len(before), bytesRead/120)
	}
	if d := cmp.Diff(before, read()); d != "" {
		t.Errorf("it does not stand still:\n%s", d)
	}

	ten := &tenant{url: srv.URL}
	ask := ten.ask
	ask("drift?n=1", nil)
	once := read()
	for i, a := range read() {
		if a.OnlineStatus != before[i].OnlineStatus ||
			(a.AgentSignInDate > once[i].AgentSignInDate) != (a.OnlineStatus == 1) {
			t.Fatalf("drift: %+v became %+v", once[i], a)
		}
	}
	ask("drift?n=0", nil)

	var flipped []int64
	ask("flip?n=3", &flipped)
	var news []shown
	ask("shown", &news)
	if len(flipped) != 3 || len(news) != 0 {
		t.Fatalf("%d flipped, %d shown before anybody looked", len(flipped), len(news))
	}
	changed := 0
	for i, a := range read() {
		is := slices.Contains(flipped, a.AgentID)
		if (a.OnlineStatus != before[i].OnlineStatus) != is ||
			(a.LastUpdateTimestamp != before[i].LastUpdateTimestamp) != is {
			t.Errorf("flip: %+v became %+v", before[i], a)
		} else if is {
			changed++
		}
	}
	read()
	if ask("shown", &news); changed != 3 || len(news) != 3 {
		t.Errorf("%d changed, %d shown", changed, len(news))
	}
	for _, s := range news {
		if !slices.Contains(flipped, s.Agent) {
			t.Errorf("%+v was shown", s)
		}
	}

	var online, after int
	var first int64
	ask("online", &online)
	ask("mark", nil)
	if ask("first", &first); first != 0 {
		t.Error("a page was answered since the mark")
	}
	ask("flipall", nil)
	if ask("online", &after); after != 120-online {
		t.Errorf("of 120, %d were online, and then %d", online, after)
	}
	read()
	if ask("first", &first); first == 0 {
		t.Error("no page was answered since the mark")
	}

	for _, c := range []struct {
		body, token string
		status      int
	}{
		{`{"pageStart":0,"pageSize":50}`, "", http.StatusUnauthorized},
		{`{"pageStart":0,"pageSize":25}`, r.token, http.StatusBadRequest},
	} {
		req, _ := http.NewRequest(
			http.MethodPost,
			srv.URL+tenantsim.AgentsPath,
			strings.NewReader(c.body),
		)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "bearer "+c.token)
		resp, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != c.status {
			t.Errorf("%+v: HTTP %d", c, resp.StatusCode)
		}
	}
}
