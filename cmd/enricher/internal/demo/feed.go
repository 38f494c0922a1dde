package demo

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/consumer"
	"enricher/consumer/audit"
	"enricher/fetch/fetchtest"
	"enricher/schemas"
)

// faults are the random failures of the simulated API.
func faults() []fetchtest.Chance {
	return []fetchtest.Chance{
		{Percent: 2, Fault: fetchtest.Named("call_backend_busy")},
		{Percent: 2, Fault: fetchtest.BadGateway()},
		{Percent: 1, Fault: fetchtest.NotJSON()},
		{Percent: 1, Fault: fetchtest.CutBody()},
		{Percent: 1, Fault: fetchtest.Reset()},
	}
}

// latency returns 20 to 60 ms, depending on the CallId.
func latency(callID string) time.Duration {
	n := 0
	for _, c := range []byte(callID) {
		n = n*31 + int(c)
	}
	return time.Duration(20+(n&0xffff)%41) * time.Millisecond
}

// feeder simulates the call service: it produces events and records the outcome
// that each must have.
type feeder struct {
	topic  string
	events int
	rate   float64
	seed   uint64
	api    *fetchtest.API

	eventRecord consumer.EventRecord
	// halfway and later are called once each, after half and after three
	// quarters of the events.
	halfway, later func()

	ledger audit.Ledger
	fed    atomic.Int64
	calls  []string // CallIds of earlier events, to repeat
}

func (f *feeder) produce(ctx context.Context, brokers []string) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)), kgo.ProducerLinger(5*time.Millisecond))
	if err != nil {
		return err
	}
	defer cl.Close()
	rng := rand.New(rand.NewPCG(f.seed, 0))
	var mu sync.Mutex
	var failed error
	start := time.Now()
	for n := range f.events {
		due := start.Add(time.Duration(float64(n) / f.rate * float64(time.Second)))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Until(due)):
		}
		switch n {
		case f.events * 3 / 10:
			f.api.Fail(3, fetchtest.Named("rate_limited"))
		case f.events / 2:
			f.halfway()
		case f.events * 3 / 4:
			f.later()
		}
		r, expect := f.event(rng, n)
		cl.Produce(ctx, r, func(r *kgo.Record, err error) {
			if err != nil {
				mu.Lock()
				failed = err
				mu.Unlock()
				return
			}
			f.ledger.Add(audit.Source{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset}, expect)
			f.fed.Add(1)
		})
	}
	if err := cl.Flush(ctx); err != nil {
		return err
	}
	mu.Lock()
	defer mu.Unlock()
	if failed != nil {
		return fmt.Errorf("produce events: %w", failed)
	}
	return nil
}

// event makes the nth event and returns the outcome that it must have.
func (f *feeder) event(rng *rand.Rand, n int) (*kgo.Record, audit.Expect) {
	now := time.Now()
	r := &kgo.Record{Topic: f.topic}
	e := audit.Expect{Produced: now}
	id := "call-" + strconv.Itoa(n) + "-" + strconv.FormatUint(rng.Uint64(), 36)
	kind := rng.IntN(100)
	switch {
	case kind < 2:
		r.Value = malformed[rng.IntN(len(malformed))]
		e.Reasons = []schemas.Reason{schemas.Malformed}
	case kind < 4:
		r.Value = fmt.Appendf(nil, `{"CallbackCommand":"Call.CallbackAfterStartCall","CallRecord":{"CallId":%q},"EventTime":%d}`, id, now.UnixMilli())
	default:
		switch {
		case kind < 5:
			f.api.Never(id)
			e.Reasons = []schemas.Reason{schemas.NotFound}
		case kind < 12: // late
			f.api.AvailableAt(id, now.Add(lookupDelay+time.Duration(rng.IntN(3000))*time.Millisecond))
			f.calls = append(f.calls, id)
		case kind < 40 && len(f.calls) > 0: // a repeated callback
			id = f.calls[rng.IntN(len(f.calls))]
		default:
			f.calls = append(f.calls, id)
		}
		record := f.api.RecordFor(id)
		r.Value = endCall(&record, now)
		if kind >= 95 {
			r.Value = fmt.Appendf(nil, `{"CallId":%q}`, id)
		}
		if e.Reasons == nil || f.eventRecord != consumer.NeverUse && carriesRecord(r.Value) {
			e.Reasons, e.CallID, e.Enriched = nil, id, schemas.EncodeJSON(&record).Value
		}
		r.Key = []byte(id)
	}
	e.Key, e.Value = r.Key, r.Value
	return r, e
}

// endCall is the callback for the end of a call, with its record.
func endCall(record *schemas.CallRecord, at time.Time) []byte {
	b, err := json.Marshal(record)
	if err != nil {
		panic(err) // cannot happen: no field can fail
	}
	return fmt.Appendf(nil, `{"CallbackCommand":"Call.CallbackAfterEndCall","CallRecord":%s,"EventTime":%d}`, b, at.UnixMilli())
}

// carriesRecord reports whether an event carries a record that can replace the API's.
func carriesRecord(event []byte) bool {
	e, err := schemas.ParseEvent(event)
	if err != nil {
		return false
	}
	_, state := e.OwnRecord()
	return state == schemas.CompleteRecord
}

var malformed = func() [][]byte {
	cut, _ := hex.DecodeString("7b2243616c6c4964223a22ff")
	return [][]byte{{}, []byte("null"), []byte("{}"), []byte("not JSON"), cut, []byte(`{"CallId":["a list"]}`), []byte(`{"CallId":""}`)}
}()

func sortedReasons(m map[schemas.Reason]int) []schemas.Reason {
	return slices.DeleteFunc(schemas.Reasons(), func(r schemas.Reason) bool { return m[r] == 0 })
}
