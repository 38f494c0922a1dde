package preflight

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/consumer"
	"enricher/consumer/progress"
	"enricher/consumer/session"
)

// group checks the members of the group, and what it has committed.
func (r *run) group(ctx context.Context) {
	var found *kmsg.DescribeGroupsResponseGroup
	err := r.step(ctx, func(ctx context.Context) (err error) {
		found, err = r.describeGroup(ctx)
		return err
	})
	if err != nil {
		r.skip(checkGroup, r.cfg.Group, "%s", hidden(err))
	} else {
		r.judgeGroup(found)
	}

	var committed []session.Offset
	err = r.step(ctx, func(ctx context.Context) (err error) {
		committed, err = r.committed(ctx)
		return err
	})
	if err != nil {
		r.skip(checkOffsets, r.cfg.Group, "%s", hidden(err))
		r.skip(checkLag, r.cfg.Group, "%s", hidden(err))
		return
	}
	r.offsets(ctx, committed)
}

// hidden returns why nothing is known about the group.
func hidden(err error) string {
	if errors.Is(err, kerr.GroupAuthorizationFailed) {
		return "not authorized to describe the group"
	}
	return err.Error()
}

// fromCoordinator sends a request to one broker after another until the coordinator
// of the group responds. It returns errNoGroup if no broker is the coordinator, so
// that the group cannot exist.
func (r *run) fromCoordinator(ctx context.Context, request func(context.Context, *kgo.Broker) error) error {
	err := errNoGroup
	if len(r.brokers) < len(r.metadata.Brokers) {
		err = errors.New("none of the brokers that respond is its coordinator")
	}
	for _, id := range r.brokers {
		switch e := request(ctx, r.cl.Broker(int(id))); {
		case e == nil:
			return nil
		case errors.Is(e, kerr.NotCoordinator), errors.Is(e, kerr.CoordinatorNotAvailable):
		default:
			err = e
		}
	}
	return err
}

var errNoGroup = errors.New("no coordinator found")

// describeGroup returns nil if the group does not exist.
func (r *run) describeGroup(ctx context.Context) (*kmsg.DescribeGroupsResponseGroup, error) {
	req := kmsg.NewPtrDescribeGroupsRequest()
	req.Groups = []string{r.cfg.Group}
	var found *kmsg.DescribeGroupsResponseGroup
	err := r.fromCoordinator(ctx, func(ctx context.Context, b *kgo.Broker) error {
		resp, err := req.RequestWith(ctx, b)
		if err != nil {
			return err
		}
		if len(resp.Groups) != 1 {
			return fmt.Errorf("requested one group, received %d", len(resp.Groups))
		}
		found = &resp.Groups[0]
		return kerr.ErrorForCode(found.ErrorCode)
	})
	if errors.Is(err, errNoGroup) || errors.Is(err, kerr.GroupIDNotFound) || err == nil && found.State == "Dead" {
		return nil, nil
	}
	return found, err
}

// balancer is the only partition assignment that enricher supports.
var balancer = kgo.CooperativeStickyBalancer().ProtocolName()

func (r *run) judgeGroup(g *kmsg.DescribeGroupsResponseGroup) {
	name := r.cfg.Group
	if g == nil {
		r.ok(checkGroup, name, "does not exist yet; the service creates it")
		return
	}
	var ours, others []string
	for _, m := range g.Members {
		instance, started := session.ParseClientID(m.ClientID)
		if started == 0 {
			others = append(others, m.ClientID)
		} else {
			ours = append(ours, instance)
		}
	}
	slices.Sort(ours)
	members := "no member"
	if len(ours) > 0 {
		members = count(len(ours), "member") + ": " + strings.Join(ours, ", ")
	}
	another := "use another --group for the service"
	switch {
	case g.ProtocolType != "" && g.ProtocolType != "consumer":
		r.add(checkGroup, name, Fatal, fmt.Sprintf("is in use for another protocol (%s)", g.ProtocolType), another)
	case g.Protocol != "" && g.Protocol != balancer:
		r.add(checkGroup, name, Fatal, fmt.Sprintf("its members (%s) assign partitions by %s; the service supports only %s", strings.Join(others, ", "), g.Protocol, balancer), another)
	case len(others) > 0:
		r.add(checkGroup, name, Warning, fmt.Sprintf("%s; other clients in the group take partitions: %s", members, strings.Join(others, ", ")), another)
	default:
		r.ok(checkGroup, name, "%s, %s", g.State, members)
	}
	if slices.Contains(ours, r.cfg.Instance) {
		r.add(checkInstance, r.cfg.Instance, Warning, "already running",
			"ignore this if it is the instance you are checking; a second one needs another --instance")
	} else {
		r.ok(checkInstance, r.cfg.Instance, "no member with this name")
	}
}

