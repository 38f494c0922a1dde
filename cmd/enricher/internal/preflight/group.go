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
	"enricher/consumer/session"
)

// group looks at who is in the group, and what it has committed.
func (l *look) group(ctx context.Context) {
	var found *kmsg.DescribeGroupsResponseGroup
	err := l.step(ctx, func(ctx context.Context) (err error) {
		found, err = l.describeGroup(ctx)
		return err
	})
	if err != nil {
		l.skip(checkGroup, l.cfg.Group, "%s", unseen(err))
	} else {
		l.judgeGroup(found)
	}

	var committed []session.Offset
	err = l.step(ctx, func(ctx context.Context) (err error) {
		committed, err = l.committed(ctx)
		return err
	})
	if err != nil {
		l.skip(checkOffsets, l.cfg.Group, "%s", unseen(err))
		l.skip(checkLag, l.cfg.Group, "%s", unseen(err))
		return
	}
	l.progress(ctx, committed)
}

// unseen is why nothing is known of the group.
func unseen(err error) string {
	if errors.Is(err, kerr.GroupAuthorizationFailed) {
		return "no right to see the group"
	}
	return err.Error()
}

// fromCoordinator asks one broker after the other until one speaks for the
// group; errNoGroup: none does, so that there can be no such group.
func (l *look) fromCoordinator(ctx context.Context, ask func(context.Context, *kgo.Broker) error) error {
	err := errNoGroup
	if len(l.brokers) < len(l.metadata.Brokers) {
		err = errors.New("none of the brokers that answer coordinates it")
	}
	for _, id := range l.brokers {
		switch e := ask(ctx, l.cl.Broker(int(id))); {
		case e == nil:
			return nil
		case errors.Is(e, kerr.NotCoordinator), errors.Is(e, kerr.CoordinatorNotAvailable):
		default:
			err = e
		}
	}
	return err
}

var errNoGroup = errors.New("no broker coordinates it")

// describeGroup is nil if there is no such group.
func (l *look) describeGroup(ctx context.Context) (*kmsg.DescribeGroupsResponseGroup, error) {
	req := kmsg.NewPtrDescribeGroupsRequest()
	req.Groups = []string{l.cfg.Group}
	var found *kmsg.DescribeGroupsResponseGroup
	err := l.fromCoordinator(ctx, func(ctx context.Context, b *kgo.Broker) error {
		resp, err := req.RequestWith(ctx, b)
		if err != nil {
			return err
		}
		if len(resp.Groups) != 1 {
			return fmt.Errorf("asked for one group, got %d", len(resp.Groups))
		}
		found = &resp.Groups[0]
		return kerr.ErrorForCode(found.ErrorCode)
	})
	if errors.Is(err, errNoGroup) || errors.Is(err, kerr.GroupIDNotFound) || err == nil && found.State == "Dead" {
		return nil, nil
	}
	return found, err
}

// balancer is the one protocol that members of ours know.
var balancer = kgo.CooperativeStickyBalancer().ProtocolName()

func (l *look) judgeGroup(g *kmsg.DescribeGroupsResponseGroup) {
	name := l.cfg.Group
	if g == nil {
		l.ok(checkGroup, name, "does not exist yet; the service creates it")
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
	another := "give the service a --group of its own"
	switch {
	case g.ProtocolType != "" && g.ProtocolType != "consumer":
		l.add(checkGroup, name, Fatal, fmt.Sprintf("is in use for something else (%s)", g.ProtocolType), another)
	case g.Protocol != "" && g.Protocol != balancer:
		l.add(checkGroup, name, Fatal, fmt.Sprintf("its members (%s) assign partitions by %s, the service only by %s", strings.Join(others, ", "), g.Protocol, balancer), another)
	case len(others) > 0:
		l.add(checkGroup, name, Warning, fmt.Sprintf("%s; besides, members that are no enricher take partitions away: %s", members, strings.Join(others, ", ")), another)
	default:
		l.ok(checkGroup, name, "%s, %s", g.State, members)
	}
	if slices.Contains(ours, l.cfg.Instance) {
		l.add(checkInstance, l.cfg.Instance, Warning, "runs already",
			"nothing, if that is the very service that this is about; a second one needs another --instance")
	} else {
		l.ok(checkInstance, l.cfg.Instance, "nobody of this name is in the group")
	}
}

// committed is what the group has committed for the input topics.
func (l *look) committed(ctx context.Context) ([]session.Offset, error) {
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Group = l.cfg.Group
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = l.cfg.Group
	names := map[[16]byte]string{}
	for _, t := range l.inputs() {
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
	err := l.fromCoordinator(ctx, func(ctx context.Context, b *kgo.Broker) error {
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

// inputs are the input topics that are there, in the order of the configuration.
func (l *look) inputs() []*topic {
	var all []*topic
	for _, name := range l.cfg.Read {
		if t := l.topics[name]; t != nil {
			all = append(all, t)
		}
	}
	return all
}

// resumable counts why the service could not go on from what is committed.
type resumable struct {
	committed, partitions int
	refused               []string // with the reason
	missing               int      // nothing committed
	obsolete              int      // committed for a topic of the same name that is no more
	beyond                int      // committed above the log's end
	lost                  int64    // events that were deleted before they were read
}

// judgeOffsets says whether the service can go on from what is committed. It is
// pure but for the report.
func (s *resumable) judge(r *Report, group string, start consumer.AutoOffsetReset) {
	of := fmt.Sprintf("of %s", count(s.partitions, "partition"))
	switch {
	case len(s.refused) > 0:
		r.add(checkOffsets, group, Fatal, "not understood: "+strings.Join(s.refused, "; "),
			"run the version that wrote them, or a later one; the service leaves these partitions alone")
	case s.missing > 0 && start == consumer.None:
		r.add(checkOffsets, group, Fatal, fmt.Sprintf("none for %d %s, and --start is %s", s.missing, of, start),
			fmt.Sprintf("kafka-consumer-groups --group %s --reset-offsets …, or another --start", group))
	case s.beyond > 0:
		r.add(checkOffsets, group, Warning, fmt.Sprintf("above the end of %d %s: the topic was truncated, or created anew", s.beyond, of),
			"nothing, if that was meant: the service reads these partitions from their start")
	case s.obsolete > 0:
		r.add(checkOffsets, group, Warning, fmt.Sprintf("for %d %s those of an earlier topic of the same name", s.obsolete, of),
			"nothing, if the topic was created anew: the service reads these partitions from their start")
	case s.lost > 0:
		r.add(checkOffsets, group, Warning, fmt.Sprintf("%s deleted before the service read them", count(s.lost, "event")),
			"keep events longer than the service may stand still: retention.ms")
	case s.missing > 0:
		r.ok(checkOffsets, group, "committed for %d %s; the others begin at %s", s.committed, of, start)
	default:
		r.ok(checkOffsets, group, "committed for all %s", count(s.partitions, "partition"))
	}
}
