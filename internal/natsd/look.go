package natsd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gofrs/flock"

	"github.com/rollcall-events/rollcall/internal/setting"
)

// ServerName is how the server calls itself to its clients.
const ServerName = "rollcall"

// Found is what a [Start] would find.
type Found struct {
	Missing bool  // the directory is not there yet, and can be created
	InUse   bool  // by another rollcall
	Room    int64 // bytes that the stream may take: what is free, and what the store has already; below zero: not known
	Full    error // [ErrNoRoom], with figures and what to do: the server does not start on that disk; nil: it does
}

// Look looks at the data directory and writes nothing. The error is a [*setting.Error] where Start
// could not use it. To see whether the directory is in use it holds the lock for an instant: only
// for a start at that very moment it looks used.
func Look(cfg Config) (Found, error) {
	found := Found{Room: -1}
	unusable := func(err error) (Found, error) {
		return found, &setting.Error{Field: "DataDir", Value: cfg.DataDir, Want: fmt.Sprintf("a directory that rollcall may write (%v)", err)}
	}
	dir, err := filepath.Abs(cfg.DataDir)
	if err != nil {
		return unusable(err)
	}
	info, err := os.Stat(dir)
	for errors.Is(err, fs.ErrNotExist) && dir != filepath.Dir(dir) { // then what counts is where it would be created
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
	if free, _, ok := disk(dir); ok {
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
