package watch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/rollcall-events/rollcall/internal/plain"
	"github.com/rollcall-events/rollcall/internal/test/hostile"
	"github.com/rollcall-events/rollcall/schemas"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares with testdata/<name>.txt, where escape sequences are spelt out.
func golden(t *testing.T, name, got string) {
	t.Helper()
	got = strings.NewReplacer("\x1b", "␛", "\r", "␍").Replace(got)
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got):\n%s", path, d)
	}
}

var (
	zone = time.FixedZone("CST", 8*3600)
	noon = time.Date(2026, 11, 22, 12, 0, 0, 0, zone)
)

func ptr[T any](v T) *T { return &v }

// agent is one on duty for so long, as somebody lists it.
func agent(id int64, name, account, typ string, dutyFor time.Duration,
	edit ...func(*schemas.Event)) *schemas.Event {
	e := &schemas.Event{Type: schemas.Online, Time: noon.Add(-dutyFor), Data: schemas.EventData{
		Revision: 3, Reason: schemas.Status, Online: true, Since: noon.Add(-dutyFor),
		Agent: schemas.Agent{
			AgentID: id, TenantID: 886, OnlineStatus: 1, AgentName: &name, AgentAccount: &account,
			Type:     &typ,
			AreaName: ptr("华东"), Capacity: ptr(int64(id % 11))}}}
	for _, f := range edit {
		f(e)
	}
	return e
}

func offDuty(e *schemas.Event) {
	e.Type, e.Data.Online, e.Data.Agent.OnlineStatus = schemas.Offline, false, 0
}

func removed(e *schemas.Event) {
	offDuty(e)
	e.Data.Agent.OnlineStatus = 1 // as it was last seen
	e.Data.Reason = schemas.Removed
}

// staff are agents with names, accounts and other values of all kinds.
func staff() []*schemas.Event {
	return []*schemas.Event{
		agent(17813, "王建国", "jianguo.wang17813", "10", 3*time.Hour+4*time.Minute),
		agent(17814, "欧阳婷婷", "tingting.ouyang17814", "0", 40*time.Second, func(e *schemas.Event) {
			e.Data.Agent.AreaName = nil
		}),
		agent(17815, "李娜", "na.li17815", "2", 12*time.Minute, offDuty),
		agent(17816, "诸葛 Jean-Baptiste Emanuel de la Croix",
			"jean.baptiste.emanuel.zhuge.de.la.croix@contractors.example.com", "10", 25*time.Hour),
		agent(17817, "\x1b[2J\x1b[31m红\x07", "evil\u202elmth.exe\r\nroot", "1;\x9b",
			12*time.Minute),
		agent(17818, "Ann", "", "7", 7*time.Minute, func(e *schemas.Event) {
			e.Data.Agent.AreaName, e.Data.Agent.Capacity, e.Data.Agent.Type = ptr(""), nil, nil
		}),
		agent(17819, "高敏", "min.gao17819", "1", 2*time.Minute, removed),
		agent(9007199254740993, "一二三四五六七八九十一二三四五六", "x", "10", 90*time.Minute,
			func(e *schemas.Event) {
				e.Data.Agent.AreaName = ptr("粤港澳大湾区")
			}),
	}
}

func mark(sweep uint64, started time.Time) *schemas.Watermark {
	return &schemas.Watermark{TenantID: 886, Sweep: sweep, StartedAt: started,
		CompletedAt: started.Add(time.Second),
		StaleAfter:  started.Add(16 * time.Second), Agents: 340, Online: 52}
}

var ok = &schemas.Health{TenantID: 886, State: schemas.HealthOK, Since: noon.Add(-time.Hour)}

// screen makes a view that writes into a buffer, 0 columns: a pipe. The time is what clock points
// to.
func screen(clock *time.Time, columns int, edit ...func(*Config)) (*view, *bytes.Buffer) {
	var out bytes.Buffer
	cfg := &Config{Server: "nats://127.0.0.1:4222", Out: &out, Zone: zone, Now: func() time.Time {
		return *clock
	},
		Width: func() int { return columns }}
	for _, f := range edit {
		f(cfg)
	}
	return newView(cfg), &out
}

func live(c *Config)    { c.Live = true }
func colour(c *Config)  { c.Color = true }
func noTable(c *Config) { c.NoTable = true }

