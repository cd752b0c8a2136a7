// Package presence answers questions about who was on duty: the roster, now or at a moment, an
// agent's intervals, and sums of them. It reads the stream, or an archive, and writes text, JSON or
// CSV.
package presence
