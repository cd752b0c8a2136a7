package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/rollcall-events/rollcall/internal/setting"
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
		if n := setting.Nearest(name, known); n != "" {
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
		if n := setting.Nearest(f, schemas.DefaultQuiet); n != "" {
			warnings = append(warnings, fmt.Sprintf("ROLLCALL_QUIET_FIELDS names %q, "+
				"a field that the vendor does not document; did you mean %s?", shortened(f), n))
		}
	}
	return warnings
}
