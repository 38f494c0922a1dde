// Package consumer runs the pipeline: it polls events, looks their calls up, and
// commits each outcome together with the event's offset in one transaction.
//
// The conductor runs the loop of a Kafka session, a tracker records which offsets
// of a partition are completed, the scheduler of fetch/lookup finds the records
// of calls. The package speaks no HTTP, knows no error code of the API, and leaves
// the making of records to package producer.
package consumer
