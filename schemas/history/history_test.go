package history

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/internal/test/wait"
	"github.com/rollcall-events/rollcall/schemas"
)

// A day without anything unusual.
func TestDay(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 7*24*time.Hour)
	w.Change(1, "8:00", of("10", "east", on))
	w.Change(2, "8:00:01", of("2", "west", off))
	w.Swept("8:00")
	w.Change(2, "9:00", on)
	w.Change(3, "9:30", of("10", "east", on))
	w.Swept("9:30")
	w.Change(1, "10:00", off)
	w.Change(2, "10:10", of("10", "east"))
	w.Change(3, "10:20", nil)
	w.Swept("10:30")
	w.Change(1, "11:00", on)
	w.Change(3, "11:10", off)
	w.Swept("11:59")
	w.want("agent 1", w.asked(1, "7:00", "11:30"), `
		07:00:00-08:00:01 unknown: rollcall had not read the whole listing yet: nothing can \
			be told before 2026-11-22T08:00:01Z
		08:00:01-09:59:59~10:00:00 on, listed
		09:59:59~10:00:00-10:59:59~11:00:00 off, listed
		10:59:59~11:00:00-11:30:00 on, listed, 1 sign-ins`)
	w.want("agent 2", w.asked(2, "8:30", "11:30"), `
		08:30:00-08:59:59~09:00:00 off, listed
		08:59:59~09:00:00-11:30:00 on, listed, 1 sign-ins`)
	w.want("agent 3", w.asked(3, "9:00", "11:30"), `
		09:00:00-09:29:59~09:30:00 off
		09:29:59~09:30:00-10:19:59~10:20:00 on, listed, 1 sign-ins
		10:19:59~10:20:00-11:09:59~11:10:00 off
		11:09:59~11:10:00-11:30:00 off, listed`)
	w.want("7:59", w.at("7:59"), `
		1 on=false since ? rev 0 10 east, by the next event: nobody could say then who is \
			on duty: nobody had looked for the agent before
		2 on=false since ? rev 0 2 west, by the next event: nobody could say then who is on \
			duty: nobody had looked for the agent before
		not trusted: rollcall had not read the whole listing yet: nothing can be told \
			before 2026-11-22T08:00:01Z`)
	w.want("9:00", w.at("9:00"), `
		1 on=true since ?~08:00:00 rev 1 10 east
		2 on=true since 08:59:59~09:00:00 rev 2 2 west`)
	w.want("10:15", w.at("10:15"), `
		1 on=false since 09:59:59~10:00:00 rev 2 10 east
		2 on=true since ?~09:00:00 rev 3 10 east
		3 on=true since 09:29:59~09:30:00 rev 1 10 east`)
	w.want("11:05", w.at("11:05"), `
		1 on=true since 10:59:59~11:00:00 rev 3 10 east
		2 on=true since ?~09:00:00 rev 3 10 east`)
	w.want("11:59:10", w.at("11:59:10"), `
		1 on=true since 10:59:59~11:00:00 rev 3 10 east
		2 on=true since ?~09:00:00 rev 3 10 east
		3 on=false since ?~10:20:00 rev 3 10 east`)
	w.want("12:00", w.at("12:00"), `
		history: the moment 2026-11-22T12:00:00Z: it is in the future`)
	w.want("agent 4", w.asked(4, "9:00", "11:30"), `
		history: read the stream AGENT_EVENTS: it has nothing of agent 4 of tenant 886`)
	w.want("nothing", w.asked(1, "9:00", "9:00"), `
		history: the time from 2026-11-22T09:00:00Z to 2026-11-22T09:00:00Z: its end is not \
			after its beginning`)
}

