//go:build unix

package examples

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rollcall-events/rollcall/internal/test/e2e"
	"github.com/rollcall-events/rollcall/internal/test/isdpsim"
	"github.com/rollcall-events/rollcall/internal/test/wait"
)

// The audit is killed again and again while events come, now and then with rollcall and its NATS
// server: its file has every event of the stream once, in the order of the stream, and says that
// none is missing.
func TestAuditKilled(t *testing.T) {
	t.Parallel()
	seed := *chaosSeed
	if *chaosFor > 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d: go test ./examples -run '%s' -chaos.seed %[1]d", seed, t.Name())
	random := rand.New(rand.NewPCG(seed, 0))
	vendor := e2e.NewVendor(t, isdpsim.Config{Agents: 60, Seed: seed})
	embedded, url := e2e.Embedded(t)
	env := e2e.Settings(vendor.Env(), embedded)
	rollcall := e2e.Rollcall(t, env)
	nc := e2e.Connect(t, url)

	file, kills := filepath.Join(t.TempDir(), "audit.jsonl"), 0
	start := func() *e2e.Process {
		return e2e.Start(t, e2e.Built(t, "./examples/audit"), map[string]string{"NATS_URL": url},
			"-file", file)
	}
	audit := start()
	end := time.Now().Add(*chaosFor)
	for kills < 4 || time.Now().Before(end) {
		vendor.Churn(1 + random.IntN(60))
		size := sizeOf(file)
		// longer than an event is kept from the next process
		await := time.Now().Add(4 * time.Second)
		for sizeOf(file) == size && time.Now().Before(await) {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Duration(random.Int64N(int64(30 * time.Millisecond))))
		audit.Kill()
		kills++
		if random.IntN(4) == 0 {
			rollcall.Kill()
			rollcall = e2e.Rollcall(t, env)
		}
		audit = start()
	}

	// Everything of this moment is published.
	vendor.Churn(5)
	now := time.Now()
	var through uint64
	wait.Eventually(t, "a complete sweep", func() bool {
		m, ok := e2e.Last(nc, fmt.Sprintf("agent.watermark.%d", tenant))
		var mark struct{ StartedAt time.Time }
		through = m.Seq
		return ok && json.Unmarshal([]byte(m.Body), &mark) == nil && mark.StartedAt.After(now)
	})
	var want []line
	for _, m := range e2e.ReadStream(t, nc, 1) {
		if m.IsEvent() && m.Seq <= through {
			want = append(want, line{Seq: m.Seq, Event: json.RawMessage(compact(t, m.Body))})
		}
	}
	var got []line
	wait.Eventually(t, "the audit to have come to the end", func() bool {
		if !audit.Running() {
			t.Fatalf("the audit has ended: exit %d", audit.Wait())
		}
		got = lines(t, file)
		return len(got) > 0 && len(want) > 0 && got[len(got)-1].Seq >= want[len(want)-1].Seq
	})
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("the file is not the stream (-want +got):\n%s", d)
	}
	t.Logf("%d kills, %d events", kills, len(got))
	if code, took := audit.Terminate(); code != 0 || took > 5*time.Second {
		t.Errorf("SIGTERM: exit %d after %v", code, took)
	}
}

// A line of the audit's file, decoded on its own.
type line struct {
	Seq        uint64
	Missing    uint64
	Anew       bool
	Event      json.RawMessage
	Unreadable string
}

func sizeOf(file string) int64 {
	info, err := os.Stat(file)
	if err != nil {
		return 0
	}
	return info.Size()
}

// lines are the file's whole lines.
func lines(t *testing.T, file string) (all []line) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	for _, s := range slices.Collect(strings.Lines(string(b))) {
		if !strings.HasSuffix(s, "\n") {
			break // being written
		}
		var l line
		if err := json.Unmarshal([]byte(s), &l); err != nil {
			t.Fatalf("a line of the file: %v: %s", err, s)
		}
		all = append(all, l)
	}
	return all
}
