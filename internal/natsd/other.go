//go:build !linux && !darwin

package natsd

// disk can't tell on this system.
func disk(string) (free, size int64, ok bool) { return 0, 0, false }

// writable can't be told here without creating a file.
func writable(string) error { return nil }
