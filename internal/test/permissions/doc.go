// Package permissions tests the nats-server configurations in deploy/nats against real servers that
// run on exactly those files: rollcall can do everything that it must, readers can read, and
// neither can do more.
package permissions
