//go:build unix

package check_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/internal/check"
	"github.com/rollcall-events/rollcall/internal/natsd"
	"github.com/rollcall-events/rollcall/internal/natsdial"
	"github.com/rollcall-events/rollcall/internal/query"
	"github.com/rollcall-events/rollcall/internal/test/e2e"
	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
	"github.com/rollcall-events/rollcall/internal/test/natstest"
	"github.com/rollcall-events/rollcall/internal/test/wait"
	"github.com/rollcall-events/rollcall/poller"
	"github.com/rollcall-events/rollcall/poller/isdp"
	"github.com/rollcall-events/rollcall/publisher"
	"github.com/rollcall-events/rollcall/schemas"
)

// calm is an interval after which nothing is stale for as long as a test takes; the first sweep is
// at once.
const calm = "1m"

// config is a good setting.
func config(v *e2e.Vendor, natsURL string) check.Config {
	e := v.Env()
	var servers *natsdial.Servers
	if natsURL != "" {
		servers = natsdial.At(natsURL)
	}
	return check.Config{
		Vendor: isdp.Config{
			BaseURL: v.URL, ClientID: e["ROLLCALL_ISDP_CLIENT_ID"],
			ClientSecret: e["ROLLCALL_ISDP_CLIENT_SECRET"],
			Username:     e["ROLLCALL_ISDP_USERNAME"], Password: e["ROLLCALL_ISDP_PASSWORD"],
			RequestTimeout: 10 * time.Second, PageSize: 50, RateLimit: 10,
		},
		Poller: poller.Config{Concurrency: 4},
		Publisher: publisher.Config{Instance: "check", Replicas: 1, Manage: true,
			EventsMaxAge: time.Hour, MaxBytes: 1 << 26, LeaseTTL: 10 * time.Second},
		Interval: 5 * time.Second,
		NATS:     servers,
	}
}

// lines runs a check and returns its results as "level name: text > do".
func lines(t *testing.T, c check.Config) (out []string, r *check.Report) {
	t.Helper()
	r = &check.Report{}
	check.Run(t.Context(), c, func(res check.Result) {
		r.Add(res)
		line := fmt.Sprintf("%s %s: %s", res.Level, res.Name, res.Text)
		if res.Do != "" {
			line += " > " + res.Do
		}
		out = append(out, line)
	})
	return out, r
}

// wantLines fails the test unless each of the texts is part of one line.
func wantLines(t *testing.T, lines []string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		found := false
		for _, l := range lines {
			found = found || strings.Contains(l, want)
		}
		if !found {
			t.Errorf("no line says %q:\n%s", want, strings.Join(lines, "\n"))
		}
	}
}

// everything is all that a broker keeps: of each stream its configuration, its state and its
// consumers.
func everything(t *testing.T, url string) map[string]*jetstream.StreamInfo {
	t.Helper()
	js, err := jetstream.New(natstest.Connect(t, url))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), wait.Patience)
	defer cancel()
	all := make(map[string]*jetstream.StreamInfo)
	streams := js.ListStreams(ctx)
	for info := range streams.Info() {
		all[info.Config.Name] = info
	}
	if err := streams.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// What is there is the same afterwards, and what is not is still not there; and the vendor is asked
// exactly what the documentation says.
func TestChangesNothing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		types string
		pages int
		run   bool // rollcall, before
	}{{"a new broker", "", 1, false}, {"a log", "", 1, true}, {"two types", "0,10", 2, true}} {
		t.Run(c.name, func(t *testing.T) {
			v := e2e.NewVendor(t, isdpsim.Config{Agents: 120})
			url := broker(t, &server.Options{})
			env := e2e.Settings(v.Env(),
				map[string]string{"ROLLCALL_NATS_URL": url, "ROLLCALL_ISDP_TYPES": c.types,
					"ROLLCALL_POLL_INTERVAL": calm})
			if c.run {
				p := e2e.Rollcall(t, env)
				p.WaitFor("first complete sweep")
				if code, _ := p.Terminate(); code != 0 {
					t.Fatalf("exit %d", code)
				}
			}
			before, asked := everything(t, url), v.Stats()
			p := e2e.Rollcall(t, env, "check")
			if code := p.Wait(); code != 0 {
				t.Errorf("exit %d:\n%s", code, p.Output())
			}
			if d := cmp.Diff(before, everything(t, url),
				cmpopts.IgnoreFields(jetstream.StreamInfo{}, "TimeStamp")); d != "" {
				t.Errorf("the broker has changed:\n%s", d)
			}
			if c.run == (len(before) == 0) {
				t.Errorf("%d streams before", len(before))
			}
			now := v.Stats()
			if tokens, pages, all := now.TokenRequests-asked.TokenRequests,
				now.PageRequests-asked.PageRequests, now.Requests-asked.Requests; tokens != 1 ||
				pages != c.pages || all != 1+c.pages {
				t.Errorf("%d token calls, %d page calls, %d in all", tokens, pages, all)
			}
			at80(t, p)
			p.NoSecrets(v.Secrets()...)
			if c.run {
				wantSpoken(t, p, "ok permissions", "ok stream AGENT_EVENTS fits",
					"ok bucket bucket rollcall fits", "ok lease nobody polls tenant 886 now",
					"ok alarm ROLLCALL_ALARM fits",
					"agents,", "rollcall can do its work.")
			} else {
				wantSpoken(t, p, "ok stream AGENT_EVENTS does not exist; rollcall creates it, "+
					"with 1 replica and at most 64 MiB",
					"ok bucket bucket rollcall does not exist; rollcall creates it",
					"ok alarm ROLLCALL_ALARM does not exist; rollcall creates it")
			}
		})
	}
}

