//go:build unix

package permissions

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"github.com/rollcall-events/rollcall/internal/test/e2e"
)

func TestMain(m *testing.M) { os.Exit(e2e.Main(m)) }

// deployed is where the files are.
const deployed = "../../../deploy/nats"

// A user signs in with an NKey.
type user struct {
	public   string
	seedFile string // as in ROLLCALL_NATS_NKEY_FILE
	opt      nats.Option
}

func newUser(t testing.TB) user {
	t.Helper()
	kp, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, err := kp.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := kp.Seed()
	if err != nil {
		t.Fatal(err)
	}
	u := user{public: public, seedFile: filepath.Join(t.TempDir(), "user.nk"),
		opt: nats.Nkey(public, kp.Sign)}
	if err := os.WriteFile(u.seedFile, append(seed, '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
	return u
}

// users are those of accounts.conf.
type users struct{ rollcall, operator, copyOperator, reader user }

func newUsers(t testing.TB) users {
	t.Helper()
	return users{newUser(t), newUser(t), newUser(t), newUser(t)}
}

// variables are what the files take from the environment.
func (u users) variables(t testing.TB) map[string]string {
	t.Helper()
	return map[string]string{
		"NATS_STORE_DIR":          t.TempDir(),
		"NATS_NKEY_ROLLCALL":      u.rollcall.public,
		"NATS_NKEY_OPERATOR":      u.operator.public,
		"NATS_NKEY_COPY_OPERATOR": u.copyOperator.public,
		"NATS_NKEY_READER":        u.reader.public,
	}
}

// A node is a nats-server on one of the files. Only its port is another.
type node struct {
	t    testing.TB
	file string
	vars map[string]string
	port int
	*server.Server
	log *serverLog
	url string
}

// start runs a server on a file until the test ends; Start it again after stop.
func start(t *testing.T, file string, vars map[string]string) *node {
	t.Helper()
	return startLogging(t, file, vars, &serverLog{})
}

func startLogging(t *testing.T, file string, vars map[string]string, log *serverLog) *node {
	t.Helper()
	n := &node{t: t, file: file, vars: vars, port: e2e.FreePort(t), log: log}
	t.Cleanup(func() {
		n.stop()
		if t.Failed() {
			t.Logf("the server's log:\n%s", n.log.String())
		}
	})
	n.start()
	return n
}

// environment is held while the process's environment is not its own.
var environment sync.Mutex

// options reads the file with the variables set, and only those.
func options(file string, vars map[string]string) (*server.Options, error) {
	environment.Lock()
	defer environment.Unlock()
	for name, v := range vars {
		if err := os.Setenv(name, v); err != nil {
			return nil, err
		}
		defer os.Unsetenv(name)
	}
	return server.ProcessConfigFile(file)
}

func (n *node) start() {
	n.t.Helper()
	opts, err := options(n.file, n.vars)
	if err != nil {
		n.t.Fatalf("%s: %v", n.file, err)
	}
	if opts.Host != "127.0.0.1" {
		n.t.Fatalf("%s listens on %q", n.file, opts.Host)
	}
	opts.Port, opts.NoSigs, opts.Trace = n.port, true, n.log.published != nil
	n.run(opts)
}

func (n *node) run(opts *server.Options) {
	n.t.Helper()
	s, err := server.NewServer(opts)
	if err != nil {
		n.t.Fatalf("%s: %v", n.file, err)
	}
	s.SetLoggerV2(n.log, true, n.log.published != nil, false)
	n.Server = s
	go s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		n.t.Fatalf("%s: the server does not become ready\n%s", n.file, n.log.String())
	}
	u, err := url.Parse(s.ClientURL())
	if err != nil {
		n.t.Fatal(err)
	}
	n.url = u.Scheme + "://127.0.0.1:" + u.Port()
}

func (n *node) stop() {
	if n.Server != nil {
		n.Shutdown()
		n.WaitForShutdown()
	}
}

// serverLog keeps what a server logs.
type serverLog struct {
	mu    sync.Mutex
	lines []string
	// what clients by the name of rollcall have published on; filled only where not nil
	published map[string]bool
}

func (l *serverLog) add(level, format string, v ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, level+fmt.Sprintf(format, v...))
}
func (l *serverLog) Noticef(f string, v ...any) { l.add("INF ", f, v...) }
func (l *serverLog) Warnf(f string, v ...any)   { l.add("WRN ", f, v...) }
func (l *serverLog) Fatalf(f string, v ...any)  { l.add("FTL ", f, v...) }
func (l *serverLog) Errorf(f string, v ...any)  { l.add("ERR ", f, v...) }
func (l *serverLog) Debugf(f string, v ...any)  { l.add("DBG ", f, v...) }

