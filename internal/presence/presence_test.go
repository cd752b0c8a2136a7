package presence

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rollcall-events/rollcall/internal/setting"
	"github.com/rollcall-events/rollcall/internal/test/hostile"
	"github.com/rollcall-events/rollcall/internal/test/yesterday"
	"github.com/rollcall-events/rollcall/schemas"
	"github.com/rollcall-events/rollcall/schemas/history"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A day is a world, and what is asked about it.
type day struct {
	*yesterday.World
	cfg Config
	out bytes.Buffer
}

// newDay is a day of three agents: two sign in and out, of a third one nobody had known before.
// From nine to ten the vendor can't be reached.
func newDay(t *testing.T) *day {
	d := &day{World: yesterday.New(t, 24*time.Hour)}
	on, off, of := yesterday.On, yesterday.Off, yesterday.Of
	name := func(s string) func(*schemas.Agent) {
		return func(a *schemas.Agent) { a.AgentName = &s }
	}
	d.Change(1, "0:00", of("10", "east", on, name("王芳")))
	d.Change(2, "0:00", of("2", "=1+1", off, name("\x1b[31mred\x1b[0m")))
	d.Swept("0:00")
	d.Change(2, "7:30", on)
	d.Swept("7:30")
	d.Change(2, "8:15", of("10", "=1+1"))
	d.Change(1, "8:30", off)
	d.Swept("9:00")
	d.Change(1, "10:00", on)
	d.Swept("10:00")
	d.Unobserved("9:00", "10:00", schemas.Unreachable)
	d.Change(3, "10:30", of("10", "west", on))
	d.Change(2, "11:00", nil)
	d.Swept("11:59:50")
	d.cfg = Config{Server: "the server", Zone: time.FixedZone("Here", 3600), Out: &d.out,
		Now: func() time.Time { return d.Now }}
	return d
}

// wrote is what was written since, and the error's text.
func (d *day) wrote(err error) string {
	defer d.out.Reset()
	s := d.out.String()
	if err != nil {
		s += "error: " + err.Error() + "\n"
	}
	return s
}

var update = flag.Bool("update", false, "write testdata")

// want compares what was written with a file of testdata.
func (d *day) want(what, got string) {
	d.Helper()
	file := filepath.Join("testdata", strings.ReplaceAll(what, " ", "-")+".txt")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			d.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		d.Fatal(err)
	}
	if got != string(want) {
		d.Errorf("%s:\n%s\nwant:\n%s", what, got, want)
	}
	for l := range strings.Lines(got) {
		if !hostile.Harmless(strings.TrimSuffix(l, "\n")) {
			d.Errorf("%s: not for a terminal: %+q", what, l)
		}
	}
}

func (d *day) roster(at string, q Which) string {
	if at != "" {
		q.At = yesterday.Clock(d, at)
	}
	return d.wrote(Roster(d.Context(), d.NC, d.cfg, q))
}

func (d *day) history(id int64, from, to string) string {
	return d.wrote(History(d.Context(), d.NC, d.cfg, id, d.window(from, to)))
}

func (d *day) report(from, to string, by By, types ...string) string {
	return d.wrote(Report(d.Context(), d.NC, d.cfg, d.window(from, to), by, types))
}

func (d *day) window(from, to string) (w Window) {
	w.From = yesterday.Clock(d, from)
	if to != "" {
		w.To = yesterday.Clock(d, to)
	}
	return w
}

