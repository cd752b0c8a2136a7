package presence

import (
	"testing"
	"time"
)

func TestParseTime(t *testing.T) {
	for _, c := range []struct{ in, zone, want string }{
		{"2026-11-26T10:32:00+08:00", "", "2026-11-26T02:32:00Z"},
		{" 2026-11-26 10:32:00+08:00 ", "", "2026-11-26T02:32:00Z"},
		{"2026-11-26t10:32z", "", "2026-11-26T10:32:00Z"},
		{"2026-11-26T10:32:00.5Z", "Asia/Shanghai", "2026-11-26T10:32:00.5Z"},
		{"2026-11-26T10:32:00", "Asia/Shanghai", "2026-11-26T02:32:00Z"},
		{"2026-11-26 10:32", "+05:30", "2026-11-26T05:02:00Z"},
		{"2026-11-26", "Asia/Shanghai", "2026-11-25T16:00:00Z"},
		{"2026-10-25 01:59:59", "Europe/Berlin", "2026-10-24T23:59:59Z"},
		{"2026-10-25 02:30:00+01:00", "Europe/Berlin", "2026-10-25T01:30:00Z"},
		{"2026-10-25 03:00:00", "Europe/Berlin", "2026-10-25T02:00:00Z"},
		{"2026-10-25", "Europe/Berlin", "2026-10-24T22:00:00Z"},
		{"2026-10-26", "Europe/Berlin", "2026-10-25T23:00:00Z"},
		{"2026-03-29 03:00", "Europe/Berlin", "2026-03-29T01:00:00Z"},
		{"2026-03-08", "America/Havana", "2026-03-08T05:00:00Z"}, // it begins at one
		{"2026-11-01", "America/Havana", "2026-11-01T04:00:00Z"}, // midnight comes twice

		{"2026-11-26T10:32:00", "", "a time with its zone, as in 2026-11-26T10:32:00+08:00 or " +
			"2026-11-26T10:32:00Z, or --tz"},
		{"2026-11-26", "", "a time with its zone, as in 2026-11-26T00:00:00+08:00 or " +
			"2026-11-26T00:00:00Z, or --tz"},
		{"2026-10-25 02:30", "Europe/Berlin", "which of two times is meant, since clocks in " +
			"Europe/Berlin are set back over it: 2026-10-25T02:30:00+02:00 or " +
			"2026-10-25T02:30:00+01:00"},
		{"2026-03-29 02:30", "Europe/Berlin", "a time that exists: clocks in Europe/Berlin are " +
			"set forward over it"},
		{"2026-02-30T10:32:00Z", "", WantTime},
		{"yesterday", "Asia/Shanghai", WantTime},
		{"10:32", "Asia/Shanghai", WantTime},
		{"", "", WantTime},
	} {
		var zone *time.Location
		if c.zone != "" {
			var err error
			if zone, err = Zone(c.zone); err != nil {
				t.Fatal(err)
			}
		}
		at, err := ParseTime(c.in, zone)
		got := at.UTC().Format(time.RFC3339Nano)
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%q in %q is %s, want %s", c.in, c.zone, got, c.want)
		}
	}
	for _, name := range []string{"Mars/Phobos", "CST", "8", "../UTC"} {
		if _, err := Zone(name); err == nil {
			t.Errorf("%q is a zone", name)
		}
	}
}
