// Package agenttype knows the names that people have for the vendor's business types of agents.
package agenttype

import (
	"slices"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"

	"github.com/rollcall-events/rollcall/internal/plain"
	"github.com/rollcall-events/rollcall/internal/setting"
	"github.com/rollcall-events/rollcall/schemas"
)

// A Type is a business type that has names.
type Type struct {
	Token   string // the vendor's number, as subjects and rows have it
	Name    string // one word that Parse takes
	Chinese string // the same
	Short   string // for a table
	others  []string
}

// Types are those that the vendor documents, in the order of their numbers.
var Types = []Type{
	{schemas.TypeSafety, "safety", "安全检查", "safety", []string{"safety inspection", "安全", "安检"}},
	{schemas.TypeQuality, "quality", "质量检查", "quality", []string{"quality inspection", "质量", "质检"}},
	{schemas.TypePatrol, "patrol", "巡检", "patrol", []string{"patrol inspection", "巡查"}},
	{schemas.TypeVideo, "video", "视频通话", "video call", []string{"video call", "video calls",
		"video-call agent", "video-call agents", "视频", "视频坐席"}},
}

func (t *Type) names() []string { return append([]string{t.Name, t.Chinese}, t.others...) }

// none are names for having no type that could stand in a subject.
var none = []string{"none", "no type", "无类型"}

// Want says what Parse takes, as the end of a sentence.
const Want = "safety, quality, patrol or video (0, 1, 2, 10), or the type as agents have it: " +
	"letters, digits and hyphens"

// Short is the short name of a type that is a subject's token, or the token.
func Short(token string) string {
	for _, t := range Types {
		if t.Token == token {
			return t.Short
		}
	}
	return token
}

// Label is the short name of an agent's type in a table, or what stands in its place.
func Label(t *string) string {
	if t != nil {
		if short := Short(*t); short != *t {
			return short
		}
	}
	return plain.Value(t)
}

// Parse returns the subject's token of a type that somebody has typed: a name, English or Chinese,
// in whatever case and with hyphens or blanks, or the token itself. ok is false where it is
// neither, and where it is a word that is nearly a name, which meant then is.
func Parse(typed string) (token, meant string, ok bool) {
	typed = strings.TrimSpace(norm.NFKC.String(typed)) // the digits of a Chinese keyboard
	if typed == schemas.NoType || slices.ContainsFunc(none, same(typed)) {
		return schemas.NoType, "", true
	}
	for _, t := range Types {
		if slices.ContainsFunc(t.names(), same(typed)) {
			return t.Token, "", true
		}
	}
	asAgent := schemas.Agent{Type: &typed}
	meant = Nearest(typed)
	if asAgent.TypeToken() == typed && (meant == "" || !isWord(typed)) {
		return typed, "", true
	}
	return "", meant, false
}

// IsNumber reports whether a token is a number, as those of the vendor's types are.
func IsNumber(token string) bool {
	return token != "" && strings.Trim(token, "0123456789") == ""
}

func isWord(s string) bool {
	return strings.IndexFunc(s, func(c rune) bool { return !unicode.IsLetter(c) }) < 0
}

func same(typed string) func(name string) bool {
	return func(name string) bool { return folded(name) == folded(typed) }
}

func folded(name string) string {
	return strings.NewReplacer(" ", "", "-", "", "_", "").Replace(strings.ToLower(name))
}

// Nearest is the name that a mistyped one most likely stands for, or empty.
func Nearest(typed string) string {
	var names []string
	for _, t := range Types {
		names = append(names, t.names()...)
	}
	return setting.Nearest(strings.ToLower(typed), names)
}
