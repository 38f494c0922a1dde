package audit_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/consumer/audit"
	"enricher/producer"
	"enricher/schemas"
)

var (
	builder  = producer.RecordBuilder{EnrichedTopic: "enriched", DeadLetterTopic: "dead"}
	produced = time.UnixMilli(1764000000000)
	latency  = 3 * time.Second
)

// The offsets of a run's events.
const (
	found = iota
	missing
	otherCallback
	either // a call that may be found or not
	tooLarge
	empty // a null key and an empty value
	events
)

func source(offset int64) audit.Source {
	return audit.Source{Topic: "calls", Partition: 2, Offset: offset}
}

func event(offset int64) *kgo.Record {
	if offset == empty {
		return &kgo.Record{Topic: "calls", Partition: 2, Offset: offset, Value: []byte{}}
	}
	return &kgo.Record{Topic: "calls", Partition: 2, Offset: offset, Key: []byte("key"), Value: []byte("value")}
}

func enriched(offset int64, callID, value string) *kgo.Record {
	return at(builder.Enriched(event(offset), producer.Enrichment{
		CallID: callID, Encoded: schemas.Encoded{Value: []byte(value)}, RecordSource: schemas.FromAPI, Cache: "miss", RequestID: "request",
	}))
}

func deadLetter(offset int64, reason schemas.Reason) *kgo.Record {
	return at(builder.DeadLetter(event(offset), &schemas.Failure{Reason: reason}))
}

func at(r *kgo.Record) *kgo.Record {
	r.Timestamp = produced.Add(latency)
	return r
}

// goodRun returns the events of a run and its outputs, which are as they should be.
func goodRun() (*audit.Ledger, []*kgo.Record) {
	key, value := []byte("key"), []byte("value")
	notFound := []schemas.Reason{schemas.NotFound}
	var l audit.Ledger
	l.Add(source(found), audit.Expect{CallID: "a", Enriched: []byte("A"), Key: key, Value: value, Produced: produced})
	l.Add(source(missing), audit.Expect{Reasons: notFound, Key: key, Value: value, Produced: produced})
	l.Add(source(otherCallback), audit.Expect{Key: key, Value: value, Produced: produced})
	l.Add(source(either), audit.Expect{CallID: "b", Enriched: []byte("B"), Reasons: notFound, Key: key, Value: value, Produced: produced})
	l.Add(source(tooLarge), audit.Expect{Reasons: []schemas.Reason{schemas.Malformed}, Key: key, Value: value, Produced: produced})
	l.Add(source(empty), audit.Expect{Reasons: []schemas.Reason{schemas.Malformed}, Value: []byte{}, Produced: produced})
	return &l, []*kgo.Record{
		found: enriched(found, "a", "A"), missing: deadLetter(missing, schemas.NotFound), otherCallback: nil, either: deadLetter(either, schemas.NotFound),
		tooLarge: at(builder.DeadLetterWithoutPayload(event(tooLarge), &schemas.Failure{Reason: schemas.Malformed})),
		empty:    deadLetter(empty, schemas.Malformed),
	}
}

// check audits outputs; nil stands for no record.
func check(l *audit.Ledger, outputs []*kgo.Record) *audit.Report {
	return l.Check(slices.DeleteFunc(outputs, func(r *kgo.Record) bool { return r == nil }))
}

func TestGoodRunIsOK(t *testing.T) {
	l, outputs := goodRun()
	if l.Len() != events || l.Due() != events-1 {
		t.Errorf("%d events, of which %d must have an output", l.Len(), l.Due())
	}
	r := check(l, outputs)
	if !r.OK() {
		t.Error(r)
	}
	if r.Events != events || r.Enriched != 1 || r.DeadLetters[schemas.NotFound] != 2 || r.DeadLetters[schemas.Malformed] != 2 || r.Skipped != 1 {
		t.Errorf("%+v", r)
	}
	if want := slices.Repeat([]time.Duration{latency}, events-1); !slices.Equal(r.Latency, want) {
		t.Errorf("latency %v, want %v", r.Latency, want)
	}
}

// dropHeader returns a copy of a record without a header.
func dropHeader(r *kgo.Record, key string) *kgo.Record {
	c := *r
	c.Headers = slices.DeleteFunc(slices.Clone(r.Headers), func(h kgo.RecordHeader) bool { return h.Key == key })
	return &c
}

// setHeader returns a copy of a record with another value of a header.
func setHeader(r *kgo.Record, key, value string) *kgo.Record {
	c := dropHeader(r, key)
	c.Headers = append(c.Headers, kgo.RecordHeader{Key: key, Value: []byte(value)})
	return c
}

