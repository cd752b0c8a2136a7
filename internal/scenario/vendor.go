package scenario

import (
	"net/http"
	"strconv"
	"sync"

	"github.com/rollcall-events/rollcall/internal/tenantsim"
)

// A Vendor answers for a tenant, or fails as the scenario says. It is an http.Handler.
type Vendor struct {
	tenant *tenantsim.Tenant

	mu     sync.Mutex
	how    trouble
	over   chan struct{} // closed when the present trouble ends
	pages  map[int]bool  // of the first listing, those that have been answered; nil: all were
	filter tenantsim.Query
	read   chan struct{} // closed when the whole listing has been read once
}

// NewVendor returns the tenant's vendor, who answers.
func NewVendor(t *tenantsim.Tenant) *Vendor {
	return &Vendor{tenant: t, over: make(chan struct{}), pages: map[int]bool{},
		read: make(chan struct{})}
}

// fail has the vendor fail in that way from now on; none: no more. Who was kept waiting is cut off.
func (v *Vendor) fail(how trouble) {
	v.mu.Lock()
	defer v.mu.Unlock()
	close(v.over)
	v.how, v.over = how, make(chan struct{})
	if how == credentials {
		v.tenant.RevokeTokens()
	}
}

func (v *Vendor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	how, over := v.how, v.over
	v.mu.Unlock()
	body, ok := tenantsim.ReadBody(w, r)
	if !ok {
		return
	}
	var reply tenantsim.Reply
	switch {
	case how == silent:
		select {
		case <-over:
		case <-r.Context().Done():
		}
		panic(http.ErrAbortHandler)
	case how == unusable:
		reply = tenantsim.Reply{Status: http.StatusOK, ContentType: "text/html; charset=utf-8",
			Body: []byte("<html><body><h1>502 Bad Gateway</h1></body></html>\n")}
	case how == credentials && r.URL.Path == tenantsim.TokenPath:
		reply = tenantsim.OAuthError(http.StatusBadRequest, "invalid_grant", "Bad credentials")
	default:
		reply = v.tenant.Answer(r, body, func(q tenantsim.Query) tenantsim.Reply {
			return v.page(q, how)
		})
	}
	w.Header().Set("Content-Type", reply.ContentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(reply.Body)))
	w.WriteHeader(reply.Status)
	_, _ = w.Write(reply.Body)
}

// page answers a request for a page.
func (v *Vendor) page(q tenantsim.Query, how trouble) tenantsim.Reply {
	f := v.tenant.Find(q)
	switch how {
	case inconsistent:
		return tenantsim.PageReply(q.Page, f.Total+1, f.Rows)
	case empty:
		return tenantsim.PageReply(q.Page, 0, nil)
	}
	v.wasRead(q, f.Total)
	return tenantsim.PageReply(q.Page, f.Total, f.Rows)
}

// wasRead keeps which pages of the listing have been answered until all of them have.
func (v *Vendor) wasRead(q tenantsim.Query, total int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.pages == nil {
		return
	}
	if q.Size != v.filter.Size || q.Type != v.filter.Type || q.Online != v.filter.Online {
		clear(v.pages) // another listing
	}
	v.filter, v.pages[q.Page] = q, true
	for page := range max(1, (total+q.Size-1)/q.Size) {
		if !v.pages[page] {
			return
		}
	}
	v.pages = nil
	close(v.read)
}
