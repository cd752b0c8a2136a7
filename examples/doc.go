// Package examples has programs that read what rollcall publishes, to be copied: routing, the same
// in JavaScript in routing-js, a roster in Python in roster-py, and audit. Its tests run them as
// processes, against a real NATS server and against rollcall demo, and kill everything at random:
//
//	go test ./examples                                                   # Go alone, some seconds
//	npm ci --prefix examples/routing-js && go test -tags ci ./examples   # and JavaScript, Python
//	go test ./examples -run Chaos -chaos 30m -timeout 40m -v             # 30 minutes, any seed
//
// A failure prints its seed; -chaos.seed takes one.
package examples
