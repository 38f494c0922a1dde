package producer_test

import (
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/producer"
	"enricher/schemas"
)

// A dead letter is the event with headers that say why it could not be enriched.
func ExampleRecordBuilder_DeadLetter() {
	builder := producer.RecordBuilder{DeadLetterTopic: "call-dead-letters", Group: "enricher"}
	event := &kgo.Record{
		Topic: "call-ended", Partition: 3, Offset: 1044, Timestamp: time.UnixMilli(1764000067412),
		Key: []byte("alice"), Value: []byte(`{"CallId":"5c2f7f0e"}`),
		Headers: []kgo.RecordHeader{{Key: "trace", Value: []byte("7d3")}},
	}
	record := builder.DeadLetter(event, &schemas.Failure{
		Reason: schemas.NotFound, Code: 101050, Message: "101050 record_not_found: no record of this call", RequestID: "c6e1",
		Attempts: 6, First: time.UnixMilli(1764000072000), Last: time.UnixMilli(1764000187000),
	})
	fmt.Printf("%s: key %s, value %s\n", record.Topic, record.Key, record.Value)
	for _, h := range record.Headers {
		fmt.Printf("%s=%s\n", h.Key, h.Value)
	}

	deadLetter, ok := producer.ParseDeadLetter(record)
	fmt.Printf("%v: %s, from %s %d:%d, %d header\n", ok, deadLetter.Reason, deadLetter.Topic, deadLetter.Partition, deadLetter.Offset, len(deadLetter.Headers))
	// Output:
	// call-dead-letters: key alice, value {"CallId":"5c2f7f0e"}
	// trace=7d3
	// enricher.reason=not_found
	// enricher.code=101050
	// enricher.message=101050 record_not_found: no record of this call
	// enricher.attempts=6
	// enricher.replays=0
	// enricher.original_timestamp=1764000067412
	// enricher.request_id=c6e1
	// enricher.first_attempt=1764000072000
	// enricher.last_attempt=1764000187000
	// __connect.errors.topic=call-ended
	// __connect.errors.partition=3
	// __connect.errors.offset=1044
	// __connect.errors.exception.message=101050 record_not_found: no record of this call
	// __dlq.errors.topic=call-ended
	// __dlq.errors.partition=3
	// __dlq.errors.offset=1044
	// __dlq.errors.group=enricher
	// __dlq.errors.delivery.count=1
	// __dlq.errors.message=101050 record_not_found: no record of this call
	// true: not_found, from call-ended 3:1044, 1 header
}
