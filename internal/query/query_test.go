package query

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/rollcall-events/rollcall/internal/test/wait"
	"github.com/rollcall-events/rollcall/schemas"
)

// people are seven agents: two types and one without, three areas and none, one removed.
func people(w *world) []schemas.Event {
	return []schemas.Event{
		w.agent(17813, typed("10"), in("North"), room(2)),
		w.agent(5, typed("10"), in("South"), room(3)),
		w.agent(6, typed("10"), in("North"), room(100), away),
		w.agent(7, typed("0"), in("")),
		w.agent(8, in("长沙"), room(1)),
		w.agent(9007199254740993, typed("0"), in("North"), room(4)),
		w.agent(3, typed("10"), in("North"), gone),
	}
}

func TestRoster(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.commit(people(w)...)
	w.replica("a")
	const big = 9007199254740993
	for _, c := range []struct {
		request string
		want    []int64
		next    string
	}{
		{"", []int64{5, 6, 7, 8, 17813, big}, ""},
		{"  {} ", []int64{5, 6, 7, 8, 17813, big}, ""},
		{`{"online":true}`, []int64{5, 7, 8, 17813, big}, ""},
		{`{"online":false}`, []int64{6}, ""},
		{`{"type":"10"}`, []int64{5, 6, 17813}, ""},
		{`{"type":"_"}`, []int64{8}, ""},
		{`{"type":"77"}`, []int64{}, ""},
		{`{"area":"North"}`, []int64{6, 17813, big}, ""},
		{`{"area":""}`, []int64{7}, ""},
		{`{"area":"长沙"}`, []int64{8}, ""},
		{`{"type":"10","online":true,"area":"North"}`, []int64{17813}, ""},
		{`{"limit":2}`, []int64{5, 6}, "6"},
		{`{"limit":2,"after":"6"}`, []int64{7, 8}, "8"},
		{`{"limit":2e0,"after":"8"}`, []int64{17813, big}, ""},
		{`{"after":"9007199254740992"}`, []int64{big}, ""},
		{`{"after":"9007199254740993"}`, []int64{}, ""},
		{`{"after":"-1","limit":1,"type":"0"}`, []int64{7}, "7"},
		{`{"limit":10000}`, []int64{5, 6, 7, 8, 17813, big}, ""},
	} {
		a := w.ask("roster", c.request)
		if d := cmp.Diff(c.want, a.ids(t)); d != "" || a.Next != c.next {
			t.Errorf("%s: next %q (-want +got):\n%s", c.request, a.Next, d)
		}
	}

	// An answer has the states and the watermark as they stand in the stream.
	want := `{"asOf":` + w.last("agent.watermark.886") + `,"trusted":true,"agents":[` + w.state(7) +
		`,` + w.state(big) + `]}`
	if got := w.ask("roster", `{"type":"0"}`).body; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	// A removed agent is not there, and its state can still be asked for.
	if got := w.ask("agent", `{"agentId":"3"}`); string(got.Agents) != "["+w.state(3)+"]" {
		t.Errorf("agent 3: %s", got.body)
	}
	if got := w.ask("agent", `{"agentId":"9007199254740993"}`); string(got.Agents) !=
		"["+w.state(big)+"]" || !*got.Trusted {
		t.Errorf("agent %d: %s", big, got.body)
	}

	// A change is in the next answer.
	w.commit(w.agent(6, typed("0"), in("South")), w.agent(3, typed("10")), w.agent(5, gone))
	wait.Eventually(t, "the commit to be read", func() bool {
		return w.ask("counts", "").AsOf.Sweep == 2
	})
	if d := cmp.Diff([]int64{3, 17813}, w.ask("roster", `{"type":"10"}`).ids(t)); d != "" {
		t.Error(d)
	}
}

