package replay_test

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"

	"enricher/producer"
	"enricher/producer/replay"
)

const otherTopic = "other-calls"

// allow returns an ACL for the user of TestMissingWritePermission.
func allow(resource kmsg.ACLResourceType, name string, operation kmsg.ACLOperation) kfake.ACL {
	return kfake.ACL{Resource: resource, Name: name, Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: operation, Allow: true}
}

func login(user string) kgo.Opt {
	return kgo.SASL(plain.Auth{User: user, Pass: "pw"}.AsMechanism())
}

// TestMissingWritePermission replays to two topics, of which the user may write to one
// only, or to none. The run says at once which permission is missing on which topic,
// also where the client gives the records of both topics the same error. Nothing is
// replayed that it says it did not; once the user has the permission, each dead letter
// is replayed once.
func TestMissingWritePermission(t *testing.T) {
	for name, c := range map[string]struct {
		allowed []kfake.ACL
		denied  string
	}{
		"neither write nor describe":    {[]kfake.ACL{allow(kmsg.ACLResourceTypeTopic, otherTopic, kmsg.ACLOperationWrite)}, inTopic},
		"no write to the first topic":   {[]kfake.ACL{allow(kmsg.ACLResourceTypeTopic, inTopic, kmsg.ACLOperationDescribe), allow(kmsg.ACLResourceTypeTopic, otherTopic, kmsg.ACLOperationWrite)}, inTopic},
		"no write to the second topic":  {[]kfake.ACL{allow(kmsg.ACLResourceTypeTopic, inTopic, kmsg.ACLOperationWrite), allow(kmsg.ACLResourceTypeTopic, otherTopic, kmsg.ACLOperationRead)}, otherTopic},
		"no write to any of the topics": {[]kfake.ACL{allow(kmsg.ACLResourceTypeTopic, inTopic, kmsg.ACLOperationRead), allow(kmsg.ACLResourceTypeTopic, otherTopic, kmsg.ACLOperationRead)}, inTopic},
	} {
		for _, version := range []int16{0, 2} {
			t.Run(fmt.Sprint(name, ", transaction.version ", version), func(t *testing.T) {
				acls := append([]kfake.ACL{
					allow(kmsg.ACLResourceTypeTopic, deadTopic, kmsg.ACLOperationRead),
					allow(kmsg.ACLResourceTypeTopic, journal, kmsg.ACLOperationRead),
					allow(kmsg.ACLResourceTypeTopic, journal, kmsg.ACLOperationWrite),
					allow(kmsg.ACLResourceTypeTopic, journal, kmsg.ACLOperationDescribeConfigs),
					allow(kmsg.ACLResourceTypeTransactionalId, replay.TransactionalID(deadTopic), kmsg.ACLOperationWrite),
				}, c.allowed...)
				cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, inTopic, otherTopic, deadTopic),
					kfake.EnableSASL(), kfake.EnableACLs(), kfake.Superuser("PLAIN", "admin", "pw"), kfake.User("PLAIN", "user", "pw", acls...))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(cluster.Close)
				e := joinEnv(t, new(net.Dialer).DialContext, cluster.ListenAddrs(), login("admin"))
				e.setTransactionVersion(version)
				e.feed(6)
				other, failure := event(100)
				other.Topic = otherTopic
				e.produce((&producer.RecordBuilder{DeadLetterTopic: deadTopic}).DeadLetter(other, failure))
				none := e.job()
				none.Limit, none.Reasons = 1, nil
				none.Until = other.Timestamp.AddDate(-1, 0, 0)
				if _, err := replay.Run(t.Context(), none, &watch{t: t}); err != nil { // creates the journal
					t.Fatal(err)
				}

				j := e.job()
				j.Kafka = []kgo.Opt{kgo.SeedBrokers(e.brokers...), login("user")}
				o := &watch{t: t}
				result, err := replay.Run(t.Context(), j, o)
				var denied *producer.NotAuthorizedError
				if !errors.As(err, &denied) || !slices.Equal(denied.Operations, []string{"Write"}) || denied.ResourceType != "topic" || denied.Resource != c.denied {
					t.Errorf("%v, want a missing permission Write on topic %s", err, c.denied)
				}
				if result.Completed != 0 || o.retries.Load() != 0 || len(o.refused) != 0 {
					t.Errorf("%d completed, %d retries, refused %v", result.Completed, o.retries.Load(), o.refused)
				}
				e.checkReplayed(func(int) bool { return false })
				if got := len(e.read(otherTopic)); got != 0 {
					t.Errorf("%d events in %s", got, otherTopic)
				}

				result, err = replay.Run(t.Context(), e.job(), &watch{t: t})
				if err != nil || result.Completed != 7 {
					t.Errorf("with the permission: %d completed, %v", result.Completed, err)
				}
				e.checkReplayed(all)
				if got := len(e.read(otherTopic)); got != 1 {
					t.Errorf("%d events in %s, want 1", got, otherTopic)
				}
			})
		}
	}
}
