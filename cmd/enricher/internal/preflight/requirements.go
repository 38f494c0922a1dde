package preflight

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/cmd/enricher/internal/hint"
)

// Requirements is what the service uses on the brokers and needs permissions for.
type Requirements struct {
	Group, TransactionalID string
	Read, Write            []string // topics
	// Principal is the user who needs the permissions, such as User:enricher; ""
	// if it is not known.
	Principal string
}

// problem keeps the service from running.
type problem struct {
	found    string // for a report that names the subject
	sentence string // the same with its subject
	remedy   string
}

func (p *problem) err() error { return hint.With(errors.New(p.sentence), "%s", p.remedy) }

// Problems checks only topics and permissions, and returns everything that is wrong
// with them, with hints. err means that Kafka does not respond, or not yet.
func (q *Requirements) Problems(ctx context.Context, cl *kgo.Client) (problems []error, err error) {
	m, err := q.metadata(ctx, cl)
	if err != nil {
		return nil, err
	}
	for _, t := range m.Topics {
		missing, denied, err := q.topic(&t)
		if err != nil {
			return nil, err
		}
		for _, p := range []*problem{missing, denied} {
			if p != nil {
				problems = append(problems, p.err())
			}
		}
	}
	var brokers []int32
	for _, b := range m.Brokers {
		brokers = append(brokers, b.NodeID)
	}
	group, id, err := q.groupAndID(ctx, cl, brokers)
	if err != nil {
		return nil, err
	}
	for _, p := range []*problem{group, id} {
		if p != nil {
			problems = append(problems, p.err())
		}
	}
	return problems, nil
}

// metadata requests the topics. The response lists them in the order of the
// configuration.
func (q *Requirements) metadata(ctx context.Context, cl *kgo.Client) (*kmsg.MetadataResponse, error) {
	req := kmsg.NewPtrMetadataRequest()
	req.AllowAutoTopicCreation = false
	req.IncludeTopicAuthorizedOperations = true
	names := slices.Concat(q.Read, q.Write)
	for _, t := range names {
		r := kmsg.NewMetadataRequestTopic()
		r.Topic = kmsg.StringPtr(t)
		req.Topics = append(req.Topics, r)
	}
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(resp.Topics, func(a, b kmsg.MetadataResponseTopic) int {
		return slices.Index(names, *a.Topic) - slices.Index(names, *b.Topic)
	})
	for _, t := range resp.Topics {
		slices.SortFunc(t.Partitions, func(a, b kmsg.MetadataResponseTopicPartition) int { return int(a.Partition - b.Partition) })
	}
	return resp, kerr.ErrorForCode(resp.ErrorCode)
}

// topic returns whether a topic is missing and whether access to it is denied.
func (q *Requirements) topic(t *kmsg.MetadataResponseTopic) (missing, denied *problem, err error) {
	name := *t.Topic
	need, use := kmsg.ACLOperationRead, "read"
	if slices.Contains(q.Write, name) {
		need, use = kmsg.ACLOperationWrite, "write to"
	}
	grant := hint.ACL(q.Principal, "topic", name, "Describe", operationName(need))
	switch err := kerr.ErrorForCode(t.ErrorCode); {
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		return &problem{
			"does not exist", fmt.Sprintf("topic %q does not exist", name),
			fmt.Sprintf("create it with: kafka-topics --create --topic %s --partitions … --replication-factor …", name),
		}, nil, nil
	case errors.Is(err, kerr.InvalidTopicException):
		return &problem{
			"is not a valid topic name", fmt.Sprintf("%q is not a valid topic name", name),
			"use only a-z, A-Z, 0-9, '.', '_' and '-'",
		}, nil, nil
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return nil, &problem{"missing, as is the one to describe it", fmt.Sprintf("not authorized to describe topic %q", name), grant}, nil
	case err != nil:
		return nil, nil, fmt.Errorf("topic %q: %w", name, err)
	case !allowed(t.AuthorizedOperations, need):
		return nil, &problem{"missing", fmt.Sprintf("not authorized to %s topic %q", use, name), grant}, nil
	}
	return nil, nil, nil
}

func operationName(op kmsg.ACLOperation) string {
	if op == kmsg.ACLOperationWrite {
		return "Write"
	}
	return "Read"
}

