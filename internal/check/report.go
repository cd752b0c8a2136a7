package check

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/mattn/go-runewidth"
)

// A Report is what a check found.
type Report struct {
	Results []Result `json:"results"` // in the order in which they were tried
	Summary Summary  `json:"summary"`
	// Exit is the code: 0 nothing failed, 1 something did that may mend by itself, 2 a setting has
	// to change.
	Exit int `json:"exit"`
}

// A Summary counts results by level.
type Summary struct {
	OK       int `json:"ok"`
	Warnings int `json:"warnings"`
	Failures int `json:"failures"`
	Skipped  int `json:"skipped"`
}

// Add adds a result.
func (r *Report) Add(res Result) {
	r.Results = append(r.Results, res)
	switch res.Level {
	case OK:
		r.Summary.OK++
	case Warning:
		r.Summary.Warnings++
	case Skipped:
		r.Summary.Skipped++
	default:
		r.Summary.Failures++
		r.Exit = max(r.Exit, 1)
		if res.Setting {
			r.Exit = 2
		}
	}
}

// JSON writes the report as one indented document.
func (r *Report) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// A Printer writes results for people, as they come.
type Printer struct {
	W      io.Writer
	Width  int // columns; below 40: 80
	Colour bool
}

const (
	nameColumn = 6
	textColumn = nameColumn + 13
)

var marks = map[Level]struct{ text, colour string }{
	OK:      {"ok", "\x1b[32m"},
	Warning: {"warn", "\x1b[33m"},
	Failure: {"FAIL", "\x1b[31;1m"},
	Skipped: {"skip", "\x1b[2m"},
}

// Print writes one result: its level, its name and its text, and what to do below.
func (p *Printer) Print(r Result) error {
	mark := marks[r.Level]
	level := fmt.Sprintf("%-*s", nameColumn, mark.text)
	if p.Colour {
		level = mark.colour + level + "\x1b[0m"
	}
	indent := strings.Repeat(" ", textColumn)
	var b strings.Builder
	fmt.Fprintf(&b, "%s%-*s", level, textColumn-nameColumn, r.Name)
	b.WriteString(strings.Join(p.wrap(r.Text, textColumn), "\n"+indent) + "\n")
	if r.Do != "" {
		lines := p.wrap(r.Do, textColumn+2)
		b.WriteString(indent + "> " + strings.Join(lines, "\n"+indent+"  ") + "\n")
	}
	_, err := io.WriteString(p.W, b.String())
	return err
}

// Summary writes the last line.
func (p *Printer) Summary(r *Report) error {
	s := r.Summary
	parts := []string{fmt.Sprintf("%d ok", s.OK)}
	if s.Warnings > 0 {
		parts = append(parts, count(s.Warnings, "warning"))
	}
	if s.Failures > 0 {
		parts = append(parts, count(s.Failures, "failure"))
	}
	if s.Skipped > 0 {
		parts = append(parts, fmt.Sprintf("%d skipped", s.Skipped))
	}
	verdict, colour := "rollcall can do its work", marks[OK].colour
	switch {
	case r.Exit == 2:
		verdict, colour = "a setting has to change", marks[Failure].colour
	case r.Exit != 0:
		verdict, colour = "rollcall can't do its work like this", marks[Failure].colour
	}
	if p.Colour {
		verdict = colour + verdict + "\x1b[0m"
	}
	_, err := fmt.Fprintf(p.W, "\n%s: %s.\n", strings.Join(parts, ", "), verdict)
	return err
}

// wrap breaks a text into lines that end before the width, at spaces where there are any.
func (p *Printer) wrap(text string, column int) []string {
	width := p.Width
	if width < 40 {
		width = 80
	}
	width -= column
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && runewidth.StringWidth(line)+1+runewidth.StringWidth(word) <= width {
			line += " " + word
			continue
		}
		if line != "" {
			lines = append(lines, line)
		}
		for runewidth.StringWidth(word) > width { // no space to break at
			head := runewidth.Truncate(word, width, "")
			if head == "" {
				break
			}
			lines, word = append(lines, head), word[len(head):]
		}
		line = word
	}
	return append(lines, line)
}
