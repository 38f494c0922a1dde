// Command simulator simulates the call-record API and a producer of call-ended
// events, until it is interrupted. The compose file runs it. It does not check what
// becomes of the events; `enricher demo` does.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/time/rate"

	"enricher/consumer/audit/audittest"
	"enricher/fetch/fetchtest"
)

const (
	// calls is how many different calls there are. The simulated API keeps every
	// CallId that it was asked for, so their number must be limited. At the default
	// rate a CallId comes again after two hours, when no cache has it any more
	// (--cache-ttl is one hour).
	calls = 1_000_000
	// apiRate is how many requests per second the real API allows an app.
	apiRate = 200
	// maxDelay is longer than the default of --lookup-delay, so that some lookups of
	// late records need several requests.
	maxDelay = 25 * time.Second
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "address of the simulated API")
	brokers := flag.String("brokers", "127.0.0.1:9092", "Kafka bootstrap servers, comma-separated")
	topic := flag.String("topic", "call-ended", "topic of the events")
	perSecond := flag.Float64("rate", 150, "events per second; 0: only serve the API")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := simulate(ctx, *listen, strings.Split(*brokers, ","), *topic, *perSecond, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "simulator:", err)
		os.Exit(1)
	}
}

// simulate serves the API and produces events until ctx is done.
func simulate(ctx context.Context, listen string, brokers []string, topic string, perSecond float64, out io.Writer) error {
	if perSecond < 0 {
		return errors.New("-rate: must not be negative")
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("-listen: %w", err)
	}
	api := fetchtest.New(fetchtest.Config{
		Rate:    apiRate,
		Latency: func(callID string) time.Duration { return time.Duration(20+2*len(callID)) * time.Millisecond },
		Misbehave: []fetchtest.Chance{
			{Percent: 1, Fault: fetchtest.Named("call_backend_busy")},
			{Percent: 0.5, Fault: fetchtest.BadGateway()},
		},
	})
	server := http.Server{Handler: api, ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	_, _ = fmt.Fprintf(out, "API at http://%v, %v events per second to %s\n", l.Addr(), perSecond, topic)

	if perSecond > 0 {
		err = produce(ctx, api, brokers, topic, perSecond)
	} else {
		<-ctx.Done()
	}
	err = errors.Join(err, server.Close())
	if e := <-served; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	return err
}

// produce produces events until ctx is done, or one could not be produced.
func produce(ctx context.Context, api *fetchtest.API, brokers []string, topic string, perSecond float64) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		return fmt.Errorf("-brokers: %w", err)
	}
	defer cl.Close()
	feeder := audittest.Feeder{Client: cl, Topic: topic}
	events := audittest.Generator{
		API: api, Rand: rand.New(rand.NewPCG(rand.Uint64(), 0)), Calls: calls, MaxDelay: maxDelay,
		Mix: audittest.Mix{Malformed: 0.5, NeverFound: 0.5, OtherCallback: 2, Late: 7, Repeated: 20},
	}
	pace := rate.NewLimiter(rate.Limit(perSecond), 1)
	for pace.Wait(ctx) == nil {
		if err := feeder.Err(); err != nil {
			return err
		}
		feeder.Send(ctx, audittest.AnyPartition, events.Next())
	}
	return nil
}
