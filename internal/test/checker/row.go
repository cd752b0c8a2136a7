package checker

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// listed are the fields that the vendor's table lists, by the type that it documents: a number, a
// string, a date.
var listed = func() map[string]byte {
	m := map[string]byte{}
	for kind, names := range map[byte]string{
		'n': "agentId tenantId userId onlineStatus isArea capacity deleteFlag agentSignInTime " +
			"agentSignInDate createdBy " +
			"lastUpdatedBy creationTimestamp lastUpdateTimestamp",
		's': "agentCode agentAccount agentName type productType deliveryScene businessType " +
			"areaName cityId createName " +
			"lastUpdateName appName entityName",
		'd': "creationDate lastUpdateDate",
	} {
		for _, name := range strings.Fields(names) {
			m[name] = kind
		}
	}
	return m
}()

// A row is an agent, normalised. Each value is written so that two are the same exactly if their
// text is: "n1" for the number, "s1" for the string, "r" and the bytes of a field that no table
// lists. wild stands for one that the contract leaves open.
type row struct {
	id                int64
	fields            map[string]string
	there, online     bool
	full, significant string // all fields, and those whose change makes an event
	wild              bool   // one of its fields is
}

const wild = "*"

// A verdict says what can be done with a vendor's row.
type verdict int

const (
	usable   verdict = iota
	doubtful         // may be too large
	rejected         // an agent's, but not usable
	nameless         // nobody can tell whose
)

// A seen is a vendor's row as it was taken in: row is set unless it is rejected or nameless, id
// unless nameless.
type seen struct {
	verdict verdict
	id      int64
	row     *row
}

// rules are what a row is judged by.
type rules struct {
	tenant int64
	quiet  map[string]bool
	large  int // rows as long may be rejected
}

func newRules(o Options) rules {
	r := rules{tenant: o.Tenant, quiet: map[string]bool{}, large: o.MaxRowBytes / 10 * 9}
	for _, name := range o.Quiet {
		r.quiet[name] = true
	}
	return r
}

func (r rules) isQuiet(name string) bool {
	return r.quiet[name] || r.quiet["*"] &&
		listed[name] == 0
}

// lenient reads a row as the contract's section 1 says.
func (r rules) lenient(raw json.RawMessage) seen {
	ms, err := members(raw)
	if err != nil {
		return seen{verdict: nameless}
	}
	fields := make(map[string]string, len(ms)+1)
	text := true
	for _, m := range ms {
		text = text && (listed[m.name] == 0 || utf8.Valid(m.value))
		delete(fields, m.name) // of a name that is repeated, the last counts
		if v := normal(listed[m.name], m.value); v != "" {
			fields[m.name] = v
		}
	}
	id, ok := number(fields["agentId"])
	if !ok {
		return seen{verdict: nameless}
	}
	s := seen{id: id}
	own := "n" + strconv.FormatInt(r.tenant, 10)
	if _, ok := fields["tenantId"]; !ok {
		fields["tenantId"] = own
	}
	switch _, status := fields["onlineStatus"]; {
	case fields["tenantId"] != own || !status || !text:
		s.verdict = rejected
		return s
	case len(raw) >= r.large:
		s.verdict = doubtful
	}
	s.row = r.newRow(id, fields)
	return s
}

func (r rules) newRow(id int64, fields map[string]string) *row {
	w := &row{id: id, fields: fields}
	var full, significant strings.Builder
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		pair := strconv.Quote(name) + fields[name] + "\x00"
		full.WriteString(pair)
		if !r.isQuiet(name) {
			significant.WriteString(pair)
		}
		w.wild = w.wild || fields[name] == wild
	}
	w.full, w.significant = full.String(), significant.String()
	w.there = fields["deleteFlag"] != "n1"
	w.online = w.there && fields["onlineStatus"] == "n1"
	return w
}

