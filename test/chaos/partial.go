package main

import (
	"context"
	"hash/crc32"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/consumer/audit"
	"enricher/fetch/fetchtest"
	"enricher/test/kafkaproxy"
)

// A partial fault hits one partition, some outputs or some calls, for all instances
// at the same time, or makes the API refuse some requests. Events that it spares
// must not wait for it.
const (
	partialTime     = 5 * time.Second        // how long one lasts
	badCallsPercent = 5                      // of the CallIds get HTTP 403
	throttleEvery   = 300 * time.Millisecond // one request is refused as one too many
	flapTime        = 600 * time.Millisecond // of the API, working and not working
)

// tamper changes a response of a broker to an instance.
type tamper struct {
	key    kmsg.Key
	change func(kmsg.Response)
}

// tamperWith chooses what the instances' proxies do to a request.
func (e *env) tamperWith(k kmsg.Key) *kafkaproxy.Action {
	if k == kmsg.Produce && e.refusing.Load() > 0 {
		return kafkaproxy.RefuseRecords(func(t kmsg.ProduceRequestTopic) bool { return t.Topic == oneGroup.dead || t.TopicID == e.deadTopicID })
	}
	now := slices.DeleteFunc(e.tampering.all(), func(t tamper) bool { return t.key != k })
	if len(now) == 0 {
		return nil
	}
	return &kafkaproxy.Action{Respond: func(_ kmsg.Request, resp kmsg.Response) {
		for _, t := range now {
			t.change(resp)
		}
	}}
}

// apiFault chooses the response to a request; nil: the usual one.
type apiFault func(callID string) *fetchtest.Fault

// apiResponse is the response of the faults that last now; nil: none has one.
func (e *env) apiResponse(callID string) *fetchtest.Fault {
	for _, f := range e.apiFaults.all() {
		if got := f(callID); got != nil {
			return got
		}
	}
	return nil
}

func endPartial(ctx context.Context, _ *injector, f *fault) error {
	err := sleep(ctx, partialTime)
	f.end()
	return err
}

// damageBatch changes the last byte of what the brokers return of a partition.
func damageBatch(_ context.Context, j *injector, f *fault) error {
	bad := f.partition()
	f.end = j.tampering.add(tamper{kmsg.Fetch, func(resp kmsg.Response) {
		ofPartition(resp, bad, func(p *kmsg.FetchResponseTopicPartition) {
			if n := len(p.RecordBatches); n > 0 {
				p.RecordBatches = slices.Clone(p.RecordBatches)
				p.RecordBatches[n-1] ^= 1
			}
		})
	}})
	f.spares = inOtherPartitions(bad)
	return nil
}

// takeLeader has the brokers report that a partition has no leader.
func takeLeader(_ context.Context, j *injector, f *fault) error {
	bad := f.partition()
	f.end = j.tampering.add(
		tamper{kmsg.Metadata, func(resp kmsg.Response) {
			for _, t := range resp.(*kmsg.MetadataResponse).Topics {
				if t.Topic == nil || *t.Topic != oneGroup.in {
					continue
				}
				for p := range t.Partitions {
					if t.Partitions[p].Partition == bad {
						t.Partitions[p].ErrorCode, t.Partitions[p].Leader = kerr.LeaderNotAvailable.Code, -1
					}
				}
			}
		}},
		tamper{kmsg.Fetch, func(resp kmsg.Response) {
			ofPartition(resp, bad, func(p *kmsg.FetchResponseTopicPartition) {
				p.ErrorCode, p.RecordBatches = kerr.NotLeaderForPartition.Code, nil
			})
		}},
	)
	f.spares = inOtherPartitions(bad)
	return nil
}

// ofPartition changes what a response has of a partition of the input topic, the
// only one that instances fetch.
func ofPartition(resp kmsg.Response, partition int32, change func(*kmsg.FetchResponseTopicPartition)) {
	for _, t := range resp.(*kmsg.FetchResponse).Topics {
		for p := range t.Partitions {
			if t.Partitions[p].Partition == partition {
				change(&t.Partitions[p])
			}
		}
	}
}

func inOtherPartitions(bad int32) spares {
	return func(s audit.Source, _ audit.Expect) bool { return s.Partition != bad }
}

// refuseOutputs has the dead-letter topic refuse all records.
func refuseOutputs(_ context.Context, j *injector, f *fault) error {
	j.refusing.Add(1)
	f.end = func() { j.refusing.Add(-1) }
	f.spares = everyEvent
	return nil
}

// everyEvent that is to be enriched: only these are measured.
func everyEvent(audit.Source, audit.Expect) bool { return true }

// forbidCalls responds with HTTP 403 to all requests for some CallIds.
func forbidCalls(_ context.Context, j *injector, f *fault) error {
	bad := func(callID string) bool { return crc32.ChecksumIEEE([]byte(callID))%100 < badCallsPercent }
	forbidden := fetchtest.Status(403)
	f.end = j.apiFaults.add(func(callID string) *fetchtest.Fault {
		if bad(callID) {
			return &forbidden
		}
		return nil
	})
	f.spares = func(_ audit.Source, e audit.Expect) bool { return !bad(e.CallID) }
	return nil
}

// throttle refuses a request from time to time, though the rate is not exceeded: a
// second program uses the same limit.
func throttle(_ context.Context, j *injector, f *fault) error {
	refused := fetchtest.Named("rate_limited")
	if f.random < 0.5 {
		refused = fetchtest.TooManyRequests("")
	}
	last := time.Now()
	f.end = j.apiFaults.add(func(string) *fetchtest.Fault {
		if time.Since(last) < throttleEvery {
			return nil
		}
		last = time.Now()
		return &refused
	})
	f.spares = everyEvent
	return nil
}

// flap has the API fail and work by turns.
func flap(_ context.Context, j *injector, f *fault) error {
	failing, begin := fetchtest.BadGateway(), time.Now()
	f.end = j.apiFaults.add(func(string) *fetchtest.Fault {
		if time.Since(begin)/flapTime%2 == 0 {
			return &failing
		}
		return nil
	})
	f.spares = everyEvent
	return nil
}

// partition is one that this fault has chosen.
func (f *fault) partition() int32 { return int32(f.random * partitions) }