func TestCounts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.commit(people(w)...)
	w.replica("a")
	got := w.ask("counts", "").body
	want := `{"asOf":` + w.last("agent.watermark.886") + `,"trusted":true,` +
		`"agents":6,"online":5,"capacity":10,"types":{` +
		`"0":{"agents":2,"online":2,"capacity":4},` +
		`"10":{"agents":3,"online":2,"capacity":5},` +
		`"_":{"agents":1,"online":1,"capacity":1}},"areas":{` +
		`"":{"agents":1,"online":1,"capacity":0},` +
		`"North":{"agents":3,"online":2,"capacity":6},` +
		`"South":{"agents":1,"online":1,"capacity":3},` +
		`"长沙":{"agents":1,"online":1,"capacity":1}}}`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// A roster that does not fit into a message comes in pages, each as large as can be.
func TestPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const agents, padding = 200, 3000
	var events []schemas.Event
	for id := range agents {
		events = append(events, w.agent(int64(id+1), name(strings.Repeat("x", padding))))
	}
	w.commit(events...)
	w.replica("a")
	most := int(w.nc.MaxPayload())
	seen, after, pages := 0, "", 0
	for {
		request := "{}"
		if after != "" {
			request = `{"after":"` + after + `"}`
		}
		a := w.ask("roster", request)
		for _, id := range a.ids(t) {
			if seen++; id != int64(seen) {
				t.Fatalf("agent %d where %d was due", id, seen)
			}
		}
		if pages++; len(a.body) > most || a.Next != "" && len(a.body) < most-2*padding {
			t.Errorf("a page of %d bytes, where %d are a message's most", len(a.body), most)
		}
		if after = a.Next; after == "" {
			break
		}
	}
	size := len(w.state(1)) + 1
	if want := (agents*size + most - 1) / most; seen != agents || pages < want || pages > want+2 {
		t.Errorf("%d agents of %d bytes on %d pages of %d", seen, size, pages, most)
	}
}

// A state that fits into a message alone, and not beside the watermark, is named.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	large := strings.Repeat("x", int(w.nc.MaxPayload())-2000)
	w.commit(w.agent(1), w.agent(2), w.agent(3))
	s, _ := w.replica("a")
	w.ask("counts", "")
	// No commit of rollcall's comes so close to the limit.
	s.mu.Lock()
	i, _ := s.table.find(2)
	s.table.agents[i].body = []byte(`"` + large + large + `"`)
	s.mu.Unlock()
	a := w.ask("roster", "")
	if d := cmp.Diff([]string{"2"}, a.Omitted); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]int64{1, 3}, a.ids(t)); d != "" {
		t.Error(d)
	}
	m := w.request("rollcall.query.886.agent", `{"agentId":"2"}`)
	if m.Header.Get(micro.ErrorCodeHeader) != "413" ||
		!strings.Contains(m.Header.Get(micro.ErrorHeader), "read agent.state.886.2") {
		t.Errorf("%v %s", m.Header, m.Data)
	}
}

