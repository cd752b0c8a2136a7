package isdpsim

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-events/rollcall/internal/tenantsim"
)

func TestEditing(t *testing.T) {
	clk := newClock()
	tenant := New(Config{Agents: 4, Now: clk.Now})
	const a, b, c = FirstID, FirstID + 1, FirstID + 2
	row := func(id int64) string { r, _ := tenant.Agent(id); return string(r) }
	tenant.Replace(a,
		json.RawMessage(
			`{"agentId":17813,"onlineStatus":0,"agentSignInTime":null,"lastUpdateTimestamp":1,`+
				`"x": 1e3 }`))
	rowB, rowC := row(b), row(c)

	clk.Add(time.Second)
	now := strconv.FormatInt(clk.Now().UnixMilli(), 10)
	type step struct {
		name    string
		do      func() bool
		want    bool
		kind    tenantsim.Kind
		id      int64
		after   string // "": not listed
		changes int    // recorded; one where want is true and kind is set
	}
	signedIn := `{"agentId":17813,"onlineStatus":1,"agentSignInTime":` + now +
		`,"lastUpdateTimestamp":` + now + `,"x": 1e3 }`
	signedOut := strings.Replace(signedIn, `Status":1`, `Status":0`, 1)
	edited := strings.Replace(signedOut, `"x": 1e3 `, `"y":[ 1 ]`, 1)
	for _, s := range []step{
		{"sign in", func() bool {
			return tenant.SetOnline(a, true)
		}, true, tenantsim.SignedIn, a, signedIn, 1},
		{"again", func() bool { return tenant.SetOnline(a, true) }, false, "", a, signedIn, 0},
		{"sign out", func() bool {
			return tenant.SetOnline(a, false)
		}, true, tenantsim.SignedOut, a, signedOut, 1},
		{"edit", func() bool {
			return tenant.Edit(a, Fields{"x": "", "y": "[ 1 ]", "z": ""})
		}, true, tenantsim.Edited, a,
			strings.Replace(signedOut, `"x": 1e3 `, `"y":[ 1 ] `, 1), 1},
		{"replace", func() bool {
			return tenant.Replace(a, json.RawMessage(edited))
		}, true, tenantsim.Replaced, a, edited, 1},
		{"delete", func() bool {
			return tenant.Delete(b) == 1
		}, true, tenantsim.Deleted, b, strings.Replace(rowB, `"deleteFlag":0`, `"deleteFlag":1`, 1),
			1},
		{"undelete", func() bool {
			return tenant.Undelete(b, c) == 1
		}, true, tenantsim.Undeleted, b, rowB, 1},
		{"remove", func() bool { return tenant.Remove(b) == 1 }, true, Removed, b, "", 1},
		{"remove again", func() bool { return tenant.Remove(b) == 0 }, true, "", b, "", 0},
		{"edit while away", func() bool {
			return tenant.Edit(b, Fields{"capacity": "99"})
		}, true, "", b, "", 0},
		{"restore", func() bool { return tenant.Restore(b, c) == 1 }, true, Restored, b, "", 1},
		{"bad bytes", func() bool {
			return tenant.Replace(c, json.RawMessage(`17`))
		}, true, tenantsim.Replaced, c, "17", 1},
		{"good again", func() bool {
			return tenant.Replace(c, json.RawMessage(rowC))
		}, true, tenantsim.Replaced, c, rowC, 1},
	} {
		before := tenant.History()
		if got := s.do(); got != s.want {
			t.Errorf("%s: %t, want %t", s.name, got, s.want)
		}
		news := tenant.HistorySince(len(before))
		if len(news) != s.changes {
			t.Fatalf("%s: %d changes recorded, want %d", s.name, len(news), s.changes)
		}
		if s.changes == 0 {
			continue
		}
		if s.name == "restore" {
			s.after = row(b)
			if !strings.Contains(s.after, `"capacity":99`) {
				t.Errorf("what was changed while away is lost: %s", s.after)
			}
		}
		ch := news[0]
		if ch.Seq != len(before) || ch.ID != s.id || ch.Kind != s.kind ||
			!ch.Time.Equal(clk.Now()) || string(ch.After) != s.after {
			t.Errorf("%s: change %d of %d, %s at %v\ngot  %s\nwant %s", s.name, ch.Seq, ch.ID,
				ch.Kind, ch.Time, ch.After, s.after)
		}
	}
	if got, want := tenant.IDs(), []int64{a, b, c, FirstID + 3}; !slices.Equal(got, want) {
		t.Errorf("the listing's order is %v, want %v", got, want)
	}
	replay(t, tenant, tenant.History())
}

