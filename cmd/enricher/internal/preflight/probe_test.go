package preflight

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"enricher/test/harness"
	"enricher/test/kafka"
)

// newProbeEnv is a healthy cluster with a group and a record of the service, and the
// probe switched on.
func newProbeEnv(t *testing.T, transactionVersion int16) *env {
	t.Helper()
	w := newEnv(t, kfake.MaxVersions(kversion.V4_4_0())) // offsets are committed by topic id
	w.cfg.Probe = true
	change := kadm.FeatureUpdate{Feature: "transaction.version", MaxVersionLevel: transactionVersion, UpgradeType: 2}
	if _, err := kadm.NewClient(w.client()).UpdateFeatures(t.Context(), false, change); err != nil {
		t.Fatal(err)
	}
	w.fill(1, 3)
	w.commit(1, 2, "")
	return w
}

// visible is what read_committed readers see of the cluster, and the state that the
// probe must not leave behind.
func (w *env) visible() string {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	adm := kadm.NewClient(w.client())
	groups, err := adm.ListGroups(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	offsets, err := adm.FetchOffsets(ctx, group)
	if err != nil {
		w.t.Fatal(err)
	}
	stable, err := adm.ListCommittedOffsets(ctx, out, dead)
	if err != nil {
		w.t.Fatal(err)
	}
	ends, err := adm.ListEndOffsets(ctx, out, dead)
	if err != nil {
		w.t.Fatal(err)
	}
	open, records, unread := 0, 0, 0
	ends.Each(func(o kadm.ListedOffset) {
		if at, _ := stable.Lookup(o.Topic, o.Partition); at.Offset != o.Offset {
			open++
		}
		if o.Offset > 0 {
			unread++
		}
	})
	cl := w.client(kgo.ConsumePartitions(starts(ends)), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	for unread > 0 && ctx.Err() == nil {
		cl.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				records++
			}
			if end, _ := ends.Lookup(r.Topic, r.Partition); r.Offset == end.Offset-1 {
				unread--
			}
		})
	}
	return fmt.Sprintf("groups %v\noffsets %v\nrecords %d, open transactions %d", groups.Groups(), offsets.Offsets(), records, open)
}

// starts are the beginnings of the partitions that are not empty.
func starts(ends kadm.ListedOffsets) map[string]map[int32]kgo.Offset {
	all := make(map[string]map[int32]kgo.Offset)
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			if all[o.Topic] == nil {
				all[o.Topic] = make(map[int32]kgo.Offset)
			}
			all[o.Topic][o.Partition] = kgo.NewOffset().At(0)
		}
	})
	return all
}

