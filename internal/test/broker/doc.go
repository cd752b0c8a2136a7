// Package broker shows that no fault of the broker, of the way to it, or of the process itself
// makes the stream lose, double or invent anything.
//
// Everything is real but the vendor: poller, engine and publisher as they are run, a nats-server in
// the test's own process with its store in files, and a simulated tenant over HTTP. Between a
// publisher and the server stands a proxy that understands NATS's framing, so that a fault happens
// at a message of one's choice. What is left in the end is judged by internal/test/checker.
//
// TestFaults is the table of faults over the whole cycle: go test ./internal/test/broker -run
// TestFaults -v prints it with its results. -long repeats everything, with more points and longer
// delays.
package broker
