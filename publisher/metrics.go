package publisher

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// What became of a commit.
const (
	resultCommitted  = "committed"
	resultSuperseded = "superseded" // somebody else's is there; nothing of it is in the stream
	resultTorn       = "torn"       // a part of it is in the stream
	resultFailed     = "failed"     // refused for good, or given up before that was known
)

// metrics are the publisher's collectors.
type metrics struct {
	leader   prometheus.Gauge
	commits  *prometheus.CounterVec // by result
	retries  prometheus.Counter
	failing  prometheus.Gauge
	took     prometheus.Histogram
	messages prometheus.Histogram
}

// newMetrics makes the collectors, with all their series, and registers them unless reg is nil.
func newMetrics(reg prometheus.Registerer) *metrics {
	auto := promauto.With(reg)
	m := &metrics{
		leader: auto.NewGauge(prometheus.GaugeOpts{
			Name: "rollcall_leader",
			Help: "1 while this replica leads, that is, polls the tenant and writes the stream; " +
				"else 0.",
		}),
		commits: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "rollcall_commits_total",
			Help: "Commits to the stream, those without events and those of take-overs included, " +
				"by what became of them.",
		}, []string{"result"}),
		retries: auto.NewCounter(prometheus.CounterOpts{
			Name: "rollcall_commit_retries_total",
			Help: "Times that a commit which was not in the stream yet was tried again.",
		}),
		failing: auto.NewGauge(prometheus.GaugeOpts{
			Name: "rollcall_commit_failing_since_timestamp_seconds",
			Help: "Since when nothing could be committed, in seconds since 1970; " +
				"0 while commits succeed, and while this replica does not lead.",
		}),
		took: auto.NewHistogram(prometheus.HistogramOpts{
			Name: "rollcall_commit_duration_seconds",
			Help: "From the first try to send a commit until it was known what became of it; " +
				"failed ones left out.",
			Buckets: []float64{
				.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300,
			},
		}),
		messages: auto.NewHistogram(prometheus.HistogramOpts{
			Name: "rollcall_commit_messages",
			Help: "Messages of the commits that are in the stream: two for each changed agent, " +
				"health where it changed, and the watermark.",
			Buckets: []float64{1, 3, 5, 10, 25, 50, 100, 250, 500, 1000},
		}),
	}
	for _, result := range []string{resultCommitted, resultSuperseded, resultTorn, resultFailed} {
		m.commits.WithLabelValues(result)
	}
	return m
}

// commit counts a commit of n messages that was first tried at the given time.
func (m *metrics) commit(n int, began time.Time, err error) {
	result := resultFailed
	switch {
	case err == nil:
		result = resultCommitted
		m.messages.Observe(float64(n))
	case errors.As(err, new(tornError)):
		result = resultTorn
	case errors.Is(err, ErrSuperseded):
		result = resultSuperseded
	}
	m.commits.WithLabelValues(result).Inc()
	if result != resultFailed {
		m.took.Observe(time.Since(began).Seconds())
	}
}

// tornError marks an [ErrSuperseded] of a commit that is in the stream in part.
type tornError struct{ error }

func (e tornError) Unwrap() error { return e.error }
