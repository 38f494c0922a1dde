// Package session runs the Kafka client that consumes events, produces their
// outcomes and commits both in one transaction. It hides what is peculiar to the
// client (docs/architecture.md lists it, with the tests) and knows nothing of
// calls: which offsets are completed is its caller's.
package session

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"enricher/fetch/mailbox"
	"enricher/producer"
)

// Config says how to open a Session.
type Config struct {
	// Kafka returns the options of a client: brokers, TLS, SASL, logger. Those that
	// Open sets itself win.
	Kafka          func() []kgo.Opt
	GroupOpts      []kgo.Opt // of the client that is the group's member: balancer, hooks
	Group          string    // consumer group, and prefix of the transactional id
	Instance       string    // unique among running processes, stable across restarts
	Started        time.Time // of this process; of two with one instance name, the later one stays
	Topics         []string  // input topics
	Start          kgo.Offset
	Heartbeat      time.Duration // default 1 s
	SessionTimeout time.Duration // how long the broker keeps a silent member; default 10 s
	MaxRecordBytes int32         // of one record batch; default producer.DefaultMaxRecordBytes
	Log            *zap.Logger
}

// Timing of the group.
const (
	// DefaultSessionTimeout is how long the partitions of a crashed instance wait
	// for their next owner. Much shorter, and a pause of the machine costs a member
	// its partitions.
	DefaultSessionTimeout = 10 * time.Second
	defaultHeartbeat      = time.Second
	// RebalanceTimeout leaves a member time to end a transaction that the broker
	// ends for it after producer.TransactionTimeout.
	RebalanceTimeout = 20 * time.Second
)

// Time limits of opening and closing: the first covers an InitProducerID that
// waits for a predecessor's transaction to end; the last two together stay below
// the default drain timeout, with room for the last transaction.
const (
	openTimeout  = 15 * time.Second
	leaveTimeout = 3 * time.Second
	closeTimeout = 5 * time.Second
)

const (
	// fetchMaxWait is how long a broker holds a fetch without data: the time
	// after which a resumed or new partition is fetched at the latest.
	fetchMaxWait = 500 * time.Millisecond
	// fetchMaxBytes bounds what one broker returns for one fetch, compressed.
	fetchMaxBytes = 16 << 20
)

// A Session is one life of the Kafka client. After an error of Commit or
// FetchCommitted it must be closed and another one opened.
//
// Poll and Commit must be called from one goroutine.
type Session struct {
	cfg Config
	gts *kgo.GroupTransactSession
	cl  *kgo.Client // of gts
	// admin is no member of the group: its requests are not seen by the member's
	// hooks.
	admin *kgo.Client

	topicIDs map[string][16]byte
	loaded   chan struct{} // closed once topicIDs is set

	assigned *mailbox.Mailbox[Offset] // from the client's goroutine to TakeAssignments

	// resetPartitions are those whose committed offset is of an older topic. Only
	// the client's goroutine uses it.
	resetPartitions map[string][]int32

	// revoked means that a partition was revoked since the last transaction, so
	// the client would abort the next one. The client's goroutine sets it.
	revoked atomic.Bool
}

