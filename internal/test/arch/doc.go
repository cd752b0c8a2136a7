// Package arch keeps the import rules of this module: its test asks go list who imports whom.
// There is nothing else here.
package arch
