package schemas

import "embed"

// Files are the JSON Schemas (draft 2020-12) of event, record, enriched record
// and dead-letter headers (NAME.schema.json), and samples of them
// (samples/NAME-WHAT.json; samples/call-N-*.json are one call from event to
// enriched record).
//
//go:embed *.schema.json samples/*.json
var Files embed.FS
