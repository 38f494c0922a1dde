package preflight

import (
	"context"
	"strconv"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// TestTopics: each way in which a topic is not there, or not fit for its role.
func TestTopics(t *testing.T) {
	const notThere = "not looked at: the topic is not there"
	for name, c := range map[string]struct {
		change func(*world)
		want   []string
	}{
		"input missing": {
			func(w *world) { _ = w.cluster.DeleteTopic(in) },
			[]string{
				"skipped right read topic calls: " + notThere,
				"fatal topic calls: does not exist → create it: kafka-topics --create --topic calls",
				"skipped offsets g: not looked at: no input topic can be seen", "skipped lag g: not looked at: no input topic can be seen",
			},
		},
		"outputs missing": {
			func(w *world) { _, _ = w.cluster.DeleteTopic(out), w.cluster.DeleteTopic(dead) },
			[]string{
				"skipped right write topic enriched: " + notThere, "skipped right write topic dead: " + notThere,
				"fatal topic enriched: does not exist", "fatal topic dead: does not exist",
			},
		},
		"one input partition":     {func(w *world) { w.topic(in, 1, sound) }, []string{"warning topic calls: 1 partition: one instance does all the work"}},
		"input compacted":         {func(w *world) { w.topic(in, 4, with("cleanup.policy", "compact")) }, []string{"warning cleanup_policy calls: compact: an event is gone"}},
		"enriched compacted":      {func(w *world) { w.topic(out, 4, with("cleanup.policy", "compact")) }, nil},
		"dead letters compacted":  {func(w *world) { w.topic(dead, 4, with("cleanup.policy", "compact")) }, []string{"fatal cleanup_policy dead: compact: a letter without a key is refused"}},
		"dead letters also":       {func(w *world) { w.topic(dead, 4, with("cleanup.policy", "compact,delete")) }, []string{"fatal cleanup_policy dead: compact,delete: a letter"}},
		"dead letters gone soon":  {func(w *world) { w.topic(dead, 4, with("retention.ms", "86400000")) }, []string{"warning retention dead: 24h0m0s: letters of a Friday evening are gone on Monday"}},
		"dead letters for 3 days": {func(w *world) { w.topic(dead, 4, with("retention.ms", "259200000")) }, nil},
		"dead letters for ever":   {func(w *world) { w.topic(dead, 4, with("retention.ms", "-1")) }, nil},
		"input gone soon":         {func(w *world) { w.topic(in, 4, with("retention.ms", "3600000")) }, []string{"warning retention calls: 1h0m0s: events are lost if the service stands still"}},
		"enriched gone soon":      {func(w *world) { w.topic(out, 4, with("retention.ms", "3600000")) }, nil},
		"huge events":             {func(w *world) { w.topic(in, 4, with("max.message.bytes", "2000000")) }, []string{"warning message_size calls: takes events of up to 2000000 bytes, the service writes at most 1048588"}},
		"small dead letters":      {func(w *world) { w.topic(dead, 4, with("max.message.bytes", "1000000")) }, []string{"warning message_size dead: 1000000 bytes, less than the 1048588 that an input takes"}},
		"small enriched records":  {func(w *world) { w.topic(out, 4, with("max.message.bytes", "1000000")) }, []string{"warning message_size enriched: a large enriched record becomes a dead letter"}},
		"small events": {func(w *world) {
			w.topic(in, 4, with("max.message.bytes", "10000"))
			w.topic(dead, 4, with("max.message.bytes", "14096"))
		}, nil},
		"no room for headers": {func(w *world) {
			w.topic(in, 4, with("max.message.bytes", "10000"))
			w.topic(dead, 4, with("max.message.bytes", "14095"))
		}, []string{"warning message_size dead: 14095 bytes, less than the 10000 that an input takes and its headers: the dead letter of a large event only says where the event is → kafka-configs --alter --topic dead --add-config max.message.bytes=14096"}},
		"one in sync": {func(w *world) { w.topic(in, 4, nil); w.topic(out, 4, nil) }, []string{"warning min_insync_replicas calls: 1: ", "warning min_insync_replicas enriched: 1: "}},
		"all in sync": {func(w *world) { w.topic(out, 4, with("min.insync.replicas", "3")) }, []string{"warning min_insync_replicas enriched: 3, as many as there are copies"}},
		"more in sync than there is": {func(w *world) {
			w.topic(in, 4, with("min.insync.replicas", "4"))
			w.topic(dead, 4, with("min.insync.replicas", "4"))
		}, []string{"warning min_insync_replicas calls: 4, more than there are copies (3)", "fatal min_insync_replicas dead: 4, more than there are copies (3)"}},
		"few copies": {
			func(w *world) { w.copies(in, 1, "1"); w.copies(out, 2, "1") },
			[]string{"warning replication calls: one copy of a partition", "warning replication enriched: 2 copies of a partition"},
		},
		"no name of a topic": {
			func(w *world) { w.cfg.Write = []string{out, "no/name"}; w.cfg.DeadLetterTopic = "no/name" },
			[]string{"skipped right write topic no/name: not looked at: ", "fatal topic no/name: "},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c.change(w)
			w.look(c.want...)
		})
	}
}