// exact reads the agent of a message of rollcall's own, whose listed fields must have their
// documented types.
func (r rules) exact(raw json.RawMessage) (*row, error) {
	ms, err := members(raw)
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	fields := make(map[string]string, len(ms))
	for _, m := range ms {
		if _, twice := fields[m.name]; twice {
			return nil, fmt.Errorf("agent: %s stands there twice", m.name)
		}
		if fields[m.name], err = documented(m.name, m.value); err != nil {
			return nil, fmt.Errorf("agent: %w", err)
		}
	}
	for _, name := range []string{"agentId", "tenantId", "onlineStatus"} {
		if fields[name] == "" {
			return nil, fmt.Errorf("agent: %s is missing", name)
		}
	}
	id, _ := number(fields["agentId"])
	return r.newRow(id, fields), nil
}

// documented is the value of a field that must have its documented type.
func documented(name string, raw json.RawMessage) (string, error) {
	kind := listed[name]
	v := normal(kind, raw)
	if kind == 'n' && !plainInt.Match(raw) || (kind == 's' || kind == 'd') && raw[0] != '"' ||
		v == "" {
		return "", fmt.Errorf("%s has not the documented type: %s", name, raw)
	}
	return v, nil
}

// numeral is what is read as a number; the exponent is short because an integer of 64 bits needs no
// longer one.
var numeral = regexp.MustCompile(`^[-+]?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]{1,3})?$`)

// normal is a value as the documented type has it; "" where it is null or can't be normalised.
func normal(kind byte, raw json.RawMessage) string {
	text, isText := "", raw[0] == '"'
	isNumber := raw[0] == '-' || raw[0] >= '0' && raw[0] <= '9'
	if isText && json.Unmarshal(raw, &text) != nil {
		return ""
	}
	switch {
	case kind == 0:
		return "r" + string(raw)
	case kind == 'n' && (isText || isNumber):
		if isNumber {
			text = string(raw)
		}
		if text = strings.TrimSpace(text); !numeral.MatchString(text) {
			return ""
		}
		if n, ok := new(big.Rat).SetString(text); ok && n.IsInt() && n.Num().IsInt64() {
			return "n" + n.Num().String()
		}
	case kind != 'n' && isText: // NUL is marked, since there are databases that can't store it
		return "s" + strings.ReplaceAll(text, "\x00", "\ufffd{0000}")
	case kind == 's' && isNumber:
		if n, ok := new(big.Rat).SetString(string(raw)); numeral.Match(raw) && ok && n.IsInt() &&
			n.Num().IsInt64() {
			return "s" + n.Num().String()
		}
		return "s" + string(raw)
	case kind == 'd' && isNumber:
		return wild // in which form is not said
	}
	return ""
}

func number(v string) (int64, bool) {
	if !strings.HasPrefix(v, "n") {
		return 0, false
	}
	n, err := strconv.ParseInt(v[1:], 10, 64)
	return n, err == nil
}

// same reports whether two rows agree in every field.
func (w *row) same(o *row) bool {
	return w.full == o.full || (w.wild || o.wild) &&
		w.agrees(o, nil)
}

// alike reports whether two rows agree in every field that is not quiet.
func (r rules) alike(w, o *row) bool {
	return w.significant == o.significant || (w.wild || o.wild) && w.agrees(o, r.isQuiet)
}

func (w *row) agrees(o *row, skip func(string) bool) bool {
	for _, name := range w.differing(o) {
		if w.fields[name] != wild && o.fields[name] != wild && (skip == nil || !skip(name)) {
			return false
		}
	}
	return true
}

// differing are the names of the fields in which two rows differ, in order.
func (w *row) differing(o *row) []string {
	var names []string
	for name, v := range w.fields {
		if o.fields[name] != v {
			names = append(names, name)
		}
	}
	for name := range o.fields {
		if _, ok := w.fields[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// changesOf is every difference between two rows, in the order of the field names.
func changesOf(from, to *row) (out []change) {
	for _, name := range from.differing(to) {
		out = append(out, change{name, from.fields[name], to.fields[name]})
	}
	return out
}

// typeToken is the subject token of the agent's type.
func (w *row) typeToken() string {
	if t, ok := strings.CutPrefix(w.fields["type"], "s"); ok && typeForm.MatchString(t) {
		return t
	}
	return "_"
}

var typeForm = regexp.MustCompile(`^[A-Za-z0-9-]{1,32}$`)
