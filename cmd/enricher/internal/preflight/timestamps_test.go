package preflight

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/test/harness"
	"enricher/test/kafka"
)

// TestTimestampProblems: only an enriched topic whose records carry the end of the
// call is judged by what it does with old timestamps.
func TestTimestampProblems(t *testing.T) {
	const hour = "3600000"
	for name, c := range map[string]struct {
		settings map[string]string
		want     []string
	}{
		"suitable":              {map[string]string{"retention.ms": "1209600000", "message.timestamp.before.max.ms": "691200000", "message.timestamp.after.max.ms": hour}, nil},
		"kept forever":          {map[string]string{"retention.ms": "-1"}, nil},
		"compacted":             {map[string]string{"cleanup.policy": "compact", "retention.ms": "1"}, nil},
		"the broker's time":     {map[string]string{"message.timestamp.type": "LogAppendTime", "retention.ms": "-1"}, []string{"warning timestamps enriched: LogAppendTime: brokers replace the end of the call"}},
		"old records refused":   {map[string]string{"message.timestamp.before.max.ms": "604800000", "retention.ms": "-1"}, []string{"warning timestamps enriched: message.timestamp.before.max.ms is 7 days: records of calls that ended earlier than that are refused, and their events wait → kafka-configs --alter --topic enriched --add-config message.timestamp.before.max.ms=691200000"}},
		"early records refused": {map[string]string{"message.timestamp.after.max.ms": "1000", "retention.ms": "-1"}, []string{"warning timestamps enriched: message.timestamp.after.max.ms is 1s: "}},
		"kept for a week":       {map[string]string{"retention.ms": "604800000"}, []string{"warning timestamps enriched: retention.ms is 7 days, counted from the end of a call"}},
		"all at once": {map[string]string{"retention.ms": hour, "message.timestamp.before.max.ms": hour},
			[]string{"warning timestamps enriched: message.timestamp.before.max.ms is 1h0m0s", "warning timestamps enriched: retention.ms is 1h0m0s"}},
	} {
		t.Run(name, func(t *testing.T) {
			settings := maps.Clone(healthy)
			maps.Copy(settings, c.settings)
			w := newEnv(t)
			w.topic(out, 4, settings)
			w.check() // records with the time of production
			w.cfg.CallEndTimestamps = true
			w.check(c.want...)
		})
	}
}

// TestKafkaTakesCallEnds produces the record of a call that ended seven days ago to
// topics of a real Kafka: those without a warning keep it, with its timestamp, and
// those with one do what the warning says.
func TestKafkaTakesCallEnds(t *testing.T) {
	_, k := harness.OwnKafka(t, kafka.Config{Properties: map[string]string{"log.retention.check.interval.ms": "500", "log.initial.task.delay.ms": "500"}})
	cl, err := kgo.NewClient(kgo.SeedBrokers(k.Brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	end := time.Now().Add(-7 * 24 * time.Hour).Truncate(time.Second)
	for name, c := range map[string]struct {
		settings map[string]string
		warning  string // "": none
		refused  bool
		replaced bool // timestamp
		deleted  bool
	}{
		"defaults":  {settings: map[string]string{"retention.ms": "-1"}},
		"suitable":  {settings: map[string]string{"retention.ms": "1382400000", "message.timestamp.before.max.ms": "691200000"}},
		"refused":   {map[string]string{"retention.ms": "-1", "message.timestamp.before.max.ms": "518400000"}, "are refused", true, false, false},
		"replaced":  {map[string]string{"retention.ms": "-1", "message.timestamp.type": "LogAppendTime"}, "brokers replace", false, true, false},
		"deleted":   {map[string]string{"retention.ms": "518400000"}, "is deleted soon", false, false, true},
		"by policy": {settings: map[string]string{"retention.ms": "518400000", "cleanup.policy": "compact"}},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			topicName := "enriched-" + strings.ReplaceAll(name, " ", "-")
			settings := make(map[string]*string)
			for key, value := range c.settings {
				settings[key] = &value
			}
			if _, err := adm.CreateTopic(ctx, 1, 1, settings, topicName); err != nil {
				t.Fatal(err)
			}
			configs, err := adm.DescribeTopicConfigs(ctx, topicName)
			judged := topic{name: topicName, role: enriched, settings: newSettings(topicName, configs, err)}
			var report Report
			judged.judgeTimestamps(&report)
			said := ""
			for _, check := range report.Checks {
				if check.Status != OK {
					said += check.Found + "\n"
				}
			}
			if (said == "") != (c.warning == "") || !strings.Contains(said, c.warning) {
				t.Errorf("check says %q, want %q", said, c.warning)
			}

			record := &kgo.Record{Topic: topicName, Key: []byte("c"), Value: []byte("{}"), Timestamp: end}
			err = cl.ProduceSync(ctx, record).FirstErr()
			if c.refused != errors.Is(err, kerr.InvalidTimestamp) || !c.refused && err != nil {
				t.Fatalf("produced: %v", err)
			}
			if c.refused {
				return
			}
			if c.deleted {
				for {
					starts, err := adm.ListStartOffsets(ctx, topicName)
					if err != nil {
						t.Fatal(err)
					}
					if o, _ := starts.Lookup(topicName, 0); o.Offset == 1 {
						return
					}
					select {
					case <-ctx.Done():
						t.Fatal("the record is not deleted")
					case <-time.After(200 * time.Millisecond):
					}
				}
			}
			reader, err := kgo.NewClient(kgo.SeedBrokers(k.Brokers...), kgo.ConsumeTopics(topicName), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
			if err != nil {
				t.Fatal(err)
			}
			defer reader.Close()
			read := reader.PollFetches(ctx).Records()
			if len(read) != 1 || read[0].Timestamp.Equal(end) == c.replaced {
				t.Errorf("read: %v, want the timestamp %v", read, end)
			}
		})
	}
}
