package preflight

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/consumer/progress"
)

// lag returns what the check says about the lag.
func (w *env) lag() string {
	w.t.Helper()
	r, err := Run(w.t.Context(), w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range r.Checks {
		if f.Check == checkLag && f.Status == OK {
			return f.Found
		}
	}
	w.t.Fatal("nothing about the lag")
	return ""
}

func TestLagLeavesOutWhatIsDoneAhead(t *testing.T) {
	w := newEnv(t)
	w.cfg.APIRate = 0
	w.fill(1, 10)
	id := w.cluster.TopicInfo(in).TopicID
	w.commit(1, 2, progress.Encode(id, progress.Progress{Base: 2, Ahead: []progress.Range{{From: 3, To: 7}, {From: 8, To: 9}}}))
	if got, want := w.lag(), "3 events to read"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestLagCountsUpToTheEnd: what an open transaction holds back is still to be read.
// It is a problem only if the transaction has been open for long.
func TestLagCountsUpToTheEnd(t *testing.T) {
	w := newEnv(t)
	w.cfg.APIRate = 0
	w.fill(1, 2)
	w.begin(1)
	w.fill(1, 3)
	if got, want := w.lag(), "6 events to read"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	w.check()
	w.cluster.ControlKey(int16(kmsg.DescribeProducers), func(req kmsg.Request) (kmsg.Response, error, bool) {
		w.cluster.KeepControl()
		resp := req.ResponseKind().(*kmsg.DescribeProducersResponse)
		topic := kmsg.NewDescribeProducersResponseTopic()
		topic.Topic = in
		p := kmsg.NewDescribeProducersResponseTopicPartition()
		p.Partition = 1
		a := kmsg.NewDescribeProducersResponseTopicPartitionActiveProducer()
		a.ProducerID, a.CurrentTxnStartOffset, a.LastTimestamp = 17, 2, time.Now().Add(-2*time.Minute).UnixMilli()
		p.ActiveProducers = append(p.ActiveProducers, a)
		topic.Partitions = append(topic.Partitions, p)
		resp.Topics = append(resp.Topics, topic)
		return resp, nil, true
	})
	w.check("warning lag calls: open transaction of producer 17 on partition 1, last written to at ")
}

// begin begins a transaction with one event, and leaves it open.
func (w *env) begin(partition int32) {
	w.t.Helper()
	cl := w.client(kgo.TransactionalID("another"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err := cl.BeginTransaction(); err != nil {
		w.t.Fatal(err)
	}
	if err := cl.ProduceSync(context.Background(), &kgo.Record{Topic: in, Partition: partition}).FirstErr(); err != nil {
		w.t.Fatal(err)
	}
}
