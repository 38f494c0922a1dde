package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"enricher/consumer/progress"
)

// Reset says where to start in a partition without a committed offset, as Kafka's
// auto.offset.reset does.
type Reset string

// The values of Reset.
const (
	Earliest Reset = "earliest"
	Latest   Reset = "latest"
	None     Reset = "none" // nowhere: the partition waits until an offset is committed
)

// ErrNoCommittedOffset is Assignment.Err when there is none and Reset is None.
var ErrNoCommittedOffset = errors.New("the group has no committed offset")

// Assignment is a partition that was assigned to this instance.
type Assignment struct {
	Committed Offset
	// Start is the first offset to consume.
	Start int64
	// StartIsNew means that the group has not committed Start yet.
	StartIsNew bool
	// LogEnd is below which offset the log still has what was polled before; −1: not
	// known. Offsets completed above it are of records that the log has lost.
	LogEnd int64
	// Err says why Start is not known. The partition is paused then; call Resolve
	// to try again.
	Err error
	// Resolved means that this is a result of Resolve. Seek has to follow.
	Resolved bool

	serial uint64
}

// Progress returns what the group has completed of the partition, which is of the
// topic with this id.
func (a *Assignment) Progress(topic [16]byte) (progress.Progress, error) {
	done, err := progress.Decode(topic, a.Committed.Offset, a.Committed.Metadata)
	if err != nil {
		return done, err
	}
	if a.LogEnd >= 0 && done.Truncate(a.LogEnd) || a.Committed.Offset < 0 {
		done.Base = a.Start
	}
	return done, nil
}

type topicPartition struct {
	topic     string
	partition int32
}

// resolveTimeout bounds the requests for start offsets during a join: other
// partitions wait for them.
const resolveTimeout = 2 * time.Second

// HeldPartitions returns the partitions that the client holds.
func (s *Session) HeldPartitions() map[string]map[int32]kgo.EpochOffset {
	return s.cl.CommittedOffsets()
}

// TakeAssignments returns the partitions assigned or resolved since the last
// call. Call HeldPartitions first: a partition that is missing there and is
// returned here was lost and assigned again.
func (s *Session) TakeAssignments() []Assignment {
	all := s.assigned.Take()
	s.mu.Lock()
	defer s.mu.Unlock()
	current := all[:0]
	for _, a := range all { // a result for an earlier assignment means nothing
		if a.serial == s.serials[topicPartition{a.Committed.Topic, a.Committed.Partition}] {
			current = append(current, a)
		}
	}
	return current
}

// HasAssignments reports whether TakeAssignments has something to return.
func (s *Session) HasAssignments() bool {
	return s.assigned.Contains(func(Assignment) bool { return true })
}

// Reassigned reports whether a new assignment of the partition waits in
// TakeAssignments.
func (s *Session) Reassigned(topic string, partition int32) bool {
	return s.assigned.Contains(func(a Assignment) bool {
		return !a.Resolved && a.Committed.Topic == topic && a.Committed.Partition == partition
	})
}

// adjustOffsets is called with the partitions newly assigned, before anything of
// them is fetched. It finds the start of each; where that fails, the partition is
// paused, and the others start.
//
// It returns no error: the client would give up all partitions, or, for one that
// wraps context.Canceled, stop for ever.
func (s *Session) adjustOffsets(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	select {
	case <-s.ready: // the client joins the group while Open is at work
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.root.Done():
		return offsets, nil
	}
	parts := make(map[string][]int32)
	s.mu.Lock()
	for topic, ps := range offsets {
		for p := range ps {
			parts[topic] = append(parts[topic], p)
			s.serial++
			s.serials[topicPartition{topic, p}] = s.serial
		}
	}
	s.mu.Unlock()
	paused := make(map[string][]int32)
	for _, a := range s.resolve(ctx, parts) {
		topic, p := a.Committed.Topic, a.Committed.Partition
		if a.Err != nil {
			// The offset is provisional. It must not be negative: the client would not
			// accept another one later.
			a.Start = 0
			paused[topic] = append(paused[topic], p)
		}
		offsets[topic][p] = kgo.NewOffset().At(a.Start)
		s.assigned.Put(a)
	}
	s.cl.PauseFetchPartitions(paused)
	return offsets, nil
}

