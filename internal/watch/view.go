package watch

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rollcall-events/rollcall/internal/agenttype"
	"github.com/rollcall-events/rollcall/internal/plain"
	"github.com/rollcall-events/rollcall/internal/setting"
	"github.com/rollcall-events/rollcall/schemas"
)

// A view is what is shown. Its methods write into out; flush brings that to the reader.
type view struct {
	cfg *Config
	out bytes.Buffer

	agents    map[int64]*schemas.Event // the last event of each, as far as it has been shown
	there     int                      // of them, those of Types that are there
	online    int                      // of those, those on duty
	watermark *schemas.Watermark
	health    *schemas.Health

	begun    bool   // the table has been shown
	stale    bool   // the last line about it said STALE
	lost     string // why the stream can't be read; empty: it can
	lostAt   time.Time
	waiting  string // what is waited for before the table
	day      string // of the last line
	unusable error  // why this can't go on
	drawn    string // the status line on the screen
}

func newView(cfg *Config) *view {
	v := &view{cfg: cfg, agents: map[int64]*schemas.Event{}}
	v.day = v.now().Format(time.DateOnly)
	return v
}

func (v *view) now() time.Time { return v.cfg.Now().In(v.cfg.Zone) }

// A do runs a function on the view, and brings what it has written to the reader.
type do func(func(*view))

// run lets source change the view until it returns, and redraws it every second.
func (v *view) run(ctx context.Context, source func(context.Context, do) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var mu sync.Mutex
	do := func(change func(*view)) {
		mu.Lock()
		defer mu.Unlock()
		if ctx.Err() != nil {
			return
		}
		change(v)
		v.checkStale()
		if err := cmp.Or(v.unusable, v.flush(v.status())); err != nil {
			cancel(err)
		}
	}
	var ticking sync.WaitGroup
	ticking.Go(func() {
		second := time.NewTicker(time.Second)
		defer second.Stop()
		for {
			select {
			case <-second.C:
				do(func(*view) {})
			case <-ctx.Done():
				return
			}
		}
	})
	err := source(ctx, do)
	if ctx.Err() != nil { // then err only repeats it
		err = context.Cause(ctx)
	}
	cancel(nil)
	ticking.Wait()
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	if flushErr := v.flush(""); err == nil {
		err = flushErr
	}
	if errors.Is(err, syscall.EPIPE) { // nobody reads any more
		return nil
	}
	return err
}

