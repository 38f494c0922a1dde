// Package consumer is what happens to an event: it is polled and admitted, its
// call is looked up, and its outcome is committed together with its offset.
//
// The conductor runs the loop, the tracker knows what is done, the lookups
// decide what an answer means. The package does not speak HTTP, knows no error
// code of the API, and leaves the making of records to producer.
package consumer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"enricher/fetch"
	"enricher/producer"
)

// Pauses between a failed session and the next one.
const (
	minRebuild = 500 * time.Millisecond
	maxRebuild = 10 * time.Second
	// A session that lived this long was a good one.
	goodSession = time.Minute
)

// Consumer is the pipeline of one instance. It outlives its Kafka sessions:
// cache, quota and gate stay, trackers and outcomes are those of a session.
type Consumer struct {
	cfg        Config
	log        *zap.Logger
	metrics    *Metrics
	outputs    producer.Outputs
	quota      *fetch.Quota
	cache      *fetch.Cache
	lookups    *lookups
	membership *membership
	inbox      inbox
	ends       ends
	started    time.Time

	enriched, skipped, cacheHits prometheus.Counter

	sometimes     rate.Sometimes
	lastInc       uint64 // only the conductor's
	metadataLimit int    // only the conductor's

	mu      sync.Mutex
	session string   // why there is no session; "" when there is one
	refused []string // partitions
	drain   bool
}

// fatalError is one that a new session would not mend.
type fatalError struct{ err error }

func (e *fatalError) Error() string { return e.err.Error() }
func (e *fatalError) Unwrap() error { return e.err }

// New checks the configuration and reports everything that is wrong with it at
// once. It connects to nothing.
func New(cfg Config) (*Consumer, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	c := &Consumer{
		cfg:     cfg,
		log:     cfg.Log,
		metrics: cfg.Metrics,
		outputs: producer.Outputs{
			EnrichedTopic: cfg.EnrichedTopic, DeadLetterTopic: cfg.DeadLetterTopic,
			SDKAppID: strconv.Itoa(cfg.SDKAppID), MaxRecordBytes: cfg.MaxRecordBytes,
		},
		quota:         fetch.NewQuota(cfg.APIRate),
		cache:         fetch.NewCache(cfg.CacheSize, cfg.CacheBytes, cfg.CacheTTL),
		inbox:         inbox{wait: cfg.CommitInterval},
		enriched:      cfg.Metrics.Events.WithLabelValues(outcomeEnriched, ""),
		skipped:       cfg.Metrics.Events.WithLabelValues(outcomeSkipped, ""),
		cacheHits:     cfg.Metrics.CacheRequests.WithLabelValues("hit"),
		sometimes:     rate.Sometimes{Interval: 10 * time.Second},
		metadataLimit: MaxMetadata,
		session:       "connecting to Kafka",
		started:       time.Now(),
	}
	c.membership = newMembership(c.quota, time.Now)
	c.lookups = newLookups(lookupsConfig{
		ask:           cfg.Client.Lookup,
		secretChanged: cfg.Client.SecretChanged,
		quota:         c.quota,
		lease:         c.live,
		cache:         c.cache,
		gate:          fetch.NewGate(cfg.FloodGuard),
		schedule:      cfg.Schedule,
		concurrency:   cfg.APIConcurrency,
		deliver:       c.inbox.put,
		metrics:       cfg.Metrics,
		log:           cfg.Log,
	})
	return c, nil
}

// live says whether this instance may call the API: its group has heard from
// it lately.
func (c *Consumer) live(now time.Time) bool {
	return c.membership.live(now, c.cfg.SessionTimeout)
}

// Run works until ctx is done, drains and returns nil; also when the drain
// takes longer than its budget, with whatever hangs left behind. It returns an
// error only if going on is no use.
func (c *Consumer) Run(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- c.run(ctx) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	c.mu.Lock()
	c.drain = true
	c.mu.Unlock()
	budget := time.NewTimer(c.cfg.DrainTimeout)
	defer budget.Stop()
	select {
	case err := <-done:
		return err
	case <-budget.C:
		c.log.Warn("drain budget used up; what is not committed will be done again by the next owner",
			zap.Duration("budget", c.cfg.DrainTimeout))
		return nil
	}
}

