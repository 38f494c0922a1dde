// Package session runs the Kafka client that consumes events, produces their
// outcomes and commits both in one transaction. It hides what is peculiar to the
// client (docs/architecture.md lists it, with the tests) and knows nothing of
// calls: which offsets are completed is its caller's.
package session

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
	"go.uber.org/zap"

	"enricher/fetch/mailbox"
	"enricher/producer"
)

// Config says how to open a Session.
type Config struct {
	// Kafka returns the options of a client: brokers, TLS, SASL, logger. Those that
	// Open sets itself win.
	Kafka          func() []kgo.Opt
	GroupOpts      []kgo.Opt     // of the client that is the group's member: balancer, hooks
	Group          string        // consumer group, and prefix of the transactional id
	Instance       string        // unique among running processes, stable across restarts
	Started        time.Time     // of this process; of two with one instance name, the later one stays
	Topics         []string      // input topics
	Reset          Reset         // where to start without a committed offset
	Heartbeat      time.Duration // default 1 s
	SessionTimeout time.Duration // how long the broker keeps a silent member; default 10 s
	MaxRecordBytes int32         // of one record batch; default producer.DefaultMaxRecordBytes
	// FetchBufferBytes bounds the fetched records that the client holds, unpacked;
	// default 32 MiB.
	FetchBufferBytes int64
	Log              *zap.Logger
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

// DefaultFetchBufferBytes is twice what the client needs to keep up with the
// fastest cache.
const DefaultFetchBufferBytes = 32 << 20

const (
	// maxBufferedRecords is above the largest transaction: Produce would wait for
	// room otherwise, which only the transaction's end makes.
	maxBufferedRecords = 1 << 20
	// deliveryTimeout is after how long a record that its partition does not accept
	// is given up: the partition has no leader, for example. It is well below the
	// transaction's own timeout.
	deliveryTimeout = 5 * time.Second

	// fetchMaxWait is how long a broker holds a fetch without data: the time
	// after which a resumed or new partition is fetched at the latest.
	fetchMaxWait = 500 * time.Millisecond
	// fetchMaxBytes and fetchMaxPartitionBytes bound what one broker returns for
	// one fetch, compressed. At 2 MiB the client is still several times faster than
	// the rate limit of the API.
	fetchMaxBytes          = 2 << 20
	fetchMaxPartitionBytes = 128 << 10
)

// A Session is one life of the Kafka client. After an error of Commit or
// FetchCommitted it must be closed and another one opened.
//
// Poll and Commit must be called from one goroutine.
type Session struct {
	cfg Config
	gts *kgo.GroupTransactSession
	cl  *kgo.Client
	// admin makes the requests of our own. It is no member of the group, and it may
	// require stable offsets, which cl may not: see Open.
	admin *kgo.Client

	unanswered producer.Unanswered // of cl

	// root ends everything that cl does. Without it, some of its calls never return.
	root   context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup // goroutines of Resolve

	ready chan struct{} // closed once topicIDs, gts and cl are set

	mu       sync.Mutex
	topicIDs map[string][16]byte
	serial   uint64                    // of the last assignment
	serials  map[topicPartition]uint64 // of the partitions assigned

	assigned  *mailbox.Mailbox[Assignment] // from other goroutines to TakeAssignments
	seekEpoch int32                        // negative; see Seek

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
	if cfg.FetchBufferBytes == 0 {
		cfg.FetchBufferBytes = DefaultFetchBufferBytes
	}
	if cfg.MaxRecordBytes == 0 {
		cfg.MaxRecordBytes = producer.DefaultMaxRecordBytes
	}
	s := &Session{
		cfg: cfg, ready: make(chan struct{}), seekEpoch: -1, assigned: mailbox.New[Assignment](),
		topicIDs: make(map[string][16]byte), serials: make(map[topicPartition]uint64),
	}
	s.root, s.cancel = context.WithCancel(context.Background())
	admin, err := kgo.NewClient(append(cfg.Kafka(), kgo.ClientID(clientID(cfg.Instance, cfg.Started)), kgo.WithContext(s.root))...)
	if err != nil {
		return nil, fmt.Errorf("configure Kafka client: %w", err)
	}
	s.admin = admin

	// This version of OffsetFetch cannot require stable offsets. The client would
	// wait for them, all partitions for the slowest; adjustOffsets asks for each.
	versions := kversion.Stable()
	versions.SetMaxKeyVersion(int16(kmsg.OffsetFetch), 6)

	budget, err := newFetchBudget(cfg.FetchBufferBytes)
	if err != nil {
		return nil, err
	}
	gts, err := kgo.NewGroupTransactSession(slices.Concat([]kgo.Opt{
		kgo.Balancers(kgo.CooperativeStickyBalancer()), // cfg.GroupOpts may wrap it
	}, cfg.Kafka(), cfg.GroupOpts, []kgo.Opt{
		kgo.WithContext(s.root),
		kgo.MaxVersions(versions),
		kgo.ClientID(clientID(cfg.Instance, cfg.Started)),
		kgo.ConsumerGroup(cfg.Group),
		kgo.ConsumeTopics(cfg.Topics...),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), // never skip what is still there
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // a tracker has to pass the end of a transaction
		kgo.FetchMaxWait(fetchMaxWait),
		kgo.FetchMaxBytes(fetchMaxBytes),
		kgo.FetchMaxPartitionBytes(fetchMaxPartitionBytes),
		kgo.WithDecompressor(budget),
		kgo.WithHooks(budget, &s.unanswered),
		kgo.BlockRebalanceOnPoll(),
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
		kgo.MaxBufferedRecords(maxBufferedRecords),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)), // murmur2, as Java clients
	})...)
	if err != nil {
		s.admin.Close()
		return nil, fmt.Errorf("configure Kafka client: %w", err)
	}
	s.gts, s.cl = gts, gts.Client()
	budget.client.Store(s.cl)

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
	close(s.ready)
	return s, nil
}

