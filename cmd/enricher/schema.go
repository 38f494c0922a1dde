package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/alecthomas/kong"

	"enricher/cmd/enricher/internal/config"
	"enricher/cmd/enricher/internal/hint"
	"enricher/cmd/enricher/internal/registry"
	"enricher/schemas"
)

type schemaCmd struct {
	Print    schemaPrintCmd    `cmd:"" help:"Print the schema of enriched records."`
	Check    schemaCheckCmd    `cmd:"" help:"Check whether the schema is registered, or could be; read-only."`
	Register schemaRegisterCmd `cmd:"" help:"Register the schema, if it is compatible with those that are."`
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

// registryFlags are those flags of run that say which schema is where.
type registryFlags struct {
	EnrichedTopic        string `default:"call-enriched" group:"Output:" help:"Topic of enriched records; the subject is TOPIC-value."`
	config.FormatFlags   `group:"Output:"`
	config.RegistryFlags `group:"Schema registry:"`
}

// Check implements config.Checker.
func (c *registryFlags) Check(src *config.Sources) {
	src.Required("enriched-topic", c.EnrichedTopic)
	c.FormatFlags.Check(src)
	if len(c.SchemaRegistryURL) == 0 {
		src.Problem("schema-registry-url", "must be given")
		return
	}
	c.RegistryFlags.Check(src, c.EnrichedTopic, c.Format())
}

// usable reports whether run could use the schema with the same flags.
func (c *registryFlags) usable(s registry.Schema) error {
	return hint.Explain(c.Identify(new(schemas.Encoder), s), "")
}

type schemaCheckCmd struct{ registryFlags }

// Example returns a command line for the help.
func (*schemaCheckCmd) Example() string {
	return `enricher schema check --output-format avro \
    --schema-registry-url https://registry.example.com:8081`
}

// Run prints what the registry says of the schema, and fails if run cannot use it, or
// could not after it was registered.
func (c *schemaCheckCmd) Run(ctx context.Context, k *kong.Kong) error {
	found, err := c.Registry.Find(ctx)
	var missing *registry.NotRegisteredError
	switch {
	case errors.As(err, &missing):
		if err := c.Registry.Check(ctx); err != nil {
			return hint.Explain(err, "")
		}
		_, err = fmt.Fprintf(k.Stdout, "not registered, and compatible: subject %s\n", missing.Subject)
		return err
	case err != nil:
		return hint.Explain(err, "")
	}
	if _, err := fmt.Fprintf(k.Stdout, "registered: %s\n", found); err != nil {
		return err
	}
	return c.usable(found)
}

type schemaRegisterCmd struct{ registryFlags }

// Example returns a command line for the help.
func (*schemaRegisterCmd) Example() string {
	return `enricher schema register --output-format avro \
    --schema-registry-url https://registry.example.com:8081`
}

// Run registers the schema.
func (c *schemaRegisterCmd) Run(ctx context.Context, k *kong.Kong) error {
	if err := c.Registry.Check(ctx); err != nil {
		return hint.Explain(err, "")
	}
	created, err := c.Registry.Register(ctx)
	if err != nil {
		return hint.Explain(err, "")
	}
	if _, err := fmt.Fprintf(k.Stdout, "registered: %s\n", created); err != nil {
		return err
	}
	return c.usable(created)
}
