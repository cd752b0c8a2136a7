package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rollcall-events/rollcall/internal/tenantsim"
)

// A played scenario: what was told, with the time since the beginning.
type played struct {
	t      *testing.T
	tenant *tenantsim.Tenant
	vendor *Vendor
	token  string
	began  time.Time
	told   []string
}

// play plays a scenario in a bubble, from when the listing has been read; look is called in between
// at the time that it is for.
func play(t *testing.T, text string, seed uint64, speed float64,
	look map[time.Duration]func(*played)) (p *played, lost int) {
	t.Helper()
	s, err := Parse("f.yaml", []byte(text), -1)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		tenant := tenantsim.New(tenantsim.Config{Agents: s.Agents, Seed: 5})
		p = &played{t: t, tenant: tenant, vendor: NewVendor(tenant)}
		done := make(chan error, 1)
		go func() {
			done <- s.Play(t.Context(), Stage{Tenant: tenant, Vendor: p.vendor, Seed: seed,
				Speed: speed, LoseStream: func(context.Context) error { lost++; return nil },
				Tell: func(text string) {
					p.told = append(p.told, fmt.Sprintf("%v %s", time.Since(p.began), text))
				}})
		}()
		time.Sleep(time.Hour) // nothing happens before the listing has been read
		for page := range (s.Agents + 49) / 50 {
			if len(p.told) > 0 {
				t.Errorf("before page %d was read: %q", page, p.told)
			}
			p.began = time.Now()
			p.page(page)
		}
		for _, at := range slices.Sorted(maps.Keys(look)) {
			time.Sleep(time.Until(p.began.Add(at)))
			look[at](p)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return p, lost
}

// ask asks the vendor, and returns its answer; 0: the connection was cut off.
func (p *played) ask(path, body string) (status int, answer string) {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "bearer "+p.token)
	w := httptest.NewRecorder()
	defer func() {
		if e := recover(); e != nil {
			if err, ok := e.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
				panic(e)
			}
			status, answer = 0, ""
		}
	}()
	p.vendor.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func (p *played) signIn() (status int) {
	status, answer := p.ask(tenantsim.TokenPath, fmt.Sprintf(
		`{"client_id":%q,"client_secret":%q,"grant_type":"password","username":%q,"password":%q}`,
		tenantsim.DemoClientID, tenantsim.DemoClientSecret, tenantsim.DemoUsername,
		tenantsim.DemoPassword))
	var in struct {
		Token string `json:"access_token"`
	}
	_ = json.Unmarshal([]byte(answer), &in) // what is none leaves the token as it was
	if in.Token != "" {
		p.token = in.Token
	}
	return status
}

// page asks for a page, and returns the total and the rows; -1: it is no page.
func (p *played) page(n int) (total, rows int) {
	if p.token == "" {
		p.signIn()
	}
	_, answer := p.ask(tenantsim.AgentsPath, fmt.Sprintf(`{"pageStart":%d}`, n))
	var in struct {
		Result struct {
			Total *int `json:"total_count"`
			Data  []json.RawMessage
		}
	}
	if json.Unmarshal([]byte(answer), &in) != nil || in.Result.Total == nil {
		return -1, -1
	}
	return *in.Result.Total, len(in.Result.Data)
}

func (p *played) online(id int64) bool {
	return (&cast{Stage: Stage{Tenant: p.tenant}}).row(id).online
}

// Each thing happens at its time, and its time passes as fast as asked for.
func TestPlay(t *testing.T) {
	p, lost := play(t, `agents: 60
steps:
  - at: 0s
    signIn: [17813, 17814]
  - at: 2s
    toggle: 17813
    every: 2s
    times: 3
  - at: 3s
    edit: 17814
    set: {areaName: 火星}
  - at: 10s
    vanish: 60%
  - at: 12s
    delete: 17815
  - at: 13s
    undelete: 17815
  - at: 20s
    return: all
  - at: 21s
    add: 3
  - at: 22s
    signOut: all
  - at: 30s
    stream: lost
`, 1, 2, map[time.Duration]func(*played){
		1500 * time.Millisecond: func(p *played) { // 3s of the scenario, after the first toggle
			if p.online(17813) || !p.online(17814) {
				t.Error("at 3s: who is on duty is wrong")
			}
		},
		5500 * time.Millisecond: func(p *played) {
			if total, rows := p.page(0); total != 24 || rows != 24 {
				t.Errorf("after 60%% of 60 have vanished: %d, %d", total, rows)
			}
			if row, _ := p.tenant.Agent(17814); !strings.Contains(string(row), `"areaName":"火星"`) {
				t.Errorf("the edited row is %s", row)
			}
		},
		11750 * time.Millisecond: func(p *played) {
			if there, online := p.tenant.Count(); there != 63 || online != 0 {
				t.Errorf("in the end %d are there, %d on duty", there, online)
			}
		},
	})
	want := []string{
		"0s at 0s: 2 agents: signed in",
		"1s at 2s: agent 17813: signed in or out",
		"1.5s at 3s: agent 17814: edited",
		"2s at 4s: agent 17813: signed in or out",
		"3s at 6s: agent 17813: signed in or out",
		"5s at 10s: 36 agents (60% of the agents): gone from the listing",
		"6s at 12s: agent 17815: deleted",
		"6.5s at 13s: agent 17815: no longer deleted",
		"10s at 20s: 36 agents (all agents): back in the listing",
		"10.5s at 21s: 3 new agents: listed",
		"15s at 30s: the stream is lost, and begun anew",
		"15s the scenario is over",
	}
	p.told = slices.DeleteFunc(p.told, func(s string) bool { return strings.Contains(s, "at 22s") })
	if d := cmp.Diff(want, p.told); d != "" {
		t.Errorf("want (-), told (+):\n%s", d)
	}
	if lost != 1 {
		t.Errorf("the stream was lost %d times", lost)
	}
}

