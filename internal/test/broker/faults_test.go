package broker

import (
	"fmt"

	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rollcall-events/rollcall/internal/engine"
	"github.com/rollcall-events/rollcall/internal/test/checker"
	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
	"github.com/rollcall-events/rollcall/internal/test/wait"
	"github.com/rollcall-events/rollcall/poller"
	"github.com/rollcall-events/rollcall/poller/isdp"
	"github.com/rollcall-events/rollcall/publisher"
)

// A point is where in the cycle a fault happens.
type point struct {
	stage string // of the cycle
	at    string // which message, or which moment
	match func(*frame) bool
	skip  int
	set   setting
}

// A setting is how a point is reached.
type setting int

const (
	running  setting = iota // a process runs, and eight agents flip
	idle                    // a process runs, and nothing changes
	starting                // a process starts on a stream that is there
	leasing                 // the same, and the lease is another's until it runs out
	stopping                // a process is told to stop
	split                   // more changes than one commit takes
)

// Matches of the messages of a commit.
func batch(place func(n int) bool, last bool) func(*frame) bool {
	return func(f *frame) bool {
		if !f.isPub() || !strings.HasPrefix(f.subject, "rollcall.log.") {
			return false
		}
		n, _ := strconv.Atoi(f.header.Get("Nats-Batch-Sequence"))
		return n > 0 && (f.header.Get("Nats-Batch-Commit") != "") == last && place(n)
	}
}

func nth(want int) func(*frame) bool { return batch(func(n int) bool { return n == want }, false) }

var commitMessage = batch(func(int) bool { return true }, true)

func large(n int) bool { return n > 900 }

// following matches only after a large commit has been sent. It is called by one goroutine at a
// time.
func following(match func(*frame) bool) func(*frame) bool {
	sent := false
	return func(f *frame) bool {
		if batch(large, true)(f) {
			sent = true
			return false
		}
		return sent && match(f)
	}
}

func plainWatermark(f *frame) bool {
	return f.isPub() && strings.HasPrefix(f.subject, "rollcall.log.watermark.") &&
		f.header.Get("Nats-Batch-Id") == ""
}

func lease(is func(*frame) bool) func(*frame) bool {
	return func(f *frame) bool {
		return f.isPub() && strings.HasPrefix(f.subject, "$KV.rollcall.lease.") && is(f)
	}
}

func expects(f *frame) string { return f.header.Get("Nats-Expected-Last-Subject-Sequence") }

var (
	leaseCreate  = lease(func(f *frame) bool { return expects(f) == "0" })
	leaseTaken   = lease(func(f *frame) bool { return len(f.body) > 0 })
	leaseRenewal = lease(func(f *frame) bool { return expects(f) != "0" && len(f.body) > 0 })
	leaseRelease = lease(func(f *frame) bool { return f.header.Get("KV-Operation") != "" })
)

func request(prefix string, body string) func(*frame) bool {
	return func(f *frame) bool {
		return f.isPub() && strings.HasPrefix(f.subject, prefix) &&
			strings.Contains(string(f.body), body)
	}
}

func delivered(prefix string) func(*frame) bool {
	return func(f *frame) bool { return f.isMsg() && strings.HasPrefix(f.subject, prefix) }
}

// flippers is how many agents flip in the settings of one commit, which so has 2*flippers+1
// messages.
const flippers = 8

