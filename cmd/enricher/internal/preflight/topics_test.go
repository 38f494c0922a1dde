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

// TestTopicProblems covers each way in which a topic is missing or unsuitable for its
// role.
func TestTopicProblems(t *testing.T) {
	const missing = "the topic does not exist"
	for name, c := range map[string]struct {
		change func(*env)
		want   []string
	}{
		"input missing": {
			func(w *env) { _ = w.cluster.DeleteTopic(in) },
			[]string{
				"skipped permission read topic calls: " + missing,
				"fatal topic calls: does not exist → create it with: kafka-topics --create --topic calls",
				"skipped offsets g: no input topic is visible", "skipped lag g: no input topic is visible",
			},
		},
		"outputs missing": {
			func(w *env) { _, _ = w.cluster.DeleteTopic(out), w.cluster.DeleteTopic(dead) },
			[]string{
				"skipped permission write topic enriched: " + missing, "skipped permission write topic dead: " + missing,
				"fatal topic enriched: does not exist", "fatal topic dead: does not exist",
			},
		},
		"one input partition":                {func(w *env) { w.topic(in, 1, healthy) }, []string{"warning topic calls: 1 partition: one instance does all the work"}},
		"input compacted":                    {func(w *env) { w.topic(in, 4, with("cleanup.policy", "compact")) }, []string{"warning cleanup_policy calls: compact: an event is deleted"}},
		"enriched compacted":                 {func(w *env) { w.topic(out, 4, with("cleanup.policy", "compact")) }, nil},
		"dead letters compacted":             {func(w *env) { w.topic(dead, 4, with("cleanup.policy", "compact")) }, []string{"fatal cleanup_policy dead: compact: dead letters without a key are rejected"}},
		"dead letters compacted and deleted": {func(w *env) { w.topic(dead, 4, with("cleanup.policy", "compact,delete")) }, []string{"fatal cleanup_policy dead: compact,delete: dead letters"}},
		"dead letters deleted soon":          {func(w *env) { w.topic(dead, 4, with("retention.ms", "86400000")) }, []string{"warning retention dead: 24h0m0s: a Friday dead letter is deleted before Monday"}},
		"dead letters kept for 3 days":       {func(w *env) { w.topic(dead, 4, with("retention.ms", "259200000")) }, nil},
		"dead letters kept forever":          {func(w *env) { w.topic(dead, 4, with("retention.ms", "-1")) }, nil},
		"input deleted soon":                 {func(w *env) { w.topic(in, 4, with("retention.ms", "3600000")) }, []string{"warning retention calls: 1h0m0s: a weekend outage would lose events"}},
		"enriched deleted soon":              {func(w *env) { w.topic(out, 4, with("retention.ms", "3600000")) }, nil},
		"huge events":                        {func(w *env) { w.topic(in, 4, with("max.message.bytes", "2000000")) }, []string{"warning message_size calls: accepts events of up to 2000000 bytes, but the service writes at most 1048588"}},
		"small dead letters":                 {func(w *env) { w.topic(dead, 4, with("max.message.bytes", "1000000")) }, []string{"warning message_size dead: 1000000 bytes, less than the 1048588 that an input topic accepts"}},
		"small enriched records":             {func(w *env) { w.topic(out, 4, with("max.message.bytes", "1000000")) }, []string{"warning message_size enriched: a large enriched record becomes a dead letter"}},
		"small events": {func(w *env) {
			w.topic(in, 4, with("max.message.bytes", "10000"))
			w.topic(dead, 4, with("max.message.bytes", "14096"))
		}, nil},
		"no room for headers": {func(w *env) {
			w.topic(in, 4, with("max.message.bytes", "10000"))
			w.topic(dead, 4, with("max.message.bytes", "14095"))
		}, []string{"warning message_size dead: 14095 bytes, less than the 10000 that an input topic accepts plus headers: the dead letter of a large event contains only its position → kafka-configs --alter --topic dead --add-config max.message.bytes=14096"}},
		"one replica in sync required":  {func(w *env) { w.topic(in, 4, nil); w.topic(out, 4, nil) }, []string{"warning min_insync_replicas calls: 1: ", "warning min_insync_replicas enriched: 1: "}},
		"all replicas in sync required": {func(w *env) { w.topic(out, 4, with("min.insync.replicas", "3")) }, []string{"warning min_insync_replicas enriched: 3, as many as there are replicas"}},
		"more replicas in sync required than exist": {func(w *env) {
			w.topic(in, 4, with("min.insync.replicas", "4"))
			w.topic(dead, 4, with("min.insync.replicas", "4"))
		}, []string{"warning min_insync_replicas calls: 4, more than there are replicas (3)", "fatal min_insync_replicas dead: 4, more than there are replicas (3)"}},
		"few replicas": {
			func(w *env) { w.replicas(in, 1, "1"); w.replicas(out, 2, "1") },
			[]string{"warning replication calls: one replica of a partition", "warning replication enriched: 2 replicas of a partition"},
		},
		"invalid topic name": {
			func(w *env) { w.cfg.Write = []string{out, "no/name"}; w.cfg.DeadLetterTopic = "no/name" },
			[]string{"skipped permission write topic no/name: ", "fatal topic no/name: "},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newEnv(t)
			c.change(w)
			w.check(c.want...)
		})
	}
}