// copies makes a topic anew with so many copies of each partition.
func (w *world) copies(topic string, n int16, minISR string) {
	w.t.Helper()
	_ = w.cluster.DeleteTopic(topic)
	_, err := kadm.NewClient(w.client()).CreateTopic(context.Background(), 4, n, map[string]*string{"min.insync.replicas": &minISR}, topic)
	if err != nil {
		w.t.Fatal(err)
	}
}

// TestPartitionsAway: partitions without a leader or with copies that lag.
func TestPartitionsAway(t *testing.T) {
	w := newWorld(t)
	told, err := w.cfg.metadata(t.Context(), w.client())
	if err != nil {
		t.Fatal(err)
	}
	p := told.Topics[0].Partitions
	p[1].Leader, p[1].ISR = -1, nil
	p = told.Topics[1].Partitions
	p[2].ISR = p[2].ISR[:1]
	p[3].ISR = p[3].ISR[:2]
	w.cluster.ControlKey(int16(kmsg.Metadata), func(req kmsg.Request) (kmsg.Response, error, bool) {
		w.cluster.KeepControl()
		resp := *told
		resp.Version = req.GetVersion()
		return &resp, nil, true
	})
	w.look(
		"fatal topic calls: 4 partitions, of which [1] have no leader",
		"warning min_insync_replicas calls: 2, but of some partition only 0 are in sync: writes to it are refused",
		"warning replication enriched: 3 copies, but not all are in sync of partitions [2 3]",
		"fatal min_insync_replicas enriched: 2, but of some partition only 1 are in sync: writes to it are refused",
		"skipped lag calls: not looked at: ",
	)
}

// TestBrokerSettings: the worst value of any broker counts, and only beyond its
// limit.
func TestBrokerSettings(t *testing.T) {
	for _, l := range limits {
		t.Run(l.setting, func(t *testing.T) {
			judge := func(values ...int64) Finding {
				var brokers []settings
				for _, v := range values {
					brokers = append(brokers, settings{values: map[string]string{l.setting: strconv.FormatInt(v, 10)}})
				}
				var r Report
				l.judge(&r, brokers)
				return r.Checks[0]
			}
			edge, beyond := l.least, l.least-1
			if l.most > 0 {
				edge, beyond = l.most, l.most+1
			}
			if f := judge(edge); f.Status != OK {
				t.Errorf("at the limit: %+v", f)
			}
			for _, f := range []Finding{judge(beyond), judge(edge, beyond), judge(beyond, edge)} {
				if f.Status != l.status || f.Remedy == "" {
					t.Errorf("beyond the limit: %+v", f)
				}
			}
		})
	}
	w := newWorld(t, kfake.BrokerConfigs(map[string]string{"offset.metadata.max.bytes": "1000", "transaction.max.timeout.ms": "9000"}))
	w.look(
		"fatal broker_config offset.metadata.max.bytes: 1000, less than 4096: ",
		"fatal broker_config transaction.max.timeout.ms: the service's transactions are refused → in the brokers' configuration: transaction.max.timeout.ms=10000",
	)
}