func TestAdd(t *testing.T) {
	tenant := New(Config{Agents: 2})
	var got []int64
	for _, row := range []string{`{"agentId":9007199254740993,"onlineStatus":0}`,
		`{"agentId":17813}`, `{}`, `7`, `{"agentId":"17815","onlineStatus":1}`, ``} {
		got = append(got, tenant.Add(json.RawMessage(row)))
	}
	got = append(got, tenant.AddAgent()) // 17815 is taken
	if want := []int64{9007199254740993, -1, -2, -3, 17815, -4, 17816}; !slices.Equal(got, want) {
		t.Errorf("ids %v, want %v", got, want)
	}
	if !tenant.Edit(-2, Fields{"agentId": "5"}) || tenant.Remove(-1, -3, -4) != 3 {
		t.Error("rows without a name of their own can't be changed")
	}
	if there, online := tenant.Count(); there != 6 || online < 1 {
		t.Errorf("%d there, %d on duty", there, online)
	}
	defer func() {
		if recover() == nil || tenant.Remove(-2) != 1 {
			t.Error("a mistaken script did not panic, or left a lock or half of its change")
		}
	}()
	tenant.Remove(-2, 4711)
}

func TestPatch(t *testing.T) {
	for _, tc := range []struct {
		row    string
		fields Fields
		want   string
	}{
		{`{}`, Fields{"a": "1"}, `{"a":1}`},
		{` { "a" : 1 } `, Fields{"a": "2"}, ` { "a" : 2 } `},
		{` { "a" : 1 } `, Fields{"a": ""}, ` {  } `},
		{`{"a":1,"b":2,"c":3}`, Fields{"a": "", "c": ""}, `{"b":2}`},
		{`{"a":1,"b":2,"c":3}`, Fields{"b": "", "e": "5", "d": `"4"`},
			`{"a":1,"c":3,"d":"4","e":5}`},
		{`{"a":{"b":1},"\u0062":[1,"}"] ,"c":null}`, Fields{"b": "true"},
			`{"a":{"b":1},"\u0062":true ,"c":null}`},
		{`{"a":1}`, Fields{"a": "{oops"}, `{"a":{oops}`},
	} {
		if got, err := Patch(json.RawMessage(tc.row), tc.fields); err != nil ||
			string(got) != tc.want {
			t.Errorf("%s with %v: %s %v, want %s", tc.row, tc.fields, got, err, tc.want)
		}
	}
	tenant := New(Config{Agents: 30})
	for _, r := range tenant.Listing() { // every field by itself, and all of them
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(r.JSON, &fields); err != nil {
			t.Fatal(err)
		}
		row, none := r.JSON, Fields{}
		for name, value := range fields {
			row, _ = Patch(row, Fields{name: "0"})
			row, _ = Patch(row, Fields{name: string(value)})
			none[name] = ""
		}
		if empty, err := Patch(row, none); string(row) != string(r.JSON) || string(empty) != "{}" {
			t.Errorf("there and back: %s, without fields: %s %v", row, empty, err)
		}
	}
	for _, row := range []string{``, `7`, `[]`, `null`, `{"a":}`} {
		if _, err := Patch(json.RawMessage(row), Fields{"a": "1"}); err == nil {
			t.Errorf("%q was patched", row)
		}
	}
}

