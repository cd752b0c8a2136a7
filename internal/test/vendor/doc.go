// Package vendor holds the tests of rollcall against a vendor that misbehaves: the real poller,
// engine and publisher, a simulated tenant over HTTP, and a nats-server, at short intervals. It has
// no code of its own.
//
// Each misbehaviour is staged alone ([TestFault]) and many of them mixed at random from a seed
// ([TestMixed]), while agents go on changing. Every test ends in the model checker. TestSecrets
// runs the built binary instead, through every failure that could show a secret, and looks for it
// in all that was written.
//
//	go test ./internal/test/vendor                                             the quick set
//	go test ./internal/test/vendor -run TestMixed -seed 7                      one seed again
//	go test ./internal/test/vendor -run TestMixed -long 30m -timeout 1h      as many seeds as fit
//	go test ./internal/test/vendor -run TestPatience -long 10m -timeout 1h   what takes minutes
package vendor
