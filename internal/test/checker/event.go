package checker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// An event is an event's message, read.
type event struct {
	msg           *Message
	kind          string // online, offline, updated
	rev, sweep    uint64
	reason        string
	online        bool
	time          time.Time
	notBefore     time.Time // zero: none
	since         time.Time
	previousSince time.Time // zero: none
	agent         *row
	changes       []change
	truncated     bool // changes lack the undocumented fields
}

// gone reports whether the agent is no longer there after the event.
func (e *event) gone() bool { return e == nil || e.reason == "removed" }

// absent reports whether the event says that the agent has left the listing.
func (e *event) absent() bool { return e.reason == "removed" && e.agent.there }

func (e *event) wasOnline() bool { return e != nil && e.online }

// A change is one entry of changes; a value that is absent is "".
type change struct{ field, from, to string }

// event reads a message strictly, and judges what one event alone can show.
func (r rules) event(m *Message) (*event, error) {
	o := strictly("event", m.Body,
		"specversion type source subject id time datacontenttype dataschema data", "")
	e := &event{msg: m, kind: m.kind(), time: o.time("time")}
	for name, want := range map[string]string{
		"specversion": "1.0", "datacontenttype": "application/json",
		"dataschema": "urn:rollcall:agent-event:v1",
		"source":     fmt.Sprintf("/isdp/tenants/%d", r.tenant), "type": "agent." + e.kind,
	} {
		if got := o.text(name); got != want {
			o.fail("%s is %q, want %q", name, got, want)
		}
	}
	if o.err != nil {
		return nil, o.err
	}
	d := strictly("data", o.fields["data"], "revision reason sweep online since agent changes",
		"notBefore previousSince changesTruncated")
	e.truncated = d.has("changesTruncated") && d.bool("changesTruncated")
	e.rev, e.sweep, e.reason, e.online = d.uint("revision"), d.uint("sweep"), d.text("reason"),
		d.bool("online")
	e.notBefore, e.since, e.previousSince = d.time("notBefore"), d.time("since"),
		d.time("previousSince")
	if d.err != nil {
		return nil, d.err
	}
	var err error
	if e.agent, err = r.exact(d.fields["agent"]); err != nil {
		return nil, err
	}
	if e.changes, err = changes(d.fields["changes"]); err != nil {
		return nil, err
	}
	id := strconv.FormatInt(e.agent.id, 10)
	subject := fmt.Sprintf("agent.%s.%d.%s.%s", e.kind, r.tenant, e.agent.typeToken(), id)
	switch want := fmt.Sprintf("%d-%s-%d", r.tenant, id, e.rev); {
	case e.rev == 0:
		d.fail("revision 0")
	case e.sweep == 0:
		d.fail("sweep 0")
	case e.agent.fields["tenantId"] != "n"+strconv.FormatInt(r.tenant, 10):
		d.fail("the agent is of another tenant")
	case o.text("id") != want:
		d.fail("id is %q, want %q", o.text("id"), want)
	case o.text("subject") != id:
		d.fail("subject is %q, want %q", o.text("subject"), id)
	case m.Subject != subject:
		d.fail("published as %s, want %s", m.Subject, subject)
	case m.header("Content-Type") != "application/cloudevents+json":
		d.fail("Content-Type is %q", m.header("Content-Type"))
	case m.header("Nats-TTL") == "":
		d.fail("without a TTL")
	case e.notBefore.After(e.time):
		d.fail("notBefore lies after time")
	case e.since.After(e.time) || e.previousSince.After(e.since):
		d.fail("previousSince, since and time are out of order")
	}
	return e, d.err
}

func changes(raw json.RawMessage) ([]change, error) {
	list, err := elements(raw)
	if err != nil {
		return nil, fmt.Errorf("changes: %w", err)
	}
	out := make([]change, len(list))
	for i, raw := range list {
		o := strictly("changes", raw, "field", "from to")
		c := change{field: o.text("field")}
		for name, v := range map[string]*string{"from": &c.from, "to": &c.to} {
			if o.has(name) && o.err == nil {
				var err error
				*v, err = documented(c.field, o.fields[name])
				o.take(err)
			}
		}
		if o.err != nil {
			return nil, o.err
		}
		out[i] = c
	}
	return out, nil
}

// A watermark is a watermark's message, read.
type watermark struct {
	msg                             *Message
	sweep                           uint64
	startedAt, completedAt, staleAt time.Time // zero before any complete sweep
	nextBy, glancedAt               time.Time // glancedAt is zero where there was no glance
	polled                          []string
	agents, online                  int64
	types                           map[string]counts
	missing, rejected               int64
	instance, commit                string
	messages                        uint64
	inProgress                      uint64 // 0: none
	isInProgress                    bool
}

// counts are what a watermark counts of a type.
type counts struct{ agents, online, capacity int64 }

// latest is the latest sweep that the watermark knows of.
func (w *watermark) latest() uint64 { return max(w.sweep, w.inProgress) }

