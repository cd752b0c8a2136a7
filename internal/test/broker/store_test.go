package broker

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/internal/test/checker"
	"github.com/rollcall-events/rollcall/internal/test/wait"
	"github.com/rollcall-events/rollcall/publisher"
	"github.com/rollcall-events/rollcall/schemas"
)

// msgs is where the server keeps the stream's messages.
func (b *broker) msgs() string {
	return filepath.Join(b.dir, "jetstream", "$G", "streams", schemas.Stream, "msgs")
}

// cutTail takes bytes off the end of the stream's newest block, as a machine that lost its power
// may. stale keeps the server's index, which then tells of more than there is.
func (b *broker) cutTail(bytes int64, stale bool) {
	b.t.Helper()
	blocks, err := filepath.Glob(filepath.Join(b.msgs(), "*.blk"))
	if err != nil || len(blocks) == 0 {
		b.t.Fatalf("no blocks in %s: %v", b.msgs(), err)
	}
	number := func(path string) int {
		n, _ := strconv.Atoi(strings.TrimSuffix(filepath.Base(path), ".blk"))
		return n
	}
	last := slices.MaxFunc(blocks, func(x, y string) int { return number(x) - number(y) })
	info, err := os.Stat(last)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.Truncate(last, max(0, info.Size()-bytes)); err != nil {
		b.t.Fatal(err)
	}
	if !stale {
		_ = os.Remove(filepath.Join(b.msgs(), "index.db"))
	}
}

// copyStore copies the store as it is.
func (b *broker) copyStore() string {
	b.t.Helper()
	dir := b.t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(b.dir)); err != nil {
		b.t.Fatal(err)
	}
	return dir
}

// restore puts a copy in the store's place.
func (b *broker) restore(from string) {
	b.t.Helper()
	if err := os.RemoveAll(b.dir); err != nil {
		b.t.Fatal(err)
	}
	if err := os.CopyFS(b.dir, os.DirFS(from)); err != nil {
		b.t.Fatal(err)
	}
}

// committedLast flips agents and returns as soon as their commit is the stream's last: nothing is
// polled meanwhile. resume goes on.
func (r *rig) committedLast(p *process, ids ...int64) (resume func()) {
	r.t.Helper()
	done := make(chan struct{}, 1)
	p.hooks.set(func(h *hooks) {
		h.after = func(b publisher.Batch, err error) error {
			if len(b.Events) > 0 && err == nil {
				r.gate.Lock()
				done <- struct{}{}
			}
			return err
		}
	})
	r.flip(ids...)
	select {
	case <-done:
	case <-time.After(wait.Patience):
		r.t.Fatal("the flips are not committed")
	}
	p.hooks.set(func(h *hooks) { h.after = nil })
	return r.gate.Unlock
}

// A broker that lost the end of what it had acknowledged: noticed, said, and made true again, above
// every revision that a living process remembers.
func TestTornTail(t *testing.T) {
	t.Parallel()
	var all []scenario
	cuts := []int64{1, 300, 2500, 12_000}
	if *long {
		cuts = nil
		for n := int64(1); n < 30_000; n += 700 {
			cuts = append(cuts, n)
		}
	}
	for _, lives := range []bool{true, false} {
		for i, bytes := range cuts {
			stale := i%2 == 1
			name := fmt.Sprintf("%d bytes, stale index %t, process lives %t", bytes, stale, lives)
			all = append(all, scenario{name, func(t *testing.T) {
				r := newRig(t, nil, 30, 886)
				r.opt.LossyLive, r.opt.Torn = true, true
				r.opt.Rollback = checker.Remembered
				p := r.start()
				r.settle(p)
				r.seenFlip(p, r.agents[:12]...)
				r.settle(p)
				resume := r.committedLast(p, r.agents[2:10]...)
				if !lives {
					r.opt.Rollback = checker.Forgotten
					p.die()
				}
				r.b.stop()
				r.b.cutTail(bytes, stale)
				r.b.start()
				resume()
				if !lives {
					p = r.start()
				}
				r.settle(p)
				r.flip(r.agents[:5]...)
				report := r.finish(p)
				t.Logf("%+v", report.Stats)
				if lives && bytes > 2000 && !p.log.has("the broker has lost") &&
					!p.log.has("moved on") {
					t.Error("the loss was not noticed")
				}
			}})
		}
	}
	scenarios(t, all)
}

