package schemas

import (
	"bytes"
	"fmt"
	"strings"
)

// Format is how the values of enriched records are written.
type Format string

// The formats. Equal records have equal bytes in each.
const (
	JSON     Format = "json"
	Avro     Format = "avro"     // binary, without a frame
	Protobuf Format = "protobuf" // fields in order of their numbers
)

// Formats returns all formats.
func Formats() []Format { return []Format{JSON, Avro, Protobuf} }

// Append appends the value of an enriched record to b.
func (f Format) Append(b []byte, e *Enriched) []byte {
	switch f {
	case Avro:
		return appendAvro(b, e)
	case Protobuf:
		return appendProtobuf(b, e)
	}
	return appendJSON(b, e)
}

// ContentType returns the media type of a value without a frame.
func (f Format) ContentType() string {
	switch f {
	case Avro:
		return "application/avro"
	case Protobuf:
		return "application/protobuf"
	}
	return "application/json"
}

// Schema returns the schema of enriched records, as a schema registry takes it. A
// JSON Schema is in draft-07, because registries know no later draft than 2019-09.
func (f Format) Schema() string {
	switch f {
	case Avro:
		return file("enriched.avsc")
	case Protobuf:
		return file("enriched.proto")
	}
	// The drafts differ in nothing else that the schema uses.
	return strings.Replace(file("enriched.schema.json"),
		"https://json-schema.org/draft/2020-12/schema", "http://json-schema.org/draft-07/schema#", 1)
}

func file(name string) string {
	b, err := Files.ReadFile(name)
	if err != nil {
		panic(fmt.Sprintf("embedded file: %v", err)) // it is part of the program
	}
	return string(bytes.TrimSpace(b)) + "\n"
}
