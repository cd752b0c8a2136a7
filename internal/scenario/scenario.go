// Package scenario plays what happens to a simulated tenant as a file says it: who signs in and
// when, who vanishes from the listing, for how long the vendor does not answer. It is for those who
// test what reads rollcall's stream.
//
// A file is YAML; docs/consumers.md says what may stand in it. [Parse] reports every mistake, with
// its line, before anything runs.
package scenario

import (
	"fmt"
	"strconv"
	"time"
)

// A Script is a scenario that can be played.
type Script struct {
	About  string  // what it shows, in a sentence; may be empty
	Agents int     // at the start; -1: the file does not say
	Seed   *uint64 // of the tenant's chance; nil: the file does not say
	Churn  float64 // changes by chance a second, beside the steps

	steps []step
}

// A step is one thing that happens, or one that happens several times.
type step struct {
	line  int           // of the step's first key
	at    time.Duration // since the whole listing has been read for the first time
	every time.Duration // between repetitions
	times int
	do    action
	// doLine is the action's line.
	doLine int
	who    who
	set    []field       // of edit
	lasts  time.Duration // of vendor
	how    trouble       // of vendor
}

// An action is what a step does.
type action string

const (
	signIn   action = "signIn"
	signOut  action = "signOut"
	toggle   action = "toggle"
	edit     action = "edit"
	vanish   action = "vanish"
	comeBack action = "return"
	remove   action = "delete"
	undelete action = "undelete"
	add      action = "add"
	vendor   action = "vendor"
	stream   action = "stream"
)

var actions = []action{signIn, signOut, toggle, edit, vanish, comeBack, remove, undelete, add,
	vendor, stream}

// A trouble is how the vendor fails.
type trouble string

const (
	none         trouble = ""
	silent       trouble = "silent"       // no answer comes
	unusable     trouble = "unusable"     // a gateway's page comes
	credentials  trouble = "credentials"  // the credentials are refused
	inconsistent trouble = "inconsistent" // the listing is shorter than it says
	empty        trouble = "empty"        // the listing shows nobody
)

var troubles = []trouble{silent, unusable, credentials, inconsistent, empty}

// lost is the only thing that can become of the stream.
const lost = "lost"

// who says which agents a step is about.
type who struct {
	ids   []int64
	share float64 // of those that the step could change; 0: ids
	n     int     // how many are added
}

func (w who) String() string {
	switch {
	case w.n > 0:
		return counted(w.n, "new agent")
	case w.share == 1:
		return "all agents"
	case w.share > 0:
		return strconv.FormatFloat(w.share*100, 'g', 4, 64) + "% of the agents"
	case len(w.ids) == 1:
		return fmt.Sprintf("agent %d", w.ids[0])
	}
	return counted(len(w.ids), "agent")
}

func counted(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// A field of a row that a step edits, its value as JSON.
type field struct{ name, value string }

// LosesStream is the line of the first step that begins the stream anew; 0: there is none.
func (s *Script) LosesStream() int {
	for _, st := range s.steps {
		if st.do == stream {
			return st.doLine
		}
	}
	return 0
}

// Lasts is when the last step is over, counted from the beginning.
func (s *Script) Lasts() (end time.Duration) {
	for _, st := range s.steps {
		end = max(end, st.last()+st.lasts)
	}
	return end
}

// last is when the step happens for the last time.
func (st *step) last() time.Duration { return st.at + time.Duration(st.times-1)*st.every }
