package natsd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/rollcall-events/rollcall/schemas"
)

// errGone says that the store that the server writes to is not the one below its directory any
// more: it was removed, or something else was put in its place. The server itself does not notice:
// it goes on with the files that it has open, and what it acknowledges is lost when it ends.
var errGone = errors.New("the store was removed, or another one put in its place")

// gone looks whether the directory still is the one that was locked, and has what was once seen in
// it. Only Start, and then heal, call it.
func (s *Server) gone() error {
	locked, err := s.lock.Stat()
	if err != nil {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	now, err := os.Stat(filepath.Join(s.cfg.DataDir, lockFile))
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(locked, now) {
		return fmt.Errorf("%w: %s is not the file that was locked", errGone, lockFile)
	}
	streams := filepath.Join(s.cfg.DataDir, server.JetStreamStoreDir, ownAccount, "streams")
	for _, stream := range []string{schemas.Stream, "KV_" + schemas.Bucket} {
		dir := filepath.Join(streams, stream)
		for _, path := range []string{
			dir, filepath.Join(dir, "msgs"),
			filepath.Join(dir, server.JetStreamMetaFile),
			filepath.Join(dir, server.JetStreamMetaFileSum),
		} {
			_, err := os.Stat(path)
			_, seen := s.seen[path]
			switch {
			case err == nil:
				s.seen[path] = 0
			case errors.Is(err, fs.ErrNotExist) && seen:
				return fmt.Errorf("%w: %s is gone", errGone, path)
			}
		}
		// The block with the highest number is the one that is written to. The server removes it
		// only once there is another one.
		blocks := filepath.Join(dir, "msgs", "*.blk")
		last := lastBlock(blocks)
		if before := s.seen[blocks]; last < before {
			return fmt.Errorf("%w: %d.blk of %s is gone", errGone, before, blocks)
		}
		s.seen[blocks] = last
	}
	return nil
}

// lastBlock is the highest number of the files that fit the pattern; 0: there are none.
func lastBlock(pattern string) (last int) {
	names, _ := filepath.Glob(pattern) // the pattern is well formed
	for _, name := range names {
		n, err := strconv.Atoi(strings.TrimSuffix(filepath.Base(name), ".blk"))
		if err == nil {
			last = max(last, n)
		}
	}
	return last
}

// relock takes the directory as it now is, and makes it where it is missing.
func (s *Server) relock() error {
	_ = s.lock.Unlock() // of a file that is gone
	lock, err := lockDir(s.cfg.DataDir)
	if err != nil {
		return err
	}
	s.lock = lock
	return nil
}