// replicas re-creates a topic with n replicas of each partition.
func (w *env) replicas(topic string, n int16, minISR string) {
	w.t.Helper()
	_ = w.cluster.DeleteTopic(topic)
	_, err := kadm.NewClient(w.client()).CreateTopic(context.Background(), 4, n, map[string]*string{"min.insync.replicas": &minISR}, topic)
	if err != nil {
		w.t.Fatal(err)
	}
}

// TestUnavailablePartitions: partitions without a leader, or with replicas that are
// not in sync.
func TestUnavailablePartitions(t *testing.T) {
	w := newEnv(t)
	metadata, err := w.cfg.metadata(t.Context(), w.client())
	if err != nil {
		t.Fatal(err)
	}
	p := metadata.Topics[0].Partitions
	p[1].Leader, p[1].ISR = -1, nil
	p = metadata.Topics[1].Partitions
	p[2].ISR = p[2].ISR[:1]
	p[3].ISR = p[3].ISR[:2]
	w.cluster.ControlKey(int16(kmsg.Metadata), func(req kmsg.Request) (kmsg.Response, error, bool) {
		w.cluster.KeepControl()
		resp := *metadata
		resp.Version = req.GetVersion()
		return &resp, nil, true
	})
	w.check(
		"fatal topic calls: 4 partitions, of which [1] have no leader",
		"warning min_insync_replicas calls: 2, but some partition has only 0 replicas in sync: writes to it are rejected",
		"warning replication enriched: 3 replicas, but not all are in sync for partitions [2 3]",
		"fatal min_insync_replicas enriched: 2, but some partition has only 1 replica in sync: writes to it are rejected",
		"skipped lag calls: ",
	)
}

// TestBrokerSettingLimits: the worst value of all brokers is judged, and reported only
// beyond its limit.
func TestBrokerSettingLimits(t *testing.T) {
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
	w := newEnv(t, kfake.BrokerConfigs(map[string]string{"offset.metadata.max.bytes": "1000", "transaction.max.timeout.ms": "9000"}))
	w.check(
		"fatal broker_config offset.metadata.max.bytes: 1000, less than 4096: ",
		"fatal broker_config transaction.max.timeout.ms: the service's transactions are rejected → in the brokers' configuration: transaction.max.timeout.ms=10000",
	)
}

