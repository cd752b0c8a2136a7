package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rollcall-events/rollcall/schemas"
)

const runbook = "docs/operations.md"

// Packages that are not part of a running rollcall, or only of its simulated tenant: nobody has to
// look up what these log.
var testsOnly = []string{"internal/bench", "internal/tenantsim", "internal/test"}

// Messages that are no literals where they are logged, by the file and the expression, as the
// runbook has them.
var composed = map[string][]string{
	"cmd/rollcall/run.go: w": {
		"… is none of rollcall's settings and has no effect",
		"ROLLCALL_QUIET_FIELDS names …, a field that the vendor does not document",
	},
}

// Functions whose names are a logger's and that log nothing.
var noLogs = []string{"http.Error", "yaml.Error", "m.Error"}

// Constants that messages are made with.
var constants = map[string]string{
	"schemas.LogPrefix": schemas.LogPrefix,
}

// Every message of level warning and above is in the runbook's table with its level, and every
// message in the table is logged.
func TestRunbookMessages(t *testing.T) {
	logged, problems := map[string]string{}, []string{}
	for _, path := range sources(t) {
		src, err := os.ReadFile(filepath.Join("../..", path))
		if err != nil {
			t.Fatal(err)
		}
		found, wrong := warnings(path, src)
		problems = append(problems, wrong...)
		for message, level := range found {
			if was, ok := logged[message]; ok && was != level {
				level = "both"
			}
			logged[message] = level
		}
	}
	for _, p := range problems {
		t.Error(p)
	}
	if len(logged) < 20 {
		t.Fatalf("only %d messages were found in the source; the search is broken", len(logged))
	}
	told := map[string]string{}
	rows := regexp.MustCompile("(?m)^\\| `(.+?)` \\| (warning|error) \\| .+ \\| .+ \\|$")
	for _, row := range rows.FindAllStringSubmatch(section(t, "messages"), -1) {
		if _, twice := told[row[1]]; twice {
			t.Errorf("%s has a message twice: %s", runbook, row[1])
		}
		told[row[1]] = row[2]
	}
	if d := cmp.Diff(logged, told); d != "" {
		t.Errorf("the messages that are logged (-) are not those of %s (+):\n%s", runbook, d)
	}
}

