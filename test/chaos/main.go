// Command chaos runs processes of the real program on a real Kafka, each behind
// a proxy of its own, and checks what comes out with an exact oracle.
//
//	go run ./test/chaos -duration 3m             # faults at random moments, for three minutes
//	go run ./test/chaos -nodes 3 -duration 90s   # three brokers, of which one is killed for good
//	go run ./test/chaos -mode quota              # one rate for instances that come, go, freeze and are cut off
//	go run ./test/chaos -mode rolling            # what a rolling restart costs
//
// A run prints its seed; the same seed makes the same choices, though not the
// same moments.
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
	mode := flag.String("mode", "faults", "faults, quota or rolling")
	seed := flag.Uint64("seed", uint64(time.Now().UnixNano()), "of all choices")
	duration := flag.Duration("duration", 3*time.Minute, "faults: how long they are injected; quota: the steady part, 1m or more")
	nodes := flag.Int("nodes", 1, "brokers: 1, or 3, of which one is killed for good (faults)")
	rate := flag.Int("rate", 100, "events a second (faults, rolling)")
	pace := flag.Duration("pace", time.Second, "mean time between two faults")
	rounds := flag.Int("rounds", 2, "rolling restarts")
	keep := flag.Bool("keep", false, "keep the instances' logs even if all is well")
	level := flag.String("log-level", "info", "of the instances")
	verbose := flag.Bool("v", false, "print every fault")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	fmt.Printf("mode %s, seed %d, %d broker(s)\n", *mode, *seed, *nodes)
	rng := rand.New(rand.NewPCG(*seed, 0))
	var err error
	switch *mode {
	case "faults":
		err = onStage(ctx, faultsSetup(*seed, *nodes), *level, *keep, func(s *stage) error {
			return injectFaults(ctx, s, *seed, *rate, *pace, *duration, *verbose)
		})
	case "quota":
		err = onStage(ctx, quotaSetup(*nodes), *level, *keep, func(s *stage) error { return measureQuota(ctx, s, rng, *duration) })
	case "rolling":
		err = onStage(ctx, rollingSetup(*nodes), *level, *keep, func(s *stage) error { return restartInTurn(ctx, s, rng, *rate, *rounds) })
	default:
		err = fmt.Errorf("there is no mode %q", *mode)
	}
	return err
}
