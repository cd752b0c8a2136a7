package isdpsim

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"strconv"
	"time"
)

// agentsPath is the agents endpoint's.
const agentsPath = "/openapi/v1/openTask/findOnlineAgent"

// maxRequestBody bounds what is read of a request.
const maxRequestBody = 1 << 20

// ServeHTTP answers the vendor's two calls, as the faults set by SetFault have it.
func (t *Tenant) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequestBody))
	if err != nil {
		http.Error(w, "the request's body can't be read", http.StatusBadRequest)
		return
	}
	var q query
	if r.URL.Path == agentsPath {
		q = readQuery(body)
	}
	req, hook, leave := t.arrive(r, q)
	defer leave()

	plan := &Plan{Request: req, Page: q.page}
	if hook != nil {
		if fault := hook(req); fault != nil {
			fault(plan)
		}
	}
	for _, do := range plan.Meanwhile {
		do(t)
	}
	if !wait(r.Context(), plan.Delay) {
		panic(http.ErrAbortHandler) // returning would be an answer: 200 without a body
	}
	reply, shown := t.reply(r, body, q, plan)
	out := &countingWriter{ResponseWriter: w, sent: &t.bytesSent}
	sent := false
	defer func() {
		if !sent || out.failed {
			t.broken(shown)
		}
	}()
	if !wait(r.Context(), plan.Late) {
		panic(http.ErrAbortHandler)
	}
	for _, change := range plan.Body {
		reply.Body = change(reply.Body)
	}
	for name, values := range plan.Header {
		w.Header()[name] = values
	}
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", reply.ContentType)
	}
	send := plan.Send
	if send == nil {
		send = sendWhole
	}
	send(&Delivery{W: out, Context: r.Context(), Status: plan.status(reply), Body: reply.Body, Last: leave})
	sent = true
}

// reply makes the answer that goes out, unless it is sent in an unusual way, and says which page it
// showed, if any.
func (t *Tenant) reply(r *http.Request, body []byte, q query, plan *Plan) (Reply, *PageAnswer) {
	switch {
	case plan.Reply != nil:
		return *plan.Reply, nil
	case plan.Request.Endpoint == TokenEndpoint:
		return t.token(r, body), nil
	case plan.Request.Endpoint == AgentsEndpoint:
		if reply, ok := wrongMethod(r); !ok {
			return reply, nil
		}
		if !t.authorized(r) {
			t.countInvalidToken()
			return Reply{t.cfg.InvalidTokenStatus, "application/xml;charset=UTF-8", []byte(invalidToken)}, nil
		}
		if q.problem != "" {
			return stateReply("400", q.problem), nil
		}
		return t.page(q, plan)
	default:
		return jsonReply(http.StatusNotFound, fmt.Sprintf(`{"status":404,"error":"Not Found","path":%q}`, r.URL.EscapedPath())), nil
	}
}

// page answers with one page of the listing.
func (t *Tenant) page(q query, plan *Plan) (Reply, *PageAnswer) {
	t.mu.Lock()
	rows, total := t.lookUp(q, plan.Page)
	shown := &PageAnswer{
		Request: plan.Request.Number, Time: t.cfg.Now(), Seq: len(t.history),
		Page: q.page, PageSize: q.size, Type: q.typ, Online: q.online, Broken: plan.Broken,
	}
	if t.cfg.RecordPages {
		t.pages = append(t.pages, shown) // its place in the order; the rows follow
	}
	t.mu.Unlock()

	pos := q.page
	for _, change := range plan.Rows {
		rows = change(rows)
	}
	for _, lie := range plan.Total {
		total = lie(total)
	}
	for _, lie := range plan.Pos {
		pos = lie(pos)
	}
	if t.cfg.RecordPages {
		t.mu.Lock()
		shown.Pos, shown.Total, shown.Rows = pos, total, rows
		t.share(lookup{q.page, q.size, q.typ, q.online}, shown)
		t.mu.Unlock()
	}
	return jsonReply(http.StatusOK, render(pos, total, rows)), shown
}

// lookUp returns the rows of a page and the size of the whole listing. Without a filter it touches
// only the page's rows. mu is held.
func (t *Tenant) lookUp(q query, page int) (rows []Row, total int) {
	first, last := math.MaxInt, math.MaxInt
	if page <= len(t.listing)/q.size {
		first, last = page*q.size, (page+1)*q.size
	}
	if q.typ < 0 && q.online < 0 {
		total = len(t.listing)
		for _, a := range t.listing[min(first, total):min(last, total)] {
			rows = append(rows, Row{a.id, a.row})
		}
		return rows, total
	}
	for _, a := range t.listing {
		if q.typ >= 0 && (!a.hasType || a.typ != int64(q.typ)) || q.online >= 0 && (!a.hasStatus || a.status != int64(q.online)) {
			continue
		}
		if total >= first && total < last {
			rows = append(rows, Row{a.id, a.row})
		}
		total++
	}
	return rows, total
}

func render(pos, total int, rows []Row) string {
	n := 128
	for _, r := range rows {
		n += len(r.JSON) + 1
	}
	b := bytes.NewBuffer(make([]byte, 0, n))
	fmt.Fprintf(b, `{"stateCode":"0","errorMessage":null,"result":{"pos":%d,"total_count":%d,"data":[`, pos, total)
	for i, r := range rows {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(r.JSON)
	}
	b.WriteString(`],"entityName":null}}`)
	return b.String()
}

// query is the body of a request to the agents endpoint.
type query struct {
	page, size  int
	typ, online int    // -1: no filter
	problem     string // why it can't be answered
}

// readQuery is as strict as the vendor's table: integers are numbers. What the table does not list
// is ignored.
func readQuery(body []byte) query {
	q := query{size: MaxPageSize, typ: -1, online: -1}
	var in map[string]json.RawMessage
	if err := json.Unmarshal(body, &in); err != nil || in == nil {
		q.problem = "请求参数错误: the body is not a JSON object"
		return q
	}
	for _, f := range []struct {
		name string
		into *int
	}{{"pageStart", &q.page}, {"pageSize", &q.size}, {"type", &q.typ}, {"onlineStatus", &q.online}} {
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
	if q.size == 0 || q.size > MaxPageSize {
		q.size = MaxPageSize
	}
	return q
}

// Reply is an answer before it is sent.
type Reply struct {
	Status      int
	ContentType string
	Body        []byte
}

func jsonReply(status int, body string) Reply {
	return Reply{status, "application/json;charset=UTF-8", []byte(body)}
}

// stateReply is the vendor's way to report a failure.
func stateReply(code, message string) Reply {
	c, _ := json.Marshal(code)
	m, _ := json.Marshal(message)
	return jsonReply(http.StatusOK, fmt.Sprintf(`{"stateCode":%s,"errorMessage":%s,"result":null}`, c, m))
}

// wrongMethod answers requests that are not a POST of JSON.
func wrongMethod(r *http.Request) (Reply, bool) {
	if r.Method != http.MethodPost {
		return jsonReply(http.StatusMethodNotAllowed, `{"status":405,"error":"Method Not Allowed"}`), false
	}
	if media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); media != "application/json" {
		return jsonReply(http.StatusUnsupportedMediaType, `{"status":415,"error":"Unsupported Media Type"}`), false
	}
	return Reply{}, true
}

// wait lets d pass and reports whether the client is still there.
func wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
