package follow_test

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
	"github.com/rollcall-events/rollcall/schemas/follow"
)

// Who is on duty, and how sure that is.
func Example() {
	url, stop := runServer() // a NATS server with what rollcall published of tenant 886
	defer stop()

	nc, err := nats.Connect(url, nats.MaxReconnects(-1))
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	roster, ready := follow.New(886), make(chan struct{})
	go func() {
		_ = roster.Run(ctx, js, func(u follow.Update) {
			if u.Anew {
				close(ready)
			}
		})
	}()
	<-ready

	for _, e := range roster.Agents() {
		fmt.Println("agent", e.Data.Agent.AgentID, "on duty:", e.Data.Online)
	}
	for e := range roster.All(schemas.TypeVideo) { // in no order
		if e.Data.Online {
			fmt.Println("agent", e.Data.Agent.AgentID, "can take a video call")
		}
	}
	now := time.Date(2026, 11, 22, 8, 0, 5, 0, time.UTC)
	fmt.Println("now:", roster.Trust(now).Err())
	later := roster.Trust(now.Add(time.Hour)).Err()
	fmt.Println("an hour later, stale:", errors.Is(later, follow.ErrStale))
	// Output:
	// agent 17813 on duty: true
	// agent 17814 on duty: false
	// agent 17813 can take a video call
	// now: <nil>
	// an hour later, stale: true
}

// Calls are handed out as long as the picture is fresh. Nobody has to ask again and again whether
// it still is.
func ExampleRoster_Run() {
	nc, err := nats.Connect(nats.DefaultURL, nats.MaxReconnects(-1))
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		log.Fatal(err)
	}
	roster := follow.New(886)
	err = roster.Run(context.Background(), js, func(u follow.Update) {
		switch {
		case u.Fresh:
			fmt.Println("go on: the roster can be trusted")
		case u.Stale:
			fmt.Println("stop: nobody knows who is on duty")
		case u.State != nil && u.State.Data.Online:
			fmt.Println("agent", u.State.Data.Agent.AgentID, "is on duty")
		case u.Err != nil:
			log.Print(u.Err)
		}
	})
	log.Print(err) // the connection was closed
}

// The tenants of a stream, for who follows all of them.
func ExampleTenants() {
	url, stop := runServer()
	defer stop()

	nc, err := nats.Connect(url)
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		log.Fatal(err)
	}
	tenants, err := follow.Tenants(context.Background(), js)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(tenants)
	// Output: [886]
}

// runServer runs a NATS server with the stream that rollcall would have written.
func runServer() (url string, stop func()) {
	dir, err := os.MkdirTemp("", "follow-example-")
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
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	_, err = js.CreateStream(
		ctx,
		jetstream.StreamConfig{Name: schemas.Stream, Subjects: []string{"agent.>"}},
	)
	if err != nil {
		log.Fatal(err)
	}
	at := time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)
	publish := func(subject string, body []byte) {
		if _, err := js.Publish(ctx, subject, body); err != nil {
			log.Fatal(err)
		}
	}
	for i, typ := range []schemas.EventType{schemas.Online, schemas.Updated} {
		online := typ == schemas.Online
		e := schemas.Event{Type: typ, Time: at, Data: schemas.EventData{
			Revision: 1, Reason: schemas.Baseline, Sweep: 1, Online: online, Since: at,
			Agent: schemas.Agent{
				AgentID:      17813 + int64(i),
				TenantID:     886,
				OnlineStatus: int64(1 - i),
				Type:         &[]string{schemas.TypeVideo, schemas.TypePatrol}[i],
			},
		}}
		publish(schemas.StateSubject(886, e.Data.Agent.AgentID), e.AppendJSON(nil))
	}
	w := schemas.Watermark{TenantID: 886, Sweep: 1, StartedAt: at, CompletedAt: at.Add(time.Second),
		StaleAfter: at.Add(16 * time.Second), Agents: 2, Online: 1}
	publish(schemas.WatermarkSubject(886), w.AppendJSON(nil))
	return srv.ClientURL(), func() {
		srv.Shutdown()
		srv.WaitForShutdown()
		_ = os.RemoveAll(dir)
	}
}
