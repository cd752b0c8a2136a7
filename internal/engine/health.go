package engine

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/rollcall-events/rollcall/diff"
	"github.com/rollcall-events/rollcall/internal/listing"
	"github.com/rollcall-events/rollcall/schemas"
)

// failAfter is how many incomplete sweeps in a row make a tenant failing.
const failAfter = 3

// health decides what the tenant's health message has to say. It is told what happens, and gives
// the message that is not yet in the stream.
type health struct {
	tenant    int64
	now       schemas.Health // what health is
	published schemas.Health // what it was when the last message was published; no state: none was
	notice    string         // what the next message says besides; empty: nothing
	detailAt  time.Time      // when now.Detail last changed

	failures  int                  // incomplete sweeps in a row
	reason    schemas.HealthReason // why the last of them was
	detail    string
	rejecting bool // failing because the last complete sweep rejected too many rows

	overdueAt time.Time     // when a complete sweep is overdue; zero: never
	settled   bool          // the vendor's first answer no longer changes overdueAt
	begun     time.Time     // when this process began to poll
	patience  time.Duration // how long it may go without any complete sweep
	stopping  bool          // nobody polls any more, so no sweep is overdue
}

func newHealth(tenant int64, interval time.Duration, now time.Time) *health {
	patience := 3 * interval
	return &health{tenant: tenant, begun: now, patience: patience, overdueAt: now.Add(patience)}
}

// load takes over what the stream says. That nobody polled before is no failure, so a sweep is
// overdue by the time that this process has polled.
func (h *health) load(last *schemas.Health, w schemas.Watermark) {
	h.published = schemas.Health{}
	if last != nil {
		h.published = *last
	}
	if h.now.State == "" {
		h.now = h.published
	}
	h.published.Detail = h.now.Detail // that of the message may have had a notice
	if w.Sweep > 0 && !h.settled {
		h.overdueAt = h.begun.Add(max(h.patience, w.StaleAfter.Sub(w.CompletedAt)))
		h.settled = true
	}
}

// stepped says that the clock has moved by d against the time that has passed. What is waited for
// goes by the latter.
func (h *health) stepped(d time.Duration) {
	h.begun, h.detailAt = h.begun.Add(d), h.detailAt.Add(d)
	if !h.overdueAt.IsZero() {
		h.overdueAt = h.overdueAt.Add(d)
	}
}

// deadline is when overdue has to be called.
func (h *health) deadline() time.Time {
	if h.stopping || h.overdueAt.IsZero() || h.failed() {
		return h.begun.AddDate(100, 0, 0)
	}
	return h.overdueAt
}

// answered says that a page has arrived. A tenant's first sweep may take its time as long as it
// gets answers.
func (h *health) answered() {
	if !h.settled {
		h.settled, h.overdueAt = true, time.Time{}
	}
}

// failed reports whether health says that sweeps are not complete.
func (h *health) failed() bool { return h.now.State == schemas.HealthFailing && !h.rejecting }

// complete says that a sweep was complete.
func (h *health) complete(a diff.Absence, v *listing.Verdict, staleAfter, at time.Time) {
	h.failures, h.reason, h.detail, h.overdueAt, h.settled = 0, "", "", staleAfter, true
	h.rejecting = 10*v.Rejected > v.Agents+v.Rejected
	switch {
	case h.rejecting:
		h.set(schemas.HealthFailing, schemas.Unusable, at, describeRejected(v))
	case a.Held > 0:
		h.set(schemas.HealthHolding, schemas.MissingMany, at, fmt.Sprintf(
			"%d agents went missing from the listing together, and are kept as they were", a.Held))
	case a.Suspended:
		h.set(schemas.HealthHolding, schemas.Unidentified, at,
			"the listing has rows that can't be told whose they are, so no agent counts as missing")
	default:
		h.set(schemas.HealthOK, "", at, "")
	}
}

