package watch

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rollcall-events/rollcall/schemas"
)

// A view is what is shown, and what it takes to show it. One goroutine has it. Its methods write
// into out and notes; flush brings that to the reader.
type view struct {
	cfg   *Config
	out   bytes.Buffer
	notes bytes.Buffer // for cfg.Notes

	// What the log says, as far as it has been told.
	known     map[int64]*schemas.Event // agents, where they are followed and not only their events
	agents    int                      // of the known ones, those that are there and asked for
	online    int                      // of those, those on duty
	watermark *schemas.Watermark
	health    *schemas.Health

	begun   bool   // the state has been shown
	stale   bool   // that has been told, and is still so
	lost    string // why nothing is heard at present; empty while all is well
	lostAt  time.Time
	waits   string // what has been told that is waited for
	day     string // of the last line that began with a time
	table   *table
	idWidth int
	name    int    // width of the names in lines
	drawn   string // the status line that is on the screen
}

func newView(cfg *Config) *view {
	v := &view{cfg: cfg, known: map[int64]*schemas.Event{}, idWidth: 5, name: 8}
	v.day = v.now().Format(time.DateOnly)
	return v
}

func (v *view) now() time.Time { return v.cfg.Now().In(v.cfg.Zone) }

// greet says what is watched, once it is known.
func (v *view) greet(tenant int64) {
	v.waits = ""
	if v.cfg.JSON {
		return
	}
	told := fmt.Sprintf("Tenant %d at %s", tenant, clean(v.cfg.Where))
	if v.cfg.Type != "" {
		told += ", only type " + typeAsAsked(v.cfg.Type)
	}
	if v.cfg.Agent != nil {
		told += fmt.Sprintf(", only agent %d", *v.cfg.Agent)
	}
	fmt.Fprintf(&v.out, "%s\n", v.paint(bold, told))
}

// typeAsAsked is a type's number, in words too where it has some.
func typeAsAsked(t string) string {
	if words, ok := typeWords[t]; ok {
		return fmt.Sprintf("%s (%s)", clean(t), words)
	}
	return clean(t)
}

// wanted reports whether an agent is one of those that were asked for.
func (v *view) wanted(e *schemas.Event) bool {
	return e != nil && (v.cfg.Agent == nil || *v.cfg.Agent == e.Data.Agent.AgentID) && (v.cfg.Type == "" || v.cfg.Type == e.Data.Agent.TypeToken())
}

// touches reports whether an event is about an agent that was asked for, also one that was until
// this event. before may be nil.
func (v *view) touches(before, e *schemas.Event) bool {
	if v.wanted(e) || v.wanted(before) {
		return true
	}
	if v.cfg.Agent != nil && *v.cfg.Agent != e.Data.Agent.AgentID {
		return false
	}
	was, err := schemas.Revert(&e.Data.Agent, e.Data.Changes)
	return err == nil && was.TypeToken() == v.cfg.Type
}

// know takes an agent's state in and returns the one before. The counts follow.
func (v *view) know(e *schemas.Event) (before *schemas.Event) {
	id := e.Data.Agent.AgentID
	before = v.known[id]
	v.count(before, -1)
	v.known[id] = e
	v.count(e, 1)
	return before
}

func (v *view) forget(id int64) {
	v.count(v.known[id], -1)
	delete(v.known, id)
}

func (v *view) count(e *schemas.Event, n int) {
	if !v.wanted(e) || gone(e) {
		return
	}
	v.agents += n
	if e.Data.Online {
		v.online += n
	}
}