func TestText(t *testing.T) {
	d := newDay(t)
	d.want("roster 8.20", d.roster("8:20", Which{}))
	d.want("roster 9.30", d.roster("9:30", Which{}))
	d.want("roster 11.59", d.roster("11:59", Which{Types: []string{"10"}, Online: true}))
	d.want("roster now", d.roster("", Which{}))
	d.want("history 1", d.history(1, "0:00", "11:59"))
	d.want("history 2", d.history(2, "7:00", ""))
	d.want("report by agent", d.report("0:00", "", ByAgent))
	d.want("report by type", d.report("6:00", "", ByType))
	d.want("report by area", d.report("6:00", "9:00", ByArea, "10"))
	d.want("report by hour", d.report("7:15", "10:45", ByHour))
	old := d.Now
	d.Now = old.Add(time.Hour)
	d.want("roster stale", d.roster("", Which{}))
	d.Now = old
	d.want("no agent", d.history(4, "0:00", ""))
	d.want("tomorrow", d.roster("13:00", Which{}))
	d.want("the wrong way", d.report("11:00", "10:00", ByAgent))
}

func TestBadConfig(t *testing.T) {
	d := newDay(t)
	var bad *setting.Error
	d.cfg.Tenant = 887
	if err := Roster(d.Context(), d.NC, d.cfg, Which{}); !errors.As(err, &bad) {
		t.Error(err)
	}
	d.cfg.Tenant, d.cfg.Stream = 886, "NOTHING"
	if err := Roster(d.Context(), d.NC, d.cfg, Which{}); !errors.As(err, &bad) ||
		bad.Field != "--stream" {
		t.Error(err)
	}
}

// What JSON and CSV say is what text says, to the millisecond.
func TestFormats(t *testing.T) {
	d := newDay(t)
	d.cfg.Format = JSON
	var roster struct {
		Trusted    bool
		Reason     string
		Unobserved []struct{ From, To time.Time }
		Agents     []struct {
			Subject string
			Data    struct {
				Online bool
				Since  time.Time
				Agent  schemas.Agent
			}
		}
	}
	decode := func(text string, into any) {
		t.Helper()
		text, _, _ = strings.Cut(text, "error: ")
		if err := json.Unmarshal([]byte(text), into); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
	}
	decode(d.roster("9:30", Which{}), &roster)
	if roster.Trusted || !strings.Contains(roster.Reason, "unreachable") ||
		len(roster.Unobserved) != 1 ||
		!roster.Unobserved[0].To.Equal(yesterday.Clock(t, "10:00")) ||
		len(roster.Agents) != 2 || roster.Agents[0].Subject != "1" ||
		roster.Agents[0].Data.Online || !roster.Agents[1].Data.Online ||
		*roster.Agents[0].Data.Agent.AgentName != "王芳" ||
		!roster.Agents[1].Data.Since.Equal(yesterday.Clock(t, "7:30")) {
		t.Errorf("%+v", roster)
	}
	decode(d.roster("", Which{Online: true}), &roster)
	if !roster.Trusted || len(roster.Agents) != 2 || roster.Agents[1].Subject != "3" {
		t.Errorf("%+v", roster)
	}
	var intervals struct {
		Intervals []struct {
			From, To, ToNotBefore time.Time
			Seconds               float64
			State                 history.State
			Unobserved            []struct{ Health string }
		}
		OnSeconds, OffSeconds, UnknownSeconds, LongestSeconds float64
		SignIns                                               int
	}
	decode(d.history(1, "8:00", "11:00"), &intervals)
	if n := len(intervals.Intervals); n != 4 || intervals.OnSeconds != 5400 ||
		intervals.OffSeconds != 1800 || intervals.UnknownSeconds != 3600 ||
		intervals.LongestSeconds != 3600 || intervals.SignIns != 1 ||
		intervals.Intervals[0].State != history.On || intervals.Intervals[0].Seconds != 1800 ||
		!intervals.Intervals[0].ToNotBefore.Equal(yesterday.Clock(t, "8:29:59")) ||
		intervals.Intervals[2].Unobserved[0].Health != "unreachable" {
		t.Errorf("%+v", intervals)
	}
	var report struct {
		Rows []struct {
			AgentID, Type                         string
			OnSeconds, OffSeconds, UnknownSeconds float64
			SignIns                               int
		}
		Total struct{ OnSeconds float64 }
	}
	decode(d.report("7:00", "11:59", ByAgent), &report)
	if len(report.Rows) != 3 || report.Rows[2].AgentID != "3" || report.Rows[2].Type != "10" {
		t.Errorf("%+v", report)
	}
	sum := 0.0
	for _, r := range report.Rows { // a row of an agent covers all of the time
		if r.OnSeconds+r.OffSeconds+r.UnknownSeconds != 4*3600+59*60 {
			t.Errorf("%+v", r)
		}
		sum += r.OnSeconds
	}
	if sum != report.Total.OnSeconds {
		t.Errorf("%+v", report)
	}
	d.cfg.Format = CSV
	rows, err := csv.NewReader(strings.NewReader(d.report("7:00", "11:59", ByAgent))).ReadAll()
	if err != nil || len(rows) != 4 || !slices.Equal(rows[2], []string{"2", `\x1b[31mred\x1b[0m`,
		"10", "'=1+1", "9000", "5340", "3600", "3600", "1", "5400"}) {
		t.Errorf("%q %v", rows, err)
	}
}

