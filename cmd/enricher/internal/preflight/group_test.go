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

// join adds a member to the group and waits until the group is stable.
func (w *env) join(clientID string, balancer kgo.GroupBalancer) {
	w.t.Helper()
	w.client(kgo.ClientID(clientID), kgo.ConsumerGroup(group), kgo.ConsumeTopics(in), kgo.Balancers(balancer), kgo.DisableAutoCommit())
	if _, err := w.cluster.WaitGroupStable(w.t.Context(), group, -1); err != nil {
		w.t.Fatal(err)
	}
}

// metadata returns offset metadata as this version writes it, for a topic with this
// id.
func metadata(id [16]byte) string {
	return "enricher/1 " + base64.RawStdEncoding.EncodeToString(id[:])
}

func TestGroupAndOffsetProblems(t *testing.T) {
	sticky := kgo.CooperativeStickyBalancer()
	for name, c := range map[string]struct {
		change func(*env)
		want   []string
	}{
		"other instances": {
			func(w *env) { w.join("b@1700000000000000000", sticky) }, nil,
		},
		"this instance": {
			func(w *env) { w.join(instance+"@1700000000000000000", sticky) },
			[]string{"warning instance a: already running → ignore this if it is the instance you are checking"},
		},
		"another client": {
			func(w *env) { w.join("billing", sticky) },
			[]string{"warning group g: no member; other clients in the group take partitions: billing"},
		},
		"clients with another assignment": {
			func(w *env) { w.join("billing", kgo.RangeBalancer()) },
			[]string{"fatal group g: its members (billing) assign partitions by range; the service supports only cooperative-sticky"},
		},
		"offsets of this version": {
			func(w *env) { w.fill(1, 3); w.commit(1, 2, metadata(w.cluster.TopicInfo(in).TopicID)) }, nil,
		},
		"offsets set by an operator": {
			func(w *env) { w.fill(1, 3); w.commit(1, 2, "reset by hand") }, nil,
		},
		"offsets of a newer version": {
			func(w *env) { w.fill(1, 3); w.commit(1, 2, "enricher/2 AAAA"); w.commit(2, 0, "enricher/1 !") },
			[]string{`fatal offsets g: unreadable metadata: calls[1]: offset metadata was written by a newer version of enricher (version "2", this one knows version 1); calls[2]: offset metadata is damaged → run the version that wrote it`},
		},
		"offsets of an earlier topic": {
			func(w *env) { w.fill(1, 3); w.commit(1, 2, metadata([16]byte{7})) },
			[]string{"warning offsets g: for 1 of 4 partitions, committed for an earlier topic of the same name"},
		},
		"offset beyond the end": {
			func(w *env) { w.fill(1, 3); w.commit(1, 4, "") },
			[]string{"warning offsets g: beyond the end of 1 of 4 partitions: the topic was truncated"},
		},
		"offset at the end": {
			func(w *env) { w.fill(1, 3); w.commit(1, 3, "") }, nil,
		},
		"events lost": {
			func(w *env) {
				w.fill(1, 5)
				w.commit(1, 2, "")
				if err := w.cluster.DeleteRecords(in, 1, 3); err != nil {
					w.t.Fatal(err)
				}
			},
			[]string{"warning offsets g: 1 event deleted before the service read them"},
		},
		"no offsets without a reset": {
			func(w *env) { w.commit(1, 0, ""); w.cfg.Start = consumer.None },
			[]string{"fatal offsets g: none for 3 of 4 partitions, and --auto-offset-reset is none → kafka-consumer-groups --group g --reset-offsets"},
		},
		"all offsets without a reset": {
			func(w *env) {
				for p := range int32(4) {
					w.commit(p, 0, "")
				}
				w.cfg.Start = consumer.None
			}, nil,
		},
		"more events than the API keeps": {
			func(w *env) { w.fill(0, 100); w.cfg.APIRate = 100.0 / (8 * 24 * 3600) },
			[]string{"warning lag calls: 100 events to read, at most 8 days at 0.000144"},
		},
		"unlimited rate": {
			func(w *env) { w.fill(0, 100); w.cfg.APIRate = 0 }, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newEnv(t)
			c.change(w)
			w.check(c.want...)
		})
	}
}

