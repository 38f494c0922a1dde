package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/alecthomas/kong"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap/zapcore"

	"enricher/cmd/enricher/internal/preflight"
	"enricher/consumer"
)

// checkCmd takes the flags of run, so that what it says holds for a run with the
// same command line, environment and file.
type checkCmd struct {
	runCmd
	JSON bool `name:"json" help:"Print JSON for a program."`
}

// Run looks at everything the service needs and changes nothing.
func (c *checkCmd) Run(ctx context.Context, k *kong.Kong) error {
	defer c.client.Close()
	var opts []kgo.Opt
	if c.log.Core().Enabled(zapcore.DebugLevel) { // else the report says it better
		opts = append(opts, kafkaLogger(c.log))
	}
	report, err := preflight.Look(ctx, preflight.Config{
		Kafka:           slices.Concat(c.opts, opts),
		Brokers:         c.Brokers,
		TLS:             c.usesTLS(),
		SASLMechanism:   c.SASLMechanism,
		SASLUser:        c.SASLUser,
		Needs:           c.needs(),
		Instance:        c.Instance,
		DeadLetterTopic: c.DeadLetterTopic,
		Start:           consumer.AutoOffsetReset(c.Start),
		APIRate:         c.APIRate,
		API:             c.client,
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
	if report.Fatal > 0 {
		return fmt.Errorf("the service cannot do its work: %d fatal", report.Fatal)
	}
	return nil
}
