package poller

import (
	"maps"
	"slices"
	"time"

	"github.com/rollcall-events/rollcall/internal/listing"
	"github.com/rollcall-events/rollcall/internal/packed"
)

// glances find out sooner who has signed in or out, where a sweep takes long: between the pages of
// the sweep they read the listings of those who are online, which are much shorter.
//
// What a glance shows has been seen, unless it may be older than what is known: where a page of the
// whole listing has just said that the agent is not online, that page is read again first. What a
// glance does not show means nothing by itself: for an agent
// that was online and that a complete glance does not list, the page of the whole listing where it
// stood last is read next, and only what that says counts. So a glance that is torn, or a filter
// that lags, costs requests and makes nobody offline.
//
// All of it belongs to the goroutine of the sweep under way, and goes on from one sweep to the
// next.
type glances struct {
	after    time.Duration // how long a sweep has to take for glances to be of use
	source   Source
	listings int

	pages  []int           // of each whole listing, as far as is known
	places map[int64]place // where the whole listing showed each agent last
	// who is online, and when the latest answer that said so had been read
	online map[int64]time.Time
	left   map[int64]time.Time // who is not any more: when the page that said so had been read
	lookup map[int64]*search   // whose page of the whole listing is to be read for a glance

	current *glance // the one under way; nil: none
	asking  bool    // one of its requests is
	// complete ones, oldest first, until all that they did not list are looked up
	finished []*glance

	share    float64 // of the requests goes to glances
	credit   float64 // requests that glances may send by now
	reread   bool    // the sweep's last request was for a page that it had read before
	signOuts float64 // agents that stop being online, a request; a moving average

	trust filterTrust
}

// A place is a page of one of the whole listings.
type place struct{ listing, page int }

// A search is for an agent that a complete glance did not list, or lists too soon.
type search struct {
	glance *glance
	listed bool      // the glance lists it, though a page has just said that it is not online
	since  time.Time // only what was asked for later counts
	at     []place   // where to look, in this order
}

// A glance is one pass over the listings of those who are online.
type glance struct {
	began time.Time // when its first request was sent; zero: nothing was answered yet
	next  place     // of the listings of those who are online
	seen  map[int64]bool
	open  int // searches that are not over
}

func newGlances(after time.Duration, source Source, listings int, trust filterTrust) *glances {
	return &glances{
		after:    after,
		source:   source,
		listings: listings,
		trust:    trust,
		places:   make(map[int64]place),
		online:   make(map[int64]time.Time),
		left:     make(map[int64]time.Time),
		lookup:   make(map[int64]*search),
	}
}

// useful reports whether a sweep takes long enough. Where it does not, nobody is found
// sooner by glances, and what they know is forgotten, once no request of theirs is under way.
func (g *glances) useful(pages []int) bool {
	g.pages = pages
	if g.pageCount()/g.source.Rate() > g.after.Seconds() {
		return true
	}
	if len(g.places) > 0 && !g.asking {
		*g = *newGlances(g.after, g.source, g.listings, g.trust)
		g.pages = pages
	}
	return false
}

// pageCount is how many pages the whole listings have.
func (g *glances) pageCount() (n float64) {
	for _, of := range g.pages {
		n += float64(of)
	}
	return n
}

// turn returns the request of a glance that is to be sent now, if it is a glance's turn. It is
// called once for each request; pages is how many each whole listing has.
func (g *glances) turn(pages []int) (r listing.Request, ok bool) {
	useful := g.useful(pages)
	g.signOuts -= g.signOuts / g.memory()
	if g.asking {
		g.credit = min(g.credit+g.share, 2)
		return r, false
	}
	if g.current == nil {
		g.share = 0
		if useful && !g.trust.lost(time.Now()) {
			g.share = bestShare(g.pageCount(), float64(g.pagesOnline()), g.signOuts)
		}
	}
	if g.share == 0 {
		g.credit = 0
		return r, false
	}
	if g.credit = min(g.credit+g.share, 2); g.credit < 1 {
		return r, false
	}
	g.credit--
	if g.current == nil {
		g.current = &glance{seen: make(map[int64]bool)}
	}
	g.asking = true
	at := g.current.next
	return listing.Request{Listing: at.listing, Page: at.page, Online: true}, true
}

