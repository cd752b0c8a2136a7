//go:build unix

package e2e

import (
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
)

// A Vendor is a simulated tenant that is served over HTTP by the test itself.
type Vendor struct {
	*isdpsim.Tenant
	URL string

	cfg  isdpsim.Config
	gate sync.RWMutex // read-locked by every request under way
}

// NewVendor serves a simulated tenant until the test ends. Credentials that cfg does not name are
// secrets of its own, to look for where they should not be; see Secrets.
func NewVendor(t testing.TB, cfg isdpsim.Config) *Vendor {
	t.Helper()
	for _, c := range []struct {
		into *string
		std  string
	}{
		{&cfg.ClientID, "isdp-e2e-openapi"}, {&cfg.ClientSecret, "s3cret-of-the-client"},
		{&cfg.Username, "e2e-application"}, {&cfg.Password, "s3cret-application-token"},
	} {
		if *c.into == "" {
			*c.into = c.std
		}
	}
	v := &Vendor{Tenant: isdpsim.New(cfg), cfg: cfg}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(v.serve))
	srv.Start()
	v.URL = srv.URL
	t.Cleanup(func() {
		srv.CloseClientConnections() // of what may hang, by a fault
		srv.Close()
	})
	return v
}

func (v *Vendor) serve(w http.ResponseWriter, r *http.Request) {
	v.gate.RLock()
	defer v.gate.RUnlock()
	v.ServeHTTP(w, r)
}

// Atomically runs do while no request is under way: no answer shows a part of what it changes.
// Requests wait meanwhile.
func (v *Vendor) Atomically(do func()) {
	release := v.Hold()
	defer release()
	do()
}

// Hold makes all requests wait until release is called.
func (v *Vendor) Hold() (release func()) {
	v.gate.Lock()
	return sync.OnceFunc(v.gate.Unlock)
}

// Env are the settings that lead to the tenant.
func (v *Vendor) Env() map[string]string {
	return map[string]string{
		"ROLLCALL_ISDP_URL":           v.URL,
		"ROLLCALL_ISDP_CLIENT_ID":     v.cfg.ClientID,
		"ROLLCALL_ISDP_CLIENT_SECRET": v.cfg.ClientSecret,
		"ROLLCALL_ISDP_USERNAME":      v.cfg.Username,
		"ROLLCALL_ISDP_PASSWORD":      v.cfg.Password,
	}
}

// Secrets is everything that must never be written anywhere: the secret credentials and all tokens
// so far.
func (v *Vendor) Secrets() []string {
	return append(v.Tokens(), v.cfg.ClientSecret, v.cfg.Password)
}
