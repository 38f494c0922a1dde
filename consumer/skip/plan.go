package skip

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
	"enricher/consumer/session"
	"enricher/producer"
)

// Limits of one skip, which is one transaction.
const (
	maxEvents = 10_000
	maxBytes  = 32 << 20
)

// instance is what a skip is called in the group and in the transactional id.
const instance = "skip"

// Request says what to skip.
type Request struct {
	Kafka     func() []kgo.Opt // options that reach the brokers
	Group     string
	Topic     string
	Partition int32
	// From and To bound the offsets to skip, To exclusive. Those that are completed
	// are left out, so 0 means from the committed offset on.
	From, To        int64
	Reset           session.Reset // where the group starts without a committed offset
	DeadLetterTopic string
	MaxRecordBytes  int32  // that DeadLetterTopic accepts; default producer.DefaultMaxRecordBytes
	Note, By        string // why they are skipped, and by whom
}

func (r *Request) session() session.Config {
	return session.Config{
		Kafka: r.Kafka, Group: r.Group, Instance: instance, Started: time.Now(),
		Topics: []string{r.Topic}, Reset: r.Reset, MaxRecordBytes: r.MaxRecordBytes, Log: zap.NewNop(),
	}
}

// Plan is what a skip would do.
type Plan struct {
	Request
	Events     []*kgo.Record // that are not completed
	Unreadable []session.Unreadable
	// Before and After are what the group has completed without and with the skip.
	Before, After progress.Progress
	// Members are the instances that are running, which Commit refuses.
	Members []string

	topicID [16]byte
	// epoch is the leader epoch to commit: the log's last one, below whose end
	// everything in the log lies. Those of batches that cannot be read may be damaged.
	epoch int32
}

// NewPlan finds out what a skip would do. It changes nothing.
func NewPlan(ctx context.Context, r Request) (*Plan, error) {
	cl, err := kgo.NewClient(r.Kafka()...)
	if err != nil {
		return nil, fmt.Errorf("configure Kafka client: %w", err)
	}
	defer cl.Close()
	log, err := session.OpenLog(ctx, cl, r.Topic, r.Partition)
	if err != nil {
		return nil, err
	}
	members, err := r.members(ctx)
	if err != nil {
		return nil, err
	}
	assigned, topicID, err := session.Peek(ctx, r.session(), r.Topic, r.Partition)
	if err != nil {
		return nil, err
	}
	p := &Plan{Request: r, Members: members, topicID: topicID, epoch: max(assigned.Committed.Epoch, log.Epoch)}
	if p.Before, err = assigned.Progress(topicID); err != nil {
		return nil, err
	}
	p.From = max(p.From, p.Before.Base, log.Start)
	if p.To > log.End {
		return nil, &BoundsError{To: p.To, End: log.End}
	}
	p.After = p.Before
	if p.From < p.To {
		p.After = p.Before.Complete(progress.Range{From: p.From, To: p.To})
	}
	if p.Empty() {
		return p, nil
	}
	if n := len(progress.Encode(topicID, p.After)); n > progress.MaxOffsetMetadataBytes {
		return nil, fmt.Errorf("the group's progress takes %d bytes of offset metadata, which holds %d", n, progress.MaxOffsetMetadataBytes)
	}
	return p, p.read(ctx, log)
}

// Empty reports whether there is nothing to skip: everything is completed.
func (p *Plan) Empty() bool { return p.After.Equal(p.Before) }

// read reads what is not completed of the range.
func (p *Plan) read(ctx context.Context, log *session.Log) error {
	bytes := 0
	for at := p.From; at < p.To; {
		c, err := log.ReadAt(ctx, at, p.To)
		if err != nil {
			return err
		}
		if c.Next == at {
			return fmt.Errorf("the broker returns nothing from offset %d on, although the log ends at %d", at, log.End)
		}
		for _, r := range c.Records {
			if r.Offset < p.To && !p.Before.Completed(r.Offset) {
				p.Events = append(p.Events, r)
				bytes += producer.PayloadSize(r)
			}
		}
		for _, u := range c.Unreadable {
			if u.To > p.To {
				return &InsideBatchError{To: p.To, End: u.To, Err: u.Err}
			}
			p.Unreadable = append(p.Unreadable, p.pending(u)...)
		}
		if len(p.Events) > maxEvents || bytes > maxBytes {
			return &TooManyError{Events: maxEvents, Bytes: maxBytes, Reached: at}
		}
		at = c.Next
	}
	return nil
}

// pending returns the parts of a range that are not completed. Of a batch that
// cannot be read now, some may have been completed before it was damaged.
func (p *Plan) pending(u session.Unreadable) []session.Unreadable {
	var parts []session.Unreadable
	from := max(u.From, p.Before.Base)
	for _, r := range append(p.Before.Ahead[:len(p.Before.Ahead):len(p.Before.Ahead)], progress.Range{From: u.To, To: u.To}) {
		if to := min(r.From, u.To); from < to {
			parts = append(parts, session.Unreadable{From: from, To: to, Err: u.Err})
		}
		from = max(from, r.To)
	}
	return parts
}

// members returns the instances in the group. It is an error if there is no such
// group: without its offsets, everything would count as not completed.
func (r *Request) members(ctx context.Context) ([]string, error) {
	cl, err := kgo.NewClient(r.Kafka()...)
	if err != nil {
		return nil, fmt.Errorf("configure Kafka client: %w", err)
	}
	defer cl.Close()
	groups, err := kadm.NewClient(cl).DescribeGroups(ctx, r.Group)
	if err == nil {
		err = groups[r.Group].Err
	}
	if err == nil && groups[r.Group].State == "Dead" { // how older brokers report it
		err = kerr.GroupIDNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("describe group %q: %w", r.Group, err)
	}
	var names []string
	for _, m := range groups[r.Group].Members {
		name, _ := session.ParseClientID(m.ClientID)
		names = append(names, name)
	}
	return names, nil
}

// RunningError reports that the group has members.
type RunningError struct {
	Group   string
	Members []string // instances
}

func (e *RunningError) Error() string {
	return fmt.Sprintf("group %q is running: its members are %q", e.Group, e.Members)
}

// BoundsError reports offsets that do not exist yet.
type BoundsError struct{ To, End int64 }

func (e *BoundsError) Error() string {
	return fmt.Sprintf("offset %d is above the end of the partition, %d", e.To, e.End)
}

// InsideBatchError reports a range that ends within a batch that cannot be read:
// the batch would be in the way as before.
type InsideBatchError struct {
	To, End int64 // End is that of the batch
	Err     error
}

func (e *InsideBatchError) Error() string {
	return fmt.Sprintf("offset %d is inside a batch that cannot be read (%v); the batch ends at %d", e.To, e.Err, e.End)
}

// TooManyError reports a range with more events than one transaction takes.
type TooManyError struct {
	Events, Bytes int   // limits
	Reached       int64 // up to here they are not exceeded
}

func (e *TooManyError) Error() string {
	return fmt.Sprintf("there are more than %d events or %d MiB to skip at once", e.Events, e.Bytes>>20)
}

// ErrChanged reports that the group's offset is not the one of the plan any more.
var ErrChanged = errors.New("the group's offset has changed meanwhile")
