//go:build ci && unix

package board

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rollcall-events/rollcall/diff"
	"github.com/rollcall-events/rollcall/internal/engine"
	"github.com/rollcall-events/rollcall/internal/ops"
	"github.com/rollcall-events/rollcall/internal/tenantsim"
	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
	"github.com/rollcall-events/rollcall/poller"
	"github.com/rollcall-events/rollcall/poller/isdp"
	"github.com/rollcall-events/rollcall/publisher"
)

// The stage is rollcall with a board, a simulated tenant and a nats-server, in a process of its
// own, and a second HTTP server that says what is to happen to them: for the browser tests, the
// screenshots and the measurements, and for whoever wants to look.
var (
	stageListen = flag.String("stage", "",
		"run the stage in place of the tests, with the board on this address (127.0.0.1:8080)")
	stageAgents   = flag.Int("stage.agents", 340, "agents of the stage's tenant")
	stageChurn    = flag.Float64("stage.churn", 0, "changes a second of the stage's tenant")
	stageInterval = flag.Duration("stage.interval", 250*time.Millisecond,
		"poll interval on the stage")
	stageNATS = flag.String("stage.nats", "",
		"only a board on the stage, which reads the stream of this NATS server")
	stagePast = flag.Duration("stage.past", 0,
		"let the stage's first half minute be so long, for agents that have been on duty for hours")
)

func init() {
	runStage = func() bool {
		if *stageListen == "" {
			return false
		}
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		err := stage(ctx, func(board, control, nats string) error {
			return json.NewEncoder(os.Stdout).Encode(map[string]string{"board": board,
				"control": control, "nats": nats})
		})
		if err != nil {
			fmt.Fprintln(os.Stderr, "stage:", err)
			os.Exit(1)
		}
		return true
	}
}

type play struct {
	began  time.Time
	dir    string
	sim    *isdpsim.Tenant
	url    string // of the sim
	listen string

	broker  *server.Server // nil: stopped
	natsURL string

	nc         *nats.Conn
	board      *Board
	stopBoard  func() // nil: stopped
	stopEngine func() // nil: stopped

	front    *front
	frontURL string
	otherURL string // of a board of another build
}

// stage runs until ctx ends, or ready returns an error. It is told the addresses of the board, of
// the second server and of NATS.
func stage(ctx context.Context, ready func(board, control, nats string) error) error {
	dir, err := os.MkdirTemp("", "rollcall-board-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	sim := isdpsim.New(isdpsim.Config{Agents: *stageAgents, Seed: 7, Churn: *stageChurn})
	vendor, err := tenantsim.Listen("127.0.0.1:0", sim)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { _ = vendor.Serve(ctx) })
	wg.Go(func() { _ = sim.Run(ctx) })

	p := &play{began: time.Now(), dir: dir, sim: sim, url: vendor.URL, listen: *stageListen}
	defer p.stop()
	start := p.start
	if *stageNATS != "" {
		p.natsURL, start = *stageNATS, func() error {
			return errors.Join(p.connect(), p.startBoard())
		}
	}
	if err := start(); err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if err := p.startFronts(ctx, &wg); err != nil {
		return err
	}
	control := &http.Server{Handler: p}
	wg.Go(func() { _ = control.Serve(ln) })
	defer control.Close()
	if err := ready("http://"+p.listen, "http://"+ln.Addr().String(), p.natsURL); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// startFronts starts what browsers may meet on their way to the board, and a second board, whose
// build is another.
func (p *play) startFronts(ctx context.Context, wg *sync.WaitGroup) error {
	p.front = newFront(func() string {
		if is, _ := p.front.now(); is == "other" {
			return p.otherURL
		}
		return "http://" + p.listen
	})
	js, err := jetstream.New(p.nc)
	if err != nil {
		return err
	}
	other := New(Config{Tenant: p.sim.TenantID(), JetStream: js, Instance: "replica-2"})
	other.site = newSite(p.sim.TenantID(), func(name string) []byte {
		return append(slices.Clone(read(name)), '\n')
	})
	other.mux = http.NewServeMux()
	other.routes()
	wg.Go(func() { _ = other.Run(ctx) })
	for _, s := range []struct {
		url     *string
		handler http.Handler
	}{{&p.frontURL, p.front}, {&p.otherURL, other}} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		*s.url = "http://" + ln.Addr().String()
		srv := &http.Server{Handler: s.handler}
		wg.Go(func() { _ = srv.Serve(ln) })
		context.AfterFunc(ctx, func() { _ = srv.Close() })
	}
	return nil
}