// Tracef looks for what is published.
func (l *serverLog) Tracef(f string, v ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.published == nil {
		return
	}
	line := fmt.Sprintf(f, v...)
	if _, op, ok := strings.Cut(line, "PUB "); ok && strings.Contains(line, ":rollcall ") {
		subject, _, _ := strings.Cut(op, " ")
		l.published[subject] = true
	}
}

func (l *serverLog) String() string { return strings.Join(l.with(""), "\n") }

// with returns the lines that contain text.
func (l *serverLog) with(text string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(l.lines), func(s string) bool {
		return !strings.Contains(s, text) || text == "" && strings.HasPrefix(s, "DBG ")
	})
}

// violations are what the server has refused its clients.
func (l *serverLog) violations() []string { return l.with("iolation") }

// connect connects a user until the test ends.
func (n *node) connect(opts ...nats.Option) *nats.Conn {
	n.t.Helper()
	nc, err := nats.Connect(n.url,
		append([]nats.Option{nats.MaxReconnects(-1), nats.ReconnectWait(20 * time.Millisecond),
			nats.ReconnectJitter(0, 0),
			nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})}, opts...)...)
	if err != nil {
		n.t.Fatalf("connect: %v", err)
	}
	n.t.Cleanup(nc.Close)
	return nc
}

// add creates a stream from one of the files, as "nats stream add --config" does.
func add(t testing.TB, nc *nats.Conn, file string, replicas int) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(deployed, file))
	if err != nil {
		t.Fatal(err)
	}
	var cfg map[string]any
	if err := json.Unmarshal(b, &cfg); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	cfg["num_replicas"] = replicas
	if b, err = json.Marshal(cfg); err != nil {
		t.Fatal(err)
	}
	var answer server.JSApiStreamCreateResponse
	request(t, nc, fmt.Sprintf("$JS.API.STREAM.CREATE.%v", cfg["name"]), b, &answer)
	if answer.Error != nil {
		t.Fatalf("create %s: %v", file, answer.Error)
	}
}

func request(t testing.TB, nc *nats.Conn, subject string, body []byte, answer any) {
	t.Helper()
	m, err := nc.Request(subject, body, 10*time.Second)
	if err != nil {
		t.Fatalf("%s: %v", subject, err)
	}
	if err := json.Unmarshal(m.Data, answer); err != nil {
		t.Fatalf("%s: %v", subject, err)
	}
}

// last is the last sequence of the stream, or of its copy, as nc sees it; 0: it can't be had.
func last(js jetstream.JetStream) uint64 {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	s, err := js.Stream(ctx, e2e.Stream)
	if err != nil {
		return 0
	}
	return s.CachedInfo().State.LastSeq
}

func stream(t testing.TB, nc *nats.Conn, domain string) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(nc)
	if domain != "" {
		js, err = jetstream.NewWithDomain(nc, domain)
	}
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// edited copies the files to a directory of the test's own, and replaces in one of them what occurs
// there exactly once.
func edited(t testing.TB, file string, oldNew ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(deployed)); err != nil {
		t.Fatal(err)
	}
	edit(t, filepath.Join(dir, file), oldNew...)
	return dir
}

func edit(t testing.TB, path string, oldNew ...string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := string(b)
	for pair := range slices.Chunk(oldNew, 2) {
		if n := strings.Count(s, pair[0]); n != 1 {
			t.Fatalf("%s: %q occurs %d times", path, pair[0], n)
		}
		s = strings.Replace(s, pair[0], pair[1], 1)
	}
	if err := os.WriteFile(path, []byte(s), 0o600); err != nil {
		t.Fatal(err)
	}
}