// shown is what the view has written since the last time, lines of the screen checked.
func written(t *testing.T, v *view, out *bytes.Buffer, columns int) string {
	t.Helper()
	v.checkStale()
	if err := v.flush(v.status()); err != nil {
		t.Fatal(err)
	}
	s := out.String()
	out.Reset()
	for _, l := range strings.FieldsFunc(s, func(c rune) bool { return c == '\n' || c == '\r' }) {
		for _, code := range []string{"\x1b[2K", "\x1b[0m"} {
			l = strings.ReplaceAll(l, code, "")
		}
		for _, code := range []string{bold, dim, good, warning, alarm, blue} {
			l = strings.ReplaceAll(l, "\x1b["+code+"m", "")
		}
		if !hostile.Harmless(l) {
			t.Errorf("not for a terminal: %+q", l)
		}
		if w := plain.Width(l); columns > 0 && w > columns && !strings.Contains(l, "STALE ") &&
			!strings.Contains(l, "FAILING") && !strings.Contains(l, "HOLDING") {
			t.Errorf("%d columns of %d: %s", w, columns, l)
		}
	}
	return s
}

func TestState(t *testing.T) {
	holding := &schemas.Health{TenantID: 886, State: schemas.HealthHolding,
		Reason: schemas.MissingMany, Since: noon.Add(-9 * time.Minute),
		Detail: "211 of 340 agents are missing; they are kept as they were until 12:06"}
	missing := mark(1807, noon.Add(-4*time.Second))
	missing.Missing, missing.Rejected = 211, 2
	failing := &schemas.Health{TenantID: 886, State: schemas.HealthFailing,
		Reason: schemas.Unreachable, Since: noon.Add(-25 * time.Hour),
		Detail: "Post https://isdp.example: \x1b[1mdial tcp: connection refused\nand more"}
	for _, c := range []struct {
		name    string
		columns int
		mark    *schemas.Watermark
		health  *schemas.Health
		edit    []func(*Config)
	}{
		{"duty-80", 80, mark(1807, noon.Add(-4*time.Second)), ok, nil},
		{"duty-120", 120, mark(1807, noon.Add(-4*time.Second)), ok, nil},
		{"duty-60", 60, mark(1807, noon.Add(-4*time.Second)), ok, nil},
		{"no-table", 80, mark(1807, noon.Add(-4*time.Second)), ok, []func(*Config){noTable}},
		{"duty-pipe", 0, mark(1807, noon.Add(-4*time.Second)), nil, nil},
		{"duty-terminal", 80, mark(1807, noon.Add(-4*time.Second)), ok,
			[]func(*Config){live, colour}},
		{"holding", 80, missing, holding, []func(*Config){live}},
		{"failing", 80, mark(0, time.Time{}), failing, []func(*Config){live, colour}},
		{"stale", 80, mark(1807, noon.Add(-3*time.Minute)), ok, []func(*Config){live, colour}},
		{"stale-pipe", 0, mark(1807, noon.Add(-3*time.Minute)), ok, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			now := noon
			v, out := screen(&now, c.columns, c.edit...)
			v.greet(886)
			v.reload(staff(), c.mark, c.health)
			golden(t, c.name, written(t, v, out, c.columns))
		})
	}
}

// Every line of the table has its columns where the titles are, whatever the values.
func TestAligned(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(hostile.Text, rapid.StringOf(rapid.RuneFrom([]rune("王芳欧阳abc "))))
		var agents []*schemas.Event
		for i := range rapid.IntRange(1, 5).Draw(t, "agents") {
			agents = append(agents, agent(int64(17813+i), text.Draw(t, "name"),
				text.Draw(t, "account"), text.Draw(t, "type"),
				time.Duration(rapid.IntRange(0, 1<<20).Draw(t, "for"))*time.Second))
		}
		lines := table(agents, noon)
		before, _, _ := strings.Cut(lines[0], "CAP")
		want := plain.Width(before + "CAP" + plain.Gap + "华东" + plain.Gap)
		for i, e := range agents {
			line := lines[1+i]
			if !hostile.Harmless(line) {
				t.Fatalf("not for a terminal: %+q", line)
			}
			cells := fmt.Sprintf(" %d%s华东%s", *e.Data.Agent.Capacity, plain.Gap, plain.Gap)
			at := strings.LastIndex(line, cells)
			if at < 0 || plain.Width(line[:at+len(cells)]) != want {
				t.Fatalf("not aligned:\n%s\n%s", lines[0], line)
			}
		}
	})
}