// What a refused message could change, were it not refused: where nothing is denied, the header
// alone keeps it out.
func TestRefusedForWhatItSays(t *testing.T) {
	t.Parallel()
	url := broker(t, &server.Options{})
	nc := natstest.Connect(t, url)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := publisher.Open(t.Context(), nc,
		publisher.Config{Tenant: 886, Instance: "x", Replicas: 1, Manage: true,
			EventsMaxAge: time.Hour,
			MaxBytes:     1 << 20, LeaseTTL: 2 * time.Second}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: schemas.AlarmStream,
		Subjects: []string{schemas.AlarmPrefix + ">"}, AllowMsgSchedules: true}); err != nil {
		t.Fatal(err)
	}
	for _, n := range slices.Concat(publisher.Needs(886, true), publisher.AlarmNeeds(886, true)) {
		if n.Stream == "" {
			continue
		}
		m := nats.NewMsg(n.Subject)
		if _, err := js.PublishMsg(t.Context(), m); err != nil {
			t.Errorf("%s, without the header: %v", n.Subject, err)
		}
		m.Header.Set(jetstream.ExpectedStreamHeader, "no-such-stream")
		if _, err := js.PublishMsg(t.Context(), m); err == nil {
			t.Errorf("%s was stored", n.Subject)
		}
	}
}

// Of several listings the one that fails is named.
func TestListingIsNamed(t *testing.T) {
	t.Parallel()
	v := e2e.NewVendor(t, isdpsim.Config{Agents: 60})
	v.SetFault(func(q isdpsim.Request) isdpsim.Fault {
		if q.Endpoint == isdpsim.AgentsEndpoint && q.Type == 10 {
			return isdpsim.HTML()
		}
		return nil
	})
	cfg := config(v, broker(t, &server.Options{}))
	cfg.Vendor.Types = []int{0, 10}
	out, _ := lines(t, cfg)
	wantLines(t, out, "failure listing: type 10: the answer is HTML or XML, not JSON")
}

func TestOddListing(t *testing.T) {
	t.Parallel()
	fields := func(name, value string) isdpsim.Fault {
		return isdpsim.ChangeRow(1, isdpsim.Fields{name: value})
	}
	natsURL := broker(t, &server.Options{})
	for _, c := range []struct {
		name  string
		fault isdpsim.Fault
		want  string
		exit  int
	}{
		{"undocumented", fields("mood", `"good"`), "ok listing: fields that the vendor does not " +
			"document: ", 0},
		{"dropped", fields("capacity", `{"a": 1}`), "warning listing: fields whose value is of a " +
			"kind that it should not be: capacity (1) > they are left out", 0},
		{"status", fields("onlineStatus", "2"), "warning listing: onlineStatus other than 0 and " +
			"1: 2 (1) > it counts as not online", 0},
		{"not text", isdpsim.ChangeRow(1, isdpsim.Fields{"agentName": "\"\xd5\xc5\""}),
			"warning listing: 1 row that can't be used: agentName is not UTF-8, and can be read " +
				"as GBK: the answer's Content-Type has to name that charset", 0},
		{"not every parser's", isdpsim.ChangeRow(1, isdpsim.Fields{"mood": `"\ud800"`}),
			"warning listing: 1 value that not every JSON parser takes", 0},
		{"rejected", isdpsim.All(fields("agentId", `"?"`),
			isdpsim.ChangeRow(2, isdpsim.Fields{"tenantId": "9"})),
			"warning listing: rows that can't be used, by reason: agentId (1), tenant (1)", 0},
		{"most rejected", isdpsim.Rows(func(rows []isdpsim.Row) []isdpsim.Row {
			for i := range rows[:6] {
				row, err := isdpsim.Patch(rows[i].JSON, isdpsim.Fields{"onlineStatus": "true"})
				if err != nil {
					panic(err)
				}
				rows[i].JSON = row
			}
			return rows
		}), "failure listing: 6 of 50 rows that can't be used, by reason: onlineStatus (6) > " +
			"their agents stay published as they were", 1},
		{"twice", isdpsim.All(isdpsim.DropRows(3), isdpsim.DuplicateRow(1, nil)),
			"warning listing: agents listed more than once: 17814", 0},
		{"page size", isdpsim.DropRows(nums(20, 50)...),
			"failure listing: asked for 50 agents a page, got 20 of 60: pageSize is not " +
				"honoured, so no sweep would be complete > set ROLLCALL_PAGE_SIZE=20", 1},
		{"too many rows", isdpsim.TotalCount(4), "failure listing: the page has 50 rows, and " +
			"total_count 4 calls for 4", 1},
		{"another page", isdpsim.Pos(3), "failure listing: the answer was for another page than " +
			"the first", 1},
		{"empty", isdpsim.EmptyListing(), "warning listing: the listing is empty", 0},
		{"clock ahead", isdpsim.Header("Date",
			time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)),
			"ahead of this machine's > one of the two is wrong", 0},
		{"clock behind", isdpsim.Header("Date",
			time.Now().Add(-2*time.Minute).UTC().Format(http.TimeFormat)),
			"behind this machine's > one of the two is wrong", 0},
		{"hostile name", fields("mood\x1b[31m\n"+strings.Repeat("长", 500), "1"), "mood [31m 长长", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := e2e.NewVendor(t, isdpsim.Config{Agents: 60})
			v.SetFault(isdpsim.OnAgents(c.fault))
			out, r := lines(t, config(v, natsURL))
			wantLines(t, out, c.want)
			if r.Exit != c.exit {
				t.Errorf("exit %d:\n%s", r.Exit, strings.Join(out, "\n"))
			}
			if strings.ContainsAny(strings.Join(out, ""), "\x1b\n") {
				t.Errorf("%q", out)
			}
		})
	}
}

