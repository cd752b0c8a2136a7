package broker

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/internal/engine"
	"github.com/rollcall-events/rollcall/internal/test/wait"
	"github.com/rollcall-events/rollcall/publisher"
)

// A scenario is a fault that is none of one message.
type scenario struct {
	name string
	run  func(t *testing.T)
}

func scenarios(t *testing.T, all []scenario) {
	t.Helper()
	side(t, all, func(s scenario) string { return s.name },
		func(t *testing.T, s scenario) { s.run(t) })
}

// While the broker is away polling goes on, and what was seen is published in order when it is
// back: every flip.
func TestOutages(t *testing.T) {
	t.Parallel()
	rounds := 6
	if *long {
		rounds = 60
	}
	away := func(name string, lossy bool, leave, back func(*rig, *process)) scenario {
		return scenario{name, func(t *testing.T) {
			r := newRig(t, nil, 60, 886)
			r.opt.LossyLive = lossy
			p := r.start()
			r.settle(p)
			leave(r, p)
			for i := range rounds {
				r.seenFlip(p, r.agents[i%40:i%40+10]...)
			}
			back(r, p)
			r.seenFlip(p, r.agents[5:8]...)
			report := r.finish(p)
			r.allFlips()
			t.Logf("%+v", report.Stats)
		}}
	}
	lost := func(name string, match func(*frame) bool) scenario {
		return scenario{name, func(t *testing.T) {
			r := newRig(t, nil, 30, 886)
			p := r.start()
			r.settle(p)
			trap := p.proxy.on(&rule{match: match, act: cutAfter, dies: true}) // until it is mended
			r.seenFlip(p, r.agents[:5]...)
			<-trap.fired
			for i := range rounds {
				r.seenFlip(p, r.agents[i%20:i%20+5]...)
			}
			wait.Eventually(t, "it to have tried and failed", func() bool {
				return p.log.has("trying again")
			})
			p.proxy.mend()
			r.finish(p)
			r.allFlips()
		}}
	}
	scenarios(t, []scenario{
		away("server stopped and started", true, func(r *rig, _ *process) { r.b.stop() },
			func(r *rig, _ *process) { r.b.start() }),
		away("network cut", false, func(_ *rig, p *process) { p.proxy.cut() },
			func(_ *rig, p *process) { p.proxy.mend() }),
		away("network silent", false, func(_ *rig, p *process) { p.proxy.hold() },
			func(_ *rig, p *process) { p.proxy.release() }),
		away("network flapping", false, func(_ *rig, p *process) {
			go p.proxy.flap(40, 50*time.Millisecond)
		}, func(*rig, *process) {}),
		lost("acknowledgement lost, and the network away for longer", commitMessage),
		lost("a plain watermark's acknowledgement lost, and the network away for longer",
			plainWatermark),
		{"acknowledgement slower than anybody waits", func(t *testing.T) {
			r := newRig(t, nil, 30, 886)
			p := r.start()
			r.settle(p)
			trap := p.proxy.on(&rule{match: commitMessage, act: delay, wait: 6 * time.Second})
			r.seenFlip(p, r.agents[:5]...)
			<-trap.fired
			r.seenFlip(p, r.agents[:5]...)
			r.finish(p)
			r.allFlips()
		}},
		{"every fifth message late", func(t *testing.T) {
			r := newRig(t, nil, 30, 886)
			p := r.start()
			r.settle(p)
			for i := range 40 {
				p.proxy.on(&rule{match: (*frame).isPub, skip: 4 * (i + 1), act: delay,
					wait: 30 * time.Millisecond})
			}
			for range rounds {
				r.seenFlip(p, r.agents[:5]...)
			}
			r.finish(p)
			r.allFlips()
		}},
		{"the process starts while the server is away", func(t *testing.T) {
			r := newRig(t, nil, 30, 886)
			p := r.start()
			r.settle(p)
			p.stop()
			r.b.stop()
			r.opt.LossyLive = true
			r.flip(r.agents[:9]...)
			p = r.start()
			wait.Eventually(t, "the process to try", func() bool {
				return p.log.has("can't connect yet")
			})
			r.b.start()
			r.finish(p)
		}},
		{"the process is told to stop while the server is away", func(t *testing.T) {
			r := newRig(t, nil, 30, 886)
			r.engine = func(c *engine.Config) { c.Grace = 200 * time.Millisecond }
			p := r.start()
			r.settle(p)
			r.b.stop()
			r.opt.LossyLive = true
			r.flip(r.agents[:9]...)
			p.sees()
			err := p.stop()
			unpublished, ok := err.(*engine.UnpublishedError)
			if !ok || unpublished.Changes != 9 {
				t.Errorf("it ended with %v, want that 9 changes are not known to be published", err)
			}
			r.b.start()
			r.finish(r.start())
		}},
	})
}