// What expired is told by what came after it.
func TestExpired(t *testing.T) {
	t.Parallel()
	w := newWorld(t, time.Hour)
	w.Sweep = 1
	w.Change(1, "8:00", of("2", "west", on))
	w.Change(2, "8:01", of("10", "east", off))
	w.Change(3, "8:02", of("10", "east", on))
	w.Change(4, "8:03", of("10", "east", on))
	w.Change(5, "8:03", of("10", "east", on))
	w.Change(6, "8:03", of("10", "east", on))
	w.Swept("8:04")
	w.Change(1, "8:05", of("10", "west"))
	w.Change(3, "8:05", nil)
	w.Change(4, "8:06", nil)
	w.Swept("8:30")
	for _, s := range schemas.EventFilters(tenant) {
		w.Purge(s, 0)
	}
	w.Change(5, "8:50", of("2", "east"))
	w.Swept("8:50")
	w.Change(1, "9:00", of("2", "north", off))
	w.Change(3, "9:00", of("10", "south", on))
	w.Change(5, "9:10", nil)
	w.Change(6, "9:20", off)
	w.Change(7, "9:20", of("10", "north", on))
	e := w.Change(6, "9:20", on)
	e.Data.Changes, e.Data.ChangesTruncated = nil, true
	w.Change(6, "9:21", off)
	w.Swept("9:29:50") // what was before 8:30 may have expired
	w.want("8:35", w.at("8:35"), `
		1 on=true since ?~08:00:00 rev 2 10 west, by the next event
		2 on=false since 08:00:59~08:01:00 rev 1 10 east
		5 on=true since ?~08:03:00 rev 1 10 east, by the next event
		6 on=true since ?~08:03:00 rev 1 10 east, by the next event`)
	w.want("9:15", w.at("9:15"), `
		1 on=false since 08:59:59~09:00:00 rev 3 2 north
		2 on=false since 08:00:59~08:01:00 rev 1 10 east
		3 on=true since 08:59:59~09:00:00 rev 3 10 south
		6 on=true since ?~08:03:00 rev 1 10 east, by the next event`)
	const early = "events of that time may have expired: " +
		"the stream AGENT_EVENTS keeps them since " +
		"2026-11-22T08:30:00Z"
	w.want("8:02", w.at("8:02"), `
		1 on=true since ?~08:00:00 rev 2 10 west, by the next event
		2 on=false since 08:00:59~08:01:00 rev 1 10 east
		3 on=false since ? rev 0 10 east, by the next event, 1 missing: events are missing \
			in the stream
		4 on=false since ? rev 0 10 east, by the next event, 1 missing: events are missing \
			in the stream
		5 on=false since ? rev 0 10 east, by the next event, 1 missing: events are missing \
			in the stream
		6 on=false since ? rev 0 10 east, by the next event, 1 missing: events are missing \
			in the stream
		not trusted: `+early)
	w.want("agent 1", w.asked(1, "8:00", "9:15"), `
		08:00:00-08:30:00 unknown: `+early+`
		08:30:00-08:59:59~09:00:00 on, listed
		08:59:59~09:00:00-09:15:00 off, listed`)
	w.want("agent 3", w.asked(3, "8:40", "9:15"), `
		08:40:00-08:59:59~09:00:00 off
		08:59:59~09:00:00-09:15:00 on, listed, 1 sign-ins`)
	w.want("agent 4", w.asked(4, "8:40", "9:15"), `08:40:00-09:15:00 off`)
	w.want("agent 5", w.asked(5, "8:40", "9:15"), `
		08:40:00-09:09:59~09:10:00 on, listed
		09:09:59~09:10:00-09:15:00 off`)
	// Two changes of the same moment, and one that no interval begins with.
	w.want("agent 6", w.asked(6, "9:15", "9:25"), `
		09:15:00-09:20:59~09:21:00 on, listed, 1 sign-ins
		09:20:59~09:21:00-09:25:00 off, listed`)
	w.want("agent 7", w.asked(7, "8:40", "9:25"), `
		08:40:00-09:19:59~09:20:00 off
		09:19:59~09:20:00-09:25:00 on, listed, 1 sign-ins`)
}

