package admin

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"enricher/fetch/lookup"
	"enricher/producer/replay"
	"enricher/schemas"
)

// deadLetters holds the series about open dead letters. Every reason exists at zero
// from the start.
type deadLetters struct {
	open, expired, oldest *prometheus.GaugeVec // reason
	read                  prometheus.Gauge
}

func newDeadLetters(reg prometheus.Registerer) *deadLetters {
	byReason := func(name, help string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "enricher", Subsystem: "dlq", Name: name, Help: help}, []string{"reason"})
		reg.MustRegister(g)
		return g
	}
	d := &deadLetters{
		open:    byReason("open", "Dead letters that were neither replayed nor discarded, by reason."),
		expired: byReason("expired", "Those of the open dead letters whose event is older than the records that the API keeps, by reason."),
		oldest:  byReason("oldest_seconds", "Age of the oldest event of an open dead letter that the API may still have a record for, by reason; 0: none."),
		read: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: "enricher", Subsystem: "dlq", Name: "read_timestamp_seconds", Help: "When the dead-letter topic and its journal were last read to their end, in seconds since 1970; 0: not yet."}),
	}
	reg.MustRegister(d.read)
	d.set(nil, time.Time{})
	return d
}

// set shows the open dead letters of a census; nil: none.
func (d *deadLetters) set(c *replay.Census, now time.Time) {
	type group struct{ open, expired, oldest float64 }
	groups := make(map[schemas.Reason]*group)
	for _, reason := range schemas.Reasons() {
		groups[reason] = &group{}
	}
	if c != nil {
		for reason, event := range c.Open() {
			g := groups[reason]
			if g == nil { // written by another version
				g = &group{}
				groups[reason] = g
			}
			g.open++
			if age := now.Sub(event); age < lookup.APIRetention {
				g.oldest = max(g.oldest, age.Seconds())
			} else {
				g.expired++
			}
		}
	}
	for reason, g := range groups {
		d.open.WithLabelValues(string(reason)).Set(g.open)
		d.expired.WithLabelValues(string(reason)).Set(g.expired)
		d.oldest.WithLabelValues(string(reason)).Set(g.oldest)
	}
}

// WatchDeadLetters exposes the open dead letters of a topic, and reads what is new
// there at an interval, until the returned function is called. report gets the error
// of each reading, or nil.
func (m *Metrics) WatchDeadLetters(topics replay.Topics, every time.Duration, report func(error)) (stop func()) {
	d := newDeadLetters(m.registry)
	ctx, cancel := context.WithCancel(context.Background())
	var watch sync.WaitGroup
	watch.Go(func() {
		census := replay.NewCensus(topics)
		defer census.Close()
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			err := census.Update(ctx)
			if ctx.Err() != nil {
				return
			}
			now := time.Now()
			if err == nil {
				d.read.Set(float64(now.Unix()))
			}
			d.set(census, now) // what is known grows older
			report(err)
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
	return func() {
		cancel()
		watch.Wait()
	}
}