// What can't be answered is told so, with the right form in words.
func TestRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.commit(people(w)...)
	w.replica("a", func(s *Service) {
		s.cfg.Polled = func(_ context.Context, tenant int64) (bool, error) {
			switch tenant {
			case 999:
				return false, nil
			case 1000:
				return true, nil
			}
			return false, errors.New("not known")
		}
	})
	const roster = `want an empty question, or a JSON object such as ` +
		`{"type": "10", "online": true, "limit": 50}, with any of after, area, limit, online, type`
	for _, c := range []struct{ subject, request, code, want string }{
		{"886.roster", `{"online":"yes"}`, "400", `online is "yes": want true or false`},
		{"886.roster", `{"online":1}`, "400", `online is 1: want true or false`},
		{"886.roster", `{"online":null}`, "400", `online is null: want true or false`},
		{"886.roster", `{"type":10}`, "400",
			`type is 10: want a string, a type as in counts, such as "10", or "_" for none`},
		{"886.roster", `{"type":"a b"}`, "400", `type is "a b": want a string, a type`},
		{"886.roster", `{"type":""}`, "400", `type is "": want a string, a type`},
		{"886.roster", `{"area":["x"]}`, "400", `area is ["x"]: want a string, an areaName`},
		{"886.roster", `{"limit":1000000}`, "400",
			`limit is 1000000: want a whole number from 1 to 10000`},
		{"886.roster", `{"limit":0}`, "400", `limit is 0: want`},
		{"886.roster", `{"limit":-1}`, "400", `limit is -1: want`},
		{"886.roster", `{"limit":1.5}`, "400", `limit is 1.5: want`},
		{"886.roster", `{"limit":1e400}`, "400", `limit is 1e400: want`},
		{"886.roster", `{"limit":"50"}`, "400", `limit is "50": want`},
		{"886.roster", `{"after":17813}`, "400",
			`after is 17813: want a string, the next of the page before, such as "17813"`},
		{"886.roster", `{"after":"x"}`, "400", `after is "x": want a string`},
		{"886.roster", `{"after":"007"}`, "400", `after is "007": want a string`},
		{"886.roster", `{"name":"x"}`, "400", `there is no name to ask by: ` + roster},
		{"886.roster", `{"Type":"10"}`, "400", `there is no Type to ask by: ` + roster},
		{"886.roster", `{"a\r\nNats-Service-Error-Code: 200":1}`, "400",
			`there is no a\r\nNats-Service-Error-Code: 200 to ask by: ` + roster},
		{"886.roster", `{"长沙":1}`, "400", `there is no \u957f\u6c99 to ask by: `},
		{"886.roster", `{"type":"10","type":"0"}`, "400", `not a JSON object: ` + roster},
		{"886.roster", `{"type":"10"`, "400", `not a JSON object: ` + roster},
		{"886.roster", `{} {}`, "400", `not a JSON object: ` + roster},
		{"886.roster", `null`, "400", `not a JSON object: ` + roster},
		{"886.roster", `[]`, "400", `not a JSON object: ` + roster},
		{"886.roster", `10`, "400", `not a JSON object: ` + roster},
		{"886.roster", "{\"area\":\"\xff\"}", "400", `not a JSON object: ` + roster},
		{"886.roster", `{"area":"` + strings.Repeat("x", maxRequest) + `"}`, "400",
			`want at most 16384`},
		{"886.roster", `{"type":"` + strings.Repeat("x", 1000) + `"}`, "400",
			`xxx...: want a string`},
		{"886.agent", ``, "400", `the question names no agent: want {"agentId": "17813"}`},
		{"886.agent", `{"agentId":17813}`, "400",
			`agentId is 17813: want a string, an agentId, such as "17813"`},
		{"886.agent", `{"agentId":"1","type":"10"}`, "400",
			`there is no type to ask by: want {"agentId": "17813"}`},
		{"886.agent", `{"agentId":"99"}`, "404", `agent 99 is not known`},
		{"886.counts", `{"type":"10"}`, "400",
			`there is no type to ask by: want an empty question, or {}`},
		{"999.roster", ``, "400", `nobody polls tenant 999: here it is tenant 886; ask on ` +
			`rollcall.query.886.roster, rollcall.query.886.agent or rollcall.query.886.counts`},
		{"999.nonsense", ``, "400", `nobody polls tenant 999`},
		{"0886.roster", ``, "400", `there is no question rollcall.query.0886.roster; ask on`},
		{"886.rosters", ``, "400", `there is no question rollcall.query.886.rosters; ask on`},
		{"886.roster.x", ``, "400", `there is no question rollcall.query.886.roster.x; ask on`},
		{"roster", ``, "400", `there is no question rollcall.query.roster; ask on`},
		{"886", ``, "400", `there is no question rollcall.query.886; ask on`},
	} {
		m := w.request("rollcall.query."+c.subject, c.request)
		text := m.Header.Get(micro.ErrorHeader)
		if m.Header.Get(micro.ErrorCodeHeader) != c.code || !strings.Contains(text, c.want) ||
			len(m.Header) != 2 {
			t.Errorf("%s %.60s: %v, want %s %q", c.subject, c.request, m.Header, c.code, c.want)
		}
	}
	// Who polls a tenant answers for it, and where that is not known, may.
	for _, subject := range []string{"rollcall.query.1000.roster", "rollcall.query.1001.roster"} {
		sub, err := w.nc.SubscribeSync(w.nc.NewInbox())
		if err != nil {
			t.Fatal(err)
		}
		if err := w.nc.PublishRequest(subject, sub.Subject, nil); err != nil {
			t.Fatal(err)
		}
		w.request("rollcall.query.999.roster", "") // has been answered after that one
		if n, _, err := sub.Pending(); n > 0 || err != nil {
			t.Errorf("%s: %d answers, %v", subject, n, err)
		}
	}
	w.replicaOf(1000, "b")
	if a := parse(t, w.request("rollcall.query.1000.counts", "").Data); a.Trusted == nil {
		t.Errorf("tenant 1000: %s", a.body)
	}
}

