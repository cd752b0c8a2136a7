//go:build ci && unix

package board

import (
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
)

// A front stands between browsers and a board, as the proxies of this world do, and can do to
// /events what they do. Everything else it passes on.
type front struct {
	board func() string // its URL
	proxy *httputil.ReverseProxy

	mu    sync.Mutex
	is    string        // what it does now; "": pass everything on
	moved chan struct{} // closed when that changes
}

// sleepless lets a page say how long the worker slept, since no test can put a machine to sleep.
const sleepless = `{
  const real = Date.now, channel = new BroadcastChannel('sleep')
  let slept = 0
  Date.now = () => real() + slept
  channel.onmessage = ({ data }) => {
    slept += data
    channel.postMessage('slept')
  }
}
`

func newFront(board func() string) *front {
	f := &front{board: board, moved: make(chan struct{})}
	f.proxy = &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		to, _ := url.Parse(f.board())
		r.SetURL(to)
		r.Out.Header.Del("Accept-Encoding") // so the transport decompresses
	}, ModifyResponse: func(r *http.Response) error {
		if r.Request.URL.Path == "/worker.js" {
			r.Header.Del("Content-Length")
			r.ContentLength = -1
			r.Body = struct {
				io.Reader
				io.Closer
			}{io.MultiReader(strings.NewReader(sleepless), r.Body), r.Body}
		}
		return nil
	}}
	return f
}

func (f *front) be(is string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.is = is
	close(f.moved)
	f.moved = make(chan struct{})
}

func (f *front) now() (is string, moved <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.is, f.moved
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	is, moved := f.now()
	history := len(r.URL.Path) > len("/agents/") && r.URL.Path[:len("/agents/")] == "/agents/"
	if r.URL.Path != "/events" && !history {
		f.proxy.ServeHTTP(w, r)
		return
	}
	switch is {
	case "302":
		http.Redirect(w, r, "http://login.invalid/", http.StatusFound)
	case "401", "403", "503":
		http.Error(w, "no", map[string]int{"401": 401, "403": 403, "503": 503}[is])
	case "html": // a login page in the place of what was asked for
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, "<!doctype html><form>user, password</form>")
	case "unanswered":
		select {
		case <-r.Context().Done():
		case <-moved:
		}
	case "silent":
		w.Header().Set("Content-Type", "text/event-stream")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
		case <-moved:
		}
	default:
		if history {
			f.proxy.ServeHTTP(w, r)
			return
		}
		f.events(w, r)
	}
}

// events passes the stream on, and keeps back what comes while the front is "held".
func (f *front) events(w http.ResponseWriter, r *http.Request) {
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, f.board()+"/events", nil)
	if err != nil {
		panic(err)
	}
	req.Header.Set("Accept-Encoding", r.Header.Get("Accept-Encoding")) // and it stays compressed
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer res.Body.Close()
	for _, name := range []string{"Content-Type", "Content-Encoding"} {
		w.Header()[name] = res.Header[name]
	}
	part := make([]byte, 64<<10)
	for {
		n, err := res.Body.Read(part)
		for {
			is, moved := f.now()
			if is != "held" {
				break
			}
			select {
			case <-moved:
			case <-r.Context().Done():
				return
			}
		}
		if _, failed := w.Write(part[:n]); failed != nil || err != nil {
			return
		}
		_ = http.NewResponseController(w).Flush()
	}
}
