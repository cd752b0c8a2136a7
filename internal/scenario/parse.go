package scenario

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/rollcall-events/rollcall/internal/setting"
	"github.com/rollcall-events/rollcall/internal/tenantsim"
)

const (
	mostAgents = 200_000
	mostChurn  = 10_000 // changes a second
	mostTimes  = 100_000
	longest    = 24 * time.Hour
	mostBytes  = 64 << 10 // of a file: deep nesting takes the parser quadratic time
)

// Parse reads a scenario. name is what its mistakes call it, agents how many there are at the start
// where that is not for the file to say, else -1. The errors are all *[setting.Error]s, joined, one
// for each mistake, in the order of the file.
func Parse(name string, text []byte, agents int) (*Script, error) {
	p := &parsing{name: name, script: &Script{Agents: -1}}
	if root := p.root(text); root != nil {
		p.file(root, agents)
	}
	slices.SortStableFunc(p.mistakes, func(a, b mistake) int { return a.line - b.line })
	var errs []error
	for _, m := range p.mistakes {
		errs = append(errs, m.err)
	}
	if errs != nil {
		return nil, errors.Join(errs...)
	}
	return p.script, nil
}

type parsing struct {
	name     string
	script   *Script
	mistakes []mistake
}

type mistake struct {
	line int
	err  error
}

// bad tells a mistake: what stands in a line, and what would be right.
func (p *parsing) bad(line int, what, value, want string) {
	p.mistakes = append(p.mistakes, mistake{line, &setting.Error{
		Field: fmt.Sprintf("%s:%d: %s", p.name, line, what), Value: clip(value), Want: want}})
}

func clip(s string) string {
	if r := []rune(s); len(r) > 60 {
		return string(r[:60]) + "…"
	}
	return s
}

// root is what the file consists of; nil, where that can't be used at all.
func (p *parsing) root(text []byte) ast.Node {
	if len(text) > mostBytes {
		p.bad(1, "the file", "", fmt.Sprintf("a scenario of at most %d KiB", mostBytes>>10))
		return nil
	}
	text = bytes.TrimPrefix(text, []byte("\ufeff")) // as some editors begin a file
	line := 1
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRune(text[i:])
		control := unicode.IsControl(r) && !strings.ContainsRune("\n\r\t", r)
		if r == utf8.RuneError && n == 1 || control {
			p.bad(line, "the file", "", "text in UTF-8, without control characters")
			return nil
		}
		if r == '\n' {
			line++
		}
		i += n
	}
	f, err := parser.ParseBytes(text, 0)
	if err != nil {
		line, says := 1, err.Error()
		if e := yaml.Error(nil); errors.As(err, &e) {
			line, says = lineOf(e.GetToken().Position.Line), e.GetMessage()
		}
		p.bad(line, "the file", "", "YAML ("+says+")")
		return nil
	}
	var roots []ast.Node
	for _, doc := range f.Docs {
		if doc.Body != nil && doc.Body.Type() != ast.CommentType {
			roots = append(roots, doc.Body)
		}
	}
	switch {
	case len(roots) == 0:
		p.bad(1, "the file", "", "a scenario: agents, and steps")
		return nil
	case len(roots) > 1:
		p.bad(at(roots[1]), "the file", "", "one document, and here a second one begins")
		return nil
	}
	return roots[0]
}

func lineOf(n int) int { return max(n, 1) }

// at is the line of a node.
func at(n ast.Node) int {
	if n == nil || n.GetToken() == nil || n.GetToken().Position == nil {
		return 1
	}
	return lineOf(n.GetToken().Position.Line)
}

// An entry is a key with its value.
type entry struct {
	line  int
	key   string
	value ast.Node
}