func TestDescribe(t *testing.T) {
	base := agent(17813, "王建国", "a", "10", time.Hour)
	next := func(rev uint64, edit func(*schemas.Event)) *schemas.Event {
		e := *base
		e.Data.Revision, e.Data.Reason = rev, schemas.Status
		e.Time = noon
		edit(&e)
		return &e
	}
	off := func(e *schemas.Event) {
		offDuty(e)
		e.Data.Since, e.Data.PreviousSince = noon, base.Data.Since
		e.Data.Changes = []schemas.Change{{Field: "onlineStatus", From: json.RawMessage("1"),
			To: json.RawMessage("0")},
			{Field: "lastUpdateTimestamp", From: json.RawMessage("1"), To: json.RawMessage("2")}}
	}
	fields := func(changes ...schemas.Change) func(*schemas.Event) {
		return func(e *schemas.Event) {
			e.Type, e.Data.Reason, e.Data.Changes = schemas.Updated, schemas.Fields, changes
		}
	}
	area := schemas.Change{Field: "areaName", From: json.RawMessage(`"华东"`),
		To: json.RawMessage(`"华\u202e南\u001b"`)}
	for _, c := range []struct {
		name   string
		before *schemas.Event
		e      *schemas.Event
		want   [2]string
	}{
		{"signs out", base, next(4, off), [2]string{"offline", "was online for 1h00m"}},
		{"signs out, an event alone", nil, next(4, off),
			[2]string{"offline", "was online for 1h00m"}},
		{"and something else", base,
			next(4, func(e *schemas.Event) {
				off(e)
				e.Data.Changes = append(e.Data.Changes,
					area)
			}),
			[2]string{"offline", `was online for 1h00m, areaName 华东 → 华\u202e南\x1b`}},
		{"fields", base, next(4, fields(area, schemas.Change{Field: "agentSignInTime",
			To: json.RawMessage("5")},
			schemas.Change{Field: "capacity", From: json.RawMessage("1")},
			schemas.Change{Field: "type", From: json.RawMessage(`"10"`),
				To: json.RawMessage(`"2"`)})),
			[2]string{"updated",
				`areaName 华东 → 华\u202e南\x1b, capacity 1 → (none), type video call → patrol`}},
		{"usually quiet fields alone", base, next(4, fields(schemas.Change{Field: "x\ny",
			From: json.RawMessage(`""`), To: json.RawMessage(`{"a":1}`)})),
			[2]string{"updated", `x\ny "" → {"a":1}`}},
		{"a long value", base, next(4, fields(schemas.Change{Field: "createName",
			To: json.RawMessage(`"` + strings.Repeat("长", 100) + `"`)})),
			[2]string{"updated", "createName (none) → " + strings.Repeat("长", 19) + "…"}},
		{"leaves", base, next(4, func(e *schemas.Event) {
			removed(e)
			e.Data.Since, e.Data.PreviousSince = noon, base.Data.Since
		}), [2]string{"offline", "left the listing, was online for 1h00m"}},
		{"is deleted off duty", nil, next(4, func(e *schemas.Event) {
			removed(e)
			e.Type, e.Data.Agent.DeleteFlag = schemas.Updated, ptr(int64(1))
		}), [2]string{"updated", "was deleted"}},
		{"baseline", nil, next(1, func(e *schemas.Event) { e.Data.Reason = schemas.Baseline }),
			[2]string{"online", "first seen"}},
		{"new", nil, next(1, func(e *schemas.Event) { e.Data.Reason = schemas.Appeared }),
			[2]string{"online", "new in the listing"}},
		{"back", nil, next(7, func(e *schemas.Event) { e.Data.Reason = schemas.Appeared }),
			[2]string{"online", "back in the listing"}},
		{"a reason of another day", base, next(4, func(e *schemas.Event) {
			e.Type, e.Data.Reason = schemas.Updated, "transfer\x07red"
		}),
			[2]string{"updated", `transfer\x07red`}},
		// Not every revision was shown: the last event alone would mislead.
		{"out and edited", base, next(6, func(e *schemas.Event) {
			off(e)
			fields(area)(e)
			e.Data.Agent.AreaName = ptr("华南")
		}), [2]string{"offline", "was online, areaName 华东 → 华南, 2 changes in between"}},
		{"out and in again", base, next(5, func(e *schemas.Event) {}),
			[2]string{"updated", "1 change in between"}},
		{"a log that went back", next(9, func(*schemas.Event) {}), next(2, off),
			[2]string{"offline", "onlineStatus"}},
	} {
		kind, text := describe(c.before, c.e)
		got := [2]string{kind, text}
		if c.name == "a log that went back" {
			if kind != "offline" {
				t.Errorf("%s: %+v", c.name, got)
			}
			continue
		}
		if got != c.want {
			t.Errorf("%s:\n got %+v\nwant %+v", c.name, got, c.want)
		}
	}
}

