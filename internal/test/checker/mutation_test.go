package checker

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
	"github.com/rollcall-events/rollcall/schemas"
)

// mutations each spoil one thing, and say which rule must report it; others may too.
var mutations = []struct {
	name string
	want Rule
	do   func(*specimen)
}{
	{"an event and its state dropped", RuleRevision, func(s *specimen) {
		i := s.find("offline", "status", 3, 0)
		e := s.event(i)
		s.live = slices.DeleteFunc(s.live, func(m Message) bool {
			return bytes.Equal(m.Body, e.AppendJSON(nil))
		})
		s.renumber()
	}},
	{"an agent's last event dropped", RuleFinal, func(s *specimen) {
		s.dropLast()
	}},
	{"a change that lasted dropped, final not looked at", RuleLasted, func(s *specimen) {
		s.dropLast()
		s.opt.Quiescent = false
	}},
	{"an agent's last event dropped, seen by the watermark", RuleFresh, func(s *specimen) {
		s.dropLast()
		s.opt.Quiescent, s.opt.Bound = false, 0
	}},
	{"a whole commit dropped", RuleRevision, func(s *specimen) {
		s.without(s.commitOf(s.find("online", "status", 2, 0)))
	}},
	{"a commit doubled", RuleRevision, func(s *specimen) {
		from, to := s.commitOf(s.find("online", "status", 2, 0))
		var again []Message
		for _, m := range s.live[from:to] {
			m.Header = map[string][]string{"Content-Type": m.Header["Content-Type"],
				"Nats-TTL":      m.Header["Nats-TTL"],
				"Nats-Batch-Id": {"again"}, "Nats-Batch-Sequence": {"1"}}
			if !m.isEvent() {
				delete(m.Header, "Nats-TTL")
			}
			again = append(again, m)
		}
		s.live = slices.Insert(s.live, to, again...)
		s.renumber()
	}},
	{"two events of an agent in the wrong order", RuleRevision, func(s *specimen) {
		i, j := s.find("online", "status", 2, 0), s.find("offline", "status", 3, 0)
		for k := range 2 { // events and states
			s.live[i+k].Body, s.live[j+k].Body = s.live[j+k].Body, s.live[i+k].Body
			s.live[i+k].Subject, s.live[j+k].Subject = s.live[j+k].Subject, s.live[i+k].Subject
		}
	}},
	{"a revision left out", RuleRevision, func(s *specimen) {
		s.edit(s.find("offline", "status", 3, 0), func(e *schemas.Event) { e.Data.Revision++ })
	}},
	{"a change too few", RuleChanges, func(s *specimen) {
		s.edit(s.find("updated", "fields", 2, 0), func(e *schemas.Event) {
			e.Data.Changes = e.Data.Changes[1:]
		})
	}},
	{"changes out of order", RuleChanges, func(s *specimen) {
		s.edit(s.find("updated", "fields", 2, 0), func(e *schemas.Event) {
			slices.Reverse(e.Data.Changes)
		})
	}},
	{"a wrong from", RuleChanges, func(s *specimen) {
		s.edit(s.find("online", "status", 2, 0), func(e *schemas.Event) {
			i := slices.IndexFunc(e.Data.Changes, func(c schemas.Change) bool {
				return c.Field == "onlineStatus"
			})
			e.Data.Changes[i].From = json.RawMessage("2")
		})
	}},
	{"a from where there was none", RuleChanges, func(s *specimen) {
		s.edit(s.find("online", "status", 2, 0), func(e *schemas.Event) {
			for i := range e.Data.Changes {
				if e.Data.Changes[i].From == nil {
					e.Data.Changes[i].From = json.RawMessage(`0`)
					return
				}
			}
			e.Data.Changes[0].From = nil // or none where there was one
		})
	}},
	{"changes truncated without need", RuleChanges, func(s *specimen) {
		s.edit(s.find("updated", "fields", 2, 0), func(e *schemas.Event) {
			e.Data.ChangesTruncated = true
		})
	}},
	{"previousSince missing", RuleSince, func(s *specimen) {
		s.edit(s.find("offline", "status", 3, 0), func(e *schemas.Event) {
			e.Data.PreviousSince = time.Time{}
		})
	}},
	{"since moved by a change of fields", RuleSince, func(s *specimen) {
		s.edit(s.find("updated", "fields", 2, 0), func(e *schemas.Event) { e.Data.Since = e.Time })
	}},
	{"offline, though shown online", RuleShown, func(s *specimen) {
		i := s.find("online", "status", 2, -1)
		s.edit(i, func(e *schemas.Event) {
			e.Type, e.Data.Online, e.Data.Agent.OnlineStatus = schemas.Offline, false, 0
		})
	}},
	{"offline in an agent that says online", RuleType, func(s *specimen) {
		s.edit(s.find("online", "status", 2, 0), func(e *schemas.Event) {
			e.Type, e.Data.Online = schemas.Updated, false
		})
	}},
	{"updated instead of online", RuleType, func(s *specimen) {
		s.edit(s.find("online", "status", 2, 0), func(e *schemas.Event) {
			e.Type = schemas.Updated
		})
	}},
	{"a wrong reason", RuleReason, func(s *specimen) {
		s.edit(s.find("online", "status", 2, 0), func(e *schemas.Event) {
			e.Data.Reason = schemas.Appeared
		})
	}},
	{"baseline after the first complete sweep", RuleReason, func(s *specimen) {
		s.edit(s.appeared(), func(e *schemas.Event) { e.Data.Reason = schemas.Baseline })
	}},
	{"appeared in the first sweep", RuleReason, func(s *specimen) {
		s.edit(s.find("updated", "baseline", 1, 0), func(e *schemas.Event) {
			e.Data.Reason = schemas.Appeared
		})
	}},
	{"removed, though listed", RuleAbsence, func(s *specimen) {
		for i := range s.truth.Pages { // the pages never lost it
			s.neverGone(i)
		}
	}},
	{"removed one sweep too early", RuleAbsence, func(s *specimen) { s.opt.RemoveAfter = 3 }},
	{"an event before anything showed it", RuleShown, func(s *specimen) {
		s.edit(s.find("online", "status", 2, 0), func(e *schemas.Event) {
			e.Time = e.Time.Add(-50 * time.Millisecond)
			e.Data.Since = e.Time
		})
	}},
	{"an event of a row that nobody showed", RuleShown, func(s *specimen) {
		s.edit(s.find("updated", "baseline", 1, 0), func(e *schemas.Event) {
			*e.Data.Agent.AgentName += "!"
		})
	}},
	{"notBefore too late", RuleNotBefore, func(s *specimen) {
		s.edit(s.find("online", "status", 2, 0), func(e *schemas.Event) {
			e.Data.NotBefore = e.Time.Add(-7 * time.Millisecond)
		})
	}},
	{"a time that goes back", RuleTime, func(s *specimen) {
		s.edit(s.find("online", "status", 2, 0), func(e *schemas.Event) {
			e.Time = e.Time.Add(10 * time.Second)
		})
	}},
	{"notBefore after time", RuleEnvelope, func(s *specimen) {
		s.edit(s.find("online", "status", 2, 0), func(e *schemas.Event) {
			e.Data.NotBefore = e.Time.Add(time.Second)
		})
	}},
	{"an event of quiet fields alone", RuleQuiet, func(s *specimen) {
		s.opt.Quiet = []string{"*", "areaName", "userId", "cityId", "lastUpdateTimestamp"}
	}},
	{"a stale state", RuleState, func(s *specimen) {
		i := s.lastState()
		s.replace(i, `"revision":`, `"revision":1`)
	}},
	{"a state left out", RuleState, func(s *specimen) { i := s.lastState(); s.without(i, i+1) }},
	{"a state that a commit lacks", RuleState, func(s *specimen) {
		i := s.find("online", "status", 2, 0)
		s.without(i+1, i+2)
	}},
	{"a state without an event", RuleState, func(s *specimen) {
		i := s.find("online", "status", 2, 0)
		s.without(i, i+1)
	}},
	{"a watermark too early", RuleFresh, func(s *specimen) {
		from, to := s.commitOf(s.find("online", "status", 2, 0))
		moved := slices.Clone(s.live[from:to])
		s.live[to].Header = map[string][]string{"Content-Type": {"application/json"}}
		s.live = slices.Insert(slices.Delete(s.live, from, to), from+1, moved...)
		s.renumber()
	}},
	{"a complete sweep stated while it goes on", RuleFresh, func(s *specimen) {
		i := s.find("online", "status", 2, 0)
		_, to := s.commitOf(i)
		e := s.event(i)
		s.mark(to-1, func(m map[string]any) {
			delete(m, "inProgress")
			m["sweep"] = e.Data.Sweep
			m["startedAt"] = e.Time.Add(150 * time.Millisecond).Format(schemas.TimeFormat)
			m["completedAt"] = e.Time.Add(160 * time.Millisecond).Format(schemas.TimeFormat)
			m["staleAfter"] = e.Time.Add(time.Minute).Format(schemas.TimeFormat)
		})
	}},
	{"a wrong count of agents", RuleWatermark, func(s *specimen) {
		s.mark(s.lastMark(false), func(m map[string]any) { m["agents"] = 12345 })
	}},
	{"a wrong count of online agents", RuleWatermark, func(s *specimen) {
		s.mark(s.lastMark(true), func(m map[string]any) { m["online"] = 0 })
	}},
	{"a wrong count of missing agents", RuleWatermark, func(s *specimen) {
		s.mark(s.lastMark(false), func(m map[string]any) { m["missing"] = 1 })
	}},
	{"a type's agents counted wrong", RuleWatermark, func(s *specimen) {
		s.mark(s.lastMark(false), func(m map[string]any) { firstType(m)["agents"] = 1234 })
	}},
	{"a type's online agents counted wrong", RuleWatermark, func(s *specimen) {
		s.mark(s.lastMark(true), func(m map[string]any) { firstType(m)["online"] = 1234 })
	}},
	{"capacity of those who are not online", RuleWatermark, func(s *specimen) {
		s.mark(s.lastMark(true), func(m map[string]any) { firstType(m)["capacity"] = 1234 })
	}},
	{"a type left out", RuleWatermark, func(s *specimen) {
		s.mark(s.lastMark(true), func(m map[string]any) {
			for name := range m["types"].(map[string]any) {
				delete(m["types"].(map[string]any), name)
				return
			}
		})
	}},
	{"a type that nobody has", RuleWatermark, func(s *specimen) {
		s.mark(s.lastMark(false), func(m map[string]any) {
			m["types"].(map[string]any)["99"] = map[string]any{"agents": 0, "online": 0,
				"capacity": 0}
		})
	}},
	{"no types", RuleWatermark, func(s *specimen) {
		s.mark(s.lastMark(true), func(m map[string]any) { delete(m, "types") })
	}},
	{"types of the watermark before", RuleWatermark, func(s *specimen) {
		i := s.find("online", "status", 2, -1)
		from, to := s.commitOf(i)
		before := map[string]any{}
		for i := from - 1; len(before) == 0; i-- {
			if s.live[i].kind() == "watermark" {
				s.mark(i, func(m map[string]any) { before = m })
			}
		}
		s.mark(to-1, func(m map[string]any) { m["types"] = before["types"] })
	}},
	{"a count that is no number", RuleEnvelope, func(s *specimen) {
		s.mark(s.lastMark(true), func(m map[string]any) { firstType(m)["online"] = "1" })
	}},
	{"an unobserved interval left out", RuleUnobserved, func(s *specimen) {
		i := s.interval(0)
		s.without(i, i+1)
	}},
	{"an unobserved interval left out, when a watermark came in between", RuleUnobserved,
		func(s *specimen) {
			i := s.interval(2)
			s.without(i, i+1)
		}},
	{"an unobserved interval twice", RuleUnobserved, func(s *specimen) {
		i := s.interval(1)
		s.live = slices.Insert(s.live, i, s.live[i])
		s.renumber()
	}},
	{"an unobserved interval where somebody looked", RuleUnobserved, func(s *specimen) {
		s.claim(s.lastMark(false), "")
	}},
	{"an unobserved interval before the first complete sweep", RuleUnobserved, func(s *specimen) {
		first := s.completed(0)
		s.claim(first, "")
	}},
	{"an unobserved interval said by a commit of a sweep that goes on", RuleUnobserved,
		func(s *specimen) {
			i := s.interval(2)
			for j := i - 1; ; j-- {
				if id, _ := s.live[j].batch(); s.live[j].kind() == "watermark" && id != "" {
					s.moveInterval(i, j)
					return
				}
			}
		}},
	{"an unobserved interval said by the next complete sweep", RuleUnobserved,
		func(s *specimen) {
			i := s.interval(1)
			next := i + 2
			for !strings.Contains(string(s.live[next].Body), "completedAt") ||
				s.live[next].kind() != "watermark" {
				next++
			}
			s.moveInterval(i, next)
		}},
	{"an unobserved interval that begins late", RuleUnobserved, func(s *specimen) {
		s.mark(s.interval(0), shifted("from", time.Millisecond))
	}},
	{"an unobserved interval that begins early", RuleUnobserved, func(s *specimen) {
		s.mark(s.interval(1), shifted("from", -time.Millisecond))
	}},
	{"an unobserved interval that ends late", RuleUnobserved, func(s *specimen) {
		s.mark(s.interval(0), shifted("to", time.Millisecond))
	}},
	{"an unobserved interval that another sweep ended", RuleUnobserved, func(s *specimen) {
		s.mark(s.interval(0), func(m map[string]any) { m["sweep"] = 3 })
	}},
	{"a reason that nobody gave", RuleUnobserved, func(s *specimen) {
		s.mark(s.interval(0), func(m map[string]any) { m["health"] = "credentials" })
	}},
	{"a reason that was given, left out", RuleUnobserved, func(s *specimen) {
		s.mark(s.interval(2), func(m map[string]any) { delete(m, "health") })
	}},
	{"an unobserved interval of types that were polled all along", RuleUnobserved,
		func(s *specimen) {
			s.claim(s.lastMark(false), `,"types":["10"]`)
		}},
	{"an unobserved interval of no types", RuleEnvelope, func(s *specimen) {
		s.mark(s.interval(0), func(m map[string]any) { m["types"] = []any{} })
	}},
	{"an unobserved interval of another tenant", RuleEnvelope, func(s *specimen) {
		s.mark(s.interval(0), func(m map[string]any) { m["tenantId"] = 5 })
	}},
	{"an unobserved interval that never expires", RuleEnvelope, func(s *specimen) {
		delete(s.live[s.interval(0)].Header, "Nats-TTL")
	}},
	{"an unknown reason", RuleEnvelope, func(s *specimen) {
		s.mark(s.interval(2), func(m map[string]any) { m["health"] = "asleep" })
	}},
	{"a committed unobserved interval that is gone", RuleStream, func(s *specimen) {
		seq := s.live[s.interval(0)].Seq
		s.store = func(live []Message) []Message {
			return slices.DeleteFunc(stored(live), func(m Message) bool { return m.Seq == seq })
		}
	}},
	{"unobserved intervals that overlap, seen in the stream alone", RuleUnobserved,
		func(s *specimen) {
			s.mark(s.interval(1), shifted("from", -10*time.Second))
			s.opt.LossyLive = true
		}},
	{"an unobserved interval the wrong way round, seen in the stream alone", RuleUnobserved,
		func(s *specimen) {
			s.mark(s.interval(0), shifted("from", time.Minute))
			s.opt.LossyLive = true
		}},
	{"figures of the last complete sweep altered", RuleWatermark, func(s *specimen) {
		s.mark(s.lastMark(true), func(m map[string]any) { m["rejected"] = 7 })
	}},
	{"no nextBy", RuleEnvelope, func(s *specimen) {
		s.mark(s.lastMark(true), func(m map[string]any) { delete(m, "nextBy") })
	}},
	{"a nextBy too early", RuleWatermark, func(s *specimen) {
		s.mark(s.lastMark(false), shifted("nextBy", -200*time.Millisecond))
	}},
	{"a nextBy too late", RuleWatermark, func(s *specimen) {
		s.mark(s.lastMark(true), shifted("nextBy", time.Second))
	}},
	{"a nextBy too late for longer intervals", RuleWatermark, func(s *specimen) {
		s.opt.Interval = 4 * time.Second
		s.mark(s.lastMark(true), shifted("nextBy", time.Second))
	}},
	{"a nextBy that does not know of longer intervals", RuleWatermark, func(s *specimen) {
		s.opt.Interval = 10 * time.Second
	}},
	{"a glancedAt that goes back", RuleWatermark, func(s *specimen) {
		s.mark(s.lastMark(false), shifted("glancedAt", -time.Second))
	}},
	{"no glancedAt after there was one", RuleWatermark, func(s *specimen) {
		s.mark(s.lastMark(false), func(m map[string]any) { delete(m, "glancedAt") })
	}},
	{"a glancedAt to come", RuleWatermark, func(s *specimen) {
		s.mark(s.lastMark(false), shifted("glancedAt", time.Minute))
	}},
	{"a glancedAt before any glance", RuleWatermark, func(s *specimen) {
		s.truth.Pages = slices.DeleteFunc(slices.Clone(s.truth.Pages),
			func(p isdpsim.PageAnswer) bool { return p.Online == 1 })
	}},
	{"a glancedAt of a glance that had not begun", RuleWatermark, func(s *specimen) {
		s.mark(s.lastMark(false), shifted("glancedAt", 50*time.Millisecond))
	}},
	{"a sweep that goes back", RuleWatermark, func(s *specimen) {
		s.mark(s.lastMark(false), func(m map[string]any) { m["sweep"] = 2 })
	}},
	{"a wrong commit.messages", RuleCommit, func(s *specimen) {
		s.mark(s.lastMark(true), func(m map[string]any) {
			m["commit"].(map[string]any)["messages"] = 99
		})
	}},
	{"a commit without a watermark", RuleCommit, func(s *specimen) {
		i := s.lastMark(true)
		s.without(i, i+1)
	}},
	{"a watermark in the middle of its commit", RuleCommit, func(s *specimen) {
		i := s.lastMark(true)
		s.live[i], s.live[i-1] = s.live[i-1], s.live[i]
		s.renumber()
	}},
	{"a message outside any commit", RuleCommit, func(s *specimen) {
		s.live[s.find("online", "status", 2, 0)].Header = map[string][]string{
			"Content-Type": {schemas.ContentTypeEvent}, "Nats-TTL": {"1h"}}
	}},
	{"a commit's id used twice", RuleCommit, func(s *specimen) {
		i, j := s.lastMark(false), s.lastMark(true)
		s.mark(i, func(m map[string]any) { m["commit"].(map[string]any)["id"] = "twice" })
		s.mark(j, func(m map[string]any) { m["commit"].(map[string]any)["id"] = "twice" })
	}},
	{"an unknown field", RuleEnvelope, func(s *specimen) {
		s.replace(s.find("online", "status", 2, 0), `"reason"`, `"x":1,"reason"`)
	}},
	{"a field twice", RuleEnvelope, func(s *specimen) {
		s.replace(s.find("online", "status", 2, 0), `"reason"`, `"sweep":1,"reason"`)
	}},
	{"a name in another case", RuleEnvelope, func(s *specimen) {
		s.replace(s.find("online", "status", 2, 0), `"since"`, `"Since"`)
	}},
	{"a time without milliseconds", RuleEnvelope, func(s *specimen) {
		s.replace(s.lastMark(false), `Z"`, `0Z"`)
	}},
	{"a listed field of another type", RuleEnvelope, func(s *specimen) {
		s.replace(s.find("online", "status", 2, 0), `"onlineStatus":1`, `"onlineStatus":"1"`)
	}},
	{"another subject", RuleEnvelope, func(s *specimen) {
		i := s.find("online", "status", 2, 0)
		s.live[i].Subject = strings.Replace(s.live[i].Subject, ".886.", ".886.x", 1)
	}},
	{"no time to live", RuleEnvelope, func(s *specimen) {
		delete(s.live[s.find("online", "status", 2, 0)].Header, "Nats-TTL")
	}},
	{"a committed event that is gone", RuleStream, func(s *specimen) {
		seq := s.live[s.find("online", "status", 2, 0)].Seq
		s.store = func(live []Message) []Message {
			return slices.DeleteFunc(stored(live), func(m Message) bool { return m.Seq == seq })
		}
	}},
	{"a committed event that changed", RuleStream, func(s *specimen) {
		seq := s.live[s.find("online", "status", 2, 0)].Seq
		s.store = func(live []Message) []Message {
			return stored(edit(s.t, live, seq, func(e *schemas.Event) { e.Data.Sweep++ }))
		}
	}},
	{"an unhealthy rest", RuleFinal, func(s *specimen) {
		i := s.lastMark(true)
		h := s.live[i]
		h.Subject = schemas.HealthSubject(tenant)
		h.Body = []byte(
			`{"tenantId":886,"state":"failing","since":"2026-11-22T08:00:00.000Z",` +
				`"reason":"unreachable","detail":""}`)
		s.live = slices.Insert(s.live, i, h)
		s.renumber()
	}},
}

