package checker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
	"github.com/rollcall-events/rollcall/schemas"
)

// A specimen is a correct stream with its truth, to be spoilt.
type specimen struct {
	t     *testing.T
	live  []Message
	store func([]Message) []Message // what the stream keeps
	truth Truth
	opt   Options
}

// find is the index of the n-th event (from 0; below 0 from the end) of a kind, with a reason and a
// first revision.
func (s *specimen) find(kind, reason string, least uint64, n int) int {
	var at []int
	for i, m := range s.live {
		if m.kind() != kind || !bytes.Contains(m.Body, []byte(`"reason":"`+reason+`"`)) {
			continue
		}
		if s.event(i).Data.Revision >= least {
			at = append(at, i)
		}
	}
	if n < 0 {
		n += len(at)
	}
	if n < 0 || n >= len(at) {
		s.t.Fatalf("only %d events %s with reason %s", len(at), kind, reason)
	}
	return at[n]
}

func (s *specimen) event(i int) (e schemas.Event) {
	if err := json.Unmarshal(s.live[i].Body, &e); err != nil {
		s.t.Fatal(err)
	}
	return e
}

func (s *specimen) edit(i int, change func(*schemas.Event)) {
	s.live = edit(s.t, s.live, uint64(i+1), change)
}

// replace spoils the text of one message.
func (s *specimen) replace(i int, old, by string) {
	if !bytes.Contains(s.live[i].Body, []byte(old)) {
		s.t.Fatalf("no %s in %s", old, s.live[i].Body)
	}
	s.live[i].Body = bytes.Replace(s.live[i].Body, []byte(old), []byte(by), 1)
}

// mark spoils a watermark.
func (s *specimen) mark(i int, change func(map[string]any)) {
	d := json.NewDecoder(bytes.NewReader(s.live[i].Body))
	d.UseNumber()
	var m map[string]any
	if err := d.Decode(&m); err != nil {
		s.t.Fatal(err)
	}
	change(m)
	s.live[i].Body, _ = json.Marshal(m)
}

// lastMark is the last watermark with or without inProgress.
func (s *specimen) lastMark(inProgress bool) int {
	for i := len(s.live) - 1; ; i-- {
		if s.live[i].kind() == "watermark" &&
			bytes.Contains(s.live[i].Body, []byte("inProgress")) == inProgress {
			return i
		}
	}
}

// completed is the n-th watermark that is the first of a complete sweep.
func (s *specimen) completed(n int) int {
	for i, m := range s.live {
		if m.kind() == "watermark" && !bytes.Contains(m.Body, []byte("inProgress")) {
			if n == 0 {
				return i
			}
			n--
		}
	}
	s.t.Fatal("too few complete sweeps")
	return 0
}

// interval is the n-th unobserved interval.
func (s *specimen) interval(n int) int {
	for i, m := range s.live {
		if m.kind() == "unobserved" {
			if n == 0 {
				return i
			}
			n--
		}
	}
	s.t.Fatal("too few unobserved intervals")
	return 0
}

// claim says in the commit of a complete sweep that the time before it was unobserved. rest is the
// end of what it says.
func (s *specimen) claim(mark int, rest string) {
	var w schemas.Watermark
	if err := json.Unmarshal(s.live[mark].Body, &w); err != nil {
		s.t.Fatal(err)
	}
	from := w.StartedAt
	for i := range mark {
		if s.live[i].kind() == "watermark" && !bytes.Contains(s.live[i].Body, []byte(`"sweep":0`)) {
			var before schemas.Watermark
			if err := json.Unmarshal(s.live[i].Body, &before); err != nil {
				s.t.Fatal(err)
			}
			from = before.StartedAt
		}
	}
	m := Message{Subject: schemas.UnobservedSubject(tenant), Time: s.live[mark].Time,
		Header: map[string][]string{"Content-Type": {schemas.ContentTypeJSON},
			"Nats-TTL": {"168h"}},
		Body: fmt.Appendf(nil, `{"tenantId":%d,"from":%q,"to":%q,"sweep":%d%s}`, tenant,
			from.Format(schemas.TimeFormat), w.StartedAt.Format(schemas.TimeFormat), w.Sweep, rest)}
	s.insert(mark, m)
}