func nums(from, to int) (out []int) {
	for i := from; i < to; i++ {
		out = append(out, i)
	}
	return out
}

func TestRate(t *testing.T) {
	t.Parallel()
	v := e2e.NewVendor(t, isdpsim.Config{Agents: 1})
	natsURL := broker(t, &server.Options{})
	v.SetFault(isdpsim.OnAgents(isdpsim.All(isdpsim.TotalCount(100_000),
		isdpsim.Rows(func(rows []isdpsim.Row) []isdpsim.Row {
			var out []isdpsim.Row
			for i := range 50 {
				row, err := isdpsim.Patch(rows[0].JSON,
					isdpsim.Fields{"agentId": strconv.Itoa(i + 1)})
				if err != nil {
					t.Error(err)
				}
				out = append(out, isdpsim.Row{ID: int64(i + 1), JSON: row})
			}
			return out
		}))))
	for _, c := range []struct {
		name string
		with func(*check.Config)
		want string
		exit int
	}{
		{"slower than the interval", func(*check.Config) {},
			"warning rate: a sweep of 2000 pages takes about 3m20s at 10 requests a second, 4 at " +
				"a time, and ROLLCALL_POLL_INTERVAL is 5s > the next sweep waits for the last to " +
				"end, so changes show after about 3m20s; raise ROLLCALL_RATE_LIMIT", 0},
		{"fits", func(c *check.Config) { c.Interval = 10 * time.Minute },
			"ok rate: a sweep of 2000 pages takes about 3m20s", 0},
		{"as the vendor is known to allow",
			func(c *check.Config) { c.Vendor.RateLimit, c.Interval = 1, time.Hour },
			"ok rate: a sweep of 2000 pages takes about 33m19s at 1 request a second, 4 at a " +
				"time; every 1h", 0},
		{"calls a minute", func(c *check.Config) { c.Vendor.RateLimit = 2.5 },
			"ok rate: at most 150 calls a minute; the vendor publishes no limit for this call, " +
				"and documents 60 a minute for a sibling service > for more, ask the vendor what " +
				"this account may do, then raise ROLLCALL_RATE_LIMIT", 0},
		{"never complete", func(c *check.Config) { c.Poller.SweepTimeout = 2 * time.Minute },
			"and ROLLCALL_POLL_TIMEOUT ends it after 2m > raise ROLLCALL_RATE_LIMIT as far as " +
				"the vendor lets you, or raise ROLLCALL_POLL_TIMEOUT: like this no sweep is ever " +
				"complete", 1},
		{"hardly", func(c *check.Config) {
			c.Interval, c.Poller.SweepTimeout = 10*time.Minute,
				5*time.Minute
		}, "warning rate: a sweep of 2000 pages takes about 3m20s at 10 " +
			"requests a second, 4 at a time, and ROLLCALL_POLL_TIMEOUT is 5m", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := config(v, natsURL)
			c.with(&cfg)
			out, r := lines(t, cfg)
			wantLines(t, out, c.want)
			if r.Exit != c.exit {
				t.Errorf("exit %d:\n%s", r.Exit, strings.Join(out, "\n"))
			}
		})
	}
}

// put stores what rollcall would.
func put(t *testing.T, nc *nats.Conn, subject string, v any) {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), subject, data); err != nil {
		t.Fatal(err)
	}
}

