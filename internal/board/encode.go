package board

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/rollcall-events/rollcall/schemas"
)

// What the page gets is made for it and nobody else, and changes with it: ids as strings, since
// JavaScript's numbers can't hold them all, and times in milliseconds, 0 where there is none.

const (
	maxText  = 200 // characters of a name or another text of the vendor's
	maxValue = 300 // characters of a changed value

	// A state that was first read so long after somebody last looked may be about that old.
	blind = 10 * time.Minute
)

// States of an agent on the page.
const (
	off = iota
	on
	removed
)

// trust is what the page judges by whether to trust the rest.
type trust struct {
	Reading   bool       `json:"reading"` // this replica reads the stream
	Self      string     `json:"self"`    // this replica
	Watermark *watermark `json:"watermark"`
	Health    *health    `json:"health"`
}

type watermark struct {
	Sweep       uint64 `json:"sweep"` // 0: there has been no complete one
	StartedAt   int64  `json:"startedAt"`
	CompletedAt int64  `json:"completedAt"`
	Until       int64  `json:"until"`     // when it is stale, unless another comes before
	GlancedAt   int64  `json:"glancedAt"` // 0: no glance since the sweep began
	Missing     int    `json:"missing"`
	Rejected    int    `json:"rejected"`
	Instance    string `json:"instance"`
}

type health struct {
	State  string `json:"state"`
	Reason string `json:"reason"`
	Detail string `json:"detail"`
	Since  int64  `json:"since"`
}

func encodeWatermark(w *schemas.Watermark) *watermark {
	glanced := w.GlancedAt
	if !glanced.After(w.StartedAt) {
		glanced = time.Time{}
	}
	return &watermark{w.Sweep, millis(w.StartedAt), millis(w.CompletedAt),
		millis(w.TrustedUntil()), millis(glanced), w.Missing, w.Rejected, w.Instance}
}

func encodeHealth(h *schemas.Health) *health {
	return &health{string(h.State), string(h.Reason), cut(h.Detail, 1000), millis(h.Since)}
}

// begun is what is known of an agent's online or not-online state. The zero value is nothing.
type begun struct {
	since   time.Time // when it was first read
	atLeast bool      // it may have begun long before that
}

// after is what is known of the state that an event leads to, where b is known of the state
// before it.
//
// Only the event that begins a state says whether somebody saw it begin. A later one (fields) hides
// that from whoever has not read the first: what is not known is then said to last "at least".
func (b begun) after(e *schemas.Event) begun {
	d := &e.Data
	next := begun{d.Since, true}
	switch d.Reason {
	case schemas.Baseline, schemas.Appeared:
	case schemas.Status:
		next.atLeast = d.NotBefore.IsZero() || d.Since.Sub(d.NotBefore) > blind
	case schemas.Removed:
		next.atLeast = false
	default:
		if b.since.Equal(d.Since) && !d.Since.IsZero() {
			next = b
		}
	}
	return next
}

// endedAtLeast reports whether the state that an event ends may have begun long before its
// previousSince, where b is known of the state before the event.
func (b begun) endedAtLeast(e *schemas.Event) bool {
	previous := e.Data.PreviousSince
	return !previous.IsZero() && (b.atLeast || !b.since.Equal(previous))
}

// encodeRow is an agent: id, name, account, type, area, capacity, state, since, revision, and
// whether the state may have begun long before since (1 or 0). Of a removed agent, since is the
// time of its removal. What the vendor does not say is null.
func encodeRow(e *schemas.Event, b begun) json.RawMessage {
	a := &e.Data.Agent
	state, since, atLeast := off, e.Data.Since, 0
	switch {
	case e.Data.Online:
		state = on
	case e.Data.Reason == schemas.Removed:
		state, since = removed, e.Time
	}
	if b.atLeast {
		atLeast = 1
	}
	return mustEncode([]any{strconv.FormatInt(a.AgentID, 10), text(a.AgentName),
		text(a.AgentAccount), text(a.Type), text(a.AreaName), a.Capacity, state,
		millis(since), e.Data.Revision, atLeast})
}

// encodeGone is an agent that is no longer in the stream.
func encodeGone(id int64) json.RawMessage {
	return mustEncode([]any{strconv.FormatInt(id, 10)})
}

// An event as the page tells it.
type event struct {
	ID        string  `json:"id"`
	Agent     string  `json:"agent"`
	Name      *string `json:"name"`
	Type      string  `json:"type"`
	Reason    string  `json:"reason"`
	Online    bool    `json:"online"`
	Time      int64   `json:"time"`
	NotBefore int64   `json:"notBefore"`
	Since     int64   `json:"since"`
	Previous  int64   `json:"previousSince"`
	AtLeast   bool    `json:"atLeast,omitempty"` // the state that ended may be older than Previous
	Revision  uint64  `json:"revision"`
	Deleted   bool    `json:"deleted"` // the vendor said so, rather than not listing the agent
	// Changes are the field, from and to as text (null: absent), and whether the field is quiet.
	Changes [][4]any `json:"changes"`
	// Truncated: undocumented fields changed too, and are too many to list.
	Truncated bool `json:"truncated,omitempty"`
}

// encodeEvent encodes an event with some of its changes, where before is known of the state before.
func encodeEvent(e *schemas.Event, before begun, changes []schemas.Change,
	quiet schemas.Quiet) json.RawMessage {
	d := &e.Data
	v := event{
		ID: e.ID(), Agent: strconv.FormatInt(d.Agent.AgentID, 10), Name: text(d.Agent.AgentName),
		Type: string(e.Type), Reason: string(d.Reason), Online: d.Online,
		Time: millis(e.Time), NotBefore: millis(d.NotBefore),
		Since: millis(d.Since), Previous: millis(d.PreviousSince),
		AtLeast:  before.endedAtLeast(e),
		Revision: d.Revision, Deleted: !d.Agent.There(),
		Changes: [][4]any{}, Truncated: d.ChangesTruncated,
	}
	for _, c := range changes {
		v.Changes = append(v.Changes,
			[4]any{cut(c.Field, maxText), value(c.From), value(c.To), quiet.Has(c.Field)})
	}
	return mustEncode(v)
}

// value is a changed field's value as text: a string without its quotes, everything else as
// it is.
func value(v json.RawMessage) *string {
	if v == nil {
		return nil
	}
	s := string(v)
	var decoded string
	if v[0] == '"' && json.Unmarshal(v, &decoded) == nil {
		s = decoded
	}
	s = cut(s, maxValue)
	return &s
}

func text(s *string) *string {
	if s == nil {
		return nil
	}
	c := cut(*s, maxText)
	return &c
}

// cut is at most so many characters of s.
func cut(s string, most int) string {
	n := 0
	for i := range s {
		if n == most {
			return s[:i] + "…"
		}
		n++
	}
	return s
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// mustEncode encodes what this package has put together of strings, numbers and structs.
func mustEncode(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("board: encode %T: %v", v, err))
	}
	return b
}