// What should be there and is not, is told.
func TestMissing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 24*time.Hour)
	w.Sweep = 1
	w.Change(1, "8:00", of("10", "east", on)) // updates will be missing
	w.Change(2, "8:00", of("10", "east", on)) // a sign-out and a sign-in
	w.Change(3, "8:00", of("10", "east", on)) // a sign-out
	w.Change(4, "8:00", of("10", "east", on)) // all but the state
	w.Change(5, "8:00", of("10", "east", on)) // all
	w.Swept("8:00")
	w.Change(1, "8:10", of("2", "west"))
	w.Change(1, "8:20", of("10", "north"))
	w.Change(2, "8:10", off)
	w.Change(2, "8:20", on)
	w.Change(3, "8:10", off)
	w.Change(4, "8:10", off)
	w.Swept("8:20")
	w.Change(4, "8:30", of("10", "north", on))
	w.Swept("8:30")
	w.Purge("agent.updated.>", 0)
	w.Purge("agent.*.886.*.4", 0)
	w.Purge("agent.*.886.*.5", 0)
	w.Purge("agent.state.886.5", 0)
	for _, id := range []string{"2", "3"} { // all but the first event
		w.Purge("agent.offline.886.*."+id, 0)
	}
	w.Change(1, "9:00", off)
	w.Change(2, "9:00", off)
	w.Change(3, "9:00", of("10", "west"))
	w.Swept("9:00")
	w.now = w.Now.Add(50 * time.Second)
	w.want("agent 1", w.asked(1, "8:05", "9:01"), `
		08:05:00-08:59:59~09:00:00 on, listed, 2 missing
		08:59:59~09:00:00-09:01:00 off, listed`)
	w.want("agent 2", w.asked(2, "7:55", "9:01"), `
		07:55:00-07:59:59~08:00:00 off
		07:59:59~08:00:00-?~08:10:00 on, listed, 1 sign-ins, 1 missing
		?~08:10:00-08:19:59~08:20:00 off, listed, 1 missing
		08:19:59~08:20:00-08:59:59~09:00:00 on, listed, 1 sign-ins
		08:59:59~09:00:00-09:01:00 off, listed`)
	w.want("agent 3", w.asked(3, "8:05", "9:01"), `
		08:05:00-?~08:10:00 on, listed, 1 missing
		?~08:10:00-09:01:00 off, listed, 1 missing`)
	w.want("agent 4", w.asked(4, "8:05", "9:01"), `
		08:05:00-?~08:10:00 unknown, 1 missing: events are missing in the stream
		?~08:10:00-08:29:59~08:30:00 off, listed, 1 missing
		08:29:59~08:30:00-09:01:00 on, listed, 1 sign-ins`)
	w.want("agent 5", w.asked(5, "8:05", "9:01"), `
		history: read the stream AGENT_EVENTS: it has nothing of agent 5 of tenant 886`)
	w.want("8:15", w.at("8:15"), `
		1 on=true since ?~08:00:00 rev 3 10 north, by the next event, 2 missing
		2 on=false since ?~08:10:00 rev 2 10 east, by the next event, 1 missing
		3 on=false since ?~08:10:00 rev 2 10 east, by the next event, 1 missing
		4 on=false since ?~08:10:00 rev 2 10 east, by the next event, 1 missing
		not trusted: events are missing in the stream, of 4 agents`)
	w.want("9:01", w.at("9:00:30"), `
		1 on=false since 08:59:59~09:00:00 rev 4 10 north
		2 on=false since 08:59:59~09:00:00 rev 4 10 east
		3 on=false since ?~08:10:00 rev 3 10 west
		4 on=true since 08:29:59~08:30:00 rev 3 10 north`)
}