func TestGroupOfAnotherProtocol(t *testing.T) {
	w := newEnv(t)
	w.cluster.ControlKey(int16(kmsg.DescribeGroups), func(req kmsg.Request) (kmsg.Response, error, bool) {
		w.cluster.KeepControl()
		resp := req.ResponseKind().(*kmsg.DescribeGroupsResponse)
		g := kmsg.NewDescribeGroupsResponseGroup()
		g.Group, g.State, g.ProtocolType = group, "Stable", "connect"
		resp.Groups = append(resp.Groups, g)
		return resp, nil, true
	})
	w.check("fatal group g: is in use for another protocol (connect) → use another --group for the service")
}

// TestCoordinatorUnavailable: the coordinator of a group without a coordinator among
// the brokers that respond may be a broker that does not.
func TestCoordinatorUnavailable(t *testing.T) {
	w := newEnv(t)
	addr := closed(t)
	w.advertise(addr, false)
	w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeGroups, kmsg.OffsetFetch}, Group: group, Err: kerr.NotCoordinator, Count: -1})
	const why = ": none of the brokers that respond is its coordinator"
	w.check("warning broker "+addr+": TCP: connection refused", "skipped group g"+why, "skipped offsets g"+why, "skipped lag g"+why)
}

func TestResumeOffset(t *testing.T) {
	topic, earlier := [16]byte{1}, [16]byte{2}
	const first, end = 10, 20 // of the log
	for name, c := range map[string]struct {
		committed int64 // -1: nothing
		metadata  string
		reset     consumer.AutoOffsetReset
		want      int64
	}{
		"nothing committed, earliest": {committed: -1, reset: consumer.Earliest, want: first},
		"nothing committed, latest":   {committed: -1, reset: consumer.Latest, want: end},
		"committed":                   {committed: 15, reset: consumer.Latest, want: 15},
		"committed with metadata":     {committed: 15, metadata: metadata(topic), reset: consumer.Earliest, want: 15},
		"for an earlier topic":        {committed: 15, metadata: metadata(earlier), reset: consumer.Latest, want: first},
		"before the log":              {committed: 5, reset: consumer.Latest, want: first},
		"beyond the log":              {committed: 21, reset: consumer.Latest, want: first},
	} {
		o := session.Offset{Topic: in, Offset: c.committed, Metadata: c.metadata}
		var s offsetSummary
		if got := s.addPartition(topic, o, first, end, c.reset).Base; max(got, first) != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

func TestLagAgainstRetention(t *testing.T) {
	const day = int64(24 * 3600)
	days := func(n int64) string { return fmt.Sprint(n * day * 1000) }
	for name, c := range map[string]struct {
		retention string // ms
		lag       int64  // at one request per second
		want      Status
	}{
		"within the API's retention":    {retention: "-1", lag: 6 * day, want: OK},
		"beyond the API's retention":    {retention: "-1", lag: 8 * day, want: Warning},
		"within the topic's retention":  {retention: days(3), lag: 2 * day, want: OK},
		"beyond the topic's retention":  {retention: days(3), lag: 4 * day, want: Warning},
		"retention beyond any duration": {retention: fmt.Sprint(int64(1) << 62), lag: 6 * day, want: OK},
		"lag beyond any duration":       {retention: days(3), lag: int64(1) << 62, want: Warning},
	} {
		topic := &topic{name: in, settings: settings{values: map[string]string{"retention.ms": c.retention, "cleanup.policy": "delete"}}}
		var r Report
		topic.judgeLag(&r, c.lag, 1)
		if r.Checks[0].Status != c.want {
			t.Errorf("%s: %+v", name, r.Checks[0])
		}
	}
}

// TestCheckChangesNothing: even a cluster that creates topics automatically is
// unchanged after a check, also when a topic is missing.
func TestCheckChangesNothing(t *testing.T) {
	w := newEnv(t, kfake.AllowAutoTopicCreation())
	_ = w.cluster.DeleteTopic(out)
	before := w.snapshot()
	w.check("skipped permission write topic enriched: ", "fatal topic enriched: does not exist")
	if after := w.snapshot(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	if g := w.cluster.GroupInfo(group); g != nil {
		t.Errorf("the group exists: %+v", g)
	}
}

// snapshot returns all topics, internal ones too, with their settings and end
// offsets, all groups with their committed offsets, and all transactional ids. Its
// client is new, so that nothing is cached.
func (w *env) snapshot() string {
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