func TestManyAtOnce(t *testing.T) {
	tenant := New(Config{Agents: 1000})
	all := tenant.IDs()
	if n := tenant.Remove(all[100:700]...); n != 600 ||
		!slices.Equal(tenant.IDs(), append(slices.Clone(all[:100]), all[700:]...)) {
		t.Errorf("%d removed, %d left", n, len(tenant.IDs()))
	}
	if n := tenant.Restore(all[50:700]...); n != 600 || !slices.Equal(tenant.IDs(), all) {
		t.Errorf("%d restored, not all in their old places", n)
	}
	replay(t, tenant, tenant.History())
}

// replay checks that changes follow from one another, in time, and lead to the listing.
func replay(t *testing.T, tenant *Tenant, changes []Change) {
	t.Helper()
	rows := map[int64]json.RawMessage{}
	var last time.Time
	for i, c := range changes {
		if c.Seq != i || c.Time.Before(last) {
			t.Fatalf("change %d at %v has Seq %d, the one before was at %v", i, c.Time, c.Seq, last)
		}
		last = c.Time
		if before, ok := rows[c.ID]; ok != (c.Before != nil) || !bytes.Equal(before, c.Before) {
			t.Fatalf("change %d: agent %d was not what it is said to have been", i, c.ID)
		}
		if rows[c.ID] = c.After; c.After == nil {
			delete(rows, c.ID)
		}
	}
	listing := map[int64]json.RawMessage{}
	for _, r := range tenant.Listing() {
		listing[r.ID] = r.JSON
	}
	if !maps.EqualFunc(listing, rows, equalRaw) {
		t.Error("the history does not lead to the listing")
	}
}

func equalRaw(a, b json.RawMessage) bool { return bytes.Equal(a, b) }
func equalRow(a, b Row) bool             { return a.ID == b.ID && bytes.Equal(a.JSON, b.JSON) }

// TestHistoryExact reads pages while agents change, and sees that each page showed all changes up
// to one point of the history and none after it.
func TestHistoryExact(t *testing.T) {
	tenant, c := start(t, Config{Agents: 40, Seed: 3})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for ctx.Err() == nil {
				tenant.Step()
				time.Sleep(50 * time.Microsecond)
			}
		})
	}
	var mu sync.Mutex
	var got []string // what clients read, whole
	for range 3 {
		wg.Go(func() {
			for range 40 {
				a := c.agents(`{"pageSize":50}`)
				mu.Lock()
				got = append(got, string(a.body))
				mu.Unlock()
			}
			stop()
		})
	}
	wg.Wait()
	history := tenant.History()
	replay(t, tenant, history)
	var want []string
	rows, seq := map[int64]json.RawMessage{}, 0
	order := map[int64]int{} // by first appearance: the listing's order
	for _, p := range tenant.Pages() {
		for ; seq < p.Seq; seq++ {
			ch := history[seq]
			if _, ok := order[ch.ID]; !ok {
				order[ch.ID] = len(order)
			}
			if rows[ch.ID] = ch.After; ch.After == nil {
				delete(rows, ch.ID)
			}
		}
		var listing []Row
		for id, row := range rows {
			listing = append(listing, Row{ID: id, JSON: row})
		}
		slices.SortFunc(listing, func(a, b Row) int { return order[a.ID] - order[b.ID] })
		if !slices.EqualFunc(listing, p.Rows, equalRow) || p.Broken {
			t.Fatalf("request %d showed what was not the truth after %d changes", p.Request, p.Seq)
		}
		want = append(want, string(tenantsim.PageReply(p.Pos, p.Total, p.Rows).Body))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Error("what clients read is not what was recorded")
	}
	if seq <= 40 {
		t.Errorf("only %d changes while 120 pages were read", seq)
	}
}

