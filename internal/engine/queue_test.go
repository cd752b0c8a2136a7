package engine

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/rollcall-events/rollcall/diff"
	"github.com/rollcall-events/rollcall/internal/packed"
	"github.com/rollcall-events/rollcall/schemas"
)

// Whatever is folded and however it is cut into commits: the same states in the end, the log a
// sound one, and no sweep said to be published before all that it saw is.
func TestQueue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const agents = 4
		limit := rapid.IntRange(agents, 12).Draw(t, "limit")
		q, roster := newQueue(), diff.NewRoster(diff.Rules{})
		at := time.Unix(1_800_000_000, 0)
		seen := map[int64]bool{}             // online, as observed
		ended := map[uint64]map[int64]bool{} // sweep: what it had seen at its end
		published := map[int64]uint64{}      // revisions
		var sweep uint64 = 1
		var flying *batch
		var formed diff.Formed

		t.Repeat(map[string]func(*rapid.T){
			"flip": func(t *rapid.T) {
				id := rapid.Int64Range(1, agents).Draw(t, "agent")
				at = at.Add(time.Second)
				seen[id] = !seen[id]
				a := off(id)
				if seen[id] {
					a = on(id)
				}
				q.push(limit, &diff.Observation{AgentID: id, Agent: packed.Pack(&a), Sweep: sweep, Time: at, NotBefore: at.Add(-time.Second)})
			},
			"end of sweep": func(t *rapid.T) {
				ended[sweep] = map[int64]bool{}
				for id, is := range seen {
					ended[sweep][id] = is
				}
				q.pushEnd(schemas.Watermark{Sweep: sweep})
				sweep++
			},
			"compact": func(t *rapid.T) {
				q.compact()
				if gaps := len(q.items) - q.live; flying == nil && gaps != 0 {
					t.Fatalf("%d gaps are left", gaps)
				}
			},
			"begin a commit": func(t *rapid.T) {
				if flying != nil || q.empty() {
					return
				}
				b := q.peek(rapid.IntRange(1, 5).Draw(t, "most"), commitBytes)
				flying, formed = &b, roster.Form(b.obs, func(*schemas.Event) bool { return true })
			},
			"it fails": func(t *rapid.T) {
				if flying != nil {
					q.done(*flying, false)
					flying = nil
				}
			},
			"it is in the log": func(t *rapid.T) {
				if flying == nil {
					return
				}
				b := *flying
				flying = nil
				q.done(b, true)
				roster.Advance(b.obs, formed)
				for _, e := range formed.Events {
					id := e.Data.Agent.AgentID
					if e.Data.Revision != published[id]+1 {
						t.Fatalf("agent %d: revision %d after %d", id, e.Data.Revision, published[id])
					}
					published[id]++
				}
				if b.end != nil {
					for id, is := range ended[b.end.Sweep] {
						if s := roster.State(id); s == nil || s.Online != is {
							t.Fatalf("sweep %d is said to be published, and saw agent %d online=%t; the log says %+v", b.end.Sweep, id, is, s)
						}
					}
				}
			},
			"": func(t *rapid.T) {
				live := 0
				for _, it := range q.items {
					if it.obs != nil {
						live++
					}
				}
				pinned := 0
				if flying != nil {
					pinned = len(flying.obs)
				}
				if live != q.live || live > limit+pinned {
					t.Fatalf("%d observations are held and %d counted, with a limit of %d and %d on their way", live, q.live, limit, pinned)
				}
			},
		})

		if flying != nil {
			q.done(*flying, false)
		}
		for !q.empty() {
			b := q.peek(3, commitBytes)
			f := roster.Form(b.obs, func(*schemas.Event) bool { return true })
			roster.Advance(b.obs, f)
			q.done(b, true)
		}
		for id, is := range seen {
			if s := roster.State(id); s == nil || s.Online != is {
				t.Fatalf("in the end agent %d was seen online=%t, and the log says %+v", id, is, s)
			}
		}
	})
}
