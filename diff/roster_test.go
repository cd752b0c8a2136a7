package diff

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/schemas"
)

// A play runs a script against a roster, committing at the end of every sweep. Its words:
//
//	(      begin sweep n at 100n seconds; its page k is sent at 10k seconds after that, and read 5
//	       seconds later
//	1+     a page of one row: agent 1, offline (-), online (+), deleted (d), offline with another
//	       name (b), online with it (B), offline with a quiet field (q), of type 0 (k), or rejected
//	       (x; ?x: nobody knows whose). 1+,2- is a page of two rows
//	~1+    a page that is sent together with the one before it, and read a second after it
//	)      the sweep was complete, and ends at 90 seconds        ]   it was not
//	!      commit now
//	F      fold what is pending, for every agent
//	R      restart: a new roster that knows what the stream says
//	L      read the stream again
//	+900   nothing for 900 seconds
//
// What it notes: "1 r2 offline status 110..215" for an event (agent, revision, type, reason,
// notBefore and time), and "missing 2 held 1" or "suspended" for a complete sweep of which there is
// such a thing to say.
type play struct {
	t       *testing.T
	rules   Rules
	roster  *Roster
	base    float64 // seconds: what is added to every time
	sweep   uint64
	pages   int
	read    float64
	rej, un int
	log     []schemas.Event
	mark    *schemas.Watermark
	notes   []string
}

func newPlay(t *testing.T, rules Rules) *play {
	return &play{t: t, rules: rules, roster: NewRoster(rules)}
}

func (p *play) seconds(s float64) time.Time { return at(p.base + 100*float64(p.sweep) + s) }

func (p *play) run(script string) {
	p.t.Helper()
	for word := range strings.FieldsSeq(script) {
		switch {
		case word == "(":
			p.sweep++
			p.pages, p.rej, p.un = 0, 0, 0
		case word == ")":
			p.complete()
			p.commit()
		case word == "]" || word == "!":
			p.commit()
		case word == "F":
			p.roster.foldOldest(len(p.roster.queue))
		case word == "R":
			p.roster = NewRoster(p.rules)
			p.load()
		case word == "L":
			p.load()
		case strings.HasPrefix(word, "+"):
			n, err := strconv.ParseFloat(word[1:], 64)
			if err != nil {
				p.t.Fatal(err)
			}
			p.base += n
		default:
			p.page(word)
		}
	}
}

func (p *play) page(word string) {
	rows, together := strings.CutPrefix(word, "~")
	if together {
		p.read++
	} else {
		p.pages++
		p.read = float64(10*p.pages + 5)
	}
	d := toldPage{Sweep: p.sweep, Sent: p.seconds(float64(10 * p.pages)), Read: p.seconds(p.read),
		Baseline: p.mark == nil}
	for row := range strings.SplitSeq(rows, ",") {
		if row == "?x" {
			p.un++
			p.rej++
			continue
		}
		id, err := strconv.ParseInt(row[:len(row)-1], 10, 64)
		if err != nil {
			p.t.Fatalf("%q: %v", word, err)
		}
		var a schemas.Agent
		switch row[len(row)-1] {
		case '-':
			a = agent(id)
		case '+':
			a = agent(id, on)
		case 'd':
			a = agent(id, deleted)
		case 'b':
			a = agent(id, name("b"))
		case 'B':
			a = agent(id, on, name("b"))
		case 'q':
			a = agent(id, signedIn(5))
		case 'k':
			a = agent(id, kind("0"))
		case 'x':
			p.rej++
			d.Rejected = append(d.Rejected, id)
			continue
		default:
			p.t.Fatalf("no such row: %q", row)
		}
		d.Agents = append(d.Agents, packed.Pack(&a))
	}
	observe(p.roster, d)
}

func (p *play) complete() {
	s := toldSweep{Number: p.sweep, StartedAt: p.seconds(0), EndedAt: p.seconds(90),
		Rejected: p.rej, Unidentified: p.un}
	v := complete(p.roster, s)
	p.mark = &schemas.Watermark{Sweep: s.Number, StartedAt: s.StartedAt, CompletedAt: s.EndedAt,
		Missing: v.Missing, Rejected: s.Rejected, Polled: p.rules.Types}
	switch {
	case v.Suspended:
		p.notes = append(p.notes, "suspended")
	case v.Missing > 0 || v.Held > 0:
		p.notes = append(p.notes, fmt.Sprintf("missing %d held %d", v.Missing, v.Held))
	}
}

func (p *play) commit() {
	f := commit(p.roster, all)
	for i := range f.Events {
		p.note(&f.Events[i])
	}
	p.log = append(p.log, f.Events...)
}

func (p *play) note(e *schemas.Event) {
	when := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return strconv.FormatFloat(t.Sub(start).Seconds(), 'f', -1, 64)
	}
	p.notes = append(p.notes,
		fmt.Sprintf("%d r%d %s %s %s..%s", e.Data.Agent.AgentID, e.Data.Revision,
			strings.TrimPrefix(string(e.Type), "agent."), e.Data.Reason, when(e.Data.NotBefore),
			when(e.Time)))
}

// load makes the roster read the stream; what is pending of agents that have moved is given up.
func (p *play) load() map[int64]bool { return load(p.roster, states(p.log), p.mark) }

func states(log []schemas.Event) map[int64]*State {
	m := make(map[int64]*State)
	for i := range log {
		m[log[i].Data.Agent.AgentID] = packed.StateOf(&log[i])
	}
	return m
}