func TestLog(t *testing.T) {
	t.Parallel()
	v := e2e.NewVendor(t, isdpsim.Config{Agents: 60})
	url := broker(t, &server.Options{})
	nc := natstest.Connect(t, url)
	cfg := config(v, url)
	cfg.Publisher.Tenant, cfg.Vendor.TenantID = 886, 886
	if _, err := publisher.Open(t.Context(), nc, cfg.Publisher); err != nil {
		t.Fatal(err)
	}
	say := func(wants ...string) {
		t.Helper()
		out, r := lines(t, cfg)
		wantLines(t, out, wants...)
		if r.Exit != 0 {
			t.Errorf("exit %d:\n%s", r.Exit, strings.Join(out, "\n"))
		}
	}
	say("ok lease: nobody polls tenant 886 now", "ok watermark: none: nothing has been published "+
		"for tenant 886", "ok health: none yet",
		"ok stream: AGENT_EVENTS is kept in files, on one server > a power failure there can "+
			"lose what sync_interval allows")

	const watermark, health = "rollcall.log.watermark.886", "rollcall.log.health.886"
	now := time.Now()
	w := schemas.Watermark{TenantID: 886, Sweep: 7, StartedAt: now.Add(-time.Minute),
		CompletedAt: now.Add(-time.Minute), StaleAfter: now.Add(time.Hour),
		Agents: 60, Online: 12, Instance: "host-1", Commit: schemas.Commit{ID: "x", Messages: 1}}
	put(t, nc, watermark, w)
	say("ok watermark: 1m", "old: sweep 7, 60 agents, 12 online, by host-1")

	// A sweep takes long, and a watermark is overdue: nothing says yet that it can't be committed.
	w.NextBy, w.GlancedAt = now.Add(-time.Second), now.Add(-50*time.Second)
	put(t, nc, watermark, w)
	say("warning watermark: stale since", "> nobody polls: start rollcall, or see why it ended")
	w.NextBy = now.Add(time.Hour)
	put(t, nc, watermark, w)
	say("ok watermark: 1m", "old, glanced 5", "s ago: sweep 7, 60 agents, 12 online, by host-1")

	w.StaleAfter, w.Missing = now.Add(-30*time.Second), 3
	put(t, nc, watermark, w)
	put(t, nc, health, schemas.Health{TenantID: 886, State: schemas.HealthFailing, Since: now,
		Reason: schemas.Credentials, Detail: "refused\x1b[2J"})
	say("warning watermark: stale since", "> nobody polls: start rollcall, or see why it ended",
		"warning watermark: 3 of the agents missing",
		"warning health: failing (credentials) since", "refused [2J > see token and listing above")

	put(t, nc, "$KV.rollcall.lease.886",
		map[string]any{"instance": "host-1", "id": "x", "since": now.Add(-3 * time.Hour)})
	say("ok lease: host-1 polls tenant 886, since", "(3h)", "warning watermark: stale since",
		"> see the log of host-1, and the health below")

	// Who polls commits, or says why it can't read the listing: one that has done neither for a
	// while can't commit.
	sayNo := func(want string) {
		t.Helper()
		out, r := lines(t, cfg)
		wantLines(t, out, want)
		if r.Exit != 1 {
			t.Errorf("exit %d:\n%s", r.Exit, strings.Join(out, "\n"))
		}
	}
	cfg.Now = func() time.Time { return time.Now().Add(16 * time.Second) }
	say("warning health: failing (credentials)") // it says why
	put(t, nc, health, schemas.Health{TenantID: 886, State: schemas.HealthOK, Since: now})
	put(t, nc, watermark, w)
	sayNo("failure health: host-1 polls tenant 886, and nothing has been committed since")
	cfg.Now = nil
	say("ok health: ok since") // it may be about to commit
	cfg.Now = func() time.Time { return time.Now().Add(16 * time.Second) }
	w.StaleAfter = now.Add(time.Hour)
	put(t, nc, watermark, w)
	say("ok health: ok since") // its sweeps are long
	cfg.Now = nil

	put(t, nc, watermark, "forged")
	say("warning watermark: what stands in its place is none > somebody else writes to the stream")

	// The log can't be altered, and what was asked for is another matter.
	cfg.Publisher.Replicas = 3
	say("warning stream: AGENT_EVENTS has 1 replica, and ROLLCALL_NATS_REPLICAS is 3 > rollcall " +
		"never alters it: nats stream edit AGENT_EVENTS --replicas 3")
}

func TestAccountLimits(t *testing.T) {
	t.Parallel()
	v := e2e.NewVendor(t, isdpsim.Config{Agents: 60})
	file := filepath.Join(t.TempDir(), "nats.conf")
	if err := os.WriteFile(file, []byte(`accounts { A { jetstream: {max_file: 32MB}, users: `+
		`[{user: rollcall, password: `+brokerSecret+`}] } }`), 0o600); err != nil {
		t.Fatal(err)
	}
	opts, err := server.ProcessConfigFile(file)
	if err != nil {
		t.Fatal(err)
	}
	out, r := lines(t, config(v, withUser(broker(t, opts), "rollcall")))
	wantLines(t, out, "failure stream: AGENT_EVENTS does not exist and can't be created, with "+
		"1 replica and at most 64 MiB: the account may store 32 MiB > lower "+
		"ROLLCALL_NATS_MAX_BYTES",
		"ok jetstream: on; the account uses 0 bytes of at most 32 MiB")
	if r.Exit != 1 {
		t.Errorf("exit %d", r.Exit)
	}
}

// A token stands where a user does, and is a secret.
func TestToken(t *testing.T) {
	t.Parallel()
	v := e2e.NewVendor(t, isdpsim.Config{Agents: 60})
	url := broker(t, &server.Options{Authorization: brokerSecret})
	env := e2e.Settings(v.Env(), map[string]string{"ROLLCALL_NATS_URL": strings.Replace(url, "://",
		"://"+brokerSecret+"@", 1)})
	p := e2e.Rollcall(t, env, "check")
	if code := p.Wait(); code != 0 {
		t.Errorf("exit %d: %s", code, p.Output())
	}
	wantSpoken(t, p, "ok nats "+url+", nats-server ")
	p.NoSecrets(append(v.Secrets(), brokerSecret)...)
	p = e2e.Rollcall(t, env)
	p.WaitFor("first complete sweep")
	p.NoSecrets(append(v.Secrets(), brokerSecret)...)
}

