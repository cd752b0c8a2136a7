//go:build unix

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
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
	return built(t, rollcallBinary)
}

func built(t testing.TB, build func() (string, error)) string {
	t.Helper()
	if binDir == "" {
		t.Fatal("call e2e.Main from TestMain")
	}
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var rollcallBinary = sync.OnceValues(func() (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	// The result of a test may come from go test's cache, which knows of the files that the test
	// itself has opened, not of those that go build has: so open every directory. A changed file
	// shows in it.
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path != root && strings.HasPrefix(d.Name(), ".") {
			return fs.SkipDir
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("look at the sources: %w", err)
	}
	return goBuild(root, "rollcall", "./cmd/rollcall", raceEnabled)
})

var natsServerBinary = sync.OnceValues(func() (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	return goBuild(root, "nats-server", "github.com/nats-io/nats-server/v2", false)
})

func moduleRoot() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	mod := strings.TrimSpace(string(out))
	if filepath.Base(mod) != "go.mod" {
		return "", errors.New("find the module: not within one")
	}
	return filepath.Dir(mod), nil
}

func goBuild(root, name, pkg string, race bool) (string, error) {
	path := filepath.Join(binDir, name)
	args := []string{"build", "-buildvcs=false", "-o", path}
	if race {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, pkg)...)
	cmd.Dir = root
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, out.String())
	}
	return path, nil
}
