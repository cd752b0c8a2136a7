package arch

import (
	"bytes"
	"io/fs"
	"os"
	"strings"
	"testing"
	"unicode/utf8"
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

// columns is how wide a line is where a tab goes to the next multiple of four.
func columns(line string) (n int) {
	for part := range strings.SplitAfterSeq(line, "\t") {
		n += utf8.RuneCountInString(part)
		if strings.HasSuffix(part, "\t") {
			n += 3 - (n-1)%4
		}
	}
	return n
}

func TestWidth(t *testing.T) {
	for line, want := range map[string]int{"": 0, "\tx": 5, "\t\t": 8, "ab\tc": 5, "abcd\t": 8,
		"↔": 1} {
		if got := columns(line); got != want {
			t.Errorf("%q is %d columns wide, want %d", line, got, want)
		}
	}
	eachLine(t, func(path string, n int, line string) {
		if got := columns(line); got > 100 {
			t.Errorf("%s:%d is %d columns wide, at most 100 are", path, n, got)
		}
	})
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
