package query

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/rollcall-events/rollcall/internal/test/natstest"
	"github.com/rollcall-events/rollcall/schemas"
)

// BenchmarkQuestions asks one replica over a nats-server in the same process, from eight clients at
// a time. docs/performance.md has its figures: answers a second, the 99th percentile of how long
// one takes, and what the heap of the whole process grows by with the first question.
func BenchmarkQuestions(b *testing.B) {
	const clients = 8
	for _, agents := range []int{340, 10_000} {
		url, _ := natstest.StartOptions(b, &server.Options{})
		w := worldAt(b, url)
		w.open()
		events := make([]schemas.Event, agents)
		for i := range events {
			// Some 800 bytes, as with the vendor's rows.
			events[i] = w.agent(int64(17813+i), typed("10"), in("North"), room(2),
				name(strings.Repeat("x", 400)))
		}
		w.commit(events...)
		events = nil
		w.replica("a")
		heap := heapBytes()
		w.ask("counts", "")
		heap = heapBytes() - heap
		for _, q := range []struct{ what, question, request string }{
			{"agent", "agent", `{"agentId":"17900"}`},
			{"counts", "counts", ""},
			{"50 agents", "roster", `{"limit":50}`},
			{"a full page", "roster", ""},
		} {
			b.Run(fmt.Sprintf("%d/%s", agents, q.what), func(b *testing.B) {
				conns := make([]*nats.Conn, clients)
				for i := range conns {
					conns[i] = natstest.Connect(b, url)
				}
				took := make([]time.Duration, b.N)
				b.ResetTimer()
				var all sync.WaitGroup
				for c, nc := range conns {
					all.Go(func() {
						for i := c; i < b.N; i += clients {
							begun := time.Now()
							m, err := nc.Request(schemas.QuerySubject(tenant, q.question),
								[]byte(q.request), 20*time.Second)
							if err != nil || len(m.Header) > 0 {
								b.Error(m, err)
								return
							}
							took[i] = time.Since(begun)
						}
					})
				}
				all.Wait()
				b.StopTimer()
				slices.Sort(took)
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "answers/s")
				b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
				b.ReportMetric(float64(heap)/(1<<20), "heap-MB")
				b.ReportMetric(float64(len(w.ask(q.question, q.request).body))/1000, "answer-kB")
			})
		}
	}
}

// heapBytes is what is in use, without what pools keep for the next time.
func heapBytes() int64 {
	var m runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
