package watch

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/rollcall-events/rollcall/schemas"
)

// A change is an event in words.
type change struct {
	kind string // online, offline or updated
	what string
}

// describe tells what an event changed: before is the agent's last event that has been shown, nil
// if none. Where events between the two were not shown, it tells the difference to what was.
func describe(before, e *schemas.Event) change {
	d := &e.Data
	kind := strings.TrimPrefix(string(e.Type), "agent.")
	changes, truncated, skipped := d.Changes, d.ChangesTruncated, uint64(0)
	if before != nil && d.Revision != before.Data.Revision+1 {
		kind = "updated"
		if before.Data.Online != d.Online {
			kind = stateWord(d.Online)
		}
		changes, truncated = schemas.Changes(&before.Data.Agent, &d.Agent), false
		if d.Revision > before.Data.Revision {
			skipped = d.Revision - before.Data.Revision - 1
		}
	}

	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	switch d.Reason {
	case schemas.Baseline:
		add("first seen")
	case schemas.Appeared:
		if d.Revision == 1 {
			add("new in the listing")
		} else {
			add("back in the listing")
		}
	case schemas.Removed:
		if d.Agent.There() {
			add("left the listing")
		} else {
			add("was deleted")
		}
	}
	switch {
	case kind == "updated":
	case skipped > 0:
		add("was %s", stateWord(!d.Online))
	case !d.PreviousSince.IsZero():
		add("was %s for %s", stateWord(!d.Online), span(d.Since.Sub(d.PreviousSince)))
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
		add("%s", clean(string(d.Reason)))
	}
	return change{kind, strings.Join(parts, ", ")}
}

func stateWord(online bool) string {
	if online {
		return "online"
	}
	return "offline"
}

// fields tells the fields that changed, each with both values. Those that are usually quiet are
// left out where others changed too: they only came along.
func fields(changes []schemas.Change, kind string) []string {
	var loud, quiet []string
	for _, c := range changes {
		if c.Field == "onlineStatus" && kind != "updated" {
			continue // the kind says it
		}
		told := fmt.Sprintf("%s %s → %s", clean(c.Field), cut(shown(c.Field, c.From), mostOfValue), cut(shown(c.Field, c.To), mostOfValue))
		if !schemas.Listed(c.Field) || slices.Contains(schemas.DefaultQuiet, c.Field) {
			quiet = append(quiet, told)
		} else {
			loud = append(loud, told)
		}
	}
	if len(loud) > 0 || kind != "updated" {
		return loud
	}
	return quiet
}

// mostOfValue is how many columns of a changed value are shown.
const mostOfValue = 40

// shown is a field's value: a string without its quotes, everything else as it came.
func shown(field string, v json.RawMessage) string {
	var s string
	switch {
	case v == nil:
		return "(none)"
	case v[0] != '"' || json.Unmarshal(v, &s) != nil:
		return clean(string(v))
	case s == "":
		return `""`
	case field == "type":
		return typeInWords(&s)
	}
	return clean(s)
}
