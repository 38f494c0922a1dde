// Command run runs an Apache Kafka until it is interrupted, and prints how to reach
// it: `make kafka`, or `go run ./test/kafka/run -nodes 3`.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"enricher/test/kafka"
)

func main() {
	nodes := flag.Int("nodes", 1, "number of brokers: 1 or 3")
	flag.Parse()
	if err := run(*nodes); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(nodes int) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	c, err := kafka.Start(ctx, kafka.Config{Nodes: nodes})
	if err != nil {
		return err
	}
	bin, err := c.Tools()
	if err != nil {
		return errors.Join(err, c.Stop())
	}
	fmt.Printf("Kafka is running; stop it with Ctrl-C. In the terminals that use it:\n\n"+
		"export KAFKA_BROKERS=%s\nexport PATH=\"%s:$PATH\"\n", strings.Join(c.Brokers, ","), bin)
	<-ctx.Done()
	return c.Stop()
}
