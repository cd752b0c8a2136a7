package diff

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/schemas"
)

// A reader reads sweeps of two listings, of the types 0 and 10, and commits whatever they bring.
type reader struct {
	*Roster
	t     *testing.T
	sweep uint64
	mark  schemas.Watermark
	twice []int64 // agents that two listings show in different states
}

// Twice returns the agents that were found since it was called last.
func (r *reader) Twice() []int64 {
	ids := r.twice
	r.twice = nil
	return ids
}

func newReader(t *testing.T, rules Rules) *reader {
	rules.Types = []string{"0", "10"}
	return &reader{Roster: NewRoster(rules), t: t}
}

// A listed is a page of one of the listings.
type listed struct {
	listing  int
	agents   []schemas.Agent
	rejected []int64
}

func in(listing int, agents ...schemas.Agent) listed { return listed{listing, agents, nil} }

// read is a sweep, its pages in the order in which they arrive; all were asked for at once. It
// returns the events.
func (r *reader) read(whole bool, pages ...listed) (told []string, v toldAbsence) {
	r.t.Helper()
	r.sweep++
	start := float64(100 * r.sweep)
	for i, l := range pages {
		p := toldPage{Sweep: r.sweep, Listing: l.listing, Sent: at(start),
			Read: at(start + float64(i+1)), Rejected: l.rejected}
		for _, a := range l.agents {
			p.Agents = append(p.Agents, packed.Pack(&a))
		}
		observe(r.Roster, p)
	}
	if whole {
		v = complete(r.Roster,
			toldSweep{Number: r.sweep, StartedAt: at(start), EndedAt: at(start + 50)})
		r.twice = append(r.twice, v.InTwoListings...)
		r.mark = schemas.Watermark{Sweep: r.sweep, Polled: r.rules.Types, StartedAt: at(start),
			CompletedAt: at(start + 50), Missing: v.Missing}
	}
	f := commit(r.Roster, all)
	for _, e := range f.Events {
		told = append(told,
			fmt.Sprintf("%d %s %t", e.Data.Agent.AgentID, e.Data.Reason, e.Data.Online))
	}
	return told, v
}

// again is what a process that starts now knows.
func (r *reader) again() {
	states := make(map[int64]*State)
	for id := range r.agents {
		if s := published(r.Roster, id); s != nil {
			states[id] = s
		}
	}
	r.Roster = NewRoster(r.rules)
	load(r.Roster, states, &r.mark)
}

