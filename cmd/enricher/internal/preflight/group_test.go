package preflight

import (
	"context"
	"encoding/base64"
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/consumer"
	"enricher/consumer/session"
)

// join makes a member of the group and waits until it is one.
func (w *world) join(clientID string, balancer kgo.GroupBalancer) {
	w.t.Helper()
	w.client(kgo.ClientID(clientID), kgo.ConsumerGroup(group), kgo.ConsumeTopics(in), kgo.Balancers(balancer), kgo.DisableAutoCommit())
	if _, err := w.cluster.WaitGroupStable(w.t.Context(), group, -1); err != nil {
		w.t.Fatal(err)
	}
}

// ours is metadata as this version writes it, for a topic of this id.
func ours(id [16]byte) string {
	return "enricher/1 " + base64.RawStdEncoding.EncodeToString(id[:])
}

// TestGroup: who is in it, and what it has committed.
func TestGroup(t *testing.T) {
	sticky := kgo.CooperativeStickyBalancer()
	for name, c := range map[string]struct {
		change func(*world)
		want   []string
	}{
		"other instances": {
			func(w *world) { w.join("b@1700000000000000000", sticky) }, nil,
		},
		"this instance": {
			func(w *world) { w.join(instance+"@1700000000000000000", sticky) },
			[]string{"warning instance a: runs already → nothing, if that is the very service"},
		},
		"a stranger": {
			func(w *world) { w.join("billing", sticky) },
			[]string{"warning group g: no member; besides, members that are no enricher take partitions away: billing"},
		},
		"strangers of another kind": {
			func(w *world) { w.join("billing", kgo.RangeBalancer()) },
			[]string{"fatal group g: its members (billing) assign partitions by range, the service only by cooperative-sticky"},
		},
		"offsets of our own": {
			func(w *world) { w.fill(1, 3); w.commit(1, 2, ours(w.cluster.TopicInfo(in).TopicID)) }, nil,
		},
		"offsets of an operator": {
			func(w *world) { w.fill(1, 3); w.commit(1, 2, "reset by hand") }, nil,
		},
		"a newer version": {
			func(w *world) { w.fill(1, 3); w.commit(1, 2, "enricher/2 AAAA"); w.commit(2, 0, "enricher/1 !") },
			[]string{`fatal offsets g: not understood: calls[1]: offset metadata was written by a newer version of enricher (version "2", this one knows version 1); calls[2]: offset metadata is damaged → run the version that wrote them`},
		},
		"an earlier topic": {
			func(w *world) { w.fill(1, 3); w.commit(1, 2, ours([16]byte{7})) },
			[]string{"warning offsets g: for 1 of 4 partitions those of an earlier topic of the same name"},
		},
		"above the end": {
			func(w *world) { w.fill(1, 3); w.commit(1, 4, "") },
			[]string{"warning offsets g: above the end of 1 of 4 partitions: the topic was truncated"},
		},
		"at the end": {
			func(w *world) { w.fill(1, 3); w.commit(1, 3, "") }, nil,
		},
		"events lost": {
			func(w *world) {
				w.fill(1, 5)
				w.commit(1, 2, "")
				if err := w.cluster.DeleteRecords(in, 1, 3); err != nil {
					w.t.Fatal(err)
				}
			},
			[]string{"warning offsets g: 1 event deleted before the service read them"},
		},
		"none, to start nowhere": {
			func(w *world) { w.commit(1, 0, ""); w.cfg.Start = consumer.None },
			[]string{"fatal offsets g: none for 3 of 4 partitions, and --start is fail → kafka-consumer-groups --group g --reset-offsets"},
		},
		"all, to start nowhere": {
			func(w *world) {
				for p := range int32(4) {
					w.commit(p, 0, "")
				}
				w.cfg.Start = consumer.None
			}, nil,
		},
		"more to read than time": {
			func(w *world) { w.fill(0, 100); w.cfg.APIRate = 100.0 / (8 * 24 * 3600) },
			[]string{"warning lag calls: 100 events to read, 8 days at most at 0.000144"},
		},
		"no limit, no time": {
			func(w *world) { w.fill(0, 100); w.cfg.APIRate = 0 }, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c.change(w)
			w.look(c.want...)
		})
	}
}

// TestForeignGroup: the group is one of another protocol.
func TestForeignGroup(t *testing.T) {
	w := newWorld(t)
	w.cluster.ControlKey(int16(kmsg.DescribeGroups), func(req kmsg.Request) (kmsg.Response, error, bool) {
		w.cluster.KeepControl()
		resp := req.ResponseKind().(*kmsg.DescribeGroupsResponse)
		g := kmsg.NewDescribeGroupsResponseGroup()
		g.Group, g.State, g.ProtocolType = group, "Stable", "connect"
		resp.Groups = append(resp.Groups, g)
		return resp, nil, true
	})
	w.look("fatal group g: is in use for something else (connect) → give the service a --group of its own")
}

