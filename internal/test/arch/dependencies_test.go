package arch

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/modfile"
)

// docs/dependencies.md says of each direct dependency what it is for, and of nothing else.
func TestDependenciesAreDocumented(t *testing.T) {
	mod, err := os.ReadFile("../../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := modfile.ParseLax("go.mod", mod, nil)
	if err != nil {
		t.Fatal(err)
	}
	required := make(map[string]bool)
	for _, r := range parsed.Require {
		if !r.Indirect {
			required[r.Mod.Path] = true
		}
	}
	document, err := os.ReadFile("../../../docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := make(map[string]bool)
	for _, row := range regexp.MustCompile(
		"(?m)^\\| (`[a-z].*?`) \\| .+ \\| .+ \\|$").FindAllSubmatch(document, -1) {
		for _, name := range regexp.MustCompile("`(.+?)`").FindAllSubmatch(row[1], -1) {
			documented[string(name[1])] = true
		}
	}
	if d := cmp.Diff(slices.Sorted(maps.Keys(required)),
		slices.Sorted(maps.Keys(documented))); d != "" {
		t.Errorf("go.mod requires (-), docs/dependencies.md has (+):\n%s", d)
	}
}