// A store that was rolled back to an earlier copy.
func TestRolledBack(t *testing.T) {
	t.Parallel()
	prepare := func(t *testing.T, memory checker.Rollback) (*rig, *process, string) {
		r := newRig(t, nil, 30, 886)
		r.opt.LossyLive, r.opt.Rollback = true, memory
		p := r.start()
		r.settle(p)
		r.seenFlip(p, r.agents[:5]...)
		r.settle(p)
		r.b.stop()
		old := r.b.copyStore()
		r.b.start()
		r.settle(p)
		for range 3 {
			r.seenFlip(p, r.agents[2:12]...)
		}
		r.settle(p)
		return r, p, old
	}
	told := func(t *testing.T, p *process) {
		t.Helper()
		if !p.log.has("the broker has lost messages that it had acknowledged") {
			t.Error("it was not logged")
		}
		if !p.log.has(`detail="the broker has lost messages`) {
			t.Error("health did not tell of it")
		}
	}
	scenarios(t, []scenario{
		{"the process lives", func(t *testing.T) {
			r, p, old := prepare(t, checker.Remembered)
			r.b.stop()
			r.b.restore(old)
			r.b.start()
			r.settle(p)
			told(t, p)
			r.flip(r.agents[4:9]...)
			t.Logf("%+v", r.finish(p).Stats)
		}},
		{"the process lives, and flips go on meanwhile", func(t *testing.T) {
			r, p, old := prepare(t, checker.Remembered)
			r.b.stop()
			for range 3 {
				r.flip(r.agents[8:20]...)
				p.sees()
			}
			r.b.restore(old)
			r.b.start()
			r.settle(p)
			told(t, p)
			t.Logf("%+v", r.finish(p).Stats)
		}},
		{"a new process", func(t *testing.T) {
			r, p, old := prepare(t, checker.Forgotten)
			p.die()
			r.b.stop()
			r.b.restore(old)
			r.b.start()
			p = r.start()
			r.settle(p)
			r.flip(r.agents[4:9]...)
			t.Logf("%+v", r.finish(p).Stats)
		}},
		{"a copy that was made of the running server", func(t *testing.T) {
			r := newRig(t, nil, 30, 886)
			r.opt.LossyLive, r.opt.Rollback, r.opt.Torn = true, checker.Remembered, true
			p := r.start()
			r.settle(p)
			stop := make(chan struct{})
			copied := make(chan string)
			go func() { defer close(stop); copied <- r.b.copyStore() }()
			for i := 0; ; i++ {
				r.flip(r.agents[i%10 : i%10+8]...)
				p.sees()
				select {
				case old := <-copied:
					<-stop
					r.seenFlip(p, r.agents[:9]...)
					r.settle(p)
					r.b.stop()
					r.b.restore(old)
					r.b.start()
					r.settle(p)
					t.Logf("%+v", r.finish(p).Stats)
					return
				default:
				}
			}
		}},
		{"another writer has gone on from there to the very same sequence", func(t *testing.T) {
			r, p, old := prepare(t, checker.Remembered)
			resume := r.committedLast(p, r.agents[:7]...)
			_, want := r.watermark()
			p.proxy.cut()
			r.b.stop()
			r.b.restore(old)
			r.b.start()
			// The other writer knows nothing of what was lost, and says what it may: that it is
			// there.
			nc := r.b.connect()
			other, err := publisher.Open(t.Context(), nc,
				publisher.Config{Tenant: 886, Instance: "other", Replicas: 1, Manage: true,
					EventsMaxAge: time.Hour, MaxBytes: 64 << 20, LeaseTTL: 2 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			var w schemas.Watermark
			first := func(rec *publisher.Recovered) (schemas.Watermark, bool) {
				w = *rec.Watermark
				w.InProgress = &schemas.InProgress{Sweep: rec.LastSweep + 1}
				return w, rec.Lapsed
			}
			if _, err := other.TakeOver(t.Context(), func(*packed.State) {}, first); err != nil {
				t.Fatal(err)
			}
			for {
				_, at := r.watermark()
				if at == want {
					break
				}
				if at > want {
					t.Fatalf("the other writer is at %d, beyond %d", at, want)
				}
				if err := other.Commit(t.Context(), publisher.Batch{Watermark: w}); err != nil {
					t.Fatal(err)
				}
			}
			p.proxy.mend()
			resume()
			r.settle(p)
			told(t, p)
			r.flip(r.agents[4:9]...)
			t.Logf("%+v", r.finish(p).Stats)
		}},
		{"the stream is deleted while it is written", func(t *testing.T) {
			r, p, _ := prepare(t, checker.Remembered)
			if err := r.js().DeleteStream(t.Context(), schemas.Stream); err != nil {
				t.Fatal(err)
			}
			r.flip(r.agents[4:9]...)
			r.settle(p)
			told(t, p)
			t.Logf("%+v", r.finish(p).Stats)
		}},
		{"log and leases are deleted", func(t *testing.T) {
			r, p, _ := prepare(t, checker.Remembered)
			for _, s := range []string{schemas.Stream, "KV_" + schemas.Bucket} {
				if err := r.js().DeleteStream(t.Context(), s); err != nil {
					t.Fatal(err)
				}
			}
			r.settle(p)
			told(t, p)
			t.Logf("%+v", r.finish(p).Stats)
		}},
		{"the store is gone", func(t *testing.T) {
			r, p, _ := prepare(t, checker.Remembered)
			r.b.stop()
			r.b.restore(t.TempDir())
			r.b.start()
			r.settle(p)
			told(t, p)
			t.Logf("%+v", r.finish(p).Stats)
		}},
		{"the store is gone and the process dies", func(t *testing.T) {
			r, p, _ := prepare(t, checker.Forgotten)
			p.die()
			r.b.stop()
			r.b.restore(t.TempDir())
			r.b.start()
			p = r.start()
			r.settle(p)
			r.opt.LossyLive = true
			t.Logf("%+v", r.finish(p).Stats)
		}},
	})
}

// A forgery is a message in the stream that no commit brought.
type forgery struct {
	name    string
	subject string
	body    func(r *rig) string
	rollup  bool
	quiet   bool // it does no harm, and need not be noticed before somebody reads it
}

const forged = "Test-Forged"

func (r *rig) forge(f forgery) {
	r.t.Helper()
	m := nats.NewMsg("rollcall.log." + strings.TrimPrefix(f.subject, "agent."))
	m.Data = []byte(f.body(r))
	m.Header.Set(forged, "1")
	if f.rollup {
		m.Header.Set("Nats-Rollup", "sub")
	}
	answer, err := r.nc.RequestMsg(m, 5*time.Second)
	if err != nil || strings.Contains(string(answer.Data), "error") {
		r.t.Fatalf("forge %s: %v %s", f.subject, err, answer.Data)
	}
}

func forgeries(r *rig) []forgery {
	text := func(s string) func(*rig) string { return func(*rig) string { return s } }
	id := r.agents[3]
	state := func(r *rig) string {
		return string(r.stored(fmt.Sprintf("agent.state.886.%d", id)).Data)
	}
	higher := func(r *rig) string {
		s := state(r)
		for rev := 1; rev < 20; rev++ {
			s = strings.ReplaceAll(s, fmt.Sprintf(`"revision":%d,`, rev), `"revision":77,`)
			s = strings.ReplaceAll(s, fmt.Sprintf(`"id":"886-%d-%d"`, id, rev),
				fmt.Sprintf(`"id":"886-%d-77"`, id))
		}
		return s
	}
	of := func(format string) string { return fmt.Sprintf(format, id) }
	return []forgery{
		{"watermark, no JSON", "agent.watermark.886", text("no watermark"), true, false},
		{"watermark, empty", "agent.watermark.886", text(""), true, false},
		{"watermark, another tenant's", "agent.watermark.886",
			text(`{"tenantId":1,"sweep":5,"commit":{"id":"x","messages":1}}`), true, false},
		{"watermark, far ahead", "agent.watermark.886",
			text(`{"tenantId":886,"sweep":5,"agents":1,"online":1,` +
				`"commit":{"id":"x","messages":1}}`),
			true, false},
		{"watermark, besides the real one", "agent.watermark.886", text(`{"tenantId":886}`), false,
			false},
		{"state, no JSON", of("agent.state.886.%d"), text("{"), true, false},
		{"state, empty", of("agent.state.886.%d"), text(""), true, false},
		{"state, the same again", of("agent.state.886.%d"), state, true, false},
		{"state, of a later revision", of("agent.state.886.%d"), higher, true, false},
		{"state, besides the real one", of("agent.state.886.%d"), text("[]"), false, false},
		{"state, of nobody", "agent.state.886.1", text("{}"), true, false},
		{"event, no JSON", of("agent.online.886.0.%d"), text("?"), false, false},
		{"event, of a later revision", of("agent.offline.886.0.%d"), higher, false, false},
		{"health, no JSON", "agent.health.886", text("ill"), true, false},
		{"health, failing", "agent.health.886",
			text(`{"tenantId":886,"state":"failing","reason":"unreachable"}`), true, false},
		{"subject that is none", "agent.nonsense", text("x"), false, true},
		{"subject that is none of the tenant's", "agent.online.886.x.y.z", text("x"), false, true},
	}
}

// What no commit wrote is noticed, logged and put right, while a process runs and while none does;
// nobody is locked out.
func TestForgeries(t *testing.T) {
	t.Parallel()
	var names []string
	probe := &rig{agents: []int64{1, 2, 3, 4}}
	for _, f := range forgeries(probe) {
		names = append(names, f.name)
	}
	var all []scenario
	for i, name := range names {
		for _, while := range []string{"it runs", "it is down", "the broker is cut off"} {
			if while == "the broker is cut off" && !*long && i%4 != 0 &&
				!strings.HasPrefix(name, "health") {
				continue // it takes long
			}
			if while == "it is down" && !*long && i%2 == 1 {
				continue
			}
			all = append(all, scenario{name + " · while " + while, func(t *testing.T) {
				r := newRig(t, nil, 30, 886)
				r.opt.Torn = true // states are damaged, and written anew
				r.opt.Foreign = func(m checker.Message) bool { return len(m.Header[forged]) > 0 }
				f := forgeries(r)[i]
				p := r.start()
				r.settle(p)
				r.seenFlip(p, r.agents[:5]...)
				r.settle(p)
				told := p.log.count("msg=health ")
				switch while {
				case "it runs":
					r.forge(f)
				case "it is down":
					p.stop()
					r.forge(f)
					p = r.start()
				default:
					p.proxy.cut()
					r.forge(f)
					r.seenFlip(p, r.agents[:2]...)
					p.proxy.mend()
				}
				r.settle(p)
				r.flip(r.agents[1:6]...)
				r.settle(p)
				// it may well have been the predecessor's
				likely := f.name == "health, failing" && while == "it is down"
				// On a busy machine health may change just then: the true message replaces the
				// forged one before anybody has looked.
				replaced := strings.HasPrefix(f.name, "health") && while != "it is down" &&
					p.log.count("msg=health ") > told
				if !f.quiet && !likely && !replaced && !p.log.has("level=ERROR") &&
					!p.log.has("level=WARN") {
					t.Error("it was not logged")
				}
				if n := p.log.count("took over the stream"); n > 3 {
					t.Errorf("the stream was taken over %d times", n)
				}
				r.finish(p)
			}})
		}
	}
	scenarios(t, all)
}