// timeline is what happens to a view, in the order of the stream.
func timeline(v *view, now *time.Time) {
	people := staff()
	v.greet(886)
	v.reload(people[:4], mark(1807, noon.Add(-4*time.Second)), ok)
	at := func(d time.Duration) time.Time { *now = noon.Add(d); return *now }
	step := func(e *schemas.Event, edit ...func(*schemas.Event)) {
		n := *e
		n.Data.Revision++
		n.Time, n.Data.PreviousSince, n.Data.Since = *now, e.Data.Since, *now
		for _, f := range edit {
			f(&n)
		}
		v.state(&n)
	}
	at(time.Second)
	step(people[0], offDuty)
	v.setWatermark(mark(1808, noon.Add(time.Second)))
	at(2 * time.Second)
	step(people[2], func(e *schemas.Event) {
		e.Type, e.Data.Online, e.Data.Agent.OnlineStatus = schemas.Online, true, 1
	})
	step(people[3], removed)
	step(people[4], func(e *schemas.Event) { e.Data.Reason, e.Data.Revision = schemas.Appeared, 1 })
	step(people[1], func(e *schemas.Event) {
		e.Type, e.Data.Reason, e.Data.Since = schemas.Updated, schemas.Fields, people[1].Data.Since
		e.Data.Agent.Type, e.Data.Agent.AreaName = ptr("10"), ptr("华北")
		e.Data.Changes = schemas.Changes(&people[1].Data.Agent, &e.Data.Agent)
	})
	at(8 * time.Second)
	v.setHealth(&schemas.Health{TenantID: 886, State: schemas.HealthFailing,
		Reason: schemas.Credentials, Since: at(8 * time.Second), Detail: "refused"})
	at(9 * time.Second)
	v.setHealth(&schemas.Health{TenantID: 886, State: schemas.HealthOK, Since: *now})
	at(10 * time.Second)
	v.lose("no connection to NATS")
	v.lose("no connection to NATS")
	v.lose("JetStream does not answer")
	at(13*time.Hour + 10*time.Second) // the next day; Anew brings what happened meanwhile
	after := []*schemas.Event{people[1], people[2]}
	for i, e := range after {
		n := *e
		n.Data.Revision += 4
		n.Time = *now
		offDuty(&n)
		after[i] = &n
	}
	v.reload(after, mark(1810, *now), v.health)
	v.bad(errors.New("message 7 (agent.state.886.1\x1b) can't be used"))
}

func TestTimeline(t *testing.T) {
	for _, c := range []struct {
		name    string
		columns int
		edit    []func(*Config)
	}{
		{"timeline-80", 80, nil},
		{"timeline-pipe", 0, nil},
		{"timeline-terminal", 80, []func(*Config){live, colour}},
	} {
		t.Run(c.name, func(t *testing.T) {
			now := noon
			v, out := screen(&now, c.columns, c.edit...)
			timeline(v, &now)
			golden(t, c.name, written(t, v, out, c.columns))
		})
	}
}

// A stream that has begun, but not with a whole listing.
func TestBeforeTheFirstSweep(t *testing.T) {
	now := noon
	v, out := screen(&now, 80, live)
	v.greet(886)
	v.reload(staff()[:2], mark(0, time.Time{}), nil)
	v.state(staff()[2])
	v.setWatermark(mark(0, time.Time{}))
	got := written(t, v, out, 80)
	if strings.Contains(got, "17813") || strings.Count(got, "WAITING") != 1 {
		t.Errorf("before the first sweep: %s", got)
	}
	v.setWatermark(mark(1, noon))
	if got := written(t, v, out, 80); !strings.Contains(got, "17813") ||
		!strings.Contains(got, "52 of 340 agents on duty, as of 12:00:00 (0s ago)") {
		t.Errorf("after the first sweep: %s", got)
	}
	// The vendor may be away for long: what is there is shown then.
	v, out = screen(&now, 80)
	v.reload(staff()[:2], mark(0, time.Time{}), nil)
	written(t, v, out, 80)
	v.setHealth(&schemas.Health{State: schemas.HealthFailing, Reason: schemas.Unreachable,
		Since: noon})
	if got := written(t, v, out, 80); !strings.Contains(got, "17813") ||
		!strings.Contains(got, "has never been read") || !strings.Contains(got, "FAILING") {
		t.Errorf("failing from the beginning: %s", got)
	}
}