// entries are those of a mapping that have known keys.
func (p *parsing) entries(n ast.Node, what string, known []string) (found []entry, ok bool) {
	var values []*ast.MappingValueNode
	switch m := n.(type) {
	case *ast.MappingNode:
		values = m.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{m}
	default:
		want := "keys with values"
		if known != nil {
			want += ": " + strings.Join(known, ", ")
		}
		p.bad(at(n), what, scalar(n), want)
		return nil, false
	}
	for _, v := range values {
		e := entry{at(v.Key), v.Key.GetToken().Value, v.Value}
		if known != nil && !slices.Contains(known, e.key) {
			want := "one of " + strings.Join(known, ", ")
			if near := nearest(e.key, known); near != "" {
				want = near + "?"
			}
			p.bad(e.line, "the key", e.key, want)
			continue
		}
		found = append(found, e)
	}
	return found, true
}

// nearest is the known word that another one most likely stands for.
func nearest(word string, known []string) string {
	folded := strings.NewReplacer("_", "", "-", "", " ", "").Replace(strings.ToLower(word))
	for _, k := range known {
		if strings.ToLower(k) == folded {
			return k
		}
	}
	return setting.Nearest(word, known)
}

// scalar is the text of a plain value; empty where it is none.
func scalar(n ast.Node) string {
	switch n := n.(type) {
	case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode,
		*ast.NanNode:
		return n.GetToken().Value
	case *ast.LiteralNode:
		return n.Value.Value
	}
	return ""
}

// text is a plain value, which must be there.
func (p *parsing) text(e entry, want string) (string, bool) {
	s := strings.TrimSpace(scalar(e.value))
	if s == "" {
		p.bad(e.line, e.key, "", want)
	}
	return s, s != ""
}

