// Command enricher enriches call-ended events from Kafka with records of the
// call-record API, exactly once.
//
// Exit codes: 0 done or drained, 1 failed, 2 wrong usage or configuration.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

const (
	exitFailed = 1
	exitUsage  = 2
)

// cli is the command line. Each command's flags stand with the command.
type cli struct {
	Config string `placeholder:"FILE" help:"YAML file of flags: one 'name: value' a line."`

	Run     runCmd          `cmd:"" help:"Run the service."`
	Demo    demoCmd         `cmd:"" help:"Show the pipeline on an embedded broker and a simulated API; needs nothing installed."`
	Child   demoInstanceCmd `cmd:"" hidden:"" name:"demo-instance"`
	Health  healthCmd       `cmd:"" help:"Ask a running instance whether it lives; the health check of a container."`
	Lookup  lookupCmd       `cmd:"" help:"Look calls up once and print what the API says."`
	Check   checkCmd        `cmd:"" help:"Look at everything run needs, and say what is wrong; changes nothing."`
	Dlq     dlqCmd          `cmd:"" help:"Look at dead letters, replay or discard them."`
	Version versionCmd      `cmd:"" help:"Print version, commit and Go version."`
}

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run is main without the exit.
func run(args []string, stdout, stderr io.Writer) int {
	in := newInputs()
	exit := -1 // set by --help
	k, err := kong.New(&cli{}, append(in.options(), kong.Writers(stdout, stderr), kong.Exit(func(code int) { exit = code }))...)
	if err != nil {
		panic(err) // the structs above are wrong
	}
	kctx, err := k.Parse(args)
	if exit >= 0 {
		return exit
	}
	if err == nil {
		err = in.check(kctx)
	}
	if err == nil {
		ctx, stop := interruptible(stderr)
		defer stop()
		kctx.BindTo(ctx, (*context.Context)(nil))
		err = kctx.Run()
	}
	return report(stderr, err)
}

// report tells what went wrong, and the exit code for it.
func report(w io.Writer, err error) int {
	var usage *usageError
	var parse *kong.ParseError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &usage):
		for _, p := range usage.problems {
			_, _ = fmt.Fprintf(w, "enricher: %s\n", p)
		}
		_, _ = fmt.Fprintf(w, "enricher: nothing was started; see %s --help\n", usage.command)
		return exitUsage
	case errors.As(err, &parse):
		_, _ = fmt.Fprintf(w, "enricher: %v\nenricher: nothing was started; see enricher --help\n", err)
		return exitUsage
	}
	for _, e := range flatten(err) {
		_, _ = fmt.Fprintf(w, "enricher: %v\n", e)
	}
	return exitFailed
}

// flatten takes joined errors apart.
func flatten(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, flatten(e)...)
	}
	return all
}

// interruptible is a context that ends with the first SIGINT or SIGTERM. The
// second one ends the process.
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
					_, _ = fmt.Fprintf(stderr, "enricher: %v again: ending at once\n", s)
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
