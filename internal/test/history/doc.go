// Package history tests schemas/history as a property: for any history and any moment, the roster
// as it was is the one that a follower had at that moment, and an agent's intervals add up to the
// time that was asked for.
package history