func (r *reader) want(what string, got []string, want ...string) {
	r.t.Helper()
	slices.Sort(got)
	if d := cmp.Diff(want, got); d != "" {
		r.t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func untyped(a *schemas.Agent) { a.Type = nil }

func many(first, n int64, edits ...func(*schemas.Agent)) (out []schemas.Agent) {
	for id := range n {
		out = append(out, agent(first+id, edits...))
	}
	return out
}

// The guard looks at each polled listing by itself, and at the whole.
func TestGuardJudgesEachListing(t *testing.T) {
	rules := Rules{RemoveAfter: 2, MaxMissing: 0.5, MissingHold: time.Hour}
	zero, ten := many(1, 30, kind("0")), many(101, 70, kind("10"))
	for _, tc := range []struct {
		name          string
		restart       bool
		zero, ten     []schemas.Agent
		held, removed int
	}{
		{"a listing is empty", false, nil, ten, 30, 0},
		{"a listing is empty, after a restart", true, nil, ten, 30, 0},
		{"most of a listing", false, zero[:14], ten, 16, 0},
		{"most of a listing, and a few of the other", false, zero[:14], ten[:68], 16, 2},
		{"half of a listing", false, zero[:15], ten, 0, 15},
		{"most of the whole", false, zero[:20], ten[:29], 51, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newReader(t, rules)
			r.read(true, in(0, zero...), in(1, ten...))
			if tc.restart {
				r.again()
			}
			r.read(true, in(0, tc.zero...), in(1, tc.ten...))
			if _, v := r.read(true, in(0, tc.zero...), in(1, tc.ten...)); v.Held != tc.held ||
				len(v.Removed) != tc.removed {
				t.Errorf("%d held, %d removed, want %d, %d", v.Held, len(v.Removed), tc.held,
					tc.removed)
			}
		})
	}
}

// Agents of whom it is not known which listing they are in are judged by themselves.
func TestGuardWithoutTypesAtRestart(t *testing.T) {
	for _, types := range [][]string{{"0"}, {"0", "10"}} {
		r := newReader(t, Rules{RemoveAfter: 2, MaxMissing: 0.5, MissingHold: time.Hour})
		r.rules.Types = types
		r.Roster = NewRoster(r.rules)
		ten := func() (pages []listed) {
			if len(types) > 1 {
				pages = append(pages, in(1, many(101, 70, kind("10"))...))
			}
			return pages
		}
		r.read(true, append(ten(), in(0, many(1, 12, untyped)...))...)
		r.again()
		r.read(true, append(ten(), in(0))...)
		if _, v := r.read(true, append(ten(), in(0))...); v.Held != 12 || len(v.Removed) > 0 {
			t.Errorf("types %v: %d held, %d removed", types, v.Held, len(v.Removed))
		}
	}
}

// A few of them are always all of those that may be in any listing: that alone is no reason to hold
// them.
func TestGuardOfFewWithoutTypes(t *testing.T) {
	r := newReader(t, Rules{RemoveAfter: 2, MaxMissing: 0.5, MissingHold: time.Hour})
	ten := in(1, many(101, 70, kind("10"))...)
	r.read(true, in(0, many(1, 2, untyped)...), ten)
	r.again()
	r.read(true, in(0), ten)
	if _, v := r.read(true, in(0), ten); v.Held > 0 || len(v.Removed) != 2 {
		t.Errorf("%d held, %d removed", v.Held, len(v.Removed))
	}
}

// Agents without a usable type, and of odd types, belong to the listing that showed them.
func TestRowsWithoutType(t *testing.T) {
	rules := Rules{RemoveAfter: 2, MaxMissing: 1}
	odd, other := agent(1, untyped), agent(2, kind("7"))
	rest := many(11, 5, kind("0"))
	for _, restart := range []bool{false, true} {
		r := newReader(t, rules)
		r.read(true, in(0, append(rest, odd, other)...), in(1))
		if restart {
			r.again()
		}
		r.read(true, in(0, rest...), in(1))
		got, _ := r.read(true, in(0, rest...), in(1))
		want := []string{"1 removed false", "2 removed false"}
		if restart {
			want = want[:1] // 2 may have been listed by a process that polled its type
		}
		r.want(fmt.Sprintf("restart %t", restart), got, want...)
	}
	t.Run("listed by a process that polled all", func(t *testing.T) {
		r := newReader(t, rules)
		r.read(true, in(0, append(rest, odd)...), in(1))
		r.mark.Polled = nil
		r.again()
		r.read(true, in(0, rest...), in(1))
		got, _ := r.read(true, in(0, rest...), in(1))
		r.want("", got)
	})
	t.Run("listed by a process that polled another", func(t *testing.T) {
		r := newReader(t, rules)
		r.read(true, in(0, append(rest, odd)...), in(1))
		r.mark.Polled = []string{"0", "3"}
		r.again()
		r.read(true, in(0, rest...), in(1))
		got, _ := r.read(true, in(0, rest...), in(1))
		r.want("", got)
	})
}

// Of two listings that show an agent in different states one is gone by, in whichever order they
// arrive: at the most one of the first sweep's events is taken back, and then there are none.
func TestTwoListingsShowAnAgent(t *testing.T) {
	for _, tc := range []struct {
		name      string
		zero, ten schemas.Agent
		online    bool // what is right
	}{
		{"both rows name type 0", agent(1, kind("0"), on), agent(1, kind("0")), true},
		{"both rows name type 10", agent(1, kind("10"), on), agent(1, kind("10")), false},
		{"each row names its own", agent(1, kind("0"), on), agent(1, kind("10")), true},
		{"each row names the other", agent(1, kind("10"), on), agent(1, kind("0")), true},
		{"one names its own, the other none", agent(1, untyped, on), agent(1, kind("10")), false},
		{"none names a type", agent(1, untyped), agent(1, untyped, on), false},
		{"both name one that is not polled", agent(1, kind("7"), on), agent(1, kind("7")), true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for order := range 16 {
				r := newReader(t, Rules{RemoveAfter: 2, MaxMissing: 1})
				told := 0
				for n := range 8 {
					pages := []listed{in(0, tc.zero), in(1, tc.ten)}
					if order>>(n%4)&1 == 1 {
						slices.Reverse(pages)
					}
					complete := n != 2
					got, _ := r.read(complete, pages...)
					if n == 0 && len(got) > 2 || n > 0 && len(got) > 0 {
						t.Errorf("order %d, sweep %d: %q", order, n+1, got)
					}
					told += len(r.Twice())
					if s := published(r.Roster, 1); s.Online != tc.online {
						t.Errorf("order %d, after sweep %d: online is %t", order, n+1, s.Online)
					}
					if n == 5 {
						r.again()
						told = 0
					}
				}
				if told != 1 {
					t.Errorf("order %d: told %d times since the restart, want once", order, told)
				}
			}
		})
	}
}

