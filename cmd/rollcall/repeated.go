package main

import (
	"regexp"
	"sync"
	"time"
)

const (
	// tellAgain is how often a report that repeats is logged.
	tellAgain = time.Minute
	// mostTold bounds how many reports are told apart, and so how many are logged in a minute.
	mostTold = 20
)

// repeated bounds how often reports that may come at every try are logged: each when it is new, and
// once a minute as long as it comes. Its methods may be called from any goroutine.
type repeated struct {
	mu   sync.Mutex
	told map[string]*telling // by the report; guarded by mu
}

type telling struct {
	at   time.Time
	left int // times that it was not logged since
}

// ownPort is what differs in one and the same error at every try: "read tcp 10.0.0.1:45784->…".
var ownPort = regexp.MustCompile(`:\d+->`)

// worth says whether the report is to be logged now, and how often it was left out since the last
// time.
func (r *repeated) worth(report string) (leftOut int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, key := time.Now(), ownPort.ReplaceAllString(report, "->")
	t := r.told[key]
	if t != nil && now.Sub(t.at) < tellAgain {
		t.left++
		return 0, false
	}
	if t != nil {
		leftOut = t.left
	} else {
		for k, old := range r.told {
			if now.Sub(old.at) >= tellAgain {
				delete(r.told, k)
			}
		}
		if len(r.told) >= mostTold {
			return 0, false
		}
	}
	if r.told == nil {
		r.told = make(map[string]*telling)
	}
	r.told[key] = &telling{at: now}
	return leftOut, true
}
