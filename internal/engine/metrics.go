package engine

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/rollcall-events/rollcall/diff"
	"github.com/rollcall-events/rollcall/internal/listing"
	"github.com/rollcall-events/rollcall/schemas"
)

// sweepComplete is what became of a sweep, besides the classes of errors.
const sweepComplete = "complete"

var sweepResults = []string{
	sweepComplete, string(listing.Unreachable), string(listing.Credentials),
	string(listing.Unusable), string(listing.Inconsistent),
}

// metrics are the engine's collectors. The gauges are 0 while this replica does not lead, so that
// the sum or the largest of all replicas' is the leader's.
type metrics struct {
	sweeps     *prometheus.CounterVec // by result
	sweepTime  prometheus.Histogram
	agents     *prometheus.GaugeVec // by type and state
	missing    prometheus.Gauge
	events     *prometheus.CounterVec // by type and reason
	detection  prometheus.Histogram
	publishing prometheus.Histogram
	vendorLag  prometheus.Histogram
	pending    prometheus.Gauge
	folded     prometheus.Counter
	dropped    prometheus.Counter
	health     *prometheus.GaugeVec // by state and reason
	startedAt  prometheus.Gauge
	staleAfter prometheus.Gauge
	nextBy     prometheus.Gauge
	glancedAt  prometheus.Gauge
}

// agentTypes are the business types that the vendor documents, and what stands for all others, so
// that labels stay bounded.
var agentTypes = []string{"0", "1", "2", "10", "other", "none"}

const documentedTypes = 4 // of agentTypes

// conditions are all that a health message can say.
var conditions = []struct {
	state  schemas.HealthState
	reason schemas.HealthReason
}{
	{schemas.HealthOK, ""},
	{schemas.HealthFailing, schemas.Unreachable}, {schemas.HealthFailing, schemas.Credentials},
	{schemas.HealthFailing, schemas.Unusable}, {schemas.HealthFailing, schemas.Inconsistent},
	{schemas.HealthHolding, schemas.MissingMany}, {schemas.HealthHolding, schemas.Unidentified},
}

// eventKinds are the events that there can be.
var eventKinds = map[schemas.EventType][]schemas.Reason{
	schemas.Online:  {schemas.Baseline, schemas.Appeared, schemas.Status},
	schemas.Offline: {schemas.Status, schemas.Removed},
	schemas.Updated: {schemas.Baseline, schemas.Appeared, schemas.Fields, schemas.Removed},
}

// notLeading ends the help of gauges that only the leader knows.
const notLeading = "0 while this replica does not lead."