var points = []point{
	{"commit", "first of 17 messages", nth(1), 0, running},
	{"commit", "middle message", nth(flippers), 0, running},
	{"commit", "last but one", nth(2 * flippers), 0, running},
	{"commit", "its watermark", commitMessage, 0, running},
	{"plain watermark", "", plainWatermark, 0, idle},
	// the one before it went while the others were held back
	{"split, 1st commit", "first of 999 messages", nth(1), 1, split},
	{"split, 1st commit", "200th, which is acknowledged", nth(200), 0, split},
	{"split, 1st commit", "500th", nth(500), 0, split},
	{"split, 1st commit", "last but one", nth(998), 0, split},
	{"split, 1st commit", "its watermark", batch(large, true), 0, split},
	{"split, 2nd commit", "first message", nth(1), 0, split},
	{"split, 2nd commit", "its watermark", commitMessage, 0, split},
	{"lease", "taking", leaseCreate, 0, starting},
	// the first try finds it still held
	{"lease", "taking, once a dead one's has run out", leaseTaken, 1, leasing},
	{"lease", "renewal", leaseRenewal, 1, idle},
	{"lease", "release", leaseRelease, 0, stopping},
	{"open", "look at the stream", request("$JS.API.STREAM.INFO.AGENT_EVENTS", ""), 0, starting},
	{"open", "look at the bucket", request("$JS.API.STREAM.INFO.KV_rollcall", ""), 0, starting},
	{"recovery", "look at the stream", request("$JS.API.STREAM.INFO.AGENT_EVENTS", ""), 1,
		starting},
	{"recovery", "consumer of the states",
		request("$JS.API.CONSUMER.CREATE.AGENT_EVENTS", "agent.state."), 0, starting},
	{"recovery", "a state on its way", delivered("agent.state."), 20, starting},
	{"recovery", "consumer of the events",
		request("$JS.API.CONSUMER.CREATE.AGENT_EVENTS", `"agent.*.`), 0, starting},
	{"takeover", "its watermark", plainWatermark, 0, starting},
}

// A row is a fault: a point, and what happens there.
type row struct {
	point
	dies bool
	act  action
}

func (w row) what() string {
	who := "the call fails"
	if w.dies {
		who = "the process dies"
	}
	return who
}

func (w row) name() string {
	name := strings.Join([]string{w.stage, w.at, w.what(), w.act.String()}, " · ")
	return strings.ReplaceAll(strings.ReplaceAll(name, "/", "-"), " ·  ·", " ·")
}

func rows() []row {
	var out []row
	for _, p := range points {
		if p.set == split && !*long &&
			!(p.at == "500th" || p.stage == "split, 2nd commit" && p.at == "its watermark") {
			continue
		}
		if p.set == split && !*long { // these take long
			out = append(out, row{p, true, cutAfter}, row{p, false, cutAfter})
			continue
		}
		if p.stage == "open" && !*long { // nothing is written there
			out = append(out, row{p, true, cutAfter}, row{p, false, cutBefore})
			continue
		}
		out = append(out,
			row{p, true, cutBefore}, row{p, true, cutAfter},
			row{p, false, cutBefore}, row{p, false, cutAfter})
		if p.match(&frame{op: "MSG", subject: "agent.state.886.1"}) {
			continue // deliveries can be cut only
		}
		out = append(out, row{p, false, refuse})
		if *long || p.stage == "commit" && p.at == "its watermark" || p.stage == "plain watermark" {
			out = append(out, row{p, false, mute}, row{p, false, swallow})
		}
	}
	return out
}

// A result is a line of the table.
type result struct {
	name   string
	events int
	marks  int
	failed bool
}

// table collects the results for the reader.
type table struct {
	mu   sync.Mutex
	rows map[string]result
}

func (t *table) add(r result) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rows == nil {
		t.rows = make(map[string]result)
	}
	t.rows[r.name] = r
}

func (t *table) log(tb testing.TB, names []string) {
	var b strings.Builder
	events, exact := 0, 0
	for _, name := range names {
		r, ok := t.rows[name]
		verdict := "exact"
		switch {
		case !ok:
			verdict = "did not end"
		case r.failed:
			verdict = "BROKEN"
		default:
			exact++
		}
		events += r.events
		fmt.Fprintf(&b, "%-100s %-11s %4d events %4d watermarks\n", name, verdict, r.events,
			r.marks)
	}
	tb.Logf("%d of %d faults left an exact log; %d events checked\n%s", exact, len(names), events,
		b.String())
}

// TestFaults: at every point of the cycle the process dies, or the call fails, once with its effect
// persisted and once not. After each the stream is exact.
func TestFaults(t *testing.T) {
	t.Parallel()
	var results table
	var names []string
	all := rows()
	for _, w := range all {
		names = append(names, w.name())
	}
	side(t, all, row.name, func(t *testing.T, w row) {
		fault(t, w, &results)
	})
	results.log(t, names)
}

