package consumer_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"enricher/consumer"
	"enricher/fetch/fetchtest"
	"enricher/test/kafka"
)

// A resetOffsets moves the group to a time in some partitions, or to where it is
// (zero), as kafka-consumer-groups does: without metadata.
type resetOffsets func(to time.Time, ps ...int32)

// TestProcessAgainSince follows the recipe of docs/runbook.md with an event from
// before the time that still waits in one partition.
func TestProcessAgainSince(t *testing.T) {
	inVirtualTime(t, fetchtest.Config{}, func(t *testing.T, e *env) {
		processAgainSince(t, e, func(to time.Time, ps ...int32) {
			committed, err := e.Admin().FetchOffsets(t.Context(), e.Group)
			if err != nil {
				t.Fatal(err)
			}
			listed, err := e.Admin().ListOffsetsAfterMilli(t.Context(), to.UnixMilli(), e.In)
			if err != nil {
				t.Fatal(err)
			}
			var offsets kadm.Offsets
			for _, p := range ps {
				now, _ := committed.Lookup(e.In, p)
				at := now.At
				if then, _ := listed.Lookup(e.In, p); !to.IsZero() {
					at = then.Offset
				}
				offsets.Add(kadm.Offset{Topic: e.In, Partition: p, At: at, LeaderEpoch: -1})
			}
			e.commit(offsets)
		})
	})
}

// TestKafkaProcessAgainSince does it with Kafka's own command.
func TestKafkaProcessAgainSince(t *testing.T) {
	e, c := ownKafkaEnv(t, kafka.Config{})
	bin, err := c.Tools()
	if err != nil {
		t.Fatal(err)
	}
	processAgainSince(t, e, func(to time.Time, ps ...int32) {
		topic := e.In + ":" + strings.Trim(strings.ReplaceAll(fmt.Sprint(ps), " ", ","), "[]")
		where := []string{"--to-current"}
		if !to.IsZero() {
			where = []string{"--to-datetime", to.UTC().Format("2006-01-02T15:04:05.000")}
		}
		args := append([]string{"--bootstrap-server", e.Addrs[0], "--group", e.Group, "--topic", topic, "--reset-offsets", "--execute"}, where...)
		out, err := exec.CommandContext(t.Context(), filepath.Join(bin, "kafka-consumer-groups.sh"), args...).CombinedOutput()
		t.Logf("%v\n%s", args, out)
		if err != nil {
			t.Fatal(err)
		}
	})
}

func processAgainSince(t *testing.T, e *env, reset resetOffsets) {
	const waits = 0 // the partition with the event that waits
	e.API.AvailableAt("waits", time.Now().Add(time.Hour))
	e.FeedCall(waits, "waits")
	e.FeedCalls("before-", 2*partitions)
	<-time.After(time.Second)
	since := time.Now().Truncate(time.Millisecond)
	<-time.After(time.Second)
	e.FeedCalls("since-", 3*partitions)
	patient := func(c *consumer.Config) { c.Retry.NotFoundWindow = e.choose(2*time.Minute, time.Minute) }
	i := e.Start("a", patient)
	e.Eventually(time.Minute, func() error {
		if lost := e.Audit().Lost; len(lost) != 1 {
			return fmt.Errorf("%d events have no outcome, want 1: %v", len(lost), lost)
		}
		return nil
	})
	i.Drain()
	e.API.AvailableAt("waits", time.Now())

	var others []int32
	for p := range int32(partitions) {
		if p != waits {
			others = append(others, p)
		}
	}
	reset(since, others...)
	reset(time.Time{}, waits)
	i = e.Start("a", patient)
	e.Eventually(2*time.Minute, func() error {
		if a := e.Audit(); len(a.Lost) > 0 {
			return fmt.Errorf("lost: %v", a.Lost)
		}
		return nil
	})
	e.CheckOffsets()
	// Three events of each other partition, and all five that were done ahead of the
	// one that waits.
	if a := e.Audit(); len(a.Duplicated) != 3*(partitions-1)+5 || len(a.Lost)+len(a.Wrong) > 0 {
		t.Error(a)
	}
	if n := i.Logs.FilterMessageSnippet("was set by another tool").Len(); n != partitions {
		t.Errorf("%d partitions logged that their offset was set, want %d", n, partitions)
	}
}
