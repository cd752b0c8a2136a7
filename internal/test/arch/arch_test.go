package arch

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A pkg is what go list says of one package of the module.
type pkg struct {
	ImportPath   string
	Dir          string
	GoFiles      []string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

// A graph is the packages of a module, by their paths within it: "cmd/rollcall", "internal/engine".
type graph struct {
	module string
	pkgs   map[string]pkg
}

// inside is the path of an import within the module, if it is one of its packages.
func (g graph) inside(path string) (string, bool) {
	return strings.CutPrefix(path, g.module+"/")
}

// reached are the imports of a package and of the module's own packages that it imports, directly
// or not. The tests' imports count for the package itself only, and only if asked for.
func (g graph) reached(name string, tests bool) []string {
	p := g.pkgs[name]
	imports := slices.Clone(p.Imports)
	if tests {
		imports = slices.Concat(imports, p.TestImports, p.XTestImports)
	}
	for i := 0; i < len(imports); i++ { // imports grows
		if imported, ok := g.inside(imports[i]); ok {
			for _, further := range g.pkgs[imported].Imports {
				if !slices.Contains(imports, further) {
					imports = append(imports, further)
				}
			}
		}
	}
	slices.Sort(imports)
	return slices.Compact(imports)
}

// isOrUnder reports whether a path is one of the given ones or lies below it.
func isOrUnder(path string, roots ...string) bool {
	return slices.ContainsFunc(roots, func(root string) bool {
		return path == root || strings.HasPrefix(path, root+"/")
	})
}

// isStandard: the paths of all other modules begin with a domain.
func isStandard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}

// A rule says what some packages may not import.
type rule struct {
	why    string
	of     func(name string) bool                       // whose imports
	tests  bool                                         // those of the tests too
	forbid func(g graph, name string, path string) bool // which of them
}

func named(names ...string) func(string) bool {
	return func(name string) bool { return isOrUnder(name, names...) }
}

func unnamed(names ...string) func(string) bool {
	return func(name string) bool { return !isOrUnder(name, names...) }
}

// others forbids the imports of the given paths.
func others(paths ...string) func(graph, string, string) bool {
	return func(_ graph, _, path string) bool { return isOrUnder(path, paths...) }
}

func just(name string) func(string) bool { return func(n string) bool { return n == name } }

// consumers are the imports of the package that consumers use.
var consumers = []string{natsClient, natsClient + "/jetstream", "github.com/cenkalti/backoff/v4",
	"github.com/rollcall-events/rollcall/schemas",
	"github.com/rollcall-events/rollcall/schemas/internal/pull",
	"github.com/rollcall-events/rollcall/" + documentedFields}

// own forbids the imports of the module's own packages of those names and below, but for the
// importing one's.
func own(names ...string) func(graph, string, string) bool {
	return func(g graph, name, path string) bool {
		in, ok := g.inside(path)
		return ok && slices.ContainsFunc(names, func(root string) bool {
			return isOrUnder(in, root) && !isOrUnder(name, root)
		})
	}
}

const (
	natsClient = "github.com/nats-io/nats.go"
	natsServer = "github.com/nats-io/nats-server"
	natsBatch  = "github.com/synadia-io/orbit.go"
)

// Packages that the rules speak of. They have to be there, lest a rule holds because its package
// was renamed.
var known = []string{"cmd/rollcall", "diff", "examples/audit", "examples/routing",
	"internal/tenantsim", "internal/test/isdpsim", "poller", "poller/isdp", "publisher", "schemas",
	"schemas/follow", "schemas/followtest", "schemas/history"}

// words are the packages whose types say what an agent, an event and a listing are.
var words = []string{"schemas", documentedFields, "internal/packed", "internal/listing"}

// documentedFields is what schemas and the core both need to know.
const documentedFields = "internal/fields"

