// Package natsd runs the NATS server that rollcall brings along for when it is not given one.
//
// rollcall itself connects in process ([Server.Connect]) and may do everything in the stream's
// account. Whoever connects over the network gets a reader's permissions and nothing more, whatever
// credentials are shown: plain subscriptions on agent.>, and of the JetStream API what reading the
// stream AGENT_EVENTS takes. readers.go says how that is done.
//
// The store is synced to disk before anything is acknowledged. Only the client port is opened: no
// monitoring, no cluster, no leaf nodes.
//
// A server whose store can't be written any more, most often since its disk was full, is restarted
// within the process as soon as there is room; heal.go says why. To its clients, rollcall's
// own connections included, that is a restart.
package natsd

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofrs/flock"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/rollcall-events/rollcall/internal/setting"
)

// DefaultListen is where the server listens unless told otherwise: NATS's own port, on loopback
// only.
const DefaultListen = "127.0.0.1:4222"

// Errors that [Start] wraps, for callers that can do better than give up.
var (
	// ErrListen says that the listening address can't be had, most often because its port is taken.
	ErrListen = errors.New("can't listen")
	// ErrDirInUse says that another rollcall has the data directory.
	ErrDirInUse = errors.New("data directory in use by another rollcall")
	// ErrNoRoom says that the disk is full. Waiting helps, where somebody makes room.
	ErrNoRoom = errors.New("the disk is full")
)

const (
	// lockFile is locked for as long as a server uses the directory. It is never deleted: a lock on
	// a deleted file excludes nobody.
	lockFile = "rollcall.lock"

	// maxStore is the server's own limit on stored bytes. It only has to lie above that of every
	// stream, also of one that was created under another setting: a full stream refuses a commit as
	// a whole, a full server tears it.
	maxStore = 1 << 60

	// maxMemory is the server's limit on streams in memory, of which there are none.
	maxMemory = 1 << 20

	// maxConns bounds the network clients, each of which has an account of its own, of about 40 KB.
	maxConns = 1024

	readyTimeout = 30 * time.Second

	// endTimeout is how long a server may take to end, so that a process that first publishes what
	// it has seen and gives up its lease ends within 10 s. What was acknowledged is on disk by
	// then; what remains is an index, without which the next start takes longer.
	endTimeout = 1500 * time.Millisecond
)

// Config says where a server listens and keeps its store.
type Config struct {
	// Listen is host:port; empty means [DefaultListen], port 0 or -1 a free one, an empty host
	// every interface.
	Listen string
	// DataDir holds the store and is created where it is missing. One server uses it at a time.
	DataDir string
	// MaxBytes is the stream's size limit in bytes, 0 where it is not known. The server's limits do
	// not depend on it; Start warns where the disk has less room.
	MaxBytes int64
	// Logger gets the server's own messages; nil discards them.
	Logger *slog.Logger

	// Tests stage faults with these; zero: the functions and constants of the same names.
	roomFor   func(dir string) error
	ill       func(*server.Server) error
	end       func(*server.Server)
	lookEvery time.Duration
	lookWait  time.Duration
}

// Validate reports every unusable field at once, each as a [*setting.Error].
func (c Config) Validate() error {
	var errs []error
	bad := func(field, value, want string) {
		errs = append(errs, &setting.Error{Field: field, Value: value, Want: want})
	}
	if _, _, err := c.hostPort(); err != nil {
		bad("Listen", c.Listen, "host:port, such as "+DefaultListen)
	}
	if c.DataDir == "" {
		bad("DataDir", "", "a directory that rollcall may write")
	}
	if c.MaxBytes < 0 {
		bad("MaxBytes", strconv.FormatInt(c.MaxBytes, 10), "a number of bytes, not below zero")
	}
	return errors.Join(errs...)
}

