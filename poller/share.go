package poller

import "math"

// shares are the shares of the requests that glances may get.
var shares = []float64{0.5, 0.4, 0.33, 0.25, 0.15}

const (
	// of the delay with sweeps alone: glances that save less are not worth their requests
	worth       = 0.9
	longestWait = 2.8 // times a sweep alone that a sweep may take with glances beside it
)

// bestShare returns the share of the requests with which changes are found soonest on average, 0
// where that is without glances: the whole listing has so many pages, those who are online take so
// many, and so many agents stop being online a request. All times in it are counted in requests.
//
// An agent that signs in is found when its page of the glance is read: half a glance later on
// average, if the sweep is not there first. One that signs out is found when the glance is over
// that did not list it, and its page of the whole listing has been read after those of others. A
// simulation of single requests, for 340 to 10,000 agents, comes out within a sixth of this; what
// it says is in docs/performance.md.
func bestShare(pages, online, signOuts float64) float64 {
	best, least := 0.0, worth*pages/2
	for _, share := range shares {
		glance := online / share
		lookups := pages * -math.Expm1(-signOuts*glance/pages) // pages of a glance's missing agents
		rereads := min(lookups/(glance*(1-share))/2, 0.5)      // of the sweep's requests
		sweep := pages / (1 - share) / (1 - rereads)
		if sweep > longestWait*pages {
			continue
		}
		// unless says how long it takes where the sweep may be there first, at any time alike.
		unless := func(delay float64) float64 {
			delay = min(delay, pages/(1-share))
			return delay - delay*delay/(2*pages/(1-share))
		}
		signIn := unless(glance / 2)
		signOut := unless(glance/2 + (online-1)/(2*share) + (0.5+lookups)/(1-share))
		if delay := (signIn + signOut) / 2; delay < least {
			best, least = share, delay
		}
	}
	return best
}