func (p *parsing) duration(e entry, least time.Duration, want string) time.Duration {
	want += ", such as 5s or 1m30s, at most 24h"
	s, ok := p.text(e, want)
	if !ok {
		return least
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < least || d > longest {
		p.bad(e.line, e.key, s, want)
		return least
	}
	return d
}

func (p *parsing) number(e entry, least, most int) int {
	want := fmt.Sprintf("a number from %d to %d", least, most)
	s, ok := p.text(e, want)
	if !ok {
		return least
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < least || n > most {
		p.bad(e.line, e.key, s, want)
		return least
	}
	return n
}

// file reads all of it.
func (p *parsing) file(root ast.Node, agents int) {
	s := p.script
	found, ok := p.entries(root, "the file", []string{"about", "agents", "seed", "churn", "steps"})
	if !ok {
		return
	}
	var steps *entry
	for _, e := range found {
		switch e.key {
		case "about":
			s.About, _ = p.text(e, "a sentence that says what the scenario shows")
		case "agents":
			s.Agents = p.number(e, 0, mostAgents)
		case "seed":
			const want = "a number from 0 on"
			if text, ok := p.text(e, want); ok {
				n, err := strconv.ParseUint(text, 10, 64)
				if err != nil {
					p.bad(e.line, e.key, text, want)
				}
				s.Seed = &n
			}
		case "churn":
			want := fmt.Sprintf("changes a second, 0 to %d", mostChurn)
			if text, ok := p.text(e, want); ok {
				x, err := strconv.ParseFloat(text, 64)
				if err != nil || !(x >= 0 && x <= mostChurn) {
					p.bad(e.line, e.key, text, want)
				}
				s.Churn = x
			}
		case "steps":
			steps = &e
		}
	}
	if agents < 0 {
		agents = s.Agents
	}
	if agents < 0 {
		agents = DefaultAgents
	}
	if steps == nil {
		if len(p.mistakes) == 0 { // else it may be the key that is mistyped
			p.bad(at(root), "the file", "", "steps: what happens, and when")
		}
		return
	}
	list, ok := steps.value.(*ast.SequenceNode)
	if !ok || len(list.Values) == 0 {
		p.bad(steps.line, "steps", scalar(steps.value), "a list: each step begins with \"- at:\"")
		return
	}
	for _, n := range list.Values {
		p.step(n)
	}
	if len(p.mistakes) == 0 {
		p.judge(agents)
	}
}

// DefaultAgents is how many agents there are where nothing says how many.
const DefaultAgents = 340

var stepKeys = []string{"at", "for", "every", "times", "set"}

// step reads one step.
func (p *parsing) step(n ast.Node) {
	known := slices.Clone(stepKeys)
	for _, a := range actions {
		known = append(known, string(a))
	}
	before := len(p.mistakes)
	found, ok := p.entries(n, "the step", known)
	if !ok {
		return
	}
	st := step{line: at(n), times: 1}
	has := map[string]entry{}
	for _, e := range found {
		has[e.key] = e
		st.line = min(st.line, e.line)
		switch e.key {
		case "at":
			st.at = p.duration(e, 0, "a time since the beginning")
		case "for":
			st.lasts = p.duration(e, time.Millisecond, "how long it lasts")
		case "every":
			st.every = p.duration(e, time.Millisecond, "the time from one to the next")
		case "times":
			st.times = p.number(e, 1, mostTimes)
		case "set":
			st.set = p.fields(e)
		default:
			if st.do != "" {
				p.bad(e.line, "the key", e.key, fmt.Sprintf(
					"one action a step, and this one has %s: begin another step", st.do))
				continue
			}
			st.do, st.doLine = action(e.key), e.line
			p.act(&st, e)
		}
	}
	need := func(key string, there bool, want string) {
		if e, has := has[key]; has && !there {
			p.bad(e.line, "the key", key, want)
		} else if !has && there {
			p.bad(st.line, "the step", "", want)
		}
	}
	if len(p.mistakes) > before {
		return
	}
	if _, timed := has["at"]; !timed {
		p.bad(st.line, "the step", "", "at: when it happens, such as \"at: 5s\"")
	}
	switch {
	case st.do == "":
		p.bad(st.line, "the step", "",
			"what happens: one of "+strings.Join(known[len(stepKeys):], ", "))
		return
	case st.do == edit:
		need("set", true, "set: the fields and their new values, such as \"set: {areaName: 华东}\"")
	default:
		need("set", false, "no such key here: only edit sets fields")
	}
	if st.do == vendor {
		need("for", true, "for: how long the vendor fails, such as \"for: 20s\"")
	} else {
		need("for", false, "no such key here: only vendor lasts; what this does another step ends")
	}
	if e, several := has["times"]; several {
		need("every", true, "every: the time from one to the next, such as \"every: 3s\"")
		if st.do == vendor && st.times > 1 && st.every < st.lasts {
			p.bad(e.line, "every", st.every.String(),
				"at least "+st.lasts.String()+", which each lasts")
		}
	} else if _, repeats := has["every"]; repeats {
		need("times", true, "times: how often, such as \"times: 6\"")
	}
	if len(p.mistakes) == before {
		p.script.steps = append(p.script.steps, st)
	}
}

// act reads what an action is about.
func (p *parsing) act(st *step, e entry) {
	switch st.do {
	case vendor:
		text, _ := p.text(e, oneOf(troubles))
		st.how = trouble(text)
		if text != "" && !slices.Contains(troubles, st.how) {
			p.bad(e.line, e.key, text, oneOf(troubles))
		}
	case stream:
		if text, ok := p.text(e, lost); ok && text != lost {
			p.bad(e.line, e.key, text, lost)
		}
	case add:
		st.who.n = p.number(e, 1, mostAgents)
	default:
		st.who = p.whom(e)
	}
}

func oneOf[T ~string](words []T) string {
	var list []string
	for _, w := range words {
		list = append(list, string(w))
	}
	return strings.Join(list[:len(list)-1], ", ") + " or " + list[len(list)-1]
}

const wantWho = "an agentId, a list of them, a share such as 60%, or all"

// whom reads which agents are meant.
func (p *parsing) whom(e entry) (w who) {
	if list, ok := e.value.(*ast.SequenceNode); ok {
		if len(list.Values) == 0 {
			p.bad(e.line, e.key, "", wantWho)
		}
		for _, n := range list.Values {
			id, err := strconv.ParseInt(scalar(n), 10, 64)
			if err != nil {
				p.bad(at(n), e.key, scalar(n), "a list of agentIds, such as [17813, 17814]")
				continue
			}
			w.ids = append(w.ids, id)
		}
		return w
	}
	text, ok := p.text(e, wantWho)
	if !ok {
		return w
	}
	if text == "all" {
		w.share = 1
		return w
	}
	if percent, ok := strings.CutSuffix(text, "%"); ok {
		x, err := strconv.ParseFloat(strings.TrimSpace(percent), 64)
		if err != nil || !(x > 0 && x <= 100) {
			p.bad(e.line, e.key, text, "a share above 0% and up to 100%")
		}
		w.share = x / 100
		return w
	}
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		p.bad(e.line, e.key, text, wantWho)
	}
	w.ids = []int64{id}
	return w
}

// fields reads what edit sets.
func (p *parsing) fields(e entry) (set []field) {
	found, ok := p.entries(e.value, "set", nil)
	if ok && len(found) == 0 {
		p.bad(e.line, "set", "", "fields and their new values")
	}
	for _, f := range found {
		const want = "a text, a number, true, false or null"
		switch n := f.value.(type) {
		case *ast.StringNode, *ast.LiteralNode:
			value, _ := json.Marshal(scalar(n)) // a string can always be marshalled
			set = append(set, field{f.key, string(value)})
		case *ast.NullNode:
			set = append(set, field{f.key, "null"})
		case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
			if !json.Valid([]byte(scalar(n))) {
				p.bad(f.line, f.key, scalar(n), want)
			}
			set = append(set, field{f.key, scalar(n)})
		default:
			p.bad(f.line, f.key, scalar(n), want)
		}
		if f.key == "agentId" || f.key == "tenantId" {
			p.bad(f.line, "the key", f.key, "another field: "+f.key+" is who the agent is")
		}
	}
	return set
}

// judge sees whether the steps, each of which is right by itself, make a scenario.
func (p *parsing) judge(agents int) {
	s := p.script
	known, previous := agents, time.Duration(0)
	var outages []*step
	for i := range s.steps {
		st := &s.steps[i]
		if st.at < previous {
			p.bad(st.line, "at", st.at.String(),
				"steps in the order of their times: the one before is at "+previous.String())
		}
		previous = max(previous, st.at)
		if float64(st.at)+float64(st.times-1)*float64(st.every) > float64(longest) {
			p.bad(st.line, "times", strconv.Itoa(st.times), "an end within 24h")
			continue
		}
		if s.Churn == 0 { // else chance adds some too
			for _, id := range st.who.ids {
				if id < tenantsim.FirstID || id >= int64(tenantsim.FirstID+known) {
					p.bad(st.doLine, string(st.do), strconv.FormatInt(id, 10), theirs(known))
				}
			}
		} else if slices.ContainsFunc(st.who.ids, func(id int64) bool {
			return id < tenantsim.FirstID || id >= int64(tenantsim.FirstID+agents)
		}) {
			p.bad(st.doLine, string(st.do), "",
				theirs(agents)+", those that are there at the start")
		}
		if st.do == add {
			if st.times > (mostAgents-known)/st.who.n {
				p.bad(st.doLine, "add", strconv.Itoa(st.who.n),
					fmt.Sprintf("at most %d agents in all", mostAgents))
				continue
			}
			known += st.who.n * st.times
		}
		if st.do == vendor {
			outages = append(outages, st)
		}
	}
	for i, st := range outages {
		for _, before := range outages[:i] {
			if end := before.last() + before.lasts; st.at < end {
				p.bad(st.line, "at", st.at.String(), fmt.Sprintf(
					"%v or later: until then the vendor is %s", end, before.how))
				break
			}
		}
	}
}

func theirs(known int) string {
	if known == 0 {
		return "no agentId: nobody is there"
	}
	return fmt.Sprintf("an agent that is there: %d to %d", tenantsim.FirstID,
		tenantsim.FirstID+min(known, math.MaxInt32)-1)
}
