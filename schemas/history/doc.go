// Package history tells from rollcall's stream, or from an archive of it, who was on duty at a
// moment ([At]) and when agents were ([Intervals], [All]), and how far that can be trusted.
//
// # What was, at a moment
//
// An event's time is when the page that showed the change had been read. Per agent it never goes
// back, so at a moment t an agent was as its last event with a time up to t says. Which event that
// is, and what held where it is gone, follows from what the stream still has of the agent, in the
// order of its revisions:
//
//   - The agent's state is its last event, for ever. From its time on, it is the truth. An agent
//     without one, in a stream that has states, was forgotten, and is left out.
//   - Between two events whose revisions follow one another, the earlier one is the truth.
//   - Before the first event that is left, its changes undone give the agent as it was, and its
//     since or previousSince tells since when it had been online or not. Before that nobody can
//     tell.
//   - Where revisions are missing between two events (purged, or lost by the broker), the same: the
//     later one tells what was before it, back to its previousSince. Who was on duty follows from
//     that; what else was changed in between does not, so such an agent is marked (Missing).
//   - Before its first revision an agent was not there. Where that event has no notBefore, nobody
//     had looked for it before, so nobody can tell.
//   - An event whose changes were truncated restores the documented fields only (Truncated).
//
// # What can be told
//
// Nothing can be told, of any agent,
//
//   - within an unobserved interval (agent.unobserved), which begins with the last complete sweep
//     before it and ends where the next one begins; one that names types is about their agents;
//   - since the last complete sweep began, where the watermark is overdue now: that is an
//     unobserved interval which has not ended;
//   - before the end of the tenant's first complete sweep, as far as the stream still shows it: up
//     to its last event with the reason baseline ([ErrNoSweep]);
//   - before what the stream keeps ([ErrExpired]). Events have a time to live (Nats-TTL), after
//     which they are gone with nothing to tell, so that is the least one in use, before now. Where
//     a stream keeps them longer, as an archive does, it is its oldest event. Where it has none at
//     all, it is the newest state.
//
// Changes show between notBefore and time of their events, so the ends of an interval are as
// precise as that. What is changed in the stream while it is read may or may not be seen; what is
// asked about is never later than now, so that is not much.
//
// Who is on duty now is better asked of [github.com/rollcall-events/rollcall/schemas/follow].
package history