// Resolve tries again to find the start of partitions, in the background. The
// results come with TakeAssignments; Seek has to follow before Resume.
func (s *Session) Resolve(parts map[string][]int32) {
	s.tasks.Go(func() {
		for _, a := range s.resolve(s.root, parts) {
			a.Resolved = true
			s.assigned.Put(a)
		}
	})
}

// Seek sets the next offset to fetch of partitions. It drops what the client has
// fetched of all partitions, so call it for many at once.
func (s *Session) Seek(offsets map[string]map[int32]int64) {
	// The client ignores an offset that equals the one it has, epoch included, even
	// for a partition that it has stopped to fetch for good. A negative epoch means
	// none, whatever its value, so a new one is never equal.
	s.seekEpoch--
	set := make(map[string]map[int32]kgo.EpochOffset)
	for topic, ps := range offsets {
		set[topic] = make(map[int32]kgo.EpochOffset)
		for p, o := range ps {
			set[topic][p] = kgo.EpochOffset{Epoch: s.seekEpoch, Offset: o}
		}
	}
	s.cl.SetOffsets(set)
}

// resolve finds the start of partitions. It requires stable offsets, after this
// member has its assignment: what a former owner can still commit was accepted
// before, so an offset that is returned includes its last transaction.
func (s *Session) resolve(ctx context.Context, parts map[string][]int32) []Assignment {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	committed, fetchErr := s.fetchCommitted(ctx, parts)
	byPartition := make(map[topicPartition]fetched)
	var epochs kadm.OffsetForLeaderEpochRequest
	for _, f := range committed {
		byPartition[topicPartition{f.Topic, f.Partition}] = f
		if f.err == nil && f.Offset.Offset >= 0 && f.Epoch >= 0 {
			epochs.Add(f.Topic, f.Partition, f.Epoch)
		}
	}
	r := &resolver{s: s, ctx: ctx, adm: kadm.NewClient(s.admin), known: make(map[string]bool), bounds: make(map[string]logBounds)}
	if len(epochs) > 0 {
		r.epochEnds, r.epochErr = r.adm.OffsetForLeaderEpoch(ctx, epochs)
	}
	var all []Assignment
	for topic, ps := range parts {
		for _, p := range ps {
			tp := topicPartition{topic, p}
			f, ok := byPartition[tp]
			switch {
			case fetchErr != nil:
				f.err = fetchErr
			case !ok:
				f.err = errors.New("the broker returned no offset")
			}
			s.mu.Lock()
			a := Assignment{Committed: f.Offset, LogEnd: -1, serial: s.serials[tp]}
			s.mu.Unlock()
			a.Committed.Topic, a.Committed.Partition = topic, p
			if f.err != nil {
				a.Committed.Offset, a.Err = -1, fmt.Errorf("fetch the committed offset: %w", f.err)
			} else {
				a.Err = r.start(&a)
			}
			all = append(all, a)
		}
	}
	return all
}

// resolver holds what resolve has asked for already.
type resolver struct {
	s         *Session
	ctx       context.Context
	adm       *kadm.Client
	epochEnds kadm.OffsetsForLeaderEpochs
	epochErr  error                // of partitions that are missing in epochEnds
	known     map[string]bool      // by topic: the group has committed offsets
	bounds    map[string]logBounds // by topic
}

type logBounds struct {
	start, end kadm.ListedOffsets
	err        error
}

// start sets a.Start from a.Committed.
func (r *resolver) start(a *Assignment) error {
	o := &a.Committed
	if progress.CommittedForOldTopic(r.s.TopicID(o.Topic), o.Metadata) {
		return r.otherTopic(a)
	}
	if o.Offset < 0 {
		return r.reset(a)
	}
	a.Start = o.Offset
	if o.Epoch < 0 {
		return nil
	}
	end, ok := r.epochEnds[o.Topic][o.Partition]
	switch {
	case !ok && r.epochErr != nil:
		end.Err = r.epochErr
	case !ok:
		end.Err = kerr.UnknownTopicOrPartition
	}
	if end.Err != nil {
		return fmt.Errorf("check the committed leader epoch: %w", end.Err)
	}
	if a.LogEnd = end.EndOffset; a.LogEnd >= 0 && a.LogEnd < a.Start {
		a.Start = a.LogEnd
	}
	return nil
}