func fault(t *testing.T, w row, results *table) {
	agents := 30
	if w.set == split {
		agents = 600
	}
	r := newRig(t, nil, agents, 886)
	if w.set == split {
		r.poll = func(c *isdp.Config, p *poller.Config) { c.PageSize, p.Concurrency = 50, 4 }
		r.engine = func(c *engine.Config) { c.Interval = time.Second }
	}
	if w.set == leasing {
		r.pub = func(c *publisher.Config) { c.Exclusive = false }
	}
	trap := &rule{match: w.match, skip: w.skip, act: w.act, dies: w.dies}
	if strings.HasPrefix(w.stage, "split, 2nd") {
		trap.match = following(w.match)
	}
	report := r.run(w, trap)
	if report != nil {
		results.add(result{w.name(), report.Stats.Events, report.Stats.Watermarks, t.Failed()})
	}
}

// run plays the fault in its setting, and judges the stream.
func (r *rig) run(w row, trap *rule) *checker.Report {
	t := r.t
	few := r.agents[:flippers]
	p := r.start()
	r.settle(p)
	var before func() // what makes the trap spring
	switch w.set {
	case running:
		p.proxy.on(trap)
		before = func() { r.flip(few...) }
	case idle:
		p.proxy.on(trap)
		before = func() {}
	case split:
		before = func() { r.burst(p, trap) }
	case starting, leasing:
		r.flip(few...)
		r.settle(p)
		if w.set == leasing {
			p.die() // and its lease stays behind
		} else {
			p.stop()
		}
		r.flip(few[1:]...)
		p = r.newProcess()
		p.proxy.on(trap)
		before = p.start
	case stopping:
		p.proxy.on(trap)
		before = p.cancel
	}
	before()
	select {
	case <-trap.fired:
	case <-time.After(wait.Patience):
		t.Fatalf("the fault did not happen")
	}
	if w.dies || w.set == stopping {
		if w.dies {
			p.die()
		} else {
			<-p.ended
		}
		r.flip(few[2:]...) // while nobody looks
		p = r.start()
	}
	p.sees()
	r.flip(few[:3]...)
	p.sees()
	r.change(func(t *isdpsim.Tenant) { t.Remove(few[3]); t.Delete(few[4]); t.AddAgent() })
	report := r.finish(p)
	if report.Stats.Events < len(r.agents)+3 {
		t.Errorf("only %d events", report.Stats.Events)
	}
	return report
}

// burst makes more changes than one commit takes, and springs the trap at one of theirs: a first
// commit is held back until all others have been seen.
func (r *rig) burst(p *process, trap *rule) {
	p.proxy.hold()
	r.flip(r.agents[0])
	p.sees()
	r.flip(r.agents[1:]...)
	p.sees()
	p.proxy.on(trap)
	p.proxy.release()
}