// A stream that was replaced by one without a complete sweep makes nothing fresh.
func TestNoSweepIsNotFresh(t *testing.T) {
	now := noon
	v, out := screen(&now, 80)
	v.reload(staff()[:1], mark(7, noon), ok)
	written(t, v, out, 80)
	now = noon.Add(time.Minute)
	v.checkStale()
	v.setWatermark(mark(0, time.Time{}))
	if got := written(t, v, out, 80); strings.Contains(got, "FRESH") ||
		strings.Count(got, "STALE") != 1 {
		t.Error(got)
	}
	v.setWatermark(mark(1, now))
	v.checkStale()
	v.setWatermark(mark(0, time.Time{}))
	if got := written(t, v, out,
		80); got != "12:01:00  FRESH    as of 12:01:00 (0s ago)\n12:01:00  STALE    the stream "+
		"knows of no complete sweep\n" {
		t.Error(got)
	}
}

// Where a sweep takes long, the next watermark is due long before the next sweep.
func TestNoWatermarkIsStale(t *testing.T) {
	now := noon
	v, out := screen(&now, 80, live)
	w := mark(7, noon.Add(-3*time.Minute))
	w.StaleAfter, w.NextBy = noon.Add(7*time.Minute), noon.Add(15*time.Second)
	w.GlancedAt = noon.Add(-20 * time.Second)
	v.reload(staff()[:1], w, ok)
	says := func(want string) {
		t.Helper()
		if got := written(t, v, out, 80); !strings.Contains(got, want) {
			t.Errorf("want %q:\n%s", want, got)
		}
	}
	says("agents on duty, as of 11:57:00 (3m00s ago), glanced 20s ago\n")
	now = now.Add(time.Second)
	says(" fresh, 3m01s old | glanced 21s ago | 52 of 340")
	now = noon.Add(15 * time.Second)
	if got := written(t, v, out, 80); strings.Contains(got, "STALE") {
		t.Error(got)
	}
	now = now.Add(time.Millisecond)
	says("STALE    as of 11:57:00 (3m15s ago), glanced 35s ago; a newer one was due at 12:00:15\n")
	later := *w
	later.NextBy, later.GlancedAt = now.Add(15*time.Second), noon.Add(-4*time.Minute)
	v.setWatermark(&later)
	says("FRESH    as of 11:57:00 (3m15s ago)\n")
}

// Staleness comes with time, not with messages.
func TestStaleWithTime(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*Config)
	}{{"time-pipe", func(*Config) {}}, {"time-terminal", live}} {
		synctest.Test(t, func(t *testing.T) {
			var out bytes.Buffer
			cfg := &Config{Server: "nats://127.0.0.1:4222", Out: &out, Zone: zone, Now: time.Now,
				Width: func() int { return 100 }}
			c.edit(cfg)
			ctx, cancel := context.WithCancel(t.Context())
			err := newView(cfg).run(ctx, func(ctx context.Context, do do) error {
				start := time.Now()
				do(func(v *view) {
					v.greet(886)
					v.reload([]*schemas.Event{agent(17813, "王建国", "a", "10", 0,
						func(e *schemas.Event) { e.Data.Since = start })}, mark(1, start), ok)
				})
				time.Sleep(20*time.Second + 500*time.Millisecond)
				do(func(v *view) { v.setWatermark(mark(2, time.Now())) })
				time.Sleep(2 * time.Second)
				cancel()
				return ctx.Err()
			})
			if err != nil {
				t.Error(err)
			}
			golden(t, c.name, strings.ReplaceAll(out.String(), "\r", "\n"))
		})
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// A pipe that nobody reads any more is a good end; a disk that is full is not.
func TestUnwritable(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{&os.PathError{Op: "write", Path: "|1", Err: syscall.EPIPE}, ""},
		{&os.PathError{Op: "write", Path: "/dev/stdout", Err: syscall.ENOSPC}, "no space left"},
	} {
		synctest.Test(t, func(t *testing.T) {
			cfg := &Config{Out: failing{c.err}, Zone: zone, Now: time.Now}
			err := newView(cfg).run(t.Context(), func(ctx context.Context, do do) error {
				do(func(v *view) { v.greet(886) })
				<-ctx.Done()
				return fmt.Errorf("reading: %w", ctx.Err())
			})
			if got := fmt.Sprint(err); c.want == "" && err != nil ||
				!strings.Contains(got, c.want) {
				t.Errorf("%v: %v", c.err, err)
			}
		})
	}
}