// Whoever may do what Needs lists, and no more, can run rollcall: check asks for no less and no
// more than it takes.
func TestNeeds(t *testing.T) {
	t.Parallel()
	v := e2e.NewVendor(t, isdpsim.Config{Agents: 60})
	var allow []string
	for _, n := range slices.Concat(publisher.Needs(886, true), publisher.AlarmNeeds(886, true)) {
		allow = append(allow, n.Allow)
	}
	must := len(publisher.Needs(886, true)) // the first of them; without the rest it is a warning
	for i := range len(allow) + 1 {
		some := append([]string{}, allow...)
		if i < len(allow) {
			some = append(some[:i], some[i+1:]...)
		}
		subscribe := []string{"_INBOX.>"}
		for _, n := range query.Subscribes(886) {
			subscribe = append(subscribe, n.Allow)
		}
		user := &server.User{Username: "rollcall", Password: brokerSecret,
			Permissions: &server.Permissions{
				Publish:   &server.SubjectPermission{Allow: some},
				Subscribe: &server.SubjectPermission{Allow: subscribe},
				Response:  &server.ResponsePermission{MaxMsgs: 1}}}
		url := withUser(broker(t, &server.Options{Users: []*server.User{user}}), "rollcall")
		out, r := lines(t, config(v, url))
		if i < must {
			wantLines(t, out,
				"failure permissions: this user may not publish on "+allow[i]+" > let it")
			continue
		}
		if i < len(allow) {
			wantLines(t, out, "ok permissions: ",
				"warning alarm: this user may not publish on "+allow[i]+": without it NATS can't ")
			if r.Exit != 0 {
				t.Errorf("without %s: exit %d", allow[i], r.Exit)
			}
			continue
		}
		wantLines(t, out, "ok permissions: ", "ok jetstream: on",
			"ok stream: AGENT_EVENTS does not exist; rollcall creates it",
			"ok alarm: ROLLCALL_ALARM does not exist; rollcall creates it")
		env := e2e.Settings(v.Env(), map[string]string{"ROLLCALL_NATS_URL": url,
			"ROLLCALL_POLL_INTERVAL": calm})
		for range 2 { // the second time there is a log to read
			first, second := e2e.Rollcall(t, env), e2e.Rollcall(t, env)
			wait.Eventually(t, "a leader and a standby", func() bool {
				out := first.Output() + second.Output()
				return strings.Contains(out, "standing by") &&
					(strings.Contains(out, "first complete sweep") ||
						strings.Contains(out, "sweep complete"))
			})
			for _, p := range []*e2e.Process{first, second} {
				if code, _ := p.Terminate(); code != 0 {
					t.Errorf("exit %d", code)
				}
				if strings.Contains(strings.ToLower(p.Output()), "violation") {
					t.Errorf("Needs lacks something:\n%s", p.Output())
				}
			}
		}
		out, r = lines(t, config(v, url))
		wantLines(t, out, "ok lease: nobody polls tenant 886 now", "ok watermark: ",
			"ok health: ok since", "ok alarm: ROLLCALL_ALARM fits")
		if r.Exit != 0 {
			t.Errorf("exit %d:\n%s", r.Exit, strings.Join(out, "\n"))
		}
	}
}

func TestCluster(t *testing.T) {
	t.Parallel()
	v := e2e.NewVendor(t, isdpsim.Config{Agents: 60})
	var routes []string
	for range 3 {
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", e2e.FreePort(t)))
	}
	var urls []string
	var stops []func()
	for i := range routes {
		_, port, _ := strings.Cut(strings.TrimPrefix(routes[i], "nats://"), ":")
		n, err := strconv.Atoi(port)
		if err != nil {
			t.Fatal(err)
		}
		url, stop := natstest.StartOptions(t,
			&server.Options{ServerName: fmt.Sprintf("n%d", i+1),
				Routes:  server.RoutesFromStr(strings.Join(routes, ",")),
				Cluster: server.ClusterOpts{Name: "three", Host: "127.0.0.1", Port: n}})
		urls, stops = append(urls, url), append(stops, stop)
	}
	cfg := config(v, urls[0])
	cfg.Publisher.Replicas, cfg.Publisher.Tenant, cfg.Vendor.TenantID = 3, 886, 886
	nc := natstest.Connect(t, urls[0])
	said := func(want string) {
		t.Helper()
		var out []string
		wait.Eventually(t, want, func() bool {
			out, _ = lines(t, cfg)
			return strings.Contains(strings.Join(out, "\n"), want)
		})
	}
	said("cluster three of 3")
	said("ok stream: AGENT_EVENTS does not exist; rollcall creates it, with 3 replicas")
	wait.Eventually(t, "the log", func() bool {
		_, err := publisher.Open(t.Context(), nc, cfg.Publisher)
		return err == nil
	})
	said("ok stream: AGENT_EVENTS: 3 replicas up to date, leader n")
	said("ok stream: AGENT_EVENTS is kept in files\n")
	said("ok bucket: KV_rollcall: 3 replicas up to date, leader n")
	stops[2]()
	said("AGENT_EVENTS: of 3 replicas these do not keep up: n3 (offline)")
	cfg.Publisher.Replicas = 5
	said("warning stream: AGENT_EVENTS has 3 replicas, and ROLLCALL_NATS_REPLICAS is 5")
}

