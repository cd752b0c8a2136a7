package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/rollcall-events/rollcall/internal/presence"
	"github.com/rollcall-events/rollcall/schemas"
)

// commandLine runs a command line that does nothing but look at its arguments, and returns what it
// prints and the exit code. What it would do without a mistake in them ends at once.
func commandLine(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	root := rootCommand()
	root.SetOut(&out)
	root.SetErr(&errs)
	root.SetArgs(args)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	code = exitCode(root.ExecuteContext(ctx), &errs)
	return out.String(), errs.String(), code
}

func typeWant(value string) string {
	return fmt.Sprintf("--type is %q: want safety, quality, patrol or video (0, 1, 2, 10), or the "+
		"type as agents have it: letters, digits and hyphens", value)
}

// What can't be understood is told in a line each that says what is wrong and what may be meant.
func TestMistakes(t *testing.T) {
	for _, c := range []struct {
		line string
		want string // lines, "rollcall: " before each
	}{
		{"wach", `rollcall has no command "wach"; did you mean watch? See rollcall --help`},
		{"WATCH", `rollcall has no command "WATCH"; did you mean watch? See rollcall --help`},
		{"dmeo --agents 5", `rollcall has no command "dmeo"; did you mean demo? ` +
			`See rollcall --help`},
		{"wach --type video", `rollcall has no command "wach"; did you mean watch? ` +
			`See rollcall --help`},
		{"start", `rollcall has no command "start"; did you mean run? See rollcall --help`},
		{"xyzzy", `rollcall has no command "xyzzy": see rollcall --help`},
		{"help chekc", `rollcall has no command "chekc"; did you mean check? See rollcall --help`},
		{"help watch 886", `rollcall watch takes no argument such as "886": ` +
			`see rollcall watch --help`},
		{"completion tcsh", `rollcall completion has no command "tcsh"; did you mean ` +
			`bash or fish or zsh? See rollcall completion --help`},
		{"completion", `rollcall completion needs a command: see rollcall completion --help`},
		{"run now", `rollcall run takes no argument such as "now": see rollcall run --help`},
		{"version 2", `rollcall version takes no argument such as "2": ` +
			`see rollcall version --help`},
		{"watch --tennant 886", `rollcall watch has no flag --tennant; did you mean --tenant? ` +
			`See rollcall watch --help`},
		{"watch -tenant 886", `rollcall watch has no flag -tenant; did you mean --tenant? ` +
			`See rollcall watch --help`},
		{"watch -x", `rollcall watch has no flag -x: see rollcall watch --help`},
		{"watch -t video", `rollcall watch has no flag -t; did you mean --tenant or --type? ` +
			`See rollcall watch --help`},
		{"watch --type vidoe", typeWant("vidoe") + "; did you mean video?"},
		{"watch --type video,a.b", typeWant("a.b")},
		{"watch --type 视频,视频通活", typeWant("视频通活") + "; did you mean 视频通话?"},
		{"watch --type=", strings.Replace(typeWant(""), ` is ""`, "", 1)},
		{"watch --type ,", strings.Replace(typeWant(""), ` is ""`, "", 1)},
		{"watch --type", `--type needs a value: see rollcall watch --help`},
		{"watch --sim-only", `rollcall watch has no flag --sim-only; ` +
			`did you mean rollcall demo --sim-only? See rollcall watch --help`},
		{"roster --at 2026-11-26T10:32:00", `--at is "2026-11-26T10:32:00": want a time with its ` +
			`zone, as in 2026-11-26T10:32:00+08:00 or 2026-11-26T10:32:00Z, or --tz`},
		{"roster --at 2026-10-25T02:30:00 --tz Europe/Berlin", `--at is "2026-10-25T02:30:00": ` +
			`want which of two times is meant, since clocks in Europe/Berlin are set back over ` +
			`it: 2026-10-25T02:30:00+02:00 or 2026-10-25T02:30:00+01:00`},
		{"roster --at yesterday", `--at is "yesterday": want ` + presence.WantTime},
		{"roster --tz Mars", `--tz is "Mars": want a time zone, as in Asia/Shanghai or +08:00`},
		{"roster --stream OLD", `--stream needs --at: an archive does not say what is now: ` +
			`see rollcall roster --help`},
		{"history", `history needs one agent: its agentId: see rollcall history --help`},
		{"history bob", `AGENT is "bob": want an agentId, which is a whole number: ` +
			`rollcall roster lists them`},
		{"report", `--from: want ` + presence.WantTime},
		{"report --from 2026-11-26T10:32:00Z --by team", `--by is "team": ` +
			`want agent, type, area or hour`},
		{"report --from 1970-01-01 --tz UTC --by hour", `--from is "1970-01-01": ` +
			`want a time at most a year before --to, since --by hour has a row for each hour`},
		{"report --from 0001-01-01 --to 0002-01-03 --tz UTC --by hour", `--from is "0001-01-01": ` +
			`want a time at most a year before --to, since --by hour has a row for each hour`},
		{"report --from 2026-11-26T10:32:00Z --csv --json", `--csv or --json, not both: ` +
			`see rollcall report --help`},
		{"--ready", `rollcall has no flag --ready; did you mean rollcall check --ready? ` +
			`See rollcall --help`},
		{"watch --version", `rollcall watch has no flag --version; ` +
			`did you mean rollcall --version? See rollcall watch --help`},
		{"watch --tenant", `--tenant needs a value: see rollcall watch --help`},
		{"watch --tenant x", `--tenant is "x": want a whole number`},
		{"watch --tenant 1.5", `--tenant is "1.5": want a whole number`},
		{"check --ready=maybe", `--ready is "maybe": want true or false`},
		{"demo --agents many", `--agents is "many": want a whole number`},
		{"demo --agents -1", `--agents is "-1": want 0 to 200000`},
		{"demo --agents 10000000", `--agents is "10000000": want 0 to 200000`},
		{"demo --seed -1", `--seed is "-1": want a whole number, 0 or more`},
		{"demo --churn fast", `--churn is "fast": want a number`},
		{"demo --churn NaN --speed 0", "--churn is \"NaN\": want 0 to 10000 changes a second\n" +
			`--speed is "0": want a factor above 0, at most 10000`},
		{"demo --churn Inf", `--churn is "+Inf": want 0 to 10000 changes a second`},
		{"demo --churn 1000 --speed 1000",
			`--churn times --speed is "1e+06": want at most 10000 changes a second`},
		{"demo --sim-listen 8180", `--sim-listen is "8180": want an address of this machine ` +
			`alone and a port, such as 127.0.0.1:8180`},
		{"demo --sim-listen 0.0.0.0:8180", `--sim-listen is "0.0.0.0:8180": want an address of ` +
			`this machine alone and a port, such as 127.0.0.1:8180`},
		{"schema x", `there is no schema "x"; there are ` +
			strings.Join(schemas.Documents(), ", ") + `: see rollcall schema --help`},
	} {
		want := ""
		for line := range strings.SplitSeq(c.want, "\n") {
			want += "rollcall: " + line + "\n"
		}
		stdout, stderr, code := commandLine(t, strings.Fields(c.line)...)
		if stderr != want || stdout != "" || code != 2 {
			t.Errorf("%s: exit %d, want 2:\n%swant\n%s%s", c.line, code, stderr, want, stdout)
		}
	}
}

