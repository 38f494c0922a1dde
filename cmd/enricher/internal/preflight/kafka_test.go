package preflight

import (
	"context"
	"crypto/tls"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/test/harness"
	"enricher/test/kafka"
)

// TestKafkaIsCheckedWithoutChanges checks a real Kafka that is new and empty at
// first. KAFKA_TESTS=1 starts it.
func TestKafkaIsCheckedWithoutChanges(t *testing.T) {
	_, c := harness.OwnKafka(t, kafka.Config{Properties: map[string]string{
		"authorizer.class.name":          "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
		"allow.everyone.if.no.acl.found": "true",
	}})
	w := connectEnv(t, c.Brokers)
	adm := kadm.NewClient(w.client())
	unchanged := func(want ...string) {
		t.Helper()
		before := w.snapshot()
		w.check(append(want, ofVersion()...)...)
		if after := w.snapshot(); after != before {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
	}

	unchanged(
		"skipped permission read topic calls: ", "skipped permission write topic enriched: ", "skipped permission write topic dead: ",
		"fatal topic calls: does not exist", "fatal topic enriched: does not exist", "fatal topic dead: does not exist",
		"skipped offsets g: ", "skipped lag g: ",
	)
	if s := w.snapshot(); strings.Contains(s, "__") {
		t.Errorf("internal topics were created:\n%s", s)
	}

	created, err := adm.CreateTopics(t.Context(), 4, 1, nil, in, out, dead)
	if err == nil {
		err = created.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
	w.awaitLeaders()
	single := []string{"warning replication calls: one replica", "warning replication enriched: one replica", "warning replication dead: one replica"}
	unchanged(single...)

	t.Run("permissions", func(t *testing.T) {
		w.t = t
		// A resource with an ACL is closed to every user that no ACL names.
		allow := func() *kadm.ACLBuilder {
			return kadm.NewACLs().Allow("User:ANONYMOUS").AllowHosts("*").ResourcePatternType(kadm.ACLPatternLiteral)
		}
		for _, b := range []*kadm.ACLBuilder{
			allow().Topics(in).Operations(kmsg.ACLOperationRead),
			allow().Topics(out).Operations(kmsg.ACLOperationDescribe, kmsg.ACLOperationDescribeConfigs),
			allow().Topics(dead).Operations(kmsg.ACLOperationCreate),
			allow().Groups(group).Operations(kmsg.ACLOperationDescribe),
			allow().TransactionalIDs(w.cfg.TransactionalID).Operations(kmsg.ACLOperationDescribe),
		} {
			created, err := adm.CreateACLs(t.Context(), b)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range created {
				if c.Err != nil {
					t.Fatal(c.Err)
				}
			}
		}
		w.awaitProblems(4)
		const unread = ": not authorized to describe the configuration"
		w.check(append(ofVersion(),
			"fatal permission write topic enriched: missing → grant access with: kafka-acls --add --allow-principal User:… --operation Describe --operation Write --topic enriched",
			"fatal permission write topic dead: missing, as is the one to describe it",
			"fatal permission use group g: missing", "fatal permission use transactional-id g/a: missing",
			"skipped topic dead: ", single[0], single[1],
			"skipped min_insync_replicas calls"+unread, "skipped cleanup_policy calls"+unread, "skipped message_size calls"+unread, "skipped retention calls"+unread,
		)...)
		all := kadm.NewACLs().AnyResource().Allow("User:ANONYMOUS").AllowHosts().Operations(kmsg.ACLOperationAny).ResourcePatternType(kadm.ACLPatternAny)
		if _, err := adm.DeleteACLs(t.Context(), all); err != nil {
			t.Fatal(err)
		}
		w.awaitProblems(0)
	})
	w.t = t

	w.fill(1, 3)
	w.commit(1, 2, "enricher/2 AAAA")
	if s := w.snapshot(); !strings.Contains(s, "__consumer_offsets") {
		t.Errorf("the snapshot does not show internal topics, so it could not have shown new ones:\n%s", s)
	}
	w.client(kgo.ClientID(instance+"@1700000000000000000"), kgo.ConsumerGroup(group), kgo.ConsumeTopics(in), kgo.Balancers(kgo.CooperativeStickyBalancer()), kgo.DisableAutoCommit())
	w.awaitStable(adm)
	unchanged(append(single,
		"warning instance a: already running",
		`fatal offsets g: unreadable metadata: calls[1]: offset metadata was written by a newer version of enricher (version "2"`)...)

	w.cfg.TLS = true
	w.cfg.Kafka = append(w.cfg.Kafka, kgo.DialTLSConfig(&tls.Config{}))
	w.check("fatal seed_broker "+c.Brokers[0]+": TLS: not a TLS port", noBroker)
}

// ofVersion returns the findings about the version of Kafka that is tested.
func ofVersion() []string {
	var findings []string
	if slices.ContainsFunc(losingMarkers, func(release string) bool { return strings.HasPrefix(kafka.Version(), release) }) {
		findings = append(findings, "warning transaction_bug cluster: ")
	}
	if kafka.TransactionVersion() < 2 {
		findings = append(findings, "warning transaction_version cluster: ")
	}
	return findings
}

// await waits until done returns true.
func (w *env) await(what string, done func(context.Context) bool) {
	w.t.Helper()
	for start := time.Now(); !done(w.t.Context()); <-time.After(50 * time.Millisecond) {
		if time.Since(start) > 30*time.Second {
			w.t.Fatal("timed out waiting: ", what)
		}
	}
}

func (w *env) awaitLeaders() {
	w.t.Helper()
	cl := w.client()
	w.await("leaders of all partitions", func(ctx context.Context) bool {
		m, err := w.cfg.metadata(ctx, cl)
		if err != nil {
			return false
		}
		for _, t := range m.Topics {
			for _, p := range t.Partitions {
				if p.Leader < 0 || len(p.ISR) == 0 {
					return false
				}
			}
		}
		return true
	})
}

// awaitProblems waits until n topics and permissions are missing.
func (w *env) awaitProblems(n int) {
	w.t.Helper()
	cl := w.client()
	w.await("the permissions have changed", func(ctx context.Context) bool {
		problems, err := w.cfg.Problems(ctx, cl)
		return err == nil && len(problems) == n
	})
}

func (w *env) awaitStable(adm *kadm.Client) {
	w.t.Helper()
	w.await("the group is stable", func(ctx context.Context) bool {
		groups, err := adm.DescribeGroups(ctx, group)
		return err == nil && groups[group].State == "Stable"
	})
}
