package check

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/rollcall-events/rollcall/internal/setting"
	"github.com/rollcall-events/rollcall/poller/isdp"
	"github.com/rollcall-events/rollcall/schemas"
)

const farOff = 5 * time.Second // of the vendor's clock; its header has whole seconds

// listed is what the first page of a listing showed.
type listed struct {
	*isdp.PageSeen
	of   string // which listing it is, where there are several
	took time.Duration
}

// listing asks for the first page of each listing, and looks at what is odd in it.
func (s *state) listing(ctx context.Context) {
	agents, online, total := 0, 0, 0
	var took time.Duration
	rows := newRows()
	for i := range max(1, len(s.Vendor.Types)) {
		of := ""
		if len(s.Vendor.Types) > 1 {
			of = fmt.Sprintf("type %d: ", s.Vendor.Types[i])
		}
		seen, err := s.client.ProbePage(ctx, i)
		if err != nil {
			s.trouble(of, err)
			return
		}
		l := listed{seen, of, seen.Read.Sub(seen.Sent)}
		s.listed = append(s.listed, l)
		took += l.took
		total += l.Total
		agents += len(l.Agents)
		for _, a := range l.Agents {
			if a.Online() {
				online++
			}
		}
		rows.add(l.PageSeen)
	}
	which := "all; the first page has"
	if n := len(s.listed); n > 1 {
		which = fmt.Sprintf("%d listings; their first pages have", n)
	}
	if total == 0 {
		s.warn("the listing is empty",
			"are these the right tenant's credentials, and is {Types} right where it is set?")
	} else {
		s.ok(fmt.Sprintf("%s in %s %d, %d of them online (%s)",
			count(total, "agent"), which, agents, online, dur(took)))
	}
	for _, l := range s.listed {
		s.page(l)
	}
	s.odd(rows)
	s.clock()
}

// page reports a first page that is not what was asked for.
func (s *state) page(l listed) {
	switch n := len(l.Rows); {
	case l.Misplaced:
		s.fail(l.of+"the answer was for another page than the first",
			"pages that can't be told apart make no complete sweep: ask the vendor")
	case 0 < n && n < l.Expected:
		s.fail(fmt.Sprintf("%sasked for %d agents a page, got %d of %d: pageSize is not honoured, "+
			"so no sweep would be complete", l.of, s.client.PageSize(), n, l.Total),
			fmt.Sprintf("set {PageSize}=%d", n))
	case n != l.Expected:
		s.fail(fmt.Sprintf("%sthe page has %s, and total_count %d calls for %d: "+
			"no sweep would be complete", l.of, count(n, "row"), l.Total, l.Expected),
			"ask the vendor")
	}
}

// A tally counts by name.
type tally map[string]int

// String names the most of what was counted, in order.
func (t tally) String() string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(t)) {
		names = append(names, fmt.Sprintf("%s (%d)", clip(name), t[name]))
	}
	return list(names, 8)
}

// rows is what the rows of the first pages have in them.
type rows struct {
	all      int
	repaired int // values in which something that can't stay was marked

	// By the reason or the detail of rejected rows; by agentId; by onlineStatus; by field.
	reasons, details, ids, statuses, undocumented, dropped tally
}

func newRows() *rows {
	return &rows{reasons: tally{}, details: tally{}, ids: tally{}, statuses: tally{},
		undocumented: tally{}, dropped: tally{}}
}

func (o *rows) add(p *isdp.PageSeen) {
	o.all += len(p.Rows)
	o.repaired += p.Repaired
	rejected := make(map[int]bool)
	for _, r := range p.Rejected {
		o.reasons[r.Reason]++
		if r.Detail != "" {
			o.details[r.Detail]++
		}
		rejected[r.Index] = true
	}
	next := 0
	for i, row := range p.Rows {
		if rejected[i] || next >= len(p.Agents) {
			continue
		}
		a := p.Agents[next].Unpack()
		next++
		o.ids[strconv.FormatInt(a.AgentID, 10)]++
		if a.OnlineStatus != 0 && a.OnlineStatus != 1 {
			o.statuses[strconv.FormatInt(a.OnlineStatus, 10)]++
		}
		for _, f := range a.Other {
			o.undocumented[f.Name]++
		}
		var fields map[string]json.RawMessage
		_ = json.Unmarshal(row, &fields) // it has been decoded once
		for name, raw := range fields {
			if _, has := a.Field(name); schemas.Listed(name) && !has && string(raw) != "null" {
				o.dropped[name]++
			}
		}
	}
}

// clip keeps a name that someone else has chosen short.
func clip(name string) string {
	if r := []rune(name); len(r) > 40 {
		return string(r[:40]) + "…"
	}
	return name
}

