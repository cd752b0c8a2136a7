package checker

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Message is one message of the stream, as it is stored.
type Message struct {
	Seq     uint64 // in the stream
	Subject string // "agent.…"
	Header  map[string][]string
	Body    []byte
	Time    time.Time // when the broker stored it
}

func (m *Message) header(name string) string {
	if v := m.Header[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// batch is the message's place in its commit: "", 0 where it was published by itself.
func (m *Message) batch() (id string, place uint64) {
	place, _ = strconv.ParseUint(m.header("Nats-Batch-Sequence"), 10, 64)
	return m.header("Nats-Batch-Id"), place
}

func (m *Message) place() uint64 { _, place := m.batch(); return place }

func (m *Message) sameBatch(o *Message) bool {
	id, _ := m.batch()
	other, _ := o.batch()
	return id == other
}

// kind is the second token of the subject, tenant the third.
func (m *Message) kind() string { return token(m.Subject, 1) }

func (m *Message) isEvent() bool {
	switch m.kind() {
	case "online", "offline", "updated":
		return true
	}
	return false
}

// isKept reports whether the stream keeps the message beside later ones on its subject.
func (m *Message) isKept() bool { return m.isEvent() || m.kind() == "unobserved" }

func (m *Message) of(tenant int64) bool {
	return token(m.Subject, 0) == "agent" && token(m.Subject, 2) == strconv.FormatInt(tenant, 10)
}

func (m *Message) equal(o *Message) bool {
	return m.Seq == o.Seq && m.Subject == o.Subject && bytes.Equal(m.Body, o.Body)
}

// expired reports whether the message's TTL was over at t.
func (m *Message) expired(t time.Time) bool {
	ttl := m.header("Nats-TTL")
	d, err := time.ParseDuration(ttl)
	if err != nil {
		seconds, err := strconv.Atoi(ttl)
		if err != nil {
			return false
		}
		d = time.Duration(seconds) * time.Second
	}
	return !t.IsZero() && !m.Time.Add(d).After(t)
}

func token(subject string, i int) string {
	for ; i > 0; i-- {
		_, rest, ok := strings.Cut(subject, ".")
		if !ok {
			return ""
		}
		subject = rest
	}
	first, _, _ := strings.Cut(subject, ".")
	return first
}

// gather makes one stream of what is stored and what was republished: every message that still
// counts, by sequence, and those that the broker has lost, in the order of their arrival.
//
// A message counts as lost where another one took its sequence, or one before it, later; where its
// sequence is within another commit that came later; and where it should be stored and is not.
func (c *check) gather(stream Stream) (line, lost []*Message) {
	keep := func(m *Message) bool { return c.opt.Foreign == nil || !c.opt.Foreign(*m) }
	type arrival struct {
		m *Message
		n int
	}
	now := map[uint64]arrival{}
	drop := func(from uint64, before int) {
		for _, seq := range slices.Sorted(maps.Keys(now)) {
			if seq >= from && now[seq].n < before {
				lost = append(lost, now[seq].m)
				delete(now, seq)
			}
		}
	}
	clash := func(m, o *Message) {
		if c.opt.Rollback == NoRollback {
			c.report(RuleStream, 0, m.Seq,
				"the stream went backwards: sequence %d was %s and is %s",
				m.Seq, m.Subject, o.Subject)
		}
	}
	for n := range stream.Live {
		m := &stream.Live[n]
		c.present[m.Seq] = true
		was, ok := now[m.Seq]
		if ok && !was.m.equal(m) {
			clash(was.m, m)
			drop(m.Seq, n)
			ok = false
		}
		if !ok && keep(m) {
			now[m.Seq] = arrival{m, n}
		}
	}
	latest := map[string]uint64{} // stored, by subject
	stored := map[uint64]*Message{}
	for n := range stream.Stored {
		m := &stream.Stored[n]
		c.present[m.Seq] = true
		if !m.of(c.opt.Tenant) || !keep(m) {
			continue
		}
		if was, ok := now[m.Seq]; ok && !was.m.equal(m) {
			clash(was.m, m)
			drop(m.Seq, was.n+1)
		}
		stored[m.Seq] = m
		latest[m.Subject] = max(latest[m.Subject], m.Seq)
		line = append(line, m)
	}
	for _, seq := range slices.Sorted(maps.Keys(now)) {
		m := now[seq].m
		if !m.of(c.opt.Tenant) || stored[seq] != nil {
			continue
		}
		gone := m.isKept() && !m.expired(stream.ReadAt) || !m.isKept() && latest[m.Subject] < seq
		switch {
		case gone && stream.Stored != nil && c.opt.Rollback != NoRollback:
			lost = append(lost, m)
			continue
		case gone && stream.Stored != nil:
			c.report(RuleStream, agentOf(m), seq, "%s was committed and is no longer in the stream",
				m.Subject)
		}
		line = append(line, m)
	}
	if c.opt.Rollback != NoRollback {
		line, lost = c.ghosts(line, lost, stored)
	}
	slices.SortFunc(line, func(a, b *Message) int { return cmp.Compare(a.Seq, b.Seq) })
	lost = slices.DeleteFunc(lost, func(m *Message) bool { return !m.of(c.opt.Tenant) })
	return line, lost
}

// ghosts moves what was recorded, and is not stored, to the lost ones where its commit has lost a
// message; and where a recording with holes can't tell whether it still counts.
func (c *check) ghosts(line, lost []*Message, stored map[uint64]*Message) (kept, gone []*Message) {
	torn := map[string]bool{"": c.opt.LossyLive}
	for _, m := range lost {
		if id, _ := m.batch(); id != "" {
			torn[id] = true
		}
	}
	taken := within(line)
	for _, m := range line {
		if o := taken[m.Seq]; o != nil && stored[m.Seq] == nil && o.Time.After(m.Time) &&
			!m.sameBatch(o) {
			lost = append(lost, m)
			continue
		}
		if id, _ := m.batch(); stored[m.Seq] == nil && torn[id] {
			lost = append(lost, m)
		} else {
			kept = append(kept, m)
		}
	}
	return kept, lost
}

// within says of each sequence before a commit's last message that is known which message that is:
// a commit's messages follow one another.
func within(line []*Message) map[uint64]*Message {
	last := map[string]*Message{}
	for _, m := range line {
		id, place := m.batch()
		if o := last[id]; id != "" && (o == nil || place > o.place()) {
			last[id] = m
		}
	}
	taken := map[uint64]*Message{}
	for _, m := range last {
		for n := uint64(1); n < m.place() && n < m.Seq; n++ {
			taken[m.Seq-n] = m
		}
	}
	return taken
}

// agentOf is the agent that a subject names; 0: none.
func agentOf(m *Message) int64 {
	i := strings.LastIndexByte(m.Subject, '.')
	id, _ := strconv.ParseInt(m.Subject[i+1:], 10, 64)
	switch m.kind() {
	case "watermark", "health", "unobserved":
		return 0
	}
	return id
}
