package presence

import (
	"cmp"
	"context"
	"encoding/csv"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rollcall-events/rollcall/internal/agenttype"
	"github.com/rollcall-events/rollcall/internal/plain"
	"github.com/rollcall-events/rollcall/schemas/history"
)

// By is what a report has a row for.
type By string

// What there can be a row for.
const (
	ByAgent By = "agent"
	ByType  By = "type"
	ByArea  By = "area"
	ByHour  By = "hour"
)

// Report writes sums of presence. The error is, or wraps, [history.ErrFuture] or
// [history.ErrEmpty] where the question has no answer.
//
// Agents that were never there in the time are left out. A row of agents covers all of the time;
// other rows cover the time in which agents were there, or may have been.
func Report(
	ctx context.Context, nc *nats.Conn, cfg Config, in Window, by By, types []string,
) error {
	s, err := open(ctx, nc, &cfg)
	if err != nil {
		return err
	}
	if in.To.IsZero() {
		in.To = cfg.now()
		s.opts = append(s.opts, history.AsOf(in.To))
	}
	r := &report{source: s, Window: in, by: by, rows: map[key]*reportRow{}, runs: map[int64]run{},
		why: map[string]bool{}}
	if by == ByHour {
		for t := in.From; t.Before(in.To); t = nextHour(t, cfg.Zone) {
			r.row(key{at: t.Unix()}).covers = earlier(nextHour(t, cfg.Zone), in.To).Sub(t)
		}
	}
	for i, err := range history.All(ctx, s.js, s.tenant, in.From, in.To, s.opts...) {
		if err != nil {
			return err
		}
		if len(types) == 0 || slices.Contains(types, i.Type) {
			r.add(&i)
		}
	}
	return r.write()
}

// A key is what a row is for: one of an agent, a type, an area or an hour.
type key struct {
	agent int64
	text  string // a type or an area
	at    int64  // when an hour begins, as time.Unix has it
}

type reportRow struct {
	key
	sum
	listed           bool          // the agent was there, or may have been
	name, kind, area string        // the agent's, the last ones
	covers           time.Duration // how much of the time asked about
}

// A run is time on duty without a break, in one row.
type run struct {
	row      key
	from, to time.Time
}

type report struct {
	*source
	Window
	by         By
	rows       map[key]*reportRow
	runs       map[int64]run // of agents
	unobserved []*history.Unobserved
	why        map[string]bool // reasons why something is not known, other than unobserved ones
}

func (r *report) row(k key) *reportRow {
	row := r.rows[k]
	if row == nil {
		row = &reportRow{key: k, covers: r.To.Sub(r.From)}
		r.rows[k] = row
	}
	return row
}

// add adds an interval, hour by hour where rows are hours.
func (r *report) add(i *history.Interval) {
	if u := i.Unobserved; u != nil && !slices.Contains(r.unobserved, u) {
		r.unobserved = append(r.unobserved, u)
	} else if u == nil && i.Why != nil && i.Listed {
		r.why[oneLine(i.Why)] = true
	}
	if r.by != ByHour {
		r.addTo(r.key(i), i)
		return
	}
	for part := *i; part.From.Before(i.To); {
		part.To = earlier(nextHour(part.From, r.Zone), i.To)
		hour := hourOf(part.From, r.Zone)
		if hour.Before(r.From) {
			hour = r.From
		}
		r.addTo(key{at: hour.Unix()}, &part)
		part.From, part.SignIns = part.To, 0
	}
}

func (r *report) key(i *history.Interval) key {
	switch r.by {
	case ByType:
		return key{text: i.Type}
	case ByArea:
		return key{text: i.Area}
	}
	return key{agent: i.AgentID}
}

func (r *report) addTo(k key, i *history.Interval) {
	if !i.Listed && r.by != ByAgent && i.SignIns == 0 {
		return // it was not there, so it is in no row
	}
	row := r.row(k)
	if i.Listed {
		row.listed = true
		row.name, row.kind, row.area = i.Name, i.Type, i.Area
	}
	row.add(i)
	if i.State != history.On {
		return
	}
	on := r.runs[i.AgentID]
	if on.row != k || !on.to.Equal(i.From) {
		on = run{row: k, from: i.From}
	}
	on.to = i.To
	r.runs[i.AgentID] = on
	row.longest = max(row.longest, length(on.from, on.to))
}

