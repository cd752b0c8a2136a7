package presence

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rollcall-events/rollcall/internal/agenttype"
	"github.com/rollcall-events/rollcall/internal/plain"
	"github.com/rollcall-events/rollcall/schemas/history"
)

// Window is the time asked about. A zero To is now.
type Window struct{ From, To time.Time }

// History writes when an agent was on duty, as it is read. The error is, or wraps,
// [history.ErrFuture], [history.ErrEmpty] or [history.ErrNoAgent] where the question has no answer.
func History(ctx context.Context, nc *nats.Conn, cfg Config, agent int64, in Window) error {
	s, err := open(ctx, nc, &cfg)
	if err != nil {
		return err
	}
	if in.To.IsZero() {
		in.To = cfg.now()
		s.opts = append(s.opts, history.AsOf(in.To))
	}
	h := &agentHistory{source: s, Window: in, agent: agent, json: &writer{w: cfg.Out}}
	for i, err := range history.Intervals(ctx, s.js, s.tenant, agent, in.From, in.To, s.opts...) {
		if err != nil {
			return err
		}
		if h.sum.add(&i); cfg.Format == JSON {
			h.writeJSON(&i)
		} else {
			h.writeText(&i)
		}
		if h.json.err != nil {
			return h.json.err
		}
	}
	return h.end()
}

type agentHistory struct {
	*source
	Window
	agent int64
	begun bool
	json  *writer // of text too
	sum   sum
}

func (h *agentHistory) writeJSON(i *history.Interval) {
	if !h.begun {
		h.begun = true
		h.json.list(struct {
			Tenant int64   `json:"tenantId"`
			Agent  string  `json:"agentId"`
			From   *string `json:"from"`
			To     *string `json:"to"`
		}{h.tenant, strconv.FormatInt(h.agent, 10), utc(h.From), utc(h.To)}, "intervals")
	}
	item := struct {
		From          *string      `json:"from"`
		FromNotBefore *string      `json:"fromNotBefore,omitempty"`
		To            *string      `json:"to"`
		ToNotBefore   *string      `json:"toNotBefore,omitempty"`
		Seconds       float64      `json:"seconds"`
		State         string       `json:"state"`
		Listed        bool         `json:"listed"`
		Type          string       `json:"type"`
		Area          string       `json:"area,omitempty"`
		Name          string       `json:"name,omitempty"`
		SignIns       int          `json:"signIns"`
		Why           string       `json:"why,omitempty"`
		Unobserved    []unobserved `json:"unobserved,omitempty"`
		Missing       uint64       `json:"missing,omitempty"`
	}{utc(i.From), utc(i.FromNotBefore), utc(i.To), utc(i.ToNotBefore), seconds(i.Duration()),
		string(i.State), i.Listed, i.Type, i.Area, i.Name, i.SignIns, "", nil, i.Missing}
	if i.Why != nil {
		item.Why = oneLine(i.Why)
	}
	if i.Unobserved != nil {
		item.Unobserved = unobservedJSON([]*history.Unobserved{i.Unobserved})
	}
	h.json.item(item)
}

// row are the columns of text: a stamp is 25 wide.
const row = "%-25s  %-6s  %-25s  %-6s  %7s  %s\n"

func (h *agentHistory) writeText(i *history.Interval) {
	if !h.begun {
		h.begun = true
		var is []string
		for _, s := range []string{i.Name, agenttype.Short(i.Type), i.Area} {
			if s != "" && s != "_" {
				is = append(is, plain.Value(&s))
			}
		}
		who := fmt.Sprintf("Agent %d of tenant %d", h.agent, h.tenant)
		if len(is) > 0 {
			who += " (" + strings.Join(is, ", ") + ")"
		}
		h.json.text(fmt.Sprintf("%s, %s to %s (%s)\n", who, h.stamp(h.From), h.stamp(h.To),
			h.zone(h.From)))
		h.json.text(fmt.Sprintf(row, "FROM", "WITHIN", "TO", "WITHIN", "FOR", "STATE"))
	}
	state := stateName(i.State == history.On, i.State != history.Unknown)
	switch {
	case i.Unobserved != nil:
		state += ": " + oneLine(i.Why) + " (" + because(i.Unobserved) + ")"
	case i.Why != nil:
		state += ": " + oneLine(i.Why)
	case !i.Listed:
		state += ", not listed"
	}
	if i.Missing > 0 && i.State != history.Unknown {
		state += fmt.Sprintf(" (by the next event; %d missing)", i.Missing)
	}
	h.json.text(fmt.Sprintf(row, h.stamp(i.From), within(i.From, i.FromNotBefore), h.stamp(i.To),
		within(i.To, i.ToNotBefore), plain.Span(i.Duration()), state))
}

// because says why nobody looked.
func because(u *history.Unobserved) string {
	switch {
	case len(u.Types) > 0:
		return "its type was not polled before"
	case u.Health != "":
		return plain.Clean(string(u.Health))
	case u.Lasts():
		return "it lasts"
	}
	return "rollcall or NATS was away"
}

// within says how long before the end of an interval it may have been.
func within(end, notBefore time.Time) string {
	switch d := end.Sub(notBefore); {
	case notBefore.IsZero():
		return "?"
	case d == 0:
		return plain.None
	case d < 10*time.Second:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + "s"
	default:
		return plain.Span(d)
	}
}

func (h *agentHistory) end() error {
	s := &h.sum
	if h.Format == JSON {
		return h.json.end(s.json())
	}
	h.json.text(fmt.Sprintf("On duty %s, off duty %s, not known %s. Sign-ins: %d. "+
		"Longest on duty: %s.\n", plain.Span(s.on.duration()), plain.Span(s.off.duration()),
		plain.Span(s.unknown.duration()), s.signIns, plain.Span(s.longest.duration())))
	return h.json.err
}

func seconds(d time.Duration) float64 { return d.Round(time.Millisecond).Seconds() }
