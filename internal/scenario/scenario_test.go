package scenario

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rollcall-events/rollcall/internal/setting"
)

// Every mistake is told with its line and what would be right.
func TestMistakes(t *testing.T) {
	const good = "agents: 10\nsteps:\n  - at: 1s\n    signIn: 17813\n"
	for name, tt := range map[string]struct {
		text string
		want []string // the beginnings of the lines, and what else they say after a " … "
	}{
		"nothing":    {"", []string{"f.yaml:1: the file: want a scenario"}},
		"a comment":  {"# only this\n", []string{"f.yaml:1: the file: want a scenario"}},
		"a sentence": {"hello\n", []string{`f.yaml:1: the file is "hello": want keys`}},
		"a list":     {"- at: 1s\n", []string{"f.yaml:1: the file: want keys"}},
		"no steps":   {"agents: 3\n", []string{"f.yaml:1: the file: want steps"}},
		"steps of nothing": {"agents: 3\nsteps:\n", []string{
			`f.yaml:2: steps: want a list: each step begins with "- at:"`}},
		"steps without dashes": {"steps:\n  at: 1s\n  signIn: 17813\n", []string{
			"f.yaml:1: steps: want a list"}},
		"steps twice": {good + "steps: []\n", []string{"f.yaml:5: the file: want YAML … already"}},
		"two scenarios": {good + "---\n" + good, []string{
			"f.yaml:6: the file: want one document"}},
		"a tab": {"steps:\n\t- at: 1s\n", []string{"f.yaml:2: the file: want YAML … "}},
		"badly indented": {"steps:\n  - at: 2s\n   signIn: 17813\n", []string{
			"f.yaml:3: the file: want YAML"}},
		"no colon": {"steps:\n  - at: 2s\n    signIn 17813\n", []string{
			"f.yaml:3: the file: want YAML"}},
		"open quote":  {"about: \"x\n" + good, []string{"f.yaml:1: the file: want YAML"}},
		"not UTF-8":   {good + "about: \xff\n", []string{"f.yaml:5: the file: want text in UTF-8"}},
		"a NUL":       {good + "about: a\x00b\n", []string{"f.yaml:5: the file: want text in"}},
		"a large one": {strings.Repeat("# long\n", 20_000), []string{"f.yaml:1: … 64 KiB"}},
		"unknown key": {"agent: 10\n" + good, []string{
			`f.yaml:1: the key is "agent": want agents?`}},
		"nothing like a key": {good + "colour: red\n", []string{
			`f.yaml:5: the key is "colour": want one of about, agents, seed, churn, steps`}},
		"unknown key of a step": {"steps:\n  - at: 1s\n    signin: 17813\n  - at: 2s\n" +
			"    times_: 2\n    add: 1\n", []string{`f.yaml:3: the key is "signin": want signIn?`,
			`f.yaml:5: the key is "times_": want times?`}},
		"merge keys": {"steps:\n  - &a\n    at: 1s\n    add: 1\n  - <<: *a\n", []string{
			"f.yaml:2: the step … want keys", "f.yaml:5: the key is \"<<\": want one of"}},
		"an alias": {"steps:\n  - at: &t 1s\n    add: 1\n", []string{"f.yaml:2: at: want a time"}},
		"agents": {"agents: many\nsteps:\n  - at: 1s\n    add: 1\n", []string{
			`f.yaml:1: agents is "many": want a number from 0 to 200000`}},
		"too many": {"agents: 200001\nsteps:\n  - at: 1s\n    add: 1\n", []string{
			`f.yaml:1: agents is "200001": want a number`}},
		"seed and churn": {"seed: -1\nchurn: fast\n" + good, []string{
			`f.yaml:1: seed is "-1": want a number from 0 on`,
			`f.yaml:2: churn is "fast": want changes a second, 0 to 10000`}},
		"NaN": {"churn: nan\n" + good, []string{`f.yaml:1: churn is "nan": want changes`}},
		"no time": {"steps:\n  - signIn: 17813\n", []string{
			`f.yaml:2: the step: want at: when it happens`}},
		"no unit": {"steps:\n  - at: 5\n    signIn: 17813\n", []string{
			`f.yaml:2: at is "5": want a time since the beginning, such as 5s or 1m30s`}},
		"before the beginning": {"steps:\n  - at: -5s\n    signIn: 17813\n", []string{
			`f.yaml:2: at is "-5s": want`}},
		"not in order": {"steps:\n  - at: 5s\n    add: 1\n  - at: 3s\n    add: 1\n", []string{
			`f.yaml:4: at is "3s": want steps in the order of their times: … is at 5s`}},
		"no action": {"steps:\n  - at: 5s\n", []string{
			"f.yaml:2: the step: want what happens: one of signIn, signOut"}},
		"two actions": {"steps:\n  - at: 5s\n    signIn: 17813\n    signOut: 17814\n", []string{
			`f.yaml:4: the key is "signOut": want one action a step, and this one has signIn`}},
		"nobody": {"steps:\n  - at: 5s\n    signIn:\n", []string{
			"f.yaml:3: signIn: want an agentId, a list of them, a share such as 60%, or all"}},
		"an empty list": {"steps:\n  - at: 5s\n    signIn: []\n", []string{
			"f.yaml:3: signIn: want an agentId, a list"}},
		"a name": {"steps:\n  - at: 5s\n    signIn: 王伟\n", []string{
			`f.yaml:3: signIn is "王伟": want an agentId, a list`}},
		"a stranger": {"agents: 10\nsteps:\n  - at: 5s\n    signIn: 17823\n", []string{
			`f.yaml:4: signIn is "17823": want an agent that is there: 17813 to 17822`}},
		"a stranger in a list": {"agents: 10\nsteps:\n  - at: 5s\n    signIn: [17813, 1]\n",
			[]string{`f.yaml:4: signIn is "1": want an agent that is there`}},
		"before it is added": {"agents: 0\nsteps:\n  - at: 5s\n    signIn: 17813\n" +
			"  - at: 6s\n    add: 1\n", []string{`f.yaml:4: signIn is "17813": want no agentId`}},
		"too large a share": {"steps:\n  - at: 5s\n    vanish: 120%\n", []string{
			`f.yaml:3: vanish is "120%": want a share above 0% and up to 100%`}},
		"percent in front": {"steps:\n  - at: 5s\n    vanish: '%60'\n", []string{
			`f.yaml:3: vanish is "%60": want`}},
		"how the vendor fails": {"steps:\n  - at: 5s\n    vendor: down\n    for: 2s\n", []string{
			`f.yaml:3: vendor is "down": want silent, unusable, … inconsistent or empty`}},
		"for how long": {"steps:\n  - at: 5s\n    vendor: silent\n", []string{
			`f.yaml:2: the step: want for: how long the vendor fails`}},
		"what does not last": {"steps:\n  - at: 5s\n    signIn: 17813\n    for: 5s\n", []string{
			`f.yaml:4: the key is "for": want no such key here: only vendor lasts`}},
		"two troubles at once": {"steps:\n  - at: 5s\n    vendor: silent\n    for: 10s\n" +
			"  - at: 14s\n    vendor: empty\n    for: 1s\n", []string{
			`f.yaml:5: at is "14s": want 15s or later: until then the vendor is silent`}},
		"the stream": {"steps:\n  - at: 5s\n    stream: gone\n", []string{
			`f.yaml:3: stream is "gone": want lost`}},
		"edit nothing": {"steps:\n  - at: 5s\n    edit: 17813\n", []string{
			"f.yaml:2: the step: want set: the fields"}},
		"an empty step": {"steps:\n  - at: 1s\n    add: 1\n  - {}\n", []string{
			`f.yaml:4: the step: want at: when`, "f.yaml:4: the step: want what happens"}},
		"edit to nothing": {"steps:\n  - at: 5s\n    edit: 17813\n    set: {}\n", []string{
			"f.yaml:4: set: want fields and their new values"}},
		"edit to a text": {"steps:\n  - at: 5s\n    edit: 17813\n    set: areaName\n", []string{
			`f.yaml:4: set is "areaName": want keys with values`}},
		"edit who it is": {"steps:\n  - at: 5s\n    edit: 17813\n    set: {agentId: 5}\n", []string{
			`f.yaml:4: the key is "agentId": want another field`}},
		"set a list": {"steps:\n  - at: 5s\n    edit: 17813\n    set: {areaName: [a]}\n", []string{
			"f.yaml:4: areaName: want a text, a number"}},
		"every without times": {"steps:\n  - at: 5s\n    toggle: 17813\n    every: 1s\n", []string{
			"f.yaml:2: the step: want times: how often"}},
		"times without every": {"steps:\n  - at: 5s\n    toggle: 17813\n    times: 4\n", []string{
			"f.yaml:2: the step: want every: the time from one to the next"}},
		"for ever": {"steps:\n  - at: 5s\n    toggle: 17813\n    times: 100000\n    every: 1h\n",
			[]string{`f.yaml:2: times is "100000": want an end within 24h`}},
		"too many to add": {"agents: 199999\nsteps:\n  - at: 5s\n    add: 1\n    times: 2\n" +
			"    every: 1s\n", []string{`f.yaml:4: add is "1": want at most 200000 agents in all`}},
		"several": {"agents: x\nsteps:\n  - at: y\n    signIn: z\n  - add: 0\n", []string{
			"f.yaml:1: agents", "f.yaml:3: at", "f.yaml:4: signIn", "f.yaml:5: add"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Parse("f.yaml", []byte(tt.text), -1)
			if err == nil {
				t.Fatalf("it is accepted: %+v", s)
			}
			if _, ok := errors.AsType[*setting.Error](err); !ok {
				t.Errorf("%T: the exit code would be 1", err)
			}
			lines := strings.Split(err.Error(), "\n")
			for i, want := range tt.want {
				begins, says, _ := strings.Cut(want, " … ")
				if i >= len(lines) || !strings.HasPrefix(lines[i], begins) ||
					!strings.Contains(lines[i], says) {
					t.Errorf("it says\n%s\nwant %s", err, want)
				}
			}
			if len(lines) != len(tt.want) {
				t.Errorf("%d mistakes are told, want %d:\n%s", len(lines), len(tt.want), err)
			}
		})
	}
}

