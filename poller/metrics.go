package poller

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/rollcall-events/rollcall/internal/listing"
	"github.com/rollcall-events/rollcall/internal/packed"
)

type metrics struct {
	pages, glanced, dropped, repaired prometheus.Counter
	rejected                          *prometheus.CounterVec // by reason
}

// newMetrics makes the collectors, with all their series, and registers them unless reg is nil.
func newMetrics(reg prometheus.Registerer) *metrics {
	auto := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return auto.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &metrics{
		pages: counter("rollcall_pages_total", "Pages of the listing that arrived and could be "+
			"used. A page that was read twice in a sweep counts twice."),
		glanced: counter("rollcall_glance_pages_total", "Pages of the listing of those who are "+
			"online that were read between those of a sweep."),
		dropped: counter("rollcall_dropped_values_total", "Documented fields that were dropped "+
			"because of an unexpected type. One that stays so counts at every reading."),
		repaired: counter("rollcall_repaired_values_total", "Names and values that were repaired "+
			"because not every JSON parser takes them. One that stays so counts at every reading."),
		rejected: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "rollcall_rejected_records_total",
			Help: "Rows of the listing that could not be used, by reason. " +
				"One that stays so counts at every reading.",
		}, []string{"reason"}),
	}
	for _, reason := range []string{packed.RejectSyntax, packed.RejectID, packed.RejectStatus,
		packed.RejectTenant, packed.RejectSize, packed.RejectText} {
		m.rejected.WithLabelValues(reason)
	}
	return m
}

// page counts a page that can be used.
func (m *metrics) page(p *listing.Page) {
	m.pages.Inc()
	m.dropped.Add(float64(p.Dropped))
	m.repaired.Add(float64(p.Repaired))
	for _, r := range p.Rejected {
		m.rejected.WithLabelValues(r.Reason).Inc()
	}
}