// anew takes in all states, at the beginning or after an interruption.
func (v *view) anew(all []*schemas.Event, w *schemas.Watermark, h *schemas.Health) {
	v.watermark = w
	v.back()
	if !v.begun {
		clear(v.known)
		v.agents, v.online = 0, 0
		for _, e := range all {
			v.know(e)
		}
		v.health = h
		v.begin()
		return
	}
	v.setHealth(h)
	// What has changed meanwhile.
	there := make(map[int64]bool, len(all))
	slices.SortStableFunc(all, func(a, b *schemas.Event) int { return a.Time.Compare(b.Time) })
	for _, e := range all {
		there[e.Data.Agent.AgentID] = true
		if before := v.known[e.Data.Agent.AgentID]; before == nil || before.Data.Revision != e.Data.Revision || !before.Time.Equal(e.Time) {
			v.state(e)
		}
	}
	var missing []*schemas.Event
	for id, e := range v.known {
		if !there[id] {
			missing = append(missing, e)
		}
	}
	slices.SortFunc(missing, byID)
	for _, e := range missing {
		v.forget(e.Data.Agent.AgentID)
		if v.wanted(e) {
			v.changeLine(v.now(), e, change{"gone", "the log has it no more"})
		}
	}
}

// complete reports whether the log's states are all agents, or will not soon be.
func (v *view) complete() bool {
	return v.watermark != nil && v.watermark.Sweep > 0 || v.health != nil && v.health.State != schemas.HealthOK
}

// begin shows the state, as soon as there is one.
func (v *view) begin() {
	if !v.complete() {
		v.wait("for the first complete sweep of the vendor's listing")
		return
	}
	v.begun, v.waits = true, ""
	now := v.now()
	var rows []*schemas.Event
	for _, e := range v.known {
		show := v.cfg.Show == Agents && !gone(e) || e.Data.Online || v.cfg.Agent != nil
		if show && v.wanted(e) {
			rows = append(rows, e)
		}
	}
	columns, order := onDutyColumns, bySince
	if v.cfg.Show == Agents || v.cfg.Agent != nil {
		columns, order = agentColumns, byID
	}
	slices.SortFunc(rows, order)
	for _, e := range v.known {
		if v.wanted(e) {
			v.fit(e)
		}
	}
	v.table = newTable(columns, rows, v.columns(), now)
	if len(rows) > 0 {
		fmt.Fprintf(&v.out, "\n%s\n", v.paint(bold, v.table.head()))
	}
	for _, e := range rows {
		fmt.Fprintf(&v.out, "%s\n", v.table.row(e, now, v.paintCell))
	}
	fmt.Fprintf(&v.out, "\n%s\n", v.summary(now))
	v.stale = v.watermark == nil || v.watermark.Sweep == 0 // and told
	if h := v.health; h != nil && h.State != schemas.HealthOK {
		v.tellHealth(h)
	}
	v.checkStale()
	fmt.Fprintf(&v.out, "%s\n\n", v.paint(dim, "Changes from here on. Ctrl-C ends it."))
}

// beginEvents opens the view of events, for which no states are read.
func (v *view) beginEvents() {
	v.begun, v.waits = true, ""
	now := v.now()
	if w := v.watermark; w != nil && w.Sweep > 0 {
		fmt.Fprintf(&v.out, "%d of %d agents on duty, %s\n", w.Online, w.Agents, v.asOf(now))
	}
	if h := v.health; h != nil && h.State != schemas.HealthOK {
		v.tellHealth(h)
	}
	v.checkStale()
	fmt.Fprintf(&v.out, "%s\n\n", v.paint(dim, "Events from here on. Ctrl-C ends it."))
}

// fit widens the columns of the lines for an agent.
func (v *view) fit(e *schemas.Event) {
	v.idWidth = max(v.idWidth, len(strconv.FormatInt(e.Data.Agent.AgentID, 10)))
	v.name = max(v.name, min(12, width(value(e.Data.Agent.AgentName))))
}