// Open opens a session and initialises its transactional id, which ends a
// crashed predecessor's open transaction at once instead of after its timeout.
func Open(ctx context.Context, cfg Config) (*Session, error) {
	if cfg.SessionTimeout == 0 {
		cfg.SessionTimeout = DefaultSessionTimeout
	}
	if cfg.Heartbeat == 0 {
		cfg.Heartbeat = defaultHeartbeat
	}
	if cfg.MaxRecordBytes == 0 {
		cfg.MaxRecordBytes = producer.DefaultMaxRecordBytes
	}
	s := &Session{cfg: cfg, loaded: make(chan struct{}), assigned: mailbox.New[Offset]()}
	var err error
	if s.admin, err = kgo.NewClient(append(cfg.Kafka(), kgo.ClientID(clientID(cfg.Instance, cfg.Started)))...); err != nil {
		return nil, fmt.Errorf("configure Kafka client: %w", err)
	}
	gts, err := kgo.NewGroupTransactSession(slices.Concat([]kgo.Opt{
		kgo.Balancers(kgo.CooperativeStickyBalancer()), // cfg.GroupOpts may wrap it
	}, cfg.Kafka(), cfg.GroupOpts, []kgo.Opt{
		kgo.ClientID(clientID(cfg.Instance, cfg.Started)),
		kgo.ConsumerGroup(cfg.Group),
		kgo.ConsumeTopics(cfg.Topics...),
		kgo.ConsumeStartOffset(cfg.Start),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), // never skip what is still there
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxWait(fetchMaxWait),
		kgo.FetchMaxBytes(fetchMaxBytes),
		kgo.BlockRebalanceOnPoll(),
		kgo.OnOffsetsFetched(s.onOffsetsFetched),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, revoked map[string][]int32) {
			if len(revoked) > 0 {
				s.revoked.Store(true)
			}
		}),
		kgo.OnPartitionsLost(func(context.Context, *kgo.Client, map[string][]int32) { s.revoked.Store(true) }),
		kgo.AdjustFetchOffsetsFn(s.adjustOffsets),
		kgo.SessionTimeout(cfg.SessionTimeout),
		kgo.HeartbeatInterval(cfg.Heartbeat),
		kgo.RebalanceTimeout(RebalanceTimeout),
		kgo.TransactionalID(TransactionalID(cfg.Group, cfg.Instance)),
		kgo.TransactionTimeout(producer.TransactionTimeout),
		kgo.ProducerBatchMaxBytes(cfg.MaxRecordBytes),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)), // murmur2, as Java clients
	})...)
	if err != nil {
		s.admin.Close()
		return nil, fmt.Errorf("configure Kafka client: %w", err)
	}
	s.gts, s.cl = gts, gts.Client()

	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	if _, _, err = s.cl.ProducerID(ctx); err != nil {
		err = fmt.Errorf("initialise transactional id %q: %w", TransactionalID(cfg.Group, cfg.Instance), err)
	} else {
		err = s.loadTopicIDs(ctx)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// TransactionalID returns the transactional id of an instance of a group.
func TransactionalID(group, instance string) string { return group + "-" + instance }

// clientID carries the instance and the start, so that of two processes with
// the same instance each can find out which one started later.
func clientID(instance string, start time.Time) string {
	return instance + "@" + strconv.FormatInt(start.UnixNano(), 10)
}

// ParseClientID splits a member's client id into its instance and the start of
// its process (Unix ns); start is 0 for a member that is not an enricher.
func ParseClientID(id string) (instance string, start int64) {
	i := strings.LastIndexByte(id, '@')
	if i < 0 {
		return id, 0
	}
	start, _ = strconv.ParseInt(id[i+1:], 10, 64)
	return id[:i], start
}

func (s *Session) loadTopicIDs(ctx context.Context) error {
	topics, err := kadm.NewClient(s.cl).ListTopics(ctx, s.cfg.Topics...)
	if err != nil {
		return fmt.Errorf("read input topics: %w", err)
	}
	s.topicIDs = make(map[string][16]byte)
	for _, t := range s.cfg.Topics {
		if err := topics[t].Err; err != nil {
			return fmt.Errorf("input topic %q: %w", t, err)
		}
		s.topicIDs[t] = topics[t].ID
	}
	close(s.loaded)
	return nil
}

// TopicID returns the id that the topic had when the session was opened.
func (s *Session) TopicID(topic string) [16]byte { return s.topicIDs[topic] }

// Poll waits for events, at most limit of them; from here on rebalances wait for
// AllowRebalance. When ctx ends it returns what there is.
func (s *Session) Poll(ctx context.Context, limit int) kgo.Fetches {
	return s.gts.PollRecords(ctx, limit)
}

// PollFetched is Poll without a wait: it returns what the client has fetched.
func (s *Session) PollFetched(limit int) kgo.Fetches {
	return s.gts.PollRecords(nil, limit) //nolint:staticcheck // nil is how the client spells "do not wait"
}

// AllowRebalance lets a waiting rebalance proceed.
func (s *Session) AllowRebalance() { s.gts.AllowRebalance() }

// Pause stops fetching of a partition. A pause survives re-assignment.
func (s *Session) Pause(topic string, p int32) {
	s.cl.PauseFetchPartitions(map[string][]int32{topic: {p}})
}

// Resume undoes Pause.
func (s *Session) Resume(topic string, p int32) {
	s.cl.ResumeFetchPartitions(map[string][]int32{topic: {p}})
}

// PauseAll stops fetching of all input topics, independently of Pause.
func (s *Session) PauseAll() { s.cl.PauseFetchTopics(s.cfg.Topics...) }

// ResumeAll undoes PauseAll.
func (s *Session) ResumeAll() { s.cl.ResumeFetchTopics(s.cfg.Topics...) }

// NewerInstance reports whether the group has a live member with this instance's
// name that started later. Two such processes would fence each other for ever.
func (s *Session) NewerInstance(ctx context.Context) (bool, error) {
	groups, err := kadm.NewClient(s.cl).DescribeGroups(ctx, s.cfg.Group)
	if err != nil {
		return false, err
	}
	for _, m := range groups[s.cfg.Group].Members {
		if instance, start := ParseClientID(m.ClientID); instance == s.cfg.Instance && start > s.cfg.Started.UnixNano() {
			return true, nil
		}
	}
	return false, nil
}

// Close leaves the group and ends the session, within about eight seconds.
func (s *Session) Close() {
	defer s.admin.Close()
	s.AllowRebalance()
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	if err := s.cl.LeaveGroupContext(ctx); err != nil {
		s.cfg.Log.Debug("failed to leave the group", zap.Error(err)) // the broker removes the member later
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		s.gts.CloseAllowingRebalance()
		// The close polls what is left, which blocks rebalances, and could so block
		// a goroutine of the client, and the client with it, for ever.
		s.AllowRebalance()
	}()
	select {
	case <-closed:
	case <-time.After(closeTimeout):
		// When packets vanish, closing takes minutes. Nothing waits for this client,
		// so its goroutine may be left behind.
		s.cfg.Log.Warn("timed out closing the Kafka client, abandoning it")
	}
}