// otherTopic handles an offset with the metadata of another topic. One that
// enricher committed (with a leader epoch) is of an older topic of this name and
// means nothing. One without was translated by a tool that mirrors topics: it is
// used if it lies in the log, without what was completed ahead of it.
func (r *resolver) otherTopic(a *Assignment) error {
	o := &a.Committed
	start, end, err := r.log(o.Topic, o.Partition)
	if err != nil {
		return err
	}
	translated := o.Epoch < 0 && o.Offset >= start && o.Offset <= end
	r.s.cfg.Log.Warn("committed offset has the metadata of another topic",
		zap.String("topic", o.Topic), zap.Int32("partition", o.Partition), zap.Int64("committed", o.Offset), zap.Bool("used", translated))
	o.Metadata = ""
	if translated {
		a.Start = o.Offset
		return nil
	}
	o.Offset = -1
	a.Start, a.StartIsNew = start, true
	return nil
}

// reset finds the start of a partition without a committed offset.
func (r *resolver) reset(a *Assignment) error {
	o := a.Committed
	if r.s.cfg.Reset == None {
		return ErrNoCommittedOffset
	}
	start, end, err := r.log(o.Topic, o.Partition)
	if err != nil {
		return err
	}
	a.Start, a.StartIsNew = start, true
	if r.s.cfg.Reset != Latest {
		return nil
	}
	// In a partition that was added to a topic that the group consumes, everything
	// is new.
	known, ok := r.known[o.Topic]
	if !ok {
		offsets, err := r.adm.FetchOffsetsForTopics(r.ctx, r.s.cfg.Group, o.Topic)
		if err != nil {
			return fmt.Errorf("fetch the group's offsets: %w", err)
		}
		offsets.Each(func(f kadm.OffsetResponse) { known = known || f.Err == nil && f.At >= 0 })
		r.known[o.Topic] = known
	}
	if !known {
		a.Start = end
	}
	return nil
}

// log returns where the log of a partition starts and ends.
func (r *resolver) log(topic string, p int32) (start, end int64, err error) {
	b, ok := r.bounds[topic]
	if !ok {
		var startErr, endErr error
		b.start, startErr = r.adm.ListStartOffsets(r.ctx, topic)
		b.end, endErr = r.adm.ListCommittedOffsets(r.ctx, topic)
		b.err = errors.Join(startErr, endErr)
		r.bounds[topic] = b
	}
	first, ok1 := b.start.Lookup(topic, p)
	last, ok2 := b.end.Lookup(topic, p)
	switch {
	case ok1 && first.Err != nil:
		err = first.Err
	case ok2 && last.Err != nil:
		err = last.Err
	case !ok1 || !ok2:
		err = b.err
		if err == nil {
			err = kerr.UnknownTopicOrPartition
		}
	}
	if err != nil {
		return 0, 0, fmt.Errorf("list the offsets of the log: %w", err)
	}
	return first.Offset, last.Offset, nil
}

func (s *Session) topicName(id [16]byte) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for t, i := range s.topicIDs {
		if i == id {
			return t
		}
	}
	return ""
}

// Peek returns what a session of this configuration would be assigned for a
// partition now, and the id of its topic. It does not join the group.
func Peek(ctx context.Context, cfg Config, topic string, p int32) (Assignment, [16]byte, error) {
	cl, err := kgo.NewClient(cfg.Kafka()...)
	if err != nil {
		return Assignment{}, [16]byte{}, fmt.Errorf("configure Kafka client: %w", err)
	}
	defer cl.Close()
	s := &Session{cfg: cfg, admin: cl, topicIDs: make(map[string][16]byte)}
	if err := s.loadTopicIDs(ctx); err != nil {
		return Assignment{}, [16]byte{}, err
	}
	a := s.resolve(ctx, map[string][]int32{topic: {p}})[0]
	return a, s.TopicID(topic), a.Err
}
