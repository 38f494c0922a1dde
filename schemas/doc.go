// Package schemas holds the contract with other programs: the events that enricher
// reads, the call records that it gets from the API, the enriched records that it
// writes, and the headers of its outputs. The JSON Schemas, with samples, are in
// Files; a test holds types, schemas and samples together.
//
// It only converts: it depends on neither Kafka nor HTTP, reads no clock, and drops
// unknown fields. It never guesses: a duration that cannot be computed is absent.
package schemas

import "embed"

// Files holds the JSON Schemas (draft 2020-12) of event, call record, enriched
// record and dead-letter headers (NAME.schema.json), those of the enriched record in
// Avro and Protocol Buffers (enriched.avsc, enriched.proto), and samples
// (samples/NAME-WHAT.json; samples/call-N-*.json are call record and enriched
// record of one call).
//
//go:embed *.schema.json enriched.avsc enriched.proto samples/*.json
var Files embed.FS
