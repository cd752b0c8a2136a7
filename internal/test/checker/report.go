package checker

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Rule names the part of the contract that a violation breaks.
type Rule string

// The rules.
const (
	RuleSetup    Rule = "setup"    // the checker can't work with what it was given
	RuleStream   Rule = "stream"   // nothing that was committed gets lost or changes
	RuleEnvelope Rule = "envelope" // every message is well-formed, complete, and where it belongs
	RuleRevision Rule = "revision" // 1, 2, 3 … for every agent, in the order of the stream
	// online and offline alternate; type and data.online follow from the agent
	RuleType      Rule = "type"
	RuleReason    Rule = "reason"    // the reason is what happened
	RuleTime      Rule = "time"      // an agent's times and sweeps never go back
	RuleSince     Rule = "since"     // since and previousSince are a chain
	RuleChanges   Rule = "changes"   // exactly what differs from the revision before
	RuleQuiet     Rule = "quiet"     // quiet fields alone make no event
	RuleShown     Rule = "shown"     // no event says what was not shown within its time
	RuleNotBefore Rule = "notBefore" // the state before was still shown then
	// who is removed for being absent was missing from several complete sweeps in a row
	RuleAbsence Rule = "absence"
	RuleGuard   Rule = "guard"   // nor too many at once, before they were held
	RuleListing Rule = "listing" // of two listings that show an agent, the one to go by counts
	// events, their states, one watermark in the end: all or nothing
	RuleCommit    Rule = "commit"
	RuleState     Rule = "state"     // a state is its agent's last event, byte for byte
	RuleWatermark Rule = "watermark" // its figures replay, its sweeps never go back
	// where nobody looked the stream says so, once, and nowhere else
	RuleUnobserved Rule = "unobserved"
	// a complete sweep's watermark never says more than is published
	RuleFresh  Rule = "fresh"
	RuleLasted Rule = "lasted" // what lasted is in the stream
	RuleFinal  Rule = "final"  // at rest, states are the truth
)

// A Violation is one breach of the contract.
type Violation struct {
	Rule  Rule
	Agent int64  // 0: none in particular
	Seq   uint64 // the message that shows it; 0: none in particular
	Text  string // what is wrong, in a sentence
	// what led to it, a line for each change of the tenant and each event; may be empty
	Story string
}

func (v Violation) String() string {
	s := string(v.Rule)
	if v.Seq != 0 {
		s += fmt.Sprintf(" at #%d", v.Seq)
	}
	if v.Agent != 0 {
		s += fmt.Sprintf(", agent %d", v.Agent)
	}
	if s += ": " + v.Text; v.Story != "" {
		s += "\n\t" + strings.ReplaceAll(v.Story, "\n", "\n\t")
	}
	return s
}

// Stats is how much there was to check, so that a test can see that it was no empty exercise.
type Stats struct {
	Messages, Events, Agents int
	Lost                     int // messages that the broker lost, where a Rollback allows it
	Commits, WholeCommits    int // those seen at all, and those of which every message is known
	Watermarks               int // known ones
	CompleteSweeps           int // of those, the first ones of a complete sweep
	Unobserved               int // intervals
	Removals                 int // events of agents that left the listing
	Changes, Pages           int // of the tenant
	Lasting                  int // states that lasted longer than the bound
	Final                    int // agents compared at rest
}

// Report is what Check found.
type Report struct {
	Violations []Violation // by their place in the stream; those that have none last
	More       int         // violations beyond Options.MaxViolations
	Stats      Stats
}

// Err is nil where nothing was found, and otherwise has the first violations.
func (r *Report) Err() error {
	if len(r.Violations) == 0 {
		return nil
	}
	const most = 5
	var b strings.Builder
	fmt.Fprintf(&b, "the stream breaks the contract %d times:", len(r.Violations)+r.More)
	for i, v := range r.Violations {
		if i == most {
			b.WriteString("\n…")
			break
		}
		b.WriteString("\n" + v.String())
	}
	return errors.New(b.String())
}

func (c *check) report(rule Rule, agent int64, seq uint64, format string, args ...any) {
	if len(c.out.Violations) >= c.opt.MaxViolations {
		c.out.More++
		return
	}
	c.out.Violations = append(c.out.Violations,
		Violation{Rule: rule, Agent: agent, Seq: seq, Text: fmt.Sprintf(format, args...)})
}

func (c *check) reportEvent(rule Rule, e *event, format string, args ...any) {
	c.report(rule, e.agent.id, e.msg.Seq, format, args...)
}

// finish sorts the violations and adds their stories.
func (c *check) finish() *Report {
	slices.SortStableFunc(c.out.Violations, func(a, b Violation) int {
		switch {
		case a.Seq == b.Seq:
			return 0
		case a.Seq != 0 && (a.Seq < b.Seq || b.Seq == 0):
			return -1
		}
		return 1
	})
	for i := range c.out.Violations {
		v := &c.out.Violations[i]
		v.Story = c.story(v.Agent, v.Seq)
	}
	return c.out
}

// story is an agent's last changes and events up to a message; 0: all the way.
func (c *check) story(id int64, seq uint64) string {
	const most = 4
	if id == 0 {
		return ""
	}
	events := c.byAgent[id]
	if i := slices.IndexFunc(events, func(e *event) bool {
		return e.msg.Seq > seq
	}); seq != 0 && i >= 0 {
		events = events[:i]
	}
	var until time.Time
	if len(events) > 0 && seq != 0 {
		until = events[len(events)-1].time.Add(c.opt.slack())
	}
	type line struct {
		at   time.Time
		text string
	}
	var lines []line
	for _, s := range c.history.agents[id] {
		if until.IsZero() || !s.from.After(until) {
			lines = append(lines, line{s.from, "tenant: " + s.text})
		}
	}
	lines = lines[max(0, len(lines)-most):]
	for _, e := range events[max(0, len(events)-most):] {
		lines = append(lines, line{e.time, c.rules.describeEvent(e)})
	}
	slices.SortStableFunc(lines, func(a, b line) int { return a.at.Compare(b.at) })
	var b strings.Builder
	for i, l := range lines {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(clock(l.at) + " " + l.text)
	}
	return b.String()
}

func clock(t time.Time) string {
	if t.IsZero() {
		return "the beginning"
	}
	return t.UTC().Format("15:04:05.000")
}

// describeEvent is an event for people.
func (r rules) describeEvent(e *event) string {
	s := fmt.Sprintf("#%d revision %d %s (%s, sweep %d", e.msg.Seq, e.rev, e.kind, e.reason,
		e.sweep)
	if !e.notBefore.IsZero() {
		s += ", not before " + clock(e.notBefore)
	}
	return s + ")" + r.describeChanges(e.changes)
}

// describeChanges are some changes for people: quiet fields are left out, unless there is nothing
// else.
func (r rules) describeChanges(changes []change) (s string) {
	significant := slices.DeleteFunc(slices.Clone(changes), func(c change) bool {
		return r.isQuiet(c.field)
	})
	if len(significant) == 0 {
		significant = changes
	}
	for i, c := range significant {
		if i == 4 {
			return s + " …"
		}
		s += fmt.Sprintf(" %s %s→%s", c.field, brief(c.from), brief(c.to))
	}
	return s
}

// brief is a normalised value for people.
func brief(v string) string {
	if v == "" {
		return "∅"
	}
	if v != wild {
		v = v[1:]
	}
	if r := []rune(v); len(r) > 24 {
		v = string(r[:24]) + "…"
	}
	return v
}