// committed returns what the group has committed for the input topics.
func (r *run) committed(ctx context.Context) ([]session.Offset, error) {
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Group = r.cfg.Group
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = r.cfg.Group
	names := map[[16]byte]string{}
	for _, t := range r.inputs() {
		gt := kmsg.NewOffsetFetchRequestGroupTopic()
		gt.Topic, gt.TopicID = t.name, t.id
		names[t.id] = t.name
		rt := kmsg.NewOffsetFetchRequestTopic()
		rt.Topic = t.name
		for p := range int32(t.partitions) {
			gt.Partitions = append(gt.Partitions, p)
			rt.Partitions = append(rt.Partitions, p)
		}
		g.Topics = append(g.Topics, gt)
		req.Topics = append(req.Topics, rt)
	}
	req.Groups = append(req.Groups, g)

	var all []session.Offset
	err := r.fromCoordinator(ctx, func(ctx context.Context, b *kgo.Broker) error {
		resp, err := req.RequestWith(ctx, b)
		if err != nil {
			return err
		}
		all = nil
		add := func(topic string, p int32, offset int64, metadata *string, code int16) {
			o := session.Offset{Topic: topic, Partition: p, Offset: offset}
			if metadata != nil {
				o.Metadata = *metadata
			}
			all = append(all, o)
			err = errors.Join(err, kerr.ErrorForCode(code))
		}
		for _, t := range resp.Topics { // of brokers before Kafka 3.0
			for _, p := range t.Partitions {
				add(t.Topic, p.Partition, p.Offset, p.Metadata, p.ErrorCode)
			}
		}
		for _, g := range resp.Groups {
			err = errors.Join(err, kerr.ErrorForCode(g.ErrorCode))
			for _, t := range g.Topics {
				if t.Topic == "" {
					t.Topic = names[t.TopicID]
				}
				for _, p := range t.Partitions {
					add(t.Topic, p.Partition, p.Offset, p.Metadata, p.ErrorCode)
				}
			}
		}
		return errors.Join(err, kerr.ErrorForCode(resp.ErrorCode))
	})
	if errors.Is(err, errNoGroup) || errors.Is(err, kerr.GroupIDNotFound) {
		return nil, nil
	}
	return all, err
}

// inputs returns the input topics that exist, in the order of the configuration.
func (r *run) inputs() []*topic {
	var all []*topic
	for _, name := range r.cfg.Read {
		if t := r.topics[name]; t != nil {
			all = append(all, t)
		}
	}
	return all
}

// offsetSummary counts the partitions by what the service can do with their
// committed offsets.
type offsetSummary struct {
	committed, partitions int
	refused               []string // with the reason
	missing               int      // nothing committed
	obsolete              int      // committed for an earlier topic of the same name
	beyond                int      // committed above the log's end
	lost                  int64    // events that were deleted before they were read
}

