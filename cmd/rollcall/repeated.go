package main

import (
	"regexp"
	"sync"
	"time"
)

const (
	// logAgain is how often a report that repeats is logged.
	logAgain = time.Minute
	// mostReports bounds how many reports are remembered, and so how many are logged in a minute.
	mostReports = 20
)

// repeated bounds how often reports that may come at every try are logged: each when it is new, and
// once a minute as long as it comes. Its methods may be called from any goroutine.
type repeated struct {
	mu     sync.Mutex
	logged map[string]*entry // by the report; guarded by mu
}

type entry struct {
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
	t := r.logged[key]
	if t != nil && now.Sub(t.at) < logAgain {
		t.left++
		return 0, false
	}
	if t != nil {
		leftOut = t.left
	} else {
		for k, old := range r.logged {
			if now.Sub(old.at) >= logAgain {
				delete(r.logged, k)
			}
		}
		if len(r.logged) >= mostReports {
			return 0, false
		}
	}
	if r.logged == nil {
		r.logged = make(map[string]*entry)
	}
	r.logged[key] = &entry{at: now}
	return leftOut, true
}
