package presence

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rollcall-events/rollcall/internal/agenttype"
	"github.com/rollcall-events/rollcall/internal/plain"
	"github.com/rollcall-events/rollcall/schemas"
	"github.com/rollcall-events/rollcall/schemas/follow"
	"github.com/rollcall-events/rollcall/schemas/history"
)

// Which says which agents are shown.
type Which struct {
	At     time.Time // zero: now
	Types  []string  // tokens of subjects; none: all
	Online bool      // only those on duty
}

// Roster writes who is there, and on duty, now or at a moment. The error is, or wraps, an
// [*UntrustedError] where that has been written and can't be trusted, and [history.ErrFuture] where
// the moment is yet to come.
func Roster(ctx context.Context, nc *nats.Conn, cfg Config, q Which) error {
	s, err := open(ctx, nc, &cfg)
	if err != nil {
		return err
	}
	r := &roster{source: s, Which: q}
	if q.At.IsZero() {
		err = r.readNow(ctx)
	} else {
		err = r.readAt(ctx)
	}
	if err != nil {
		return err
	}
	if cfg.Format == JSON {
		err = r.json()
	} else {
		err = r.text()
	}
	if err == nil && r.why != nil {
		err = &UntrustedError{r.why}
	}
	return err
}

// A roster is one that has been read.
type roster struct {
	*source
	Which
	asOf       time.Time
	watermark  *schemas.Watermark // of the roster as it is now
	why        error              // why it can't be trusted; nil: it can
	unobserved []*history.Unobserved
	agents     []*history.Agent // those shown
	there      int
	online     int
	unknown    int // of whom nobody can tell
}

// add takes an agent that was there, or may have been.
func (r *roster) add(a *history.Agent) {
	if len(r.Types) > 0 && !slices.Contains(r.Types, a.Agent.TypeToken()) {
		return
	}
	switch {
	case a.Why != nil:
		r.unknown++
	case a.Online:
		r.online++
		fallthrough
	default:
		r.there++
	}
	if !r.Online || a.Online && a.Why == nil {
		r.agents = append(r.agents, a)
	}
}

// readNow reads the states.
func (r *roster) readNow(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	read := follow.New(r.tenant)
	errRead := errors.New("all read")
	var broken []error
	err := read.Run(ctx, r.js, func(u follow.Update) {
		bad, ok := errors.AsType[*follow.MessageError](u.Err)
		switch {
		case ok:
			broken = append(broken, bad)
		case u.Err != nil:
			stop(u.Err)
		case u.Anew:
			stop(errRead)
		}
	})
	if cause := context.Cause(ctx); cause != errRead {
		return errors.Join(cause, err)
	}
	trust := read.Trust(r.now())
	r.watermark = trust.Watermark
	r.why = errors.Join(append(broken, trust.Err())...)
	r.asOf = r.now()
	for _, e := range read.Agents() {
		if e.Data.Reason != schemas.Removed {
			r.add(&history.Agent{Agent: e.Data.Agent, Online: e.Data.Online, Since: e.Data.Since,
				Revision: e.Data.Revision, Event: e})
		}
	}
	return nil
}

// readAt reads the roster as it was.
func (r *roster) readAt(ctx context.Context) error {
	was, err := history.At(ctx, r.js, r.tenant, r.At, r.opts...)
	if err != nil {
		return err
	}
	r.asOf, r.why = r.At, was.Err(r.Types...)
	r.unobserved = about(was.Unobserved, r.Types)
	for a := range was.All() {
		r.add(a)
	}
	return nil
}

func (r *roster) json() error {
	head := struct {
		Tenant     int64              `json:"tenantId"`
		At         *string            `json:"at"`
		AsOf       *schemas.Watermark `json:"asOf,omitempty"`
		Trusted    bool               `json:"trusted"`
		Reason     string             `json:"reason,omitempty"`
		Unobserved []unobserved       `json:"unobserved"`
	}{Tenant: r.tenant, At: utc(r.asOf), AsOf: r.watermark, Trusted: r.why == nil,
		Unobserved: unobservedJSON(r.unobserved)}
	if r.why != nil {
		head.Reason = oneLine(r.why)
	}
	w := &writer{w: r.Out}
	w.list(head, "agents")
	for _, a := range r.agents {
		w.item(agentJSON(a))
	}
	return w.end(nil)
}

