package query

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/rollcall-events/rollcall/internal/fields"
)

// PathAPI begins the paths of the questions over HTTP.
const PathAPI = "/api/"

// writeTimeout is how long an answer may take in all.
const writeTimeout = 30 * time.Second

const paths = PathAPI + "roster, " + PathAPI + "agents/<agentId> and " + PathAPI + "counts"

// Handler answers the questions at GET /api/roster, /api/agents/<agentId> and /api/counts, in JSON,
// errors too. Nothing but its length limits a roster there that asks for no limit.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+PathAPI+"roster", func(w http.ResponseWriter, r *http.Request) {
		q, err := fromQuery(r.URL.RawQuery, ofRoster)
		s.answer(w, r, q, err, s.roster)
	})
	mux.HandleFunc("GET "+PathAPI+"counts", func(w http.ResponseWriter, r *http.Request) {
		q, err := fromQuery(r.URL.RawQuery, ofCounts)
		s.answer(w, r, q, err, s.counts)
	})
	mux.HandleFunc("GET "+PathAPI+"agents/{id}", func(w http.ResponseWriter, r *http.Request) {
		q, err := fromQuery(r.URL.RawQuery, nil)
		if f, id := ofAgent["agentId"], r.PathValue("id"); err == nil && !f.set(q, id) {
			err = errors.New("the path ends in " + shown(id) + ": want " +
				strings.ReplaceAll(f.want, `"`, ""))
		}
		s.answer(w, r, q, err, s.agent)
	})
	mux.HandleFunc(PathAPI, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			refuse(w, http.StatusMethodNotAllowed, "only GET and HEAD")
			return
		}
		refuse(w, notFound, "there is nothing here: there are "+paths)
	})
	return mux
}

func (s *Service) answer(w http.ResponseWriter, r *http.Request, q *request, err error,
	answer func(context.Context, *request, int) (*reply, error),
) {
	// Only the writers of tests have no deadline.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
	if err != nil {
		refuse(w, badRequest, err.Error())
		return
	}
	a, err := answer(r.Context(), q, 0)
	if f := (*failure)(nil); errors.As(err, &f) {
		refuse(w, f.code, f.text)
		return
	}
	h := w.Header()
	h.Set("Cache-Control", "private, no-cache") // may be kept, and is to be asked for again
	if a.tag != "" {
		h.Set("ETag", `"`+a.tag+`"`)
		if matches(r.Header.Values("If-None-Match"), a.tag) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(a.size()+1))
	if r.Method == http.MethodHead {
		return
	}
	for _, part := range a.parts {
		if _, err := w.Write(part); err != nil {
			return // who asked has gone
		}
	}
	_, _ = w.Write([]byte{'\n'})
}

// matches reports whether one of the tags that somebody has is this one.
func matches(have []string, tag string) bool {
	for list := range strings.SplitSeq(strings.Join(have, ","), ",") {
		list = strings.TrimSpace(list)
		if list == "*" || strings.TrimPrefix(list, "W/") == `"`+tag+`"` {
			return true
		}
	}
	return false
}

func refuse(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write(append(fields.AppendString([]byte(`{"error":`), text), "}\n"...))
}