func TestEmbedded(t *testing.T) {
	t.Parallel()
	v := e2e.NewVendor(t, isdpsim.Config{Agents: 60})
	env, _ := e2e.Embedded(t)
	env = e2e.Settings(v.Env(), env, map[string]string{"ROLLCALL_POLL_INTERVAL": calm})
	p := e2e.Rollcall(t, env, "check")
	if code := p.Wait(); code != 0 {
		t.Errorf("exit %d", code)
	}
	wantSpoken(t, p, "is not there yet and can be created, with room for",
		"ok nats the embedded server is not running; rollcall starts it on 127.0.0.1:",
		"skip stream needs nats")
	if _, err := os.Stat(env["ROLLCALL_DATA_DIR"]); err == nil {
		t.Error("the data directory was created")
	}

	daemon := e2e.Rollcall(t, env)
	// logged when the first sweep's commit is in the log
	daemon.WaitFor(`"msg":"health","state":"ok"`)
	p = e2e.Rollcall(t, env, "check")
	if code := p.Wait(); code != 0 {
		t.Errorf("exit %d", code)
	}
	wantSpoken(t, p, "is in use by a running rollcall", "ok stream AGENT_EVENTS fits", "old: sweep",
		"60 agents", "ok health ok since")
	at80(t, p)

	other, _ := e2e.Embedded(t)
	env["ROLLCALL_NATS_LISTEN"] = other["ROLLCALL_NATS_LISTEN"]
	p = e2e.Rollcall(t, env, "check")
	if code := p.Wait(); code != 1 {
		t.Errorf("exit %d", code)
	}
	wantSpoken(t, p, "FAIL nats a rollcall uses the data directory, and none listens on")
	if code, _ := daemon.Terminate(); code != 0 {
		t.Errorf("the daemon: exit %d", code)
	}
	files, err := os.ReadDir(env["ROLLCALL_DATA_DIR"])
	if err != nil {
		t.Fatal(err)
	}
	p = e2e.Rollcall(t, env, "check")
	if code := p.Wait(); code != 0 {
		t.Errorf("exit %d", code)
	}
	wantSpoken(t, p, "is writable, with room for", "is not running")
	if now, err := os.ReadDir(env["ROLLCALL_DATA_DIR"]); err != nil || len(now) != len(files) {
		t.Errorf("%d entries before, %d now: %v", len(files), len(now), err)
	}
}

func TestLittleRoom(t *testing.T) {
	t.Parallel()
	v := e2e.NewVendor(t, isdpsim.Config{Agents: 60})
	cfg := config(v, "")
	cfg.Embedded = natsd.Config{Listen: fmt.Sprintf("127.0.0.1:%d", e2e.FreePort(t)),
		DataDir: t.TempDir(), MaxBytes: 1 << 60}
	out, _ := lines(t, cfg)
	wantLines(t, out, "and the stream may take 1048576 TiB > a full disk can tear a commit")
}

// A rollcall on this machine that says that it can't commit fails the check.
func TestRunningCantCommit(t *testing.T) {
	t.Parallel()
	commits := `{"ok":false,"problem":"nothing could be committed for 1m: the stream is full"}`
	s := site(t, false, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ready := strings.Contains(commits, `"ok":true`)
		w.WriteHeader(map[bool]int{true: 200, false: 503}[ready])
		fmt.Fprintf(w, `{"ready":%t,"role":"leader","nats":{"ok":true},"stream":{"ok":true},`+
			`"lease":{"ok":true},"commits":%s}`, ready, commits)
	}))
	v := e2e.NewVendor(t, isdpsim.Config{Agents: 60})
	cfg := config(v, broker(t, &server.Options{}))
	cfg.Listens = []check.Listen{{Field: "HTTPListen", Addr: s.Listener.Addr().String()}}
	out, r := lines(t, cfg)
	wantLines(t, out, "is served by a running rollcall (ROLLCALL_HTTP_LISTEN), which can't "+
		"commit > nothing could be committed for 1m: the stream is full")
	if r.Exit != 1 {
		t.Errorf("exit %d", r.Exit)
	}
	commits = `{"ok":true}`
	if out, r = lines(t, cfg); r.Exit != 0 {
		t.Errorf("exit %d:\n%s", r.Exit, strings.Join(out, "\n"))
	}
}

// proxy passes CONNECT requests on to where the test wants them, for whoever shows the password.
func proxy(t *testing.T, secure bool, target, password string) *httptest.Server {
	t.Helper()
	return site(t, secure, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect ||
			!strings.HasPrefix(r.Header.Get("Proxy-Authorization"), "Basic ") || password == "" {
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		up, err := net.Dial("tcp", target)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer up.Close()
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 200 Connection established\r\n\r\n")
		go func() { _, _ = io.Copy(up, buffered) }()
		_, _ = io.Copy(conn, up)
	}))
}

func TestTLSWords(t *testing.T) {
	t.Parallel()
	v := e2e.NewVendor(t, isdpsim.Config{Agents: 60})
	natsURL := broker(t, &server.Options{})
	for _, c := range []struct {
		name string
		tls  *tls.Config
		want string
	}{
		{"a certificate of the client demanded", &tls.Config{ClientAuth: tls.RequireAnyClientCert},
			"FAIL tls the server demands a certificate of the client, which rollcall has none of " +
				"> is there an address"},
		{"the same, TLS 1.2", &tls.Config{ClientAuth: tls.RequireAnyClientCert,
			MaxVersion: tls.VersionTLS12},
			"FAIL tls the server demands a certificate of the client"},
		{"asked for, and not demanded", &tls.Config{ClientAuth: tls.RequestClientCert},
			"ok tls TLS 1.3"},
		{"old versions", &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11},
			"FAIL tls the server and rollcall speak no TLS version in common"},
		{"old ciphers", &tls.Config{MaxVersion: tls.VersionTLS12,
			CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA}},
			"FAIL tls the server and rollcall have no cipher in common"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			srv := httptest.NewUnstartedServer(v)
			srv.TLS, srv.Config.ErrorLog = c.tls, log.New(io.Discard, "", 0)
			srv.StartTLS()
			t.Cleanup(srv.Close)
			p := e2e.Rollcall(t, e2e.Settings(v.Env(), map[string]string{
				"ROLLCALL_NATS_URL": natsURL, "ROLLCALL_ISDP_URL": srv.URL,
				"ROLLCALL_ISDP_CA_FILE": caFile(t, srv)}), "check")
			p.Wait()
			wantSpoken(t, p, c.want)
		})
	}
}

