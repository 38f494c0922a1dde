package consumer_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/consumer/audit/audittest"
	"enricher/consumer/session"
	"enricher/fetch/fetchtest"
)

func TestOffsetsReset(t *testing.T)      { inRealTime(t, fetchtest.Config{}, offsetsReset) }
func TestKafkaOffsetsReset(t *testing.T) { onKafka(t, fetchtest.Config{}, offsetsReset) }

// offsetsReset by an operator to 2, without metadata, repeats every event from there.
func offsetsReset(t *testing.T, e *env) {
	i := e.Start("a", quick)
	e.FeedCalls("c", 5*partitions)
	e.Await(time.Minute)
	e.Check()
	i.Drain()
	e.setOffsets(2, -1, "")
	e.Start("a", quick)
	e.Eventually(20*time.Second, func() error {
		if n := len(e.Outputs()); n < 8*partitions {
			return fmt.Errorf("%d outcomes, want %d", n, 8*partitions)
		}
		return nil
	})
	e.CheckOffsets()
	if a := e.Audit(); len(a.Duplicated) != 3*partitions || len(a.Lost)+len(a.Wrong) > 0 {
		t.Error(a)
	}
}

func TestNewerMetadata(t *testing.T)      { inVirtualTime(t, fetchtest.Config{}, newerMetadata) }
func TestKafkaNewerMetadata(t *testing.T) { onKafka(t, fetchtest.Config{}, newerMetadata) }

// ofNewerVersion is offset metadata that this version cannot read.
const ofNewerVersion = "enricher/7 whatever"

// newerMetadata is what a newer version committed for a partition. The instance
// leaves that partition alone and consumes the others.
func newerMetadata(t *testing.T, e *env) {
	var offsets kadm.Offsets
	offsets.Add(kadm.Offset{Topic: e.In, Partition: 1, At: 0, LeaderEpoch: -1, Metadata: ofNewerVersion})
	e.commit(offsets)
	for n := range 60 {
		if p := int32(n % partitions); p != 1 {
			e.FeedCall(p, "c"+strconv.Itoa(n))
		}
	}
	e.Produce(&kgo.Record{Topic: e.In, Partition: 1, Value: audittest.EndCall("left alone", time.Now())})
	i := e.Start("a")
	e.Await(time.Minute)
	e.pause(time.Minute, 3*time.Second)
	if a := e.Audit(); !a.OK() {
		t.Error(a)
	}
	if why := i.NotReady(); !strings.Contains(why, e.In+"[1]") || !strings.Contains(why, "newer version") {
		t.Errorf("readiness: %q", why)
	}
	if n := e.API.RequestsFor("left alone"); n != 0 {
		t.Errorf("a call of the incompatible partition was looked up %d times", n)
	}
	if n := i.Logs.FilterMessageSnippet("partition blocked").Len(); n != 1 {
		t.Errorf("%d log lines", n)
	}
	committed, err := e.Admin().FetchOffsets(context.Background(), e.Group)
	if err != nil {
		t.Fatal(err)
	}
	if at, _ := committed.Lookup(e.In, 1); at.At != 0 || at.Metadata != ofNewerVersion {
		t.Errorf("the incompatible partition's offset is now %d %q", at.At, at.Metadata)
	}
}

func TestPauseEndsWithAssignment(t *testing.T) {
	inRealTime(t, fetchtest.Config{}, pauseEndsWithAssignment)
}

func TestKafkaPauseEndsWithAssignment(t *testing.T) {
	onKafka(t, fetchtest.Config{}, pauseEndsWithAssignment)
}

// pauseEndsWithAssignment of a partition. At first the instance cannot read the
// metadata of any. Another member takes over some, commits metadata that it can read,
// and leaves.
func pauseEndsWithAssignment(t *testing.T, e *env) {
	e.setOffsets(0, -1, ofNewerVersion)
	e.FeedCalls("c", partitions)
	i := e.Start("a", quick)
	e.awaitMembers(1)
	e.Eventually(10*time.Second, func() error {
		if n := i.Metric("enricher_blocked_partitions"); n != partitions {
			return fmt.Errorf("%v partitions are blocked, want %d", n, partitions)
		}
		return nil
	})
	other := e.openSession()
	var taken []session.Offset
	for polled := 0; len(taken) == 0 || polled == 0; {
		other.AllowRebalance()
		polled += e.poll(other)
		for _, a := range other.TakeAssignments() {
			taken = append(taken, a.Committed)
		}
	}
	for n := range taken {
		taken[n].Metadata = ""
	}
	if result, err := other.Commit(nil, commitOffsets(taken)); result != session.Committed {
		t.Fatal(result, err)
	}
	other.Close()
	e.Eventually(20*time.Second, func() error {
		if n := len(e.Outputs()); n < len(taken) {
			return fmt.Errorf("%d outcomes of the %d events in partitions that were taken over", n, len(taken))
		}
		return nil
	})
}

func TestForeignMetadata(t *testing.T)      { inVirtualTime(t, fetchtest.Config{}, foreignMetadata) }
func TestKafkaForeignMetadata(t *testing.T) { onKafka(t, fetchtest.Config{}, foreignMetadata) }

// foreignMetadata is another program's. It marks nothing as done ahead.
func foreignMetadata(_ *testing.T, e *env) {
	e.setOffsets(0, -1, "reset by hand")
	e.FeedCalls("c", 100)
	e.Start("a")
	e.Await(time.Minute)
	e.Check()
}