// TestRights: every missing right is listed, with the command that grants it.
func TestRights(t *testing.T) {
	allow := func(r kmsg.ACLResourceType, name string, op kmsg.ACLOperation) kfake.ACL {
		return kfake.ACL{Resource: r, Name: name, Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: op, Allow: true}
	}
	const (
		topics  = kmsg.ACLResourceTypeTopic
		groups  = kmsg.ACLResourceTypeGroup
		ids     = kmsg.ACLResourceTypeTransactionalId
		id      = group + "-" + instance
		noRight = "not looked at: no right to DescribeConfigs"
	)
	unread := func(topics ...string) []string {
		var lines []string
		for _, topic := range topics {
			for _, check := range []string{"min_insync_replicas", "cleanup_policy", "message_size", "retention"} {
				lines = append(lines, "skipped "+check+" "+topic+": "+noRight)
			}
		}
		return lines
	}
	closedBrokers := []string{
		"skipped broker_config all of broker 0: " + noRight, "skipped broker_config all of broker 1: " + noRight, "skipped broker_config all of broker 2: " + noRight,
	}
	for name, c := range map[string]struct {
		acls []kfake.ACL
		want [][]string
	}{
		"none": {nil, [][]string{closedBrokers, {
			"fatal right read topic calls: missing, even to see it → grant it: kafka-acls --add --allow-principal User:enricher --operation Describe --operation Read --topic calls",
			"fatal right write topic enriched: missing, even to see it → grant it: kafka-acls --add --allow-principal User:enricher --operation Describe --operation Write --topic enriched",
			"fatal right write topic dead: missing, even to see it",
			"fatal right use group g: missing → grant it: kafka-acls --add --allow-principal User:enricher --operation Read --group g",
			"fatal right use transactional-id g-a: missing → grant it: kafka-acls --add --allow-principal User:enricher --operation Describe --operation Write --transactional-id g-a",
			"skipped topic calls: not looked at: no right to see it", "skipped topic enriched: not looked at: no right to see it", "skipped topic dead: not looked at: no right to see it",
			"skipped group g: not looked at: no right to see the group", "skipped offsets g: not looked at: no right to see the group", "skipped lag g: not looked at: no right to see the group",
		}}},
		"to describe only": {
			[]kfake.ACL{
				allow(topics, in, kmsg.ACLOperationDescribe), allow(topics, out, kmsg.ACLOperationDescribe), allow(topics, dead, kmsg.ACLOperationDescribe),
				allow(groups, group, kmsg.ACLOperationDescribe), allow(ids, id, kmsg.ACLOperationDescribe),
			},
			[][]string{closedBrokers, unread(in, out, dead), {
				"fatal right read topic calls: missing → ", "fatal right write topic enriched: missing → ", "fatal right write topic dead: missing → ",
				"fatal right use transactional-id g-a: missing",
			}},
		},
		"not to read the group": {
			[]kfake.ACL{
				allow(topics, in, kmsg.ACLOperationRead), allow(topics, out, kmsg.ACLOperationWrite), allow(topics, dead, kmsg.ACLOperationWrite),
				allow(groups, group, kmsg.ACLOperationDescribe), allow(ids, id, kmsg.ACLOperationWrite),
			},
			[][]string{closedBrokers, unread(in, out, dead), {"fatal right use group g: missing"}},
		},
		"what run needs": {
			[]kfake.ACL{
				allow(topics, in, kmsg.ACLOperationRead), allow(topics, out, kmsg.ACLOperationWrite), allow(topics, dead, kmsg.ACLOperationWrite),
				allow(groups, group, kmsg.ACLOperationRead), allow(ids, id, kmsg.ACLOperationWrite),
			},
			[][]string{closedBrokers, unread(in, out, dead)},
		},
		"settings of one topic": {
			[]kfake.ACL{
				allow(topics, "*", kmsg.ACLOperationRead), allow(topics, "*", kmsg.ACLOperationWrite), allow(topics, out, kmsg.ACLOperationDescribeConfigs),
				allow(groups, group, kmsg.ACLOperationRead), allow(ids, id, kmsg.ACLOperationWrite),
			},
			[][]string{closedBrokers, unread(in, dead)},
		},
		"settings as well": {
			[]kfake.ACL{
				allow(topics, "*", kmsg.ACLOperationRead), allow(topics, "*", kmsg.ACLOperationWrite), allow(topics, "*", kmsg.ACLOperationDescribeConfigs),
				allow(kmsg.ACLResourceTypeCluster, "kafka-cluster", kmsg.ACLOperationDescribeConfigs),
				allow(groups, group, kmsg.ACLOperationRead), allow(ids, id, kmsg.ACLOperationWrite),
			},
			nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, kfake.EnableSASL(), kfake.EnableACLs(), kfake.User("SCRAM-SHA-256", "enricher", password, c.acls...))
			w.cfg.Kafka = append(w.cfg.Kafka, kgo.SASL(scram.Auth{User: "enricher", Pass: password}.AsSha256Mechanism()))
			w.cfg.SASLMechanism, w.cfg.SASLUser, w.cfg.Principal = "SCRAM-SHA-256", "enricher", "User:enricher"
			var want []string
			for _, lines := range c.want {
				want = append(want, lines...)
			}
			w.look(want...)
		})
	}
}