// The help is asked for in three ways, the version in three; neither is a failure.
func TestHelpAndVersion(t *testing.T) {
	for want, lines := range map[string][]string{
		"Shows the agents on duty": {"help watch", "watch --help", "watch -h"},
		"Without\na command it":    {"help", "--help", "-h"},
		"fish":                     {"help completion", "completion --help"},
		versionText():              {"version", "--version", "-v"},
	} {
		for _, line := range lines {
			stdout, stderr, code := commandLine(t, strings.Fields(line)...)
			if code != 0 || stderr != "" || !strings.Contains(stdout, want) {
				t.Errorf("%s: exit %d: %s%s", line, code, stdout, stderr)
			}
		}
	}
}

func TestDemoWords(t *testing.T) {
	for _, c := range []struct {
		args string
		want string
	}{
		{"", "340 agents, about one change a second, seed 0"},
		{"--agents 0 --churn 0", "0 agents, no changes, seed 0"},
		{"--churn 2.5 --speed 60 --seed 18446744073709551615",
			"340 agents, about 150 changes a second, seed 18446744073709551615"},
		{"--churn 1e4", "340 agents, about 10000 changes a second, seed 0"},
		{"--speed 0.05", "340 agents, about one change in 20 s, seed 0"},
	} {
		var d demonstration
		err := errors.Join(d.command().ParseFlags(strings.Fields(c.args)), d.validate())
		if err != nil {
			t.Errorf("%s: %v", c.args, err)
		}
		if got := d.tenant(); got != c.want {
			t.Errorf("%s: %s, want %s", c.args, got, c.want)
		}
	}
}

func TestTypeFlag(t *testing.T) {
	for args, want := range map[string][]string{
		"":                                  nil,
		"--type video":                      {"10"},
		"--type safety,1，巡检、10":             {"0", "1", "2", "10"},
		"--type Patrol --type 2,7,VIP-1,7":  {"2", "7", "VIP-1"},
		"--type video, --type=,安检 --type _": {"10", "0", "_"},
	} {
		var types []string
		cmd := &cobra.Command{}
		typeFlag(cmd, &types)
		err := cmd.ParseFlags(strings.Fields(args))
		if d := cmp.Diff(want, types); err != nil || d != "" {
			t.Errorf("%s: %v\n%s", args, err, d)
		}
	}
}

func TestTypeCompletion(t *testing.T) {
	for typed, want := range map[string]string{
		"": "safety\tsafety (0)\nquality\tquality (1)\npatrol\tpatrol (2)\n" +
			"video\tvideo call (10)\n",
		"v":       "video\tvideo call (10)\n",
		"1":       "1\tquality (1)\n10\tvideo call (10)\n",
		"视":       "视频通话\tvideo call (10)\n",
		"video,p": "video,patrol\tpatrol (2)\n",
		"video,v": "",
		"x":       "",
	} {
		out, _, code := commandLine(t, "__complete", "watch", "--type", typed)
		if got, ok := strings.CutSuffix(out, ":4\n"); code != 0 || !ok || got != want {
			t.Errorf("%q is completed with %q, want %q", typed, out, want)
		}
	}
}