// flap breaks the connection n times.
func (p *proxy) flap(n int, every time.Duration) {
	for range n {
		time.Sleep(every)
		p.drop()
	}
}

// Past the buffer's limit the oldest detail is folded: the end states are right, and it is logged.
func TestFolding(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil, 30, 886)
	r.engine = func(c *engine.Config) { c.BufferEvents = 50 }
	r.opt.Folded = true
	p := r.start()
	r.settle(p)
	p.proxy.cut()
	for range 12 {
		r.flip(r.agents[:20]...)
		p.sees()
	}
	r.flip(r.agents[:7]...)
	p.sees()
	p.proxy.mend()
	report := r.finish(p)
	if !p.log.has("the buffer is full") {
		t.Error("folding was not logged")
	}
	if most := len(r.agents) + 100; report.Stats.Events > most {
		t.Errorf("%d events, want at most %d: nothing was folded", report.Stats.Events, most)
	}
	t.Logf("%+v", report.Stats)
}

// A full stream refuses commits cleanly: nothing is torn, and it goes on when there is space.
func TestFullStream(t *testing.T) {
	t.Parallel()
	full := func(t *testing.T, r *rig) *process {
		p := r.start()
		r.settle(p)
		for !p.log.has("maximum bytes exceeded") {
			r.seenFlip(p, r.agents[:10]...)
		}
		r.seenFlip(p, r.agents[:10]...)
		return p
	}
	scenarios(t, []scenario{
		{"the limit is raised", func(t *testing.T) {
			r := newRig(t, nil, 30, 886)
			r.pub = func(c *publisher.Config) { c.MaxBytes = 200 << 10 }
			p := full(t, r)
			cfg := r.stream().CachedInfo().Config
			cfg.MaxBytes = 64 << 20
			if _, err := r.js().UpdateStream(t.Context(), cfg); err != nil {
				t.Fatal(err)
			}
			r.finish(p)
			r.allFlips()
		}},
		{"events run out", func(t *testing.T) {
			r := newRig(t, nil, 30, 886)
			r.opt.Expired = true
			r.pub = func(c *publisher.Config) {
				c.MaxBytes, c.EventsMaxAge = 200<<10, 3*time.Second
			}
			p := full(t, r)
			r.finish(p)
		}},
		{"the process dies while it is full", func(t *testing.T) {
			r := newRig(t, nil, 30, 886)
			r.pub = func(c *publisher.Config) { c.MaxBytes = 200 << 10 }
			full(t, r).die()
			r.flip(r.agents...)
			p := r.start()
			wait.Eventually(t, "the new one to find it full", func() bool {
				return p.log.has("maximum bytes exceeded")
			})
			cfg := r.stream().CachedInfo().Config
			cfg.MaxBytes = 64 << 20
			if _, err := r.js().UpdateStream(t.Context(), cfg); err != nil {
				t.Fatal(err)
			}
			r.finish(p)
		}},
	})
}

// A squeeze takes the space away that the stream would need, and gives it back.
type squeeze interface {
	leave(bytes int) // all but so many
	end()
}

// A filler is a stream without a limit of its own that fills the server.
type filler struct{ r *rig }

