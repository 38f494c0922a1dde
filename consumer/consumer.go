package consumer

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"enricher/consumer/progress"
	"enricher/consumer/session"
	"enricher/fetch/lookup"
	"enricher/fetch/mailbox"
	"enricher/producer"
	"enricher/schemas"
)

// Pauses between a failed session and the next one: short enough that a restart
// of one broker costs little, long enough not to add load to a cluster in trouble.
const (
	minRestartPause = 500 * time.Millisecond
	maxRestartPause = 10 * time.Second
	// A session that lasted this long was healthy: the pauses start over.
	healthySession = time.Minute
)

// logInterval is between two log lines of a cause that repeats.
const logInterval = 10 * time.Second

// Consumer is the pipeline of one instance. It outlives its Kafka sessions:
// cache, rate limiter and breaker stay; trackers and outcomes belong to a session.
type Consumer struct {
	cfg       Config
	log       *zap.Logger
	metrics   *Metrics
	records   producer.RecordBuilder
	limiter   *lookup.Limiter
	cache     *lookup.Cache
	scheduler *lookup.Scheduler
	lease     *sessionLease
	errors    clientErrors
	scout     *scout
	started   time.Time

	enriched, skipped, cacheHits prometheus.Counter
	sources                      map[schemas.RecordSource]prometheus.Counter // of enriched records

	// pollWarning and sizeWarning limit the log lines of causes that repeat.
	pollWarning, sizeWarning rate.Sometimes
	lastAssignment           uint64 // only the conductor's
	metadataLimit            int    // only the conductor's

	mu         sync.Mutex
	conditions conditions
	lastTurn   time.Time // of the main loop
}

// New checks the configuration and reports everything that is wrong with it at
// once. It connects to nothing.
func New(cfg Config) (*Consumer, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	limiter := lookup.NewLimiter(cfg.APIRate > 0)
	cache := lookup.NewCache(cfg.CacheSize, cfg.CacheBytes, cfg.CacheTTL)
	lease := &sessionLease{}
	scout := &scout{delay: cfg.Retry.LookupDelay}
	c := &Consumer{
		cfg:     cfg,
		log:     cfg.Log,
		metrics: cfg.Metrics,
		records: producer.RecordBuilder{
			EnrichedTopic: cfg.EnrichedTopic, DeadLetterTopic: cfg.DeadLetterTopic, Group: cfg.Group,
			SDKAppID: strconv.Itoa(cfg.SDKAppID), MaxRecordBytes: cfg.MaxRecordBytes,
			CloudEvents: cfg.CloudEvents, CallEndTimestamps: cfg.CallEndTimestamps,
		},
		errors:  clientErrors{count: cfg.Metrics.KafkaErrors},
		limiter: limiter,
		cache:   cache,
		lease:   lease,
		scout:   scout,
		scheduler: lookup.NewScheduler(lookup.Config{
			API:                       cfg.Client,
			Lease:                     lease,
			Limiter:                   limiter,
			Cache:                     cache,
			Retry:                     cfg.Retry,
			Encode:                    cfg.Encode,
			MaxConsecutiveDeadLetters: cfg.MaxConsecutiveDeadLetters,
			Scout:                     scout,
			Concurrency:               cfg.APIConcurrency,
			Metrics:                   cfg.Metrics.Lookup,
			Log:                       cfg.Log,
		}),
		sources: map[schemas.RecordSource]prometheus.Counter{
			schemas.FromAPI:   cfg.Metrics.RecordSources.WithLabelValues(string(schemas.FromAPI)),
			schemas.FromEvent: cfg.Metrics.RecordSources.WithLabelValues(string(schemas.FromEvent)),
		},
		enriched:      cfg.Metrics.Events.WithLabelValues(outcomeEnriched, ""),
		skipped:       cfg.Metrics.Events.WithLabelValues(outcomeSkipped, ""),
		cacheHits:     cfg.Metrics.Lookup.CacheResults.WithLabelValues(lookup.CacheHit.String()),
		pollWarning:   rate.Sometimes{Interval: logInterval},
		sizeWarning:   rate.Sometimes{Interval: logInterval},
		metadataLimit: progress.MaxOffsetMetadataBytes,
		conditions:    conditions{session: "connecting"},
		started:       time.Now(),
		lastTurn:      time.Now(),
	}
	return c, nil
}

