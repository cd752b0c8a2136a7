package scenario

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/rollcall-events/rollcall/internal/tenantsim"
)

// A Stage is where a scenario is played.
type Stage struct {
	Tenant *tenantsim.Tenant
	Vendor *Vendor
	Seed   uint64  // of the choice of agents where a step names a share
	Speed  float64 // how many times as fast the scenario's time passes

	// LoseStream deletes the stream. It may be nil where no step does so.
	LoseStream func(context.Context) error
	// Tell says what has happened, when it has.
	Tell func(text string)
}

// A happening is one step at one time.
type happening struct {
	at   time.Duration
	step *step
	ends bool // of a trouble: it is over
}

// Play plays the scenario until it is over or ctx ends, which is no error. Its time begins when the
// whole listing has been read for the first time: what happens then is never in the first sweep.
func (s *Script) Play(ctx context.Context, on Stage) error {
	select {
	case <-on.Vendor.read:
	case <-ctx.Done():
		return nil
	}
	var all []happening
	for i := range s.steps {
		st := &s.steps[i]
		for k := range st.times {
			begins := st.at + time.Duration(k)*st.every
			all = append(all, happening{begins, st, false})
			if st.do == vendor {
				all = append(all, happening{begins + st.lasts, st, true})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b happening) int {
		// What ends when something else begins has ended before.
		return cmp.Or(cmp.Compare(a.at, b.at), boolInt(b.ends)-boolInt(a.ends))
	})
	cast := &cast{Stage: on, rand: rand.New(rand.NewPCG(on.Seed, 4)), gone: map[int64]bool{}}
	began := time.Now()
	for _, h := range all {
		wait := time.NewTimer(time.Until(began.Add(time.Duration(float64(h.at) / on.Speed))))
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return nil
		}
		text, err := cast.do(ctx, h)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("play the scenario, line %d: %w", h.step.line, err)
		}
		on.Tell(fmt.Sprintf("at %v: %s", h.at, text))
	}
	on.Tell("the scenario is over")
	return nil
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// A cast plays the steps, one after the other.
type cast struct {
	Stage
	rand *rand.Rand
	gone map[int64]bool // who has vanished
}

// do does what a step says, and returns in words what that was.
func (c *cast) do(ctx context.Context, h happening) (string, error) {
	st, t := h.step, c.Tenant
	switch st.do {
	case vendor:
		if h.ends {
			c.Vendor.fail(none)
			return "the vendor answers again", nil
		}
		c.Vendor.fail(st.how)
		return fmt.Sprintf("%s for %v", map[trouble]string{
			silent:       "the vendor answers nothing",
			unusable:     "the vendor's gateway answers with a page of its own",
			credentials:  "the vendor refuses the credentials",
			inconsistent: "the vendor's listing is shorter than it says",
			empty:        "the vendor's listing shows nobody",
		}[st.how], st.lasts), nil
	case stream:
		return "the stream is lost, and begun anew", c.LoseStream(ctx)
	case add:
		for range st.who.n {
			t.AddAgent()
		}
		return fmt.Sprintf("%v: %s", st.who, verbs[add]), nil
	}
	chosen := c.chosen(st)
	switch st.do {
	case vanish:
		t.Remove(chosen...)
		for _, id := range chosen {
			c.gone[id] = true
		}
	case comeBack:
		t.Restore(chosen...)
		for _, id := range chosen {
			delete(c.gone, id)
		}
	case remove:
		t.Delete(chosen...)
	case undelete:
		t.Undelete(chosen...)
	default:
		for _, id := range chosen {
			switch st.do {
			case edit:
				fields := tenantsim.Fields{}
				for _, f := range st.set {
					fields[f.name] = f.value
				}
				t.Edit(id, fields)
			case toggle:
				t.SetOnline(id, !c.row(id).online)
			default:
				t.SetOnline(id, st.do == signIn)
			}
		}
	}
	who := st.who.String()
	if st.who.share > 0 {
		who = counted(len(chosen), "agent") + " (" + who + ")"
	}
	return fmt.Sprintf("%s: %s", who, verbs[st.do]), nil
}

var verbs = map[action]string{
	signIn: "signed in", signOut: "signed out", toggle: "signed in or out", edit: "edited",
	vanish: "gone from the listing", comeBack: "back in the listing", remove: "deleted",
	undelete: "no longer deleted", add: "listed",
}

// chosen are the agents that a step is about: those that it names, or by chance a share of those
// that it could change.
func (c *cast) chosen(st *step) []int64 {
	if st.who.share == 0 {
		return slices.DeleteFunc(slices.Clone(st.who.ids), func(id int64) bool {
			row, _ := c.Tenant.Agent(id)
			return row == nil // where chance adds agents, an id may not have been given yet
		})
	}
	var able []int64
	if st.do == comeBack {
		for id := range c.gone {
			able = append(able, id)
		}
		slices.Sort(able)
	} else {
		for _, id := range c.Tenant.IDs() {
			if r := c.row(id); r.known && st.could(r) {
				able = append(able, id)
			}
		}
	}
	c.rand.Shuffle(len(able), func(i, j int) { able[i], able[j] = able[j], able[i] })
	n := int(float64(len(able))*st.who.share + 0.5)
	able = able[:max(min(1, len(able)), n)]
	slices.Sort(able)
	return able
}

// could reports whether the step would change an agent that is listed.
func (st *step) could(r row) bool {
	switch st.do {
	case signIn:
		return !r.online
	case signOut:
		return r.online
	case remove:
		return !r.deleted
	case undelete:
		return r.deleted
	}
	return true
}

// A row is what a step has to know of an agent's.
type row struct{ known, online, deleted bool }

func (c *cast) row(id int64) row {
	raw, _ := c.Tenant.Agent(id)
	var in struct{ OnlineStatus, DeleteFlag json.Number }
	if err := json.Unmarshal(raw, &in); err != nil {
		return row{}
	}
	return row{true, in.OnlineStatus == "1", in.DeleteFlag == "1"}
}