// What only the other listing shows counts, at once where it can be told that the agent has moved,
// else when the sweep is complete.
func TestAgentMovesToAnotherListing(t *testing.T) {
	rules := Rules{RemoveAfter: 2, MaxMissing: 1}
	t.Run("with its type", func(t *testing.T) {
		r := newReader(t, rules)
		r.read(true, in(0, agent(1, kind("0"))), in(1))
		got, _ := r.read(false, in(1, agent(1, kind("10"), on)), in(0))
		r.want("moved", got, "1 status true")
		got, _ = r.read(true, in(1, agent(1, kind("10"))), in(0))
		r.want("and off", got, "1 status false")
		got, _ = r.read(true, in(0, agent(1, kind("0"))), in(1))
		r.want("and back", got, "1 fields false")
		if ids := r.Twice(); len(ids) > 0 {
			t.Errorf("told of %v", ids)
		}
	})
	t.Run("its row names the old one", func(t *testing.T) {
		r := newReader(t, rules)
		r.read(true, in(0, agent(1, kind("0"))), in(1))
		got, _ := r.read(false, in(0), in(1, agent(1, kind("0"), on)))
		r.want("incomplete", got)
		got, _ = r.read(true, in(1, agent(1, kind("0"), on)), in(0))
		r.want("complete", got, "1 status true")
		got, v := r.read(true, in(0), in(1, agent(1, kind("0"))))
		if r.want("from now on", got, "1 status false"); v.Missing > 0 {
			t.Errorf("%d missing", v.Missing)
		}
	})
	t.Run("twice, and then no more", func(t *testing.T) {
		r := newReader(t, rules)
		r.read(true, in(0, agent(1, kind("0"), on)), in(1, agent(1, kind("10"))))
		got, _ := r.read(true, in(1, agent(1, kind("10"))), in(0))
		r.want("only the other", got, "1 status false")
		got, _ = r.read(false, in(1, agent(1, kind("10"), on)), in(0))
		r.want("which is the one now", got, "1 status true")
	})
	t.Run("its row in the old one is rejected", func(t *testing.T) {
		for _, types := range [][]string{{"0", "10"}, {"10"}} {
			r := newReader(t, rules)
			r.read(true, in(0, agent(1, kind("0"))), in(1))
			for _, typ := range types {
				got, v := r.read(true, listed{rejected: []int64{1}}, in(1, agent(1, kind(typ), on)))
				if r.want("type "+typ, got); v.Missing > 0 {
					t.Errorf("%d missing", v.Missing)
				}
			}
		}
	})
	t.Run("both leave", func(t *testing.T) {
		r := newReader(t, rules)
		r.read(true, in(0, agent(1, kind("0"), on)), in(1, agent(1, kind("10"))))
		r.read(true, in(0), in(1))
		got, _ := r.read(true, in(0), in(1))
		r.want("gone", got, "1 removed false")
	})
}

// A page that only is a sign of life keeps its agents from being missing, and says nothing else.
func TestAlive(t *testing.T) {
	r := newReader(t, Rules{RemoveAfter: 2, MaxMissing: 1})
	r.read(true, in(0, agent(1, kind("0")), agent(2, kind("0"))), in(1))
	r.read(true, in(0), in(1))
	r.sweep++
	alive(r.Roster,
		toldPage{Sweep: r.sweep,
			Agents: []packed.Agent{packed.Pack(new(agent(1, kind("0"), on))),
				packed.Pack(new(agent(3)))}, Rejected: []int64{4}})
	got, v := r.read(true, in(0), in(1))
	if r.want("one sweep later", got, "2 removed false"); v.Missing != 1 {
		t.Errorf("%d missing, want 1", v.Missing)
	}
	got, _ = r.read(true, in(0), in(1))
	r.want("and one more", got, "1 removed false")
}

