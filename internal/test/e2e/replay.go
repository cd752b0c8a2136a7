//go:build unix

package e2e

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// WireTime is how every time in the log is written.
const WireTime = "2006-01-02T15:04:05.000Z"

var wireTime = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`)

// Event is what a replay needs of an event.
type Event struct {
	Type    string
	Subject string
	ID      string
	Time    string
	Data    struct {
		Revision                        uint64
		Reason                          string
		Sweep                           uint64
		Online                          bool
		NotBefore, Since, PreviousSince string
		Agent                           struct {
			AgentID  int64
			TenantID int64
			Type     *string
		}
	}
}

// Watermark is a watermark; times that are absent are empty.
type Watermark struct {
	TenantID                           int64
	Sweep                              uint64
	StartedAt, CompletedAt, StaleAfter string
	Agents, Online, Missing, Rejected  int
	Instance                           string
	Commit                             struct {
		ID       string
		Messages int
	}
	InProgress *struct{ Sweep uint64 }
}

// Health is a health message.
type Health struct {
	TenantID                     int64
	State, Since, Reason, Detail string
}

// Replayed is what the messages of one tenant's log come to.
type Replayed struct {
	Events, Commits int
	States          map[int64]string // the last state of each agent
	Watermark       string           // the last one
	Health          []Health         // all of them
	Problems        []string         // where the messages break the contract
}

type replay struct {
	Replayed
	maxAge  string
	agents  map[int64]*replayed
	commits map[string]bool
	last    Watermark
	sweep   uint64
	health  Health

	// Of the commit under way.
	messages int
	changed  map[int64]string // its agents: the last event's body
}

type replayed struct {
	Event
	removed bool
}

// Replay goes through all messages of one tenant's log, as a plain subscriber has them: none left
// out, none rolled up. It checks what the contract says of the messages by themselves, whatever the
// tenant did: whole commits, revisions without gap, alternation, states that equal the last event,
// watermarks that replay to the states. maxAge is the log's, for Nats-TTL.
func Replay(msgs []Msg, maxAge time.Duration) Replayed {
	r := &replay{
		maxAge: strconv.FormatInt(int64(maxAge/time.Second), 10), agents: make(map[int64]*replayed),
		commits: make(map[string]bool), changed: make(map[int64]string),
	}
	r.States = make(map[int64]string)
	for i, m := range msgs {
		if i > 0 && m.Seq != msgs[i-1].Seq+1 {
			r.bad(m, "comes after message %d", msgs[i-1].Seq)
		}
		r.message(m)
	}
	if r.messages > 0 {
		r.Problems = append(r.Problems, fmt.Sprintf("the last %d messages have no watermark behind them", r.messages))
	}
	return r.Replayed
}

func (r *replay) bad(m Msg, format string, args ...any) {
	r.Problems = append(r.Problems, fmt.Sprintf("message %d, %s: ", m.Seq, m.Subject)+fmt.Sprintf(format, args...))
}

func (r *replay) message(m Msg) {
	r.messages++
	r.headers(m)
	switch kind := m.Tokens()[1]; {
	case m.IsEvent():
		r.event(m)
	case kind == "state":
		r.state(m)
	case kind == "health":
		r.healthMessage(m)
	case kind == "watermark":
		r.watermark(m)
	default:
		r.bad(m, "is none of the log's subjects")
	}
}

func (r *replay) headers(m Msg) {
	kind := m.Tokens()[1]
	content, ttl, rollup := "application/json", "", "sub"
	if m.IsEvent() || kind == "state" {
		content = "application/cloudevents+json"
	}
	if m.IsEvent() {
		ttl, rollup = r.maxAge, ""
	}
	for _, h := range []struct{ name, want string }{{"Content-Type", content}, {"Nats-TTL", ttl}, {"Nats-Rollup", rollup}} {
		if got := strings.Join(m.Header[h.name], ","); got != h.want {
			r.bad(m, "%s is %q, want %q", h.name, got, h.want)
		}
	}
}

func (r *replay) event(m Msg) {
	r.Events++
	var e Event
	if err := json.Unmarshal([]byte(m.Body), &e); err != nil {
		r.bad(m, "%v", err)
		return
	}
	d, id := &e.Data, e.Data.Agent.AgentID
	typ := "_"
	if d.Agent.Type != nil && regexp.MustCompile(`^[A-Za-z0-9-]{1,32}$`).MatchString(*d.Agent.Type) {
		typ = *d.Agent.Type
	}
	if want := fmt.Sprintf("%s.%d.%s.%d", e.Type, d.Agent.TenantID, typ, id); m.Subject != want {
		r.bad(m, "want subject %s", want)
	}
	if want := fmt.Sprintf("%d-%d-%d", d.Agent.TenantID, id, d.Revision); e.ID != want || e.Subject != strconv.FormatInt(id, 10) {
		r.bad(m, "id %s and subject %s, want id %s", e.ID, e.Subject, want)
	}
	for name, t := range map[string]string{"time": e.Time, "notBefore": d.NotBefore, "since": d.Since, "previousSince": d.PreviousSince} {
		if (t != "" || name == "time" || name == "since") && !wireTime.MatchString(t) {
			r.bad(m, "%s is %q", name, t)
		}
	}
	if d.NotBefore > e.Time { // times of this form sort as strings
		r.bad(m, "notBefore %s is after its time %s", d.NotBefore, e.Time)
	}
	if d.Sweep < r.sweep || d.Sweep == 0 {
		r.bad(m, "sweep %d after %d", d.Sweep, r.sweep)
	}
	r.sweep = d.Sweep
	prev := r.agents[id]
	if prev == nil {
		prev = &replayed{removed: true}
	}
	if d.Revision != prev.Data.Revision+1 {
		r.bad(m, "revision %d after %d", d.Revision, prev.Data.Revision)
	}
	if e.Time < prev.Time {
		r.bad(m, "time %s after %s", e.Time, prev.Time)
	}
	want, since, previous := "agent.updated", prev.Data.Since, ""
	switch {
	case d.Online && !prev.Data.Online:
		want = "agent.online"
	case !d.Online && prev.Data.Online:
		want = "agent.offline"
	}
	if want != "agent.updated" || d.Revision == 1 {
		since, previous = e.Time, prev.Data.Since
	}
	if e.Type != want {
		r.bad(m, "type %s, want %s", e.Type, want)
	}
	if d.Since != since || d.PreviousSince != previous {
		r.bad(m, "since %q and previousSince %q, want %q and %q", d.Since, d.PreviousSince, since, previous)
	}
	if first := d.Reason == "baseline" || d.Reason == "appeared"; first != prev.removed || d.Reason == "baseline" && d.Revision != 1 {
		r.bad(m, "reason %s, revision %d, and removed before: %t", d.Reason, d.Revision, prev.removed)
	}
	r.agents[id] = &replayed{e, d.Reason == "removed"}
	r.changed[id] = m.Body
}

func (r *replay) state(m Msg) {
	id, err := strconv.ParseInt(m.Tokens()[3], 10, 64)
	if err != nil {
		r.bad(m, "%v", err)
		return
	}
	if body, ok := r.changed[id]; !ok || body != m.Body {
		r.bad(m, "its body is not that of the agent's last event in the commit (%t)", ok)
	}
	delete(r.changed, id)
	r.States[id] = m.Body
}

func (r *replay) healthMessage(m Msg) {
	var h Health
	if err := json.Unmarshal([]byte(m.Body), &h); err != nil {
		r.bad(m, "%v", err)
		return
	}
	if !wireTime.MatchString(h.Since) || h.State == r.health.State && h.Reason == r.health.Reason || (h.State == "ok") != (h.Reason == "") {
		r.bad(m, "%+v after %+v", h, r.health)
	}
	r.health = h
	r.Health = append(r.Health, h)
}

func (r *replay) watermark(m Msg) {
	r.Commits++
	var w Watermark
	if err := json.Unmarshal([]byte(m.Body), &w); err != nil {
		r.bad(m, "%v", err)
		return
	}
	if w.Commit.Messages != r.messages {
		r.bad(m, "commit.messages is %d, and it is the last of %d", w.Commit.Messages, r.messages)
	}
	if r.commits[w.Commit.ID] || w.Commit.ID == "" {
		r.bad(m, "the commit's id %q is not its own", w.Commit.ID)
	}
	r.commits[w.Commit.ID] = true
	for id := range r.changed {
		r.bad(m, "the commit has an event of agent %d and no state", id)
	}
	agents, online := 0, 0
	for _, a := range r.agents {
		if !a.removed {
			agents++
		}
		if a.Data.Online {
			online++
		}
	}
	if w.Agents != agents || w.Online != online {
		r.bad(m, "%d agents, %d online; the events say %d and %d", w.Agents, w.Online, agents, online)
	}
	for name, t := range map[string]string{"startedAt": w.StartedAt, "completedAt": w.CompletedAt, "staleAfter": w.StaleAfter} {
		if (w.Sweep == 0) != (t == "") || t != "" && !wireTime.MatchString(t) {
			r.bad(m, "sweep %d and %s %q", w.Sweep, name, t)
		}
	}
	if w.StartedAt > w.CompletedAt || w.CompletedAt > w.StaleAfter || w.Sweep < r.last.Sweep || w.InProgress != nil && w.InProgress.Sweep <= w.Sweep {
		r.bad(m, "%s after %+v", m.Body, r.last)
	}
	figures := func(w Watermark) string {
		return fmt.Sprint(w.Sweep, w.StartedAt, w.CompletedAt, w.StaleAfter, w.Missing, w.Rejected)
	}
	if w.Sweep == r.last.Sweep && r.Watermark != "" && figures(w) != figures(r.last) {
		r.bad(m, "only a complete sweep moves a figure: %s after %+v", m.Body, r.last)
	}
	if w.InProgress == nil && w.Sweep < r.sweep {
		r.bad(m, "sweep %d is said to be published, and there are events of %d", w.Sweep, r.sweep)
	}
	r.last = w
	r.Watermark = m.Body
	r.messages = 0
	clear(r.changed)
}

// SameLog compares what a plain subscriber has had of a log, from its first message on, with what
// the log now holds, and tells every difference: the log must have every event, and of every other
// subject the last message.
func SameLog(live, stored []Msg) []string {
	var problems []string
	last := make(map[string]uint64)
	for _, m := range live {
		last[m.Subject] = m.Seq
	}
	want := make(map[uint64]Msg)
	for _, m := range live {
		if m.IsEvent() || last[m.Subject] == m.Seq {
			want[m.Seq] = m
		}
	}
	for _, m := range stored {
		w, ok := want[m.Seq]
		delete(want, m.Seq)
		switch {
		case !ok:
			problems = append(problems, fmt.Sprintf("message %d, %s: in the log, and no plain subscriber should find it there", m.Seq, m.Subject))
		case w.Subject != m.Subject || w.Body != m.Body:
			problems = append(problems, fmt.Sprintf("message %d: %s in the log, %s on the plain subscription:\n%s\n%s", m.Seq, m.Subject, w.Subject, m.Body, w.Body))
		case own(w.Header) != own(m.Header):
			problems = append(problems, fmt.Sprintf("message %d, %s: headers %s in the log, %s on the plain subscription", m.Seq, m.Subject, own(m.Header), own(w.Header)))
		}
	}
	for seq, m := range want {
		problems = append(problems, fmt.Sprintf("message %d, %s: not in the log", seq, m.Subject))
	}
	return problems
}

// own are the headers that a message was published with.
func own(h nats.Header) string {
	all := make(map[string][]string)
	for name, values := range h {
		switch name {
		case "Nats-Stream", "Nats-Subject", "Nats-Sequence", "Nats-Last-Sequence", "Nats-Time-Stamp", "Nats-Num-Pending":
		default:
			all[name] = values
		}
	}
	return fmt.Sprint(all) // sorted
}
