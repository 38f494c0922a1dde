package preflight

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"enricher/consumer/session"
	"enricher/fetch/lookup"
)

// logs returns where the logs of a topic's partitions start and end.
func (r *run) logs(ctx context.Context, topic string) (logs map[int32]session.LogRange, err error) {
	err = r.step(ctx, func(ctx context.Context) error {
		adm := kadm.NewClient(r.cl)
		starts, err1 := adm.ListStartOffsets(ctx, topic)
		ends, err2 := adm.ListEndOffsets(ctx, topic) // before the stable ones, see session.LogRanges
		stable, err3 := adm.ListCommittedOffsets(ctx, topic)
		for _, err := range []error{err1, err2, err3, starts.Error(), ends.Error(), stable.Error()} {
			if err != nil {
				return err
			}
		}
		logs = make(map[int32]session.LogRange)
		stable.Each(func(o kadm.ListedOffset) {
			start, _ := starts.Lookup(topic, o.Partition)
			end, _ := ends.Lookup(topic, o.Partition)
			logs[o.Partition] = session.LogRange{Start: start.Offset, Stable: o.Offset, End: max(end.Offset, o.Offset)}
		})
		return nil
	})
	return logs, err
}

// judgeLag reports how long the service needs for the events in a topic. It is pure.
func (t *topic) judgeLag(r *Report, lag int64, rate float64) {
	found := count(lag, "event") + " to read"
	if lag == 0 || rate == 0 {
		r.ok(checkLag, t.name, "%s", found)
		return
	}
	drain := time.Duration(math.Min(float64(lag)/rate, math.MaxInt64/1e9/2) * float64(time.Second))
	// An upper bound: cached calls need no request.
	found += fmt.Sprintf(", at most %s at %v requests per second", formatDuration(drain), rate)
	kept, limited := t.retention()
	switch {
	case limited && drain > kept:
		r.add(checkLag, t.name, Warning, found+fmt.Sprintf(": the last ones may be deleted before they are read, after %s", formatDuration(kept)),
			t.alter("retention.ms", "-1")+" until they are read, and a higher --api-rate if the app's quota allows it")
	case drain > lookup.APIRetention:
		r.add(checkLag, t.name, Warning, found+": the API keeps a call record for about 7 days, so the last ones will not be found",
			"a higher --api-rate, if the app's quota allows it")
	default:
		r.ok(checkLag, t.name, "%s", found)
	}
}

// openTransactionAge is from when on an open transaction is reported: the default of
// transaction.timeout.ms, and the time until the broker enforces it.
const openTransactionAge = 90 * time.Second

// openTransactions reports transactions of other programs that have been open for
// long: no event behind them can be read.
func (r *run) openTransactions(ctx context.Context, t *topic, logs map[int32]session.LogRange) {
	var set kadm.TopicsSet
	for p, l := range logs {
		if l.End > l.Stable {
			set.Add(t.name, p)
		}
	}
	if len(set) == 0 {
		return
	}
	var producers kadm.DescribedProducersTopics
	err := r.step(ctx, func(ctx context.Context) (err error) {
		producers, err = kadm.NewClient(r.cl).DescribeProducers(ctx, set)
		return err
	})
	var open []string
	for _, p := range producers.SortedPartitions() {
		err = errors.Join(err, p.Err)
		for _, producer := range p.ActiveProducers.Sorted() {
			last := time.UnixMilli(producer.LastTimestamp)
			if producer.CurrentTxnStartOffset >= 0 && time.Since(last) >= openTransactionAge {
				l := logs[p.Partition]
				open = append(open, fmt.Sprintf("of producer %d on partition %d, last written to at %s, holds back %s",
					producer.ProducerID, p.Partition, last.UTC().Format(time.DateTime), count(l.End-l.Stable, "record")))
			}
		}
	}
	switch {
	case len(open) > 0:
		r.add(checkLag, t.name, Warning, "open transaction "+strings.Join(open, "; "),
			fmt.Sprintf("kafka-transactions.sh find-hanging --topic %s, and describe-producers for each partition, show whose it is", t.name))
	case err != nil:
		r.skip(checkLag, t.name, "a transaction is open, but not known since when: %v", err)
	}
}
