// Package watch shows a tenant's agents on duty and their changes in a terminal, with the
// watermark's age.
//
// Agents' names and all other values in the stream are somebody else's: nothing that could steer a
// terminal is written as it came; see package plain.
package watch
