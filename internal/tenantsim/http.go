package tenantsim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"strconv"
	"time"
)

// The paths of the vendor's two calls.
const (
	TokenPath  = "/oauth2/oauth/rest_token"
	AgentsPath = "/openapi/v1/openTask/findOnlineAgent"
)

// maxRequestBody bounds what is read of a request.
const maxRequestBody = 1 << 20

// A Reply is an answer before it is sent.
type Reply struct {
	Status      int
	ContentType string
	Body        []byte
}

// ServeHTTP answers the vendor's two calls.
func (t *Tenant) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, ok := ReadBody(w, r)
	if !ok {
		return
	}
	reply := t.Answer(r, body, func(q Query) Reply {
		f := t.Find(q)
		return PageReply(q.Page, f.Total, f.Rows)
	})
	w.Header().Set("Content-Type", reply.ContentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(reply.Body)))
	w.WriteHeader(reply.Status)
	_, _ = w.Write(reply.Body)
}

// ReadBody reads a request's body, or answers that it can't be read.
func ReadBody(w http.ResponseWriter, r *http.Request) (body []byte, ok bool) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequestBody))
	if err != nil {
		http.Error(w, "the request's body can't be read", http.StatusBadRequest)
		return nil, false
	}
	return body, true
}

// Answer makes the answer to a request; page makes that of one for a page, if it is a good one.
func (t *Tenant) Answer(r *http.Request, body []byte, page func(Query) Reply) Reply {
	isToken := r.URL.Path == TokenPath
	media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case !isToken && r.URL.Path != AgentsPath:
		return jsonReply(http.StatusNotFound,
			fmt.Sprintf(`{"status":404,"error":"Not Found","path":%q}`, r.URL.EscapedPath()))
	case r.Method != http.MethodPost:
		return jsonReply(http.StatusMethodNotAllowed, `{"status":405,"error":"Method Not Allowed"}`)
	case media != "application/json":
		return jsonReply(http.StatusUnsupportedMediaType,
			`{"status":415,"error":"Unsupported Media Type"}`)
	case isToken:
		return t.token(body)
	case !t.authorized(r):
		return InvalidToken(t.cfg.InvalidTokenStatus)
	}
	q := ReadQuery(body)
	if q.problem != "" {
		return StateReply("400", q.problem)
	}
	return page(q)
}

// A Query is the body of a request for a page.
type Query struct {
	Page, Size   int
	Type, Online int    // -1: no filter
	problem      string // why it can't be answered
}

// ReadQuery is as strict as the vendor's table: integers are numbers. What the table does not list
// is ignored.
func ReadQuery(body []byte) Query {
	q := Query{Size: MaxPageSize, Type: -1, Online: -1}
	var in map[string]json.RawMessage
	if err := json.Unmarshal(body, &in); err != nil || in == nil {
		q.problem = "请求参数错误: the body is not a JSON object"
		return q
	}
	for _, f := range []struct {
		name string
		into *int
	}{{"pageStart", &q.Page}, {"pageSize", &q.Size}, {"type", &q.Type},
		{"onlineStatus", &q.Online}} {
		raw, ok := in[f.name]
		if !ok || string(raw) == "null" {
			continue
		}
		n, err := strconv.Atoi(string(raw))
		if err != nil || n < 0 {
			q.problem = fmt.Sprintf("请求参数错误: %s must be an int from 0", f.name)
			return q
		}
		*f.into = n
	}
	if q.Size == 0 || q.Size > MaxPageSize {
		q.Size = MaxPageSize
	}
	return q
}

// Found is what a query finds, as it is at one instant.
type Found struct {
	Rows  []Row // of the page
	Total int   // of the whole listing
	Time  time.Time
	Made  int // how many changes had been made by then, the first agents included
}

// Find looks a page up. Without a filter it touches only the page's rows.
func (t *Tenant) Find(q Query) (f Found) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f.Time, f.Made = t.cfg.Now(), t.made
	first, last := math.MaxInt, math.MaxInt
	if q.Page <= len(t.listing)/q.Size {
		first, last = q.Page*q.Size, (q.Page+1)*q.Size
	}
	if q.Type < 0 && q.Online < 0 {
		f.Total = len(t.listing)
		for _, a := range t.listing[min(first, f.Total):min(last, f.Total)] {
			f.Rows = append(f.Rows, Row{a.id, a.row})
		}
		return f
	}
	for _, a := range t.listing {
		if q.Type >= 0 && (!a.hasType || a.typ != int64(q.Type)) ||
			q.Online >= 0 && (!a.hasStatus || a.status != int64(q.Online)) {
			continue
		}
		if f.Total >= first && f.Total < last {
			f.Rows = append(f.Rows, Row{a.id, a.row})
		}
		f.Total++
	}
	return f
}

// PageReply answers with a page.
func PageReply(pos, total int, rows []Row) Reply {
	n := 128
	for _, r := range rows {
		n += len(r.JSON) + 1
	}
	b := bytes.NewBuffer(make([]byte, 0, n))
	fmt.Fprintf(b,
		`{"stateCode":"0","errorMessage":null,"result":{"pos":%d,"total_count":%d,"data":[`, pos,
		total)
	for i, r := range rows {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(r.JSON)
	}
	b.WriteString(`],"entityName":null}}`)
	return Reply{http.StatusOK, jsonType, b.Bytes()}
}

// StateReply is the vendor's way to report a failure.
func StateReply(code, message string) Reply {
	c, _ := json.Marshal(code)
	m, _ := json.Marshal(message)
	return jsonReply(http.StatusOK, fmt.Sprintf(`{"stateCode":%s,"errorMessage":%s,"result":null}`,
		c, m))
}

const jsonType = "application/json;charset=UTF-8"

func jsonReply(status int, body string) Reply { return Reply{status, jsonType, []byte(body)} }