// now is rollcall's clock, which begins in the past and catches up.
func (p *play) now() time.Time {
	now := time.Now()
	const fast = 30 * time.Second
	if gone := now.Sub(p.began); gone < fast {
		return now.Add(-time.Duration(float64(*stagePast) * (1 - gone.Seconds()/fast.Seconds())))
	}
	return now
}

// start starts what does not run.
func (p *play) start() error {
	if p.broker == nil {
		if err := p.startNATS(); err != nil {
			return err
		}
	}
	if p.stopEngine == nil {
		if err := p.startEngine(); err != nil {
			return err
		}
	}
	if p.stopBoard == nil {
		return p.startBoard()
	}
	return nil
}

// stop stops everything, whatever has been started.
func (p *play) stop() {
	end(&p.stopBoard)
	end(&p.stopEngine)
	if p.nc != nil {
		p.nc.Close()
	}
	p.stopNATS()
}

// end calls a function that stops something, once.
func end(stop *func()) {
	if *stop != nil {
		(*stop)()
	}
	*stop = nil
}

func (p *play) startNATS() error {
	opts := &server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true,
		StoreDir: p.dir, NoLog: true, NoSigs: true}
	if p.natsURL != "" {
		_, port, _ := net.SplitHostPort(p.natsURL[len("nats://"):])
		opts.Port, _ = strconv.Atoi(port)
	}
	s, err := server.NewServer(opts)
	if err != nil {
		return err
	}
	go s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		return fmt.Errorf("the nats-server does not become ready")
	}
	p.broker, p.natsURL = s, s.ClientURL()
	return p.connect()
}

func (p *play) connect() (err error) {
	if p.nc == nil {
		p.nc, err = nats.Connect(p.natsURL, nats.MaxReconnects(-1), nats.ReconnectBufSize(-1),
			nats.ReconnectWait(50*time.Millisecond))
	}
	return err
}

func (p *play) stopNATS() {
	if p.broker == nil {
		return
	}
	p.broker.Shutdown()
	p.broker.WaitForShutdown()
	p.broker = nil
}

func (p *play) startEngine() error {
	client, err := isdp.New(isdp.Config{BaseURL: p.url, ClientID: isdpsim.DemoClientID,
		ClientSecret: isdpsim.DemoClientSecret,
		Username:     isdpsim.DemoUsername, Password: isdpsim.DemoPassword,
		RequestTimeout: 2 * time.Second, RateLimit: 2000,
		MaxRowBytes: func() int { return 64 << 10 }, Now: p.now})
	if err != nil {
		return err
	}
	source, err := poller.New(poller.Config{Now: p.now}, client)
	if err != nil {
		return err
	}
	pub, err := publisher.Open(context.Background(), p.nc,
		publisher.Config{Tenant: p.sim.TenantID(), Instance: "replica-1", Replicas: 1, Manage: true,
			EventsMaxAge: 24 * time.Hour, MaxBytes: 1 << 30, LeaseTTL: 2 * time.Second})
	if err != nil {
		return err
	}
	e := engine.New(engine.Config{Tenant: p.sim.TenantID(), Interval: *stageInterval,
		Rules: diff.Rules{
			RemoveAfter: 2, MaxMissing: 0.3, MissingHold: time.Hour, BufferEvents: 100_000,
		}, Grace: time.Second,
		MaxBody: func() int { return publisher.MaxBody(p.nc) }, Now: p.now}, source, pub)
	p.stopEngine = background(func(ctx context.Context) { _ = pub.Lead(ctx, e.Run) })
	return nil
}

