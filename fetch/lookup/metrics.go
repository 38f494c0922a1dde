package lookup

import (
	"github.com/prometheus/client_golang/prometheus"

	"enricher/fetch"
	"enricher/schemas"
)

// Metrics holds the series about requests to the API. All label values come
// from closed sets and exist at zero from the start.
type Metrics struct {
	Requests       prometheus.Counter     // started
	Responses      *prometheus.CounterVec // verdict, code
	RequestSeconds prometheus.Histogram   // from the request's start to its response
	InFlight       *prometheus.GaugeVec   // state: one of the States
	Paused         *prometheus.GaugeVec   // reason: one of the PauseReasons; 1 while it holds
	Withheld       prometheus.Gauge       // lookups whose dead letters are withheld
	Pace           prometheus.Gauge       // 1: nothing was throttled lately
	ClockAhead     prometheus.Gauge       // seconds; negative: behind
	KeyUnreadable  prometheus.Gauge       // 1 while the key's file cannot be read again
	CacheResults   *prometheus.CounterVec // result: one of the Sources that have a name

	Verifications     *prometheus.CounterVec // result: one of verificationResults
	RecordDifferences *prometheus.CounterVec // field: one of schemas.ComparedFields
}

// The states of an event between its poll and its commit, as the metric
// enricher_in_flight_events labels them. Each event is in exactly one.
const (
	StateWaiting   = "waiting"    // for its lookup's turn
	StateLookingUp = "looking_up" // a request for its call is in flight
	StateCompleted = "completed"  // for its transaction
)

// NewMetrics registers all series with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		Requests: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "enricher_api_requests_total", Help: "Requests to the call-record API that were started."}),
		Responses: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "enricher_api_responses_total", Help: "Responses of the call-record API by verdict and code."}, []string{"verdict", "code"}),
		RequestSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "enricher_api_request_duration_seconds", Help: "Time from the start of a request to its response.",
			Buckets: []float64{.01, .025, .05, .1, .2, .4, .8, 1.6, 3.2, 5}}),
		InFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "enricher_in_flight_events", Help: "Events between poll and commit by state."}, []string{"state"}),
		Paused: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "enricher_lookups_paused", Help: "1 while lookups are paused for the reason."}, []string{"reason"}),
		Withheld: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "enricher_dead_letters_withheld", Help: "Lookups that would have ended in dead letters and wait until a record is found."}),
		Pace: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "enricher_api_pace_ratio", Help: "Part of the rate limit that is used since the API last throttled a request; 1: all of it."}),
		ClockAhead: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "enricher_clock_ahead_seconds", Help: "How far this machine's clock is ahead of the API's by the last response; negative: behind, 0: no difference that the response time does not explain."}),
		KeyUnreadable: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "enricher_secret_key_unreadable", Help: "1 while the file of the secret key cannot be read; the key that was read before is in use."}),
		CacheResults: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "enricher_cache_results_total", Help: "Events by where their record came from: the cache, a request, or a request for another event."}, []string{"result"}),
		Verifications: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "enricher_event_record_verifications_total", Help: "Records of events that were to be compared with the API's, by result."}, []string{"result"}),
		RecordDifferences: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "enricher_event_record_differences_total", Help: "Fields in which a record of an event differed from the API's."}, []string{"field"}),
	}
	reg.MustRegister(m.Verifications, m.RecordDifferences)
	reg.MustRegister(m.Requests, m.Responses, m.RequestSeconds, m.InFlight, m.Paused, m.Withheld, m.Pace, m.ClockAhead, m.KeyUnreadable, m.CacheResults)
	for _, l := range fetch.ResponseLabels() {
		m.Responses.WithLabelValues(l.Verdict.String(), l.Code)
	}
	for _, s := range []string{StateWaiting, StateLookingUp, StateCompleted} {
		m.InFlight.WithLabelValues(s)
	}
	for _, r := range PauseReasons() {
		m.Paused.WithLabelValues(r.String())
	}
	for _, s := range []Source{Requested, CacheHit, Coalesced} {
		m.CacheResults.WithLabelValues(s.String())
	}
	for _, r := range verificationResults() {
		m.Verifications.WithLabelValues(r)
	}
	for _, f := range schemas.ComparedFields() {
		m.RecordDifferences.WithLabelValues(f)
	}
	return m
}