// All that may stand in a file, in the forms that YAML has for it.
func TestParse(t *testing.T) {
	s, err := Parse("f.yaml", []byte(`# a scenario
about: everything
agents: 10
seed: 18446744073709551615
churn: 0.5
steps:
- {at: 0s, signIn: "17813"}
- at: 1m30s
  edit: [17813, 17814]
  set: {areaName: 华东, capacity: 5, cityId: null, isArea: "1"}
- at: 90s
  vendor: silent
  for: 500ms
  every: 2s
  times: 3
- at: 2m
  vanish: 12.5 %
- at: 2m
  return: all
- at: 3m
  add: 2
- at: 4m
  stream: lost
`), -1)
	if err != nil {
		t.Fatal(err)
	}
	seed := uint64(18446744073709551615)
	want := &Script{About: "everything", Agents: 10, Seed: &seed, Churn: 0.5,
		steps: []step{
			{line: 7, doLine: 7, times: 1, do: signIn, who: who{ids: []int64{17813}}},
			{line: 8, doLine: 9, at: 90 * time.Second, times: 1, do: edit,
				who: who{ids: []int64{17813, 17814}},
				set: []field{{"areaName", `"华东"`}, {"capacity", "5"}, {"cityId", "null"},
					{"isArea", `"1"`}}},
			{line: 11, doLine: 12, at: 90 * time.Second, every: 2 * time.Second, times: 3,
				do: vendor, lasts: 500 * time.Millisecond, how: silent},
			{line: 16, doLine: 17, at: 2 * time.Minute, times: 1, do: vanish,
				who: who{share: 0.125}},
			{line: 18, doLine: 19, at: 2 * time.Minute, times: 1, do: comeBack, who: who{share: 1}},
			{line: 20, doLine: 21, at: 3 * time.Minute, times: 1, do: add, who: who{n: 2}},
			{line: 22, doLine: 23, at: 4 * time.Minute, times: 1, do: stream},
		}}
	if d := cmp.Diff(want, s, cmp.AllowUnexported(Script{}, step{}, who{}, field{})); d != "" {
		t.Errorf("want (-), got (+):\n%s", d)
	}
	if s.LosesStream() != 23 || s.Lasts() != 4*time.Minute {
		t.Errorf("the stream is lost in line %d, and it lasts %v", s.LosesStream(), s.Lasts())
	}
}