// insert puts a message into the commit that ends with a watermark.
func (s *specimen) insert(mark int, m Message) {
	id, _ := s.live[mark].batch()
	if id == "" { // it was published by itself
		id = fmt.Sprint("joined-", mark)
		s.live[mark].Header["Nats-Batch-Id"] = []string{id}
	}
	m.Header["Nats-Batch-Id"] = []string{id}
	s.live = slices.Insert(s.live, mark, m)
	s.renumber()
}

// moveInterval moves an interval into the commit that ends with a watermark.
func (s *specimen) moveInterval(i, mark int) {
	m := s.live[i]
	if mark > i {
		mark--
	}
	s.live = slices.Delete(s.live, i, i+1)
	s.insert(mark, m)
}

// commitOf are the indices of a message's commit: its first, and the one behind its last.
func (s *specimen) commitOf(i int) (from, to int) {
	id, _ := s.live[i].batch()
	in := func(m Message) bool { b, _ := m.batch(); return b == id }
	from = slices.IndexFunc(s.live, in)
	for to = from; to < len(s.live) && in(s.live[to]); to++ {
	}
	return from, to
}

// renumber gives the messages new places, as if they had been published like this.
func (s *specimen) renumber() {
	places := map[string]int{}
	for i := range s.live {
		m := &s.live[i]
		m.Seq = uint64(i + 1)
		if id, _ := m.batch(); id != "" {
			places[id]++
			h := map[string][]string{}
			for k, v := range m.Header {
				h[k] = v
			}
			h["Nats-Batch-Sequence"] = []string{fmt.Sprint(places[id])}
			m.Header = h
			if m.kind() == "watermark" {
				s.mark(i, func(w map[string]any) {
					w["commit"].(map[string]any)["messages"] = places[id]
				})
			}
		}
	}
}

// without takes messages out, counted again.
func (s *specimen) without(from, to int) {
	s.live = slices.Delete(s.live, from, to)
	s.renumber()
}

// dropLast drops the last change of fields that an agent ends with, as if it had never been seen.
func (s *specimen) dropLast() {
	last := map[int64]int{}
	for i, m := range s.live {
		if m.isEvent() {
			last[agentOf(&m)] = i
		}
	}
	for _, i := range last {
		if e := s.event(i); e.Type == schemas.Updated && e.Data.Reason == schemas.Fields {
			s.without(s.commitOf(i))
			return
		}
	}
	s.t.Fatal("no agent ends with a change of fields")
}

// appeared is the first event of an agent that was new after the beginning.
func (s *specimen) appeared() int {
	for i, m := range s.live {
		if m.isEvent() {
			if e := s.event(i); e.Data.Reason == schemas.Appeared && e.Data.Revision == 1 {
				return i
			}
		}
	}
	s.t.Fatal("nobody appeared")
	return 0
}

// lastState is a state that is still the latest one of its agent.
func (s *specimen) lastState() int {
	for i := len(s.live) - 1; ; i-- {
		if s.live[i].kind() == "state" {
			return i
		}
	}
}

// neverGone puts the agent that was removed back on the first page.
func (s *specimen) neverGone(i int) {
	if s.truth.Pages[i].Page != 0 {
		return
	}
	for _, ch := range s.truth.History {
		if ch.Kind == isdpsim.Removed {
			s.truth.Pages = slices.Clone(s.truth.Pages)
			s.truth.Pages[i].Rows = append(slices.Clone(s.truth.Pages[i].Rows),
				isdpsim.Row{ID: ch.ID, JSON: ch.Before})
			return
		}
	}
}