// hostPort splits Listen the way the server's options want it: port -1 for a free one.
func (c Config) hostPort() (host string, port int, err error) {
	host, p, err := net.SplitHostPort(cmp.Or(c.Listen, DefaultListen))
	if err != nil {
		return "", 0, err
	}
	port, err = strconv.Atoi(p)
	if err != nil || port < -1 || port > 65535 {
		return "", 0, fmt.Errorf("not a port: %q", p)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	return host, port, nil
}

// A Server is a running NATS server. Its methods may be called from any goroutine.
type Server struct {
	cfg    Config // with the port that the first start has found
	log    *slog.Logger
	secret string     // what shows that a connection is rollcall's own; never leaves the process
	gate   *nats.Conn // answers the readers' requests that have to be looked into
	failed chan error // see Failed
	stop   sync.Once

	running atomic.Pointer[server.Server] // nil: none runs, or one is being started

	cancel context.CancelFunc // ends heal
	healed chan struct{}      // closed when heal has ended

	// What follows is heal's until it has ended.
	lock   *flock.Flock
	seen   map[string]int // what was seen of the store: paths, and the last block of each stream
	behind bool           // a server was left behind, and may still use the directory
}

// Start starts a server on cfg's directory and returns when clients can connect and the streams
// have been recovered. Its errors say which setting to change; [ErrListen], [ErrDirInUse] and
// [ErrNoRoom] can be told apart.
func Start(cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.roomFor == nil {
		cfg.roomFor = roomFor
	}
	if cfg.ill == nil {
		cfg.ill = ill
	}
	if cfg.end == nil {
		cfg.end = end
	}
	cfg.Listen = cmp.Or(cfg.Listen, DefaultListen)
	cfg.lookEvery = cmp.Or(cfg.lookEvery, lookEvery)
	cfg.lookWait = cmp.Or(cfg.lookWait, lookWait)
	lock, err := lockDir(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, log: cfg.Logger, lock: lock, secret: rand.Text(),
		failed: make(chan error, 1), seen: map[string]int{}, healed: make(chan struct{})}
	var ctx context.Context
	ctx, s.cancel = context.WithCancel(context.Background())
	if err := s.open(); err != nil {
		close(s.healed)
		s.Shutdown()
		return nil, err
	}
	_ = s.gone() // what the store holds by now is seen at once
	go s.heal(ctx)
	return s, nil
}

// open starts the first server, and the gate.
func (s *Server) open() error {
	if err := s.start(); err != nil {
		return err
	}
	// Told of a server that runs: a start on a full disk is tried again and again.
	if free, _, ok := disk(s.cfg.DataDir); ok && s.cfg.MaxBytes > 0 {
		if room := free + used(s.cfg.DataDir); room < s.cfg.MaxBytes {
			s.log.Warn("the disk has less room than the stream may take, and a full disk can tear "+
				"a commit: make room, or create the stream with a lower limit",
				"dir", s.cfg.DataDir, "room", room, "maxBytes", s.cfg.MaxBytes)
		}
	}
	if addr, ok := s.running.Load().Addr().(*net.TCPAddr); ok {
		host, _, _ := net.SplitHostPort(s.cfg.Listen)
		// Where clients look for it after a restart.
		s.cfg.Listen = net.JoinHostPort(host, strconv.Itoa(addr.Port))
	}
	var err error
	s.gate, err = s.Connect(nats.Name("readers' gate"), nats.MaxReconnects(-1),
		nats.ReconnectWait(100*time.Millisecond),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		return err
	}
	return openGate(s.gate)
}

// start starts a server on the directory, which has to be locked. It fails with ErrNoRoom where the
// disk is full: what a server does on such a disk is not known (it has panicked).
func (s *Server) start() error {
	if err := s.cfg.roomFor(s.cfg.DataDir); err != nil {
		return err
	}
	host, port, err := s.cfg.hostPort()
	if err != nil {
		return err
	}
	access := &access{secret: s.secret}
	opts := &server.Options{}
	// The one thing that can be said in the configuration's language only.
	err = opts.ProcessConfigString("accounts { " + ownAccount + " { jetstream: enabled } }")
	if err != nil {
		return fmt.Errorf("set up the embedded NATS server: %w", err)
	}
	opts.ServerName = ServerName
	opts.Host, opts.Port = host, port
	opts.MaxConn = maxConns
	opts.NoSigs = true
	opts.NoLog = true
	opts.DisableJetStreamBanner = true
	opts.JetStream = true
	opts.StoreDir = s.cfg.DataDir
	opts.SyncAlways = true
	opts.JetStreamMaxStore = maxStore
	opts.JetStreamMaxMemory = maxMemory
	opts.CustomClientAuthentication = access
	// Not used to authenticate anyone: it makes the server say that credentials are not required,
	// which some clients insist on.
	opts.Users = []*server.User{{Username: "reader"}}
	opts.NoAuthUser = "reader"

	ns, err := server.NewServer(opts)
	if err != nil {
		return fmt.Errorf("set up the embedded NATS server: %w", err)
	}
	// Only when it has started: a connection in process is taken before the streams have been read
	// from the store, and would be told that there are none.
	defer s.running.Store(ns)
	sl := newServerLog(s.log)
	ns.SetLogger(sl, false, false)
	if err := access.setup(ns); err != nil {
		return fmt.Errorf("set up the embedded NATS server's accounts: %w", err)
	}
	ns.Start()
	if sl.fatal() == nil && !ns.ReadyForConnections(readyTimeout) && sl.fatal() == nil {
		return fmt.Errorf("start the embedded NATS server: not ready after %v", readyTimeout)
	}
	if err := sl.fatal(); err != nil {
		return startError(s.cfg, err)
	}
	return nil
}

// startError says what to do about what the server gave up on.
func startError(cfg Config, err error) error {
	if op := new(net.OpError); errors.As(err, &op) && op.Op == "listen" {
		return fmt.Errorf("embedded NATS server: %w on %s: %w: %s", ErrListen, cfg.Listen, op.Err,
			setting.Text("set {Listen} to a free address, or stop what uses this one"))
	}
	if full(err) {
		err = fmt.Errorf("%w: %w: make room", ErrNoRoom, err)
	}
	return fmt.Errorf("start the embedded NATS server on %s: %w", named(cfg.DataDir), err)
}

// lockDir creates the directory where it is missing, proves that it can be written, and locks it.
func lockDir(dir string) (*flock.Flock, error) {
	unusable := func(err error) error {
		if full(err) {
			return fmt.Errorf("%w: %w: make room for %s", ErrNoRoom, err, named(dir))
		}
		return unusableDir(dir, err)
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
		return nil, fmt.Errorf("%w: %s: %s", ErrDirInUse, dir,
			setting.Text("stop that one, or set {DataDir} to another directory"))
	}
	probe, err := os.CreateTemp(dir, ".probe-*")
	if err == nil {
		_ = probe.Close()
		err = os.Remove(probe.Name())
	}
	if err != nil {
		_ = lock.Unlock()
		return nil, unusable(err)
	}
	return lock, nil
}

// named is the data directory, with the setting that names it.
func named(dir string) string { return dir + setting.Text(" ({DataDir})") }

// unusableDir says that the data directory can't be used.
func unusableDir(dir string, err error) error {
	return &setting.Error{Field: "DataDir", Value: dir,
		Want: fmt.Sprintf("a directory that rollcall may write (%v)", err)}
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

// Connect opens an in-process connection with full rights in the stream's account. The caller
// closes it, before Shutdown. Options that say where to connect, or as whom, have no effect. With
// [nats.MaxReconnects] below zero it outlives restarts of the server.
func (s *Server) Connect(opts ...nats.Option) (*nats.Conn, error) {
	own := []nats.Option{nats.InProcessServer(s), nats.UserInfo(ownUser, s.secret)}
	nc, err := nats.Connect("", slices.Concat(opts, own)...)
	if err != nil {
		return nil, fmt.Errorf("connect to the embedded NATS server: %w", err)
	}
	return nc, nil
}

// InProcessConn implements [nats.InProcessConnProvider]: it connects to the server that runs now.
func (s *Server) InProcessConn() (net.Conn, error) {
	ns := s.running.Load()
	if ns == nil {
		return nil, errors.New("the embedded NATS server is being restarted")
	}
	return ns.InProcessConn()
}

// Failed gets the error that ends the server's life where only a new process helps. Nothing is
// committed any more then; what is left to do is to end the process, with an exit code that has it
// started again.
func (s *Server) Failed() <-chan error { return s.failed }

// ClientURL is where clients on this machine find the server, with the port it really has.
func (s *Server) ClientURL() string {
	host, port, _ := net.SplitHostPort(s.cfg.Listen)
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "nats://" + net.JoinHostPort(host, port)
}

// Shutdown hands out what is on its way to clients, closes every connection, writes out the store,
// waits for all that, and gives up the directory. What was acknowledged is on disk already, so a
// server that does not end within 1.5 seconds is left behind, and keeps the directory until the
// process ends. Later calls wait for the first and do nothing.
func (s *Server) Shutdown() {
	s.stop.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
		defer cancel()
		s.cancel()
		select {
		case <-s.healed:
			if s.gate != nil {
				s.gate.Close()
			}
			if s.endRunning(ctx) {
				_ = s.lock.Unlock() // closes the file, and with it the lock, whatever it returns
				return
			}
		case <-ctx.Done(): // it is being restarted
		}
		s.log.Warn("the embedded NATS server does not end, and is left behind; everything that it "+
			"has acknowledged is on disk", "waited", endTimeout)
	})
}

// endRunning ends the server that runs, and reports whether it, and every one before it, has ended.
// Where ctx ends before, it is left behind.
func (s *Server) endRunning(ctx context.Context) bool {
	ns := s.running.Swap(nil)
	if ns == nil || s.behind {
		return !s.behind
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.cfg.end(ns)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
		s.behind = true
	}
	return !s.behind
}

// end ends a server and waits for it.
func end(ns *server.Server) {
	ns.Shutdown()
	ns.WaitForShutdown()
}
