// Package natsd runs the NATS server that rollcall brings along for when it is not given one.
//
// rollcall itself connects in process ([Server.Connect]) and may do everything in the log's account. Whoever connects
// over the network gets a reader's permissions and nothing more, whatever credentials are shown: plain subscriptions on
// agent.>, and of the JetStream API what reading the stream AGENT_EVENTS takes. readers.go says how that is done.
//
// The store is synced to disk before anything is acknowledged. Only the client port is opened: no monitoring, no
// cluster, no leaf nodes.
package natsd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/rollcall-events/rollcall/internal/setting"
)

// DefaultListen is where the server listens unless told otherwise: NATS's own port, on loopback only.
const DefaultListen = "127.0.0.1:4222"

// Errors that [Start] wraps, for callers that can do better than give up.
var (
	// ErrListen says that the listening address can't be had, most often because its port is taken.
	ErrListen = errors.New("can't listen")
	// ErrDirInUse says that another rollcall has the data directory.
	ErrDirInUse = errors.New("data directory in use by another rollcall")
)

const (
	// lockFile is locked for as long as a server uses the directory. It is never deleted: a lock on a deleted file
	// excludes nobody.
	lockFile = "rollcall.lock"

	// maxStore is the server's own limit on stored bytes. It only has to lie above that of every stream, also of one
	// that was created under another setting: a full stream refuses a commit as a whole, a full server tears it.
	maxStore = 1 << 60

	// maxMemory is the server's limit on streams in memory, of which there are none.
	maxMemory = 1 << 20

	// maxConns bounds the network clients, each of which has an account of its own, of about 40 KB.
	maxConns = 1024

	readyTimeout = 30 * time.Second
)

// Config says where a server listens and keeps its store.
type Config struct {
	// Listen is host:port; empty means [DefaultListen], port 0 or -1 a free one, an empty host every interface.
	Listen string
	// DataDir holds the store and is created where it is missing. One server uses it at a time.
	DataDir string
	// MaxBytes is the log's size limit in bytes, 0 where it is not known. The server's limits do not depend on it;
	// Start warns where the disk has less room.
	MaxBytes int64
	// Logger gets the server's own messages; nil discards them.
	Logger *slog.Logger
}

// Validate reports every unusable field at once, each as a [*setting.Error].
func (c Config) Validate() error {
	var errs []error
	if _, _, err := c.hostPort(); err != nil {
		errs = append(errs, &setting.Error{Field: "Listen", Value: c.Listen, Want: "host:port, such as " + DefaultListen})
	}
	if c.DataDir == "" {
		errs = append(errs, &setting.Error{Field: "DataDir", Want: "a directory that rollcall may write"})
	}
	if c.MaxBytes < 0 {
		errs = append(errs, &setting.Error{Field: "MaxBytes", Value: strconv.FormatInt(c.MaxBytes, 10), Want: "a number of bytes, not below zero"})
	}
	return errors.Join(errs...)
}

