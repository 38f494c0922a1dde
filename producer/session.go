package producer

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
)

// Config says how to build a Session.
type Config struct {
	Opts     []kgo.Opt // brokers, TLS, SASL, logger, hooks
	Group    string    // consumer group, and prefix of the transactional id
	Instance string    // unique per running process, stable across restarts
	Started  time.Time // when this process did; of two with one instance, the later one stays
	Topics   []string  // input topics
	Start    kgo.Offset
	// Obsolete says of a committed offset that it is one of a topic that was
	// replaced by the one with this id. It counts as none, and the partition is
	// read from its start.
	Obsolete  func(topic [16]byte, o Offset) bool
	Heartbeat time.Duration // default 1 s
	// SessionTimeout is how long the broker keeps a silent member; default 10 s.
	SessionTimeout time.Duration
	// MaxRecordBytes bounds one record batch; default DefaultMaxRecordBytes,
	// which is the broker's own default for message.max.bytes.
	MaxRecordBytes int32
	Log            *zap.Logger
}

// Timing of the group and of transactions. A transaction that is left open
// holds back readers and the next owner, so its time-out is short; ours last a
// few tens of milliseconds.
const (
	DefaultSessionTimeout = 10 * time.Second
	TransactionTimeout    = 10 * time.Second
	defaultHeartbeat      = time.Second
	rebalanceTimeout      = 20 * time.Second
	openTimeout           = 15 * time.Second
	leaveTimeout          = 3 * time.Second
	closeTimeout          = 5 * time.Second
)

// DefaultMaxRecordBytes is the largest record batch that is produced unless
// Config.MaxRecordBytes says otherwise.
const DefaultMaxRecordBytes = 1048588

// Offset is a committed offset with its metadata.
type Offset struct {
	Topic     string
	Partition int32
	Offset    int64 // −1: the group has none
	Metadata  string
}

// A Session is one life of the Kafka client that consumes events, produces
// their outcomes and commits both in one transaction. After an error of Commit
// or ReadBack it is of no more use: close it and open another one.
//
// Poll and Commit must be called from one goroutine.
type Session struct {
	cfg Config
	gts *kgo.GroupTransactSession
	cl  *kgo.Client

	topicIDs map[string][16]byte
	loaded   chan struct{} // closed once topicIDs is there

	mu     sync.Mutex
	births []Offset // appended by the client's goroutine, taken by Births

	anew map[string][]int32 // partitions with an obsolete offset; only the client's goroutine

	// taken: a partition was taken away since the last transaction, so the
	// client would abort the next one. Set by the client's goroutine.
	taken atomic.Bool
}

