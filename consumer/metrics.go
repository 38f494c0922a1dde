package consumer

import (
	"github.com/prometheus/client_golang/prometheus"

	"enricher/fetch"
	"enricher/schemas"
)

// Metrics holds every series of the program's own. All label values come from
// closed sets and exist at zero from the start, so that an alert sees a series
// before its first failure.
type Metrics struct {
	Events        *prometheus.CounterVec // outcome (enriched, dead_letter, skipped), reason ("" unless dead_letter)
	Lookups       *prometheus.CounterVec // verdict, code
	LookupSeconds prometheus.Histogram   // one attempt, from the request's start to its answer
	EventSeconds  prometheus.Histogram   // Kafka timestamp of the event → its outcome committed
	InFlight      *prometheus.GaugeVec   // state: waiting, asking, finished
	OldestEvent   prometheus.Gauge       // seconds; age of the oldest event in flight, 0 when none
	Backlog       prometheus.Gauge       // events of the assigned partitions without an outcome
	TimeToDrain   prometheus.Gauge       // seconds until the backlog is done at the present quota share
	QuotaShare    prometheus.Gauge       // calls a second this instance may start; +Inf without a limit
	QuotaUsed     prometheus.Counter     // calls started
	GateShut      *prometheus.GaugeVec   // reason: halt, circuit, flood_guard, slow_down
	CacheRequests *prometheus.CounterVec // result: hit, miss, joined
	Transactions  *prometheus.CounterVec // result: committed, aborted, unknown
	Rebuilds      prometheus.Counter     // sessions built anew after a failed one
	MetadataBytes prometheus.Gauge       // largest offset metadata of the last transaction
	EventsLost    prometheus.Counter     // events that retention deleted before they were handled
	Truncations   prometheus.Counter     // partitions whose log was found truncated or replaced
	Refused       prometheus.Gauge       // partitions refused for offset metadata of a newer version
}

// Outcomes of an event, as the metric enricher_events_total labels them.
const (
	outcomeEnriched   = "enriched"
	outcomeDeadLetter = "dead_letter"
	outcomeSkipped    = "skipped"
)

// NewMetrics registers all series with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "enricher", Name: name, Help: help})
		reg.MustRegister(c)
		return c
	}
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "enricher", Name: name, Help: help})
		reg.MustRegister(g)
		return g
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "enricher", Name: name, Help: help}, labels)
		reg.MustRegister(c)
		return c
	}
	gauges := func(name, help string, labels ...string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "enricher", Name: name, Help: help}, labels)
		reg.MustRegister(g)
		return g
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "enricher", Name: name, Help: help, Buckets: buckets})
		reg.MustRegister(h)
		return h
	}
	m := &Metrics{
		Events:        counters("events_total", "Events by committed outcome.", "outcome", "reason"),
		Lookups:       counters("lookups_total", "Answers of the call-record API by verdict and code.", "verdict", "code"),
		LookupSeconds: histogram("lookup_duration_seconds", "Time from a request's start to its answer.", []float64{.01, .025, .05, .1, .2, .4, .8, 1.6, 3.2, 5}),
		EventSeconds:  histogram("event_latency_seconds", "Time from an event's Kafka timestamp to its committed outcome.", []float64{.05, .1, .2, .5, 1, 2, 5, 7, 10, 20, 60, 120, 300, 900, 3600, 21600, 86400}),
		InFlight:      gauges("in_flight", "Events between admission and commit by state.", "state"),
		OldestEvent:   gauge("oldest_event_age_seconds", "Age of the oldest event in flight; 0 when there is none."),
		Backlog:       gauge("backlog_events", "Events of the assigned partitions that have no outcome yet."),
		TimeToDrain:   gauge("time_to_drain_seconds", "Time the backlog takes at this instance's share of the quota."),
		QuotaShare:    gauge("quota_share", "Calls a second that this instance may start; +Inf without a limit."),
		QuotaUsed:     counter("quota_used_total", "Calls started."),
		GateShut:      gauges("gate_shut", "1 while the gate is shut for the reason.", "reason"),
		CacheRequests: counters("cache_requests_total", "Events by how their record was come by.", "result"),
		Transactions:  counters("transactions_total", "Transactions by how they ended.", "result"),
		Rebuilds:      counter("session_rebuilds_total", "Kafka sessions built anew after one failed."),
		MetadataBytes: gauge("offset_metadata_bytes", "Largest offset metadata of the last transaction; the limit is 4096."),
		EventsLost:    counter("events_lost_total", "Events that retention deleted before they were handled."),
		Truncations:   counter("truncated_partitions_total", "Partitions whose log was found truncated or replaced."),
		Refused:       gauge("refused_partitions", "Partitions refused because a newer version wrote their offset metadata."),
	}
	m.Events.WithLabelValues(outcomeEnriched, "")
	m.Events.WithLabelValues(outcomeSkipped, "")
	for _, r := range schemas.Reasons() {
		m.Events.WithLabelValues(outcomeDeadLetter, string(r))
	}
	for _, l := range fetch.CodeLabels() {
		m.Lookups.WithLabelValues(l.Verdict.String(), l.Code)
	}
	for _, s := range []string{"waiting", "asking", "finished"} {
		m.InFlight.WithLabelValues(s)
	}
	for _, r := range fetch.GateReasons() {
		m.GateShut.WithLabelValues(r.String())
	}
	for _, r := range []string{"hit", "miss", "joined"} {
		m.CacheRequests.WithLabelValues(r)
	}
	for _, r := range []string{"committed", "aborted", "unknown"} {
		m.Transactions.WithLabelValues(r)
	}
	return m
}
