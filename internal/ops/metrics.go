package ops

import (
	"runtime"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/rollcall-events/rollcall/schemas"
)

// Register registers the metrics of every process: its build, the Go runtime, the operating
// system's view of it, and the connection to NATS. nats returns that connection, nil where there is
// none yet.
func Register(reg prometheus.Registerer, version, commit string, nats func() *nats.Conn) {
	reg.MustRegister(collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	auto := promauto.With(reg)
	auto.NewGauge(prometheus.GaugeOpts{
		Name: "rollcall_build_info",
		Help: "Always 1; the labels say what runs.",
		ConstLabels: prometheus.Labels{
			"version": version, "commit": commit, "goversion": runtime.Version(),
			"schema": schemas.Version,
		},
	}).Set(1)
	auto.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "rollcall_nats_connected",
		Help: "1 while there is a connection to NATS, else 0.",
	}, func() float64 {
		if nc := nats(); nc != nil && nc.IsConnected() {
			return 1
		}
		return 0
	})
	auto.NewCounterFunc(prometheus.CounterOpts{
		Name: "rollcall_nats_reconnects_total",
		Help: "Times that the connection to NATS was lost and made again.",
	}, func() float64 {
		if nc := nats(); nc != nil {
			return float64(nc.Stats().Reconnects)
		}
		return 0
	})
}