func (f filler) leave(bytes int) {
	f.r.t.Helper()
	js := f.r.js()
	s, err := js.CreateStream(f.r.t.Context(),
		jetstream.StreamConfig{Name: "FILLER", Subjects: []string{"filler"}})
	if err != nil {
		f.r.t.Fatal(err)
	}
	n := 0
	for _, size := range []int{100_000, 1000, 50} {
		for {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			_, err := js.Publish(ctx, "filler", make([]byte, size))
			cancel()
			if err != nil {
				break
			}
			n++
		}
	}
	// The first ones are large, and most of the others take a thousand bytes and some for the
	// subject.
	info, err := s.Info(f.r.t.Context())
	if err != nil {
		f.r.t.Fatal(err)
	}
	for seq := info.State.LastSeq; bytes > 0 && seq > 0; seq-- {
		m, err := s.GetMsg(f.r.t.Context(), seq)
		if err != nil || s.DeleteMsg(f.r.t.Context(), seq) != nil {
			f.r.t.Fatal("the filler can't be emptied")
		}
		bytes -= len(m.Data) + 40
	}
}

func (f filler) end() {
	f.r.t.Helper()
	if err := f.r.js().DeleteStream(f.r.t.Context(), "FILLER"); err != nil {
		f.r.t.Fatal(err)
	}
}

// An allowance is the account's limit, which goes down to what is in use.
type allowance struct{ r *rig }

func (a allowance) set(bytes int64) {
	a.r.t.Helper()
	acc, err := a.r.b.s.LookupAccount("A")
	if err != nil {
		a.r.t.Fatal(err)
	}
	if err := acc.UpdateJetStreamLimits(map[string]server.JetStreamAccountLimits{"": {
		MaxMemory: -1, MaxStore: bytes, MaxStreams: -1, MaxConsumers: -1, MaxAckPending: -1,
		MemoryMaxStreamBytes: -1, StoreMaxStreamBytes: -1}}); err != nil {
		a.r.t.Fatal(err)
	}
}

func (a allowance) leave(bytes int) {
	a.r.t.Helper()
	info, err := a.r.js().AccountInfo(a.r.t.Context())
	if err != nil {
		a.r.t.Fatal(err)
	}
	a.set(int64(info.Store) + int64(bytes))
}

func (a allowance) end() { a.set(1 << 30) }

// An account or a server that runs full in the middle of a commit can tear it. It is repaired, and
// the stream is exact.
func TestRunningFull(t *testing.T) {
	t.Parallel()
	kinds := []struct {
		name, conf string
		of         func(*rig) squeeze
	}{
		{"server", `jetstream { max_file_store: 6MB }`, func(r *rig) squeeze { return filler{r} }},
		{"account", "accounts { A { jetstream: enabled, users: [{user: a, password: a}] } " +
			"}\nno_auth_user: a", func(r *rig) squeeze { return allowance{r} }},
	}
	var all []scenario
	for _, k := range kinds {
		for _, dies := range []bool{false, true} {
			for _, changes := range []int{8, 20} {
				if !*long && (changes == 8 || dies != (k.name == "server")) {
					continue
				}
				name := fmt.Sprintf("%s, %d changes", k.name, changes)
				if dies {
					name += ", the process dies meanwhile"
				}
				all = append(all, scenario{name, func(t *testing.T) {
					r := newRig(t, newBroker(t, k.conf), 30, 886)
					r.pub = func(c *publisher.Config) { c.MaxBytes = 4 << 20 }
					r.engine = func(c *engine.Config) { c.Grace = 5 * time.Second }
					r.opt.Torn, r.opt.LossyLive = true, true
					r.fullInTheMiddle(k.of(r), changes, dies)
				}})
			}
		}
	}
	scenarios(t, all)
}

func (r *rig) fullInTheMiddle(s squeeze, changes int, dies bool) {
	t := r.t
	p := r.start()
	r.settle(p)
	rooms := []int{2000, 14_000}
	if *long {
		rooms = nil
		for room := 0; room < 60_000; room += 1500 {
			rooms = append(rooms, room)
		}
	}
	refused := 0
	for _, room := range rooms {
		p.proxy.hold() // nothing of the process's goes in while the space is taken
		s.leave(room)
		r.flip(r.agents[:changes]...)
		p.sees()
		signs := []string{"trying again", "moved on"}
		done := fmt.Sprintf("msg=committed events=%d", changes)
		failures := func() int { return p.log.count(signs[0]) + p.log.count(signs[1]) }
		failed, committed := failures(), p.log.count(done)
		p.proxy.release()
		wait.Eventually(t, "the commit to fail, or not", func() bool {
			p.running()
			return failures() > failed || p.log.count(done) > committed
		})
		if failures() > failed {
			refused++
		}
		if dies {
			p.die()
			s.end()
			p = r.start()
		} else {
			s.end()
		}
		r.settle(p)
	}
	repaired := 0
	for _, p := range r.procs {
		repaired += p.log.count("events whose states it lacks")
	}
	report := r.finish(p)
	t.Logf("%d of %d times without room, %d of them torn and repaired; %+v", refused, len(rooms),
		repaired, report.Stats)
	if refused == 0 && changes == 20 {
		t.Error("it never ran full")
	}
}

