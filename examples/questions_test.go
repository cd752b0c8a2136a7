//go:build unix

package examples

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-events/rollcall/internal/test/e2e"
	"github.com/rollcall-events/rollcall/internal/test/wait"
)

// A question of docs/consumers.md, with the commands that answer it.
type question struct {
	text     string
	commands []string
}

func questions(t *testing.T) (all []question) {
	t.Helper()
	text := string(must(os.ReadFile(filepath.Join("..", "docs", "consumers.md"))))
	_, text, _ = strings.Cut(text, "\n## Eight questions\n")
	text, _, _ = strings.Cut(text, "\n## ")
	for line := range strings.Lines(text) {
		command, isCommand := strings.CutPrefix(strings.TrimRight(line, "\n"), "    ")
		switch {
		case strings.HasPrefix(line, "**"):
			text, _, _ := strings.Cut(strings.TrimPrefix(line, "**"), "**")
			all = append(all, question{text: text})
		case isCommand && len(all) > 0:
			all[len(all)-1].commands = append(all[len(all)-1].commands, command)
		}
	}
	return all
}

var (
	demoBoard = regexp.MustCompile(`(?m)^  board +http://(127\.0\.0\.1:\d+)/ `)
	moment    = regexp.MustCompile(`"?2026-\d\d-\d\d( \d\d:\d\d)?"?`)
)

// answers are what the commands of a question print, a regular expression, in the order of the
// document. The webhook has tests of its own, with Bento or what it grew out of.
var answers = []string{
	`(?s)^Tenant 886 at .* on duty \(video call\)\nAGENT .*\n178\d\d `,
	`^\{"asOf":\{.*"trusted":true,"agents":40,.*"types":\{.*"10":\{.*"areas":\{.*"华东":\{`,
	`(?s)^Tenant 886 at .*\(Asia/Shanghai\).* on duty\n.*\n178\d\d `,
	`(?s)^Agent 17813 of tenant 886 .*\nOn duty .*, off duty .*, not known .*Sign-ins: 1\.`,
	`(?s)^Tenant 886, .*\nHOUR .* UNOBSERVED\n.*\ntotal `,
	``,
	`webhook`,
	`(?s)SCRIPT .* STALE .* FRESH `,
}

// Each question of the document gets its answer from the commands that stand below it.
func TestQuestions(t *testing.T) {
	t.Parallel()
	asked := questions(t)
	if len(asked) != len(answers) {
		t.Fatalf("the document has %d questions", len(asked))
	}
	dir := t.TempDir()
	script := filepath.Join(dir, "script.yaml")
	if err := os.WriteFile(script, []byte("agents: 40\nseed: 1\nsteps:\n"+
		"  - at: 1s\n    signIn: 17813\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	demo := e2e.Rollcall(t, map[string]string{"TMPDIR": t.TempDir()}, "demo", "--script", script)
	demo.WaitFor("the scenario is over")
	wait.Eventually(t, "the sign-in", func() bool {
		return regexp.MustCompile(`online +17813`).MatchString(demo.Stdout())
	})
	url := demoNATS.FindStringSubmatch(demo.Stdout())[1]
	board := demoBoard.FindStringSubmatch(demo.Stdout())[1]
	path := filepath.Dir(e2e.Binary(t))
	now := time.Now()

	for i, q := range asked {
		t.Run(q.text, func(t *testing.T) {
			t.Parallel()
			want := regexp.MustCompile(answers[i])
			for _, command := range q.commands {
				name, rest, _ := strings.Cut(command, " ")
				switch {
				case name == "nats" || name == "bento":
					file := rest[strings.Index(rest, "examples/"):]
					if _, err := os.Stat(filepath.Join("..", file)); err != nil ||
						!strings.Contains(file, answers[i]) {
						t.Errorf("%s: %v", command, err)
					}
				case name == "curl":
					at := strings.Replace(rest[strings.Index(rest, "http://"):], "127.0.0.1:8080",
						board, 1)
					res, err := http.Get(at)
					if err != nil {
						t.Fatal(err)
					}
					body := must(io.ReadAll(res.Body))
					_ = res.Body.Close()
					if !want.Match(body) {
						t.Errorf("%s: %s", at, body)
					}
				case strings.HasPrefix(rest, "demo --script "):
					file, err := filepath.Abs(filepath.Join("..", strings.Fields(rest)[2]))
					if err != nil {
						t.Fatal(err)
					}
					p := e2e.Rollcall(t, map[string]string{"TMPDIR": t.TempDir()}, "demo",
						"--script", file)
					wait.Eventually(t, "the scenario", func() bool {
						return want.MatchString(p.Stdout())
					})
				default:
					// Yesterday is a moment ago, and what lies before began with the demo.
					times := []time.Time{now, now}
					if strings.Contains(command, "--from") {
						times[0] = now.Add(-time.Minute)
					}
					run := moment.ReplaceAllStringFunc(command, func(string) string {
						at := times[0]
						times = slices.Delete(times, 0, 1)
						return at.Format(time.RFC3339Nano)
					})
					p := e2e.Start(t, "/bin/sh", map[string]string{"ROLLCALL_NATS_URL": url,
						"PATH": path + ":" + os.Getenv("PATH")}, "-c", "cd "+dir+"; "+run)
					// 3: the past began only a moment ago.
					code := p.Wait()
					asItShould := code == 0 || code == 3 && strings.Contains(run, "--from")
					if !asItShould || !want.MatchString(p.Stdout()) {
						t.Errorf("%s: exit %d: %s", run, code, p.Output())
					}
				}
			}
		})
	}
	t.Cleanup(func() {
		var onDuty map[string]any
		if err := json.Unmarshal(must(os.ReadFile(filepath.Join(dir, "on-duty.json"))),
			&onDuty); err != nil {
			t.Errorf("the roster in a shell script: %v", err)
		}
	})
}
