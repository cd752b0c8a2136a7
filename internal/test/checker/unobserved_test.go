package checker

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/rollcall-events/rollcall/schemas"
)

// A mark is a watermark of an empty tenant, in seconds, with what else is in its commit.
type mark struct {
	sweep              uint64
	started, completed float64 // of the sweep; the first time also the staleAfter 6 s later
	formed, stored     float64 // nextBy is 15 s after it was formed
	inProgress         uint64
	polled             []string
	health             schemas.HealthReason // "ok" ends it
	said               []schemas.Unobserved // From and To are set by at
	instance           string
	lost               bool // not recorded, and no longer stored
}

var dawn = time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time {
	return dawn.Add(time.Duration(seconds * float64(time.Second))).Truncate(time.Millisecond)
}

// sweep is a complete sweep of a second, whose watermark is stored at once.
func sweep(n uint64, started float64, said ...schemas.Unobserved) mark {
	return mark{sweep: n, started: started, completed: started + 1, formed: started + 1,
		stored: started + 1.01, said: said}
}

// again repeats a complete sweep later.
func (m mark) again(formed float64) mark {
	m.formed, m.stored, m.said, m.inProgress = formed, formed+.01, nil, m.sweep+1
	return m
}

// late is a watermark that waited for the broker.
func (m mark) late(formed, stored float64) mark {
	m.formed, m.stored = formed, stored
	return m
}

func (m mark) of(types ...string) mark {
	m.polled = types
	return m
}

func (m mark) says(health schemas.HealthReason) mark {
	m.health = health
	return m
}

func (m mark) missed() mark {
	m.lost = true
	return m
}

func (m mark) by(instance string) mark {
	m.instance = instance
	return m
}

// gap is an unobserved interval that a sweep ended.
func gap(from, to float64, sweep uint64, health schemas.HealthReason,
	types ...string) schemas.Unobserved {
	return schemas.Unobserved{TenantID: tenant, From: at(from), To: at(to), Sweep: sweep,
		Health: health, Types: types}
}

func streamOf(marks []mark) (live []Message) {
	seq := uint64(0)
	for i, m := range marks {
		w := schemas.Watermark{TenantID: tenant, Sweep: m.sweep, Polled: m.polled,
			NextBy: at(m.formed + 15), Instance: "test-1"}
		if m.instance != "" {
			w.Instance = m.instance
		}
		if m.sweep != 0 {
			w.StartedAt, w.CompletedAt, w.StaleAfter = at(m.started), at(m.completed),
				at(m.completed+6)
		}
		if m.inProgress != 0 {
			w.InProgress = &schemas.InProgress{Sweep: m.inProgress}
		}
		var out []Message
		for _, u := range m.said {
			out = append(out, Message{Subject: schemas.UnobservedSubject(tenant),
				Body: u.AppendJSON(nil), Header: map[string][]string{"Nats-TTL": {"168h"}}})
		}
		if m.health != "" {
			h := schemas.Health{TenantID: tenant, State: schemas.HealthFailing, Reason: m.health,
				Since: at(m.formed)}
			if m.health == "ok" {
				h.State, h.Reason = schemas.HealthOK, ""
			}
			out = append(out, Message{Subject: schemas.HealthSubject(tenant),
				Body: h.AppendJSON(nil), Header: map[string][]string{}})
		}
		w.Commit = schemas.Commit{ID: fmt.Sprint(i), Messages: len(out) + 1}
		out = append(out, Message{Subject: schemas.WatermarkSubject(tenant),
			Body: w.AppendJSON(nil), Header: map[string][]string{}})
		for place, msg := range out {
			seq++
			msg.Seq, msg.Time = seq, at(m.stored)
			msg.Header["Content-Type"] = []string{schemas.ContentTypeJSON}
			if len(out) > 1 {
				msg.Header["Nats-Batch-Id"] = []string{w.Commit.ID}
				msg.Header["Nats-Batch-Sequence"] = []string{fmt.Sprint(place + 1)}
			}
			if !m.lost {
				live = append(live, msg)
			}
		}
	}
	return live
}