// allowed reports whether a bit field of operations contains one. Brokers too old
// to send the field allow all of them.
func allowed(operations int32, need kmsg.ACLOperation) bool {
	const unknown = -1 << 31
	ops := kadm.DecodeACLOperations(operations)
	return operations == unknown || slices.Contains(ops, need) || slices.Contains(ops, kmsg.ACLOperationAll)
}

// groupAndID returns whether access to the group and to the transactional id is
// denied. It sends requests that name a member and a producer that cannot exist to
// the first broker that responds. A broker checks the permissions first, and only
// then that it knows no such member or producer, or is not the coordinator; so
// nothing is created on any broker.
func (q *Requirements) groupAndID(ctx context.Context, cl *kgo.Client, brokers []int32) (group, id *problem, err error) {
	err = errNoBroker
	for _, b := range brokers {
		var codes []int16
		if codes, err = q.tryAccess(ctx, cl.Broker(int(b))); err != nil {
			continue
		}
		if slices.Contains(codes, kerr.GroupAuthorizationFailed.Code) {
			group = &problem{"missing", fmt.Sprintf("not authorized to use group %q", q.Group), hint.ACL(q.Principal, "group", q.Group, "Read")}
		}
		if slices.Contains(codes, kerr.TransactionalIDAuthorizationFailed.Code) {
			id = &problem{
				"missing", fmt.Sprintf("not authorized to use transactional-id %q", q.TransactionalID),
				hint.ACL(q.Principal, "transactional-id", q.TransactionalID, "Describe", "Write"),
			}
		}
		return group, id, nil
	}
	return nil, nil, err
}

// tryAccess returns the error codes of three requests. They need permissions to
// describe the group; to read it; and to write with the transactional id and read
// the group.
func (q *Requirements) tryAccess(ctx context.Context, b *kgo.Broker) ([]int16, error) {
	describe := kmsg.NewPtrDescribeGroupsRequest()
	describe.Groups = []string{q.Group}
	described, err := describe.RequestWith(ctx, b)
	if err != nil {
		return nil, err
	}
	heartbeat := kmsg.NewPtrHeartbeatRequest()
	heartbeat.Group, heartbeat.MemberID, heartbeat.Generation = q.Group, "enricher-check", -1
	beat, err := heartbeat.RequestWith(ctx, b)
	if err != nil {
		return nil, err
	}
	add := kmsg.NewPtrAddOffsetsToTxnRequest()
	add.Group, add.TransactionalID, add.ProducerID, add.ProducerEpoch = q.Group, q.TransactionalID, -1, -1
	added, err := add.RequestWith(ctx, b)
	if err != nil {
		return nil, err
	}
	codes := []int16{beat.ErrorCode, added.ErrorCode}
	for _, g := range described.Groups {
		codes = append(codes, g.ErrorCode)
	}
	return codes, nil
}

// permissions adds every permission that the service needs, and whether it is
// missing.
func (r *run) permissions(ctx context.Context) {
	permission := func(name string, p *problem) {
		if p == nil {
			r.ok(checkPermission, name, "granted")
		} else {
			r.add(checkPermission, name, Fatal, p.found, p.remedy)
		}
	}
	for _, t := range r.metadata.Topics {
		name := "read topic " + *t.Topic
		if slices.Contains(r.cfg.Write, *t.Topic) {
			name = "write topic " + *t.Topic
		}
		switch missing, p, err := r.cfg.topic(&t); {
		case err != nil:
			r.skip(checkPermission, name, "%v", err)
		case missing != nil:
			r.skip(checkPermission, name, "the topic does not exist")
		default:
			permission(name, p)
		}
	}
	group, id := "use group "+r.cfg.Group, "use transactional-id "+r.cfg.TransactionalID
	var noGroup, noID *problem
	if err := r.step(ctx, func(ctx context.Context) (err error) {
		noGroup, noID, err = r.cfg.groupAndID(ctx, r.cl, r.brokers)
		return err
	}); err != nil {
		r.skip(checkPermission, group, "%v", err)
		r.skip(checkPermission, id, "%v", err)
		return
	}
	permission(group, noGroup)
	permission(id, noID)
}