func TestRecordedLies(t *testing.T) {
	tenant, c := start(t, Config{Agents: 3})
	c.page(`{}`)
	c.page(`{}`)
	tenant.SetFault(OnAgents(All(TotalCount(9), Pos(4), SamePage(0), DropRows(0, 2),
		ChangeRow(0, Fields{"onlineStatus": "7"}))))
	c.page(`{"pageStart":1,"pageSize":10,"onlineStatus":1,"type":10}`)
	pages := tenant.Pages()
	if len(pages) != 3 || &pages[0].Rows[0] != &pages[1].Rows[0] {
		t.Fatalf("%d answers recorded, or the second one without news not shared", len(pages))
	}
	p := pages[2]
	if p.Page != 1 || p.PageSize != 10 || p.Type != 10 || p.Online != 1 || p.Pos != 4 ||
		p.Total != 9 || p.Seq != 3 || p.Broken {
		t.Errorf("recorded %+v", p)
	}
	for _, r := range p.Rows {
		if !strings.Contains(string(r.JSON), `"onlineStatus":7`) {
			t.Errorf("recorded %s", r.JSON)
		}
	}
}

func TestDeterminism(t *testing.T) {
	run := func(seed uint64, agents int) (*Tenant, []Change) {
		clk := newClock()
		tenant := New(Config{Agents: agents, Seed: seed, Now: clk.Now})
		for range 500 {
			clk.Add(time.Second)
			tenant.Step()
		}
		replay(t, tenant, tenant.History())
		return tenant, tenant.History()
	}
	_, one := run(7, 100)
	_, two := run(7, 100)
	if !reflect.DeepEqual(one, two) {
		t.Error("two runs from one seed differ")
	}
	_, other := run(8, 100)
	if bytes.Equal(one[0].After, other[0].After) {
		t.Error("two seeds give the same row")
	}
	_, more := run(7, 200)
	if !bytes.Equal(one[99].After, more[99].After) {
		t.Error("a row depends on how many there are")
	}
}

func TestChurnIsPlausible(t *testing.T) {
	clk := newClock()
	tenant := New(Config{Seed: 11, Now: clk.Now})
	kinds := map[tenantsim.Kind]int{}
	for i := range 1500 {
		clk.Add(time.Second)
		if !tenant.Step() {
			t.Fatalf("step %d changed nothing", i)
		}
		there, online := tenant.Count()
		if share := float64(online) / float64(there); share < 0.15 || share > 0.40 || there < 300 ||
			there > 380 {
			t.Fatalf("after %d steps %d of %d agents are on duty", i+1, online, there)
		}
		if n := len(tenant.Listing()); n-there > 18 {
			t.Fatalf("after %d steps %d rows of deleted agents are listed", i+1, n-there)
		}
	}
	history := tenant.HistorySince(340)
	for _, c := range history {
		kinds[c.Kind]++
	}
	if len(history) != 1500 || kinds[tenantsim.SignedIn]+kinds[tenantsim.SignedOut] < 1080 {
		t.Errorf("%d changes in 1500 steps: %v", len(history), kinds)
	}
	for _, k := range []tenantsim.Kind{tenantsim.SignedIn, tenantsim.SignedOut, tenantsim.Edited,
		tenantsim.Added, Removed, Restored, tenantsim.Deleted, tenantsim.Undeleted} {
		if kinds[k] < 3 {
			t.Errorf("%s came %d times in 1500 steps", k, kinds[k])
		}
	}
}

func TestRun(t *testing.T) {
	for _, tc := range []struct {
		churn    float64
		min, max int
	}{{0, 0, 0}, {2, 1000, 1400}} {
		synctest.Test(t, func(t *testing.T) {
			tenant := New(Config{Churn: tc.churn})
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
			defer cancel()
			if err := tenant.Run(ctx); err != nil {
				t.Error(err)
			}
			if n := len(tenant.HistorySince(340)); n < tc.min || n > tc.max {
				t.Errorf("%d changes in 10 minutes at %v a second", n, tc.churn)
			}
		})
	}
}

// TestEmptyTenant sees that churn finds its way without agents to churn.
func TestEmptyTenant(t *testing.T) {
	tenant := New(Config{Agents: -1})
	tenant.Churn(200)
	if there, _ := tenant.Count(); there > 2 {
		t.Errorf("%d agents in a tenant that had none", there)
	}
}
