//go:build linux || darwin

package natsd

import "syscall"

// disk is how many bytes may still be written below dir, and how many the file system holds in all.
func disk(dir string) (free, size int64, ok bool) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, 0, false
	}
	return int64(st.Bavail) * int64(st.Bsize), int64(st.Blocks) * int64(st.Bsize), true
}

// writable says whether files may be created in dir, without creating one.
func writable(dir string) error {
	const write, search = 2, 1
	return syscall.Access(dir, write|search)
}