// Open builds a session and initialises its transactional id, which ends a
// dead predecessor's open transaction at once instead of after its time-out.
func Open(ctx context.Context, cfg Config) (*Session, error) {
	if cfg.SessionTimeout == 0 {
		cfg.SessionTimeout = DefaultSessionTimeout
	}
	if cfg.Heartbeat == 0 {
		cfg.Heartbeat = defaultHeartbeat
	}
	if cfg.MaxRecordBytes == 0 {
		cfg.MaxRecordBytes = DefaultMaxRecordBytes
	}
	s := &Session{cfg: cfg, loaded: make(chan struct{})}
	gts, err := kgo.NewGroupTransactSession(append([]kgo.Opt{
		kgo.Balancers(kgo.CooperativeStickyBalancer()), // cfg.Opts may wrap it
	}, append(cfg.Opts[:len(cfg.Opts):len(cfg.Opts)],
		kgo.ClientID(clientID(cfg.Instance, cfg.Started)),
		kgo.ConsumerGroup(cfg.Group),
		kgo.ConsumeTopics(cfg.Topics...),
		kgo.ConsumeStartOffset(cfg.Start),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), // never skip what is still there
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxWait(500*time.Millisecond),
		kgo.FetchMaxBytes(16<<20),
		kgo.BlockRebalanceOnPoll(),
		kgo.OnOffsetsFetched(s.onOffsetsFetched),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, revoked map[string][]int32) {
			if len(revoked) > 0 {
				s.taken.Store(true)
			}
		}),
		kgo.OnPartitionsLost(func(context.Context, *kgo.Client, map[string][]int32) { s.taken.Store(true) }),
		kgo.AdjustFetchOffsetsFn(s.adjustOffsets),
		kgo.SessionTimeout(cfg.SessionTimeout),
		kgo.HeartbeatInterval(cfg.Heartbeat),
		kgo.RebalanceTimeout(rebalanceTimeout),
		kgo.TransactionalID(TransactionalID(cfg.Group, cfg.Instance)),
		kgo.TransactionTimeout(TransactionTimeout),
		kgo.ProducerBatchMaxBytes(cfg.MaxRecordBytes),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)), // murmur2, as Java clients
	)...)...)
	if err != nil {
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

// TransactionalID is the transactional id of an instance of a group.
func TransactionalID(group, instance string) string { return group + "-" + instance }

// clientID carries the instance and the start, so that of two processes with
// the same instance each can tell which one came later.
func clientID(instance string, start time.Time) string {
	return instance + "@" + strconv.FormatInt(start.UnixNano(), 10)
}

// ParseClientID reads a member's client id: its instance, and when its process
// started (Unix ns); start is 0 for a member that is none of ours.
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

// TopicID is the id that the topic had when the session was opened.
func (s *Session) TopicID(topic string) [16]byte { return s.topicIDs[topic] }

// Client is the client underneath, for requests of one's own.
func (s *Session) Client() *kgo.Client { return s.cl }

// Poll waits for events, at most max of them; from here rebalances wait for
// AllowRebalance. When ctx ends it returns what there is.
func (s *Session) Poll(ctx context.Context, max int) kgo.Fetches { return s.gts.PollRecords(ctx, max) }

// PollFetched is Poll without a wait: it returns what the client holds already.
func (s *Session) PollFetched(max int) kgo.Fetches {
	return s.gts.PollRecords(nil, max) //nolint:staticcheck // nil is how the client spells "do not wait"
}

// AllowRebalance lets a waiting rebalance go on.
func (s *Session) AllowRebalance() { s.gts.AllowRebalance() }

// Held lists the partitions that the client holds: those with a committed
// offset, and those of which a record was polled.
func (s *Session) Held() map[string]map[int32]kgo.EpochOffset { return s.cl.CommittedOffsets() }

// Births takes the partitions newly assigned since the last call, with what
// the group has committed for them. Ask Held first: a partition that is
// missing there and comes back here is held again.
func (s *Session) Births() []Offset {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.births
	s.births = nil
	return b
}

// eachBirth looks at the births without taking them.
func (s *Session) eachBirth(fn func(Offset)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.births {
		fn(b)
	}
}

func (s *Session) onOffsetsFetched(ctx context.Context, _ *kgo.Client, resp *kmsg.OffsetFetchResponse) error {
	select {
	case <-s.loaded: // the client joins while Open is at work
	case <-ctx.Done():
		return ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.anew = make(map[string][]int32)
	add := func(topic string, p int32, offset int64, metadata *string, code int16) {
		if code != 0 { // the client asks again
			return
		}
		b := Offset{Topic: topic, Partition: p, Offset: offset}
		if metadata != nil {
			b.Metadata = *metadata
		}
		if s.cfg.Obsolete != nil && s.cfg.Obsolete(s.topicIDs[topic], b) {
			s.cfg.Log.Warn("topic was created anew; its committed offset means nothing and the partition is read from its start",
				zap.String("topic", topic), zap.Int32("partition", p), zap.Int64("committed", offset))
			b.Offset, b.Metadata = -1, ""
			s.anew[topic] = append(s.anew[topic], p)
		}
		s.births = append(s.births, b)
	}
	if len(resp.Groups) > 0 { // the same may stand in Topics as well
		for _, g := range resp.Groups {
			for _, t := range g.Topics {
				topic := t.Topic
				if topic == "" {
					topic = s.topicName(t.TopicID)
				}
				for _, p := range t.Partitions {
					add(topic, p.Partition, p.Offset, p.Metadata, p.ErrorCode)
				}
			}
		}
		return nil
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			add(t.Topic, p.Partition, p.Offset, p.Metadata, p.ErrorCode)
		}
	}
	return nil
}

// adjustOffsets is called after onOffsetsFetched, with the same offsets.
func (s *Session) adjustOffsets(_ context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	for topic, ps := range s.anew {
		for _, p := range ps {
			if _, ok := offsets[topic][p]; ok {
				offsets[topic][p] = kgo.NewOffset().AtStart()
			}
		}
	}
	return offsets, nil
}

func (s *Session) topicName(id [16]byte) string {
	for t, i := range s.topicIDs {
		if i == id {
			return t
		}
	}
	return ""
}

// Pause stops fetching of a partition; a pause survives re-assignment.
func (s *Session) Pause(topic string, p int32) {
	s.cl.PauseFetchPartitions(map[string][]int32{topic: {p}})
}

// Resume undoes Pause.
func (s *Session) Resume(topic string, p int32) {
	s.cl.ResumeFetchPartitions(map[string][]int32{topic: {p}})
}

// PauseAll stops fetching of all input topics, whatever Pause says of one of
// their partitions.
func (s *Session) PauseAll() { s.cl.PauseFetchTopics(s.cfg.Topics...) }

// ResumeAll undoes PauseAll.
func (s *Session) ResumeAll() { s.cl.ResumeFetchTopics(s.cfg.Topics...) }

// IsFenced says whether err means that another producer took over the
// transactional id.
func IsFenced(err error) bool {
	return errors.Is(err, kerr.ProducerFenced) || errors.Is(err, kerr.InvalidProducerEpoch) || errors.Is(err, kerr.FencedInstanceID)
}

// LaterTwin looks in the group for a live member of the same instance that
// started later than this process. Two such processes would fence
// each other for ever.
func (s *Session) LaterTwin(ctx context.Context) (bool, error) {
	groups, err := kadm.NewClient(s.cl).DescribeGroups(ctx, s.cfg.Group)
	if err != nil {
		return false, err
	}
	_, mine := ParseClientID(s.cl.OptValue(kgo.ClientID).(string))
	for _, m := range groups[s.cfg.Group].Members {
		if instance, start := ParseClientID(m.ClientID); instance == s.cfg.Instance && start > mine {
			return true, nil
		}
	}
	return false, nil
}

// Close leaves the group and ends the session, within about eight seconds.
func (s *Session) Close() {
	s.AllowRebalance()
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	if err := s.cl.LeaveGroupContext(ctx); err != nil {
		s.cfg.Log.Debug("could not leave the group; the broker will notice by itself", zap.Error(err))
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		s.gts.CloseAllowingRebalance()
		// The close polls what is left, which holds rebalances back, and so may
		// hold back a goroutine of its own, and the client with it, for ever.
		s.AllowRebalance()
	}()
	select {
	case <-closed:
	case <-time.After(closeTimeout):
		// When packets vanish, closing takes minutes; nothing waits for this client.
		s.cfg.Log.Warn("Kafka client does not close; left behind")
	}
}
