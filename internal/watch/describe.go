package watch

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/rollcall-events/rollcall/internal/agenttype"
	"github.com/rollcall-events/rollcall/internal/plain"
	"github.com/rollcall-events/rollcall/schemas"
)

// maxValue is how many columns of a changed value are shown.
const maxValue = 40

// describe says in words what an event changed, and of which kind the change is: online, offline or
// updated. before is the agent's last event that was shown, nil if none. Where events in between
// were not shown, the change is the difference to it.
func describe(before, e *schemas.Event) (kind, text string) {
	d := &e.Data
	kind = strings.TrimPrefix(string(e.Type), "agent.")
	changes, truncated, skipped := d.Changes, d.ChangesTruncated, uint64(0)
	if before != nil && d.Revision != before.Data.Revision+1 {
		kind = "updated"
		if before.Data.Online != d.Online {
			kind = onlineOrOffline(d.Online)
		}
		changes, truncated = schemas.Changes(&before.Data.Agent, &d.Agent), false
		if d.Revision > before.Data.Revision {
			skipped = d.Revision - before.Data.Revision - 1
		}
	}

	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	switch {
	case d.Reason == schemas.Baseline:
		add("first seen")
	case d.Reason == schemas.Appeared && d.Revision == 1:
		add("new in the listing")
	case d.Reason == schemas.Appeared:
		add("back in the listing")
	case d.Reason == schemas.Removed && d.Agent.There():
		add("left the listing")
	case d.Reason == schemas.Removed:
		add("was deleted")
	}
	switch {
	case kind == "updated":
	case skipped > 0:
		add("was %s", onlineOrOffline(!d.Online))
	case !d.PreviousSince.IsZero():
		add("was %s for %s", onlineOrOffline(!d.Online), plain.Span(d.Since.Sub(d.PreviousSince)))
	}
	if d.Reason != schemas.Removed {
		parts = append(parts, fields(changes, kind)...)
		if truncated {
			add("and undocumented fields, too many to list")
		}
	}
	switch {
	case skipped == 1:
		add("1 change in between")
	case skipped > 1:
		add("%d changes in between", skipped)
	}
	if len(parts) == 0 {
		add("%s", plain.Clean(string(d.Reason)))
	}
	return kind, strings.Join(parts, ", ")
}

func onlineOrOffline(online bool) string {
	if online {
		return "online"
	}
	return "offline"
}

// fields lists the fields that changed, with both values; quiet ones only where no other changed.
func fields(changes []schemas.Change, kind string) (shown []string) {
	var quiet schemas.Quiet // the default
	if significant := quiet.Significant(changes); len(significant) > 0 || kind != "updated" {
		changes = significant
	}
	for _, c := range changes {
		if c.Field == "onlineStatus" && kind != "updated" {
			continue // the kind says it
		}
		from, to := shorten(c.Field, c.From), shorten(c.Field, c.To)
		shown = append(shown, fmt.Sprintf("%s %s → %s", plain.Clean(c.Field), from, to))
	}
	return shown
}

// shorten is a field's value: a string without its quotes, everything else as it came.
func shorten(field string, v json.RawMessage) string {
	var s string
	switch {
	case v == nil:
		return "(none)"
	case v[0] != '"' || json.Unmarshal(v, &s) != nil:
		s = string(v)
	case s == "":
		return `""`
	case field == "type":
		return plain.Cut(agenttype.Label(&s), maxValue)
	}
	return plain.Cut(plain.Clean(s), maxValue)
}
