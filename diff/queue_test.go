package diff

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/rollcall-events/rollcall/internal/listing"
	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/schemas"
)

// Whatever is folded and however it is cut into commits: the same states in the end, the events
// sound, and no sweep said to be published before all that it saw is.
func TestQueue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const agents = 4
		limit := rapid.IntRange(agents, 12).Draw(t, "limit")
		r := NewRoster(Rules{BufferEvents: limit})
		at := start
		seen := map[int64]bool{}             // online, as observed
		ended := map[uint64]map[int64]bool{} // sweep: what it had seen at its end
		revisions := map[int64]uint64{}      // revisions
		var sweep uint64 = 1
		var flying *Commit

		t.Repeat(map[string]func(*rapid.T){
			"flip": func(t *rapid.T) {
				id := rapid.Int64Range(1, agents).Draw(t, "agent")
				at = at.Add(time.Second)
				seen[id] = !seen[id]
				a := agent(id)
				if seen[id] {
					a = agent(id, on)
				}
				r.Observe(sweep,
					&listing.Page{Sent: at, Read: at, Agents: []packed.Agent{packed.Pack(&a)}})
			},
			"end of sweep": func(t *rapid.T) {
				ended[sweep] = map[int64]bool{}
				for id, is := range seen {
					ended[sweep][id] = is
				}
				r.pushEnd(schemas.Watermark{Sweep: sweep})
				sweep++
			},
			"begin a commit": func(t *rapid.T) {
				if flying == nil && !r.Idle() {
					flying = r.Next(sweep, rapid.IntRange(1, 5).Draw(t, "most"), all)
				}
			},
			"it fails": func(t *rapid.T) {
				if flying != nil {
					r.Requeue(flying)
					flying = nil
				}
			},
			"it is in the stream": func(t *rapid.T) {
				if flying == nil {
					return
				}
				c := flying
				flying = nil
				r.Committed(c)
				for _, e := range c.Events {
					id := e.Data.Agent.AgentID
					if e.Data.Revision != revisions[id]+1 {
						t.Fatalf("agent %d: revision %d after %d", id, e.Data.Revision,
							revisions[id])
					}
					revisions[id]++
				}
				if w := c.Watermark; c.complete {
					for id, is := range ended[w.Sweep] {
						if s := published(r, id); s == nil || s.Online != is {
							t.Fatalf("sweep %d is said to be published, and saw agent %d "+
								"online=%t; the stream says %+v", w.Sweep, id, is, s)
						}
					}
				}
			},
			"": func(t *rapid.T) {
				held, pinned := len(queued(r, 0)), 0
				if flying != nil {
					pinned = flying.Changes
				}
				if ends := len(r.queue) - held; ends > held+2 {
					t.Fatalf("%d ends of sweeps are held with %d changes", ends, held)
				}
				if held+pinned != r.Pending() || held > limit {
					t.Fatalf("%d changes are held and %d are on their way, counted are %d, "+
						"with a limit of %d", held, pinned, r.Pending(), limit)
				}
			},
		})

		if flying != nil {
			r.Requeue(flying)
		}
		commit(r, all)
		for id, is := range seen {
			if s := published(r, id); s == nil || s.Online != is {
				t.Fatalf("in the end agent %d was seen online=%t, and the stream says %+v", id, is,
					s)
			}
		}
	})
}
