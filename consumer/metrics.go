package consumer

import (
	"github.com/prometheus/client_golang/prometheus"

	"enricher/consumer/session"
	"enricher/fetch/lookup"
	"enricher/schemas"
)

// Metrics holds every series of the program's own. All label values come from
// closed sets and exist at zero from the start, so that an alert sees a series
// before its first failure.
type Metrics struct {
	Lookup *lookup.Metrics

	Events             *prometheus.CounterVec // outcome (enriched, dead_letter, skipped), reason ("" unless dead_letter)
	RecordSources      *prometheus.CounterVec // source: api, event
	EventRecords       *prometheus.CounterVec // state: one of schemas.RecordStates; looked at
	EventSeconds       prometheus.Histogram   // the event's own time → its outcome committed
	OldestEvent        prometheus.Gauge       // seconds; age of the oldest event in flight, 0 when none
	Backlog            prometheus.Gauge       // events of the assigned partitions without an outcome, up to the high watermark
	HeldBack           prometheus.Gauge       // of them, those behind the last stable offset
	OpenTransaction    prometheus.Gauge       // seconds; how long a last stable offset has stood still, 0 when none does
	Stalls             prometheus.Counter     // partitions fetched again because nothing came
	TimeToDrain        prometheus.Gauge       // seconds until the backlog is done at the present rate
	RateLimit          prometheus.Gauge       // requests per second that this instance may start; +Inf without a limit
	Transactions       *prometheus.CounterVec // result: one of session.TxnResults
	KafkaErrors        *prometheus.CounterVec // kind: one of the errorKinds
	SessionRestarts    prometheus.Counter     // sessions opened after a failed one
	MetadataBytes      prometheus.Gauge       // largest offset metadata of the last transaction
	DeletedByRetention prometheus.Counter     // events that retention deleted before they were read, at most
	Truncations        prometheus.Counter     // partitions whose log was found truncated or replaced
	Blocked            *prometheus.GaugeVec   // reason: one of the BlockReasons; partitions that are not consumed
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
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "enricher", Name: name, Help: help, Buckets: buckets})
		reg.MustRegister(h)
		return h
	}
	m := &Metrics{
		Lookup:             lookup.NewMetrics(reg),
		Events:             counters("events_total", "Events by committed outcome.", "outcome", "reason"),
		RecordSources:      counters("enriched_records_total", "Enriched records by whose call record they were made from: the API's or the event's own.", "record_source"),
		EventRecords:       counters("event_records_total", "Events whose own record was to be used, by its state.", "state"),
		EventSeconds:       histogram("event_latency_seconds", "Time from an event's own time to its committed outcome.", []float64{.05, .1, .2, .5, 1, 2, 5, 7, 10, 20, 60, 120, 300, 900, 3600, 21600, 86400}),
		OldestEvent:        gauge("oldest_event_age_seconds", "Age of the oldest event in flight; 0 when there is none."),
		Backlog:            gauge("backlog_events", "Events of the assigned partitions that have no outcome yet."),
		HeldBack:           gauge("held_back_events", "Records of the assigned partitions that an open transaction of another program holds back."),
		OpenTransaction:    gauge("open_transaction_seconds", "How long such a transaction has held back a partition; 0 when none does."),
		Stalls:             counter("partition_stalls_total", "Partitions fetched again because nothing came though the log had more."),
		TimeToDrain:        gauge("time_to_drain_seconds", "Time the backlog takes at this instance's share of the rate limit."),
		RateLimit:          gauge("rate_limit_requests_per_second", "API requests per second that this instance may start; +Inf without a limit."),
		Transactions:       counters("transactions_total", "Transactions by how they ended.", "result"),
		KafkaErrors:        counters("kafka_errors_total", "Failures of the Kafka client to connect, authenticate or take part in the group.", "kind"),
		SessionRestarts:    counter("kafka_session_restarts_total", "Kafka sessions opened after one failed."),
		MetadataBytes:      gauge("offset_metadata_max_bytes", "Largest offset metadata of the last transaction; the limit is 4096."),
		DeletedByRetention: counter("events_deleted_by_retention_total", "Events that retention deleted before they were read, at most."),
		Truncations:        counter("truncated_partitions_total", "Partitions whose log was found truncated or replaced."),
	}
	m.Events.WithLabelValues(outcomeEnriched, "")
	m.Events.WithLabelValues(outcomeSkipped, "")
	for _, s := range schemas.RecordStates() {
		m.EventRecords.WithLabelValues(string(s))
	}
	for _, r := range schemas.Reasons() {
		m.Events.WithLabelValues(outcomeDeadLetter, string(r))
	}
	m.Blocked = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: "enricher", Name: "blocked_partitions", Help: "Partitions that are not consumed, or hold an event that waits, by reason."}, []string{"reason"})
	reg.MustRegister(m.Blocked)
	for _, r := range BlockReasons() {
		m.Blocked.WithLabelValues(string(r))
	}
	for _, k := range errorKinds() {
		m.KafkaErrors.WithLabelValues(k)
	}
	for _, r := range session.TxnResults() {
		m.Transactions.WithLabelValues(r.String())
	}
	return m
}
