// Command chaos runs processes of the real program on a real Kafka, each behind a
// proxy of its own, and compares the events that it produced with what a
// read_committed reader finds in the output topics.
//
//	go run ./test/chaos -duration 3m             # faults at random moments, for three minutes
//	go run ./test/chaos -nodes 3 -duration 90s   # three brokers, of which one is killed for good
//	go run ./test/chaos -mode rate-limit         # one rate for instances that join, leave, freeze and are partitioned
//	go run ./test/chaos -mode rolling            # what a rolling restart costs
//	go run ./test/chaos -mode freeze -n 100      # a hundred freezes in the phases of a transaction
//
// With one broker each fault that hits only a part of the events comes alone first,
// for about a minute, and the latency of the others is measured; then all overlap.
//
// A run prints its seed; the same seed makes the same choices, though not at the
// same moments. It ends with exit code 1 if anything is wrong with the outcomes, if
// a process exits by itself, or if a type of fault never hit a transaction.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	mode := flag.String("mode", "faults", "faults, rate-limit, rolling or freeze")
	seed := flag.Uint64("seed", uint64(time.Now().UnixNano()), "random seed of all choices")
	duration := flag.Duration("duration", 3*time.Minute, "faults: how long they are injected; rate-limit: length of the steady phase")
	nodes := flag.Int("nodes", 1, "brokers: 1, or 3, of which one is killed for good (faults)")
	rate := flag.Int("rate", 100, "events per second (faults, rolling, freeze)")
	pace := flag.Duration("pace", time.Second, "mean time between two faults")
	rounds := flag.Int("rounds", 2, "number of rolling restarts")
	n := flag.Int("n", 100, "number of freezes")
	keep := flag.Bool("keep", false, "keep the instances' logs even if nothing is wrong")
	level := flag.String("log-level", "info", "log level of the instances")
	verbose := flag.Bool("v", false, "print every fault")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	fmt.Printf("mode %s, seed %d, %d broker(s)\n", *mode, *seed, *nodes)
	rng := rand.New(rand.NewPCG(*seed, 0))
	switch *mode {
	case "faults":
		return withEnv(ctx, faultsConfig(*seed, *nodes), *level, *keep, func(e *env) error {
			return injectFaults(ctx, e, *seed, *rate, *pace, *duration, *verbose)
		})
	case "rate-limit":
		return withEnv(ctx, rateLimitConfig(*nodes), *level, *keep, func(e *env) error {
			return measureRateLimit(ctx, e, rng, *duration)
		})
	case "rolling":
		return withEnv(ctx, rollingConfig(*nodes), *level, *keep, func(e *env) error {
			return measureRollingRestarts(ctx, e, rng, *rate, *rounds)
		})
	case "freeze":
		return withEnv(ctx, freezeConfig(*nodes), *level, *keep, func(e *env) error {
			return measureFreezes(ctx, e, *seed, *rate, *n, *verbose)
		})
	}
	return fmt.Errorf("-mode: must be faults, rate-limit, rolling or freeze, not %q", *mode)
}
