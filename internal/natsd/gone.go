package natsd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/rollcall-events/rollcall/schemas"
)

// errGone says that the store that the server writes to is not the one below its directory any
// more: it was removed, or something else was put in its place. The server itself does not notice:
// it goes on with the files that it has open, and what it acknowledges is lost when it ends.
var errGone = errors.New("the store was removed, or another one put in its place")

// gone looks whether the directory still is the one that was locked, and has what was once seen in
// it. Only heal calls it.
func (s *Server) gone() error {
	locked, err := s.lock.Stat()
	if err != nil {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	now, err := os.Stat(filepath.Join(s.cfg.DataDir, lockFile))
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(locked, now) {
		return fmt.Errorf("%w: %s is not the file that was locked", errGone, lockFile)
	}
	path := s.cfg.DataDir
	for _, name := range []string{server.JetStreamStoreDir, logAccount, "streams", schemas.Stream} {
		path = filepath.Join(path, name)
		_, err := os.Stat(path)
		switch {
		case err == nil:
			s.there[path] = true
		case errors.Is(err, fs.ErrNotExist) && s.there[path]:
			return fmt.Errorf("%w: %s is gone", errGone, path)
		}
	}
	return nil
}

// relock takes the directory as it now is, and makes it where it is missing.
func (s *Server) relock() error {
	_ = s.lock.Unlock() // of a file that is gone
	clear(s.there)
	lock, err := lockDir(s.cfg.DataDir)
	if err != nil {
		return err
	}
	s.lock = lock
	return nil
}