// Every alert has a heading that its runbook_url leads to, and no heading is of an alert that is
// gone.
func TestRunbookAlerts(t *testing.T) {
	rules, err := os.ReadFile("../../deploy/prometheus/rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	var alerts, headings []string
	for rule := range strings.SplitSeq(string(rules), "- alert: ") {
		name, rest, _ := strings.Cut(rule, "\n")
		if strings.Contains(name, " ") || strings.HasPrefix(name, "#") {
			continue // what stands before the first
		}
		alerts = append(alerts, name)
		if want := "/" + runbook + "#" + strings.ToLower(name) + "\n"; !strings.Contains(rest+"\n",
			want) {
			t.Errorf("the runbook_url of %s does not end in %s", name, want)
		}
	}
	for _, h := range regexp.MustCompile(`(?m)^### (.+)$`).FindAllStringSubmatch(section(t,
		"alerts"), -1) {
		headings = append(headings, h[1])
	}
	if len(alerts) == 0 {
		t.Fatal("no alerts were found")
	}
	slices.Sort(alerts)
	slices.Sort(headings)
	if d := cmp.Diff(alerts, headings); d != "" {
		t.Errorf("the alerts (-) are not the headings in %s (+):\n%s", runbook, d)
	}
}

// section is the part of the runbook between the comments <!-- name --> and <!-- /name -->.
func section(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../..", runbook))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "<!-- "+name+" -->\n")
	body, _, closed := strings.Cut(rest, "<!-- /"+name+" -->")
	if !ok || !closed {
		t.Fatalf("%s has no section <!-- %s -->", runbook, name)
	}
	return body
}

// sources are the module's files that can log something in a running rollcall, by their paths
// within the module.
func sources(t *testing.T) []string {
	t.Helper()
	var files []string
	for _, root := range []string{"cmd", "diff", "internal", "poller", "publisher", "schemas"} {
		err := fs.WalkDir(os.DirFS("../.."), root,
			func(path string, d fs.DirEntry, err error) error {
				switch {
				case err != nil:
					return err
				case d.IsDir() && (d.Name() == "testdata" || slices.Contains(testsOnly, path)):
					return fs.SkipDir
				case strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go"):
					files = append(files, path)
				}
				return nil
			})
		if err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// warnings finds what a file logs at warning and above: calls of Warn and Error, of a variable that
// holds one of these methods, and of Log and LogAttrs with such a level. It tells of messages that
// it can't read.
func warnings(path string, src []byte) (found map[string]string, problems []string) {
	levels := map[string]string{
		"Warn": "warning", "WarnContext": "warning", "LevelWarn": "warning",
		"Error": "error", "ErrorContext": "error", "LevelError": "error",
	}
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, path, src, parser.SkipObjectResolution)
	if err != nil {
		return nil, []string{err.Error()}
	}
	found = map[string]string{}
	held := map[string]string{} // a variable that holds a method: its level
	ast.Inspect(file, func(n ast.Node) bool {
		if a, ok := n.(*ast.AssignStmt); ok && len(a.Lhs) == len(a.Rhs) {
			for i := range a.Lhs {
				name, isName := a.Lhs[i].(*ast.Ident)
				method, isMethod := a.Rhs[i].(*ast.SelectorExpr)
				if isName && isMethod && (method.Sel.Name == "Warn" || method.Sel.Name == "Error") {
					held[name.Name] = levels[method.Sel.Name]
				}
			}
		}
		return true
	})
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) == 0 {
			return true // err.Error() among them
		}
		level, message := "", 0
		switch f := call.Fun.(type) {
		case *ast.Ident:
			level = held[f.Name]
		case *ast.SelectorExpr:
			switch name := f.Sel.Name; {
			case slices.Contains(noLogs, text(f)):
			case name == "Log" || name == "LogAttrs":
				if len(call.Args) > 2 {
					if l, ok := call.Args[1].(*ast.SelectorExpr); ok {
						level, message = levels[l.Sel.Name], 2
					}
				}
			case strings.HasSuffix(name, "Context"):
				level, message = levels[name], 1
			default:
				level = levels[name]
			}
		}
		if level == "" || message >= len(call.Args) {
			return true
		}
		where := path + ": " + text(call.Args[message])
		messages := composed[where]
		if m, ok := value(call.Args[message]); ok {
			messages = []string{m}
		}
		if len(messages) == 0 {
			problems = append(problems, fmt.Sprintf("%s: can't tell what this logs; add %q to "+
				"composed, or its constant to constants",
				fset.Position(call.Pos()), where))
		}
		for _, m := range messages {
			found[m] = level
		}
		return true
	})
	return found, problems
}

// value is that of a string which is put together from literals and known constants.
func value(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		s, err := strconv.Unquote(e.Value)
		return s, err == nil && e.Kind == token.STRING
	case *ast.BinaryExpr:
		x, ok1 := value(e.X)
		y, ok2 := value(e.Y)
		return x + y, ok1 && ok2 && e.Op == token.ADD
	default:
		s, ok := constants[text(e)]
		return s, ok
	}
}

// text writes names and their selectors as in the source.
func text(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return text(e.X) + "." + e.Sel.Name
	}
	return fmt.Sprintf("%T", e)
}

// The search finds each way of logging, and tells what it can't read.
func TestWarnings(t *testing.T) {
	found, problems := warnings("x/x.go", []byte(`package x
func f() {
	log.Info("not this")
	log.Warn("plain", "err", err.Error())
	log.ErrorContext(ctx, "with a context")
	log.LogAttrs(ctx, slog.LevelWarn, "attributes")
	log.Log(ctx, slog.LevelInfo, "nor this")
	level := log.Debug
	if often {
		level = log.Warn
	}
	level("some" + "times")
	log.Error("on "+schemas.LogPrefix+">", "err", err)
	http.Error(w, "nor this", 500)
	log.Warn(dynamic)
}`))
	want := map[string]string{
		"plain": "warning", "with a context": "error", "attributes": "warning",
		"sometimes": "warning", "on " + schemas.LogPrefix + ">": "error",
	}
	if d := cmp.Diff(want, found); d != "" {
		t.Error(d)
	}
	if len(problems) != 1 || !strings.Contains(problems[0], "x/x.go: dynamic") {
		t.Errorf("problems are %q, want one, of dynamic", problems)
	}
}