func (v *view) summary(now time.Time) string {
	w, s := v.watermark, ""
	switch {
	case v.cfg.Agent != nil && v.known[*v.cfg.Agent] == nil:
		return fmt.Sprintf("There is no agent %d in the log; if it comes, it shows here.", *v.cfg.Agent)
	case v.cfg.Agent != nil:
		s = fmt.Sprintf("Agent %d", *v.cfg.Agent)
	case v.cfg.Type != "":
		s = fmt.Sprintf("%d of %d agents of type %s on duty", v.online, v.agents, typeAsAsked(v.cfg.Type))
	default:
		s = fmt.Sprintf("%d of %d agents on duty", v.online, v.agents)
	}
	if w == nil || w.Sweep == 0 {
		return s + "; the whole listing has never been read"
	}
	s += ", " + v.asOf(now)
	if w.Missing > 0 {
		s += fmt.Sprintf(", %d missing", w.Missing)
	}
	if w.Rejected > 0 {
		s += fmt.Sprintf(", %d unusable", w.Rejected)
	}
	return s
}

func (v *view) asOf(now time.Time) string {
	w := v.watermark
	return fmt.Sprintf("as of %s (%s ago)", clock(w.StartedAt, now), span(now.Sub(w.StartedAt)))
}

// state takes in an agent's new state, and shows it.
func (v *view) state(e *schemas.Event) {
	before := v.know(e)
	if !v.begun || !v.touches(before, e) {
		return
	}
	if v.cfg.Show == Agents {
		fmt.Fprintf(&v.out, "%s\n", v.table.row(e, v.now(), v.paintCell))
		return
	}
	v.changeLine(e.Time, e, describe(before, e))
}

// event shows an event, and nothing else is known of the agent.
func (v *view) event(e *schemas.Event) {
	if v.touches(nil, e) {
		v.changeLine(e.Time, e, describe(nil, e))
	}
}

func (v *view) changeLine(at time.Time, e *schemas.Event, c change) {
	v.fit(e)
	v.line(at, c.kind, styles[c.kind], pad(strconv.FormatInt(e.Data.Agent.AgentID, 10), v.idWidth, true)+gap+
		pad(value(e.Data.Agent.AgentName), v.name, false)+gap+c.what, true)
}

// line begins with a time and a word. Changes are cut at the edge of the screen, what an operator
// has to know is not.
func (v *view) line(at time.Time, word, style, text string, fits bool) {
	at = at.In(v.cfg.Zone)
	if day := at.Format(time.DateOnly); day != v.day && day > v.day {
		v.day = day
		fmt.Fprintf(v.lines(), "%s\n", v.paint(dim, "-- "+day+" --"))
	}
	head := at.Format(time.TimeOnly) + gap
	word = pad(word, 7, false)
	if screen := v.columns(); fits && screen > 0 {
		text = cut(text, screen-len(head)-width(word)-len(gap))
	}
	fmt.Fprintf(v.lines(), "%s%s%s%s\n", head, v.paint(style, word), gap, text)
}

// lines is where what is no message of the log goes.
func (v *view) lines() io.Writer {
	if v.cfg.JSON {
		return &v.notes
	}
	return &v.out
}

// setWatermark takes in a new watermark.
func (v *view) setWatermark(w *schemas.Watermark) {
	v.watermark = w
	if !v.begun && v.cfg.Show != Events && !v.cfg.JSON {
		v.begin()
	}
	v.checkStale()
}

// setHealth takes in a new health, and tells it where it differs.
func (v *view) setHealth(h *schemas.Health) {
	was := v.health
	v.health = h
	if h == nil || was != nil && was.State == h.State && was.Reason == h.Reason && was.Detail == h.Detail && was.Since.Equal(h.Since) {
		return
	}
	if !v.begun {
		if v.cfg.Show != Events && !v.cfg.JSON {
			v.begin()
		}
		return
	}
	if was != nil || h.State != schemas.HealthOK {
		v.tellHealth(h)
	}
}