// Run works until ctx is done, drains and returns nil. It also returns nil when
// the drain exceeds Config.DrainTimeout, and then leaves goroutines behind that
// wait for a broker or the API. It returns an error only if a new session would
// not fix it.
func (c *Consumer) Run(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- c.runSessions(ctx) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	c.setConditions(func(s *conditions) { s.draining = true })
	timeout := time.NewTimer(c.cfg.DrainTimeout)
	defer timeout.Stop()
	select {
	case err := <-done:
		return err
	case <-timeout.C:
		c.log.Warn("drain timeout exceeded; uncommitted events will be reprocessed",
			zap.Duration("drain_timeout", c.cfg.DrainTimeout))
		return nil
	}
}

// runSessions runs one session after another.
func (c *Consumer) runSessions(ctx context.Context) error {
	lookupCtx, stop := context.WithCancel(context.Background())
	var scheduler sync.WaitGroup
	scheduler.Go(func() { c.scheduler.Run(lookupCtx) })
	defer scheduler.Wait()
	defer stop()

	pause := minRestartPause
	for ctx.Err() == nil {
		c.turn()
		start := time.Now()
		err := c.explainAuthError(c.runSession(ctx))
		var fatal *fatalError
		if err == nil || errors.As(err, &fatal) {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(start) > healthySession {
			pause = minRestartPause
		}
		c.setSession(err.Error())
		wait := pause/2 + rand.N(pause/2)
		c.log.Error("Kafka session failed, restarting", zap.Error(err), zap.Duration("retry_in", wait))
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		pause = min(2*pause, maxRestartPause)
		c.metrics.SessionRestarts.Inc()
	}
	return nil
}

// runSession runs one session from its opening to its close.
func (c *Consumer) runSession(ctx context.Context) error {
	m := newMembership(rateLimit{c.cfg.APIRate, c.cfg.Client.Timeout(), c.cfg.SessionTimeout}, c.limiter, time.Now, c.log)
	c.lease.current.Store(m)
	s, err := session.Open(ctx, session.Config{
		Kafka:            func() []kgo.Opt { return append(c.cfg.Kafka(), kgo.WithHooks(&c.errors)) },
		GroupOpts:        []kgo.Opt{kgo.Balancers(m), kgo.WithHooks(m)},
		Group:            c.cfg.Group,
		Instance:         c.cfg.Instance,
		Started:          c.started,
		Topics:           c.cfg.InputTopics,
		Reset:            c.cfg.AutoOffsetReset,
		FetchBufferBytes: c.cfg.FetchBufferBytes,
		Heartbeat:        c.cfg.Heartbeat,
		SessionTimeout:   c.cfg.SessionTimeout,
		MaxRecordBytes:   int32(c.cfg.MaxRecordBytes),
		Log:              c.log,
	})
	if err != nil {
		m.close()
		return err
	}
	defer s.Close()
	defer func() {
		// Others begin requests when this instance has left the group.
		time.Sleep(m.close())
	}()

	m.session.Store(s)
	c.setSession("")
	c.log.Info("Kafka session opened", zap.String("group", c.cfg.Group),
		zap.String("transactional_id", session.TransactionalID(c.cfg.Group, c.cfg.Instance)))
	cond := &conductor{
		Consumer: c, session: s, membership: m,
		parts:        make(map[topicPartition]*partition),
		byAssignment: make(map[uint64]*partition),
		waiting:      make(map[*partition]struct{}),
		unavailable:  make(map[string]error),
		topicChanges: mailbox.New[session.TopicChange](),
	}
	background, stop := context.WithCancel(context.Background())
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer stop()
	helpers.Go(func() { cond.refreshEndOffsets(background, s) })
	helpers.Go(func() { m.heartbeats(background, s) })
	helpers.Go(func() { s.WatchTopics(background, func(t session.TopicChange) { cond.topicChanges.Put(t) }) })
	err = cond.run(ctx)
	if err != nil && producer.IsFenced(err) {
		err = c.classifyFencing(s, err)
	}
	return err
}