// judge reports whether the service can resume from what is committed. It is pure.
func (s *offsetSummary) judge(r *Report, group string, start consumer.AutoOffsetReset) {
	of := fmt.Sprintf("of %s", count(s.partitions, "partition"))
	switch {
	case len(s.refused) > 0:
		r.add(checkOffsets, group, Fatal, "unreadable metadata: "+strings.Join(s.refused, "; "),
			"run the version that wrote it, or a later one; the service does not consume these partitions")
	case s.missing > 0 && start == consumer.None:
		r.add(checkOffsets, group, Fatal, fmt.Sprintf("none for %d %s, and --auto-offset-reset is %s", s.missing, of, start),
			fmt.Sprintf("kafka-consumer-groups --group %s --reset-offsets …, or use another --auto-offset-reset", group))
	case s.beyond > 0:
		r.add(checkOffsets, group, Warning, fmt.Sprintf("beyond the end of %d %s: the topic was truncated or re-created", s.beyond, of),
			"ignore this if it was intended: the service reads these partitions from their start")
	case s.obsolete > 0:
		r.add(checkOffsets, group, Warning, fmt.Sprintf("for %d %s, committed for an earlier topic of the same name", s.obsolete, of),
			"ignore this if the topic was re-created: the service reads these partitions from their start")
	case s.lost > 0:
		r.add(checkOffsets, group, Warning, fmt.Sprintf("%s deleted before the service read them", count(s.lost, "event")),
			"keep events longer than the service may be stopped: retention.ms")
	case s.missing > 0:
		r.ok(checkOffsets, group, "committed for %d %s; the others start at %s", s.committed, of, start)
	default:
		r.ok(checkOffsets, group, "committed for all %s", count(s.partitions, "partition"))
	}
}

// offsets compares what is committed with the start and end of the logs.
func (r *run) offsets(ctx context.Context, committed []session.Offset) {
	inputs := r.inputs()
	if len(inputs) == 0 {
		r.skip(checkOffsets, r.cfg.Group, "no input topic is visible")
		r.skip(checkLag, r.cfg.Group, "no input topic is visible")
		return
	}
	at := map[string]map[int32]session.Offset{}
	for _, o := range committed {
		if at[o.Topic] == nil {
			at[o.Topic] = map[int32]session.Offset{}
		}
		at[o.Topic][o.Partition] = o
	}
	var sum offsetSummary
	for _, t := range inputs {
		logs, err := r.logs(ctx, t.name)
		if err != nil {
			r.skip(checkLag, t.name, "%v", err)
			continue
		}
		left := int64(0)
		for p := range int32(t.partitions) {
			o, ok := at[t.name][p]
			if !ok {
				o.Offset = -1
			}
			o.Topic, o.Partition = t.name, p
			at := logs[p]
			left += sum.addPartition(t.id, o, at.Start, at.Stable, r.cfg.Start).Left(at.Start, at.End)
		}
		t.judgeLag(&r.Report, left, r.cfg.APIRate)
		r.openTransactions(ctx, t, logs)
	}
	sum.judge(&r.Report, r.cfg.Group, r.cfg.Start)
}

// addPartition counts one partition and returns the progress from which the service
// would resume. It is pure.
func (s *offsetSummary) addPartition(id [16]byte, o session.Offset, start, end int64, policy consumer.AutoOffsetReset) progress.Progress {
	s.partitions++
	if o.Offset < 0 {
		s.missing++
		if policy == consumer.Latest {
			return progress.Progress{Base: end}
		}
		return progress.Progress{Base: start}
	}
	s.committed++
	if progress.CommittedForOldTopic(id, o.Metadata) {
		s.obsolete++
		return progress.Progress{Base: start}
	}
	done, err := progress.Decode(id, o.Offset, o.Metadata)
	if err != nil {
		done = progress.Progress{Base: o.Offset}
		s.refused = append(s.refused, fmt.Sprintf("%s[%d]: %v", o.Topic, o.Partition, err))
	}
	if o.Offset > end {
		s.beyond++
		return progress.Progress{Base: start}
	}
	if o.Offset < start {
		s.lost += done.Left(o.Offset, start)
	}
	return done
}