var rules = []rule{
	{why: "schemas imports the standard library only", of: just("schemas"),
		forbid: func(g graph, _, path string) bool {
			in, _ := g.inside(path)
			return !isStandard(path) && in != documentedFields
		}},
	{why: "schemas knows nothing of HTTP, the network, files and logs", of: just("schemas"),
		forbid: others("net", "os", "log", "syscall")},
	{why: "consumers get the client and the wire, and nothing of the daemon",
		of: named("schemas/follow", "schemas/history"),
		forbid: func(_ graph, _, path string) bool {
			return !isStandard(path) && !slices.Contains(consumers, path)
		}},
	{why: "followtest, which has a NATS server in it, is for tests",
		of: unnamed("schemas/followtest"), forbid: own("schemas/followtest")},
	{why: "examples show what others can import", of: named("examples"),
		forbid: func(g graph, name, path string) bool {
			in, ok := g.inside(path)
			return ok && !isOrUnder(in, "schemas", documentedFields, "examples", name)
		}},
	{why: "poller, diff and publisher never import one another",
		of: named("poller", "diff", "publisher"), tests: true,
		forbid: own("poller", "diff", "publisher")},
	{why: "the sweep and the vendor's side know nothing of one another", of: named("poller"),
		forbid: func(g graph, name, path string) bool {
			in, ok := g.inside(path)
			return ok && in != name && isOrUnder(in, "poller")
		}},
	{why: "diff does no I/O, no logging and nothing by chance", of: named("diff"),
		forbid: others("net", "os", "io/ioutil", "log", "syscall", "context", "math/rand",
			"crypto/rand", "plugin")},
	{why: "diff imports the standard library and the words of agents and listings only",
		of: named("diff"),
		forbid: func(g graph, _, path string) bool {
			in, ok := g.inside(path)
			return !isStandard(path) && !(ok && slices.Contains(words, in))
		}},
	{why: "poller knows nothing of NATS", of: named("poller"), tests: true,
		forbid: others(natsClient, natsServer, natsBatch)},
	{why: "publisher knows nothing of HTTP", of: named("publisher"), forbid: others("net/http")},
	{why: "only cmd/rollcall reads the environment and the command line",
		of: unnamed("cmd/rollcall"), tests: true,
		forbid: others("github.com/kelseyhightower/envconfig", "github.com/spf13/cobra",
			"github.com/spf13/pflag")},
	{why: "nothing imports cmd", of: unnamed("cmd"), tests: true, forbid: own("cmd")},
	{why: "the simulated tenant shares nothing with what it tests",
		of: named("internal/tenantsim", "internal/test/isdpsim"),
		forbid: func(g graph, name, path string) bool {
			in, ok := g.inside(path)
			return ok && !isOrUnder(in, name, "internal/tenantsim")
		}},
	{why: "what only tests use is not in the binary", of: named("cmd/rollcall"),
		forbid: own("internal/test", "internal/bench")},
}

// broken tells each breach of a rule, sorted.
func broken(g graph, rules []rule) []string {
	var told []string
	for name := range g.pkgs {
		for _, r := range rules {
			if !r.of(name) {
				continue
			}
			for _, path := range g.reached(name, r.tests) {
				if r.forbid(g, name, path) {
					told = append(told, fmt.Sprintf("%s reaches %s: %s", name, path, r.why))
				}
			}
		}
	}
	slices.Sort(told)
	return told
}

// list asks go list for the packages of this module.
func list(t *testing.T) graph {
	t.Helper()
	root := filepath.Join("..", "..", "..")
	// The result of this test may come from go test's cache, which knows of what the test itself
	// has opened, not of what go list has: so open every directory. A changed file shows in it.
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path != root && strings.HasPrefix(d.Name(), ".") {
			return fs.SkipDir
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	g := graph{pkgs: map[string]pkg{}}
	run := func(args ...string) string {
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Dir, cmd.Stderr = root, os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go %s: %v", strings.Join(args, " "), err)
		}
		return string(out)
	}
	g.module = strings.TrimSpace(run("list", "-m"))
	packages := json.NewDecoder(strings.NewReader(
		run("list", "-json=ImportPath,Dir,GoFiles,Imports,TestImports,XTestImports", "./...")))
	for {
		var p pkg
		err := packages.Decode(&p)
		if errors.Is(err, io.EOF) {
			return g
		}
		if err != nil {
			t.Fatal(err)
		}
		name, ok := g.inside(p.ImportPath)
		if !ok {
			t.Fatalf("%s is not below %s", p.ImportPath, g.module)
		}
		g.pkgs[name] = p
	}
}