// memory is how many requests the moving average goes back: four sweeps.
func (g *glances) memory() float64 { return 4 * g.pageCount() }

// pagesOnline is how many pages those who are online take, as far as is known.
func (g *glances) pagesOnline() int {
	n := make([]int, g.listings)
	for id := range g.online {
		n[g.places[id].listing]++
	}
	pages := 0
	for _, of := range n {
		pages += max(1, (of+g.source.PageSize()-1)/g.source.PageSize())
	}
	return pages
}

// hint returns a page of the whole listing that is to be read now for a glance: the one with the
// most agents to look up. One that the sweep has yet to read costs nothing; others may be every
// second of the sweep's requests at the most. toRead tells where the page stands among those that
// the sweep has yet to ask for, flying which are being asked for.
func (g *glances) hint(toRead func(place) int, flying map[place]bool) (p place, ok bool) {
	unread := func(at place) bool { return toRead(at) >= 0 }
	wanted := make(map[place]int)
	for _, s := range g.lookup {
		wanted[s.at[0]]++
	}
	most := 0
	for at, n := range wanted {
		before := n > most || n == most && (at.listing < p.listing ||
			at.listing == p.listing && at.page < p.page)
		if before && !flying[at] && (!g.reread || unread(at)) {
			p, most = at, n
		}
	}
	if most == 0 {
		g.reread = false
		return p, false
	}
	g.reread = !unread(p)
	return p, true
}

// failed ends the glance under way: one of its requests could not be read; nil: for a reason that
// has nothing to do with glances.
func (g *glances) failed(err *listing.Error) {
	g.asking, g.current = false, nil
	if err == nil {
		return
	}
	g.trust.refused(time.Now(), err)
}

// lag is how old what a glance shows may be. The index behind a filter is often a copy that follows
// what it copies after a while.
const lag = 30 * time.Second

// glanced takes a page of a glance in, and returns what counts of it. total is how many agents the
// whole listing has.
func (g *glances) glanced(p *listing.Page, total int) *listing.Page {
	g.asking, g.trust.refusals = false, 0
	counts, c := *p, g.current
	if c.began.IsZero() {
		c.began = p.Sent
	}
	if why := unfiltered(p, total); why != "" {
		g.current = nil
		g.trust.lose(time.Now(), why)
	}
	counts.Agents = slices.DeleteFunc(slices.Clone(p.Agents), func(a packed.Agent) bool {
		id := a.AgentID()
		c.seen[id] = true
		if !a.Online() {
			g.sawOffline(id, p)
			return false
		}
		if left, ok := g.left[id]; ok && p.Sent.Sub(left) < lag {
			g.look(&search{glance: c, listed: true, since: p.Read}, id)
			return true
		}
		g.sawOnline(id, p)
		return false
	})
	if g.current == nil {
		return &counts
	}
	size := g.source.PageSize()
	if p.Rows() == size && (p.Total == listing.NoTotal || (p.Number+1)*size < p.Total) {
		c.next.page++
		return &counts
	}
	if c.next = (place{p.Listing + 1, 0}); c.next.listing < g.listings {
		return &counts
	}
	g.current = nil
	g.finish(c, p.Read)
	counts.GlancedAt = g.settled()
	return &counts
}

// unfiltered says why a page was not filtered by who is online; "": it was.
func unfiltered(p *listing.Page, total int) string {
	offline := 0
	for _, a := range p.Agents {
		if !a.Online() {
			offline++
		}
	}
	switch {
	case offline > 1 && 10*offline > p.Rows():
		return "the listing of those who are online shows others"
	case offline > 0 && p.Total >= total && total > 1:
		return "the listing of those who are online is as long as the whole"
	}
	return ""
}