// Files as editors on Windows write them.
func TestParseWindows(t *testing.T) {
	text := "\ufeffagents: 10\r\nsteps:\r\n  - at: 1s\r\n    signIn: 17813\r\n"
	if _, err := Parse("f.yaml", []byte(text), -1); err != nil {
		t.Error(err)
	}
	_, err := Parse("f.yaml", []byte(text+"  - at: 2s\r\n    signin: 17813\r\n"), -1)
	if want := `f.yaml:6: the key is "signin": want signIn?`; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// Agents on the command line count for who is there.
func TestParseAgents(t *testing.T) {
	text := []byte("agents: 10\nsteps:\n  - at: 1s\n    signIn: 17830\n")
	if _, err := Parse("f.yaml", text, -1); err == nil {
		t.Error("agent 17830 of ten is accepted")
	}
	if _, err := Parse("f.yaml", text, 20); err != nil {
		t.Error(err)
	}
}

func TestShipped(t *testing.T) {
	files, err := filepath.Glob("../../examples/scenarios/*.yaml")
	if err != nil || len(files) < 5 {
		t.Fatalf("the scenarios: %v, %v", files, err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if s, err := Parse(f, text, -1); err != nil || s.About == "" {
			t.Errorf("%s: about %q, %v", f, s.About, err)
		}
	}
}
