package followtest_test

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/schemas/follow"
	"github.com/rollcall-events/rollcall/schemas/followtest"
)

// free is what is tested here: it says who can take a call, or why nobody knows.
func free(roster *follow.Roster) (ids []int64, err error) {
	if err := roster.Trust(time.Now()).Err(); err != nil {
		return nil, err
	}
	for _, e := range roster.Agents() {
		if e.Data.Online && e.Data.Agent.TypeToken() == "10" {
			ids = append(ids, e.Data.Agent.AgentID)
		}
	}
	return ids, nil
}

func routerTest(t *testing.T) {
	server := followtest.Start(t)
	hand := server.Tenant(886)
	hand.SignIn(17813, 17814)

	js, err := jetstream.New(server.Connect())
	if err != nil {
		t.Fatal(err)
	}
	roster, updates := follow.New(886), make(chan follow.Update, 100)
	go func() { _ = roster.Run(t.Context(), js, func(u follow.Update) { updates <- u }) }()
	// sweep waits until the roster has all that the hand has published.
	sweep := func() {
		for w := hand.Watermark(); ; <-updates {
			if got := roster.Trust(time.Now()).Watermark; got != nil && got.Commit == w.Commit {
				return
			}
		}
	}
	sweep()
	if ids, err := free(roster); err != nil || len(ids) != 2 {
		t.Errorf("free: %d, %v", ids, err)
	}

	hand.SignOut(17813)
	sweep()
	if ids, err := free(roster); err != nil || len(ids) != 1 {
		t.Errorf("after a sign-out: %d, %v", ids, err)
	}

	hand.GoStale() // the vendor, NATS or rollcall is down
	sweep()
	if _, err := free(roster); !errors.Is(err, follow.ErrStale) {
		t.Errorf("stale: %v", err)
	}

	hand.Remove(17814)
	sweep()
	if ids, err := free(roster); err != nil || len(ids) != 0 {
		t.Errorf("after a removal: %d, %v", ids, err)
	}
}

// A router's test: func TestRouter(t *testing.T) in a file of your own.
func Example() { _ = routerTest }