func (p *play) startBoard() error {
	js, err := jetstream.New(p.nc)
	if err != nil {
		return err
	}
	p.board = New(Config{Tenant: p.sim.TenantID(), JetStream: js, Instance: "replica-1",
		MaxPages: 300,
		Logger:   slog.New(slog.NewTextHandler(os.Stderr, nil))})
	ln, err := net.Listen("tcp", p.listen)
	if err != nil {
		return err
	}
	p.listen = ln.Addr().String()
	srv := &http.Server{Handler: ops.Handler(ops.Options{
		Process: ops.NewProcess("replica-1", nil), Metrics: prometheus.NewRegistry(),
		Board: p.board, LocalOnly: true})}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(ln)
	}()
	stop := background(func(ctx context.Context) { _ = p.board.Run(ctx) })
	p.stopBoard = func() {
		stop()
		_ = srv.Shutdown(context.Background())
		<-served
	}
	return nil
}

// background runs until the returned function is called, which waits for the end.
func background(run func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		run(ctx)
	}()
	return func() { cancel(); <-done }
}

// ServeHTTP lets something happen: GET /online?id=17813 and so on.
func (p *play) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id, _ := strconv.ParseInt(r.FormValue("id"), 10, 64)
	var err error
	switch r.URL.Path {
	case "/online":
		p.sim.SetOnline(id, true)
	case "/offline":
		p.sim.SetOnline(id, false)
	case "/edit":
		var fields isdpsim.Fields
		if err = json.Unmarshal([]byte(r.FormValue("fields")), &fields); err == nil {
			p.sim.Edit(id, fields)
		}
	case "/delete":
		p.sim.Delete(id)
	case "/churn":
		n, _ := strconv.Atoi(r.FormValue("n"))
		p.sim.Churn(n)
	case "/fault":
		switch r.FormValue("is") {
		case "status":
			p.sim.SetFault(isdpsim.OnAgents(isdpsim.Status(502)))
		case "half":
			p.sim.SetFault(isdpsim.OnAgents(isdpsim.EmptyListing()))
		default:
			p.sim.SetFault(nil)
		}
	case "/freeze":
		end(&p.stopEngine)
	case "/nats-stop":
		p.stopNATS()
	case "/stop": // rollcall, as a whole
		end(&p.stopBoard)
		end(&p.stopEngine)
	case "/start": // whatever was stopped
		err = p.start()
	case "/front":
		p.front.be(r.FormValue("is"))
	case "/addresses":
		err = json.NewEncoder(w).Encode(map[string]string{"front": p.frontURL,
			"other": p.otherURL})
	case "/full":
		n, _ := strconv.Atoi(r.FormValue("most"))
		p.board.mu.Lock()
		p.board.cfg.MaxPages = n
		p.board.mu.Unlock()
	case "/pages":
		p.board.mu.Lock()
		pages := p.board.pages
		p.board.mu.Unlock()
		_, err = fmt.Fprint(w, pages)
	case "/reset":
		p.sim.SetFault(nil)
		p.front.be("")
		if err = p.start(); err == nil {
			p.board.mu.Lock()
			p.board.cfg.MaxPages = 300
			p.board.mu.Unlock()
		}
	case "/usage":
		var u syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
		debug.FreeOSMemory()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		p.board.mu.Lock()
		pages := p.board.pages
		p.board.mu.Unlock()
		err = json.NewEncoder(w).Encode(map[string]any{"cpu": time.Duration(u.Utime.Nano() +
			u.Stime.Nano()).Seconds(), "heap": m.HeapAlloc,
			"stack": m.StackInuse, "pages": pages})
	default:
		err = fmt.Errorf("there is no %s", r.URL.Path)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
}