// TestMissingPermissionsAreListed: every missing permission is listed, with the
// command that grants it.
func TestMissingPermissionsAreListed(t *testing.T) {
	allow := func(r kmsg.ACLResourceType, name string, op kmsg.ACLOperation) kfake.ACL {
		return kfake.ACL{Resource: r, Name: name, Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: op, Allow: true}
	}
	const (
		topics = kmsg.ACLResourceTypeTopic
		groups = kmsg.ACLResourceTypeGroup
		ids    = kmsg.ACLResourceTypeTransactionalId
		id     = group + "/" + instance
		denied = "not authorized to describe the configuration"
	)
	unread := func(topics ...string) []string {
		var lines []string
		for _, topic := range topics {
			for _, check := range []string{"min_insync_replicas", "cleanup_policy", "message_size", "retention"} {
				lines = append(lines, "skipped "+check+" "+topic+": "+denied)
			}
		}
		return lines
	}
	closedBrokers := []string{
		"skipped broker_config all of broker 0: " + denied, "skipped broker_config all of broker 1: " + denied, "skipped broker_config all of broker 2: " + denied,
	}
	for name, c := range map[string]struct {
		acls []kfake.ACL
		want [][]string
	}{
		"none": {nil, [][]string{closedBrokers, {
			"fatal permission read topic calls: missing, as is the one to describe it → grant access with: kafka-acls --add --allow-principal User:enricher --operation Describe --operation Read --topic calls",
			"fatal permission write topic enriched: missing, as is the one to describe it → grant access with: kafka-acls --add --allow-principal User:enricher --operation Describe --operation Write --topic enriched",
			"fatal permission write topic dead: missing, as is the one to describe it",
			"fatal permission use group g: missing → grant access with: kafka-acls --add --allow-principal User:enricher --operation Read --group g",
			"fatal permission use transactional-id g/a: missing → grant access with: kafka-acls --add --allow-principal User:enricher --operation Describe --operation Write --transactional-id g/a",
			"skipped topic calls: not authorized to describe it", "skipped topic enriched: not authorized to describe it", "skipped topic dead: not authorized to describe it",
			"skipped group g: not authorized to describe the group", "skipped offsets g: not authorized to describe the group", "skipped lag g: not authorized to describe the group",
		}}},
		"only to describe": {
			[]kfake.ACL{
				allow(topics, in, kmsg.ACLOperationDescribe), allow(topics, out, kmsg.ACLOperationDescribe), allow(topics, dead, kmsg.ACLOperationDescribe),
				allow(groups, group, kmsg.ACLOperationDescribe), allow(ids, id, kmsg.ACLOperationDescribe),
			},
			[][]string{closedBrokers, unread(in, out, dead), {
				"fatal permission read topic calls: missing → ", "fatal permission write topic enriched: missing → ", "fatal permission write topic dead: missing → ",
				"fatal permission use transactional-id g/a: missing",
			}},
		},
		"all but reading the group": {
			[]kfake.ACL{
				allow(topics, in, kmsg.ACLOperationRead), allow(topics, out, kmsg.ACLOperationWrite), allow(topics, dead, kmsg.ACLOperationWrite),
				allow(groups, group, kmsg.ACLOperationDescribe), allow(ids, id, kmsg.ACLOperationWrite),
			},
			[][]string{closedBrokers, unread(in, out, dead), {"fatal permission use group g: missing"}},
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
			w := newEnv(t, kfake.EnableSASL(), kfake.EnableACLs(), kfake.User("SCRAM-SHA-256", "enricher", password, c.acls...))
			w.cfg.Kafka = append(w.cfg.Kafka, kgo.SASL(scram.Auth{User: "enricher", Pass: password}.AsSha256Mechanism()))
			w.cfg.SASLMechanism, w.cfg.SASLUser, w.cfg.Principal = "SCRAM-SHA-256", "enricher", "User:enricher"
			var want []string
			for _, lines := range c.want {
				want = append(want, lines...)
			}
			w.check(want...)
		})
	}
}
