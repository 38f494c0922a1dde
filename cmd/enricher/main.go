// Command enricher enriches call-ended events from Kafka with records of the
// call-record API, exactly once.
//
// Exit codes: 0 success, also after a drain; 1 failure; 2 wrong usage or
// configuration; 3 a lookup of calls that the API has no record of.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/alecthomas/kong"

	"enricher/cmd/enricher/internal/config"
	"enricher/cmd/enricher/internal/demo"
	"enricher/cmd/enricher/internal/dlqcmd"
	"enricher/cmd/enricher/internal/hint"
	"enricher/cmd/enricher/internal/logsink"
)

const (
	exitFailed   = 1
	exitUsage    = 2
	exitNoRecord = 3
)

// cli is the command line. Each command's flags are defined with the command.
type cli struct {
	Config string `placeholder:"FILE" help:"YAML file with one 'flag: value' per line."`

	Run        runCmd         `cmd:"" help:"Run the service."`
	Demo       demo.Command   `cmd:"" help:"Show the pipeline with an embedded broker and a simulated API; needs nothing installed."`
	Instance   demo.Instance  `cmd:"" hidden:"" name:"demo-instance"`
	Health     healthCmd      `cmd:"" help:"Check that a running instance is alive (for container health checks)."`
	Lookup     lookupCmd      `cmd:"" help:"Look up CallIds once and print the result."`
	Check      checkCmd       `cmd:"" help:"Check everything that run needs and report problems; read-only."`
	Skip       skipCmd        `cmd:"" help:"Move the stopped group past a damaged batch or a single event."`
	Dlq        dlqcmd.Command `cmd:"" help:"Inspect, replay or discard dead letters."`
	Schema     schemaCmd      `cmd:"" help:"Print or register the schema of enriched records."`
	Settings   configCmd      `cmd:"" name:"config" help:"Print the configuration, or a schema of its file."`
	Completion completionCmd  `cmd:"" help:"Print a script for a shell that completes command lines."`
	Complete   completeCmd    `cmd:"" hidden:""`
	Man        manCmd         `cmd:"" help:"Print the manual page, in roff."`
	Version    versionCmd     `cmd:"" help:"Print version, commit and Go version."`
}

// Example returns a command line for the help.
func (*cli) Example() string { return "enricher demo" }

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run runs the command that args name and returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	src := config.NewSources("enricher/" + readBuild().version)
	exit := -1 // set by --help
	k := newParser(src, kong.Writers(stdout, stderr), kong.Exit(func(code int) { exit = code }))
	kctx, err := k.Parse(args)
	if exit >= 0 {
		return exit
	}
	var parse *kong.ParseError
	switch {
	case errors.As(err, &parse):
		err = src.Explain(parse)
	case err == nil:
		err = src.Check(kctx)
	}
	if err == nil {
		ctx, stop := interruptible(stderr)
		defer stop()
		kctx.BindTo(ctx, (*context.Context)(nil))
		kctx.Bind(kctx, src)
		err = kctx.Run()
	}
	return report(stderr, err)
}

func newParser(src *config.Sources, opts ...kong.Option) *kong.Kong {
	k, err := kong.New(&cli{}, slices.Concat(src.Options(), []kong.Option{
		kong.Name("enricher"),
		kong.Description("Enriches call-ended events from Kafka with records of the call-record API, exactly once."),
		kong.Vars{"reasons": dlqcmd.ReasonNames(), "user": dlqcmd.UserName()},
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 110}),
		kong.Help(printHelp),
	}, opts)...)
	if err != nil {
		panic(err) // the structs above are wrong
	}
	return k
}

// printHelp ends the help of a command with its example.
func printHelp(options kong.HelpOptions, ctx *kong.Context) error {
	if err := kong.DefaultHelpPrinter(options, ctx); err != nil {
		return err
	}
	node := ctx.Selected()
	if node == nil {
		node = ctx.Model.Node
	}
	c, ok := node.Target.Addr().Interface().(interface{ Example() string })
	if !ok {
		return nil
	}
	_, err := fmt.Fprintf(ctx.Stdout, "\nExample:\n  %s\n", c.Example())
	return err
}

// report prints an error, with advice on a line of its own, and returns the exit
// code for it.
func report(stderr io.Writer, err error) int {
	w := logsink.New(stderr, nil) // standard error may not be read
	defer func() { _ = w.Sync() }()
	var usage *config.UsageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &usage):
		for _, p := range usage.Problems {
			_, _ = fmt.Fprintf(w, "enricher: %s\n", p)
		}
		_, _ = fmt.Fprintf(w, "enricher: invalid configuration; run %s --help\n", usage.Command)
		return exitUsage
	}
	for _, e := range hint.Split(err) {
		_, _ = fmt.Fprintf(w, "enricher: %v\n", e)
		if advice := hint.For(e); advice != "" {
			_, _ = fmt.Fprintf(w, "enricher: hint: %s\n", advice)
		}
	}
	var noRecord *noRecordError
	if errors.As(err, &noRecord) {
		return exitNoRecord
	}
	return exitFailed
}

// interruptible returns a context that is cancelled by the first SIGINT or SIGTERM.
// The second signal ends the process.
func interruptible(stderr io.Writer) (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		for first := true; ; first = false {
			select {
			case <-done:
				return
			case s := <-signals:
				if !first {
					w := logsink.New(stderr, nil)
					_, _ = fmt.Fprintf(w, "enricher: second %v: exiting immediately\n", s)
					_ = w.Sync()
					os.Exit(exitFailed)
				}
				cancel()
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		cancel()
	}
}
