package main

import (
	"io"

	"github.com/alecthomas/kong"

	"enricher/cmd/enricher/internal/config"
)

type schemaCmd struct {
	Print schemaPrintCmd `cmd:"" help:"Print the schema of enriched records."`
}

// Example returns a command line for the help.
func (*schemaCmd) Example() string { return "enricher schema print --output-format avro" }

type schemaPrintCmd struct {
	config.FormatFlags `group:"Output:"`
}

// Example returns a command line for the help.
func (*schemaPrintCmd) Example() string { return "enricher schema print --output-format avro" }

// Run prints the schema as a schema registry takes it.
func (c *schemaPrintCmd) Run(k *kong.Kong) error {
	_, err := io.WriteString(k.Stdout, c.Format().Schema())
	return err
}
