package main

import (
	"github.com/alecthomas/kong"

	"enricher/cmd/enricher/internal/config"
)

type configCmd struct {
	Print  configPrintCmd  `cmd:"" help:"Print the configuration of run with these flags, and where each value comes from."`
	Schema configSchemaCmd `cmd:"" help:"Print a JSON Schema of the file for --config."`
}

// Example returns a command line for the help.
func (*configCmd) Example() string { return "enricher config print --config enricher.yaml" }

// configPrintCmd takes the flags of run. It reads no file that they name but the one
// for --config, so that it works where the secrets are not.
type configPrintCmd struct{ config.ServiceFlags }

// Example returns a command line for the help.
func (*configPrintCmd) Example() string { return "enricher config print --config enricher.yaml" }

// Check implements config.Checker: every value that can be read is printed.
func (*configPrintCmd) Check(*config.Sources) {}

// Run prints the values as a file for --config.
func (*configPrintCmd) Run(k *kong.Kong, kctx *kong.Context, src *config.Sources) error {
	return src.WriteEffective(k.Stdout, kctx)
}

type configSchemaCmd struct{}

// Example returns a command line for the help.
func (configSchemaCmd) Example() string { return "enricher config schema" }

// Run prints the schema.
func (configSchemaCmd) Run(k *kong.Kong, src *config.Sources) error {
	return src.WriteSchema(k.Stdout, k.Model.Node)
}