// The seams between the parts, where no message is sent: the process dies there.
func TestSeams(t *testing.T) {
	t.Parallel()
	type seamCase struct {
		name string
		arm  func(r *rig, p *process, die func())
		at   func(r *rig) // makes it happen
	}
	flip := func(r *rig) { r.flip(r.agents[:flippers]...) }
	once := func(do func()) func() { return sync.OnceFunc(do) }
	on := func(page int, f func(die func()) isdpsim.Fault) func(*rig, *process, func()) {
		return func(r *rig, p *process, die func()) {
			r.sim.SetFault(isdpsim.Times(1, isdpsim.OnPage(page, f(die))))
		}
	}
	died := func(die func()) isdpsim.Fault {
		return isdpsim.Meanwhile(func(*isdpsim.Tenant) { go die() })
	}
	late := func(die func()) isdpsim.Fault {
		return isdpsim.All(isdpsim.Meanwhile(func(*isdpsim.Tenant) {
			time.AfterFunc(10*time.Millisecond, die)
		}), isdpsim.Late(30*time.Millisecond))
	}
	fails := func(f isdpsim.Fault) func(func()) isdpsim.Fault {
		// here die only says that it happened
		return func(die func()) isdpsim.Fault { die(); return f }
	}
	cases := []seamCase{
		{"sweep · first page · the process dies", on(0, died), flip},
		{"sweep · first page's answer · the process dies", on(0, late), flip},
		{"sweep · middle page · the process dies", on(1, died), flip},
		{"sweep · last page · the process dies", on(3, died), flip},
		{"sweep · last page's answer · the process dies", on(3, late), flip},
		{"sweep · first page · the call fails", on(0, fails(isdpsim.Status(500))), flip},
		{"sweep · middle page · the call fails", on(1, fails(isdpsim.Status(503))), flip},
		{"sweep · last page · the call fails", on(3, fails(isdpsim.Truncated(100))), flip},
		{"forming · before the commit is sent · the process dies",
			func(r *rig, p *process, die func()) {
				p.hooks.set(func(h *hooks) {
					h.before = func(b publisher.Batch) error {
						if len(b.Events) > 0 {
							die()
						}
						return nil
					}
				})
			}, flip},
		{"forming · before the commit is sent · it is superseded",
			func(r *rig, p *process, die func()) {
				fire := once(die)
				var used sync.Once
				p.hooks.set(func(h *hooks) {
					h.before = func(b publisher.Batch) (err error) {
						if len(b.Events) > 0 {
							used.Do(func() {
								err = fmt.Errorf("staged: %w", publisher.ErrSuperseded)
								fire()
							})
						}
						return err
					}
				})
			}, flip},
		{"advancing · after the acknowledgement · the process dies",
			func(r *rig, p *process, die func()) {
				p.hooks.set(func(h *hooks) {
					h.after = func(b publisher.Batch, err error) error {
						if len(b.Events) > 0 && err == nil {
							die()
						}
						return err
					}
				})
			}, flip},
		{"advancing · after the acknowledgement · taken for superseded",
			func(r *rig, p *process, die func()) {
				fire := once(die)
				var used sync.Once
				p.hooks.set(func(h *hooks) {
					h.after = func(b publisher.Batch, err error) error {
						if len(b.Events) > 0 && err == nil {
							used.Do(func() {
								err = fmt.Errorf("staged: %w", publisher.ErrSuperseded)
								fire()
							})
						}
						return err
					}
				})
			}, flip},
		{"advancing · after a plain watermark · the process dies",
			func(r *rig, p *process, die func()) {
				p.hooks.set(func(h *hooks) {
					h.after = func(b publisher.Batch, err error) error {
						if len(b.Events) == 0 && err == nil {
							die()
						}
						return err
					}
				})
			}, func(*rig) {}},
		{"takeover · after its watermark · the process dies", nil, nil},
	}
	var results table
	var names []string
	for _, c := range cases {
		names = append(names, c.name)
	}
	side(t, cases, func(c seamCase) string { return c.name }, func(t *testing.T, c seamCase) {
		r := newRig(t, nil, 90, 886) // four pages
		p := r.start()
		r.settle(p)
		happened := make(chan struct{})
		dies := strings.HasSuffix(c.name, "dies")
		target := p
		fire := sync.OnceFunc(func() {
			if dies {
				target.die()
			}
			close(happened)
		})
		if c.arm == nil {
			p.stop()
			r.flip(r.agents[:flippers]...)
			p = r.newProcess()
			target = p
			p.hooks.took = func(_ *publisher.Recovered, err error) error {
				if err == nil {
					fire()
				}
				return err
			}
			p.start()
		} else {
			c.arm(r, p, fire)
			c.at(r)
		}
		select {
		case <-happened:
		case <-time.After(wait.Patience):
			t.Fatal("the fault did not happen")
		}
		if dies {
			r.flip(r.agents[2:flippers]...)
			p = r.start()
		}
		p.sees()
		r.flip(r.agents[:3]...)
		report := r.finish(p)
		results.add(result{c.name, report.Stats.Events, report.Stats.Watermarks, t.Failed()})
	})
	results.log(t, names)
}