// probed returns the findings of the probe, one per line.
func (w *env) probed() string {
	w.t.Helper()
	r, err := Run(w.t.Context(), w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	var lines []string
	for _, f := range r.Checks {
		if strings.HasPrefix(f.Check, "probe") {
			lines = append(lines, fmt.Sprintf("%s %s %s: %s → %s", f.Status, f.Check, f.Subject, f.Found, f.Remedy))
		}
	}
	return strings.Join(lines, "\n")
}

func TestProbeOfAHealthyCluster(t *testing.T) {
	for _, version := range []int16{0, 2} {
		t.Run(fmt.Sprint("transaction version ", version), func(t *testing.T) {
			w := newProbeEnv(t, version)
			before := w.visible()
			report := w.probed()
			if strings.Count(report, "ok probe") != 12 || strings.Count(report, "\n") != 11 {
				t.Errorf("not every try succeeded:\n%s", report)
			}
			for _, want := range []string{"4096 bytes", "1048588 bytes to topic enriched", "1048588 bytes to topic dead", "zstd", "group g.probe: deleted",
				`transactional id "g/a.probe"`, "aborted records"} {
				if !strings.Contains(report, want) {
					t.Errorf("the report lacks %q:\n%s", want, report)
				}
			}
			if after := w.visible(); after != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
		})
	}
}

// TestProbeNamesWhatIsRefused: each refusal is found and named, the other tries are
// made all the same, and nothing is left behind.
func TestProbeNamesWhatIsRefused(t *testing.T) {
	compressed := func(req *kmsg.ProduceRequest, codecs ...byte) bool {
		return slices.Contains(codecs, req.Topics[0].Partitions[0].Records[22]&7)
	}
	for name, c := range map[string]struct {
		key     kmsg.Key
		err     *kerr.Error
		refuses func(kmsg.Request) bool
		want    []string
		ok      int // the tries that succeed
	}{
		"transactional id": {
			key: kmsg.InitProducerID, err: kerr.TransactionalIDAuthorizationFailed,
			want: []string{"warning probe_transactional_id g/a.probe: ", "--transactional-id g/a.probe"}, ok: 2,
		},
		"no transactions": {
			key: kmsg.InitProducerID, err: kerr.UnsupportedVersion,
			want: []string{"fatal probe_transactional_id g/a.probe: refused: UNSUPPORTED_VERSION"}, ok: 2,
		},
		"metadata": {
			key: kmsg.TxnOffsetCommit, err: kerr.OffsetMetadataTooLarge,
			refuses: func(req kmsg.Request) bool {
				return len(*req.(*kmsg.TxnOffsetCommitRequest).Topics[0].Partitions[0].Metadata) > 1000
			},
			want: []string{"warning probe_offset_metadata 4096 bytes: refused: OFFSET_METADATA_TOO_LARGE", "offset.metadata.max.bytes=4096"}, ok: 11,
		},
		"group": {
			key: kmsg.TxnOffsetCommit, err: kerr.GroupAuthorizationFailed,
			want: []string{"warning probe_offset_metadata 4096 bytes: not authorized", "warning probe_transaction without records: not authorized", "--group g.probe"}, ok: 10,
		},
		"commits without records": {
			key: kmsg.EndTxn, err: kerr.InvalidTxnState,
			refuses: func(req kmsg.Request) bool { return req.(*kmsg.EndTxnRequest).Commit },
			want:    []string{"fatal probe_transaction without records: refused: INVALID_TXN_STATE"}, ok: 11,
		},
		"large records": {
			key: kmsg.Produce, err: kerr.MessageTooLarge,
			refuses: func(req kmsg.Request) bool {
				return len(req.(*kmsg.ProduceRequest).Topics[0].Partitions[0].Records) > 1_000_000
			},
			want: []string{"warning probe_record 1048588 bytes to topic enriched: refused: MESSAGE_TOO_LARGE", "topic dead: refused", "--batch-max-bytes"}, ok: 10,
		},
		"the configured compression": {
			key: kmsg.Produce, err: kerr.UnsupportedCompressionType,
			refuses: func(req kmsg.Request) bool { return compressed(req.(*kmsg.ProduceRequest), 2, 3, 4) },
			want: []string{"fatal probe_compression snappy: refused: UNSUPPORTED_COMPRESSION_TYPE", "use another --compression",
				"ok probe_compression zstd: refused, and not used", "ok probe_compression gzip: accepted"}, ok: 11,
		},
		"deletion of the group": {
			key: kmsg.DeleteGroups, err: kerr.GroupAuthorizationFailed,
			want: []string{"warning probe group g.probe: not deleted: GROUP_AUTHORIZATION_FAILED", "kafka-consumer-groups --delete --group g.probe"}, ok: 11,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newProbeEnv(t, 2)
			before := w.visible()
			faults := w.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{c.key}, Err: c.err, Count: -1, When: c.refuses})
			report := w.probed()
			faults.Remove()
			if faults.Hits() == 0 {
				t.Fatal("nothing was refused: this test shows nothing")
			}
			for _, want := range c.want {
				if !strings.Contains(report, want) {
					t.Errorf("the report lacks %q", want)
				}
			}
			if n := strings.Count(report, "ok probe"); n != c.ok {
				t.Errorf("%d tries succeeded, want %d", n, c.ok)
			}
			if c.key == kmsg.DeleteGroups {
				if _, err := kadm.NewClient(w.client()).DeleteGroups(context.Background(), "g.probe"); err != nil {
					t.Fatal(err)
				}
			}
			if after := w.visible(); after != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
			if t.Failed() {
				t.Log(report)
			}
		})
	}
}

// TestKafkaProbe probes a real Kafka with its defaults, and then one topic that takes
// less than the service may write.
func TestKafkaProbe(t *testing.T) {
	_, c := harness.OwnKafka(t, kafka.Config{})
	w := connectEnv(t, c.Brokers)
	w.cfg.Probe = true
	adm := kadm.NewClient(w.client())
	created, err := adm.CreateTopics(t.Context(), 4, 1, nil, in, out, dead)
	if err = errors.Join(err, created.Error()); err != nil {
		t.Fatal(err)
	}
	w.awaitLeaders()
	w.fill(1, 3)
	w.commit(1, 2, "")
	before := w.visible()
	if report := w.probed(); strings.Count(report, "ok probe") != 12 || strings.Count(report, "\n") != 11 {
		t.Errorf("not every try succeeded:\n%s", report)
	}
	small := "100000"
	if _, err := adm.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "max.message.bytes", Value: &small}}, dead); err != nil {
		t.Fatal(err)
	}
	w.await("the record is refused", func(context.Context) bool {
		return strings.Contains(w.probed(), "warning probe_record 1048588 bytes to topic dead: refused: MESSAGE_TOO_LARGE")
	})
	if after := w.visible(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}
