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
)

// Needs is what the service uses on the brokers, and needs the rights to.
type Needs struct {
	Group, TransactionalID string
	Read, Write            []string // topics
	// Principal is who would be granted a missing right, such as
	// User:enricher; "": not known.
	Principal string
}

// problem is what keeps the service from running, and what to do about it.
type problem struct {
	found  string // of a subject that is named beside it
	whole  string // the same with its subject
	remedy string
}

func (p *problem) err() error { return errors.New(p.whole + "; " + p.remedy) }

// Problems looks at topics and rights only, and returns everything that is
// wrong with them. err: Kafka does not answer, or not yet.
func (n *Needs) Problems(ctx context.Context, cl *kgo.Client) (problems []error, err error) {
	m, err := n.metadata(ctx, cl)
	if err != nil {
		return nil, err
	}
	for _, t := range m.Topics {
		missing, right, err := n.topic(&t)
		if err != nil {
			return nil, err
		}
		for _, p := range []*problem{missing, right} {
			if p != nil {
				problems = append(problems, p.err())
			}
		}
	}
	var brokers []int32
	for _, b := range m.Brokers {
		brokers = append(brokers, b.NodeID)
	}
	group, id, err := n.groupAndID(ctx, cl, brokers)
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

// metadata asks about the topics; the answer has them in the order of the
// configuration.
func (n *Needs) metadata(ctx context.Context, cl *kgo.Client) (*kmsg.MetadataResponse, error) {
	req := kmsg.NewPtrMetadataRequest()
	req.AllowAutoTopicCreation = false
	req.IncludeTopicAuthorizedOperations = true
	names := slices.Concat(n.Read, n.Write)
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

// topic says whether a topic is there, and whether it may be used.
func (n *Needs) topic(t *kmsg.MetadataResponseTopic) (missing, right *problem, err error) {
	name := *t.Topic
	need, use := kmsg.ACLOperationRead, "read"
	if slices.Contains(n.Write, name) {
		need, use = kmsg.ACLOperationWrite, "write to"
	}
	grant := n.grant("--operation Describe --operation "+operationName(need), "topic", name)
	switch err := kerr.ErrorForCode(t.ErrorCode); {
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		return &problem{
			"does not exist", fmt.Sprintf("topic %q does not exist", name),
			fmt.Sprintf("create it: kafka-topics --create --topic %s --partitions … --replication-factor …", name),
		}, nil, nil
	case errors.Is(err, kerr.InvalidTopicException):
		return &problem{
			"is no valid name of a topic", fmt.Sprintf("%q is no valid name of a topic", name),
			"use letters, digits, '.', '_' and '-'",
		}, nil, nil
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return nil, &problem{"missing, even to see it", fmt.Sprintf("no right to see topic %q", name), grant}, nil
	case err != nil:
		return nil, nil, fmt.Errorf("topic %q: %w", name, err)
	case !allowed(t.AuthorizedOperations, need):
		return nil, &problem{"missing", fmt.Sprintf("no right to %s topic %q", use, name), grant}, nil
	}
	return nil, nil, nil
}

// grant is the command that grants a right.
func (n *Needs) grant(operations, kind, name string) string {
	principal := n.Principal
	if principal == "" {
		principal = "User:…"
	}
	return fmt.Sprintf("grant it: kafka-acls --add --allow-principal %s %s --%s %s", principal, operations, kind, name)
}

func operationName(op kmsg.ACLOperation) string {
	if op == kmsg.ACLOperationWrite {
		return "Write"
	}
	return "Read"
}

// allowed reads a bit field of operations; brokers too old to tell allow all.
func allowed(operations int32, need kmsg.ACLOperation) bool {
	const unknown = -1 << 31
	ops := kadm.DecodeACLOperations(operations)
	return operations == unknown || slices.Contains(ops, need) || slices.Contains(ops, kmsg.ACLOperationAll)
}

// groupAndID says whether the group and the transactional id may be used. It
// asks the first broker that answers for things that cannot be. A broker looks
// at the rights first, and says only then that it knows no such member or
// producer or is not the one to ask; so nothing is created on any broker.
func (n *Needs) groupAndID(ctx context.Context, cl *kgo.Client, brokers []int32) (group, id *problem, err error) {
	err = errNoBroker
	for _, b := range brokers {
		var codes []int16
		if codes, err = n.ask(ctx, cl.Broker(int(b))); err != nil {
			continue
		}
		if slices.Contains(codes, kerr.GroupAuthorizationFailed.Code) {
			group = &problem{"missing", fmt.Sprintf("no right to use group %q", n.Group), n.grant("--operation Read", "group", n.Group)}
		}
		if slices.Contains(codes, kerr.TransactionalIDAuthorizationFailed.Code) {
			id = &problem{
				"missing", fmt.Sprintf("no right to use transactional-id %q", n.TransactionalID),
				n.grant("--operation Describe --operation Write", "transactional-id", n.TransactionalID),
			}
		}
		return group, id, nil
	}
	return nil, nil, err
}

// ask returns the error codes of three requests that need, in this order: to
// describe the group; to read it; to write with the transactional id, and to
// read the group.
func (n *Needs) ask(ctx context.Context, b *kgo.Broker) ([]int16, error) {
	describe := kmsg.NewPtrDescribeGroupsRequest()
	describe.Groups = []string{n.Group}
	described, err := describe.RequestWith(ctx, b)
	if err != nil {
		return nil, err
	}
	heartbeat := kmsg.NewPtrHeartbeatRequest()
	heartbeat.Group, heartbeat.MemberID, heartbeat.Generation = n.Group, "nobody", -1
	beat, err := heartbeat.RequestWith(ctx, b)
	if err != nil {
		return nil, err
	}
	add := kmsg.NewPtrAddOffsetsToTxnRequest()
	add.Group, add.TransactionalID, add.ProducerID, add.ProducerEpoch = n.Group, n.TransactionalID, -1, -1
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
