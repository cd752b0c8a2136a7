// Package follow reads a tenant's agents from rollcall's stream: every agent's state first, then
// every change, and how far the picture can be trusted. It is for routing engines, dashboards and
// whoever else needs to know who is on duty now; who needs every event ever published reads them
// with a durable consumer instead.
//
// A [Roster] is filled by [Roster.Run]:
//
//	roster := follow.New(886)
//	go roster.Run(ctx, js, nil)
//	…
//	if err := roster.Trust(time.Now()).Err(); err != nil {
//		// nobody knows who is on duty: do what you do without rollcall
//	}
//	agent, ok := roster.Agent(17813)
//
// What Run may be relied on for: after it has read the stream once, the roster is the stream's
// states at some moment, and follows them in the order of the stream. Of an agent that changes
// often a slow reader may skip revisions, never the newest. Whatever happens to the connection, the
// server or the stream (restarts, failovers, a restored backup), Run begins anew with the states,
// and the roster stays as it was until they have all been read. Nothing has to be stored between
// two runs of the reader.
//
// Freshness is the watermark's business alone, also while the connection is lost: see [Trust]. Who
// has to stop when the picture becomes stale is told so by an [Update], and when it is fresh again.
package follow
