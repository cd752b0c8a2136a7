//go:build unix

package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
)

// The oracle says what the log has to be, from the contract and the listing alone. It shares no
// code with the product.

// oracleFields are the documented fields in the order in which an agent is written, and how.
var oracleFields = []struct{ name, as string }{
	{"agentId", "int"}, {"tenantId", "int"}, {"onlineStatus", "int"},
	{"userId", "int"}, {"agentCode", "string"}, {"agentAccount", "string"}, {"agentName", "string"}, {"type", "string"},
	{"productType", "string"}, {"deliveryScene", "string"}, {"businessType", "string"}, {"areaName", "string"}, {"cityId", "string"},
	{"isArea", "int"}, {"capacity", "int"}, {"deleteFlag", "int"}, {"agentSignInTime", "int"}, {"agentSignInDate", "int"},
	{"createdBy", "int"}, {"lastUpdatedBy", "int"}, {"createName", "string"}, {"lastUpdateName", "string"},
	{"creationTimestamp", "int"}, {"lastUpdateTimestamp", "int"}, {"creationDate", "string"}, {"lastUpdateDate", "string"},
	{"appName", "string"}, {"entityName", "string"},
}

var oracleQuiet = []string{
	"lastUpdateTimestamp", "lastUpdateDate", "lastUpdatedBy", "lastUpdateName", "agentSignInTime", "agentSignInDate",
}

// oracleTooLarge is above any row that a test wants published and below any that it does not.
const oracleTooLarge = 400_000

// A person is an agent as it is written: its fields by name.
type person map[string]string

func (p person) id() int64 {
	n, _ := strconv.ParseInt(p["agentId"], 10, 64)
	return n
}

func (p person) there() bool  { return p["deleteFlag"] != "1" }
func (p person) online() bool { return p.there() && p["onlineStatus"] == "1" }

func (p person) json() string {
	var members []string
	for _, f := range oracleFields {
		if v, ok := p[f.name]; ok {
			members = append(members, fmt.Sprintf("%q:%s", f.name, v))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p)) {
		if !documented(name) {
			members = append(members, quote(name)+":"+p[name])
		}
	}
	return "{" + strings.Join(members, ",") + "}"
}

func documented(name string) bool {
	for _, f := range oracleFields {
		if f.name == name {
			return true
		}
	}
	return false
}

// quote writes a string with the escapes that JSON demands and no others.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch short := strings.IndexRune("\"\\\b\f\n\r\t", r); {
		case short >= 0:
			b.WriteString(`\` + string(`"\bfnrt`[short]))
		case r < ' ':
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String() + `"`
}

// readRow reads a row of the listing. Where it can't be used, p is nil, and id says whose it is, if
// known.
func readRow(row json.RawMessage, tenant int64) (p person, id int64, known bool) {
	var raw map[string]json.RawMessage
	if json.Unmarshal(row, &raw) != nil || raw == nil {
		return nil, 0, false
	}
	p = person{"tenantId": strconv.FormatInt(tenant, 10)}
	for name, v := range raw {
		switch {
		case !documented(name):
			p[name] = string(v)
		case string(v) == "null":
		default:
			for _, f := range oracleFields {
				if f.name == name {
					if s, ok := normal(string(v), f.as); ok {
						p[name] = s
					}
				}
			}
		}
	}
	id, err := strconv.ParseInt(p["agentId"], 10, 64)
	if err != nil {
		return nil, 0, false
	}
	if p["onlineStatus"] == "" || p["tenantId"] != strconv.FormatInt(tenant, 10) || len(p.json()) > oracleTooLarge {
		return nil, id, true
	}
	return p, id, true
}

var integer = regexp.MustCompile(`^-?\d+$`)

func normal(v, as string) (string, bool) {
	isString := strings.HasPrefix(v, `"`)
	text := v
	if isString {
		if json.Unmarshal([]byte(v), &text) != nil {
			return "", false
		}
		text = strings.ReplaceAll(text, "\x00", "\ufffd{0000}") // which PostgreSQL's jsonb refuses
	}
	if as == "int" {
		return text, integer.MatchString(text)
	}
	if !isString && !integer.MatchString(v) {
		return "", false
	}
	return quote(text), true
}

// An oracle knows what was published and what the listing was.
type oracle struct {
	tenant   int64
	agents   map[int64]*published
	deleted  map[int64]bool // seen, and never there
	baseline bool           // no sweep has been complete
	rejected int            // in the last complete sweep
	blind    bool           // no sweep since the start is known to have shown everybody whose row could be used
	hidden   map[int64]bool // agents whose rows could not be used since the last one that did
}

// published is an agent as its last event left it.
type published struct {
	person
	revision        int
	online, removed bool
	time, since     string // as read from the log
}

// A wanted event, and what to check of its times.
type wanted struct {
	id       int64
	summary  string // "17813 r2 agent.online status"
	subject  string
	template string // the body, with the times and the sweep left open
	flips    bool   // its since is its time
	before   bool   // it has a notBefore
	after    published
}

// Where a template is open.
const (
	openTime, openSweep, openNotBefore, openSince, openPrevious = "\x01", "\x02", "\x03", "\x04", "\x05"
)

// restarted says that rollcall starts anew, and knows of the last sweep what its watermark says:
// how many rows it had rejected, not whose.
func (o *oracle) restarted() { o.blind, o.hidden = o.rejected > 0, map[int64]bool{} }