// When nobody looked, nobody knows.
func TestUnobserved(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 24*time.Hour)
	w.Sweep = 1
	w.Change(1, "8:00", of("10", "east", on))
	w.Change(2, "8:00", of("2", "east", on))
	w.Swept("8:00")
	w.Change(1, "8:15", off) // a page was read; the sweep was not complete
	w.Swept("8:30")
	w.Unobserved("8:10", "8:20", schemas.Unreachable)
	w.Change(3, "9:00", of("0", "east", on)).Data.NotBefore = time.Time{}
	w.Change(2, "9:00", off)
	w.Swept("9:00")
	w.Unobserved("8:40", "8:55", "", "0", "2")
	w.want("agent 1", w.asked(1, "8:05", "9:00:05"), `
		08:05:00-08:10:00 on, listed
		08:10:00-08:20:00 unknown: nobody could say then who is on duty [] unreachable
		08:20:00-09:00:05 off, listed`)
	w.want("agent 2", w.asked(2, "8:05", "9:00:05"), `
		08:05:00-08:10:00 on, listed
		08:10:00-08:20:00 unknown: nobody could say then who is on duty [] unreachable
		08:20:00-08:40:00 on, listed
		08:40:00-08:55:00 unknown: nobody could say then who is on duty [0 2]
		08:55:00-08:59:59~09:00:00 on, listed
		08:59:59~09:00:00-09:00:05 off, listed`)
	w.want("agent 3", w.asked(3, "8:05", "9:00:05"), `
		08:05:00-08:10:00 unknown: nobody could say then who is on duty: nobody had looked \
			for the agent before
		08:10:00-08:20:00 unknown: nobody could say then who is on duty [] unreachable
		08:20:00-08:40:00 unknown: nobody could say then who is on duty: nobody had looked \
			for the agent before
		08:40:00-08:55:00 unknown: nobody could say then who is on duty [0 2]
		08:55:00-?~09:00:00 unknown: nobody could say then who is on duty: nobody had \
			looked for the agent before
		?~09:00:00-09:00:05 on, listed, 1 sign-ins`)
	w.want("8:10", w.at("8:10"), `
		1 on=true since 07:59:59~08:00:00 rev 1 10 east
		2 on=true since 07:59:59~08:00:00 rev 1 2 east
		3 on=false since ? rev 0 0 east, by the next event: nobody could say then who is on \
			duty: nobody had looked for the agent before
		not trusted: nobody could say then who is on duty from 2026-11-22T08:10:00Z to \
			2026-11-22T08:20:00Z (unreachable); nobody could say then who is on duty: nobody \
			had looked for 1 agent that came later`)
	w.want("8:20", w.at("8:20"), `
		1 on=false since 08:14:59~08:15:00 rev 2 10 east
		2 on=true since 07:59:59~08:00:00 rev 1 2 east
		3 on=false since ? rev 0 0 east, by the next event: nobody could say then who is on \
			duty: nobody had looked for the agent before
		not trusted: nobody could say then who is on duty: nobody had looked for 1 agent \
			that came later`)
	w.want("8:45", w.at("8:45"), `
		1 on=false since 08:14:59~08:15:00 rev 2 10 east
		2 on=true since 07:59:59~08:00:00 rev 1 2 east
		3 on=false since ? rev 0 0 east, by the next event: nobody could say then who is on \
			duty: nobody had looked for the agent before
		not trusted: nobody could say then who is on duty of type 0, 2 from \
			2026-11-22T08:40:00Z to 2026-11-22T08:55:00Z; nobody could say then who is on \
			duty: nobody had looked for 1 agent that came later`)
	w.now = clock(t, "9:30")
	w.want("agent 1 later", w.asked(1, "8:35", "9:20"), `
		08:35:00-09:00:00 off, listed
		09:00:00-09:20:00 unknown: nobody could say then who is on duty []`)
	w.want("9:20", w.at("9:20"), `
		1 on=false since 08:14:59~08:15:00 rev 2 10 east
		2 on=false since 08:59:59~09:00:00 rev 2 2 east
		3 on=true since ?~09:00:00 rev 1 0 east
		not trusted: nobody could say then who is on duty from 2026-11-22T09:00:00Z until now`)
}