// with returns a changed copy of a record.
func with(r *kgo.Record, change func(*kgo.Record)) *kgo.Record {
	c := *r
	change(&c)
	return &c
}

// TestDefectIsFound changes the outputs of a good run in one way at a time. The
// report must name the problem, its type and the event.
func TestDefectIsFound(t *testing.T) {
	for _, test := range []struct {
		name   string
		defect func(outputs []*kgo.Record) []*kgo.Record
		lost   []string // the beginning of each line of Report.Lost
		twice  []string // of Report.Duplicated
		wrong  []string // of Report.Wrong
	}{
		{
			name:   "an enriched record is lost",
			defect: func(o []*kgo.Record) []*kgo.Record { o[found] = nil; return o },
			lost:   []string{"calls[2]@0 a"},
		},
		{
			name:   "a dead letter is lost",
			defect: func(o []*kgo.Record) []*kgo.Record { o[missing] = nil; return o },
			lost:   []string{"calls[2]@1"},
		},
		{
			name:   "everything is lost",
			defect: func([]*kgo.Record) []*kgo.Record { return nil },
			lost:   []string{"calls[2]@0", "calls[2]@1", "calls[2]@3", "calls[2]@4", "calls[2]@5"},
		},
		{
			name:   "an enriched record is duplicated",
			defect: func(o []*kgo.Record) []*kgo.Record { return append(o, o[found]) },
			twice:  []string{"calls[2]@0"},
		},
		{
			name:   "a dead letter is duplicated",
			defect: func(o []*kgo.Record) []*kgo.Record { return append(o, o[missing]) },
			twice:  []string{"calls[2]@1"},
		},
		{
			name:   "an event has both outcomes",
			defect: func(o []*kgo.Record) []*kgo.Record { return append(o, enriched(either, "b", "B")) },
			twice:  []string{"calls[2]@3"},
		},
		{
			name:   "the value is wrong",
			defect: func(o []*kgo.Record) []*kgo.Record { o[found] = enriched(found, "a", "B"); return o },
			wrong:  []string{"calls[2]@0: value B, want A"},
		},
		{
			name:   "the key is wrong",
			defect: func(o []*kgo.Record) []*kgo.Record { o[found] = enriched(found, "b", "A"); return o },
			wrong:  []string{`calls[2]@0: key "b", want "a"`},
		},
		{
			name: "two events have each other's outcome",
			defect: func(o []*kgo.Record) []*kgo.Record {
				o[found], o[missing] = deadLetter(found, schemas.NotFound), enriched(missing, "a", "A")
				return o
			},
			wrong: []string{"calls[2]@0: dead letter not_found", "calls[2]@1: enriched, but must not be"},
		},
		{
			name:   "the reason is wrong",
			defect: func(o []*kgo.Record) []*kgo.Record { o[missing] = deadLetter(missing, schemas.Malformed); return o },
			wrong:  []string{"calls[2]@1: dead letter malformed (), want one of [not_found]"},
		},
		{
			name:   "a callback of another type is enriched",
			defect: func(o []*kgo.Record) []*kgo.Record { o[otherCallback] = enriched(otherCallback, "c", "C"); return o },
			wrong:  []string{"calls[2]@2: enriched, but must not be"},
		},
		{
			name: "a callback of another type becomes a dead letter",
			defect: func(o []*kgo.Record) []*kgo.Record {
				o[otherCallback] = deadLetter(otherCallback, schemas.Malformed)
				return o
			},
			wrong: []string{"calls[2]@2: dead letter malformed"},
		},
		{
			name: "a dead letter has another key",
			defect: func(o []*kgo.Record) []*kgo.Record {
				o[missing] = with(o[missing], func(r *kgo.Record) { r.Key = []byte("other") })
				return o
			},
			wrong: []string{`calls[2]@1: dead letter with key "other", want "key"`},
		},
		{
			name: "a dead letter has a null value",
			defect: func(o []*kgo.Record) []*kgo.Record {
				o[missing] = with(o[missing], func(r *kgo.Record) { r.Value = nil })
				return o
			},
			wrong: []string{"calls[2]@1: dead letter with a value of 0 bytes, want the event's 5"},
		},
		{
			name: "a null key becomes an empty one",
			defect: func(o []*kgo.Record) []*kgo.Record {
				o[empty] = with(o[empty], func(r *kgo.Record) { r.Key = []byte{} })
				return o
			},
			wrong: []string{`calls[2]@5: dead letter with key ""`},
		},
		{
			name: "an empty value becomes a null one",
			defect: func(o []*kgo.Record) []*kgo.Record {
				o[empty] = with(o[empty], func(r *kgo.Record) { r.Value = nil })
				return o
			},
			wrong: []string{"calls[2]@5: dead letter with a value of 0 bytes"},
		},
		{
			name:   "an event that was never produced has an outcome",
			defect: func(o []*kgo.Record) []*kgo.Record { return append(o, enriched(events, "d", "D")) },
			wrong:  []string{"calls[2]@6: an outcome of an event that was never produced"},
		},
		{
			name: "an enriched record has no topic",
			defect: func(o []*kgo.Record) []*kgo.Record {
				o[found] = dropHeader(o[found], schemas.HeaderSourceTopic)
				return o
			},
			lost: []string{"calls[2]@0"}, wrong: []string{"enriched[0]@0: the headers do not name an event"},
		},
		{
			name: "an enriched record has no partition, and its topic twice",
			defect: func(o []*kgo.Record) []*kgo.Record {
				o[found] = dropHeader(o[found], schemas.HeaderSourcePartition)
				o[found].Headers = append(o[found].Headers, kgo.RecordHeader{Key: schemas.HeaderSourceTopic, Value: []byte("calls")})
				return o
			},
			lost: []string{"calls[2]@0"}, wrong: []string{"enriched[0]@0: the headers do not name an event"},
		},
		{
			name: "an enriched record has an offset that is not a number",
			defect: func(o []*kgo.Record) []*kgo.Record {
				o[found] = setHeader(o[found], schemas.HeaderSourceOffset, "x")
				return o
			},
			lost: []string{"calls[2]@0"}, wrong: []string{"enriched[0]@0: the headers do not name an event"},
		},
		{
			name: "a dead letter has no reason",
			defect: func(o []*kgo.Record) []*kgo.Record {
				o[missing] = dropHeader(o[missing], schemas.HeaderReason)
				return o
			},
			lost: []string{"calls[2]@1"}, wrong: []string{"dead[0]@0: the headers do not name an event"},
		},
		{
			name: "a dead letter has no topic",
			defect: func(o []*kgo.Record) []*kgo.Record {
				o[missing] = dropHeader(o[missing], schemas.HeaderConnectTopic)
				return o
			},
			lost: []string{"calls[2]@1"}, wrong: []string{"dead[0]@0: the headers do not name an event"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			l, outputs := goodRun()
			outputs = test.defect(outputs)
			skipped := 1
			if len(outputs) > otherCallback && outputs[otherCallback] != nil {
				skipped = 0
			}
			r := check(l, outputs)
			if r.OK() {
				t.Fatal("the defect was not found")
			}
			if r.Skipped != skipped {
				t.Errorf("%d skipped, want %d", r.Skipped, skipped)
			}
			expectLines(t, "lost", r.Lost, test.lost)
			expectLines(t, "duplicated", r.Duplicated, test.twice)
			slices.Sort(r.Wrong)
			expectLines(t, "wrong", r.Wrong, test.wrong)
			for _, line := range slices.Concat(r.Lost, r.Duplicated, r.Wrong) {
				if !strings.Contains(r.String(), line) {
					t.Errorf("the report does not list %q:\n%v", line, r)
				}
			}
		})
	}
}