// The same seed means the same agents, another one others.
func TestShares(t *testing.T) {
	const text = "agents: 60\nsteps:\n  - at: 1s\n    vanish: 50%\n"
	left := func(seed uint64) []int64 {
		p, _ := play(t, text, seed, 1, nil)
		return p.tenant.IDs()
	}
	first, again, other := left(1), left(1), left(2)
	if d := cmp.Diff(first, again); d != "" || len(first) != 30 {
		t.Errorf("%d are left, and with the same seed others:\n%s", len(first), d)
	}
	if cmp.Equal(first, other) {
		t.Error("another seed makes no difference")
	}
}

// Each way to fail, while it lasts and afterwards.
func TestTroubles(t *testing.T) {
	p, _ := play(t, `agents: 60
steps:
  - {at: 10s, vendor: silent, for: 10s}
  - {at: 30s, vendor: unusable, for: 10s}
  - {at: 50s, vendor: credentials, for: 10s}
  - {at: 70s, vendor: inconsistent, for: 10s}
  - {at: 90s, vendor: empty, for: 10s}
`, 1, 1, map[time.Duration]func(*played){
		15 * time.Second: func(p *played) {
			if status, _ := p.ask(tenantsim.AgentsPath, "{}"); status != 0 ||
				time.Since(p.began) != 20*time.Second {
				t.Errorf("silent: %d after %v", status, time.Since(p.began))
			}
		},
		35 * time.Second: func(p *played) {
			if status, answer := p.ask(tenantsim.AgentsPath, "{}"); status != http.StatusOK ||
				!strings.HasPrefix(answer, "<html>") {
				t.Errorf("unusable: %d %s", status, answer)
			}
		},
		55 * time.Second: func(p *played) {
			_, answer := p.ask(tenantsim.AgentsPath, "{}")
			if status := p.signIn(); status != http.StatusBadRequest ||
				!strings.Contains(answer, "invalid_token") {
				t.Errorf("credentials: %d, %s", status, answer)
			}
		},
		65 * time.Second: func(p *played) {
			if status := p.signIn(); status != http.StatusOK {
				t.Errorf("credentials afterwards: %d", status)
			}
		},
		75 * time.Second: func(p *played) {
			if total, rows := p.page(1); total != 61 || rows != 10 {
				t.Errorf("inconsistent: %d, %d", total, rows)
			}
		},
		95 * time.Second: func(p *played) {
			if total, rows := p.page(0); total != 0 || rows != 0 {
				t.Errorf("empty: %d, %d", total, rows)
			}
		},
		101 * time.Second: func(p *played) {
			if total, rows := p.page(0); total != 60 || rows != 50 {
				t.Errorf("afterwards: %d, %d", total, rows)
			}
		},
	})
	for _, want := range []string{"10s at 10s: the vendor answers nothing for 10s",
		"20s at 20s: the vendor answers again"} {
		if !slices.Contains(p.told, want) {
			t.Errorf("%q was not told: %q", want, p.told)
		}
	}
}

// An end in the middle is no error, also before anything has begun.
func TestPlayEnds(t *testing.T) {
	s, err := Parse("f.yaml", []byte("steps:\n  - at: 1h\n    add: 1\n"), -1)
	if err != nil {
		t.Fatal(err)
	}
	for _, read := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			v := NewVendor(tenantsim.New(tenantsim.Config{}))
			if read {
				close(v.read)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			err := s.Play(ctx, Stage{Vendor: v, Speed: 1, Tell: func(s string) { t.Error(s) }})
			if err != nil {
				t.Error(err)
			}
		})
	}
}
