package natsd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gofrs/flock"
)

// ServerName is how the server calls itself to its clients.
const ServerName = "rollcall"

// Found is what a [Start] would find.
type Found struct {
	Missing bool  // the directory is not there yet, and can be created
	InUse   bool  // by another rollcall
	Room    int64 // bytes that the stream may take, what the store has included; -1: not known
	Full    error // [ErrNoRoom], with what to do: the server does not start; nil: it does
}

// Look looks at the data directory and writes nothing. The error is a [*setting.Error] where Start
// could not use it. To see whether the directory is in use it holds the lock for an instant: only
// for a start at that very moment it looks used.
func Look(cfg Config) (Found, error) {
	found := Found{Room: -1}
	unusable := func(err error) (Found, error) {
		return found, unusableDir(cfg.DataDir, err)
	}
	dir, err := filepath.Abs(cfg.DataDir)
	if err != nil {
		return unusable(err)
	}
	info, err := os.Stat(dir)
	// Where it is missing, what counts is where it would be created.
	for errors.Is(err, fs.ErrNotExist) && dir != filepath.Dir(dir) {
		if link, err := os.Readlink(dir); err == nil {
			return unusable(fmt.Errorf("%s is a link to %s, which is not there", dir, link))
		}
		found.Missing = true
		dir = filepath.Dir(dir)
		info, err = os.Stat(dir)
	}
	if err != nil {
		return unusable(err)
	}
	if !info.IsDir() {
		return unusable(fmt.Errorf("%s is no directory", dir))
	}
	if err := writable(dir); err != nil {
		return unusable(fmt.Errorf("%s: %w", dir, err))
	}
	if cfg.roomFor == nil {
		cfg.roomFor = roomFor
	}
	found.Full = cfg.roomFor(dir)
	if free, size, ok := disk(dir); ok {
		if found.Missing && size == 0 { // /proc, /sys
			return unusable(fmt.Errorf("%s is on no disk", dir))
		}
		found.Room = free
		if !found.Missing {
			found.Room += used(dir)
		}
	}
	if found.Missing {
		return found, nil
	}
	path := filepath.Join(dir, lockFile)
	if _, err := os.Stat(path); err != nil { // nobody has ever started there
		return found, nil
	}
	lock := flock.New(path, flock.SetFlag(os.O_RDONLY))
	free, err := lock.TryRLock()
	if err != nil {
		return unusable(err)
	}
	found.InUse = !free
	_ = lock.Close()
	return found, nil
}