// hourOf is when the hour on the zone's clocks began.
func hourOf(t time.Time, zone *time.Location) time.Time {
	t = t.In(zone)
	start := t.Add(-time.Duration(t.Minute())*time.Minute -
		time.Duration(t.Second())*time.Second - time.Duration(t.Nanosecond()))
	if set, _ := t.ZoneBounds(); set.After(start) { // clocks were set, within it
		return set
	}
	return start
}

// nextHour is when the hour on the zone's clocks ends.
func nextHour(t time.Time, zone *time.Location) time.Time {
	end := hourOf(t, zone).In(zone)
	end = end.Add(time.Hour - time.Duration(end.Minute())*time.Minute)
	if _, set := t.In(zone).ZoneBounds(); !set.IsZero() && set.Before(end) {
		return set
	}
	return end
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// sorted are the rows, in order.
func (r *report) sorted() []*reportRow {
	return slices.SortedFunc(func(yield func(*reportRow) bool) {
		for row := range maps.Values(r.rows) {
			if (row.listed || r.by == ByHour) && !yield(row) {
				return
			}
		}
	}, func(a, b *reportRow) int {
		return cmp.Or(cmp.Compare(a.agent, b.agent), cmp.Compare(a.at, b.at),
			cmp.Compare(len(a.text), len(b.text)), cmp.Compare(a.text, b.text))
	})
}

func (r *report) write() error {
	slices.SortStableFunc(r.unobserved,
		func(a, b *history.Unobserved) int { return a.From.Compare(b.From) })
	rows := r.sorted()
	switch r.Format {
	case JSON:
		return r.json(rows)
	case CSV:
		return r.csv(rows)
	}
	return r.text(rows)
}

// reasons are why something is not known, in words.
func (r *report) reasons() []string {
	reasons := []string{}
	for _, u := range r.unobserved {
		reasons = append(reasons, oneLine(u.Err()))
	}
	return append(reasons, slices.Sorted(maps.Keys(r.why))...)
}

func (r *report) json(rows []*reportRow) error {
	w := &writer{w: r.Out}
	w.list(struct {
		Tenant     int64        `json:"tenantId"`
		From       *string      `json:"from"`
		To         *string      `json:"to"`
		By         By           `json:"by"`
		Unobserved []unobserved `json:"unobserved"`
		Reasons    []string     `json:"notKnown"`
	}{r.tenant, utc(r.From), utc(r.To), r.by, unobservedJSON(r.unobserved), r.reasons()}, "rows")
	var total sum
	for _, row := range rows {
		total.plus(&row.sum)
		item := struct {
			Agent   string   `json:"agentId,omitempty"`
			Name    string   `json:"name,omitempty"`
			Type    *string  `json:"type,omitempty"`
			Area    *string  `json:"area,omitempty"`
			Hour    string   `json:"hour,omitempty"`
			Average *float64 `json:"averageOnDuty,omitempty"`
			sumJSON
		}{sumJSON: row.json()}
		switch r.by {
		case ByAgent:
			item.Agent, item.Name = strconv.FormatInt(row.agent, 10), row.name
			item.Type, item.Area = &row.kind, &row.area
		case ByType:
			item.Type = &row.text
		case ByArea:
			item.Area = &row.text
		case ByHour:
			item.Hour = r.stamp(time.Unix(row.at, 0))
		}
		if r.by != ByAgent {
			average := row.average()
			item.Average = &average
		}
		w.item(item)
	}
	return w.end(struct {
		Total sumJSON `json:"total"`
	}{total.json()})
}

// average is how many were on duty on average.
func (row *reportRow) average() float64 {
	return float64(row.on*100/span(max(1, row.covers.Milliseconds()))) / 100
}

func (r *report) csv(rows []*reportRow) error {
	w := csv.NewWriter(r.Out)
	head := []string{string(r.by)}
	if r.by == ByAgent {
		head = append(head, "name", "type", "area")
	}
	if err := w.Write(append(head, "on_seconds", "off_seconds", "unknown_seconds",
		"unobserved_seconds", "sign_ins", "longest_seconds")); err != nil {
		return err
	}
	for _, row := range rows {
		s := row.json()
		var cells []string
		switch r.by {
		case ByAgent:
			cells = []string{strconv.FormatInt(row.agent, 10), inert(row.name), inert(row.kind),
				inert(row.area)}
		case ByHour:
			cells = []string{r.stamp(time.Unix(row.at, 0))}
		default:
			cells = []string{inert(row.text)}
		}
		for _, v := range []float64{s.On, s.Off, s.Unknown, s.Unobserved, float64(s.SignIns),
			s.Longest} {
			cells = append(cells, strconv.FormatFloat(v, 'f', -1, 64))
		}
		if err := w.Write(cells); err != nil {
			return err
		}
	}
	w.Flush()
	return w.Error()
}

// inert is text that no terminal takes for a command, and no spreadsheet for a formula.
func inert(s string) string {
	s = plain.Clean(s)
	if strings.IndexAny(s, "=+-@＝＋－＠") == 0 {
		return "'" + s
	}
	return s
}

func (r *report) text(rows []*reportRow) error {
	type column = plain.Column[*reportRow]
	took := func(title string, of func(*reportRow) span) column {
		return column{Title: title, Right: true, Most: 12, Cell: func(row *reportRow) string {
			return hours(of(row))
		}}
	}
	var columns []column
	switch r.by {
	case ByAgent:
		columns = []column{
			{Title: "AGENT", Right: true, Most: 20, Cell: func(row *reportRow) string {
				if row.key == total {
					return "total"
				}
				return strconv.FormatInt(row.agent, 10)
			}},
			{Title: "NAME", Most: 24, Cell: func(row *reportRow) string {
				return plain.Value(&row.name)
			}},
			{Title: "TYPE", Most: 16, Cell: func(row *reportRow) string {
				return label(row.kind)
			}},
			{Title: "AREA", Most: 16, Cell: func(row *reportRow) string {
				return plain.Value(&row.area)
			}}}
	default:
		columns = []column{{Title: strings.ToUpper(string(r.by)), Most: 32,
			Cell: func(row *reportRow) string {
				switch {
				case row.key == total:
					return "total"
				case r.by == ByType:
					return label(row.text)
				case r.by == ByArea:
					return plain.Value(&row.text)
				}
				return r.stamp(time.Unix(row.at, 0))
			}}}
	}
	columns = append(columns, took("ON DUTY", func(row *reportRow) span { return row.on }))
	if r.by != ByAgent {
		columns = append(columns, column{Title: "AVERAGE", Right: true, Most: 12,
			Cell: func(row *reportRow) string {
				return strconv.FormatFloat(row.average(), 'f', 1, 64)
			}})
	}
	columns = append(columns,
		column{Title: "SIGN-INS", Right: true, Most: 12, Cell: func(row *reportRow) string {
			return strconv.Itoa(row.signIns)
		}},
		took("LONGEST", func(row *reportRow) span { return row.longest }),
		took("OFF DUTY", func(row *reportRow) span { return row.off }),
		took("NOT KNOWN", func(row *reportRow) span { return row.unknown }),
		took("UNOBSERVED", func(row *reportRow) span { return row.sum.unobserved }))
	all := &reportRow{key: total, covers: r.To.Sub(r.From)}
	for _, row := range rows {
		all.plus(&row.sum)
	}
	lines := append([]string{fmt.Sprintf("Tenant %d, %s to %s (%s)", r.tenant, r.stamp(r.From),
		r.stamp(r.To), r.zone(r.From))}, plain.Table(columns, append(rows, all))...)
	for _, why := range r.reasons() {
		lines = append(lines, "Not known: "+why)
	}
	_, err := fmt.Fprintln(r.Out, strings.Join(lines, "\n"))
	return err
}

// total is the key of the row that sums up the others.
var total = key{agent: -1, text: "total", at: -1}

// label is a type's short name.
func label(token string) string {
	if token == "_" {
		return plain.None
	}
	return plain.Clean(agenttype.Short(token))
}

// hours tells a time in hours at most, since days are not what work is counted in.
func hours(s span) string {
	const minute = 60_000
	switch {
	case s == 0:
		return plain.None
	case s < 60*minute:
		return plain.Span(s.duration())
	}
	return fmt.Sprintf("%dh%02dm", s/(60*minute), s/minute%60)
}
