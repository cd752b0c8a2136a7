//go:build unix

package soak

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/rollcall-events/rollcall/internal/test/checker"
	"github.com/rollcall-events/rollcall/internal/test/e2e"
	"github.com/rollcall-events/rollcall/internal/test/wait"
)

// streams are what the cluster keeps for rollcall.
var streams = []string{e2e.Stream, "KV_rollcall"}

// leader is the node that leads the stream; nil: none is known just now.
func (w *world) leader() *e2e.NATSServer {
	for i, n := range w.nodes {
		if c := w.cluster(e2e.Stream); c != nil && c.Leader == nodeName(i) {
			return n
		}
	}
	return nil
}

func (w *world) cluster(stream string) *jetstream.ClusterInfo {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	js, err := jetstream.New(w.nc)
	if err != nil {
		return nil
	}
	s, err := js.Stream(ctx, stream)
	if err != nil {
		return nil
	}
	return s.CachedInfo().Cluster
}

// current waits until every node has all that was written.
func (w *world) current() {
	w.t.Helper()
	if len(w.nodes) < 2 {
		return
	}
	for _, stream := range streams {
		wait.Eventually(w.t, "all replicas of "+stream+" to be current", func() bool {
			c := w.cluster(stream)
			if c == nil || c.Leader == "" || len(c.Replicas) != len(w.nodes)-1 {
				return false
			}
			for _, p := range c.Replicas {
				if !p.Current || p.Offline || p.Lag > 0 {
					return false
				}
			}
			return true
		})
	}
}

// stall is the longest time without a commit that ended between two moments.
func stall(stored []checker.Message, from, to time.Time) (longest time.Duration) {
	var last time.Time
	for _, m := range stored {
		if !last.IsZero() && m.Time.After(from) && !m.Time.After(to) {
			longest = max(longest, m.Time.Sub(last))
		}
		last = m.Time
	}
	return longest
}

func TestClusterLeaderKilled(t *testing.T) {
	t.Parallel()
	clusterRun(t, 1, 2, "go test ./internal/test/soak -run TestClusterLeaderKilled")
}

// clusterRun kills the stream's leader a number of times during churn.
func clusterRun(t *testing.T, seed uint64, kills int, again string) *world {
	w := newWorld(t, layout{nodes: 3, replicas: 2}, seed, again)
	w.record()
	w.churn()
	w.start(w.replicas()...)
	id := w.tenants[0].id
	w.swept(id, time.Now(), "")
	var at []time.Time
	for range kills {
		w.current()
		var n *e2e.NATSServer
		wait.Eventually(t, "a leader of the stream", func() bool {
			n = w.leader()
			return n != nil
		})
		w.aim()
		at = append(at, time.Now())
		w.killNode(n)
		w.pause(0, time.Second)
		w.startNode(n)
		w.swept(id, time.Now(), "") // it is written again
	}
	ended := time.Now()
	w.finish(nil)
	stored := w.read(id)
	for i, from := range at {
		to := ended
		if i+1 < len(at) {
			to = at[i+1]
		}
		t.Logf("kill %d of the stream's leader: the writer stalled for %v", i+1,
			stall(stored, from, to).Round(time.Millisecond))
	}
	t.Log(summary(w.stats), tally(w.counts), fmt.Sprint("seed ", seed))
	return w
}

func (w *world) read(tenant int64) []checker.Message {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wait.Patience)
	defer cancel()
	stored, err := checker.Read(ctx, w.nc, tenant)
	if err != nil {
		w.t.Fatal(err)
	}
	return stored
}
