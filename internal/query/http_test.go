package query

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/internal/test/natstest"
	"github.com/rollcall-events/rollcall/internal/test/wait"
)

// serve is a replica that answers over HTTP.
func (w *world) serve() *httptest.Server {
	w.t.Helper()
	js, err := jetstream.New(natstest.Connect(w.t, w.url))
	if err != nil {
		w.t.Fatal(err)
	}
	s := New(Config{Tenant: tenant, JetStream: js,
		Now: func() time.Time { return *w.now.Load() }})
	s.patience = wait.Patience
	ctx, cancel := context.WithCancel(w.t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := s.Run(ctx); err != nil {
			w.t.Error(err)
		}
	}()
	srv := httptest.NewServer(s.Handler())
	w.t.Cleanup(func() {
		srv.Close()
		cancel()
		<-ended
	})
	return srv
}

func get(t testing.TB, srv *httptest.Server, method, path string, header ...string) (
	*http.Response, string,
) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, srv.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	resp, err := srv.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if kind := resp.Header.Get("Content-Type"); kind != "application/json" &&
		resp.StatusCode != http.StatusNotModified && method != http.MethodHead {
		t.Errorf("%s %s is %s", method, path, kind)
	}
	return resp, string(body)
}

// Over HTTP the answers are the same, but that a roster need not fit into a message.
func TestHTTP(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.commit(people(w)...)
	w.replica("a")
	srv := w.serve()
	for _, c := range []struct{ path, question, request string }{
		{"roster", "roster", ""},
		{"roster?", "roster", ""},
		{"roster?online=true", "roster", `{"online":true}`},
		{"roster?type=10&online=false&area=North", "roster",
			`{"type":"10","online":false,"area":"North"}`},
		{"roster?area=" + url.QueryEscape("长沙"), "roster", `{"area":"长沙"}`},
		{"roster?area=", "roster", `{"area":""}`},
		{"roster?limit=2&after=6", "roster", `{"limit":2,"after":"6"}`},
		{"agents/9007199254740993", "agent", `{"agentId":"9007199254740993"}`},
		{"agents/3", "agent", `{"agentId":"3"}`},
		{"counts", "counts", ""},
	} {
		resp, body := get(t, srv, "GET", "/api/"+c.path)
		if want := w.ask(c.question, c.request).body; body != want+"\n" ||
			resp.StatusCode != 200 || resp.Header.Get("Content-Length") != fmt.Sprint(len(body)) {
			t.Errorf("%s: %s\n%s\nwant\n%s", c.path, resp.Status, body, want)
		}
		head, nothing := get(t, srv, "HEAD", "/api/"+c.path)
		if nothing != "" || head.StatusCode != 200 ||
			head.Header.Get("ETag") != resp.Header.Get("ETag") ||
			head.Header.Get("Content-Length") != resp.Header.Get("Content-Length") {
			t.Errorf("HEAD %s: %s %v", c.path, head.Status, head.Header)
		}
	}
}

func TestHTTPWhole(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	events := people(w)
	for id := range 50 {
		events = append(events, w.agent(int64(100+id), name(strings.Repeat("x", 3000))))
	}
	w.commit(events...)
	_, body := get(t, w.serve(), "GET", "/api/roster")
	if a := parse(t, []byte(body)); len(a.ids(t)) != 56 || a.Next != "" {
		t.Errorf("%d agents in %d bytes, next %q", len(a.ids(t)), len(body), a.Next)
	}
}

func TestHTTPRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.commit(people(w)...)
	srv := w.serve()
	for _, c := range []struct {
		path string
		code int
		want string
	}{
		{"roster?tenant=999", 400, "there is no tenant to ask by: want any of after, area, " +
			"limit, online, type, such as ?type=10&online=true"},
		{"roster?limit=1000000", 400, "limit is 1000000: want a whole number from 1 to 10000"},
		{"roster?limit=", 400, `limit is "": want a whole number from 1 to 10000`},
		{"roster?limit=5e1", 400, "limit is 5e1: want a whole number"},
		{"roster?limit=+5", 400, "limit is  5: want a whole number"},
		{"roster?limit=%2B5", 400, "limit is +5: want a whole number"},
		{"roster?online", 400, `online is "": want true or false`},
		{"roster?online=TRUE", 400, "online is TRUE: want true or false"},
		{"roster?type=a%20b", 400,
			"type is a b: want a type as in counts, such as 10, or _ for none"},
		{"roster?type=10&type=0", 400, "type is given 2 times: want it once, a type as in counts"},
		{"roster?after=x", 400, "after is x: want the next of the page before, such as 17813"},
		{"roster?type=%zz", 400, "the query of the URL can't be read"},
		{"roster?a;b", 400, "the query of the URL can't be read"},
		{"counts?type=10", 400, "there is no type to ask by: want no query"},
		{"agents/x", 400, "the path ends in x: want an agentId, such as 17813"},
		{"agents/007", 400, "the path ends in 007: want an agentId"},
		{"agents/5?type=10", 400, "there is no type to ask by: want no query"},
		{"agents/99", 404, "agent 99 is not known"},
		{"agents/", 404, "there is nothing here: there are /api/roster, " +
			"/api/agents/<agentId> and /api/counts"},
		{"", 404, "there is nothing here"},
		{"rosters", 404, "there is nothing here"},
		{"roster/", 404, "there is nothing here"},
	} {
		resp, body := get(t, srv, "GET", "/api/"+c.path)
		var got struct{ Error string }
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Errorf("%s: %v: %s", c.path, err, body)
		}
		if resp.StatusCode != c.code || !strings.Contains(got.Error, c.want) ||
			resp.Header.Get("ETag") != "" {
			t.Errorf("%s: %s %s, want %d %q", c.path, resp.Status, got.Error, c.code, c.want)
		}
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH"} {
		resp, body := get(t, srv, method, "/api/roster")
		if resp.StatusCode != 405 || !strings.Contains(resp.Header.Get("Allow"), "GET") {
			t.Errorf("%s: %s %s", method, resp.Status, body)
		}
	}
}

// The ETag changes with the watermark, and with what the answer says of trust.
func TestETag(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.commit(people(w)...)
	a, b := w.serve(), w.serve()
	etag := func(srv *httptest.Server, path string) string {
		t.Helper()
		resp, _ := get(t, srv, "GET", path)
		tag := resp.Header.Get("ETag")
		if len(tag) < 3 || tag[0] != '"' {
			t.Fatalf("ETag %s", tag)
		}
		return tag
	}
	unchanged := func(path, have string) bool {
		t.Helper()
		resp, body := get(t, a, "GET", path, "If-None-Match", have)
		if resp.StatusCode == http.StatusNotModified {
			if body != "" || resp.Header.Get("ETag") == "" {
				t.Errorf("304 with %v and %q", resp.Header, body)
			}
			return true
		}
		if resp.StatusCode != 200 || body == "" {
			t.Errorf("%s: %q", resp.Status, body)
		}
		return false
	}
	seen := map[string]bool{}
	for _, change := range []func(){
		func() {},
		func() { w.commit(w.agent(5, away)) },
		func() { w.commit() },
		func() { later := epoch.Add(time.Minute); w.now.Store(&later) },
		func() { w.commit() },
	} {
		change()
		for _, srv := range []*httptest.Server{a, b} {
			wait.Eventually(t, "the commit to be read", func() bool {
				_, body := get(t, srv, "GET", "/api/counts")
				return parse(t, []byte(body)).AsOf.Sweep == w.sweep
			})
		}
		for _, path := range []string{"/api/roster", "/api/roster?online=true", "/api/counts",
			"/api/agents/5"} {
			tag := etag(a, path)
			if other := etag(b, path); other != tag {
				t.Errorf("%s has the ETags %s and %s on two replicas", path, tag, other)
			}
			if seen[path+tag] {
				t.Errorf("%s has the ETag %s again", path, tag)
			}
			seen[path+tag] = true
			if !unchanged(path, tag) || !unchanged(path, `"x", W/`+tag) || !unchanged(path, "*") ||
				unchanged(path, `"x"`) || unchanged(path, strings.Trim(tag, `"`)) {
				t.Errorf("%s: If-None-Match does not work with %s", path, tag)
			}
		}
	}
	if len(seen) != 20 {
		t.Errorf("%d tags", len(seen))
	}
	if d := cmp.Diff("private, no-cache", func() string {
		resp, _ := get(t, a, "GET", "/api/roster")
		return resp.Header.Get("Cache-Control")
	}()); d != "" {
		t.Error(d)
	}
}