func (v *view) tellHealth(h *schemas.Health) {
	if v.cfg.JSON {
		return // it is a message
	}
	var text []string
	word, style := clean(strings.ToUpper(string(h.State))), alarm
	switch h.State {
	case schemas.HealthOK:
		word, style = "OK", good
		text = append(text, "the vendor's listing can be read and believed again")
	case schemas.HealthHolding:
		style = warning
	}
	if h.Reason != "" {
		text = append(text, clean(string(h.Reason)))
	}
	if h.Detail != "" {
		text = append(text, cut(clean(h.Detail), 500))
	}
	at, told := h.Since, strings.Join(text, ": ")
	if now := v.now(); at.In(v.cfg.Zone).Format(time.DateOnly) != now.Format(time.DateOnly) {
		at, told = now, told+" (since "+clock(h.Since, now)+")"
	}
	v.line(at, word, style, told, false)
}

// isStale is the contract's word on it: the next complete sweep is overdue. A log that knows of no
// complete sweep is no better.
func (v *view) isStale(now time.Time) bool {
	w := v.watermark
	return w == nil || w.Sweep == 0 || now.After(w.StaleAfter)
}

// checkStale tells when the picture has become stale, and when it is no longer. Time alone can make
// it so.
func (v *view) checkStale() {
	now := v.now()
	stale, w := v.isStale(now), v.watermark
	if stale == v.stale || !v.begun {
		return
	}
	v.stale = stale
	switch {
	case !stale:
		v.line(now, "FRESH", good, v.asOf(now), false)
	case w == nil || w.Sweep == 0:
		v.line(now, "STALE", alarm, "the log knows of no complete sweep", false)
	default:
		v.line(now, "STALE", alarm, fmt.Sprintf("%s; a newer one was due at %s", v.asOf(now), clock(w.StaleAfter, now)), false)
	}
}

// wait tells once what is waited for.
func (v *view) wait(why string) {
	if v.waits != why {
		v.waits = why
		v.line(v.now(), "WAITING", warning, why, false)
	}
}

// lose tells that nothing is heard any more, and again where the reason becomes another.
func (v *view) lose(why string) {
	if v.lost == "" {
		v.lostAt = v.now()
	}
	if v.lost != why {
		v.lost = why
		v.line(v.now(), "LOST", alarm, why+"; trying again", false)
	}
}

// back tells that the log can be read again.
func (v *view) back() {
	if v.lost != "" {
		v.line(v.now(), "BACK", good, fmt.Sprintf("after %s", span(v.now().Sub(v.lostAt))), false)
		v.lost = ""
	}
}

// bad tells of a message that is not what its subject says.
func (v *view) bad(err error) {
	v.line(v.now(), "BAD", warning, cut(clean(err.Error()), 500), false)
}

// message takes in a message of the log as it is stored: an event, watermark or health, or for JSON
// any.
func (v *view) message(m *message) {
	s, err := schemas.ParseSubject(m.subject)
	if err != nil {
		v.bad(err)
		return
	}
	bad := func(err error) { v.bad(fmt.Errorf("message %d (%s) can't be used: %w", m.seq, m.subject, err)) }
	switch s.Kind {
	case schemas.KindWatermark:
		w := new(schemas.Watermark)
		if err := json.Unmarshal(m.data, w); err != nil {
			bad(err)
			return
		}
		v.setWatermark(w)
	case schemas.KindHealth:
		h := new(schemas.Health)
		if err := json.Unmarshal(m.data, h); err != nil {
			bad(err)
			return
		}
		v.setHealth(h)
	default:
		e := new(schemas.Event)
		if err := json.Unmarshal(m.data, e); err != nil {
			bad(err)
			return
		}
		if !v.cfg.JSON {
			v.event(e)
			return
		}
		var before *schemas.Event
		if s.Kind == schemas.KindState && v.cfg.Type != "" {
			before = v.known[s.AgentID]
			v.known[s.AgentID] = e
		}
		if !v.touches(before, e) {
			return
		}
	}
	if v.cfg.JSON {
		v.out.Write(jsonLine(m, v.cfg.Terminal))
	}
}

