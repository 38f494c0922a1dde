package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/alecthomas/kong"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap/zapcore"

	"enricher/cmd/enricher/internal/admin"
	"enricher/cmd/enricher/internal/config"
	"enricher/cmd/enricher/internal/preflight"
	"enricher/cmd/enricher/internal/registry"
	"enricher/consumer"
	"enricher/schemas"
)

// checkCmd takes the flags of run, so that its report holds for a run with the
// same command line, environment and file.
type checkCmd struct {
	runCmd
	JSON  bool `name:"json" group:"Report:" help:"Print the report as JSON."`
	Probe bool `args-only:"" group:"Report:" help:"Also try what brokers may refuse, such as transactions, large records and every compression. It writes: aborted records to the output topics, and offsets of a group of its own, which it deletes."`
}

// Example returns a command line for the help.
func (*checkCmd) Example() string {
	return "enricher check --config enricher.yaml --json"
}

// Run prints the report and fails if it contains a fatal problem.
func (c *checkCmd) Run(ctx context.Context, k *kong.Kong) error {
	defer c.Client.Close()
	var opts []kgo.Opt
	if c.Log.Core().Enabled(zapcore.DebugLevel) { // otherwise the report says what the client would log
		opts = append(opts, admin.KafkaLog(c.Log))
	}
	report, err := preflight.Run(ctx, preflight.Config{
		Kafka:             slices.Concat(c.Options, opts),
		Brokers:           c.Brokers,
		TLS:               c.UsesTLS(),
		SASLMechanism:     c.SASLMechanism,
		SASLUser:          c.SASLUser,
		Requirements:      c.requirements(),
		Instance:          c.Instance,
		DeadLetterTopic:   c.DeadLetterTopic,
		Start:             consumer.AutoOffsetReset(c.AutoOffsetReset),
		APIRate:           c.APIRate,
		API:               c.Client,
		Registry:          c.Registry,
		Identify:          func(s registry.Schema) error { return c.Identify(new(schemas.Encoder), s) },
		CallEndTimestamps: c.CallEndTimestamps(),
		MaxRecordBytes:    int(c.BatchMaxBytes),
		Compression:       c.Compression,
		Codecs:            config.Codecs(),
		Probe:             c.Probe,
	})
	if err != nil {
		return err
	}
	write := report.Text
	if c.JSON {
		write = report.JSON
	}
	if err := write(k.Stdout); err != nil {
		return err
	}
	switch report.Fatal {
	case 0:
		return nil
	case 1:
		return errors.New("1 fatal problem found; the service cannot run")
	}
	return fmt.Errorf("%d fatal problems found; the service cannot run", report.Fatal)
}