// expectLines checks the beginning of each line.
func expectLines(t *testing.T, name string, got, want []string) {
	t.Helper()
	if !slices.EqualFunc(got, want, strings.HasPrefix) {
		t.Errorf("%s: %q, want %q", name, got, want)
	}
}

// TestReadSeesCommittedRecordsOnly: records of an aborted transaction are not
// read, and an open transaction is an error rather than a short result.
func TestReadSeesCommittedRecordsOnly(t *testing.T) {
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "t", "empty"))
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	opts := []kgo.Opt{kgo.SeedBrokers(broker.ListenAddrs()...)}
	cl, err := kgo.NewClient(append(opts, kgo.DefaultProduceTopic("t"), kgo.TransactionalID("x"))...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	begin := func(value string) {
		t.Helper()
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := cl.ProduceSync(t.Context(), kgo.StringRecord(value)).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	end := func(try kgo.TransactionEndTry) {
		t.Helper()
		if err := cl.EndTransaction(t.Context(), try); err != nil {
			t.Fatal(err)
		}
	}
	begin("committed")
	end(kgo.TryCommit)
	begin("aborted")
	end(kgo.TryAbort)
	records, err := audit.Read(t.Context(), opts, "t", "empty")
	if err != nil || len(records) != 1 || string(records[0].Value) != "committed" {
		t.Errorf("read %v, %v", records, err)
	}
	begin("open")
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if records, err := audit.Read(ctx, opts, "t"); err == nil {
		t.Errorf("read %v while a transaction was open", records)
	}
	end(kgo.TryAbort)
}