// flush writes everything at once, so that a terminal does not flicker.
func (v *view) flush(status string) error {
	text := v.out.String()
	v.out.Reset()
	if !v.cfg.Live {
		status = ""
	}
	if text == "" && status == v.drawn {
		return nil
	}
	if v.cfg.Live {
		text = "\r\x1b[2K" + text + status
		v.drawn = status
	}
	if _, err := v.cfg.Out.Write([]byte(text)); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// greet says what is watched, once it is known.
func (v *view) greet(tenant int64) {
	v.waiting = ""
	of := ""
	if len(v.cfg.Types) > 0 {
		of = ", only " + typeNames(v.cfg.Types)
	}
	v.println(bold, fmt.Sprintf("Tenant %d at %s%s", tenant, plain.Clean(v.cfg.Server), of))
}

// reload takes in all states, at the beginning and after an interruption, and shows what changed
// meanwhile.
func (v *view) reload(all []*schemas.Event, w *schemas.Watermark, h *schemas.Health) {
	v.watermark = w
	v.back()
	before := v.agents
	v.agents, v.there, v.online = make(map[int64]*schemas.Event, len(all)), 0, 0
	if !v.begun {
		for _, e := range all {
			v.put(e.Data.Agent.AgentID, e)
		}
		v.health = h
		v.begin()
		return
	}
	v.setHealth(h)
	slices.SortStableFunc(all, func(a, b *schemas.Event) int { return a.Time.Compare(b.Time) })
	for _, e := range all {
		id := e.Data.Agent.AgentID
		was := before[id]
		v.put(id, was)
		if was == nil || was.Data.Revision != e.Data.Revision || !was.Time.Equal(e.Time) {
			v.state(e)
		}
	}
}

// put takes in an agent's last event, and counts it.
func (v *view) put(id int64, e *schemas.Event) {
	v.count(v.agents[id], -1)
	v.agents[id] = e
	v.count(e, 1)
}

func (v *view) count(e *schemas.Event, n int) {
	if e == nil || !v.shows(e) || e.Data.Reason == schemas.Removed {
		return
	}
	v.there += n
	if e.Data.Online {
		v.online += n
	}
}

// shows reports whether the agent is of one of Types.
func (v *view) shows(e *schemas.Event) bool {
	return e != nil &&
		(len(v.cfg.Types) == 0 || slices.Contains(v.cfg.Types, e.Data.Agent.TypeToken()))
}

// onDuty counts the agents that are shown. Of all, the watermark knows it best.
func (v *view) onDuty() string {
	if len(v.cfg.Types) == 0 {
		return fmt.Sprintf("%d of %d", v.watermark.Online, v.watermark.Agents)
	}
	return fmt.Sprintf("%d of %d", v.online, v.there)
}

// begin shows the table, as soon as the states in the stream are all agents, or will not soon be.
func (v *view) begin() {
	w, failing := v.watermark, v.health != nil && v.health.State != schemas.HealthOK
	swept := w != nil && w.Sweep > 0
	if !swept && !failing {
		v.wait("for the first complete sweep of the vendor's listing")
		return
	}
	var empty []string // of Types, those that nobody has
	if swept {
		if empty = v.withoutAgents(); v.unusable != nil {
			return
		}
	}
	v.begun, v.waiting = true, ""
	now := v.now()
	if !v.cfg.NoTable {
		v.println("", "")
		shown := slices.DeleteFunc(slices.Collect(maps.Values(v.agents)),
			func(e *schemas.Event) bool { return !v.shows(e) })
		for i, line := range table(shown, now) {
			style := ""
			if i == 0 {
				style = bold
			}
			v.println(style, v.fit(line, 0))
		}
		v.println("", "")
	}
	summary := "the whole listing has never been read"
	if swept {
		summary = fmt.Sprintf("%s agents on duty, %s", v.onDuty(), v.asOf(now))
		ofAll := ""
		if len(v.cfg.Types) > 0 {
			ofAll = " of all types"
		}
		if w.Missing > 0 {
			summary += fmt.Sprintf(", %d missing%s", w.Missing, ofAll)
		}
		if w.Rejected > 0 {
			summary += fmt.Sprintf(", %d unusable%s", w.Rejected, ofAll)
		}
	}
	v.println("", summary)
	if len(empty) > 0 {
		v.notice(warning, "NOBODY", fmt.Sprintf("no agent is of type %s; the stream has %s",
			typeNames(empty), v.typesThere()))
	}
	v.stale = !swept // the summary says so
	if failing {
		v.tellHealth()
	}
	v.checkStale()
	v.println(dim, "Changes from here on. Ctrl-C ends it.")
	v.println("", "")
}

// withoutAgents are those of Types that no agent has. A word that is no name of a type has to be
// somebody's: it may be mistyped.
func (v *view) withoutAgents() (empty []string) {
	has := v.counts()
	for _, t := range v.cfg.Types {
		switch {
		case has[t] > 0:
		case agenttype.IsNumber(t), t == schemas.NoType:
			empty = append(empty, t)
		default:
			v.unusable = &setting.Error{Field: "--type", Value: t,
				Want: "a name, or a type that an agent has: the stream has " + v.typesThere()}
		}
	}
	return empty
}

// counts are how many agents are there by type.
func (v *view) counts() map[string]int {
	by := make(map[string]int)
	for _, e := range v.agents {
		if e != nil && e.Data.Reason != schemas.Removed {
			by[e.Data.Agent.TypeToken()]++
		}
	}
	return by
}

// typesThere lists the types that agents have, the most frequent first.
func (v *view) typesThere() string {
	const most = 10
	by := v.counts()
	types := slices.SortedFunc(maps.Keys(by), func(a, b string) int {
		return cmp.Or(by[b]-by[a], strings.Compare(a, b))
	})
	var names []string
	for _, t := range types[:min(len(types), most)] {
		name := agenttype.Short(t)
		if name != t {
			name += " (" + t + ")"
		}
		names = append(names, name)
	}
	if len(types) > most {
		names = append(names, "…")
	}
	return cmp.Or(strings.Join(names, ", "), "no agents")
}

// unpolled are those of Types whose agents nobody asks the vendor for.
func (v *view) unpolled() (types []string) {
	w := v.watermark
	for _, t := range v.cfg.Types {
		if len(w.Polled) > 0 && t != schemas.NoType && !slices.Contains(w.Polled, t) {
			types = append(types, t)
		}
	}
	return types
}

// state takes in an agent's new state, and shows the change.
func (v *view) state(e *schemas.Event) {
	id := e.Data.Agent.AgentID
	before := v.agents[id]
	v.put(id, e)
	if v.begun && (v.shows(before) || v.shows(e)) {
		kind, text := describe(before, e)
		v.change(e.Time, e, kind, text)
	}
}

func (v *view) change(at time.Time, e *schemas.Event, kind, text string) {
	a := &e.Data.Agent
	text = fmt.Sprintf("%5d  %s  %s", a.AgentID,
		plain.Pad(plain.Value(a.AgentName), 12, false), text)
	v.line(at, changeStyles[kind], kind, v.fit(text, len("15:04:05  updated  ")))
}

// setWatermark takes in a new watermark.
func (v *view) setWatermark(w *schemas.Watermark) {
	v.watermark = w
	if !v.begun {
		v.begin()
	}
}

// setHealth takes in the tenant's health, and shows it where it differs.
func (v *view) setHealth(h *schemas.Health) {
	was := v.health
	v.health = h
	switch {
	case !v.begun:
		v.begin()
	case h != nil && (was == nil || *was != *h):
		v.tellHealth()
	}
}

func (v *view) tellHealth() {
	h := v.health
	style, text := alarm, ""
	switch h.State {
	case schemas.HealthOK:
		style, text = good, "the vendor's listing can be read"
	case schemas.HealthHolding:
		style = warning
	}
	for _, part := range []string{string(h.Reason), h.Detail} {
		if part == "" {
			continue
		}
		if text != "" {
			text += ": "
		}
		text += plain.Cut(plain.Clean(part), 500)
	}
	text += ", since " + plain.Clock(h.Since, v.now())
	v.notice(style, plain.Clean(strings.ToUpper(string(h.State))), text)
}

// checkStale tells when the next complete sweep, or the next watermark, is overdue, and when that
// is over. Time alone makes it so.
func (v *view) checkStale() {
	now := v.now()
	stale := v.isStale(now)
	if stale == v.stale || !v.begun {
		return
	}
	v.stale = stale
	switch w := v.watermark; {
	case !stale:
		v.notice(good, "FRESH", v.asOf(now))
	case w == nil || w.Sweep == 0:
		v.notice(alarm, "STALE", "the stream knows of no complete sweep")
	case len(v.unpolled()) > 0:
		v.notice(alarm, "STALE", fmt.Sprintf("rollcall does not poll %s, only %s: its agents stay "+
			"as they were last seen", typeNames(v.unpolled()), typeNames(w.Polled)))
	default:
		v.notice(alarm, "STALE", v.asOf(now)+"; a newer one was due at "+
			plain.Clock(w.TrustedUntil(), now))
	}
}

func (v *view) isStale(now time.Time) bool {
	w := v.watermark
	return w == nil || w.Sweep == 0 || now.After(w.TrustedUntil()) || len(v.unpolled()) > 0
}

func (v *view) asOf(now time.Time) string {
	started := v.watermark.StartedAt
	s := fmt.Sprintf("as of %s (%s ago)", plain.Clock(started, now), plain.Span(now.Sub(started)))
	if glanced := v.glanced(now); glanced != "" {
		s += ", " + glanced
	}
	return s
}

// glanced says how long ago the last complete glance began; "": none has since the last complete
// sweep did, which saw more.
func (v *view) glanced(now time.Time) string {
	if w := v.watermark; w.GlancedAt.After(w.StartedAt) {
		return "glanced " + plain.Span(now.Sub(w.GlancedAt)) + " ago"
	}
	return ""
}

// wait tells once what is waited for.
func (v *view) wait(what string) {
	if v.waiting != what {
		v.waiting = what
		v.notice(warning, "WAITING", what)
	}
}

// lose tells that the stream can't be read, and again where the reason becomes another.
func (v *view) lose(why string) {
	if v.lost == "" {
		v.lostAt = v.now()
	}
	if v.lost != why {
		v.lost = why
		v.notice(alarm, "LOST", why+"; trying again")
	}
}

// back tells that the stream can be read again.
func (v *view) back() {
	if v.lost != "" {
		v.notice(good, "BACK", "after "+plain.Span(v.now().Sub(v.lostAt)))
		v.lost = ""
	}
}

// bad tells of a message that is not what its subject says.
func (v *view) bad(err error) {
	v.notice(warning, "BAD", plain.Cut(plain.Clean(err.Error()), 500))
}

// notice shows what an operator has to know now. Unlike changes, it is not cut.
func (v *view) notice(style, word, text string) { v.line(v.now(), style, word, text) }

// line shows a line that begins with a time and a word.
func (v *view) line(at time.Time, style, word, text string) {
	at = at.In(v.cfg.Zone)
	if day := at.Format(time.DateOnly); day > v.day {
		v.day = day
		v.println(dim, "-- "+day+" --")
	}
	word = plain.Pad(word, len("updated"), false)
	v.println("", at.Format(time.TimeOnly)+plain.Gap+v.paint(style, word)+plain.Gap+text)
}

func (v *view) println(style, s string) {
	v.out.WriteString(v.paint(style, s) + "\n")
}

// fit cuts a clean string at the edge of the screen. It begins in the given column.
func (v *view) fit(s string, column int) string {
	if v.cfg.Width == nil || v.cfg.Width() == 0 {
		return s
	}
	return plain.Cut(s, v.cfg.Width()-column)
}

// status is the last line of a terminal: whether this can be trusted now.
func (v *view) status() string {
	if !v.cfg.Live {
		return ""
	}
	now, w, h := v.now(), v.watermark, v.health
	swept := w != nil && w.Sweep > 0
	style := good
	var parts []string
	if v.lost != "" {
		style = alarm
		parts = append(parts, "LOST for "+plain.Span(now.Sub(v.lostAt)))
	}
	switch {
	case !v.begun:
		style = warning
		parts = append(parts, cmp.Or(v.waiting, "reading the stream"))
	case !swept:
		style = warning
		parts = append(parts, "no complete sweep yet")
	case len(v.unpolled()) > 0:
		style = alarm
		parts = append(parts, "STALE, not polled: "+typeNames(v.unpolled()))
	case v.isStale(now):
		style = alarm
		parts = append(parts, "STALE, "+plain.Span(now.Sub(w.StartedAt))+" old")
	default:
		parts = append(parts, "fresh, "+plain.Span(now.Sub(w.StartedAt))+" old")
	}
	if swept && v.begun {
		if glanced := v.glanced(now); glanced != "" {
			parts = append(parts, glanced)
		}
	}
	if h != nil && h.State != schemas.HealthOK {
		if style == good {
			style = warning
		}
		parts = append(parts,
			plain.Clean(strings.ToUpper(string(h.State))+" ("+string(h.Reason)+")"))
	}
	if v.begun && w != nil {
		parts = append(parts, v.onDuty()+" on duty")
		if len(v.cfg.Types) > 0 {
			parts = append(parts, typeNames(v.cfg.Types))
		}
		if w.Missing > 0 {
			parts = append(parts, strconv.Itoa(w.Missing)+" missing")
		}
		parts = append(parts, fmt.Sprintf("tenant %d", w.TenantID))
	}
	return v.paint(style, v.fit(" "+strings.Join(parts, " | ")+" ", 1)) // the cursor needs a column
}

// Styles, as SGR codes.
const (
	bold    = "1"
	dim     = "2"
	good    = "32"
	warning = "33"
	alarm   = "1;37;41"
	blue    = "36"
)

var changeStyles = map[string]string{"online": good, "offline": warning, "updated": blue}

func (v *view) paint(style, s string) string {
	if !v.cfg.Color || style == "" || s == "" {
		return s
	}
	return "\x1b[" + style + "m" + s + "\x1b[0m"
}