// What readers could not trust is said once, where it ended, and nothing else is.
func TestIntervals(t *testing.T) {
	one, down := sweep(1, 0), schemas.Unreachable
	for _, tc := range []struct {
		name  string
		good  bool
		marks []mark
	}{
		{"sweeps in time", true, []mark{one, sweep(2, 5), sweep(3, 10)}},
		{"staleAfter passed", true, []mark{one, sweep(2, 7, gap(0, 7, 2, ""))}},
		{"staleAfter passed, unsaid", false, []mark{one, sweep(2, 7)}},
		{"just not", true, []mark{one, sweep(2, 5.9)}},
		{"just not, said", false, []mark{one, sweep(2, 5.9, gap(0, 5.9, 2, ""))}},
		{"watermarks in between put off nextBy, not staleAfter", false,
			[]mark{one, one.again(4), one.again(8), sweep(2, 10)}},
		{"watermarks in between put off nextBy, not staleAfter, as is said", true,
			[]mark{one, one.again(4), one.again(8), sweep(2, 10, gap(0, 10, 2, ""))}},
		{"the whole time, through watermarks of sweeps cut off", true,
			[]mark{one, one.again(30), one.again(31), sweep(5, 32, gap(0, 32, 5, ""))}},
		{"from the first of them only", false,
			[]mark{one, one.again(30), one.again(31), sweep(5, 32, gap(31, 32, 5, ""))}},
		{"two in a row", true, []mark{one, sweep(2, 30, gap(0, 30, 2, "")),
			sweep(3, 60, gap(30, 60, 3, ""))}},
		{"two as one", false, []mark{one, sweep(2, 30), sweep(3, 60, gap(0, 60, 3, ""))}},
		{"a tenant whose first sweep is late", true,
			[]mark{{formed: 0, inProgress: 1}, {formed: 40, stored: 40, inProgress: 2},
				sweep(3, 60)}},
		{"a tenant whose first sweep is late, said", false,
			[]mark{{formed: 0, inProgress: 1}, {formed: 40, stored: 40, inProgress: 2},
				sweep(3, 60, gap(0, 60, 3, ""))}},

		// Who ends it need not be who began it.
		{"a standby that dies before its first sweep is complete", true,
			[]mark{slow(one), slow(one).again(30).by("b"), slow(one).again(33).by("c"),
				sweep(4, 34, gap(0, 34, 4, "")).by("c")}},
		{"a standby that dies before its first sweep is complete, unsaid", false,
			[]mark{slow(one), slow(one).again(30).by("b"), slow(one).again(33).by("c"),
				sweep(4, 34).by("c")}},

		// The broker was away: what waited comes late, and was seen in time.
		{"said by the sweep whose watermark came next", true,
			[]mark{one, sweep(2, 5, gap(0, 5, 2, "")).late(100, 100), sweep(3, 10).late(100, 100),
				sweep(4, 15).late(100, 100), sweep(5, 20).late(100, 100)}},
		{"said by the first one that ended later", true,
			[]mark{one, sweep(2, 5).late(100, 100), sweep(3, 10).late(100, 100),
				sweep(4, 15.5, gap(10, 15.5, 4, "")).late(100, 100),
				sweep(5, 20).late(100, 100)}},
		{"said by both", false,
			[]mark{one, sweep(2, 5, gap(0, 5, 2, "")).late(100, 100), sweep(3, 10).late(100, 100),
				sweep(4, 15.5, gap(10, 15.5, 4, "")).late(100, 100)}},
		{"said by neither", false,
			[]mark{one, sweep(2, 5).late(100, 100), sweep(3, 10).late(100, 100),
				sweep(4, 15.5).late(100, 100), sweep(5, 20).late(100, 100)}},
		{"said by one behind both", false,
			[]mark{one, sweep(2, 5).late(100, 100), sweep(3, 10).late(100, 100),
				sweep(4, 15.5).late(100, 100), sweep(5, 20, gap(15.5, 20, 5, "")).late(100, 100)}},
		{"under way when nextBy passed, said by the next one", true,
			[]mark{one, sweep(2, 5).late(6, 40), sweep(3, 40, gap(5, 40, 3, ""))}},

		// Why.
		{"a reason", true, []mark{one, one.again(8).says(down),
			sweep(2, 30, gap(0, 30, 2, down)).says("ok")}},
		{"a reason left out", false, []mark{one, one.again(8).says(down),
			sweep(2, 30, gap(0, 30, 2, "")).says("ok")}},
		{"a reason that was over before", false, []mark{one.says(down), one.again(2).says("ok"),
			sweep(2, 30, gap(0, 30, 2, down))}},
		{"the last one", true, []mark{one, one.again(8).says(down),
			one.again(20).says(schemas.Credentials),
			sweep(2, 30, gap(0, 30, 2, schemas.Credentials)).says("ok")}},
		{"not the last one", false, []mark{one, one.again(8).says(down),
			one.again(20).says(schemas.Credentials), sweep(2, 30, gap(0, 30, 2, down)).says("ok")}},

		// Types.
		{"a type more", true, []mark{one.of("0"),
			sweep(2, 5, gap(0, 5, 2, "", "10")).of("0", "10")}},
		{"a type more, unsaid", false, []mark{one.of("0"), sweep(2, 5).of("0", "10")}},
		{"a type more, said of another", false, []mark{one.of("0"),
			sweep(2, 5, gap(0, 5, 2, "", "1")).of("0", "10")}},
		{"a type more, said of all", false, []mark{one.of("0"),
			sweep(2, 5, gap(0, 5, 2, "")).of("0", "10")}},
		{"a type more, in a time that nobody saw", true, []mark{one.of("0"),
			sweep(2, 50, gap(0, 50, 2, ""), gap(0, 50, 2, "", "10")).of("0", "10")}},
		{"a type less", true, []mark{one.of("0", "10"), sweep(2, 5).of("0")}},
		{"a type less, said", false, []mark{one.of("0", "10"),
			sweep(2, 5, gap(0, 5, 2, "", "0")).of("0")}},
		{"one type instead of all", true, []mark{one, sweep(2, 5).of("0")}},

		// What can't be known.
		{"a watermark that nobody recorded", true,
			[]mark{one, sweep(2, 5).missed(), sweep(3, 10), sweep(4, 15)}},
		{"a watermark that nobody recorded, and a gap behind it", false,
			[]mark{one, sweep(2, 5).missed(), sweep(3, 10), sweep(4, 50)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			live := streamOf(tc.marks)
			report := Check(Stream{Live: live}, Truth{}, Options{Tenant: tenant, OtherTypes: true,
				Interval: 2 * time.Second})
			var bad []Violation
			for _, v := range report.Violations {
				switch v.Rule {
				case RuleUnobserved:
					bad = append(bad, v)
				case RuleCommit, RuleWatermark: // of what is lost, or late
				default:
					t.Error(v)
				}
			}
			if good := len(bad) == 0; good != tc.good {
				t.Errorf("good is %t, want %t: %v", good, tc.good, bad)
			}
			intervals := slices.DeleteFunc(live, func(m Message) bool {
				return m.kind() != "unobserved"
			})
			if report.Stats.Unobserved != len(intervals) {
				t.Errorf("%d intervals read, of %d", report.Stats.Unobserved, len(intervals))
			}
		})
	}
}

// slow makes a sweep take so long that staleAfter is far away.
func slow(m mark) mark {
	m.completed += 60
	return m
}