func TestTLSThroughProxy(t *testing.T) {
	t.Parallel()
	v := e2e.NewVendor(t, isdpsim.Config{Agents: 60})
	secure := site(t, true, v)
	env := e2e.Settings(v.Env(), map[string]string{"ROLLCALL_NATS_URL": broker(t,
		&server.Options{}),
		"ROLLCALL_ISDP_URL": "https://example.com", "ROLLCALL_ISDP_CA_FILE": caFile(t, secure)})
	for _, c := range []struct {
		name, password string
		secure         bool // the way to the proxy
		exit           int
		wants          []string
	}{
		{"let through", "yes", false, 0, []string{"warn dns connections to the vendor go " +
			"through the " +
			"proxy 127.0.0.1:", "ok tls TLS 1.3, certificate for example.com, ",
			"ok token tenant 886"}},
		{"refused", "", false, 1, []string{"FAIL tls the proxy (HTTPS_PROXY) refused the " +
			"connection: " +
			"HTTP 407 > it wants a user and a password, or others: put them into HTTPS_PROXY, as " +
			"http://user:password@host:port"}},
		{"let through by https", "yes", true, 0, []string{"ok tls TLS 1.3, certificate for " +
			"example.com, ",
			"ok token tenant 886"}},
		{"refused by https", "", true, 1, []string{"FAIL tls the proxy (HTTPS_PROXY) refused the " +
			"connection: " +
			"HTTP 407"}},
	} {
		p := proxy(t, c.secure, secure.Listener.Addr().String(), c.password)
		env["HTTPS_PROXY"] = withUser(p.URL, "somebody")
		checked := e2e.Rollcall(t, env, "check")
		if code := checked.Wait(); code != c.exit {
			t.Errorf("%s: exit %d", c.name, code)
		}
		wantSpoken(t, checked, c.wants...)
		checked.NoSecrets(append(v.Secrets(), brokerSecret)...)
	}
	// Without the proxy: the certificate is for another name than the server is asked for.
	env["HTTPS_PROXY"] = ""
	env["ROLLCALL_ISDP_URL"] = strings.Replace(secure.URL, "127.0.0.1", "localhost", 1)
	checked := e2e.Rollcall(t, env, "check")
	if code := checked.Wait(); code != 1 {
		t.Errorf("exit %d", code)
	}
	wantSpoken(t, checked, "FAIL tls the certificate is for example.com, *.example.com, "+
		"127.0.0.1, ::1, not for localhost > is the domain in ROLLCALL_ISDP_URL right?")
}

// Whoever accepts connections and says nothing holds the check up only so long.
func TestSilence(t *testing.T) {
	t.Parallel()
	silent := func() string {
		ln := listen(t)
		go func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				t.Cleanup(func() { conn.Close() })
			}
		}()
		return ln.Addr().String()
	}
	p := e2e.Rollcall(t, map[string]string{"ROLLCALL_ISDP_URL": "https://" + silent(),
		"ROLLCALL_ISDP_CLIENT_ID": "i", "ROLLCALL_ISDP_CLIENT_SECRET": brokerSecret,
		"ROLLCALL_ISDP_USERNAME": "u", "ROLLCALL_ISDP_PASSWORD": brokerSecret,
		"ROLLCALL_NATS_URL":    "nats://x:" + brokerSecret + "@" + silent() + "," + silent(),
		"ROLLCALL_HTTP_LISTEN": silent()}, "check")
	begun := time.Now()
	if code := p.Wait(); code != 1 || time.Since(begun) > check.Limit {
		t.Errorf("exit %d after %v", code, time.Since(begun))
	}
	wantSpoken(t, p, "FAIL tls no TLS: no answer in time",
		"it took the connection and said nothing", "FAIL listen")
	p.NoSecrets(brokerSecret)
}

func TestReady(t *testing.T) {
	t.Parallel()
	var status int
	var body string
	s := site(t, false, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			status = 404
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
	}))
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	hung := listen(t).Addr().String()
	for _, c := range []struct {
		name   string
		env    map[string]string
		status int
		body   string
		code   int
		want   string
	}{
		{"ready", map[string]string{"ROLLCALL_HTTP_LISTEN": ":" + port}, 200,
			`{"ready":true,"role":"standby","leader":"b","nats":{"ok":true},"stream":{"ok":true},` +
				`"lease":{"ok":true}}`, 0, "ready, standby; b leads\n"},
		{"says nothing", map[string]string{"ROLLCALL_HTTP_LISTEN": "0.0.0.0:" + port}, 200, "", 1,
			"is no rollcall: unexpected end of JSON input\n"},
		{"for probes", map[string]string{"ROLLCALL_OPS_LISTEN": "[::]:" + port,
			"ROLLCALL_HTTP_LISTEN": "off"}, 503,
			`{"ready":false,"role":"leader","nats":{"problem":"not connected\u001b[2J"}}`, 1,
			"not ready, leader; NATS: not connected [2J\n"},
		{"a page that leads elsewhere", map[string]string{"ROLLCALL_HTTP_LISTEN": ":" + port}, 302,
			"", 1, "(HTTP 302) is no rollcall: unexpected end of JSON input\n"},
		{"nothing runs", map[string]string{
			"ROLLCALL_HTTP_LISTEN": "127.0.0.1:" + strconv.Itoa(e2e.FreePort(t)),
		}, 0, "", 1, "is rollcall running?\n"},
		{"hangs", map[string]string{"ROLLCALL_HTTP_LISTEN": hung}, 0, "", 1,
			"no answer from http://" + hung + "/readyz within 2s\n"},
		{"off", map[string]string{"ROLLCALL_HTTP_LISTEN": "off"}, 0, "", 1,
			"rollcall serves no /readyz: ROLLCALL_HTTP_LISTEN is off; set ROLLCALL_OPS_LISTEN, " +
				"for the daemon and for this check\n"},
	} {
		status, body = c.status, c.body
		p := e2e.Rollcall(t, c.env, "check", "--ready")
		begun := time.Now()
		if code := p.Wait(); code != c.code || time.Since(begun) > 5*time.Second {
			t.Errorf("%s: exit %d after %v", c.name, code, time.Since(begun))
		}
		if out := p.Stdout(); !strings.HasSuffix(out, c.want) || strings.Count(out, "\n") != 1 ||
			p.Stderr() != "" {
			t.Errorf("%s: %q, %q", c.name, out, p.Stderr())
		}
	}
	// no port
	p := e2e.Rollcall(t, map[string]string{"ROLLCALL_HTTP_LISTEN": "8080"}, "check", "--ready")
	if code := p.Wait(); code != 2 || !strings.Contains(p.Stderr(),
		`rollcall: ROLLCALL_HTTP_LISTEN is "8080"`) {
		t.Errorf("exit %d: %s", code, p.Output())
	}
}

