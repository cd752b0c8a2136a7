package query

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"unique"

	"github.com/rollcall-events/rollcall/internal/fields"
	"github.com/rollcall-events/rollcall/schemas"
	"github.com/rollcall-events/rollcall/schemas/follow"
)

// A reply is the answer to a question, in parts, so that bodies need not be copied.
type reply struct {
	parts [][]byte
	// tag names the answer to one and the same question: another watermark, or another trust, has
	// another one. Empty: there is none.
	tag string
}

func (r *reply) size() (n int) {
	for _, p := range r.parts {
		n += len(p)
	}
	return n
}

// A failure is a question that is not answered, with the code of HTTP and of the micro protocol.
type failure struct {
	code int
	text string
	as   *reply // what was looked at; nil: nothing
}

func (f *failure) Error() string { return f.text }

const (
	badRequest = 400
	notFound   = 404
	tooLarge   = 413
)

// head begins every reply: the watermark and whether it can be trusted. s.mu must be held.
func (s *Service) head() (*reply, []byte) {
	var t table // nothing
	trust := follow.Trust{}
	if s.table != nil {
		t = *s.table
		trust = follow.NewTrust(t.watermark, nil, s.cfg.Now())
	}
	b := []byte("{")
	if t.asOf != nil {
		b = append(append(append(b, `"asOf":`...), t.asOf...), ',')
	}
	r, err := new(reply), trust.Err()
	b = strconv.AppendBool(append(b, `"trusted":`...), err == nil)
	if err != nil {
		b = fields.AppendString(append(b, `,"reason":`...), err.Error())
	}
	if t.watermark != nil {
		r.tag = t.watermark.Commit.ID
		if err != nil {
			r.tag += "-untrusted"
		}
	}
	return r, b
}

// roster answers with the agents who are there and fit the question, by their ids, in at most max
// bytes (0: in as many as it takes).
func (s *Service) roster(ctx context.Context, q *request, max int) (*reply, error) {
	defer s.ask(ctx)()
	s.mu.RLock()
	defer s.mu.RUnlock()
	r, head := s.head()
	head = append(head, `,"agents":[`...)
	// ],"omitted":["…"],"next":"…"}
	const tail, each = 64, len(`"-9223372036854775808",`)
	room := max - len(head) - tail
	var bodies [][]byte
	var omitted []byte
	var last int64
	n, used, more := 0, 0, false
	for a := range s.matching(q) {
		size := len(a.body) + 1
		tooLarge := max > 0 && size > room
		if tooLarge {
			size = each
		}
		if more = q.limit > 0 && n == q.limit || max > 0 && used+size > room; more {
			break
		}
		if n, used, last = n+1, used+size, a.id; tooLarge {
			omitted = strconv.AppendInt(append(omitted, `,"`...), a.id, 10)
			omitted = append(omitted, '"')
			continue
		}
		bodies = append(bodies, a.body)
	}
	r.parts = append(r.parts, head)
	for i, body := range bodies {
		if i > 0 {
			r.parts = append(r.parts, comma)
		}
		r.parts = append(r.parts, body)
	}
	end := []byte{']'}
	if omitted != nil {
		end = append(append(append(end, `,"omitted":[`...), omitted[1:]...), ']')
	}
	if more {
		end = strconv.AppendInt(append(end, `,"next":"`...), last, 10)
		end = append(end, '"')
	}
	r.parts = append(r.parts, append(end, '}'))
	return r, nil
}

var comma = []byte{','}

// matching are the agents who are there and fit the question, by their ids. s.mu must be held.
func (s *Service) matching(q *request) func(yield func(agent) bool) {
	return func(yield func(agent) bool) {
		if s.table == nil {
			return
		}
		i := 0
		if q.after != nil {
			var found bool
			if i, found = s.table.find(*q.after); found {
				i++
			}
		}
		for _, a := range s.table.agents[i:] {
			switch {
			case a.removed,
				q.typ != nil && a.typ.Value() != *q.typ,
				q.online != nil && a.online != *q.online,
				q.area != nil && a.area.Value() != *q.area:
			case !yield(a):
				return
			}
		}
	}
}

// agent answers with one agent's state, also where it was removed.
func (s *Service) agent(ctx context.Context, q *request, max int) (*reply, error) {
	if q.agentID == nil {
		return nil, &failure{code: badRequest,
			text: "the question names no agent: want " + form(ofAgent, true)}
	}
	defer s.ask(ctx)()
	s.mu.RLock()
	defer s.mu.RUnlock()
	r, head := s.head()
	head = append(head, `,"agents":[`...)
	r.parts = [][]byte{head, []byte("]}")}
	if s.table == nil {
		return r, nil
	}
	i, found := s.table.find(*q.agentID)
	if !found {
		return nil, &failure{notFound, fmt.Sprintf("agent %d is not known", *q.agentID), r}
	}
	body := s.table.agents[i].body
	if max > 0 && r.size()+len(body) > max {
		return nil, &failure{tooLarge, fmt.Sprintf("the state of agent %d does not fit into a "+
			"message beside the watermark: read %s", *q.agentID,
			schemas.StateSubject(s.cfg.Tenant, *q.agentID)), r}
	}
	r.parts = [][]byte{head, body, []byte("]}")}
	return r, nil
}

// counts answers with how many agents are there, as a whole, by type and by area.
func (s *Service) counts(ctx context.Context, _ *request, max int) (*reply, error) {
	defer s.ask(ctx)()
	s.mu.RLock()
	defer s.mu.RUnlock()
	r, b := s.head()
	var all schemas.TypeCounts
	types := map[unique.Handle[string]]*schemas.TypeCounts{}
	areas := map[unique.Handle[string]]*schemas.TypeCounts{}
	for a := range s.matching(&request{}) {
		count(&all, a)
		count(of(types, a.typ), a)
		count(of(areas, a.area), a)
	}
	b = appendCounts(append(b, ','), &all)
	b = appendGroups(append(b, `,"types":`...), types)
	b = appendGroups(append(b, `,"areas":`...), areas)
	r.parts = [][]byte{append(b, '}')}
	if max > 0 && r.size() > max {
		return nil, &failure{code: tooLarge, text: "the counts of so many areas do not fit into " +
			"a message: count the roster"}
	}
	return r, nil
}

func of[K comparable](groups map[K]*schemas.TypeCounts, k K) *schemas.TypeCounts {
	c := groups[k]
	if c == nil {
		c = new(schemas.TypeCounts)
		groups[k] = c
	}
	return c
}

func count(c *schemas.TypeCounts, a agent) {
	c.Agents++
	if a.online {
		c.Online++
		c.Capacity += a.capacity
	}
}

func appendCounts(b []byte, c *schemas.TypeCounts) []byte {
	return fmt.Appendf(b, `"agents":%d,"online":%d,"capacity":%d`, c.Agents, c.Online, c.Capacity)
}

// appendGroups appends the counts of each group, in the order of their names.
func appendGroups(b []byte, groups map[unique.Handle[string]]*schemas.TypeCounts) []byte {
	named := make(map[string]*schemas.TypeCounts, len(groups))
	for k, c := range groups {
		named[k.Value()] = c
	}
	b = append(b, '{')
	for i, name := range slices.Sorted(maps.Keys(named)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(fields.AppendString(b, name), `:{`...)
		b = append(appendCounts(b, named[name]), '}')
	}
	return append(b, '}')
}