func ofTypes(types ...string) func(*Config) { return func(c *Config) { c.Types = types } }

// With types, only their agents are shown and counted, whatever the others do.
func TestTypes(t *testing.T) {
	now := noon
	v, out := screen(&now, 80, live, ofTypes("10", "0"))
	v.greet(886)
	v.reload(staff(), mark(7, noon), ok)
	golden(t, "types", written(t, v, out, 80))

	step := func(e *schemas.Event, want ...string) {
		t.Helper()
		v.state(e)
		got := written(t, v, out, 80)
		for _, want := range want {
			if !strings.Contains(got, want) {
				t.Errorf("want %q:\n%s", want, got)
			}
		}
		if len(want) == 0 && got != "" {
			t.Errorf("what is not of these types is shown: %q", got)
		}
	}
	next := func(id int64, typ string, edit ...func(*schemas.Event)) *schemas.Event {
		e := agent(id, "王建国", "a", typ, 0, edit...)
		e.Data.Revision = 4
		return e
	}
	step(next(17815, "2"))
	step(next(17813, "10", offDuty), "offline  17813", " 3 of 4 on duty | video call, safety | ")
	step(next(17815, "10"), "type patrol → video call", " 4 of 5 on duty | ")
	left := next(17815, "2")
	left.Data.Revision = 6
	step(left, "type video call → patrol", " 3 of 4 on duty | ")
	step(next(17814, "0", removed), "left the listing", " 2 of 3 on duty | ")
	step(next(17819, "1", removed))

	// The same after an interruption: nobody counts twice.
	v.reload(staff(), mark(8, noon), ok)
	if got := written(t, v, out, 80); !strings.Contains(got, " 4 of 4 on duty | ") {
		t.Error(got)
	}
}

// A type that nobody has does not look like one of which nobody is on duty, and one that nobody
// looks at does not look fresh.
func TestTypesWithoutAgents(t *testing.T) {
	now := noon
	view := func(w *schemas.Watermark, types ...string) (*view, string) {
		v, out := screen(&now, 0, live, ofTypes(types...))
		v.reload(staff(), w, ok)
		return v, written(t, v, out, 0)
	}
	has := "; the stream has video call (10), _, safety (0), patrol (2)\n"
	if v, got := view(mark(7, noon), "1", "10", "33"); v.unusable != nil ||
		!strings.Contains(got, "NOBODY   no agent is of type quality, 33"+has) {
		t.Errorf("numbers: %v: %s", v.unusable, got)
	}
	if v, got := view(mark(7, noon), "2", "_"); v.unusable != nil ||
		strings.Contains(got, "NOBODY") {
		t.Errorf("types that are there: %v: %s", v.unusable, got)
	}
	v, got := view(mark(7, noon), "VIP")
	want := `--type is "VIP": want a name, or a type that an agent has` +
		strings.TrimSuffix(strings.Replace(has, ";", ":", 1), "\n")
	if fmt.Sprint(v.unusable) != want || v.begun {
		t.Errorf("a word: %v, want %s: %s", v.unusable, want, got)
	}
	// Before the first complete sweep nobody knows which types there are.
	if v, _ := view(mark(0, time.Time{}), "VIP"); v.unusable != nil {
		t.Error(v.unusable)
	}

	w := mark(7, noon)
	w.Polled = []string{"0", "10\x1b"}
	if _, got := view(w, "0", "_"); strings.Contains(got, "STALE") {
		t.Error(got)
	}
	v, got = view(w, "0", "2")
	for _, want := range []string{"STALE    rollcall does not poll patrol, only safety, 10\\x1b: " +
		"its agents stay as they were last seen\n", " STALE, not polled: patrol | 1 of 2 on duty"} {
		if !strings.Contains(got, want) {
			t.Errorf("want %q:\n%s", want, got)
		}
	}
	v.setWatermark(mark(8, noon))
	v.checkStale()
	if s := v.out.String() + v.status(); !strings.Contains(s, "FRESH") ||
		strings.Contains(s, "STALE") {
		t.Error(s)
	}
}