// Colours, as SGR codes.
const (
	bold    = "1"
	dim     = "2"
	good    = "32"
	warning = "33"
	alarm   = "1;37;41"
	blue    = "36"
)

var styles = map[string]string{"online": good, "offline": warning, "updated": blue, "removed": dim, "gone": warning}

func (v *view) paint(style, s string) string {
	if !v.cfg.Color || style == "" || s == "" {
		return s
	}
	return "\x1b[" + style + "m" + s + "\x1b[0m"
}

func (v *view) paintCell(title, cell string) string {
	if title != "STATE" {
		return cell
	}
	style := map[string]string{"online": good, "offline": dim, "removed": dim}[strings.TrimSpace(cell)]
	return v.paint(style, cell)
}

// columns is how wide the screen is, 0: as wide as need be.
func (v *view) columns() int {
	if v.cfg.Width == nil {
		return 0
	}
	return v.cfg.Width()
}

// status is the last line of a terminal: whether all this can be believed now.
func (v *view) status() string {
	now := v.now()
	var parts []string
	style := good
	w, onDuty := v.watermark, "on duty"
	worse := func(s string) {
		if style != alarm {
			style = s
		}
	}
	if v.lost != "" {
		worse(alarm)
		parts = append(parts, "LOST for "+span(now.Sub(v.lostAt)))
	}
	switch {
	case !v.begun:
		parts = append(parts, cmp.Or(v.waits, "reading the log"))
		worse(warning)
	case w == nil || w.Sweep == 0:
		parts = append(parts, "no complete sweep yet")
		worse(warning)
	case v.isStale(now):
		parts = append(parts, "STALE, "+span(now.Sub(w.StartedAt))+" old")
		worse(alarm)
		onDuty = "were on duty"
	case v.lost != "":
		parts = append(parts, span(now.Sub(w.StartedAt))+" old")
	default:
		parts = append(parts, "fresh, "+span(now.Sub(w.StartedAt))+" old")
	}
	if h := v.health; h != nil && h.State != schemas.HealthOK {
		worse(warning)
		parts = append(parts, strings.ToUpper(clean(string(h.State)))+" ("+clean(string(h.Reason))+")")
	}
	switch {
	case !v.begun:
	case v.cfg.Show != Events:
		parts = append(parts, fmt.Sprintf("%d of %d %s", v.online, v.agents, onDuty))
	case w != nil:
		parts = append(parts, fmt.Sprintf("%d of %d %s", w.Online, w.Agents, onDuty))
	}
	if w != nil && w.Missing > 0 {
		parts = append(parts, fmt.Sprintf("%d missing", w.Missing))
	}
	if w != nil {
		parts = append(parts, fmt.Sprintf("tenant %d", w.TenantID))
	}
	s := " " + strings.Join(parts, " | ") + " "
	if screen := v.columns(); screen > 0 {
		s = cut(s, screen-1)
	}
	return v.paint(style, s)
}

// flush writes what has come together: at once, so that a terminal does not flicker.
func (v *view) flush(end bool) error {
	status := ""
	if v.cfg.Live && !end {
		status = v.status()
	}
	text := v.out.String()
	v.out.Reset()
	if text != "" || status != v.drawn {
		if v.cfg.Live {
			text = "\r\x1b[2K" + text + status
			v.drawn = status
		}
		if _, err := io.WriteString(v.cfg.Out, text); err != nil {
			if errors.Is(err, syscall.EPIPE) {
				return errPipe
			}
			return fmt.Errorf("write: %w", err)
		}
	}
	if v.notes.Len() > 0 {
		_, _ = v.cfg.Notes.Write(v.notes.Bytes()) // whoever closed it does not want to know
		v.notes.Reset()
	}
	return nil
}

// errPipe says that nobody reads any more.
var errPipe = errors.New("nobody reads any more")