// run builds one session after the other.
func (c *Consumer) run(ctx context.Context) error {
	lookCtx, stop := context.WithCancel(context.Background())
	var lookups sync.WaitGroup
	lookups.Go(func() { c.lookups.run(lookCtx) })
	defer lookups.Wait()
	defer stop()

	pause := minRebuild
	for ctx.Err() == nil {
		start := time.Now()
		err := c.denied(c.runSession(ctx))
		var fatal *fatalError
		if err == nil || errors.As(err, &fatal) {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(start) > goodSession {
			pause = minRebuild
		}
		c.setSession(err.Error())
		c.log.Error("Kafka session failed; building a new one", zap.Error(err), zap.Duration("in", pause))
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + rand.N(pause/2)):
		}
		pause = min(2*pause, maxRebuild)
		c.metrics.Rebuilds.Inc()
	}
	return nil
}

// runSession runs one session from its opening to its close.
func (c *Consumer) runSession(ctx context.Context) error {
	c.membership.reset()
	joining := &joining{GroupBalancer: balancer{kgo.CooperativeStickyBalancer(), c.membership}}
	opts := append(c.cfg.Kafka(),
		kgo.Balancers(joining),
		kgo.WithHooks(c.membership))
	s, err := producer.Open(ctx, producer.Config{
		Opts:           opts,
		Group:          c.cfg.Group,
		Instance:       c.cfg.Instance,
		Started:        c.started,
		Topics:         c.cfg.InputTopics,
		Start:          c.cfg.Start.offset(),
		Obsolete:       Obsolete,
		Heartbeat:      c.cfg.Heartbeat,
		SessionTimeout: c.cfg.SessionTimeout,
		MaxRecordBytes: int32(c.cfg.MaxRecordBytes),
		Log:            c.log,
	})
	if err != nil {
		return err
	}
	defer s.Close()
	// After the close nobody of this session asks for calls any more, and its
	// partitions are given up.
	defer c.membership.reset()

	keepCtx, stop := context.WithCancel(context.Background())
	var keeper sync.WaitGroup
	keeper.Go(func() { c.keep(keepCtx, s) })
	defer keeper.Wait()
	defer stop()

	c.setSession("")
	c.log.Info("Kafka session opened", zap.String("group", c.cfg.Group),
		zap.String("transactional_id", producer.TransactionalID(c.cfg.Group, c.cfg.Instance)))
	cond := &conductor{
		Consumer: c, session: s, joining: joining,
		parts: make(map[topicPartition]*partition),
		live:  make(map[uint64]*partition),
	}
	err = cond.run(ctx)
	if err != nil && producer.IsFenced(err) {
		err = c.judgeFence(s, err)
	}
	return err
}

// judgeFence tells a later process with our instance, to which this one gives
// way, from a fence that a new session overcomes.
func (c *Consumer) judgeFence(s *producer.Session, fence error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	later, err := s.LaterTwin(ctx)
	if err != nil {
		return errors.Join(fence, fmt.Errorf("look for another process with instance %q: %w", c.cfg.Instance, err))
	}
	if later {
		return &fatalError{fmt.Errorf("another process with instance %q started later and took over; "+
			"give every running process an --instance of its own: %w", c.cfg.Instance, fence)}
	}
	return fence
}

// keep keeps what must be asked of the broker up to date: the number of all
// partitions, before the quota's share grows, and where their logs end.
func (c *Consumer) keep(ctx context.Context, s *producer.Session) {
	const every = 10 * time.Second
	timer := time.NewTimer(every)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.membership.grown:
		case <-timer.C:
		}
		next := every
		ask, cancel := context.WithTimeout(ctx, 5*time.Second)
		ends, err := s.Ends(ask)
		cancel()
		if err == nil {
			c.ends.set(ends)
			n := 0
			for _, t := range ends {
				n += len(t)
			}
			c.membership.counted(n)
		} else if ctx.Err() == nil {
			c.sometimes.Do(func() { c.log.Warn("cannot count partitions; the share of the quota does not grow", zap.Error(err)) })
			next = time.Second
		}
		timer.Reset(next)
	}
}

func (c *Consumer) setSession(why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.session = why
}

// Ready says why this instance is not ready; nothing when it is.
func (c *Consumer) Ready() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var why []string
	if c.drain {
		why = append(why, "draining: the process is about to end")
	}
	switch {
	case c.session != "":
		why = append(why, "kafka: "+c.session)
	case !c.live(time.Now()):
		why = append(why, fmt.Sprintf("kafka: the group %q has not heard from this instance lately; lookups wait", c.cfg.Group))
	}
	if _, text, shut := c.lookups.gateShut(); shut {
		why = append(why, "api: "+text)
	}
	return append(why, c.refused...)
}

// ends is where the logs of the input partitions end, as last asked.
type ends struct {
	mu sync.Mutex
	m  map[string]map[int32]int64
}

func (e *ends) set(m map[string]map[int32]int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.m = m
}

// of is 0 for a partition that was not asked about.
func (e *ends) of(tp topicPartition) int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.m[tp.topic][tp.partition]
}