// An agent that nobody knows is told together with what was looked at.
func TestNotKnown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.commit(people(w)...)
	w.replica("a")
	a := parse(t, w.request("rollcall.query.886.agent", `{"agentId":"99"}`).Data)
	if a.AsOf == nil || a.AsOf.Sweep != 1 || !*a.Trusted || string(a.Agents) != "[]" {
		t.Errorf("answered %s", a.body)
	}
}

// Nobody can have an answer sent where who asks may not publish.
func TestWhereAnswersGo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.commit(people(w)...)
	w.replica("a")
	before := w.last("agent.watermark.886")
	seen, err := w.nc.SubscribeSync("agent.>")
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{"agent.online.886.10.1", "rollcall.log.watermark.886",
		"rollcall.query.886.roster", "$JS.API.STREAM.DELETE.AGENT_EVENTS"} {
		for _, subject := range []string{"886.roster", "886.agent", "886.counts", "1.counts", "x"} {
			for _, request := range []string{"", "nonsense"} {
				err := w.nc.PublishRequest(schemas.QueryPrefix+subject, to, []byte(request))
				if err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	// Asked later, each is answered later.
	for _, subject := range []string{"886.roster", "886.agent", "886.counts", "x"} {
		w.request(schemas.QueryPrefix+subject, "")
	}
	if n, _, err := seen.Pending(); n > 0 || err != nil {
		t.Errorf("%d messages on agent.>, %v", n, err)
	}
	if after := w.last("agent.watermark.886"); after != before {
		t.Errorf("the watermark is %s", after)
	}
}

// Every replica answers, each question is answered once, and when one has gone, the others go on.
func TestReplicas(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.commit(people(w)...)
	_, stopA := w.replica("a")
	_, stopB := w.replica("b")
	inbox, err := w.nc.SubscribeSync(w.nc.NewInbox())
	if err != nil {
		t.Fatal(err)
	}
	ask := func(n int) {
		t.Helper()
		for range n {
			if err := w.nc.PublishRequest("rollcall.query.886.counts", inbox.Subject,
				nil); err != nil {
				t.Fatal(err)
			}
		}
		for range n {
			m, err := inbox.NextMsg(wait.Patience)
			if err != nil {
				t.Fatal(err)
			}
			if a := parse(t, m.Data); !*a.Trusted || a.AsOf.Sweep != 1 {
				t.Errorf("answered %s", a.body)
			}
		}
		if n, _, err := inbox.Pending(); n > 0 || err != nil {
			t.Errorf("%d answers more, %v", n, err)
		}
	}
	ask(100)
	// As "nats service stats" asks.
	var did []int
	for _, s := range control[micro.Stats](w, "STATS", 2) {
		for _, e := range s.Endpoints {
			if e.Name == "counts" {
				did = append(did, e.NumRequests)
			}
		}
	}
	// That one of two gets none of 100 is as likely as a hundred coins that show the same.
	if len(did) != 2 || did[0]+did[1] != 100 || did[0] == 0 || did[1] == 0 {
		t.Errorf("the replicas have answered %v", did)
	}
	stopA()
	ask(10)
	stopB()
	// What refuses goes with its replica's other connection.
	wait.Eventually(t, "the client to be told that nobody is there", func() bool {
		_, err := w.nc.Request("rollcall.query.886.counts", nil, 100*time.Millisecond)
		return errors.Is(err, nats.ErrNoResponders)
	})
}

// control asks what the nats command asks of services, on each of the three subjects, and wants as
// many answers.
func control[T any](w *world, verb string, want int) (answers []T) {
	w.t.Helper()
	for _, subject := range []string{"$SRV." + verb, "$SRV." + verb + "." + schemas.QueryService} {
		answers = nil
		inbox, err := w.nc.SubscribeSync(w.nc.NewInbox())
		if err != nil {
			w.t.Fatal(err)
		}
		if err := w.nc.PublishRequest(subject, inbox.Subject, nil); err != nil {
			w.t.Fatal(err)
		}
		for range want {
			m, err := inbox.NextMsg(wait.Patience)
			if err != nil {
				w.t.Fatal(err)
			}
			var a T
			if err := json.Unmarshal(m.Data, &a); err != nil {
				w.t.Fatalf("%v: %s", err, m.Data)
			}
			answers = append(answers, a)
		}
	}
	return answers
}

// "nats service ls", "info" and "stats" know the service.
func TestIsAService(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.commit(people(w)...)
	w.replica("host-1")
	w.ask("roster", "")
	w.request("rollcall.query.886.agent", "")
	identity := func(got micro.ServiceIdentity) {
		t.Helper()
		want := micro.ServiceIdentity{Name: "rollcall", ID: got.ID, Version: "1.2.3",
			Metadata: map[string]string{"tenant": "886", "instance": "host-1"}}
		if d := cmp.Diff(want, got); d != "" || got.ID == "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	}
	ping := control[micro.Ping](w, "PING", 1)[0]
	identity(ping.ServiceIdentity)
	info := control[micro.Info](w, "INFO", 1)[0]
	identity(info.ServiceIdentity)
	var got []string
	for _, e := range info.Endpoints {
		got = append(got, e.Name+" "+e.Subject+" "+e.QueueGroup)
	}
	if d := cmp.Diff([]string{"roster rollcall.query.886.roster rollcall",
		"agent rollcall.query.886.agent rollcall",
		"counts rollcall.query.886.counts rollcall"}, got); d != "" ||
		info.Description != "who is on duty in tenant 886" {
		t.Errorf("%q (-want +got):\n%s", info.Description, d)
	}
	stats := control[micro.Stats](w, "STATS", 1)[0]
	identity(stats.ServiceIdentity)
	got = nil
	for _, e := range stats.Endpoints {
		got = append(got, fmt.Sprintf("%s %d requests, %d errors: %s", e.Name, e.NumRequests,
			e.NumErrors, e.LastError))
	}
	if d := cmp.Diff([]string{"roster 1 requests, 0 errors: ",
		`agent 1 requests, 1 errors: 400:the question names no agent: want {"agentId": "17813"}`,
		"counts 0 requests, 0 errors: "}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// A version that is none to the protocol does not keep the service from being there.
func TestVersion(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.replica("a", func(s *Service) { s.cfg.Version = "(devel)" })
	if got := control[micro.Ping](w, "PING", 1)[0].Version; got != "0.0.0" {
		t.Error(got)
	}
}

// An answer can't be trusted before the first complete sweep, and when a watermark is overdue; it
// says which.
func TestTrust(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.replica("a")
	check := func(trusted bool, reason string, agents int) {
		t.Helper()
		for _, question := range []string{"roster", "counts"} {
			a := w.ask(question, "")
			if a.Trusted == nil || *a.Trusted != trusted || a.Reason != reason {
				t.Errorf("answered %s", a.body)
			}
			if question == "roster" && len(a.ids(t)) != agents {
				t.Errorf("%d agents", len(a.ids(t)))
			}
		}
	}
	check(false, "rollcall has not read the whole listing yet", 0)
	w.commit(people(w)...)
	wait.Eventually(t, "the commit to be read", func() bool {
		return w.ask("counts", "").AsOf.Sweep == 1
	})
	check(true, "", 6)
	later := epoch.Add(15*time.Second + time.Millisecond)
	w.now.Store(&later)
	check(false, "the picture is stale: it is as of 2026-11-22T08:00:00Z, "+
		"and a newer one was due at 2026-11-22T08:00:15Z", 6)
	w.commit()
	wait.Eventually(t, "the commit to be read", func() bool {
		return w.ask("counts", "").AsOf.Sweep == 2
	})
	check(true, "", 6)
}

// Where the states can't be read, the answer says so, at once, and is right when they can.
func TestNotRead(t *testing.T) {
	t.Parallel()
	w := emptyWorld(t)
	w.replica("a")
	const want = `{"trusted":false,"reason":"the states have not been read from the stream yet"`
	for question, more := range map[string]string{"roster": `,"agents":[]}`,
		"counts": `,"agents":0,"online":0,"capacity":0,"types":{},"areas":{}}`} {
		if got := w.ask(question, "").body; got != want+more {
			t.Errorf("%s: %s", question, got)
		}
	}
	if got := w.ask("agent", `{"agentId":"99"}`).body; got != want+`,"agents":[]}` {
		t.Errorf("agent: %s", got)
	}
	w.open()
	w.commit(people(w)...)
	wait.Eventually(t, "the states to be read", func() bool { return *w.ask("counts", "").Trusted })
}

// The states of a commit count when its watermark has come, all together.
func TestWholeCommits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.commit(w.agent(1), w.agent(2))
	s, _ := w.replica("a")
	before := w.ask("roster", "").body
	// A message that comes between: rollcall's own all come with their watermark.
	e := w.agent(1, away)
	body, err := e.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.js.Publish(t.Context(), "rollcall.log.state.886.1", body); err != nil {
		t.Fatal(err)
	}
	wait.Eventually(t, "the state to be read", func() bool {
		s.mu.RLock()
		defer s.mu.RUnlock()
		return len(s.table.waiting) == 1
	})
	if got := w.ask("roster", "").body; got != before {
		t.Errorf("got\n%s\nwant\n%s", got, before)
	}
	w.publishWatermark()
	wait.Eventually(t, "the watermark to be read", func() bool {
		return w.ask("counts", "").AsOf.Sweep == 9
	})
	if d := cmp.Diff([]int64{2}, w.ask("roster", `{"online":true}`).ids(t)); d != "" {
		t.Error(d)
	}
}

// publishWatermark writes one without the fence.
func (w *world) publishWatermark() {
	w.t.Helper()
	mark := schemas.Watermark{TenantID: tenant, Sweep: 9, StartedAt: epoch,
		StaleAfter: epoch.Add(time.Hour), NextBy: epoch.Add(time.Hour)}
	body, err := mark.MarshalJSON()
	if err == nil {
		_, err = w.js.Publish(w.t.Context(), "rollcall.log.watermark.886", body)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// Of an agent whose state can't be read nobody knows how it is, until there is another one.
func TestUnusableState(t *testing.T) {
	t.Parallel()
	for _, while := range []string{"reading", "following"} {
		t.Run(while, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.commit(w.agent(1), w.agent(2), w.agent(3))
			w.replica("a")
			if while == "following" {
				w.ask("counts", "")
			}
			for subject, body := range map[string]string{
				"state.886.2": `{"data":{"agent":{"agentId":1,"tenantId":886}}}`,
				"state.886.3": "nonsense",
			} {
				if _, err := w.js.Publish(t.Context(), "rollcall.log."+subject,
					[]byte(body)); err != nil {
					t.Fatal(err)
				}
			}
			w.publishWatermark()
			wait.Eventually(t, "the watermark to be read", func() bool {
				return w.ask("counts", "").AsOf.Sweep == 9
			})
			if d := cmp.Diff([]int64{1}, w.ask("roster", "").ids(t)); d != "" {
				t.Error(d)
			}
		})
	}
}

// Nothing is read before anybody asks, and nothing is kept when nobody has asked for a while.
func TestCostsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.commit(people(w)...)
	s, _ := w.replica("a", func(s *Service) { s.linger = 50 * time.Millisecond })
	consumers := func() int {
		t.Helper()
		stream, err := w.js.Stream(t.Context(), schemas.Stream)
		if err != nil {
			t.Fatal(err)
		}
		return stream.CachedInfo().State.Consumers
	}
	known := func() bool {
		s.mu.RLock()
		defer s.mu.RUnlock()
		return s.table != nil
	}
	if known() || consumers() != 0 {
		t.Errorf("%d consumers", consumers())
	}
	for range 3 {
		if a := w.ask("counts", ""); !*a.Trusted || a.Types["10"]["agents"] != 3 {
			t.Errorf("answered %s", a.body)
		}
		wait.Eventually(t, "the states to be forgotten", func() bool { return !known() })
	}
}
