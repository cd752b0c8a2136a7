package history

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/internal/test/checker"
	"github.com/rollcall-events/rollcall/internal/test/natstest"
	"github.com/rollcall-events/rollcall/internal/test/wait"
	"github.com/rollcall-events/rollcall/schemas"
	"github.com/rollcall-events/rollcall/schemas/follow"
	"github.com/rollcall-events/rollcall/schemas/history"
)

var (
	seed = flag.Uint64("seed", 1, "the first history's seed")
	runs = flag.Uint64("runs", 2, "how many histories")
)

// A stream is a real one, with a recording of all that it republishes.
type stream struct {
	js  jetstream.JetStream
	rec *checker.Recording
}

func newStream(t *testing.T) *stream {
	t.Helper()
	url, _ := natstest.Start(t, "")
	nc := natstest.Connect(t, url)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: schemas.Stream, Subjects: []string{"rollcall.log.>"}, MaxBytes: 1 << 28,
		SubjectTransform: &jetstream.SubjectTransformConfig{Source: "rollcall.log.>",
			Destination: "agent.>"},
		RePublish: &jetstream.RePublish{Source: "agent.>", Destination: "agent.>"},
		Storage:   jetstream.FileStorage, Discard: jetstream.DiscardNew,
		AllowAtomicPublish: true, AllowRollup: true, AllowMsgTTL: true, AllowDirect: true,
	}); err != nil {
		t.Fatal(err)
	}
	rec, err := checker.Record(natstest.Connect(t, url), 0)
	if err != nil {
		t.Fatal(err)
	}
	return &stream{js, rec}
}

// all is everything that was committed, once it has arrived.
func (s *stream) all(t *testing.T) []checker.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait.Patience)
	defer cancel()
	info, err := s.js.Stream(ctx, schemas.Stream)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.rec.Wait(ctx, info.CachedInfo().State.LastSeq); err != nil {
		t.Fatal(err)
	}
	return s.rec.Messages()
}

// A follower is a roster that follows a tenant's stream.
type follower struct {
	*follow.Roster
	commits chan string // the last one
	end     func()
}

func newFollower(t *testing.T, js jetstream.JetStream, tenant int64) *follower {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	f := &follower{follow.New(tenant), make(chan string, 1), func() {
		cancel()
		<-ended
	}}
	go func() {
		defer close(ended)
		_ = f.Run(ctx, js, func(u follow.Update) {
			if w := f.Trust(time.Time{}).Watermark; w != nil {
				select {
				case <-f.commits:
				default:
				}
				f.commits <- w.Commit.ID
			}
		})
	}()
	return f
}

// A picture is the roster that a follower had at a moment.
type picture struct {
	at     time.Time
	agents []*schemas.Event
	trust  error
}

// take waits until the follower has a commit, and takes its picture.
func (f *follower) take(t *testing.T, commit string, at time.Time) picture {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait.Patience)
	defer cancel()
	for f.Trust(at).Watermark == nil || f.Trust(at).Watermark.Commit.ID != commit {
		select {
		case <-f.commits:
		case <-ctx.Done():
			t.Fatalf("the follower does not see commit %s", commit)
		}
	}
	return picture{at, f.Agents(), f.Trust(at).Err()}
}

// live plays a history, and takes pictures of it.
func (s *stream) live(t *testing.T, p *play, acts int) []picture {
	f := newFollower(t, s.js, p.tenant)
	defer f.end()
	var all []picture
	for n := range acts {
		p.act()
		if p.commits > 0 && n%2 == 0 {
			all = append(all, f.take(t, p.last, p.rest(0)))
		}
	}
	return all
}

// A picture is what the roster is said to have been.
func (q *question) picture(was *picture) {
	q.t.Helper()
	q.tidy()
	r, err := history.At(q.t.Context(), q.js, q.tenant, was.at, history.AsOf(q.now))
	if err != nil {
		q.t.Errorf("at %s: %v", stamp(was.at), err)
		return
	}
	if r.Err() == nil && was.trust != nil {
		q.t.Errorf("at %s a follower did not trust its roster (%v), and this is trusted",
			stamp(was.at), was.trust)
	}
	got := map[int64]*history.Agent{}
	for a := range r.All() {
		if !errors.Is(a.Why, history.ErrUnobserved) {
			got[a.Agent.AgentID] = a
		}
	}
	for _, e := range was.agents {
		a := got[e.Data.Agent.AgentID]
		delete(got, e.Data.Agent.AgentID)
		switch {
		case e.Data.Reason == schemas.Removed && a == nil:
		case e.Data.Reason == schemas.Removed || a == nil:
			q.t.Errorf("at %s a follower had\n%+v, and not\n%+v", stamp(was.at), e, a)
		default:
			q.same(func(format string, args ...any) {
				q.t.Helper()
				q.t.Errorf("a follower at %s: %s", stamp(was.at), fmt.Sprintf(format, args...))
			}, a, e)
		}
	}
	for _, a := range got {
		q.t.Errorf("at %s a follower did not have\n%+v", stamp(was.at), a)
	}
}

