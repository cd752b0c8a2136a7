//go:build !linux && !darwin

package natsd

// diskFree can't tell on this system.
func diskFree(string) (int64, bool) { return 0, false }
