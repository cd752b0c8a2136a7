//go:build unix

package e2e

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/rollcall-events/rollcall/internal/test/process"
)

// binDir is where Main has the binaries built; empty: Main was not called.
var binDir string

// Main runs a test package's tests, and afterwards removes the binaries that they had built: func
// TestMain(m *testing.M) { os.Exit(e2e.Main(m)) }.
func Main(m *testing.M) int {
	dir, err := os.MkdirTemp("", "rollcall-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	binDir = dir
	return m.Run()
}

// Binary builds rollcall, once, and returns its path. It has the race detector where the test has
// it.
func Binary(t testing.TB) string {
	t.Helper()
	return Built(t, "./cmd/rollcall")
}

var (
	buildMu sync.Mutex
	built   = map[string]string{}
)

// Built builds a package of this module, or of one that it requires, once, and returns the binary's
// path. Of this module it has the race detector where the test has it.
func Built(t testing.TB, pkg string) string {
	t.Helper()
	if binDir == "" {
		t.Fatal("call e2e.Main from TestMain")
	}
	buildMu.Lock()
	defer buildMu.Unlock()
	if path := built[pkg]; path != "" {
		return path
	}
	var flags []string
	if strings.HasPrefix(pkg, "./") {
		openSources(t)
		if raceEnabled {
			flags = append(flags, "-race")
		}
	}
	path, err := process.Build(context.Background(), binDir, pkg, flags...)
	if err != nil {
		t.Fatal(err)
	}
	built[pkg] = path
	return path
}

// openSources opens every directory of the module: the result of a test may come from go test's
// cache, which knows of the files that the test itself has opened, not of those that go build has.
// A changed file shows in its directory.
func openSources(t testing.TB) {
	t.Helper()
	root, err := process.Root(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path != root && strings.HasPrefix(d.Name(), ".") {
			return fs.SkipDir
		}
		return err
	})
	if err != nil {
		t.Fatalf("look at the sources: %v", err)
	}
}
