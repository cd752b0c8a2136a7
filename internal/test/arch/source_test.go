package arch

import (
	"bytes"
	"io/fs"
	"os"
	"strings"
	"testing"
)

// eachLine calls do with every line of every Go file of the repository, by its path from the root.
func eachLine(t *testing.T, do func(path string, n int, line string)) {
	t.Helper()
	tree := os.DirFS("../../..")
	err := fs.WalkDir(tree, ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == "node_modules"):
			return fs.SkipDir
		case !strings.HasSuffix(path, ".go"):
			return nil
		}
		text, err := fs.ReadFile(tree, path)
		if err != nil {
			return err
		}
		n := 0
		for line := range bytes.Lines(text) {
			n++
			do(path, n, strings.TrimSuffix(string(line), "\n"))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Packages know their settings by field; what operators call them is cmd/rollcall's to say.
func TestNamesOfSettings(t *testing.T) {
	eachLine(t, func(path string, n int, line string) {
		line = strings.ReplaceAll(line, `"ROLLCALL_ALARM"`, "") // a stream
		if strings.Contains(line, "ROLLCALL_") && !strings.HasSuffix(path, "_test.go") &&
			!isOrUnder(path, "cmd", "internal/bench", "internal/test") {
			t.Errorf("%s:%d names a setting: only cmd does", path, n)
		}
	})
}