// agentJSON is the body of the agent's last event, or as much of it as is known.
func agentJSON(a *history.Agent) any {
	if a.Event != nil && a.Why == nil && a.Missing == 0 {
		return a.Event.AppendJSON(nil)
	}
	type data struct {
		Revision  uint64         `json:"revision,omitempty"`
		Online    *bool          `json:"online"`
		NotBefore *string        `json:"notBefore,omitempty"`
		Since     *string        `json:"since,omitempty"`
		Agent     *schemas.Agent `json:"agent"`
	}
	b := struct {
		Subject   string `json:"subject"`
		Unknown   string `json:"unknown,omitempty"`
		Missing   uint64 `json:"missing,omitempty"`
		Truncated bool   `json:"truncated,omitempty"`
		Data      data   `json:"data"`
	}{strconv.FormatInt(a.Agent.AgentID, 10), "", a.Missing, a.Truncated,
		data{a.Revision, &a.Online, utc(a.NotBefore), utc(a.Since), &a.Agent}}
	if a.Why != nil {
		b.Unknown, b.Data.Online = oneLine(a.Why), nil
	}
	return b
}

func (r *roster) text() error {
	counts := fmt.Sprintf("%d agents, %d on duty", r.there, r.online)
	if len(r.Types) > 0 {
		var names []string
		for _, t := range r.Types {
			names = append(names, plain.Clean(agenttype.Short(t)))
		}
		counts += " (" + strings.Join(names, ", ") + ")"
	}
	if r.unknown > 0 {
		counts += fmt.Sprintf(", %d not known", r.unknown)
	}
	lines := []string{fmt.Sprintf("Tenant %d at %s (%s): %s", r.tenant, r.stamp(r.asOf),
		r.zone(r.asOf), counts)}
	if len(r.agents) > 0 {
		lines = append(lines, plain.Table(r.columns(), r.agents)...)
	}
	_, err := fmt.Fprintln(r.Out, strings.Join(lines, "\n"))
	return err
}

func (r *roster) columns() []plain.Column[*history.Agent] {
	type column = plain.Column[*history.Agent]
	asOf := r.asOf.In(r.Zone)
	all := []column{
		{Title: "AGENT", Right: true, Most: 20, Cell: func(a *history.Agent) string {
			return strconv.FormatInt(a.Agent.AgentID, 10)
		}},
		{Title: "NAME", Most: 24, Cell: func(a *history.Agent) string {
			return plain.Value(a.Agent.AgentName)
		}},
		{Title: "STATE", Most: 20, Cell: func(a *history.Agent) string {
			return stateName(a.Online, a.Why == nil)
		}},
		{Title: "FOR", Right: true, Most: 20, Cell: func(a *history.Agent) string {
			if a.Since.IsZero() {
				return plain.None
			}
			return plain.Span(asOf.Sub(a.Since))
		}},
		{Title: "TYPE", Most: 16, Cell: func(a *history.Agent) string {
			return agenttype.Label(a.Agent.Type)
		}},
		{Title: "CAP", Right: true, Most: 20, Cell: func(a *history.Agent) string {
			if c := a.Agent.Capacity; c != nil {
				return strconv.FormatInt(*c, 10)
			}
			return plain.None
		}},
		{Title: "AREA", Most: 16, Cell: func(a *history.Agent) string {
			return plain.Value(a.Agent.AreaName)
		}},
		{Title: "SINCE", Most: 20, Cell: func(a *history.Agent) string {
			if a.Since.IsZero() {
				return plain.None
			}
			return plain.Clock(a.Since, asOf)
		}},
		{Title: "ACCOUNT", Most: 40, Cell: func(a *history.Agent) string {
			return plain.Value(a.Agent.AgentAccount)
		}},
	}
	if r.Online {
		return slices.DeleteFunc(all, func(c column) bool { return c.Title == "STATE" })
	}
	return all
}

func stateName(online, known bool) string {
	switch {
	case !known:
		return "not known"
	case online:
		return "on duty"
	}
	return "off duty"
}

// oneLine is an error's text on one line: its reasons with semicolons between them.
func oneLine(err error) string {
	return plain.Clean(strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; "))
}
