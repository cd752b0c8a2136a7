package presence

import (
	"errors"
	"time"

	"github.com/rollcall-events/rollcall/schemas/history"
)

// A span is a time in milliseconds. A time.Duration ends at 292 years, which a thousand agents have
// behind them in four months.
type span int64

// length is the span of an interval. Of intervals that follow one another they add up.
func length(from, to time.Time) span { return span(to.UnixMilli() - from.UnixMilli()) }

func (s span) duration() time.Duration { return time.Duration(s) * time.Millisecond }

func (s span) seconds() float64 { return float64(s) / 1000 }

// A sum adds up intervals of presence.
type sum struct {
	on, off, unknown span
	unobserved       span // of unknown: nobody looked
	signIns          int
	longest          span // on duty without a break
}

// add adds an interval that does not go on from another one on duty.
func (s *sum) add(i *history.Interval) {
	d := length(i.From, i.To)
	switch {
	case i.State == history.On:
		s.on += d
		s.longest = max(s.longest, d)
	case i.State == history.Off:
		s.off += d
	default:
		s.unknown += d
		if errors.Is(i.Why, history.ErrUnobserved) {
			s.unobserved += d
		}
	}
	s.signIns += i.SignIns
}

// plus adds another sum.
func (s *sum) plus(o *sum) {
	s.on += o.on
	s.off += o.off
	s.unknown += o.unknown
	s.unobserved += o.unobserved
	s.signIns += o.signIns
	s.longest = max(s.longest, o.longest)
}

type sumJSON struct {
	On         float64 `json:"onSeconds"`
	Off        float64 `json:"offSeconds"`
	Unknown    float64 `json:"unknownSeconds"`
	Unobserved float64 `json:"unobservedSeconds"`
	SignIns    int     `json:"signIns"`
	Longest    float64 `json:"longestSeconds"`
}

func (s *sum) json() sumJSON {
	return sumJSON{s.on.seconds(), s.off.seconds(), s.unknown.seconds(), s.unobserved.seconds(),
		s.signIns, s.longest.seconds()}
}
