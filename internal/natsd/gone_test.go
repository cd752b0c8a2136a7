//go:build unix

package natsd

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/internal/test/wait"
	"github.com/rollcall-events/rollcall/schemas"
)

// A store that is removed under a running server is noticed, as a whole or in part: the server is
// started anew on what is there then, and the directory is locked again.
func TestStoreRemoved(t *testing.T) {
	t.Parallel()
	const bucket = "KV_" + schemas.Bucket
	// within removes what the path names in the directory of a stream.
	within := func(stream, path string) func(string) error {
		return func(dir string) error {
			found, err := filepath.Glob(filepath.Join(dir, "jetstream", ownAccount, "streams",
				stream, path))
			if err == nil && found == nil {
				err = os.ErrNotExist
			}
			for _, name := range found {
				err = errors.Join(err, os.RemoveAll(name))
			}
			return err
		}
	}
	for name, c := range map[string]struct {
		remove func(dir string) error
		kept   bool // whether the stream is there then
	}{
		"the directory": {os.RemoveAll, false},
		"what is in it": {func(dir string) error {
			return errors.Join(os.RemoveAll(filepath.Join(dir, "jetstream")),
				os.RemoveAll(filepath.Join(dir, lockFile)))
		}, false},
		"the stream's": {func(dir string) error {
			return os.RemoveAll(filepath.Join(dir, "jetstream", ownAccount, "streams",
				schemas.Stream))
		}, false},
		"the stream's messages":            {within(schemas.Stream, "msgs"), true},
		"what is in the stream's messages": {within(schemas.Stream, "msgs/*"), true},
		"the stream's blocks":              {within(schemas.Stream, "msgs/*.blk"), true},
		"the stream's description":         {within(schemas.Stream, "meta.inf"), false},
		"its checksum":                     {within(schemas.Stream, "meta.sum"), false},
		"the bucket's":                     {within(bucket, ""), true},
		"the bucket's messages":            {within(bucket, "msgs"), true},
		"the bucket's description":         {within(bucket, "meta.inf"), true},
		"the lock": {func(dir string) error {
			return os.Remove(filepath.Join(dir, lockFile))
		}, true},
		"put away, an empty one in its place": {func(dir string) error {
			return errors.Join(os.Rename(dir, dir+"-away"), os.Mkdir(dir, 0o700))
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, out := filepath.Join(t.TempDir(), "data"), &lines{}
			var looks atomic.Int64
			s := start(t, Config{DataDir: dir, Logger: slog.New(slog.NewTextHandler(out, nil)),
				lookEvery: often, ill: func(ns *server.Server) error {
					looks.Add(1)
					return ill(ns)
				}})
			nc, err := s.Connect(nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(nc.Close)
			js, err := jetstream.New(nc)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := js.CreateStream(t.Context(), logConfig(1<<20)); err != nil {
				t.Fatal(err)
			}
			publish(t, js, "rollcall.log.online.886.10.1", "{}")
			kv, err := js.CreateKeyValue(t.Context(),
				jetstream.KeyValueConfig{Bucket: schemas.Bucket})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := kv.PutString(t.Context(), "lease.886", "{}"); err != nil {
				t.Fatal(err)
			}
			seen := looks.Load() // what nobody has seen nobody misses
			wait.Eventually(t, "a look at the store", func() bool { return looks.Load() >= seen+2 })
			before := s.running.Load()
			wait.Eventually(t, "the store to be removed",
				func() bool { return c.remove(dir) == nil })
			wait.Eventually(t, "another server",
				func() bool {
					now := s.running.Load()
					return now != nil && now != before && nc.IsConnected()
				})
			var found bool
			wait.Eventually(t, "the other server to answer", func() bool {
				_, err := js.Stream(t.Context(), schemas.Stream)
				found = err == nil
				return err == nil || errors.Is(err, jetstream.ErrStreamNotFound)
			})
			if found != c.kept {
				t.Errorf("the stream is there: %t, want %t", found, c.kept)
			}
			if !strings.Contains(out.String(), "was removed while it was in use") {
				t.Errorf("told: %s", out)
			}
			_, err = Start(Config{Listen: "127.0.0.1:0", DataDir: dir})
			if !errors.Is(err, ErrDirInUse) {
				t.Errorf("another server on the directory: %v, want %v", err, ErrDirInUse)
			}
		})
	}
}
