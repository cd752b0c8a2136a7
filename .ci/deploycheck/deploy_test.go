package deploycheck

import (
	"flag"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// root is the repository's, seen from this package.
const root = "../.."

var metricsTable = flag.String("metrics", root+"/docs/metrics.md",
	"the document that names every metric")

// scratch is a directory that all tests share, and that is gone after them.
var scratch string

func TestMain(m *testing.M) {
	flag.Parse()
	dir, err := os.MkdirTemp("", "deploycheck-")
	if err != nil {
		panic(err)
	}
	scratch = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// tool finds a program that has to be there.
func tool(t *testing.T, name, debian string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%v; it is in Debian's package %s", err, debian)
	}
	return path
}

// run runs a program that has to end well.
func run(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s %s: %v\n%s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
	return string(out)
}

var settingName = regexp.MustCompile(`\bROLLCALL_[A-Z][A-Z_]*[A-Z]\b`)

// settings are the variables of the table in docs/settings.md.
func settings(t *testing.T) map[string]bool {
	t.Helper()
	known := make(map[string]bool)
	for line := range strings.Lines(read(t, "docs/settings.md")) {
		if !strings.HasPrefix(line, "| `ROLLCALL_") {
			continue
		}
		cell, _, _ := strings.Cut(line[2:], "|")
		for _, name := range settingName.FindAllString(cell, -1) {
			known[name] = true
			if strings.Contains(cell, "`…_FILE`") {
				known[name+"_FILE"] = true
			}
		}
	}
	if len(known) < 30 {
		t.Fatalf("docs/settings.md has only %d settings", len(known))
	}
	return known
}

func TestSettings(t *testing.T) {
	known := settings(t)
	// Names in NATS that look like settings: an account, a stream.
	others := map[string]bool{"ROLLCALL_COPY": true, "ROLLCALL_ALARM": true}
	named := make(map[string]bool)
	files := []string{"Dockerfile", "docs/deployment.md"}
	err := filepath.WalkDir(filepath.Join(root, "deploy"),
		func(path string, d fs.DirEntry, err error) error {
			if d != nil && d.IsDir() && d.Name() == "secrets" {
				return fs.SkipDir
			}
			if err == nil && !d.IsDir() {
				rel, _ := filepath.Rel(root, path)
				files = append(files, rel)
			}
			return err
		})
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		for _, name := range settingName.FindAllString(read(t, file), -1) {
			named[name] = true
			if !known[name] && !others[name] {
				t.Errorf("%s names %s, which docs/settings.md does not have", file, name)
			}
		}
	}
	if len(named) < 10 {
		t.Errorf("only %v are named: is the search broken?", slices.Sorted(maps.Keys(named)))
	}
}

// secretVariable tells variables that would hold a secret from those that name a file with one.
func secretVariable(name, value string) bool {
	holds := regexp.MustCompile(
		`SECRET|PASSWORD|PASSWD|TOKEN|SEED|CREDS|CLIENT_ID|USERNAME|_KEY$`).MatchString(name)
	return holds && value != "" && !strings.HasSuffix(name, "_FILE")
}
