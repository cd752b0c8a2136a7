package scenario

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rollcall-events/rollcall/internal/setting"
)

// Whatever a file holds, it is a scenario, or each mistake has a line of the file.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("../../examples/scenarios/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte("steps:\n- {at: 1s, vendor: silent, for: 2s, every: 3s, times: 4}\n"))
	f.Add([]byte("steps: [{at: 1s, edit: all, set: {a: null, b: 1.5}}, *x]\n---\n&x [!!str 1]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := Parse("f.yaml", text, -1)
		if err == nil {
			if len(s.steps) == 0 {
				t.Errorf("nothing happens in %+v", s)
			}
			return
		}
		if _, ok := errors.AsType[*setting.Error](err); !ok || !strings.HasPrefix(err.Error(),
			"f.yaml:") {
			t.Errorf("%T: %v", err, err)
		}
	})
}