// The roster as it was is the one that a follower had, and intervals add up and say the truth: now,
// when a part has expired, and when some of it is missing.
func TestPast(t *testing.T) {
	for n := range *runs {
		t.Run(fmt.Sprintf("seed %d", *seed+n), func(t *testing.T) {
			t.Parallel()
			s := newStream(t)
			p := newPlay(t, s.js, 886, *seed+n, "168h")
			chance := rand.New(rand.NewPCG(*seed+n, 16))
			pictures := s.live(t, p, 60)
			q := &question{t: t, past: newPast(t, p.tenant, s.all(t)), js: s.js, now: p.clock}
			for i := range pictures {
				q.picture(&pictures[i])
			}
			q.ask(chance, 40)

			// Later on, events have expired.
			stream, err := s.js.Stream(t.Context(), schemas.Stream)
			if err != nil {
				t.Fatal(err)
			}
			gone := uint64(0)
			last := lastEvent(s.all(t))
			for _, part := range []int{1, 2, 3} {
				cut := p.stored[len(p.stored)*part/4]
				if cut.seq >= last {
					break
				}
				for _, subject := range append(schemas.EventFilters(p.tenant),
					schemas.UnobservedSubject(p.tenant)) {
					if err := stream.Purge(t.Context(), jetstream.WithPurgeSubject(subject),
						jetstream.WithPurgeSequence(cut.seq+1)); err != nil {
						t.Fatal(err)
					}
				}
				q.since, gone = cut.at, cut.seq
				q.now = cut.at.Add(7 * 24 * time.Hour)
				for i := range pictures {
					if !pictures[i].at.Before(q.since) {
						q.picture(&pictures[i])
					}
				}
				q.ask(chance, 20)
			}

			// Some are missing.
			q.holes = true
			for _, m := range s.all(t) {
				if isEvent(&m) && m.Seq > gone && m.Seq < last && chance.IntN(3) == 0 {
					if err := stream.DeleteMsg(t.Context(), m.Seq); err != nil {
						t.Fatal(err)
					}
				}
			}
			q.ask(chance, 30)
		})
	}
}

func isEvent(m *checker.Message) bool {
	s, err := schemas.ParseSubject(m.Subject)
	return err == nil && slices.Contains([]schemas.Kind{schemas.KindOnline, schemas.KindOffline,
		schemas.KindUpdated}, s.Kind)
}

// lastEvent is the sequence of the last event; 0: there is none.
func lastEvent(all []checker.Message) (last uint64) {
	for i := range all {
		if isEvent(&all[i]) {
			last = all[i].Seq
		}
	}
	return last
}

// ask asks about moments and stretches of time, by chance.
func (q *question) ask(chance *rand.Rand, n int) {
	q.t.Helper()
	end := q.now
	if limit := q.marks[len(q.marks)-1].Add(time.Hour); end.After(limit) {
		end = limit
	}
	moment := func() time.Time {
		switch chance.IntN(3) {
		case 0:
			return q.marks[chance.IntN(len(q.marks))]
		case 1:
			return q.marks[chance.IntN(len(q.marks))].Add(pick[time.Duration](chance, -1, 1))
		}
		begin := opening.Add(-time.Minute)
		return begin.Add(time.Duration(chance.Int64N(int64(end.Sub(begin)))))
	}
	for range n {
		q.at(moment())
	}
	q.intervals(opening, end)
	for range n / 10 {
		from, to := moment(), moment()
		if to.Before(from) {
			from, to = to, from
		}
		q.intervals(from, to.Add(1))
	}
}

// The histories are ones that rollcall could have written.
func TestPlaysKeepTheContract(t *testing.T) {
	s := newStream(t)
	counts := map[string]int{}
	for n := range *runs {
		p := newPlay(t, s.js, 886+int64(n), *seed+n, "168h")
		for range 60 {
			p.act()
		}
		live := checker.Stream{Live: p.dated(s.all(t))}
		report := checker.Check(live, checker.Truth{}, checker.Options{
			Tenant: p.tenant, OtherTypes: true, Skew: time.Millisecond, MaxViolations: 10_000})
		for _, v := range report.Violations {
			switch v.Rule {
			case checker.RuleChanges:
				if strings.Contains(v.Text, "are truncated") {
					continue // the play does that to small ones
				}
			case checker.RuleShown, checker.RuleNotBefore, checker.RuleAbsence, checker.RuleFresh:
				continue // nothing was shown
			case checker.RuleWatermark:
				if strings.Contains(v.Text, "missing") {
					continue // nothing was shown
				}
			}
			t.Errorf("seed %d: %v", *seed+n, v)
		}
		for what, n := range p.counts {
			counts[what] += n
		}
		t.Logf("%+v", report.Stats)
	}
	t.Log(fmt.Sprint(counts))
}

// dated are the messages with the times of the play.
func (p *play) dated(all []checker.Message) []checker.Message {
	for i := range all {
		n, _ := slices.BinarySearchFunc(p.stored, all[i].Seq, func(s stored, seq uint64) int {
			return cmp.Compare(s.seq, seq)
		})
		if n < len(p.stored) {
			all[i].Time = p.stored[n].at
		}
	}
	return all
}