func TestImports(t *testing.T) {
	g := list(t)
	for _, name := range known {
		if _, ok := g.pkgs[name]; !ok {
			t.Errorf("there is no package %s: was it renamed, and the rules not?", name)
		}
	}
	for _, b := range broken(g, rules) {
		t.Error(b)
	}
}

// Each rule is broken once in a module that is made up, and nothing else is.
func TestBroken(t *testing.T) {
	const module = "example.com/made/up"
	in := func(name string) string { return module + "/" + name }
	pkgs := map[string]pkg{
		"schemas": {Imports: []string{"encoding/json", "time"},
			TestImports: []string{"os", "pgregory.net/rapid"}},
		"poller": {Imports: []string{"net/http", in("schemas"),
			in("internal/setting")},
			XTestImports: []string{in("poller"), in("internal/test/isdpsim")}},
		"diff": {Imports: []string{"slices", in("schemas")},
			TestImports: []string{"os", "pgregory.net/rapid"}, XTestImports: []string{in("diff")}},
		"publisher": {Imports: []string{natsClient + "/jetstream",
			natsBatch + "/jetstreamext", in("schemas")}, TestImports: []string{"net/http"}},
		"cmd/rollcall": {Imports: []string{"github.com/kelseyhightower/envconfig",
			"github.com/spf13/cobra", in("poller"), in("diff"), in("publisher")}},
		"schemas/follow": {Imports: []string{"context", natsClient + "/jetstream",
			"github.com/rollcall-events/rollcall/schemas"}},
		"examples/routing": {Imports: []string{natsClient, in("schemas/follow"),
			"net/http"}, TestImports: []string{in("internal/setting")}},
		"internal/engine":          {Imports: []string{in("poller"), in("diff"), in("publisher")}},
		"internal/tenantsim":       {Imports: []string{"net/http"}},
		"internal/test/isdpsim":    {Imports: []string{"net/http", in("internal/tenantsim")}},
		"internal/setting":         {Imports: []string{"fmt"}},
		"internal/test/arch":       {},
		"internal/publisherhelper": {Imports: []string{in("publisher")}}, // not below publisher
	}
	if told := broken(graph{module, pkgs}, rules); len(told) != 0 {
		t.Fatalf("broken from the beginning: %q", told)
	}
	for _, c := range []struct {
		name string
		with pkg
		want []string
	}{
		{"schemas", pkg{Imports: []string{"github.com/google/go-cmp/cmp"}}, []string{
			"diff reaches github.com/google/go-cmp/cmp: diff imports the standard library and " +
				"the words of agents and listings only",
			"schemas reaches github.com/google/go-cmp/cmp: schemas imports the standard library " +
				"only"}},
		{"schemas", pkg{Imports: []string{in("internal/setting")}}, []string{
			"diff reaches " + in("internal/setting") +
				": diff imports the standard library and the words of agents and listings only",
			"schemas reaches " + in("internal/setting") +
				": schemas imports the standard library only"}},
		{"poller", pkg{Imports: []string{in("poller/isdp")}}, []string{
			"poller reaches " + in("poller/isdp") +
				": the sweep and the vendor's side know nothing of one another"}},
		{"schemas", pkg{Imports: []string{"net/url"}}, []string{
			"diff reaches net/url: diff does no I/O, no logging and nothing by chance",
			"schemas reaches net/url: schemas knows nothing of HTTP, the network, files and logs"}},
		{"schemas/follow", pkg{Imports: []string{natsServer + "/v2/server"}}, []string{
			"schemas/follow reaches " + natsServer +
				"/v2/server: consumers get the client and the wire, and nothing of the daemon"}},
		{"examples/routing", pkg{Imports: []string{in("internal/setting")}}, []string{
			"examples/routing reaches " + in("internal/setting") +
				": examples show what others can import"}},
		{"poller", pkg{Imports: []string{in("diff")}}, []string{
			"poller reaches " + in("diff") +
				": poller, diff and publisher never import one another"}},
		{"poller", pkg{TestImports: []string{in("diff")}}, []string{
			"poller reaches " + in("diff") +
				": poller, diff and publisher never import one another"}},
		{"poller", pkg{Imports: []string{natsClient}},
			[]string{"poller reaches " + natsClient + ": poller knows nothing of NATS"}},
		{"publisher", pkg{XTestImports: []string{in("poller")}}, []string{
			"publisher reaches " + in("poller") +
				": poller, diff and publisher never import one another"}},
		{"publisher",
			pkg{Imports: []string{in("internal/publisherhelper"), in("internal/through")}},
			[]string{
				"publisher reaches " + in("poller") +
					": poller, diff and publisher never import one another",
				"publisher reaches net/http: publisher knows nothing of HTTP"}},
		{"diff", pkg{Imports: []string{"log/slog"}},
			[]string{"diff reaches log/slog: diff does no I/O, no logging and nothing by chance"}},
		{"diff", pkg{Imports: []string{"golang.org/x/sync/errgroup"}}, []string{
			"diff reaches golang.org/x/sync/errgroup: diff imports the standard library and the " +
				"words of agents and listings only"}},
		{"internal/engine", pkg{Imports: []string{"github.com/kelseyhightower/envconfig"}},
			[]string{
				"internal/engine reaches github.com/kelseyhightower/envconfig: only cmd/rollcall " +
					"reads the environment and the command line"}},
		{"internal/engine", pkg{TestImports: []string{in("cmd/rollcall/internal/x")}}, []string{
			"internal/engine reaches " + in("cmd/rollcall/internal/x") + ": nothing imports cmd"}},
		{"internal/test/isdpsim", pkg{Imports: []string{in("schemas")}}, []string{
			"internal/test/isdpsim reaches " + in("schemas") +
				": the simulated tenant shares nothing with what it tests"}},
		{"cmd/rollcall", pkg{Imports: []string{in("internal/test/isdpsim")}}, []string{
			"cmd/rollcall reaches " + in("internal/test/isdpsim") +
				": what only tests use is not in the binary"}},
	} {
		// used by one of the cases only
		with := map[string]pkg{"internal/through": {Imports: []string{in("poller")}}}
		for name, p := range pkgs {
			with[name] = p
		}
		p := with[c.name]
		p.Imports = append(slices.Clone(p.Imports), c.with.Imports...)
		p.TestImports = append(slices.Clone(p.TestImports), c.with.TestImports...)
		p.XTestImports = append(slices.Clone(p.XTestImports), c.with.XTestImports...)
		with[c.name] = p
		if d := cmp.Diff(c.want, broken(graph{module, with}, rules)); d != "" {
			t.Errorf("%s with %v:\n%s", c.name, c.with, d)
		}
	}
}