// firstType is what a watermark counts of one of its types.
func firstType(m map[string]any) map[string]any {
	for _, n := range m["types"].(map[string]any) {
		return n.(map[string]any)
	}
	return nil
}

// shifted moves a time of a watermark or of an interval.
func shifted(name string, by time.Duration) func(map[string]any) {
	return func(m map[string]any) {
		at, err := time.Parse(time.RFC3339, m[name].(string))
		if err != nil {
			panic(err)
		}
		m[name] = at.Add(by).Format(schemas.TimeFormat)
	}
}

func TestMutations(t *testing.T) {
	w := lived(t)
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			s := &specimen{t: t, store: stored, truth: w.truth(), opt: strict()}
			for _, msg := range w.live {
				h := map[string][]string{}
				for k, v := range msg.Header {
					h[k] = v
				}
				msg.Header = h
				s.live = append(s.live, msg)
			}
			m.do(s)
			r := Check(Stream{Live: s.live, Stored: s.store(s.live)}, s.truth, s.opt)
			i := slices.IndexFunc(r.Violations, func(v Violation) bool { return v.Rule == m.want })
			if i < 0 {
				t.Fatalf("no breach of %s was reported: %v", m.want, r.Err())
			}
			t.Log(r.Violations[i])
		})
	}
}
