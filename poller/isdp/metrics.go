package isdp

import (
	"context"
	"errors"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/rollcall-events/rollcall/internal/listing"
)

// The calls that requests are counted by.
const (
	callToken = "token"
	callPage  = "page"
)

// What became of a request, besides the classes of errors.
const (
	requestOK        = "ok"
	requestThrottled = "throttled" // the vendor wants fewer
	requestExpired   = "expired"   // the token was refused
)

type metrics struct {
	requests *prometheus.CounterVec   // by call and result
	took     *prometheus.HistogramVec // by call
	tokens   *prometheus.CounterVec   // by result
}

// newMetrics makes the collectors, with all their series, and registers them unless reg is nil.
func newMetrics(reg prometheus.Registerer, l *limits) *metrics {
	auto := promauto.With(reg)
	m := &metrics{
		requests: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "rollcall_requests_total",
			Help: "HTTP requests to the vendor, by call and by what became of them.",
		}, []string{"call", "result"}),
		took: auto.NewHistogramVec(prometheus.HistogramOpts{
			Name: "rollcall_request_duration_seconds",
			Help: "Time from a request to the vendor until its answer was read or given up.",

			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"call"}),
		tokens: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "rollcall_token_refreshes_total",
			Help: "Tokens that were asked for, by whether one was issued.",
		}, []string{"result"}),
	}
	auto.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "rollcall_request_rate_limit",
		Help: "The most requests a second that rollcall allows itself at present.",
	}, l.now)
	for call, other := range map[string]string{
		callToken: string(listing.Credentials), callPage: requestExpired,
	} {
		m.took.WithLabelValues(call)
		for _, result := range []string{requestOK, requestThrottled, string(listing.Unreachable),
			string(listing.Unusable), other} {
			m.requests.WithLabelValues(call, result)
		}
	}
	m.tokens.WithLabelValues("ok")
	m.tokens.WithLabelValues("failed")
	return m
}

// request counts a request that was sent. One that was not, or that somebody gave up, says nothing
// about the vendor.
func (m *metrics) request(call string, r *reply, err *listing.Error) {
	if err == nil {
		m.answered(call, r, requestOK)
	} else if !r.sent.IsZero() && !errors.Is(err, context.Canceled) {
		m.answered(call, r, string(err.Class))
	}
}

func (m *metrics) answered(call string, r *reply, result string) {
	if r.throttled {
		result = requestThrottled
	}
	m.requests.WithLabelValues(call, result).Inc()
	m.took.WithLabelValues(call).Observe(r.took.Seconds())
}

// refreshed counts a token that was asked for.
func (m *metrics) refreshed(err *listing.Error) {
	result := "ok"
	if err != nil {
		result = "failed"
	}
	m.tokens.WithLabelValues(result).Inc()
}