// observe says which events the listing makes. gone: the agents that it does not show count as
// removed.
func (o *oracle) observe(listing []isdpsim.Row, gone bool) (events []*wanted, rejected, unidentified, missing int) {
	shown, hidden := make(map[int64]bool), make(map[int64]bool)
	for _, row := range listing {
		p, id, known := readRow(row.JSON, o.tenant)
		if known {
			shown[id] = true
		}
		if p == nil {
			rejected++
			hidden[id] = known
			if !known {
				unidentified++
			}
			continue
		}
		if e := o.row(p); e != nil {
			events = append(events, e)
		}
	}
	for id, a := range o.agents {
		switch {
		case shown[id] || a.removed || unidentified > 0:
		case gone:
			events = append(events, o.event(a, nil))
		default:
			missing++
		}
	}
	o.baseline, o.rejected = false, rejected
	if unidentified == 0 {
		o.blind, o.hidden = false, hidden
	}
	maps.Copy(o.hidden, hidden)
	return events, rejected, unidentified, missing
}

func (o *oracle) row(p person) *wanted {
	prev := o.agents[p.id()]
	switch {
	case prev == nil && !p.there():
		o.deleted[p.id()] = true
		return nil
	case prev == nil:
	case prev.removed && !p.there():
		return nil
	case prev.removed || !p.there() || prev.online != p.online():
	default:
		loud := false
		for _, name := range differing(prev.person, p) {
			loud = loud || documented(name) && !slices.Contains(oracleQuiet, name)
		}
		if !loud {
			return nil
		}
	}
	return o.event(prev, p)
}

// event is the one that makes p of prev; p nil: gone from the listing.
func (o *oracle) event(prev *published, p person) *wanted {
	known := prev != nil
	if !known {
		prev = &published{removed: true}
	}
	there := p != nil && p.there()
	after := published{person: p, revision: prev.revision + 1, online: p.online(), removed: !there}
	if p == nil {
		after.person, after.online = prev.person, false
	}
	typ, reason := "agent.updated", "fields"
	switch {
	case after.online && !prev.online:
		typ, reason = "agent.online", "status"
	case !after.online && prev.online:
		typ, reason = "agent.offline", "status"
	}
	switch {
	case !there:
		reason = "removed"
	case prev.removed && o.baseline:
		reason = "baseline"
	case prev.removed:
		reason = "appeared"
	}
	id := after.id()
	w := &wanted{
		id: id, after: after, flips: typ != "agent.updated" || !known,
		before:  known || o.deleted[id] || !o.baseline && !o.blind && !o.hidden[id],
		summary: fmt.Sprintf("%d r%d %s %s", id, after.revision, typ, reason),
	}
	token := "_"
	if m := regexp.MustCompile(`^"([A-Za-z0-9-]{1,32})"$`).FindStringSubmatch(after.person["type"]); m != nil {
		token = m[1]
	}
	w.subject = fmt.Sprintf("%s.%d.%s.%d", typ, o.tenant, token, id)

	var changes []string
	if known && p != nil {
		for _, name := range differing(prev.person, p) {
			c := `{"field":` + quote(name)
			if v, ok := prev.person[name]; ok {
				c += `,"from":` + v
			}
			if v, ok := p[name]; ok {
				c += `,"to":` + v
			}
			changes = append(changes, c+"}")
		}
	}
	open := func(is bool, name, what string) string {
		if !is {
			return ""
		}
		return fmt.Sprintf(`"%s":"%s",`, name, what)
	}
	w.template = fmt.Sprintf(`{"specversion":"1.0","type":"%s","source":"/isdp/tenants/%d","subject":"%d","id":"%d-%d-%d","time":"%s",`+
		`"datacontenttype":"application/json","dataschema":"urn:rollcall:agent-event:v1","data":{"revision":%d,"reason":"%s","sweep":%s,"online":%t,%s%s%s`+
		`"agent":%s,"changes":[%s]}}`,
		typ, o.tenant, id, o.tenant, id, after.revision, openTime, after.revision, reason, openSweep, after.online,
		open(w.before, "notBefore", openNotBefore), open(true, "since", openSince), open(known && w.flips, "previousSince", openPrevious),
		after.json(), strings.Join(changes, ","))
	return w
}

func differing(a, b person) []string {
	var names []string
	for name, v := range a {
		if w, ok := b[name]; !ok || v != w {
			names = append(names, name)
		}
	}
	for name := range b {
		if _, ok := a[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// match compares a body with a template and returns what stands where the template is open. Where
// they differ, where says how.
func match(template, body string) (open map[string]string, where string) {
	open = make(map[string]string)
	at := 0
	for i := 0; i < len(template); i++ {
		c := template[i]
		switch {
		case c <= 8:
			end := at
			for end < len(body) && strings.IndexByte(`",}`, body[end]) < 0 {
				end++
			}
			open[string(c)] = body[at:end]
			at = end
		case at >= len(body) || body[at] != c:
			return nil, fmt.Sprintf("from byte %d on\n got  %.300q\n want %.300q", at, body[at:], template[i:])
		default:
			at++
		}
	}
	if at < len(body) {
		return nil, fmt.Sprintf("behind the end: %.300q", body[at:])
	}
	return open, ""
}
