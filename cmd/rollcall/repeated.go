package main

import (
	"regexp"
	"sync"
	"time"
)

// tellAgain is how often an error that repeats is told.
const tellAgain = time.Minute

// repeated bounds how often errors that may come at every try are told: each when it is new, and
// once a minute as long as it stays. Its methods may be called from any goroutine.
type repeated struct {
	mu   sync.Mutex
	told map[string]*telling // by the error; guarded by mu
}

type telling struct {
	at   time.Time
	left int // times that it was not told since
}

// mostTold bounds how many errors are told apart, and so how many are told in a minute.
const mostTold = 20

// ownPort is what differs in one and the same error at every try: "read tcp 10.0.0.1:45784->…".
var ownPort = regexp.MustCompile(`:\d+->`)

// worth reports whether the error is to be told now, and how often it came untold before.
func (r *repeated) worth(err error) (untold int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, key := time.Now(), ownPort.ReplaceAllString(err.Error(), "->")
	t := r.told[key]
	if t != nil && now.Sub(t.at) < tellAgain {
		t.left++
		return 0, false
	}
	if t == nil {
		for k, old := range r.told {
			if now.Sub(old.at) >= tellAgain {
				delete(r.told, k)
			}
		}
		if len(r.told) >= mostTold {
			return 0, false
		}
		t = &telling{}
		if r.told == nil {
			r.told = make(map[string]*telling)
		}
		r.told[key] = t
	}
	untold = t.left
	*t = telling{at: now}
	return untold, true
}
