//go:build linux || darwin

package natsd

import "syscall"

// writable says whether files may be created in dir, without creating one.
func writable(dir string) error {
	const write, search = 2, 1
	return syscall.Access(dir, write|search)
}