// describeRejected says what was wrong with so many rows, the most frequent reason first.
func describeRejected(v *listing.Verdict) string {
	reasons := slices.SortedFunc(maps.Keys(v.Rejections), func(a, b string) int {
		return cmp.Or(cmp.Compare(v.Rejections[b], v.Rejections[a]), cmp.Compare(a, b))
	})
	for i, r := range reasons {
		reasons[i] = fmt.Sprintf("%s %d", r, v.Rejections[r])
	}
	return fmt.Sprintf("%d of the %d rows of the listing can't be used (%s), "+
		"so the agents they belong to stay as they were",
		v.Rejected, v.Agents+v.Rejected, strings.Join(reasons, ", "))
}

// incomplete says that a sweep was not complete, and reports whether that is worth a warning: the
// first time, and when the reason changes.
func (h *health) incomplete(reason schemas.HealthReason, err error, at time.Time) bool {
	news := h.failures == 0 || reason != h.reason
	h.failures++
	h.reason, h.detail = reason, err.Error()
	if h.failures >= failAfter || h.failed() {
		h.rejecting = false
		h.set(schemas.HealthFailing, h.reason, at, h.detail)
	}
	return news
}

// overdue says that the deadline has passed.
func (h *health) overdue(at time.Time) {
	if at.Before(h.deadline()) {
		return
	}
	reason, detail := h.reason, h.detail
	if reason == "" {
		reason = schemas.Unreachable
		detail = "no complete sweep within the time that one should take"
	}
	h.rejecting = false
	h.set(schemas.HealthFailing, reason, at, detail)
}

// set says what health is. Where state and reason stay the same, only the detail changes: not where
// just its numbers differ, and only once in a few sweeps, since causes can take turns.
func (h *health) set(
	state schemas.HealthState, reason schemas.HealthReason, at time.Time, detail string,
) {
	switch {
	case h.now.State != state || h.now.Reason != reason:
		h.now = schemas.Health{
			TenantID: h.tenant, State: state, Reason: reason, Since: at, Detail: detail,
		}
		h.detailAt = at
	case withoutNumbers(h.now.Detail) != withoutNumbers(detail) && at.Sub(h.detailAt) >= h.patience:
		h.now.Detail, h.detailAt = detail, at
	}
}

// withoutNumbers returns a text with all numbers the same.
func withoutNumbers(s string) string { return numbers.ReplaceAllString(s, "0") }

var numbers = regexp.MustCompile(`[0-9]+`)

// A healthNews is a message that is not yet in the stream.
type healthNews struct {
	message schemas.Health
	state   schemas.Health // without a notice
}

// news returns what has to be published; nil: nothing.
func (h *health) news() *healthNews {
	same := h.now.State == h.published.State && h.now.Reason == h.published.Reason &&
		h.now.Detail == h.published.Detail
	if h.now.State == "" || same && h.notice == "" {
		return nil
	}
	n := &healthNews{message: h.now, state: h.now}
	if h.notice != "" {
		n.message.Detail = strings.TrimSuffix(h.notice+"; "+h.now.Detail, "; ")
	}
	return n
}

// committed says that news are in the stream.
func (h *health) committed(n *healthNews) { h.published, h.notice = n.state, "" }

// reasonSince returns the last reason in the stream, where health has given it since a sweep was
// completed then. Empty: it has given none.
func (h *health) reasonSince(completed time.Time) schemas.HealthReason {
	switch p := h.published; p.Reason {
	case schemas.Unusable, schemas.MissingMany, schemas.Unidentified: // a complete sweep may say so
		if !schemas.FloorTime(p.Since).After(completed) {
			return ""
		}
	}
	return h.published.Reason
}

// addNotice has a message published that says something besides the state.
func (h *health) addNotice(detail string, at time.Time) {
	if h.now.State == "" {
		h.now.State = schemas.HealthOK // nothing else is known to be wrong
	}
	h.now.TenantID, h.now.Since, h.notice = h.tenant, at, detail
}