func TestJSON(t *testing.T) {
	t.Parallel()
	v := e2e.NewVendor(t, isdpsim.Config{Agents: 60, TenantID: 5})
	for _, c := range []struct {
		env  map[string]string
		exit int
		want check.Result
	}{
		{nil, 0, check.Result{Name: "lease", Level: check.Skipped, Text: "needs bucket"}},
		{map[string]string{"ROLLCALL_TENANT_ID": "6"}, 2,
			check.Result{Name: "token", Level: check.Failure,
				Text: "the credentials are tenant 5's, but ROLLCALL_TENANT_ID is 6",
				Do: "set ROLLCALL_TENANT_ID to 5 or leave it out, or use the credentials of " +
					"tenant 6",
				Setting: true}},
		{map[string]string{"ROLLCALL_LEASE_TTL": "1s"}, 2,
			check.Result{Name: "settings", Level: check.Failure,
				Text: `ROLLCALL_LEASE_TTL is "1s": want a duration of whole seconds such as 30s ` +
					`or 12h, at least 2s`, Setting: true}},
		{map[string]string{"ROLLCALL_RATE_LIMITS": "1"}, 0,
			check.Result{Name: "settings", Level: check.Warning,
				Text: "ROLLCALL_RATE_LIMITS is none of rollcall's settings and has no effect; " +
					"did you mean ROLLCALL_RATE_LIMIT?"}},
	} {
		env := e2e.Settings(v.Env(), map[string]string{"ROLLCALL_NATS_URL": broker(t,
			&server.Options{})}, c.env)
		p := e2e.Rollcall(t, env, "check", "--json")
		code := p.Wait()
		var r check.Report
		if err := json.Unmarshal([]byte(p.Stdout()), &r); err != nil || code != c.exit ||
			r.Exit != c.exit {
			t.Errorf("exit %d, %v: %s", code, err, p.Output())
		}
		found := false
		for _, res := range r.Results {
			found = found || res == c.want
		}
		s := r.Summary
		if !found || len(r.Results) != s.OK+s.Warnings+s.Failures+s.Skipped ||
			(s.Failures == 0) != (c.exit == 0) {
			t.Errorf("%+v is not there: %s", c.want, p.Stdout())
		}
		p.NoSecrets(v.Secrets()...)
	}
}

func TestPrinter(t *testing.T) {
	var b strings.Builder
	p := check.Printer{W: &b, Width: 60}
	for _, r := range []check.Result{
		{Name: "listing", Level: check.Failure, Text: "the vendor says stateCode 1403 " +
			"\"应用未订阅该接口所以不能调用请联系管理员开通后再重试一遍\"", Do: "has the application subscribed to the API " +
			"findOnlineAgent?"},
		{Name: "permissions", Level: check.OK, Text: "everything"},
	} {
		if err := p.Print(r); err != nil {
			t.Fatal(err)
		}
	}
	want := `FAIL  listing      the vendor says stateCode 1403
                   "应用未订阅该接口所以不能调用请联系管理员
                   开通后再重试一遍"
                   > has the application subscribed to the
                     API findOnlineAgent?
ok    permissions  everything
`
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Error(d)
	}
	b.Reset()
	p.Colour = true
	if err := p.Print(check.Result{Name: "tls", Level: check.Warning, Text: "soon"}); err != nil {
		t.Fatal(err)
	}
	if want := "\x1b[33mwarn  \x1b[0mtls          soon\n"; b.String() != want {
		t.Errorf("%q", b.String())
	}
}

// A rollcall that is not connected to NATS, where the check is, is told of.
func TestDaemonNotConnected(t *testing.T) {
	t.Parallel()
	v := e2e.NewVendor(t, isdpsim.Config{Agents: 60})
	url, _ := natstest.Start(t, "")
	daemon := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w,
			`{"ready":false,"role":"leader","nats":{"ok":false,"problem":"not connected"}}`)
	}))
	defer daemon.Close()
	cfg := config(v, url)
	cfg.Listens = []check.Listen{{Field: "HTTPListen", Addr: daemon.Listener.Addr().String()}}
	out, _ := lines(t, cfg)
	wantLines(t, out, "which has no connection to NATS, though this check has one")
}
