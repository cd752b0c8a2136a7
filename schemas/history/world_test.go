package history

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rollcall-events/rollcall/internal/test/yesterday"
	"github.com/rollcall-events/rollcall/schemas"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const tenant = yesterday.Tenant

func clock(t testing.TB, s string) time.Time { return yesterday.Clock(t, s) }

var (
	on, off = yesterday.On, yesterday.Off
	of      = yesterday.Of
)

// A world is one that is asked.
type world struct {
	*yesterday.World
	now  time.Time // zero: the last commit's
	from string    // the stream that is asked
}

func newWorld(t testing.TB, maxAge time.Duration) *world {
	t.Helper()
	return &world{World: yesterday.New(t, maxAge), from: schemas.Stream}
}

func (w *world) asOf() Option {
	if w.now.IsZero() {
		return AsOf(w.Now)
	}
	return AsOf(w.now)
}

// asked are the intervals of an agent, a line each.
func (w *world) asked(id int64, from, to string) string {
	w.Helper()
	var b strings.Builder
	next := clock(w, from)
	for i, err := range Intervals(w.Context(), w.JS, tenant, id, next, clock(w, to),
		w.asOf(), FromStream(w.from)) {
		if err != nil {
			return b.String() + err.Error() + "\n"
		}
		if !i.From.Equal(next) || !i.From.Before(i.To) {
			w.Errorf("an interval from %s to %s, after one up to %s", i.From, i.To, next)
		}
		next = i.To
		b.WriteString(line(&i))
	}
	if !next.Equal(clock(w, to)) {
		w.Errorf("the intervals end at %s", next)
	}
	return b.String()
}

func line(i *Interval) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s-%s %s", end(i.From, i.FromNotBefore), end(i.To, i.ToNotBefore), i.State)
	if i.Listed && i.State != Unknown {
		b.WriteString(", listed")
	}
	if i.SignIns > 0 {
		fmt.Fprintf(&b, ", %d sign-ins", i.SignIns)
	}
	if i.Missing > 0 {
		fmt.Fprintf(&b, ", %d missing", i.Missing)
	}
	if i.Why != nil {
		fmt.Fprintf(&b, ": %v", i.Why)
	}
	if i.Unobserved != nil {
		fmt.Fprintf(&b, " %v %s", i.Unobserved.Types, i.Unobserved.Health)
	}
	return b.String() + "\n"
}

// end is an end of an interval: "8:30:00" if it is exact, "8:29:59~8:30:00" or "?~8:30:00" if not.
func end(t, notBefore time.Time) string {
	const format = "15:04:05"
	switch s := t.Format(format); {
	case t.IsZero():
		return "?"
	case notBefore.IsZero():
		return "?~" + s
	case notBefore.Equal(t):
		return s
	default:
		return notBefore.Format(format) + "~" + s
	}
}

// at is the roster at a time, a line for each agent, and why it can't be trusted.
func (w *world) at(at string) string {
	w.Helper()
	r, err := At(w.Context(), w.JS, tenant, clock(w, at), w.asOf(), FromStream(w.from))
	if err != nil {
		return err.Error() + "\n"
	}
	var b strings.Builder
	for a := range r.All() {
		fmt.Fprintf(&b, "%d on=%t since %s rev %d", a.Agent.AgentID, a.Online,
			end(a.Since, a.NotBefore), a.Revision)
		if a.Agent.AreaName != nil {
			fmt.Fprintf(&b, " %s %s", a.Agent.TypeToken(), *a.Agent.AreaName)
		}
		if a.Event == nil {
			b.WriteString(", by the next event")
		}
		if a.Truncated {
			b.WriteString(", truncated")
		}
		if a.Missing > 0 {
			fmt.Fprintf(&b, ", %d missing", a.Missing)
		}
		if a.Why != nil {
			fmt.Fprintf(&b, ": %v", a.Why)
		}
		b.WriteByte('\n')
	}
	if err := r.Err(); err != nil {
		b.WriteString("not trusted: " + strings.ReplaceAll(err.Error(), "\n", "; ") + "\n")
	}
	return b.String()
}

// folded is where a line of what is wanted goes on in the next.
var folded = regexp.MustCompile(`\\\n\s+`)

func (w *world) want(what, got, want string) {
	w.Helper()
	trim := func(s string) string {
		var lines []string
		for l := range strings.Lines(strings.TrimSpace(s)) {
			lines = append(lines, strings.TrimSpace(l))
		}
		return strings.Join(lines, "\n")
	}
	want = folded.ReplaceAllString(want, "")
	if trim(got) != trim(want) {
		w.Errorf("%s:\n%s\nwant:\n%s", what, trim(got), trim(want))
	}
}