func TestHours(t *testing.T) {
	for zone, days := range map[string][]struct{ from, hours string }{
		"Europe/Berlin": {
			{"2026-10-25", "00+2 01+2 02+2 02+1 03+1"}, {"2026-03-29", "00+1 01+1 03+2 04+2"}},
		"Australia/Lord_Howe": {
			{"2026-04-05", "00+11 01+11 01+10 02+10 03+10"}, {"2026-10-04", "00+10 01+10 02+11"}},
		"Asia/Kolkata": {{"2026-11-22", "00+5 01+5 02+5"}},
	} {
		at, err := Zone(zone)
		if err != nil {
			t.Fatal(err)
		}
		for _, day := range days {
			begun, err := ParseTime(day.from, at)
			if err != nil {
				t.Fatal(err)
			}
			var hours []string
			for h := begun.Add(time.Minute); len(hours) < len(strings.Fields(day.hours)); {
				if !hourOf(h, at).Equal(hourOf(h.Add(time.Second), at)) {
					t.Errorf("%s %s: the hour of %s", zone, day.from, h)
				}
				hours = append(hours, strings.Replace(h.In(at).Format("15Z07"), "+0", "+", 1))
				h = nextHour(h, at)
			}
			if got := strings.Join(hours, " "); got != day.hours {
				t.Errorf("%s %s: %s, want %s", zone, day.from, got, day.hours)
			}
		}
	}
}

// A year of the vendor's example, 340 agents, is more than a time.Duration holds.
func TestManyYears(t *testing.T) {
	from := yesterday.Clock(t, "0:00")
	w := Window{from, from.AddDate(1, 0, 0)}
	for format, want := range map[Format]string{
		JSON: `"total":{"onSeconds":0,"offSeconds":10722240000,"unknownSeconds":0,`,
		CSV:  "\n10,0,10722240000,0,0,0,0\n",
		Text: "\ntotal             -      0.0         0        -  2978400h00m ",
	} {
		var out bytes.Buffer
		r := &report{source: &source{Config: &Config{Zone: time.UTC, Format: format, Out: &out}},
			Window: w, by: ByType, rows: map[key]*reportRow{}}
		for id := range int64(340) {
			r.add(&history.Interval{AgentID: id, From: w.From, To: w.To, State: history.Off,
				Listed: true, Type: "10"})
		}
		if err := r.write(); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("%v\n%s", err, out.String())
		}
	}
}

// No spreadsheet takes a text for a formula, Chinese ones neither.
func TestInert(t *testing.T) {
	for _, s := range []string{"=1+1", "+1", "-1", "@x", "＝1+1", "＋1", "－1", "＠x"} {
		if got := inert(s); got != "'"+s {
			t.Errorf("%q is %q", s, got)
		}
	}
	for _, s := range []string{"", "1=1", "华东", " "} {
		if got := inert(s); got != s {
			t.Errorf("%q is %q", s, got)
		}
	}
}