// An archive keeps what the stream no longer has, and can be asked as well.
func TestArchive(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 24*time.Hour)
	w.Change(1, "8:00", of("10", "east", on))
	w.Change(2, "8:00", of("2", "west", off))
	w.Swept("8:00")
	archive := func(name string, subjects ...string) {
		t.Helper()
		var ts []jetstream.SubjectTransformConfig
		for _, s := range subjects {
			ts = append(ts, jetstream.SubjectTransformConfig{Source: s})
		}
		_, err := w.JS.CreateStream(t.Context(), jetstream.StreamConfig{Name: name,
			Sources: []*jetstream.StreamSource{{Name: schemas.Stream, SubjectTransforms: ts}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	events := schemas.EventFilters(tenant)
	archive("ALL", append(events, schemas.StateFilter(tenant), schemas.UnobservedSubject(tenant),
		schemas.WatermarkSubject(tenant))...)
	archive("EVENTS", events...)
	archive("NOTHING", "agent.online.1.>")
	w.Change(1, "8:30", off)
	w.Swept("9:00")
	w.Unobserved("8:00", "9:00", schemas.Unusable)
	w.Change(1, "9:10", on)
	w.Swept("9:10")
	arrived := func(name, subject, what string) {
		wait.Eventually(t, what+" in the archive "+name, func() bool {
			s, err := w.JS.Stream(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			m, err := s.GetLastMsgForSubject(t.Context(), subject)
			return err == nil && strings.Contains(string(m.Data), what)
		})
	}
	arrived("ALL", schemas.WatermarkSubject(tenant), `"sweep":3`)
	arrived("EVENTS", "agent.online.886.10.1", `"revision":3`)
	for _, s := range events {
		w.Purge(s, 0)
	}
	w.Purge(schemas.UnobservedSubject(tenant), 0)
	w.from = "ALL"
	w.want("all", w.asked(1, "7:00", "9:10:05"), `
		07:00:00-08:00:00 unknown: rollcall had not read the whole listing yet: nothing can \
			be told before 2026-11-22T08:00:00Z
		08:00:00-09:00:00 unknown: nobody could say then who is on duty [] unusable
		09:00:00-09:09:59~09:10:00 off, listed
		09:09:59~09:10:00-09:10:05 on, listed, 1 sign-ins`)
	w.want("all, 9:05", w.at("9:05"), `
		1 on=false since 08:29:59~08:30:00 rev 2 10 east
		2 on=false since ?~08:00:00 rev 1 2 west`)
	w.from = "EVENTS"
	w.want("events", w.asked(1, "7:00", "9:10:05"), `
		07:00:00-08:00:00 unknown: rollcall had not read the whole listing yet: nothing can \
			be told before 2026-11-22T08:00:00Z
		?~08:00:00-08:29:59~08:30:00 on, listed
		08:29:59~08:30:00-09:09:59~09:10:00 off, listed
		09:09:59~09:10:00-09:10:05 on, listed, 1 sign-ins`)
	w.want("events, 9:05", w.at("9:05"), `
		1 on=false since 08:29:59~08:30:00 rev 2 10 east
		2 on=false since ?~08:00:00 rev 1 2 west`)
	w.want("events, 9:10", w.at("9:10:05"), `
		1 on=true since 09:09:59~09:10:00 rev 3 10 east
		2 on=false since ?~08:00:00 rev 1 2 west`)
	w.from = "NOTHING"
	w.want("nothing", w.at("9:05"), `
		1 on=false since ?~08:30:00 rev 2 10 east, by the next event
		2 on=false since ?~08:00:00 rev 1 2 west
		not trusted: events of that time may have expired: the stream NOTHING keeps them \
			since 2026-11-22T09:10:00Z`)
	w.from = "NONE"
	w.want("none", w.at("9:05"), `
		history: look at the stream NONE: nats: API error: code=404 err_code=10059 \
			description=stream not found`)
	w.from = schemas.Stream
	w.want("the rest", w.asked(1, "7:00", "9:10:05"), `
		07:00:00-09:10:00 unknown: events of that time may have expired: the stream \
			AGENT_EVENTS keeps them since 2026-11-22T09:10:00Z
		09:09:59~09:10:00-09:10:05 on, listed, 1 sign-ins`)
	w.want("the rest, agent 2", w.asked(2, "7:00", "9:10:05"), `
		07:00:00-09:10:00 unknown: events of that time may have expired: the stream \
			AGENT_EVENTS keeps them since 2026-11-22T09:10:00Z
		09:10:00-09:10:05 off, listed`)
	if err := w.JS.DeleteStream(t.Context(), schemas.Stream); err != nil {
		t.Fatal(err)
	}
	w.from = "EVENTS"
	w.want("no states", w.at("9:05"), `
		1 on=false since 08:29:59~08:30:00 rev 2 10 east
		2 on=false since ?~08:00:00 rev 1 2 west
		not trusted: the stream has no states, so agents may be missing`)
	w.want("no states, 9:10:05", w.at("9:10:05"), `
		1 on=true since 09:09:59~09:10:00 rev 3 10 east
		2 on=false since ?~08:00:00 rev 1 2 west
		not trusted: nobody could say then who is on duty from 2026-11-22T09:10:00Z until \
			now; the stream has no states, so agents may be missing`)
	w.want("no states, agent 1", w.asked(1, "9:00", "9:10:05"), `
		09:00:00-09:09:59~09:10:00 off, listed
		09:10:00-09:10:05 unknown, 1 sign-ins: nobody could say then who is on duty []`)
	w.from = "NOTHING"
	w.want("no states, nothing", w.at("9:05"), `
		history: read the stream NOTHING: it has nothing of tenant 886`)
}

// Whoever is forgotten was never there, and nobody else notices.
func TestForgotten(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 24*time.Hour)
	w.Sweep = 1
	for id := range int64(3) {
		w.Change(id+1, "8:00", of("10", "east", on))
	}
	w.Swept("8:00")
	for _, at := range []string{"8:10", "8:20", "8:30"} {
		for id := range int64(3) {
			if at == "8:20" {
				w.Change(id+1, at, on)
			} else {
				w.Change(id+1, at, off)
			}
		}
		w.Swept(at)
	}
	w.Change(2, "8:40", nil)
	w.Change(1, "8:40", of("10", "west"))
	w.Swept("8:40")
	w.Purge("agent.*.886.*.2", 0)
	w.Purge("agent.state.886.2", 0)
	w.Purge("agent.*.886.*.3", 1)
	w.want("8:15", w.at("8:15"), `
		1 on=false since 08:09:59~08:10:00 rev 2 10 east
		3 on=false since ? rev 0 10 east, by the next event, 1 missing: events are missing in \
			the stream
		not trusted: events are missing in the stream, of 1 agent`)
	w.want("agent 1", w.asked(1, "8:00", "8:40"), `
		07:59:59~08:00:00-08:09:59~08:10:00 on, listed, 1 sign-ins
		08:09:59~08:10:00-08:19:59~08:20:00 off, listed
		08:19:59~08:20:00-08:29:59~08:30:00 on, listed, 1 sign-ins
		08:29:59~08:30:00-08:39:59~08:40:00 off, listed`)
	w.want("agent 2", w.asked(2, "8:00", "8:40"), `
		history: read the stream AGENT_EVENTS: it has nothing of agent 2 of tenant 886`)
	w.want("agent 3", w.asked(3, "8:00", "8:40"), `
		08:00:00-?~08:20:00 unknown, 1 missing: events are missing in the stream
		?~08:20:00-08:29:59~08:30:00 on, listed
		08:29:59~08:30:00-08:40:00 off, listed`)
}