// After a restart, what the last watermark vouches for is how everybody was of a type that was
// polled, quiet fields aside.
func TestNotBeforeAfterRestart(t *testing.T) {
	zero, ten := agent(1, kind("0")), agent(2, kind("10"))
	for _, tc := range []struct {
		name   string
		polled []string
		mark   func(*schemas.Watermark)
		page   listed
		want   time.Time
	}{
		{"status", []string{"0", "10"}, nil, in(0, agent(1, kind("0"), on)), at(200)},
		{"status, one listing of all", nil, nil, in(0, agent(1, kind("0"), on)), at(200)},
		{"status, its type was not polled", []string{"10"}, nil, in(0, agent(1, kind("0"), on)),
			at(101)},
		{"fields", []string{"0", "10"}, nil, in(0, agent(1, kind("0"), name("b"))), at(101)},
		{"deleted", []string{"0", "10"}, nil, in(0, agent(1, kind("0"), deleted)), at(200)},
		{"status, and one was missing", []string{"0", "10"},
			func(w *schemas.Watermark) { w.Missing = 1 }, in(0, agent(1, kind("0"), on)), at(101)},
		{"status, and one was rejected", []string{"0", "10"},
			func(w *schemas.Watermark) { w.Rejected = 1 }, in(0, agent(1, kind("0"), on)), at(101)},
		{"new", []string{"0", "10"}, nil, in(0, agent(3, kind("0"))), at(200)},
		{"new, its type was not polled", []string{"10"}, nil, in(0, agent(3, kind("0"))),
			time.Time{}},
		{"new, of no type", []string{"0", "10"}, nil, in(0, agent(3, untyped)), at(200)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newReader(t, Rules{RemoveAfter: 2, MaxMissing: 1})
			r.read(true, in(0, zero), in(1, ten))
			r.read(true, in(0, zero), in(1, ten))
			r.mark.Polled = tc.polled
			if tc.mark != nil {
				tc.mark(&r.mark)
			}
			r.again()
			p := toldPage{Sweep: 3, Listing: tc.page.listing, Sent: at(300), Read: at(301),
				Agents: []packed.Agent{packed.Pack(&tc.page.agents[0])}}
			observe(r.Roster, p)
			f := commit(r.Roster, all)
			if len(f.Events) != 1 || !f.Events[0].Data.NotBefore.Equal(schemas.FloorTime(tc.want)) {
				t.Errorf("not before %v, want %v", f.Events[0].Data.NotBefore, tc.want)
			}
		})
	}
	t.Run("folded to fields alone", func(t *testing.T) {
		r := newReader(t, Rules{RemoveAfter: 2, MaxMissing: 1})
		r.read(true, in(0, zero), in(1, ten))
		r.again()
		for n, a := range []schemas.Agent{agent(1, kind("0"), on), agent(1, kind("0"), name("b"))} {
			start := at(float64(200 + 100*n))
			observe(r.Roster,
				toldPage{Sweep: uint64(2 + n), Sent: start, Read: start,
					Agents: []packed.Agent{packed.Pack(&a)}})
		}
		r.foldOldest(1)
		f := commit(r.Roster, all)
		if len(f.Events) != 1 || !f.Events[0].Data.NotBefore.Equal(at(101)) {
			t.Errorf("%+v", f.Events)
		}
	})
}

// Rows that nothing is ever published of are not remembered for ever, whether sweeps are complete
// or not, and as long as they matter they are.
func TestStrangersAreForgotten(t *testing.T) {
	for _, whole := range []bool{true, false} {
		r := newReader(t, Rules{RemoveAfter: 2, MaxMissing: 1})
		r.read(true, in(0, many(1, 20, kind("0"))...))
		most := 0
		for n := range int64(200) {
			r.sweep++
			start := at(float64(100 * r.sweep))
			p := toldPage{Sweep: r.sweep, Sent: start, Read: start}
			for i := range int64(50) {
				p.Rejected = append(p.Rejected, 1000*(n+1)+i)
				p.Agents = append(p.Agents,
					packed.Pack(new(agent(-1000*(n+1)-i, kind("0"), deleted))))
			}
			observe(r.Roster, p)
			alive(r.Roster, toldPage{Sweep: r.sweep, Rejected: []int64{1000*(n+1) + 500}})
			if whole {
				complete(r.Roster, toldSweep{Number: r.sweep, StartedAt: start, EndedAt: start})
			}
			most = max(most, len(r.agents))
		}
		if most > 20+mostStrangers+300 || published(r.Roster, 1) == nil {
			t.Errorf("complete %t: %d agents are remembered of 20", whole, most)
		}
	}
}

// Listed counts who is published, in the listing that their type names or that has shown them;
// those of whom neither is known may be in any.
func TestListed(t *testing.T) {
	r := newReader(t, Rules{RemoveAfter: 1, MaxMissing: 1})
	odd := agent(5, untyped)
	r.read(true, in(0, append(many(1, 3, kind("0")), odd)...), in(1, many(11, 2)...))
	if got := r.Listed(); !slices.Equal(got, []int{4, 2}) {
		t.Errorf("%v", got)
	}
	r.again()
	if got := r.Listed(); !slices.Equal(got, []int{4, 3}) {
		t.Errorf("after a restart %v", got)
	}
	r.read(true, in(0), in(1, many(11, 2)...))
	if got := r.Listed(); !slices.Equal(got, []int{0, 2}) {
		t.Errorf("after removals %v", got)
	}
	r.rules.Types = nil
	if r.again(); !slices.Equal(r.Listed(), []int{2}) {
		t.Errorf("of one listing %v", r.Listed())
	}
}