// TransactionalID returns the transactional id of an instance of a group. No two
// pairs share one, because the instance's part contains no slash: otherwise two
// processes of different groups could fence each other for ever.
func TransactionalID(group, instance string) string { return group + "/" + url.PathEscape(instance) }

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

// loadTopicIDs reads the ids of the input topics. A topic that cannot be read has
// none; its partitions are not assigned.
func (s *Session) loadTopicIDs(ctx context.Context) error {
	topics, err := kadm.NewClient(s.admin).ListTopics(ctx, s.cfg.Topics...)
	if err != nil {
		return fmt.Errorf("read input topics: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.cfg.Topics {
		if topics[t].Err == nil {
			s.topicIDs[t] = topics[t].ID
		}
	}
	return nil
}

// TopicID returns the id that the topic had when it was last read.
func (s *Session) TopicID(topic string) [16]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.topicIDs[topic]
}

// Poll waits for events, at most limit of them; from here on rebalances wait for
// AllowRebalance. When ctx ends it returns what there is.
func (s *Session) Poll(ctx context.Context, limit int) kgo.Fetches {
	return s.gts.PollRecords(ctx, limit)
}

// PollFetched is Poll without a wait: it returns what the client has fetched.
func (s *Session) PollFetched(limit int) kgo.Fetches {
	return s.gts.PollRecords(nil, limit) //nolint:staticcheck // nil is how the client spells "do not wait"
}

// BlockRebalance makes rebalances wait for AllowRebalance, as a poll does that
// returns something. Any goroutine may call it.
func (s *Session) BlockRebalance() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s.gts.PollRecords(ctx, 1) // returns at once
}

// AllowRebalance lets a waiting rebalance proceed.
func (s *Session) AllowRebalance() { s.gts.AllowRebalance() }

// Pause stops fetching of a partition. A pause survives re-assignment.
func (s *Session) Pause(topic string, p int32) {
	s.PausePartitions(map[string][]int32{topic: {p}})
}

// PausePartitions is Pause for many partitions, which cost as much as one.
func (s *Session) PausePartitions(parts map[string][]int32) {
	if len(parts) > 0 {
		s.cl.PauseFetchPartitions(parts)
	}
}

// Resume undoes Pause.
func (s *Session) Resume(topic string, p int32) {
	s.ResumePartitions(map[string][]int32{topic: {p}})
}

// ResumePartitions undoes PausePartitions.
func (s *Session) ResumePartitions(parts map[string][]int32) {
	if len(parts) > 0 {
		s.cl.ResumeFetchPartitions(parts)
	}
}

// PauseAll stops fetching of all input topics, independently of Pause.
func (s *Session) PauseAll() { s.cl.PauseFetchTopics(s.cfg.Topics...) }

// ResumeAll undoes PauseAll.
func (s *Session) ResumeAll() { s.cl.ResumeFetchTopics(s.cfg.Topics...) }

// NewerInstance reports whether the group has a live member with this instance's
// name that started later. Two such processes would fence each other for ever.
func (s *Session) NewerInstance(ctx context.Context) (bool, error) {
	groups, err := kadm.NewClient(s.admin).DescribeGroups(ctx, s.cfg.Group)
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
	s.AllowRebalance()
	member, _ := s.cl.GroupMetadata()
	s.cancel() // a client that waits for a broker would not close
	s.tasks.Wait()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		s.gts.CloseAllowingRebalance()
		// The close polls what is left, which blocks rebalances, and could so block
		// a goroutine of the client, and the client with it, for ever.
		s.AllowRebalance()
		s.admin.Close()
	}()
	select {
	case <-closed:
	case <-time.After(closeTimeout):
		// Nothing waits for this client, so its goroutines may be left behind.
		s.cfg.Log.Warn("timed out closing the Kafka client, abandoning it")
	}
	s.leave(member)
}

// leave removes this member from its group, so that its partitions do not wait
// for the session timeout. The closed client cannot: its context is done.
func (s *Session) leave(member string) {
	if member == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	cl, err := kgo.NewClient(s.cfg.Kafka()...)
	if err != nil {
		return
	}
	defer cl.Close()
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group, req.MemberID = s.cfg.Group, member
	m := kmsg.NewLeaveGroupRequestMember()
	m.MemberID = member
	req.Members = append(req.Members, m)
	if _, err := req.RequestWith(ctx, cl); err != nil {
		s.cfg.Log.Debug("failed to leave the group", zap.Error(err)) // the broker removes the member later
	}
}