// A scenario's mistakes are told with file and line before anything starts; the command line counts
// where both say something.
func TestDemoScript(t *testing.T) {
	file := filepath.Join(t.TempDir(), "s.yaml")
	for _, c := range []struct {
		args, text string
		env        map[string]string
		want       string // lines, "rollcall: " before each
	}{
		{"", "agents: 5\nsteps:\n  - at: soon\n    signIn: 17813\n", nil,
			`FILE:3: at is "soon": want a time since the beginning, such as 5s or 1m30s, at ` +
				`most 24h`},
		{"--speed 0", "agents: 5\nsteps:\n  - at: 1s\n    signin: 17813\n", nil,
			`FILE:4: the key is "signin": want signIn?` + "\n" +
				`--speed is "0": want a factor above 0, at most 10000`},
		{"--agents 2", "agents: 5\nsteps:\n  - at: 1s\n    signIn: 17817\n", nil,
			`FILE:4: signIn is "17817": want an agent that is there: 17813 to 17814`},
		{"--speed 5000", "churn: 5\nsteps:\n  - at: 1s\n    signIn: 17817\n", nil,
			`--churn times --speed is "25000": want at most 10000 changes a second`},
		{"--sim-only", "steps:\n  - at: 1s\n    stream: lost\n", nil,
			"FILE:3: stream: want the whole demo for this: leave --sim-only out"},
		{"", "steps:\n  - at: 1s\n    stream: lost\n",
			map[string]string{"ROLLCALL_NATS_URL": "nats://127.0.0.1:4222"},
			"FILE:3: stream: want the demo's own stream for this, since it is deleted: leave " +
				"ROLLCALL_NATS_URL and ROLLCALL_DATA_DIR unset"},
		{"", "steps:\n  - at: 1s\n    stream: lost\n", map[string]string{"ROLLCALL_DATA_DIR": "d"},
			"FILE:3: stream: want the demo's own stream for this, since it is deleted: leave " +
				"ROLLCALL_NATS_URL and ROLLCALL_DATA_DIR unset"},
	} {
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Run(c.args+" "+c.text, func(t *testing.T) {
			for name, value := range c.env {
				t.Setenv(name, value)
			}
			want := ""
			for line := range strings.SplitSeq(strings.ReplaceAll(c.want, "FILE", file), "\n") {
				want += "rollcall: " + line + "\n"
			}
			args := append([]string{"demo", "--script", file}, strings.Fields(c.args)...)
			stdout, stderr, code := commandLine(t, args...)
			if stderr != want || stdout != "" || code != 2 {
				t.Errorf("exit %d, want 2:\n%swant\n%s%s", code, stderr, want, stdout)
			}
		})
	}
	for _, name := range []string{"", t.TempDir(), filepath.Join(t.TempDir(), "none.yaml")} {
		stdout, stderr, code := commandLine(t, "demo", "--script", name)
		if !strings.HasPrefix(stderr, "rollcall: --script") || stdout != "" || code != 2 ||
			!strings.Contains(stderr, "want a scenario's file, such as examples/scenarios/") {
			t.Errorf("--script %q: exit %d: %s%s", name, code, stdout, stderr)
		}
	}

	text := "agents: 5\nseed: 9\nchurn: 2\nsteps:\n  - at: 1s\n    vendor: empty\n    for: 9s\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"": "5 agents, a scenario of 10s, FILE, and about 2 changes a second, seed 9",
		"--agents 7 --seed 3 --churn 0 --speed 4": "7 agents, a scenario of 10s, FILE, at 4 " +
			"times its speed, seed 3",
	} {
		var d demonstration
		cmd := d.command()
		err := cmd.ParseFlags(append([]string{"--script", file}, strings.Fields(args)...))
		if err := errors.Join(err, d.read(cmd.Flags().Changed), d.validate()); err != nil {
			t.Errorf("%s: %v", args, err)
		}
		if got := strings.ReplaceAll(d.tenant(), file, "FILE"); got != want {
			t.Errorf("%s: %s, want %s", args, got, want)
		}
	}
}

// A question that was interrupted has no answer, and a script is told so.
func TestInterruptedQuestion(t *testing.T) {
	t.Setenv("ROLLCALL_NATS_LISTEN", "127.0.0.1:1")
	for _, line := range []string{"roster --json", "history 17813",
		"report --from 2026-11-22T00:00:00Z"} {
		_, stderr, code := commandLine(t, strings.Fields(line)...)
		if code != 1 || stderr != "rollcall: interrupted before the answer was complete\n" {
			t.Errorf("%s: exit %d, %q", line, code, stderr)
		}
	}
	if _, stderr, code := commandLine(t, "watch"); code != 0 || stderr != "" {
		t.Errorf("watch: exit %d, %q", code, stderr)
	}
}
