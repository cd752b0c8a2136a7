// Package soak is rollcall under fire: the built binary and nats-server as processes that are
// killed, stopped, continued and started again at moments drawn from a seed, while a simulated
// tenant changes and at times misbehaves. Every run ends at rest and in the model checker, see
// package checker.
//
// A short run is part of go test. The long one goes through all scenarios, each time with a fresh
// seed and a fresh stream, until the time is over, and ends with a summary:
//
//	go test ./internal/test/soak -run Soak -soak 30m -timeout 40m -v
//
// What fails tells its seed, what was done when, and the command that does the same again. The
// order of the faults and all their figures depend on the seed alone; what the processes were doing
// at that moment does not, so a failure may take a few tries to come again.
//
// Outages, in the checker's sense, are not guessed from the faults but read off the processes' own
// logs: from the last complete sweep that a process had published to the first that the next one
// has, and wherever two are far apart.
package soak
