package preflight

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

type role int

const (
	input role = iota
	enriched
	deadLetters
)

// topic is what is known of one of our topics.
type topic struct {
	name       string
	role       role
	id         [16]byte
	partitions int
	copies     int // of the partition that has the fewest
	inSync     int // likewise
	leaderless []int32
	behind     []int32 // some copies are not in sync
	settings   settings
}

// lookAtTopics says of each topic whether it is there and fit for its role.
func (l *look) lookAtTopics(ctx context.Context) {
	l.topics = map[string]*topic{}
	var seen []*topic
	for _, m := range l.metadata.Topics {
		missing, right, err := l.cfg.topic(&m)
		switch {
		case missing != nil:
			l.add(checkTopic, *m.Topic, Fatal, missing.found, missing.remedy)
		case err != nil && !errors.Is(err, kerr.LeaderNotAvailable): // that one is judged by partition
			l.add(checkTopic, *m.Topic, Fatal, err.Error(), "try again; if it stays, look at the brokers' logs")
		case right != nil && m.ErrorCode != 0:
			l.skip(checkTopic, *m.Topic, "no right to see it")
		default:
			t := l.newTopic(&m)
			l.readSettings(ctx, t)
			seen = append(seen, t)
			l.topics[t.name] = t
		}
	}
	var inputs []*topic
	for _, t := range seen {
		if t.role == input {
			inputs = append(inputs, t)
		}
	}
	for _, t := range seen {
		t.judge(&l.Report, inputs)
	}
}

func (l *look) newTopic(m *kmsg.MetadataResponseTopic) *topic {
	t := &topic{name: *m.Topic, id: m.TopicID, partitions: len(m.Partitions), role: input}
	if slices.Contains(l.cfg.Write, t.name) {
		t.role = enriched
	}
	if t.name == l.cfg.DeadLetterTopic {
		t.role = deadLetters
	}
	for i, p := range m.Partitions {
		if i == 0 || len(p.Replicas) < t.copies {
			t.copies = len(p.Replicas)
		}
		if i == 0 || len(p.ISR) < t.inSync {
			t.inSync = len(p.ISR)
		}
		if p.Leader < 0 || errors.Is(kerr.ErrorForCode(p.ErrorCode), kerr.LeaderNotAvailable) {
			t.leaderless = append(t.leaderless, p.Partition)
		} else if len(p.ISR) < len(p.Replicas) {
			t.behind = append(t.behind, p.Partition)
		}
	}
	return t
}

// readSettings reads a topic's settings, which takes a right that the service
// itself does not need. One topic at a time: of several, the first without the
// right would hide the others.
func (l *look) readSettings(ctx context.Context, t *topic) {
	var got kadm.ResourceConfigs
	err := l.step(ctx, func(ctx context.Context) (err error) {
		got, err = kadm.NewClient(l.cl).DescribeTopicConfigs(ctx, t.name)
		return err
	})
	t.settings = newSettings(t.name, got, err)
}

// judge says what is wrong with a topic. It is pure.
func (t *topic) judge(r *Report, inputs []*topic) {
	t.judgePartitions(r, inputs)
	t.judgeCopies(r)
	if t.settings.denied != "" {
		for _, check := range []string{checkMinISR, checkCleanup, checkMessageSize, checkRetention} {
			r.skip(check, t.name, "%s", t.settings.denied)
		}
		return
	}
	t.judgeMinISR(r)
	t.judgeCleanup(r)
	t.judgeMessageSize(r, inputs)
	t.judgeRetention(r)
}

func (t *topic) judgePartitions(r *Report, inputs []*topic) {
	most := 0
	for _, in := range inputs {
		most = max(most, in.partitions)
	}
	found := count(t.partitions, "partition")
	switch {
	case len(t.leaderless) > 0:
		r.add(checkTopic, t.name, Fatal, fmt.Sprintf("%s, of which %v have no leader: nobody can read or write them", found, t.leaderless),
			"bring the brokers back that hold their copies")
	case t.role == input && t.partitions == 1:
		r.add(checkTopic, t.name, Warning, found+": one instance does all the work, the others wait for it to die",
			"if one is not enough: kafka-topics --alter --topic "+t.name+" --partitions …")
	case t.role != input && most > 0:
		r.ok(checkTopic, t.name, "%s (input: %d)", found, most)
	default:
		r.ok(checkTopic, t.name, "%s", found)
	}
}

func (t *topic) judgeCopies(r *Report) {
	switch {
	case t.copies == 1:
		r.add(checkReplication, t.name, Warning, "one copy of a partition: it is gone with the broker that holds it",
			"three copies: kafka-reassign-partitions")
	case t.copies < 3:
		r.add(checkReplication, t.name, Warning,
			fmt.Sprintf("%d copies of a partition: it cannot be both safe and writable while a broker is down", t.copies),
			"three copies: kafka-reassign-partitions")
	case len(t.behind) > 0:
		r.add(checkReplication, t.name, Warning, fmt.Sprintf("%d copies, but not all are in sync of partitions %v", t.copies, t.behind),
			"look for a broker that is down or slow")
	default:
		r.ok(checkReplication, t.name, "%d copies", t.copies)
	}
}

func (t *topic) judgeMinISR(r *Report) {
	const check, setting = checkMinISR, "min.insync.replicas"
	n, ok := t.settings.number(setting)
	least := int(n)
	// The service writes to its outputs, and only reads its inputs.
	writes := Warning
	if t.role != input {
		writes = Fatal
	}
	alter := t.alter(setting, "2")
	switch {
	case !ok:
		r.untold(check, t.name)
	case least > t.copies:
		r.add(check, t.name, writes, fmt.Sprintf("%d, more than there are copies (%d): every write is refused", least, t.copies), alter)
	case least > t.inSync:
		r.add(check, t.name, writes, fmt.Sprintf("%d, but of some partition only %d are in sync: writes to it are refused", least, t.inSync),
			"bring the brokers back that hold the others")
	case t.copies >= 2 && least == t.copies:
		r.add(check, t.name, Warning, fmt.Sprintf("%d, as many as there are copies: no writes while any broker is down", least), alter)
	case t.copies >= 3 && least < 2:
		r.add(check, t.name, Warning, "1: what was acknowledged is lost if the one broker that has it dies", alter)
	default:
		r.ok(check, t.name, "%d", least)
	}
}

// alter is the command that changes a topic's setting.
func (t *topic) alter(setting, value string) string {
	return fmt.Sprintf("kafka-configs --alter --topic %s --add-config %s=%s", t.name, setting, value)
}
