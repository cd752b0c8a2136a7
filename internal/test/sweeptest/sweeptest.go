// Package sweeptest sweeps the simulated tenant in tests, and checks what comes of it.
package sweeptest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/rollcall-events/rollcall/internal/listing"
	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
)

// Tests on virtual time take small pages, since decoding is what costs them real time: this tenant
// has seven, the last of four agents.
const (
	SmallPage   = 5
	SmallTenant = 34
)

// Direct calls a vendor's handler without a network: for tests on virtual time.
type Direct struct{ Vendor http.Handler }

// RoundTrip implements http.RoundTripper.
func (d Direct) RoundTrip(r *http.Request) (resp *http.Response, err error) {
	w := httptest.NewRecorder()
	defer func() {
		if v := recover(); v == http.ErrAbortHandler {
			resp, err = nil, errors.New("connection reset")
			if r.Context().Err() != nil {
				err = r.Context().Err()
			}
		} else if v != nil {
			panic(v)
		}
	}()
	d.Vendor.ServeHTTP(w, r)
	return w.Result(), nil
}

// A Sweeper is a poller.
type Sweeper interface {
	Sweep(ctx context.Context, emit func(*listing.Page)) listing.Verdict
}

// Once sweeps once and returns what was emitted.
func Once(t *testing.T, p Sweeper) (listing.Verdict, []*listing.Page) {
	t.Helper()
	return Under(t.Context(), t, p)
}

// Under is Once under a context.
func Under(ctx context.Context, t *testing.T, p Sweeper) (listing.Verdict, []*listing.Page) {
	t.Helper()
	var pages []*listing.Page
	over := false
	v := p.Sweep(ctx, func(page *listing.Page) {
		if over {
			t.Error("emit after Sweep had returned")
		}
		if page.Sent.IsZero() || page.Read.Before(page.Sent) {
			t.Errorf("page %d was sent at %v and read at %v", page.Number, page.Sent, page.Read)
		}
		pages = append(pages, page)
	})
	over = true
	if v.EndedAt.Before(v.StartedAt) || v.StartedAt.IsZero() {
		t.Errorf("the sweep ran from %v to %v", v.StartedAt, v.EndedAt)
	}
	if v.Complete != (v.Err == nil) {
		t.Errorf("complete is %v, the error %v", v.Complete, v.Err)
	}
	NoSecrets(t, fmt.Sprint(v.Err))
	return v, pages
}

// NoSecrets checks that a text shows no secret of the default credentials.
func NoSecrets(t *testing.T, text string) {
	t.Helper()
	for _, secret := range []string{isdpsim.DemoClientSecret, isdpsim.DemoPassword} {
		if strings.Contains(text, secret) {
			t.Errorf("a secret shows: %s", text)
		}
	}
}

// WantClass checks that an error is of a class, and says these words.
func WantClass(t *testing.T, err error, class listing.Class, words ...string) {
	t.Helper()
	var e *listing.Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v, want an *listing.Error of class %s", err, class)
	}
	if e.Class != class {
		t.Errorf("error of class %s, want %s: %v", e.Class, class, err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not say %q", err, w)
		}
	}
}

// WantAll checks that the sweep was complete and that its pages show exactly the tenant's listing.
func WantAll(t *testing.T, sim *isdpsim.Tenant, v listing.Verdict, pages []*listing.Page) {
	t.Helper()
	if !v.Complete {
		t.Fatalf("incomplete: %v", v.Err)
	}
	var got []int64
	for _, p := range pages {
		for _, a := range p.Agents {
			got = append(got, a.AgentID())
		}
	}
	slices.Sort(got)
	got = slices.Compact(got)
	if want := slices.Sorted(slices.Values(sim.IDs())); !slices.Equal(got, want) {
		t.Errorf("%d agents were read, %d are listed", len(got), len(want))
	}
}