// finish begins to look for those whom a complete glance does not list, though they were online
// before it began.
func (g *glances) finish(c *glance, ended time.Time) {
	all := true
	for id, read := range g.online {
		if !c.seen[id] && read.Before(c.began) {
			all = g.look(&search{glance: c, since: ended}, id) && all
		}
	}
	if all {
		g.finished = append(g.finished, c)
	}
}

// look has the page read where the whole listing showed the agent last, and if it is not there any
// more, those beside it. It reports whether that is known: before the first sweep has ended it may
// not be.
func (g *glances) look(s *search, id int64) bool {
	at, known := g.places[id]
	if !known || g.lookup[id] != nil {
		return known
	}
	s.at = []place{at}
	if at.page > 0 { // what stood before it may have left
		s.at = append(s.at, place{at.listing, at.page - 1})
	}
	if at.page+1 < g.pages[at.listing] {
		s.at = append(s.at, place{at.listing, at.page + 1})
	}
	g.lookup[id] = s
	s.glance.open++
	g.signOuts += 1 / g.memory()
	return true
}

// read takes a page of the whole listing in, and returns it with what it settles.
func (g *glances) read(p *listing.Page, pages []int) *listing.Page {
	if !g.useful(pages) {
		return p
	}
	at := place{p.Listing, p.Number}
	for _, a := range p.Agents {
		id := a.AgentID()
		g.places[id] = at
		s := g.lookup[id]
		switch {
		case s != nil && !p.Sent.After(s.since): // it may have changed since
		case a.Online():
			g.trust.looked(s, true)
			g.sawOnline(id, p)
		default:
			g.trust.looked(s, false)
			g.sawOffline(id, p)
		}
	}
	for id, s := range g.lookup {
		if i := slices.Index(s.at, at); i >= 0 && p.Sent.After(s.since) {
			if s.at = slices.Delete(s.at, i, i+1); len(s.at) == 0 {
				delete(g.online, id) // not where it was: the sweep will tell
				g.found(id)
			}
		}
	}
	settles := *p
	settles.GlancedAt = g.settled()
	return &settles
}

// sawOnline notes that a page shows the agent as online.
func (g *glances) sawOnline(id int64, p *listing.Page) {
	if p.Read.After(g.online[id]) {
		g.online[id] = p.Read
	}
	delete(g.left, id)
	g.found(id)
}

// sawOffline notes that a page shows the agent, and not as online.
func (g *glances) sawOffline(id int64, p *listing.Page) {
	if _, was := g.online[id]; was {
		delete(g.online, id)
		g.left[id] = p.Read
	}
	g.found(id)
}

// found ends the search for an agent.
func (g *glances) found(id int64) {
	if s := g.lookup[id]; s != nil {
		delete(g.lookup, id)
		s.glance.open--
	}
}

// settled returns when the latest glance began that is complete, and whose missing agents, like
// those of all before it, have all been looked up; zero: there is none that was not returned
// before.
func (g *glances) settled() (began time.Time) {
	for len(g.finished) > 0 && g.finished[0].open == 0 {
		began = g.finished[0].began
		g.finished = g.finished[1:]
	}
	return began
}

// forget forgets the agents that a complete sweep did not show, and who left longer ago than a
// glance may show.
func (g *glances) forget(now time.Time, listings []*progress) {
	if len(g.places) == 0 {
		return
	}
	listed := make(map[int64]bool, len(g.places))
	for _, l := range listings {
		for n := range l.pageCount() {
			for _, a := range l.agents(n) {
				listed[a.AgentID()] = true
			}
		}
	}
	for id := range g.places {
		if !listed[id] {
			delete(g.places, id)
			delete(g.online, id)
			g.found(id)
		}
	}
	maps.DeleteFunc(g.left, func(_ int64, read time.Time) bool { return now.Sub(read) > lag })
}