func TestRoster(t *testing.T) {
	usual := Rules{RemoveAfter: 2, MaxMissing: 1, MissingHold: 15 * time.Minute}
	after := func(n int) Rules { return Rules{RemoveAfter: n, MaxMissing: 1} }
	guarded := Rules{RemoveAfter: 1, MaxMissing: 0.5, MissingHold: 300 * time.Second}
	typed := Rules{RemoveAfter: 1, MaxMissing: 1, Types: []string{"10"}}
	for _, tc := range []struct {
		name   string
		rules  Rules
		script string
		want   []string
	}{
		{"sorted by agent, whatever the order of the rows", usual, "( 3-,1+,2- )",
			[]string{"1 r1 online baseline ..115", "2 r1 updated baseline ..115",
				"3 r1 updated baseline ..115"}},
		{"baseline until the first complete sweep has ended", usual,
			"( 1- ] ( 2- 3+ ) ( 1-,2-,3+,4- )",
			[]string{"1 r1 updated baseline ..115", "missing 1 held 0",
				"2 r1 updated baseline ..215", "3 r1 online baseline ..225",
				"4 r1 updated appeared 200..315"}},
		{"of a page of an incomplete sweep, what changed counts", usual, "( 1-,2- ) ( 1+ ]",
			[]string{"1 r1 updated baseline ..115", "2 r1 updated baseline ..115",
				"1 r2 online status 110..215"}},
		{"a quiet change alone is no event, and is seen all the same", usual,
			"( 1- ) ( 1q ) ( 1+ )",
			[]string{"1 r1 updated baseline ..115", "1 r2 online status 210..315"}},

		// notBefore.
		{"not before: last seen", usual, "( 1- ) ( 1- ) ( 1- ] ( 1+ )",
			[]string{"1 r1 updated baseline ..115", "1 r2 online status 310..415"}},
		{"not before: last seen twice in a sweep", usual, "( 1- 1- 1+ )",
			[]string{"1 r1 updated baseline ..115", "1 r2 online status 120..135"}},
		{"not before: restart, clean watermark", usual, "( 1- ) ( 1- ) R ( 1+ )",
			[]string{"1 r1 updated baseline ..115", "1 r2 online status 200..315"}},
		{"not before: restart, one missed", usual, "( 1-,2- ) ( 1- ) R ( 1+ )",
			[]string{"1 r1 updated baseline ..115", "2 r1 updated baseline ..115",
				"missing 1 held 0", "missing 1 held 0", "1 r2 online status 115..315"}},
		{"not before: restart, one rejected", usual, "( 1- ) ( 1-,3x ) R ( 1+ )",
			[]string{"1 r1 updated baseline ..115", "1 r2 online status 115..315"}},
		{"not before: restart in the baseline", usual, "( 1- ] R ( 1+,2- ]",
			[]string{"1 r1 updated baseline ..115", "1 r2 online status 115..215",
				"2 r1 updated baseline ..215"}},
		{"not before: restart, then seen", usual, "( 1- ) R ( 1- ] ( 1+ )",
			[]string{"1 r1 updated baseline ..115", "1 r2 online status 210..315"}},
		{"not before: restart, then gone", usual, "( 1-,2- ) R ( 2- ) ( 2- )",
			[]string{"1 r1 updated baseline ..115", "2 r1 updated baseline ..115",
				"missing 1 held 0", "1 r2 updated removed 100..390"}},
		{"not before: the watermark bounds only until the agent has been seen", usual,
			"( 1- ) R ( 1- ) ( 1- ] R ( 1+ )",
			[]string{"1 r1 updated baseline ..115", "1 r2 online status 200..415"}},
		{"not before: appeared after a complete sweep", usual, "( 1- ) ( 1- ] ( 1-,2- ]",
			[]string{"1 r1 updated baseline ..115", "2 r1 updated appeared 100..315"}},
		{"not before: appeared, others' rows rejected", usual, "( 1- ) ( 1-,3x ) ( 1-,2- )",
			[]string{"1 r1 updated baseline ..115", "2 r1 updated appeared 200..315"}},
		{"not before: appeared, its own row rejected", usual, "( 1- ) ( 1-,2x ) ( 1-,2- )",
			[]string{"1 r1 updated baseline ..115", "2 r1 updated appeared ..315"}},
		{"not before: appeared, a row nobody can name", usual, "( 1- ) ( 1-,?x ) ( 1-,2- )",
			[]string{"1 r1 updated baseline ..115", "suspended", "2 r1 updated appeared 100..315"}},
		{"not before: appeared after a restart", usual, "( 1- ) R ( 1-,2- )",
			[]string{"1 r1 updated baseline ..115", "2 r1 updated appeared 100..215"}},
		{"not before: appeared after a restart, one rejected", usual, "( 1-,3x ) R ( 1-,2- )",
			[]string{"1 r1 updated baseline ..115", "2 r1 updated appeared ..215"}},
		{"not before: first seen deleted", usual, "( 1d ) ( 1- )",
			[]string{"1 r1 updated appeared 110..215"}},
		{"not before: first seen deleted, then unlisted", usual, "( 1d ) ( 2- ) ( 1- )",
			[]string{"2 r1 updated appeared 100..215", "missing 1 held 0",
				"1 r1 updated appeared 200..315"}},
		{"not before: return after absence", after(1), "( 1- ) ( ) ( ) ( ] ( 1- )",
			[]string{"1 r1 updated baseline ..115", "1 r2 updated removed 110..290",
				"1 r3 updated appeared 300..515"}},
		{"not before: return, its row rejected", after(1), "( 1- ) ( ) ( 1x ) ( 1- )",
			[]string{"1 r1 updated baseline ..115", "1 r2 updated removed 110..290",
				"1 r3 updated appeared 110..415"}},
		{"not before: return after deletion", usual, "( 1+ ) ( 1d ) ( 1d ) ( 1+ )",
			[]string{"1 r1 online baseline ..115", "1 r2 offline removed 110..215",
				"1 r3 online appeared 310..415"}},
		{"not before: return after deletion and a restart", usual, "( 1+ ) ( 1d ) R ( 1+ )",
			[]string{"1 r1 online baseline ..115", "1 r2 offline removed 110..215",
				"1 r3 online appeared 200..315"}},
		{"not before: return after a restart, one rejected", usual, "( 1+ ) ( 1d,2x ) R ( 1+ )",
			[]string{"1 r1 online baseline ..115", "1 r2 offline removed 110..215",
				"1 r3 online appeared 215..315"}},

		// The same agent twice in one sweep.
		{"asked for together: the first answer counts", usual, "( 1- ~1+ )",
			[]string{"1 r1 updated baseline ..115"}},
		{"asked for together: so it does in the next sweep", usual, "( 1- ) ( 1+ ~1- ] ( 1- )",
			[]string{"1 r1 updated baseline ..115", "1 r2 online status 110..215",
				"1 r3 offline status 210..315"}},
		{"asked for afterwards: both count", usual, "( 1- 1+ )",
			[]string{"1 r1 updated baseline ..115", "1 r2 online status 110..125"}},
		{"asked for together, across a quiet answer", usual, "( 1- ) ( 1q ~1+ )",
			[]string{"1 r1 updated baseline ..115"}},
		{"its row rejected, then usable, in one sweep", usual, "( 1- ) ( 1-,2x ) ( 2x 2- )",
			[]string{"1 r1 updated baseline ..115", "missing 1 held 0",
				"2 r1 updated appeared ..325"}},
		{"twice on one page: the first row counts", usual, "( 1-,1+ )",
			[]string{"1 r1 updated baseline ..115"}},

		// Absence.
		{"missing once", usual, "( 1+,2- ) ( 2- ) ( 1+,2- )",
			[]string{"1 r1 online baseline ..115", "2 r1 updated baseline ..115",
				"missing 1 held 0"}},
		{"missing twice in a row", usual, "( 1+ ) ( ) ( ) ( )",
			[]string{"1 r1 online baseline ..115", "missing 1 held 0",
				"1 r2 offline removed 110..390"}},
		{"missing twice, but not in a row", usual, "( 1+ ) ( ) ( 1+ ) ( ) ( 1+ )",
			[]string{"1 r1 online baseline ..115", "missing 1 held 0", "missing 1 held 0"}},
		{"missing twice, seen by an incomplete sweep in between", usual, "( 1+ ) ( ) ( 1+ ] ( )",
			[]string{"1 r1 online baseline ..115", "missing 1 held 0", "missing 1 held 0"}},
		{"missing twice, an incomplete sweep in between", usual, "( 1+ ) ( ) ( ] ( )",
			[]string{"1 r1 online baseline ..115", "missing 1 held 0",
				"1 r2 offline removed 110..490"}},
		{"missing three times", after(3), "( 1- ) ( ) ( ) ( )",
			[]string{"1 r1 updated baseline ..115", "missing 1 held 0", "missing 1 held 0",
				"1 r2 updated removed 110..490"}},
		{"missing from incomplete sweeps", after(1), "( 1+ ) ( ] ( ] ( ]",
			[]string{"1 r1 online baseline ..115"}},
		{"missing, and a restart in between", usual, "( 1+ ) ( ) R ( ) ( )",
			[]string{"1 r1 online baseline ..115", "missing 1 held 0", "missing 1 held 0",
				"1 r2 offline removed 115..490"}},
		{"missing, and the stream read again in between", usual, "( 1+ ) ( ) L ( )",
			[]string{"1 r1 online baseline ..115", "missing 1 held 0",
				"1 r2 offline removed 110..390"}},
		{"gone online, back as it was", after(1), "( 1+ ) ( ) ( 1+ )",
			[]string{"1 r1 online baseline ..115", "1 r2 offline removed 110..290",
				"1 r3 online appeared 200..315"}},
		{"gone, and gone again", usual, "( 1+ ) ( ) ( ) ( 1- ) ( ) ( )",
			[]string{"1 r1 online baseline ..115", "missing 1 held 0",
				"1 r2 offline removed 110..390", "1 r3 updated appeared 300..415",
				"missing 1 held 0", "1 r4 updated removed 410..690"}},
		{"its row rejected: not missing", after(1), "( 1+ ) ( 1x ) ( )",
			[]string{"1 r1 online baseline ..115", "1 r2 offline removed 110..390"}},
		{"its row rejected in between: not in a row", usual, "( 1+ ) ( ) ( 1x ) ( ) ( )",
			[]string{"1 r1 online baseline ..115", "missing 1 held 0", "missing 1 held 0",
				"1 r2 offline removed 110..590"}},
		{"its row rejected by an incomplete sweep in between", usual, "( 1+ ) ( ) ( 1x ] ( )",
			[]string{"1 r1 online baseline ..115", "missing 1 held 0", "missing 1 held 0"}},
		{"another's row rejected", after(1), "( 1+ ) ( 2x )",
			[]string{"1 r1 online baseline ..115", "1 r2 offline removed 110..290"}},
		{"a row nobody can name", after(1), "( 1+ ) ( ?x ) ( ?x )",
			[]string{"1 r1 online baseline ..115", "suspended", "suspended"}},
		{"a row nobody can name in between", usual, "( 1+ ) ( ) ( ?x ) ( ) ( )",
			[]string{"1 r1 online baseline ..115", "missing 1 held 0", "suspended",
				"missing 1 held 0", "1 r2 offline removed 110..590"}},
		{"deletion needs no second sweep, nor a complete one", usual, "( 1+,2+ ) ( 1d,2d ]",
			[]string{"1 r1 online baseline ..115", "2 r1 online baseline ..115",
				"1 r2 offline removed 110..215", "2 r2 offline removed 110..215"}},
		{"a deleted one is not missing", after(1), "( 1+ ) ( 1d ) ( ) ( )",
			[]string{"1 r1 online baseline ..115", "1 r2 offline removed 110..215"}},

		// Types.
		{"of a type that is not polled", typed, "( 1-,2k ) R ( 1- ) ( ) ",
			[]string{"1 r1 updated baseline ..115", "2 r1 updated baseline ..115",
				"1 r2 updated removed 210..390"}},
		{"left for a type that is not polled", typed, "( 1-,2- ) ( 1- )",
			[]string{"1 r1 updated baseline ..115", "2 r1 updated baseline ..115",
				"2 r2 updated removed 110..290"}},
		{"left for one, after a restart", typed, "( 1-,2- ) R ( 1- )",
			[]string{"1 r1 updated baseline ..115", "2 r1 updated baseline ..115",
				"2 r2 updated removed 100..290"}},
		{"listed under a type that is not its own", typed, "( 2k ) ( )",
			[]string{"2 r1 updated baseline ..115", "2 r2 updated removed 110..290"}},

		// The guard.
		{"guard: half is not too much", guarded, "( 1-,2- ) ( 1- )",
			[]string{"1 r1 updated baseline ..115", "2 r1 updated baseline ..115",
				"2 r2 updated removed 110..290"}},
		{"guard: more than half, until the hold is over", guarded,
			"( 1-,2-,3-,4-,5- ) ( 1- ) ( 1- ) ( 1- ) ( 1- )",
			[]string{"1 r1 updated baseline ..115", "2 r1 updated baseline ..115",
				"3 r1 updated baseline ..115", "4 r1 updated baseline ..115",
				"5 r1 updated baseline ..115", "missing 4 held 4", "missing 4 held 4",
				"missing 4 held 4",
				"2 r2 updated removed 110..590", "3 r2 updated removed 110..590",
				"4 r2 updated removed 110..590", "5 r2 updated removed 110..590"}},
		{"guard: three may always go, as long as another stays", guarded, "( 1-,2-,3-,4- ) ( 4- )",
			[]string{"1 r1 updated baseline ..115", "2 r1 updated baseline ..115",
				"3 r1 updated baseline ..115", "4 r1 updated baseline ..115",
				"1 r2 updated removed 110..290", "2 r2 updated removed 110..290",
				"3 r2 updated removed 110..290"}},
		{"guard: but not all", guarded, "( 1-,2-,3- ) ( ) ( 1-,2- ) ( 1-,2- )",
			[]string{"1 r1 updated baseline ..115", "2 r1 updated baseline ..115",
				"3 r1 updated baseline ..115", "missing 3 held 3", "missing 1 held 1",
				"missing 1 held 1"}},
		{"guard: held agents stay held when the others come back", guarded,
			"( 1-,2-,3-,4-,5- ) ( 1- ) ( 1-,2-,4-,5- ) ( 1-,2-,4-,5- ) ( 1-,2-,4-,5- )",
			[]string{"1 r1 updated baseline ..115", "2 r1 updated baseline ..115",
				"3 r1 updated baseline ..115", "4 r1 updated baseline ..115",
				"5 r1 updated baseline ..115", "missing 4 held 4", "missing 1 held 1",
				"missing 1 held 1",
				"3 r2 updated removed 110..590"}},
		{"guard: seen again, the hold begins anew", guarded, "( 1-,2- ) ( ) ( 1-,2- ] ( ) ( ) ( )",
			[]string{"1 r1 updated baseline ..115", "2 r1 updated baseline ..115",
				"missing 2 held 2", "missing 2 held 2", "missing 2 held 2", "missing 2 held 2"}},
		{"guard: a rejected row is a sign of life", guarded, "( 1- ) ( ) ( 1x ] ( ) ( ) ( ) ( )",
			[]string{"1 r1 updated baseline ..115", "missing 1 held 1", "missing 1 held 1",
				"missing 1 held 1", "missing 1 held 1", "1 r2 updated removed 110..790"}},
		{"guard: suspension does not end the hold", guarded, "( 1- ) ( ) ( ?x ) ( ) ( ) ( )",
			[]string{"1 r1 updated baseline ..115", "missing 1 held 1", "suspended",
				"missing 1 held 1", "missing 1 held 1", "1 r2 updated removed 110..690"}},
		{"guard: a restart begins the hold anew", guarded, "( 1- ) ( ) ( ) ( ) R ( ) ( ) ( ) ( )",
			[]string{"1 r1 updated baseline ..115", "missing 1 held 1", "missing 1 held 1",
				"missing 1 held 1", "missing 1 held 1", "missing 1 held 1", "missing 1 held 1",
				"1 r2 updated removed 115..890"}},
		{"guard: over the hold, still RemoveAfter sweeps",
			Rules{RemoveAfter: 3, MaxMissing: 0.5, MissingHold: 300 * time.Second},
			"( 1- ) ( ) +900 ( ) ( )",
			[]string{"1 r1 updated baseline ..115", "missing 1 held 1", "missing 1 held 0",
				"1 r2 updated removed 110..1390"}},
		{"guard: signing out together is no matter for it", guarded, "( 1+,2+ ) ( 1-,2d )",
			[]string{"1 r1 online baseline ..115", "2 r1 online baseline ..115",
				"1 r2 offline status 110..215", "2 r2 offline removed 110..215"}},
		{"guard: removed agents are not known ones", guarded, "( 1-,2-,3- ) ( 1-,2- ) ( 1- ) ( )",
			[]string{"1 r1 updated baseline ..115", "2 r1 updated baseline ..115",
				"3 r1 updated baseline ..115", "3 r2 updated removed 110..290",
				"2 r2 updated removed 210..390", "missing 1 held 1"}},
		{"guard: of types not polled neither",
			Rules{RemoveAfter: 1, MaxMissing: 0.5, MissingHold: time.Hour, Types: []string{"10"}},
			"( 1-,2k,3k ) R ( )",
			[]string{"1 r1 updated baseline ..115", "2 r1 updated baseline ..115",
				"3 r1 updated baseline ..115", "missing 1 held 1"}},
		{"guard off", Rules{RemoveAfter: 1, MaxMissing: 1, MissingHold: time.Hour}, "( 1-,2- ) ( )",
			[]string{"1 r1 updated baseline ..115", "2 r1 updated baseline ..115",
				"1 r2 updated removed 110..290", "2 r2 updated removed 110..290"}},

		// Pending observations.
		{"several of one agent in a commit", usual, "( 1- 1+ 1B 1- 1d )",
			[]string{"1 r1 updated baseline ..115", "1 r2 online status 110..125",
				"1 r3 updated fields 120..135", "1 r4 offline status 130..145",
				"1 r5 updated removed 140..155"}},
		{"committed in between", usual, "( 1- ! 1+ 1B ! 1- )",
			[]string{"1 r1 updated baseline ..115", "1 r2 online status 110..125",
				"1 r3 updated fields 120..135", "1 r4 offline status 130..145"}},
		{"folded", usual, "( 1- ) ( 1+ 1B F )",
			[]string{"1 r1 updated baseline ..115", "1 r2 online status 110..225"}},
		{"folded into nothing, and then on", usual, "( 1- ) ( 1+ 1- F ) ( 1+ )",
			[]string{"1 r1 updated baseline ..115", "1 r2 online status 220..315"}},
		{"given up by a restart", usual, "( 1-,2- ) ( 1+ 2+ R 1+,2- )",
			[]string{"1 r1 updated baseline ..115", "2 r1 updated baseline ..115",
				"1 r2 online status 100..235"}},
		{"kept when the stream is read again", usual, "( 1- ) ( 1+ L )",
			[]string{"1 r1 updated baseline ..115", "1 r2 online status 110..215"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPlay(t, tc.rules)
			p.run(tc.script)
			if d := cmp.Diff(tc.want, p.notes); d != "" {
				t.Errorf("%s (-want +got):\n%s", tc.script, d)
			}
		})
	}
}