// repeats reports whether the watermark states the same complete sweep.
func (w *watermark) repeats(o *watermark) bool {
	return w.sweep == o.sweep && w.startedAt.Equal(o.startedAt) &&
		w.completedAt.Equal(o.completedAt) && slices.Equal(w.polled, o.polled) &&
		w.staleAt.Equal(o.staleAt) && w.missing == o.missing && w.rejected == o.rejected
}

func (r rules) watermark(m *Message) (*watermark, error) {
	o := strictly("watermark", m.Body,
		"tenantId sweep nextBy agents online missing rejected instance commit",
		"polled types glancedAt startedAt completedAt staleAfter inProgress")
	w := &watermark{msg: m, sweep: o.uint("sweep"), startedAt: o.time("startedAt"),
		completedAt: o.time("completedAt"),
		staleAt:     o.time("staleAfter"), nextBy: o.time("nextBy"), glancedAt: o.time("glancedAt"),
		agents:  int64(o.uint("agents")),
		online:  int64(o.uint("online")),
		missing: int64(o.uint("missing")), rejected: int64(o.uint("rejected")),
		instance: o.text("instance")}
	if o.err != nil {
		return nil, o.err
	}
	if o.has("polled") {
		list, err := elements(o.fields["polled"])
		o.take(err)
		for _, raw := range list {
			w.polled = append(w.polled, documentedText(o, raw))
		}
		if err == nil && len(list) == 0 {
			o.fail("polled is empty")
		}
	}
	if o.has("types") {
		types, err := members(o.fields["types"])
		o.take(err)
		w.types = make(map[string]counts, len(types))
		for _, m := range types {
			t := strictly("types", m.value, "agents online capacity", "")
			if _, twice := w.types[m.name]; twice {
				t.fail("%q stands there twice", m.name)
			}
			w.types[m.name] = counts{t.int("agents"), t.int("online"), t.int("capacity")}
			o.take(t.err)
		}
		if err == nil && len(types) == 0 {
			o.fail("types is empty")
		}
	}
	commit := strictly("commit", o.fields["commit"], "id messages", "")
	w.commit, w.messages = commit.text("id"), commit.uint("messages")
	o.take(commit.err)
	if w.isInProgress = o.has("inProgress"); w.isInProgress {
		p := strictly("inProgress", o.fields["inProgress"], "sweep", "")
		w.inProgress = p.uint("sweep")
		o.take(p.err)
	}
	times := 0
	for _, name := range []string{"startedAt", "completedAt", "staleAfter"} {
		if o.has(name) {
			times++
		}
	}
	switch {
	case o.int("tenantId") != r.tenant || m.Subject != fmt.Sprintf("agent.watermark.%d", r.tenant):
		o.fail("of tenant %d, published as %s", o.int("tenantId"), m.Subject)
	case m.header("Nats-TTL") != "":
		o.fail("with a TTL")
	case w.sweep == 0 && times != 0, w.sweep != 0 && times != 3:
		o.fail("sweep %d with %d of its three times", w.sweep, times)
	case w.sweep == 0 && (w.missing != 0 || w.rejected != 0):
		o.fail("figures of a complete sweep before any")
	case w.startedAt.After(w.completedAt) || w.sweep != 0 && !w.staleAt.After(w.completedAt):
		o.fail("startedAt, completedAt and staleAfter are out of order")
	case w.isInProgress && w.inProgress <= w.sweep:
		o.fail("sweep %d in progress after sweep %d completed", w.inProgress, w.sweep)
	case w.commit == "" || w.messages == 0 || w.instance == "":
		o.fail("without a commit or an instance")
	}
	return w, o.err
}

// A health is a health message, read.
type health struct {
	msg           *Message
	state, reason string
	stalled       bool // it says only that no sweep has completed in time, as on a busy machine
}

func (r rules) health(m *Message) (*health, error) {
	o := strictly("health", m.Body, "tenantId state since reason detail", "")
	h := &health{msg: m, state: o.text("state"), reason: o.text("reason")}
	h.stalled = strings.HasPrefix(o.text("detail"), "no complete sweep within")
	o.time("since")
	legal := map[string]string{"ok": "", "failing": "unreachable credentials unusable inconsistent",
		"holding": "missing unidentified"}
	reasons, known := legal[h.state]
	switch {
	case o.err != nil:
	case o.int("tenantId") != r.tenant || m.Subject != fmt.Sprintf("agent.health.%d", r.tenant):
		o.fail("of tenant %d, published as %s", o.int("tenantId"), m.Subject)
	case m.header("Nats-TTL") != "":
		o.fail("with a TTL")
	case !known || (h.reason == "") != (reasons == "") ||
		!bytes.Contains([]byte(" "+reasons+" "), []byte(" "+h.reason+" ")) && h.reason != "":
		o.fail("state %q with reason %q", h.state, h.reason)
	}
	return h, o.err
}

// documentedText is an element of a list of strings.
func documentedText(o *object, raw json.RawMessage) (s string) {
	if raw[0] != '"' || json.Unmarshal(raw, &s) != nil {
		o.fail("%s is no string", raw)
	}
	return s
}