// A process that was stopped in the middle of whatever it did, and goes on when another one leads,
// can't write one message.
func TestStaleWriter(t *testing.T) {
	t.Parallel()
	var all []scenario
	for _, at := range []struct {
		name  string
		match func(*frame) bool
	}{
		{"before a commit", nth(1)}, {"in the middle of a commit", nth(flippers)},
		{"before a commit's watermark", commitMessage},
		{"before a plain watermark", plainWatermark}, {"before the lease is renewed", leaseRenewal},
	} {
		all = append(all, scenario{at.name, func(t *testing.T) {
			r := newRig(t, nil, 30, 886)
			exclusive := false
			// the second one takes the lease away
			r.pub = func(c *publisher.Config) {
				// On a busy machine the new one's lease would lapse, and the stale one take it.
				c.Exclusive, c.LeaseTTL = exclusive, 12*time.Second
			}
			stale := r.start()
			r.settle(stale)
			trap := stale.proxy.on(&rule{match: at.match, act: pause})
			r.flip(r.agents[:flippers]...)
			<-trap.fired
			r.flip(r.agents[2:flippers]...)
			exclusive = true
			p := r.start()
			r.settle(p)
			r.seenFlip(p, r.agents[1:4]...)
			r.settle(p)
			stale.proxy.release()
			wait.Eventually(t, "the stale one to stand back", func() bool {
				return stale.log.has("another replica leads")
			})
			r.seenFlip(p, r.agents[1:4]...)
			r.settle(p)
			stale.die()
			r.finish(p)
			for _, m := range r.rec.Messages() {
				if m.Seq > r.taken(p) &&
					strings.Contains(string(m.Body), `"instance":"`+stale.name+`"`) {
					t.Errorf("%s still wrote, at %d", stale.name, m.Seq)
				}
			}
		}})
	}
	scenarios(t, all)
}

// taken is where a process's first watermark stands.
func (r *rig) taken(p *process) uint64 {
	for _, m := range r.rec.Messages() {
		if strings.Contains(string(m.Body), `"instance":"`+p.name+`"`) {
			return m.Seq
		}
	}
	return 0
}

// Tenants with a process each share one stream, and nobody's trouble is anybody else's.
func TestTenantsShareOneStream(t *testing.T) {
	t.Parallel()
	b := newBroker(t, "")
	// one's number begins with the other's
	calm, troubled := newRig(t, b, 40, 886), newRig(t, b, 40, 8861)
	third := newRig(t, b, 40, 88)
	c, p, q := calm.start(), troubled.start(), third.start()
	for i, r := range []*rig{calm, troubled, third} {
		r.settle([]*process{c, p, q}[i])
	}
	for i := range 3 {
		trap := p.proxy.on(&rule{match: commitMessage,
			act: []action{cutBefore, cutAfter, refuse}[i%3], dies: i%2 == 0})
		troubled.flip(troubled.agents[:8]...)
		calm.seenFlip(c, calm.agents[i:i+9]...)
		third.seenFlip(q, third.agents[i:i+9]...)
		<-trap.fired
		if i%2 == 0 {
			p.die()
			p = troubled.start()
		}
		p.sees()
	}
	calm.finish(c)
	third.finish(q)
	troubled.finish(p)
	calm.allFlips()
	third.allFlips()
	for _, x := range []*process{c, q} {
		if x.log.has("reloading it") || x.log.has("level=ERROR") || x.log.has("moved on") {
			t.Errorf("a tenant without trouble had some:\n%s", x.log.tail(50))
		}
	}
}