// odd reports what is odd about the rows of the first pages.
func (s *state) odd(o *rows) {
	twice := slices.DeleteFunc(slices.Sorted(maps.Keys(o.ids)), func(id string) bool {
		return o.ids[id] < 2
	})
	if len(twice) > 0 {
		s.warn("agents listed more than once: "+list(twice, 5),
			"a sweep that shows an agent twice is not complete; if this lasts, ask the vendor")
	}
	bad := 0
	for _, n := range o.reasons {
		bad += n
	}
	switch text := "rows that can't be used, by reason: " + o.reasons.String(); {
	case 10*bad > o.all:
		s.fail(fmt.Sprintf("%d of %d %s", bad, o.all, text),
			"their agents stay published as they were, and health is failing (unusable): "+
				"ask the vendor what has changed in these fields")
	case bad > 0:
		s.warn(text, "they are counted and never published; ask the vendor")
	}
	for _, detail := range slices.Sorted(maps.Keys(o.details))[:min(3, len(o.details))] {
		s.warn(fmt.Sprintf("%s that can't be used: %s", count(o.details[detail], "row"), detail),
			"tell the vendor, or who runs the gateway in between")
	}
	if o.repaired > 0 {
		s.warn(count(o.repaired, "value")+" that not every JSON parser takes: "+
			"bytes that are not UTF-8, half a surrogate pair, or U+0000",
			"what can't stay is marked with U+FFFD and braces in the events; tell the vendor")
	}
	if len(o.statuses) > 0 {
		s.warn("onlineStatus other than 0 and 1: "+o.statuses.String(), "it counts as not online")
	}
	if len(o.dropped) > 0 {
		s.warn("fields whose value is of a kind that it should not be: "+o.dropped.String(),
			"they are left out of the events")
	}
	if len(o.undocumented) > 0 {
		s.say(OK, "fields that the vendor does not document: "+o.undocumented.String(),
			"they are carried as they come, and quiet unless {Quiet} says otherwise")
	}
}

// clock compares the vendor's clock with this machine's.
func (s *state) clock() {
	l := s.listed[0]
	if l.Date.IsZero() {
		return
	}
	// The header is cut to the second and says when, between the two, the answer began.
	off, word := time.Duration(0), "ahead of"
	switch {
	case l.Date.Add(time.Second).Before(l.Sent):
		off, word = l.Sent.Sub(l.Date.Add(time.Second)), "behind"
	case l.Date.After(l.Read):
		off = l.Date.Sub(l.Read)
	}
	if off > farOff {
		s.warn(fmt.Sprintf("the vendor's clock is %s %s this machine's", dur(off), word),
			"one of the two is wrong; the times in events are this machine's: see to its NTP")
	}
}

// rate estimates how long a sweep takes at these limits.
func (s *state) rate(context.Context) {
	pages, size := 0, s.client.PageSize()
	var request time.Duration
	for _, l := range s.listed {
		pages += max(1, (l.Total+size-1)/size)
		request = max(request, l.took)
	}
	limit, parallel := s.Vendor.RateLimit, s.Poller.Concurrency
	at := func(requests float64) time.Duration { // the rate
		return time.Duration(min(requests/limit*float64(time.Second), math.MaxInt64/2))
	}
	byRate := at(float64(pages-1)) + request
	byRequests := time.Duration(math.Ceil(float64(pages)/float64(parallel))) * request
	sweep := max(byRate, byRequests)
	timeout, derived := s.Poller.SweepTimeout, ""
	if timeout == 0 { // as the poller derives it
		timeout, derived = max(time.Minute, at(3*float64(pages))), " (derived)"
	}
	aSecond := fmt.Sprintf("%g requests a second", limit)
	if limit == 1 {
		aSecond = "1 request a second"
	}
	s.say(OK, fmt.Sprintf("at most %s calls a minute; the vendor publishes no limit for this "+
		"call, and documents 60 a minute for a sibling service",
		strconv.FormatFloat(60*limit, 'f', -1, 64)),
		"for more, ask the vendor what this account may do, then raise {RateLimit}; "+
			"where it refuses, rollcall slows down by itself")
	text := fmt.Sprintf("a sweep of %s takes about %s at %s, %d at a time",
		count(pages, "page"), dur(sweep), aSecond, parallel)
	faster := "raise {RateLimit} as far as the vendor lets you"
	if byRequests > byRate {
		faster = "raise {Concurrency}"
	}
	switch {
	case sweep > timeout:
		s.fail(text+setting.Text(", and {SweepTimeout} ends it after ")+dur(timeout)+derived,
			faster+", or raise {SweepTimeout}: like this no sweep is ever complete")
	case sweep > s.Interval:
		s.warn(text+setting.Text(", and {Interval} is ")+dur(s.Interval),
			"the next sweep waits for the last to end, so changes show after about "+dur(sweep)+
				"; "+faster+", or raise the interval")
	case 2*sweep > timeout:
		s.warn(text+setting.Text(", and {SweepTimeout} is ")+dur(timeout)+derived,
			"a few repeated requests would end it incomplete: raise {SweepTimeout}")
	default:
		s.ok(text + "; every " + dur(s.Interval))
	}
}
