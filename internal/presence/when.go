package presence

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// WantTime says what ParseTime takes, as the end of a sentence.
const WantTime = "a time with its zone, as in 2026-11-26T10:32:00+08:00, or, with --tz, a time " +
	"or a date there"

// Zone is the time zone of a name as the IANA has it (Asia/Shanghai), or of an offset (+08:00);
// empty, or "local": the machine's.
func Zone(name string) (*time.Location, error) {
	if name == "" || strings.EqualFold(name, "local") {
		return time.Local, nil
	}
	if t, err := time.Parse("Z07:00", name); err == nil {
		_, offset := t.Zone()
		return time.FixedZone(name, offset), nil
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, errors.New("a time zone, as in Asia/Shanghai or +08:00")
	}
	return zone, nil
}

// ParseTime reads a time that says its zone, or one in the given zone; nil: it has to say it. The
// error says what would be right, as the end of a sentence.
func ParseTime(s string, zone *time.Location) (time.Time, error) {
	s = strings.TrimSpace(s)
	clock := strings.ToUpper(s)
	if len(clock) > len(time.DateOnly) && clock[len(time.DateOnly)] == ' ' {
		clock = clock[:len(time.DateOnly)] + "T" + strings.TrimSpace(clock[len(time.DateOnly):])
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04Z07:00"} {
		if t, err := time.Parse(layout, clock); err == nil {
			return t, nil
		}
	}
	for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02T15:04", time.DateOnly} {
		t, err := time.Parse(layout, clock)
		switch {
		case err != nil:
			continue
		case zone == nil:
			return t, fmt.Errorf("a time with its zone, as in %s+08:00 or %[1]sZ, or --tz",
				t.Format("2006-01-02T15:04:05"))
		case layout == time.DateOnly:
			return midnight(t, zone), nil
		}
		return inZone(t, zone)
	}
	return time.Time{}, errors.New(WantTime)
}

// inZone is the time at which the zone's clocks show t, whose own zone does not matter.
func inZone(t time.Time, zone *time.Location) (time.Time, error) {
	found := shown(t, zone)
	switch len(found) {
	case 0:
		return t, fmt.Errorf("a time that exists: clocks in %s are set forward over it", zone)
	case 1:
		return found[0], nil
	}
	return t, fmt.Errorf("which of two times is meant, since clocks in %s are set back over it: "+
		"%s or %s", zone, found[0].Format(time.RFC3339), found[1].Format(time.RFC3339))
}

// midnight is when a day begins in the zone.
func midnight(day time.Time, zone *time.Location) time.Time {
	if found := shown(day, zone); len(found) > 0 {
		return found[0]
	}
	start, _ := at(day, zone, -1).ZoneBounds() // clocks are set forward over midnight
	return start
}

// shown are the times at which the zone's clocks show t, in order.
func shown(t time.Time, zone *time.Location) (found []time.Time) {
	for _, days := range []int{-1, 1} {
		u := at(t, zone, days)
		if same(u, t) && (len(found) == 0 || !found[0].Equal(u)) {
			found = append(found, u)
		}
	}
	return found
}

// at is the time at which clocks would show t that go as the zone's do some days later.
func at(t time.Time, zone *time.Location, days int) time.Time {
	_, offset := t.AddDate(0, 0, days).In(zone).Zone()
	return t.Add(-time.Duration(offset) * time.Second).In(zone)
}

// same reports whether two times are the same on their clocks.
func same(a, b time.Time) bool {
	const clock = "2006-01-02T15:04:05.999999999"
	return a.Format(clock) == b.Format(clock)
}
