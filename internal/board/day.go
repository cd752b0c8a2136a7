package board

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/rollcall-events/rollcall/schemas/history"
)

const (
	dayLong    = 24 * time.Hour
	dayStep    = 5 * time.Minute // between two points of the curve
	dayRest    = 20              // how many times as long as a reading took until the next one
	dayTimeout = 2 * time.Minute
)

// A day is how many were on duty, at points of time that are a step apart.
type day struct {
	From    int64    `json:"from"` // the first point
	Step    int64    `json:"step"`
	Points  int      `json:"points"`
	On      []series `json:"on"`
	Unknown []span   `json:"unknown"` // by type, in order
}

// A series is of the agents of one type in one area.
type series struct {
	kind
	Changes [][2]int `json:"changes"` // a point, and how many more there were than at the last one
}

type kind struct {
	Type string `json:"type"` // as schemas.Agent.TypeToken has it
	Area string `json:"area"`
}

// A span is a time in which nobody can say which agents of a type were on duty.
type span struct {
	Type string `json:"type"`
	From int64  `json:"from"`
	To   int64  `json:"to"`
}

// lastDay is the day as it was read last. Who holds turn's token may use the rest.
type lastDay struct {
	turn chan struct{}
	body []byte
	next time.Time // when it is to be read anew
}

// day answers with how many were on duty in the last day.
func (b *Board) day(w http.ResponseWriter, r *http.Request) {
	last := &b.lastDay
	select {
	case last.turn <- struct{}{}:
		defer func() { <-last.turn }()
	case <-r.Context().Done():
		return
	}
	if began := time.Now(); began.After(last.next) {
		// It is read to its end even if the browser has given up: the next one will ask for it.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), dayTimeout)
		defer cancel()
		go func() {
			select {
			case <-b.ended:
				cancel()
			case <-ctx.Done():
			}
		}()
		d, err := b.readDay(ctx, began)
		if err != nil {
			b.cfg.Logger.Warn("the last day can't be read", "err", err)
			http.Error(w, "the stream can't be read at the moment", http.StatusServiceUnavailable)
			return
		}
		last.body = mustEncode(d)
		last.next = time.Now().Add(max(dayStep, dayRest*time.Since(began)))
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(last.body) // an error means that the browser has left
}

func (b *Board) readDay(ctx context.Context, now time.Time) (*day, error) {
	from := now.Add(-dayLong)
	first := from.Truncate(dayStep).Add(dayStep)
	d := &day{From: millis(first), Step: dayStep.Milliseconds(),
		Points: int(now.Sub(first)/dayStep) + 1, On: []series{}, Unknown: []span{}}
	point := func(t time.Time) int { // the first one that is not before t
		return int(max(0, t.Sub(first)+dayStep-1) / dayStep)
	}
	changes := map[kind]map[int]int{}
	unknown := map[span]bool{}
	for i, err := range history.All(ctx, b.cfg.JetStream, b.cfg.Tenant, from, now,
		history.AsOf(now)) {
		switch {
		case errors.Is(err, history.ErrNoTenant):
			return d, nil
		case err != nil:
			return nil, err
		case i.State == history.On:
			k := kind{i.Type, cut(i.Area, maxText)} // as encodeRow has it
			if changes[k] == nil {
				changes[k] = map[int]int{}
			}
			changes[k][point(i.From)]++
			changes[k][point(i.To)]--
		case i.State == history.Unknown && !errors.Is(i.Why, history.ErrMissing): // not only of it
			unknown[span{i.Type, millis(i.From), millis(i.To)}] = true
		}
	}
	byKind := func(a, b kind) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Area, b.Area))
	}
	for _, k := range slices.SortedFunc(maps.Keys(changes), byKind) {
		s := series{kind: k, Changes: [][2]int{}}
		for _, at := range slices.Sorted(maps.Keys(changes[k])) {
			if n := changes[k][at]; n != 0 && at < d.Points {
				s.Changes = append(s.Changes, [2]int{at, n})
			}
		}
		d.On = append(d.On, s)
	}
	d.Unknown = merged(unknown)
	return d, nil
}

// merged joins the spans of a type that overlap or touch.
func merged(spans map[span]bool) []span {
	all := []span{}
	for _, s := range slices.SortedFunc(maps.Keys(spans), func(a, b span) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.From, b.From))
	}) {
		if n := len(all) - 1; n >= 0 && all[n].Type == s.Type && s.From <= all[n].To {
			all[n].To = max(all[n].To, s.To)
		} else {
			all = append(all, s)
		}
	}
	return all
}

// agentsDay is when an agent was on duty in the last day.
func (b *Board) agentsDay(ctx context.Context, id int64) (any, error) {
	now := time.Now()
	type interval struct {
		From  int64         `json:"from"`
		To    int64         `json:"to"`
		State history.State `json:"state"`
	}
	answer := struct {
		From      int64      `json:"from"`
		To        int64      `json:"to"`
		Intervals []interval `json:"intervals"` // none: the stream does not know the agent
	}{millis(now.Add(-dayLong)), millis(now), []interval{}}
	for i, err := range history.Intervals(ctx, b.cfg.JetStream, b.cfg.Tenant, id,
		now.Add(-dayLong), now, history.AsOf(now)) {
		if errors.Is(err, history.ErrNoAgent) || errors.Is(err, history.ErrNoTenant) {
			break
		}
		if err != nil {
			return nil, err
		}
		answer.Intervals = append(answer.Intervals,
			interval{millis(i.From), millis(i.To), i.State})
	}
	return answer, nil
}
