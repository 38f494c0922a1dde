package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/cmd/enricher/internal/terminal"
	"enricher/consumer/audit"
	"enricher/producer"
	"enricher/schemas"
)

// deadLetters produces the records that a file describes, one per line.
func deadLetters(ts *testscript.TestScript, _ bool, args []string) {
	cl, err := kgo.NewClient(brokers(ts), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	ts.Check(err)
	defer cl.Close()
	outputs := producer.RecordBuilder{DeadLetterTopic: "call-dead-letters", Group: "enricher"}
	for i, text := range strings.Split(strings.TrimSpace(ts.ReadFile(args[0])), "\n") {
		var l struct {
			Partition int32
			Written   time.Time
			Foreign   bool
			Omitted   bool
			// Unreadable is the number of offsets of a range that could not be read.
			Unreadable int64
			Topic      string
			Key        *string
			Value      *string
			Headers    map[string]string
			Reason     schemas.Reason
			Code       int
			Message    string
			Attempts   int
		}
		ts.Check(json.Unmarshal([]byte(text), &l))
		event := &kgo.Record{Topic: l.Topic, Partition: l.Partition, Offset: int64(100 + i), Timestamp: l.Written.Add(-2 * time.Minute)}
		if l.Key != nil {
			event.Key = []byte(*l.Key)
		}
		if l.Value != nil {
			event.Value = []byte(*l.Value)
		}
		for _, name := range slices.Sorted(maps.Keys(l.Headers)) {
			event.Headers = append(event.Headers, kgo.RecordHeader{Key: name, Value: []byte(l.Headers[name])})
		}
		f := &schemas.Failure{Reason: l.Reason, Code: l.Code, Message: l.Message, Attempts: l.Attempts}
		if l.Attempts > 0 {
			f.First, f.Last = l.Written.Add(-time.Minute), l.Written
		}
		r := outputs.DeadLetter(event, f)
		if l.Omitted {
			r = outputs.DeadLetterWithoutPayload(event, f)
		}
		if l.Unreadable > 0 {
			r = outputs.UnreadableRange(event, l.Unreadable, f)
		}
		if l.Foreign {
			r = &kgo.Record{Topic: "call-dead-letters", Key: event.Key, Value: event.Value}
		}
		r.Partition, r.Timestamp = l.Partition, l.Written
		ts.Check(cl.ProduceSync(context.Background(), r).FirstErr())
	}
}

// records prints the records of a topic by value; ! records: the topic does not
// exist.
func records(ts *testscript.TestScript, none bool, args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	records, err := audit.Read(ctx, []kgo.Opt{brokers(ts)}, args[0])
	if none {
		if !errors.Is(err, kerr.UnknownTopicOrPartition) {
			ts.Fatalf("topic %s: %d records, %v", args[0], len(records), err)
		}
		return
	}
	ts.Check(err)
	slices.SortStableFunc(records, func(a, b *kgo.Record) int { return bytes.Compare(a.Value, b.Value) })
	for _, r := range records {
		_, _ = fmt.Fprintf(ts.Stdout(), "%s %s", terminal.Printable(string(r.Key), 0), terminal.Printable(string(r.Value), 0))
		for _, h := range r.Headers {
			_, _ = fmt.Fprintf(ts.Stdout(), " %s=%s", h.Key, h.Value)
		}
		_, _ = fmt.Fprintln(ts.Stdout())
	}
}

// manyDeadLetters produces N dead letters of healthy events.
func manyDeadLetters(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	cl, err := kgo.NewClient(brokers(ts))
	ts.Check(err)
	defer cl.Close()
	outputs := producer.RecordBuilder{DeadLetterTopic: "call-dead-letters", Group: "enricher"}
	for i := range n {
		event := &kgo.Record{Topic: "call-ended", Offset: int64(i), Timestamp: time.Now(), Value: fmt.Appendf(nil, `{"CallId":"many-%d"}`, i)}
		ts.Check(cl.ProduceSync(context.Background(), outputs.DeadLetter(event, &schemas.Failure{Reason: schemas.NotFound, Code: 101050})).FirstErr())
	}
}

// topic creates a topic, with configuration: NAME [KEY=VALUE…].
func topic(ts *testscript.TestScript, _ bool, args []string) {
	cl, err := kgo.NewClient(brokers(ts))
	ts.Check(err)
	defer cl.Close()
	config := map[string]*string{}
	for _, c := range args[1:] {
		key, value, _ := strings.Cut(c, "=")
		config[key] = &value
	}
	_, err = kadm.NewClient(cl).CreateTopic(context.Background(), 1, 1, config, args[0])
	ts.Check(err)
}

// awaitJournal waits until the journal has N more markers than now.
func awaitJournal(ts *testscript.TestScript, _ bool, args []string) {
	more, err := strconv.Atoi(args[0])
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for first := -1; ; {
		records, err := audit.Read(ctx, []kgo.Opt{brokers(ts)}, "call-dead-letters-journal")
		if !errors.Is(err, kerr.UnknownTopicOrPartition) {
			ts.Check(err)
		}
		records = slices.DeleteFunc(records, func(r *kgo.Record) bool { return !bytes.Contains(r.Value, []byte(`"action"`)) })
		if first < 0 {
			first = len(records)
		}
		if len(records) >= first+more {
			return
		}
		<-time.After(20 * time.Millisecond)
	}
}
