// Package watch shows a tenant's agents and their events in a terminal, or as JSON, as the log
// tells them: first the state, then every change, and how far both can be believed.
//
// Agents' names and all other values of the log are somebody else's. Nothing that could steer a
// terminal leaves this package as it came; see clean.
package watch
