package history_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/schemas"
	"github.com/rollcall-events/rollcall/schemas/history"
)

// at is a time of the day that the examples ask about.
func at(h, m int) time.Time { return time.Date(2026, 11, 22, h, m, 0, 0, time.UTC) }

// Who was on duty at a moment, and how sure that is.
func ExampleAt() {
	js, stop := runServer() // with what rollcall published of tenant 886
	defer stop()
	for _, t := range []time.Time{at(9, 30), at(11, 30)} {
		roster, err := history.At(context.Background(), js, 886, t, history.AsOf(at(12, 0)))
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(t.Format("15:04"))
		for a := range roster.All() {
			fmt.Println("agent", a.Agent.AgentID, "on duty:", a.Online, "since",
				a.Since.Format("15:04"))
		}
		fmt.Println("nobody knows:", errors.Is(roster.Err(), history.ErrUnobserved))
	}
	// Output:
	// 09:30
	// agent 17813 on duty: true since 08:00
	// agent 17814 on duty: false since 08:00
	// nobody knows: false
	// 11:30
	// agent 17813 on duty: false since 10:00
	// agent 17814 on duty: false since 08:00
	// nobody knows: true
}

// When an agent was on duty, and for how long.
func ExampleIntervals() {
	js, stop := runServer() // with what rollcall published of tenant 886
	defer stop()
	var on time.Duration
	for i, err := range history.Intervals(context.Background(), js, 886, 17813, at(9, 0), at(12, 0),
		history.AsOf(at(12, 0))) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(i.From.Format("15:04"), "to", i.To.Format("15:04"), i.State)
		if i.State == history.On {
			on += i.Duration()
		}
	}
	fmt.Println("on duty for", on)
	// Output:
	// 09:00 to 10:00 on
	// 10:00 to 11:00 off
	// 11:00 to 12:00 unknown
	// on duty for 1h0m0s
}

// runServer runs a NATS server with a stream that rollcall might have written: two agents, of which
// one signs out at 10:00, and a last watermark, of 11:00.
func runServer() (js jetstream.JetStream, stop func()) {
	dir, err := os.MkdirTemp("", "history-example-")
	if err != nil {
		log.Fatal(err)
	}
	srv, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: dir, NoLog: true,
		NoSigs: true,
	})
	if err != nil {
		log.Fatal(err)
	}
	srv.Start()
	if !srv.ReadyForConnections(10 * time.Second) {
		log.Fatal("the NATS server does not become ready")
	}
	nc, err := nats.Connect(srv.ClientURL())
	if err != nil {
		log.Fatal(err)
	}
	if js, err = jetstream.New(nc); err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	_, err = js.CreateStream(ctx,
		jetstream.StreamConfig{Name: schemas.Stream, Subjects: []string{"agent.>"}})
	if err != nil {
		log.Fatal(err)
	}
	publish := func(subject string, body []byte) {
		if _, err := js.Publish(ctx, subject, body); err != nil {
			log.Fatal(err)
		}
	}
	for _, e := range []schemas.Event{
		{Type: schemas.Online, Time: at(8, 0), Data: schemas.EventData{Revision: 1,
			Reason: schemas.Baseline, Online: true, Since: at(8, 0),
			Agent: schemas.Agent{AgentID: 17813, TenantID: 886, OnlineStatus: 1}}},
		{Type: schemas.Updated, Time: at(8, 0), Data: schemas.EventData{Revision: 1,
			Reason: schemas.Baseline, Since: at(8, 0),
			Agent: schemas.Agent{AgentID: 17814, TenantID: 886}}},
		{Type: schemas.Offline, Time: at(10, 0), Data: schemas.EventData{Revision: 2,
			Reason: schemas.Status, Since: at(10, 0), PreviousSince: at(8, 0),
			NotBefore: at(9, 59), Agent: schemas.Agent{AgentID: 17813, TenantID: 886},
			Changes: []schemas.Change{
				{Field: "onlineStatus", From: []byte("1"), To: []byte("0")}}}},
	} {
		body := e.AppendJSON(nil)
		publish(e.Subject(), body)
		publish(schemas.StateSubject(886, e.Data.Agent.AgentID), body)
	}
	w := schemas.Watermark{TenantID: 886, Sweep: 7, StartedAt: at(11, 0), CompletedAt: at(11, 0),
		StaleAfter: at(11, 1), NextBy: at(11, 1), Agents: 2}
	publish(schemas.WatermarkSubject(886), w.AppendJSON(nil))
	return js, func() {
		nc.Close()
		srv.Shutdown()
		srv.WaitForShutdown()
		_ = os.RemoveAll(dir)
	}
}