// TestCoordinatorAway: a group that nobody speaks for may be one of a broker
// that is away.
func TestCoordinatorAway(t *testing.T) {
	w := newWorld(t)
	addr := closed(t)
	w.advertise(addr, false)
	w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeGroups, kmsg.OffsetFetch}, Group: group, Err: kerr.NotCoordinator, Count: -1})
	const why = ": not looked at: none of the brokers that answer coordinates it"
	w.look("warning broker "+addr+": TCP: nobody listens there", "skipped group g"+why, "skipped offsets g"+why, "skipped lag g"+why)
}

// TestTake: where the service would go on, and what that costs.
func TestTake(t *testing.T) {
	id := [16]byte{1}
	at := func(offset int64, metadata string) session.Offset {
		return session.Offset{Topic: in, Offset: offset, Metadata: metadata}
	}
	for _, c := range []struct {
		o      session.Offset
		policy consumer.AutoOffsetReset
		want   int64
	}{
		{at(-1, ""), consumer.Earliest, 10},
		{at(-1, ""), consumer.Latest, 20},
		{at(15, ""), consumer.Latest, 15},
		{at(15, ours(id)), consumer.Earliest, 15},
		{at(15, ours([16]byte{2})), consumer.Latest, 10},
		{at(5, ""), consumer.Latest, 10},
		{at(21, ""), consumer.Latest, 10},
	} {
		var s resumable
		if got := s.take(id, c.o, 10, 20, c.policy); got != c.want {
			t.Errorf("%+v, %s: %d, want %d", c.o, c.policy, got, c.want)
		}
	}
}

// TestJudgeLag: time to drain against what keeps events and calls.
func TestJudgeLag(t *testing.T) {
	const day = int64(24 * 3600)
	for _, c := range []struct {
		retention string // ms
		lag       int64  // at one call a second
		want      Status
	}{
		{"-1", 6 * day, OK},
		{"-1", 8 * day, Warning},                              // the API forgets
		{fmt.Sprint(3 * day * 1000), 2 * day, OK},             //
		{fmt.Sprint(3 * day * 1000), 4 * day, Warning},        // retention deletes
		{fmt.Sprint(int64(1) << 62), 6 * day, OK},             // as good as for ever
		{fmt.Sprint(3 * day * 1000), int64(1) << 62, Warning}, // no overflow
	} {
		topic := &topic{name: in, settings: settings{values: map[string]string{"retention.ms": c.retention, "cleanup.policy": "delete"}}}
		var r Report
		topic.judgeLag(&r, c.lag, 1)
		if r.Checks[0].Status != c.want {
			t.Errorf("lag %d, retention %s: %+v", c.lag, c.retention, r.Checks[0])
		}
	}
}

// TestNothingChanges: whatever is looked at, and whatever is missing, the
// cluster is afterwards as it was, even one that creates a topic as soon as
// somebody asks for it.
func TestNothingChanges(t *testing.T) {
	w := newWorld(t, kfake.AllowAutoTopicCreation())
	_ = w.cluster.DeleteTopic(out)
	before := w.snapshot()
	w.look("skipped right write topic enriched: not looked at: ", "fatal topic enriched: does not exist")
	if after := w.snapshot(); after != before {
		t.Errorf("was\n%s\nis\n%s", before, after)
	}
	if g := w.cluster.GroupInfo(group); g != nil {
		t.Errorf("there is a group: %+v", g)
	}
}

// snapshot is all topics, internal ones too, with their settings and ends, all
// groups with what they have committed, and all transactional ids; asked by a
// client that remembers nothing.
func (w *world) snapshot() string {
	w.t.Helper()
	ctx := context.Background()
	adm := kadm.NewClient(w.client())
	must := func(err error) {
		w.t.Helper()
		if err != nil {
			w.t.Fatal(err)
		}
	}
	topics, err := adm.ListTopicsWithInternal(ctx)
	must(err)
	text := fmt.Sprintln("topics", topics.Names())
	if len(topics) > 0 {
		ends, err := adm.ListEndOffsets(ctx, topics.Names()...)
		must(err)
		for _, o := range ends.Offsets().Sorted() {
			text += fmt.Sprintln(o.Topic, o.Partition, o.At)
		}
		configs, err := adm.DescribeTopicConfigs(ctx, topics.Names()...)
		must(err)
		for _, name := range topics.Names() {
			c, err := configs.On(name, nil)
			must(err)
			n := 0
			for _, s := range c.Configs {
				n += len(s.Key) + len(s.MaybeValue())
			}
			text += fmt.Sprintln(name, n)
		}
	}
	groups, err := adm.ListGroups(ctx)
	must(err)
	text += fmt.Sprintln("groups", groups.Groups())
	for _, g := range groups.Groups() {
		offsets, err := adm.FetchOffsets(ctx, g)
		must(err)
		for _, o := range offsets.Sorted() {
			text += fmt.Sprintln(g, o.Topic, o.Partition, o.At, o.Metadata)
		}
	}
	ids, err := adm.ListTransactions(ctx, nil, nil)
	must(err)
	return text + fmt.Sprintln("transactional ids", ids.TransactionalIDs())
}