// The share that may be missing is compared exactly.
func TestGuardShare(t *testing.T) {
	for _, known := range []int{1, 2, 3, 4, 5, 10, 100} {
		for missing := 1; missing <= known; missing++ {
			for _, over := range []bool{false, true} {
				share, err := strconv.ParseFloat(
					strconv.FormatFloat(float64(missing)/float64(known), 'g', -1, 64), 64)
				if err != nil {
					t.Fatal(err)
				}
				if over {
					share = (float64(missing) - 0.5) / float64(known)
				}
				r := NewRoster(Rules{RemoveAfter: 1, MaxMissing: share, MissingHold: time.Hour})
				p := toldPage{Sweep: 1, Sent: at(1), Read: at(2)}
				for id := range known {
					p.Agents = append(p.Agents, packed.Pack(new(agent(int64(id)))))
				}
				observe(r, p)
				p = toldPage{Sweep: 2, Sent: at(3), Read: at(4), Agents: p.Agents[missing:]}
				observe(r, p)
				v := complete(r, toldSweep{Number: 2, StartedAt: at(3), EndedAt: at(5)})
				if got := v.Held > 0; got != (over && (missing > 3 || missing == known)) ||
					v.Held+len(v.Removed) != missing || v.Missing != v.Held {
					t.Fatalf("%d of %d missing, %v may be: %d held, %d missing, %d removed",
						missing, known, share, v.Held, v.Missing, len(v.Removed))
				}
			}
		}
	}
}