// clocks are the functions of package time that ask what time it is, or wait.
var clocks = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTicker",
	"NewTimer"}

// asked tells each use of a clock in a file of Go.
func asked(t *testing.T, name string, src any) []string {
	t.Helper()
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, name, src, 0)
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	ast.Inspect(file, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok && slices.Contains(clocks, s.Sel.Name) {
			if x, ok := s.X.(*ast.Ident); ok && x.Name == "time" {
				told = append(told, fmt.Sprintf("%s: time.%s", files.Position(n.Pos()), s.Sel.Name))
			}
		}
		return true
	})
	return told
}

// Imports don't show it: package time is also where durations come from.
func TestDiffAndSchemasHaveNoClock(t *testing.T) {
	g := list(t)
	for _, name := range []string{"diff", "schemas"} {
		for _, file := range g.pkgs[name].GoFiles {
			for _, told := range asked(t, filepath.Join(g.pkgs[name].Dir, file), nil) {
				t.Error(told)
			}
		}
	}
	told := asked(t, "x.go",
		"package x\nimport \"time\"\nvar a, b = time.Now(), time.Second\nvar now = time.Now\n")
	if d := cmp.Diff([]string{"x.go:3:12: time.Now", "x.go:4:11: time.Now"}, told); d != "" {
		t.Error(d)
	}
}
