// Package e2e runs rollcall as it is run: the built binary as a process, against a simulated tenant
// over HTTP, with its embedded NATS server or with a nats-server that is a process of its own. It
// is a harness for tests, and the tests of the whole way.
//
// A test package that uses it calls [Main] from its TestMain, which builds what is needed once and
// removes it at the end. Nothing here sleeps and hopes: what is waited for is a condition (package
// wait). Processes get no environment but what they are given, and are gone when their test
// ends. Signals make it a package for Unix.
package e2e