// hostPort splits Listen the way the server's options want it: port -1 for a free one.
func (c Config) hostPort() (host string, port int, err error) {
	listen := c.Listen
	if listen == "" {
		listen = DefaultListen
	}
	host, p, err := net.SplitHostPort(listen)
	if err != nil {
		return "", 0, err
	}
	port, err = strconv.Atoi(p)
	if err != nil || port < -1 || port > 65535 {
		return "", 0, fmt.Errorf("no port: %q", p)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	return host, port, nil
}

// A Server is a running NATS server. Its methods may be called from any goroutine.
type Server struct {
	ns     *server.Server
	lock   *flock.Flock
	secret string     // what a connection has to show to be rollcall's own; never leaves the process
	gate   *nats.Conn // answers the readers' requests that have to be looked into
	stop   sync.Once
}

// Start starts a server on cfg's directory and returns when clients can connect and the streams have been recovered.
// Its errors say which setting to change; [ErrListen] and [ErrDirInUse] can be told apart.
func Start(cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	host, port, _ := cfg.hostPort() // has just been validated
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}

	lock, err := lockDir(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	s := &Server{lock: lock, secret: rand.Text()}
	if err := s.start(cfg, host, port, log); err != nil {
		s.Shutdown()
		return nil, err
	}
	return s, nil
}

func (s *Server) start(cfg Config, host string, port int, log *slog.Logger) error {
	if free, ok := diskFree(cfg.DataDir); ok && cfg.MaxBytes > 0 {
		if room := free + used(cfg.DataDir); room < cfg.MaxBytes {
			log.LogAttrs(context.Background(), slog.LevelWarn,
				"the disk has less room than the log may take: a full disk can tear a commit; lower ROLLCALL_NATS_MAX_BYTES for a new log, or make room",
				slog.String("dir", cfg.DataDir), slog.Int64("room", room), slog.Int64("maxBytes", cfg.MaxBytes))
		}
	}

	access := &access{secret: s.secret}
	opts := &server.Options{}
	// The one thing that can be said in the configuration's language only.
	if err := opts.ProcessConfigString("accounts { " + logAccount + " { jetstream: enabled } }"); err != nil {
		return fmt.Errorf("set up the embedded NATS server: %w", err)
	}
	opts.ServerName = ServerName
	opts.Host, opts.Port = host, port
	opts.MaxConn = maxConns
	opts.NoSigs = true
	opts.NoLog = true
	opts.DisableJetStreamBanner = true
	opts.JetStream = true
	opts.StoreDir = cfg.DataDir
	opts.SyncAlways = true
	opts.JetStreamMaxStore = maxStore
	opts.JetStreamMaxMemory = maxMemory
	opts.CustomClientAuthentication = access
	// Not used to authenticate anyone: it makes the server say that credentials are not required, which some clients
	// insist on.
	opts.Users = []*server.User{{Username: "reader"}}
	opts.NoAuthUser = "reader"

	ns, err := server.NewServer(opts)
	if err != nil {
		return fmt.Errorf("set up the embedded NATS server: %w", err)
	}
	s.ns = ns
	sl := newServerLog(log)
	ns.SetLogger(sl, false, false)
	if err := access.setup(ns); err != nil {
		return fmt.Errorf("set up the embedded NATS server's accounts: %w", err)
	}

	ns.Start()
	if err := sl.fatal(); err != nil {
		return startError(cfg, err)
	}
	if !ns.ReadyForConnections(readyTimeout) {
		if err := sl.fatal(); err != nil {
			return startError(cfg, err)
		}
		return fmt.Errorf("start the embedded NATS server: not ready after %v", readyTimeout)
	}
	if s.gate, err = s.Connect(nats.Name("readers' gate")); err != nil {
		return err
	}
	return openGate(s.gate)
}

// startError says what to do about what the server gave up on.
func startError(cfg Config, err error) error {
	if op := new(net.OpError); errors.As(err, &op) && op.Op == "listen" {
		listen := cfg.Listen
		if listen == "" {
			listen = DefaultListen
		}
		return fmt.Errorf("embedded NATS server: %w on %s: %w: set ROLLCALL_NATS_LISTEN to a free address, or stop what uses this one", ErrListen, listen, op.Err)
	}
	return fmt.Errorf("start the embedded NATS server on %s: %w", cfg.DataDir, err)
}

// lockDir creates the directory where it is missing, proves that it can be written, and locks it.
func lockDir(dir string) (*flock.Flock, error) {
	unusable := func(err error) error {
		return &setting.Error{Field: "DataDir", Value: dir, Want: fmt.Sprintf("a directory that rollcall may write (%v)", err)}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, unusable(err)
	}
	lock := flock.New(filepath.Join(dir, lockFile))
	ok, err := lock.TryLock()
	if err != nil {
		return nil, unusable(err)
	}
	if !ok {
		return nil, fmt.Errorf("%w: %s: stop that one, or set ROLLCALL_DATA_DIR to another directory", ErrDirInUse, dir)
	}
	probe, err := os.CreateTemp(dir, ".probe-*")
	if err != nil {
		_ = lock.Unlock()
		return nil, unusable(err)
	}
	_ = probe.Close()
	if err := os.Remove(probe.Name()); err != nil {
		_ = lock.Unlock()
		return nil, unusable(err)
	}
	return lock, nil
}

// used is how many bytes of files the directory holds, as far as they can be seen.
func used(dir string) int64 {
	var sum int64
	_ = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		if info, err := d.Info(); err == nil {
			sum += info.Size()
		}
		return nil
	})
	return sum
}

// Connect opens an in-process connection with full rights in the log's account. The caller closes it, before Shutdown.
// Options that say where to connect, or as whom, have no effect.
func (s *Server) Connect(opts ...nats.Option) (*nats.Conn, error) {
	all := append(opts[:len(opts):len(opts)], nats.InProcessServer(s.ns), nats.UserInfo(ownUser, s.secret))
	nc, err := nats.Connect("", all...)
	if err != nil {
		return nil, fmt.Errorf("connect to the embedded NATS server: %w", err)
	}
	return nc, nil
}

// ClientURL is where clients on this machine find the server, with the port it really has.
func (s *Server) ClientURL() string {
	addr, ok := s.ns.Addr().(*net.TCPAddr)
	if !ok { // shut down
		return s.ns.ClientURL()
	}
	host := addr.IP
	if host.IsUnspecified() {
		host = net.IPv4(127, 0, 0, 1)
	}
	return "nats://" + net.JoinHostPort(host.String(), strconv.Itoa(addr.Port))
}

// Shutdown closes every connection, writes out the store, waits for all that, and gives up the directory. What was
// acknowledged is on disk already. Later calls wait for the first and do nothing.
func (s *Server) Shutdown() {
	s.stop.Do(func() {
		if s.gate != nil {
			s.gate.Close()
		}
		if s.ns != nil {
			s.ns.Shutdown()
			s.ns.WaitForShutdown()
		}
		_ = s.lock.Unlock() // closes the file, and with it the lock, whatever it returns
	})
}
