package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/rollcall-events/rollcall/schemas"
)

// unknownVariables warns of each variable that looks like one of rollcall's and is none.
func unknownVariables(environ, known []string) []string {
	var warnings []string
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, envPrefix) || slices.Contains(known, name) ||
			serviceLink(name, value) {
			continue
		}
		w := name + " is none of rollcall's settings and has no effect"
		if n := nearest(name, known); n != "" {
			w += "; did you mean " + n + "?"
		}
		warnings = append(warnings, w)
	}
	slices.Sort(warnings)
	return warnings
}

const envPrefix = "ROLLCALL_"

// serviceLink reports whether the variable is one of those by which Kubernetes tells a pod of a
// Service, here one whose name begins with rollcall.
func serviceLink(name, value string) bool {
	if strings.HasSuffix(name, "_SERVICE_HOST") || strings.Contains(name, "_SERVICE_PORT") {
		return true
	}
	for _, protocol := range []string{"TCP", "UDP", "SCTP"} {
		if strings.Contains(name, "_"+protocol) && strings.Contains(name, "_PORT_") ||
			strings.HasSuffix(name, "_PORT") &&
				strings.HasPrefix(value, strings.ToLower(protocol)+"://") {
			return true
		}
	}
	return false
}

// oddFields warns of quiet fields that look like a mistyped name of one that is usually quiet.
// Names that the vendor's documentation does not list are otherwise fine: such fields come.
func (s *settings) oddFields() []string {
	var warnings []string
	for _, f := range s.QuietFields {
		if f == "*" || schemas.Listed(f) {
			continue
		}
		if n := nearest(f, schemas.DefaultQuiet); n != "" {
			warnings = append(warnings, fmt.Sprintf("ROLLCALL_QUIET_FIELDS names %q, "+
				"a field that the vendor does not document; did you mean %s?", shortened(f), n))
		}
	}
	return warnings
}

// nearest is the known name that a mistyped one most likely stands for, or empty.
func nearest(name string, known []string) string {
	words := func(s string) []string { return strings.Split(strings.TrimPrefix(s, envPrefix), "_") }
	best, least := "", 4 // further apart they are different names
	for _, k := range known {
		d := distance(name, k)
		differs := func(w string) bool { return !slices.Contains(words(k), w) }
		if !slices.ContainsFunc(words(name), differs) { // words left out or in another order
			d = min(d, 3)
		}
		if d < least && 2*d < len(k) {
			best, least = k, d
		}
	}
	return best
}

// distance counts the characters to insert, leave out or replace to make one name the other
// (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