func TestLoad(t *testing.T) {
	mark := func(sweep uint64) *schemas.Watermark {
		return &schemas.Watermark{Sweep: sweep, StartedAt: at(1)}
	}
	first := func() (*play, map[int64]*State) {
		p := newPlay(t, Rules{RemoveAfter: 2, MaxMissing: 1})
		p.run("( 1-,2+,3- ) ( 1+ )")
		return p, states(p.log)
	}
	counts := func(t *testing.T, r *Roster, there, online int) {
		t.Helper()
		if a, o := agents(r); a != there || o != online {
			t.Errorf("%d agents, %d online, want %d, %d", a, o, there, online)
		}
	}
	t.Run("at first all are new", func(t *testing.T) {
		_, log := first()
		r := NewRoster(Rules{RemoveAfter: 1})
		moved := load(r, log, mark(2))
		if d := cmp.Diff(map[int64]bool{1: true, 2: true, 3: true}, moved); d != "" {
			t.Error(d)
		}
		counts(t, r, 3, 2)
		if len(r.agents) != 3 || !cmp.Equal(published(r, 2), log[2]) || published(r, 4) != nil {
			t.Errorf("%d agents, %v, %v", len(r.agents), published(r, 2), published(r, 4))
		}
	})
	t.Run("nothing moved", func(t *testing.T) {
		p, log := first()
		if l := p.roster.Load(log, mark(2), 2); len(l.moved) != 0 || l.Lost != 0 {
			t.Errorf("moved: %v", l.moved)
		}
		counts(t, p.roster, 3, 2)
		p.run("( 1+ )") // the counts have gone on
		if d := cmp.Diff([]string{"2 r2 offline removed 110..390", "3 r2 updated removed 110..390"},
			p.notes[len(p.notes)-2:]); d != "" {
			t.Error(d)
		}
		counts(t, p.roster, 1, 1)
	})
	t.Run("another has published", func(t *testing.T) {
		p, log := first()
		p.run("( 1+,2-,3-,4-") // never committed
		other, mine := newPlay(t, p.rules), p.roster.Pending()
		other.log, other.mark, other.sweep, other.base = p.log, p.mark, 3, 5
		other.run("R ( 1+,2-,3-,5+ )")
		p.log, p.mark, p.sweep = other.log, other.mark, 4
		if d := cmp.Diff(map[int64]bool{2: true, 5: true}, p.load()); d != "" {
			t.Error(d)
		}
		if pending := queued(p.roster, 0); mine != 2 || len(pending) != 1 || pending[0].id != 4 {
			t.Errorf("pending: %v, were %d", pending, mine)
		}
		counts(t, p.roster, 4, 2)
		p.notes = nil
		p.run("( 1+,2+,3-,4-,5- )")
		want := []string{"4 r1 updated appeared 200..315", "2 r3 online status 405..515",
			"5 r2 offline status 405..515"}
		if d := cmp.Diff(want, p.notes); d != "" {
			t.Error(d)
		}
		if s := published(p.roster, 2); s.Revision != 3 || !s.Since.Equal(at(515)) ||
			log[2].Revision != 1 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("counts begin anew for those that moved", func(t *testing.T) {
		p, log := first() // 2 and 3 have been missing once
		moved := *log[2]
		moved.Revision++
		log[2] = &moved
		load(p.roster, log, mark(2))
		p.notes = nil
		p.run("( 1+ )")
		if d := cmp.Diff([]string{"missing 1 held 0", "3 r2 updated removed 110..390"},
			p.notes); d != "" {
			t.Error(d)
		}
	})
	t.Run("the stream went backwards", func(t *testing.T) {
		p := newPlay(t, Rules{RemoveAfter: 1, MaxMissing: 1})
		p.run("( 1-,2- ) ( 1+,2- ) ( 1-,2+ )")
		p.log, p.mark, p.notes = p.log[:1], mark(1), nil // of agent 1 the first, of agent 2 nothing
		if d := cmp.Diff(map[int64]bool{1: true, 2: true}, p.load()); d != "" {
			t.Error(d)
		}
		counts(t, p.roster, 1, 0)
		if published(p.roster, 2) != nil {
			t.Errorf("%+v", published(p.roster, 2))
		}
		p.run("( 1+ 2+ 1- )") // no revision is used twice
		want := []string{"1 r4 online status 1..415", "2 r3 online appeared 300..425",
			"1 r5 offline status 410..435"}
		if d := cmp.Diff(want, p.notes); d != "" {
			t.Error(d)
		}
	})
	t.Run("the stream lost a commit that was not acknowledged", func(t *testing.T) {
		for lost, want := range map[bool]uint64{false: 3, true: 4} {
			p := newPlay(t, Rules{RemoveAfter: 1, MaxMissing: 1})
			p.run("( 1- ) ( 1+ )")
			page := toldPage{Sweep: 3, Sent: at(310), Read: at(315),
				Agents: []packed.Agent{packed.Pack(new(agent(1)))}}
			observe(p.roster, page)
			p.roster.Requeue(p.roster.Next(3, 1, all)) // with revision 3
			if lost {
				p.log = p.log[:1]
			}
			p.load()
			page.Agents[0] = packed.Pack(new(agent(1, on, name("b"))))
			page.Sent, page.Read = at(320), at(325)
			observe(p.roster, page)
			f := commit(p.roster, all)
			if got := f.Events[0].Data.Revision; got != want {
				t.Errorf("lost %t: the next event is revision %d, want %d", lost, got, want)
			}
		}
	})
	t.Run("revision or time tells", func(t *testing.T) {
		p, log := first()
		later := *log[1]
		later.Time = later.Time.Add(time.Millisecond)
		log[1] = &later
		moved := load(p.roster, log, mark(2))
		if d := cmp.Diff(map[int64]bool{1: true}, moved); d != "" {
			t.Error(d)
		}
	})
}

func TestCommit(t *testing.T) {
	observe := func(r *Roster, n float64, rows ...schemas.Agent) []change {
		p := toldPage{Sweep: uint64(n), Sent: at(100 * n), Read: at(100*n + 5)}
		for _, a := range rows {
			p.Agents = append(p.Agents, packed.Pack(&a))
		}
		return observe(r, p)
	}
	small := func(e *schemas.Event) bool { return len(*e.Data.Agent.AgentName) < 10 }
	long := name("rather long")

	t.Run("changes nothing until it is committed", func(t *testing.T) {
		r := NewRoster(Rules{RemoveAfter: 1})
		observe(r, 1, agent(1), agent(2, on))
		observe(r, 2, agent(1, on))
		c := r.Next(2, 10, all)
		if there, online := agents(r); there != 0 || online != 0 || published(r, 1) != nil {
			t.Errorf("%d, %d, %v", there, online, published(r, 1))
		}
		r.Requeue(c)
		again := r.Next(2, 10, all)
		if d := cmp.Diff(c.Events, again.Events); d != "" || len(c.Events) != 3 ||
			c.Watermark.Agents != 2 || c.Watermark.Online != 2 {
			t.Errorf("%+v\n%s", c, d)
		}
		r.Requeue(again)
		part := r.Next(2, 1, all)
		r.Committed(part)
		rest := r.Next(2, 10, all)
		if d := cmp.Diff(c.Events, slices.Concat(part.Events, rest.Events)); d != "" {
			t.Errorf("in two commits:\n%s", d)
		}
		if part.Watermark.Agents != 1 || rest.Watermark.Agents != 2 || rest.Watermark.Online != 2 {
			t.Errorf("%+v, %+v", part.Watermark, rest.Watermark)
		}
	})
	t.Run("counts", func(t *testing.T) {
		r := NewRoster(Rules{RemoveAfter: 1, MaxMissing: 1})
		for _, step := range []struct {
			rows          []schemas.Agent
			there, online int
		}{
			{[]schemas.Agent{agent(1), agent(2, on), agent(3, on), agent(4, deleted)}, 3, 2},
			{[]schemas.Agent{agent(1, on), agent(2), agent(3, on, deleted), agent(4)}, 3, 1},
			{[]schemas.Agent{agent(1, on), agent(3, on, deleted)}, 1, 1}, // 2 and 4 are gone
			{[]schemas.Agent{agent(2, on), agent(3, on), agent(4)}, 3, 2},
			{nil, 0, 0},
		} {
			n := float64(r.complete.number + 1)
			observe(r, n, step.rows...)
			complete(r, toldSweep{Number: uint64(n), StartedAt: at(100 * n),
				EndedAt: at(100*n + 9)})
			w := commit(r, all).Watermark
			if there, online := agents(r); w.Agents != step.there || w.Online != step.online ||
				there != w.Agents || online != w.Online {
				t.Errorf("sweep %v: %d, %d, then %d, %d, want %d, %d", n, w.Agents, w.Online, there,
					online, step.there, step.online)
			}
		}
	})
	t.Run("too large", func(t *testing.T) {
		r := NewRoster(Rules{RemoveAfter: 1, MaxMissing: 1})
		observe(r, 1, agent(1), agent(2))
		commit(r, all)
		for n := 2.; n < 4; n++ { // once, though it is seen at every sweep
			observe(r, n, agent(1, on, long), agent(2, on))
			v := complete(r,
				toldSweep{Number: uint64(n), StartedAt: at(100 * n), EndedAt: at(100*n + 9)})
			if len(v.Removed) != 0 {
				t.Fatalf("a row that is too large is a row: %+v", v)
			}
			c := commit(r, small)
			first := boolToInt(n == 2)
			if c.LeftOut != first || len(c.TooLarge) != first || len(c.Events) != first {
				t.Fatalf("sweep %v: %+v", n, c)
			}
			if w := c.Watermark; w.Agents != 2 || w.Online != 1 || r.Watermark().Rejected != 1 {
				t.Errorf("sweep %v: %+v, %+v", n, w, r.Watermark())
			}
			if r.tooLarge[1] == nil || len(r.tooLarge) != 1 {
				t.Errorf("sweep %v: too large are %v", n, r.tooLarge)
			}
			if s := published(r, 1); s.Revision != 1 || s.Online {
				t.Fatalf("%+v", s)
			}
		}
		// What it was is not known to have ended when it was too large first.
		observe(r, 4, agent(1, on, name("b")))
		f := commit(r, small)
		if len(f.Events) != 1 || f.Events[0].Data.Revision != 2 ||
			!f.Events[0].Data.NotBefore.Equal(at(100)) || len(r.tooLarge) != 0 {
			t.Fatalf("%+v", f)
		}
		observe(r, 5, agent(1))
		if f = commit(r, small); len(f.Events) != 1 || !f.Events[0].Data.NotBefore.Equal(at(400)) {
			t.Fatalf("%+v", f)
		}
	})
	t.Run("too large, and then not, in a commit", func(t *testing.T) {
		r := NewRoster(Rules{RemoveAfter: 1})
		observe(r, 1, agent(1))
		observe(r, 2, agent(1, long))
		observe(r, 3, agent(1, on))
		f := commit(r, small)
		if len(f.Events) != 2 || f.LeftOut != 1 || !slices.Equal(f.TooLarge, []int64{1}) ||
			f.Events[1].Data.Revision != 2 || len(r.tooLarge) != 0 {
			t.Fatalf("%+v", f)
		}
		if got := f.Events[1].Data.NotBefore; !got.Equal(at(100)) {
			t.Errorf("the event tells of what was too large too, and begins at %v", got)
		}
		if d := cmp.Diff([]schemas.Change{fieldChange("onlineStatus", "0", "1")},
			f.Events[1].Data.Changes); d != "" {
			t.Error(d)
		}
	})
	t.Run("too large, and back", func(t *testing.T) {
		r := NewRoster(Rules{RemoveAfter: 1})
		for n, rows := range [][]schemas.Agent{{agent(1)}, {agent(1, long)}, {agent(1)}} {
			observe(r, float64(n+1), rows...)
			f := commit(r, small)
			if want := boolToInt(n == 1); f.LeftOut != want || len(f.Events) != boolToInt(n == 0) ||
				len(r.tooLarge) != want {
				t.Errorf("step %d: %+v", n, f)
			}
		}
	})
	t.Run("too large, and tried again", func(t *testing.T) {
		r := NewRoster(Rules{RemoveAfter: 1})
		observe(r, 1, agent(1))
		commit(r, all)
		observe(r, 2, agent(1, on, long))
		commit(r, small)
		if again := observe(r, 3, agent(1, on, long)); len(again) != 0 {
			t.Fatalf("observed again: %+v", again)
		}
		r.Retry()
		observe(r, 4, agent(1, on, long))
		f := commit(r, all)
		if len(f.Events) != 1 || !f.Events[0].Data.NotBefore.Equal(at(100)) ||
			len(r.tooLarge) != 0 {
			t.Fatalf("%+v", f)
		}
	})
	t.Run("too large, and not tried again once it has changed", func(t *testing.T) {
		r := NewRoster(Rules{RemoveAfter: 1})
		observe(r, 1, agent(1))
		commit(r, all)
		observe(r, 2, agent(1, long))
		commit(r, small)
		observe(r, 3, agent(1, on))
		r.Retry()
		observe(r, 4, agent(1))
		if f := commit(r, small); len(f.Events) != 2 || published(r, 1).Online {
			t.Fatalf("%+v", f)
		}
	})
	t.Run("a part was stored", func(t *testing.T) {
		r := NewRoster(Rules{RemoveAfter: 1})
		observe(r, 1, agent(1))
		commit(r, all)
		observe(r, 2, agent(1, on))
		c := r.Next(2, 1, all)
		observe(r, 3, agent(1, name("b")))
		r.Requeue(c)
		stored := packed.StateOf(&c.Events[0])
		if l := r.Load(map[int64]*State{1: stored}, nil, 0); l.Dropped != 1 || r.Pending() != 1 {
			t.Fatalf("%d dropped, %d pending", l.Dropped, r.Pending())
		}
		observe(r, 4, agent(1, on)) // as it was stored, but not as it was seen since
		if f := commit(r, all); len(f.Events) != 2 || !published(r, 1).Online {
			t.Fatalf("%+v", f)
		}
	})
	t.Run("too large, to be tried again, and back", func(t *testing.T) {
		r := NewRoster(Rules{RemoveAfter: 1})
		observe(r, 1, agent(1))
		commit(r, all)
		observe(r, 2, agent(1, long))
		commit(r, small)
		r.Retry()
		if back := observe(r, 3, agent(1)); len(back) != 0 || len(r.tooLarge) != 0 {
			t.Fatalf("observed %+v, too large are %v", back, r.tooLarge)
		}
	})
	t.Run("too large, and then rejected", func(t *testing.T) {
		r := NewRoster(Rules{RemoveAfter: 1})
		observe(r, 1, agent(1, long), agent(2, long))
		commit(r, small)
		r.Observe(2, (&toldPage{Sent: at(200), Read: at(205), Rejected: []int64{1, 3}}).page())
		observe(r, 2, agent(2, long))
		complete(r, toldSweep{Number: 2, StartedAt: at(200), EndedAt: at(209), Rejected: 2})
		commit(r, small)
		if n := r.Watermark().Rejected; n != 3 {
			t.Errorf("%d agents are rejected, want 1, 2 and 3", n)
		}
		observe(r, 3, agent(1, long), agent(2, long))
		complete(r, toldSweep{Number: 3, StartedAt: at(300), EndedAt: at(309)})
		commit(r, small)
		if n := r.Watermark().Rejected; n != 2 {
			t.Errorf("%d agents are rejected in the next sweep, want 1 and 2", n)
		}
	})
	t.Run("too large, and the stream read again", func(t *testing.T) {
		r := NewRoster(Rules{RemoveAfter: 1})
		observe(r, 1, agent(1, long), agent(2))
		commit(r, small)
		theirs := agent(1)
		load(r, map[int64]*State{
			1: {Revision: 4, Time: at(120), Since: at(120), Agent: packed.Pack(&theirs)},
			2: published(r, 2)}, nil)
		observe(r, 2, agent(1, on), agent(2))
		f := commit(r, small)
		if len(f.Events) != 1 || f.Events[0].Data.Revision != 5 ||
			!f.Events[0].Data.NotBefore.Equal(at(120)) || len(r.tooLarge) != 0 {
			t.Fatalf("%+v", f)
		}
	})
	t.Run("truncated", func(t *testing.T) {
		r := NewRoster(Rules{RemoveAfter: 1})
		few := func(e *schemas.Event) bool { return len(e.Data.Changes) < 3 }
		odd := func(names ...string) func(*schemas.Agent) {
			return func(a *schemas.Agent) {
				for _, n := range names {
					a.Other = append(a.Other, schemas.Field{Name: n, Value: []byte("1")})
				}
			}
		}
		for n, rows := range []schemas.Agent{agent(1), agent(1, on, odd("x", "y")),
			agent(1, odd("x")), agent(1, odd("x", "y"))} {
			observe(r, float64(n+1), rows)
			f := commit(r, few)
			if len(f.Events) != boolToInt(n < 3) || f.LeftOut != 0 {
				t.Fatalf("step %d: %+v", n, f)
			}
			if n == 3 {
				continue
			}
			d := f.Events[0].Data
			var want []schemas.Change
			switch n {
			case 1:
				want = []schemas.Change{fieldChange("onlineStatus", "0", "1")}
			case 2:
				want = []schemas.Change{fieldChange("onlineStatus", "1", "0"),
					fieldChange("y", "1", "")}
			}
			if diff := cmp.Diff(want, d.Changes); diff != "" || d.ChangesTruncated != (n == 1) {
				t.Errorf("step %d, truncated %t:\n%s", n, d.ChangesTruncated, diff)
			}
		}
	})
	t.Run("a removal dropped is counted for anew", func(t *testing.T) {
		r := NewRoster(Rules{RemoveAfter: 2, MaxMissing: 1})
		observe(r, 1, agent(1))
		commit(r, all)
		for n, want := range []int{0, 1, 0, 1} {
			at := at(float64(200 + 100*n))
			v := complete(r, toldSweep{Number: uint64(2 + n), StartedAt: at, EndedAt: at})
			if len(v.Removed) != want {
				t.Fatalf("sweep %d: %d removed, want %d", 2+n, len(v.Removed), want)
			}
			if want > 0 { // somebody else has published
				theirs := *published(r, 1)
				theirs.Revision++
				if l := r.Load(map[int64]*State{1: &theirs}, nil, 0); l.Dropped != 1 {
					t.Fatalf("%d dropped", l.Dropped)
				}
			}
		}
	})
}

func boolToInt(is bool) int {
	if is {
		return 1
	}
	return 0
}