// newMetrics makes the collectors, with all their series, and registers them unless reg is nil.
func newMetrics(reg prometheus.Registerer) *metrics {
	auto := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return auto.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return auto.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	histogram := func(name, help string, buckets ...float64) prometheus.Histogram {
		return auto.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
	}
	m := &metrics{
		sweeps: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "rollcall_sweeps_total",
			Help: "Sweeps that ended, by result; without those that a stop cut short.",
		}, []string{"result"}),
		sweepTime: histogram("rollcall_sweep_duration_seconds",
			"How long complete sweeps took.",
			.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600),
		agents: auto.NewGaugeVec(prometheus.GaugeOpts{
			Name: "rollcall_agents",
			Help: "Published agents that are not removed, by type and state; " + notLeading,
		}, []string{"type", "state"}),
		missing: gauge("rollcall_missing_agents",
			"Agents that the last complete sweep missed and that are not removed; "+notLeading),
		events: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "rollcall_events_total",
			Help: "Events that were committed to the stream, by type and reason.",
		}, []string{"type", "reason"}),
		detection: histogram("rollcall_detection_delay_seconds",
			"An event's time minus its notBefore: how old the change was at most when it was read.",
			.1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800),
		publishing: histogram("rollcall_publish_delay_seconds",
			"From an event's time, when its page had been read, until its commit was acknowledged.",
			.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300),
		vendorLag: histogram("rollcall_vendor_lag_seconds",
			"An event's notBefore minus its agent's new lastUpdateTimestamp, where above 0: "+
				"how long after the vendor's time of a change the listing did not show it.",
			.1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800),
		pending: gauge("rollcall_pending_changes",
			"Changes that were seen and are not yet in the stream."),
		folded: counter("rollcall_folded_changes_total",
			"Changes that were folded into later ones, because the buffer was full."),
		dropped: counter("rollcall_dropped_changes_total",
			"Changes that were seen and not published: another replica led, "+
				"the stream had moved on, they were too large, or the process ended."),
		health: auto.NewGaugeVec(prometheus.GaugeOpts{
			Name: "rollcall_health",
			Help: "1 for what the tenant's health is, 0 for what it is not; all " + notLeading,
		}, []string{"state", "reason"}),
		startedAt: gauge("rollcall_watermark_started_timestamp_seconds",
			"When the sweep of the last watermark began, in Unix time; 0 before any; "+notLeading),
		staleAfter: gauge("rollcall_watermark_stale_after_timestamp_seconds",
			"When the last watermark is stale, in Unix time; 0 before any; "+notLeading),
		nextBy: gauge("rollcall_watermark_next_by_timestamp_seconds",
			"When the watermark after the last one is overdue, in Unix time; "+notLeading),
		glancedAt: gauge("rollcall_watermark_glanced_timestamp_seconds",
			"When the last complete glance began whose missing agents have been looked up, in "+
				"Unix time; 0 where there was none; "+notLeading),
	}
	m.missing.Set(0)
	m.showAgents(nil)
	m.show(Status{})
	for _, result := range sweepResults {
		m.sweeps.WithLabelValues(result)
	}
	for kind, reasons := range eventKinds {
		for _, reason := range reasons {
			m.events.WithLabelValues(typeLabel(kind), string(reason))
		}
	}
	return m
}

// showAgents brings the gauge of agents up to the published state.
func (m *metrics) showAgents(published diff.Population) {
	counts := make(diff.Population)
	for kind, p := range published {
		switch {
		case kind == schemas.NoType:
			kind = "none"
		case !slices.Contains(agentTypes[:documentedTypes], kind):
			kind = "other"
		}
		p.Agents += counts[kind].Agents
		p.Online += counts[kind].Online
		counts[kind] = p
	}
	for _, kind := range agentTypes {
		p := counts[kind]
		m.agents.WithLabelValues(kind, "online").Set(float64(p.Online))
		m.agents.WithLabelValues(kind, "offline").Set(float64(p.Agents - p.Online))
	}
}

// show brings the other gauges up to what the loop knows. Health that no message can say is not
// shown.
func (m *metrics) show(s Status) {
	m.pending.Set(float64(s.Pending))
	m.startedAt.Set(unix(s.Watermark.StartedAt))
	m.staleAfter.Set(unix(s.Watermark.StaleAfter))
	m.nextBy.Set(unix(s.Watermark.NextBy))
	m.glancedAt.Set(unix(s.Watermark.GlancedAt))
	for _, c := range conditions {
		is := 0.
		if c.state == s.State && c.reason == s.Reason {
			is = 1
		}
		m.health.WithLabelValues(string(c.state), cmp.Or(string(c.reason), "none")).Set(is)
	}
}

// typeLabel is an event's type without what all types begin with.
func typeLabel(t schemas.EventType) string {
	return strings.TrimPrefix(string(t), schemas.StoredPrefix)
}

// published counts an event that was in the stream at the given time.
func (m *metrics) published(e *schemas.Event, at time.Time) {
	m.events.WithLabelValues(typeLabel(e.Type), string(e.Data.Reason)).Inc()
	m.publishing.Observe(max(at.Sub(e.Time), 0).Seconds())
	if e.Data.NotBefore.IsZero() {
		return
	}
	m.detection.Observe(e.Time.Sub(e.Data.NotBefore).Seconds())
	stamp := e.Data.Agent.LastUpdateTimestamp
	for _, c := range e.Data.Changes {
		if c.Field == "lastUpdateTimestamp" && stamp != nil {
			if lag := e.Data.NotBefore.Sub(time.UnixMilli(*stamp)); lag > 0 {
				m.vendorLag.Observe(lag.Seconds())
			}
		}
	}
}

// unix is a time in seconds since 1970, 0 for none.
func unix(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}
