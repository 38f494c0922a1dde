package main

import (
	"bufio"
	"context"
	"io"
	"regexp"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/fetch"
	"enricher/fetch/fetchtest"
	"enricher/schemas"
)

// TestEventsHaveRecords: the simulator produces events, and the API has the record
// of a call that they name.
func TestEventsHaveRecords(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, "call-ended"))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	out, w := io.Pipe()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	ended := make(chan error, 1)
	go func() { ended <- simulate(ctx, "127.0.0.1:0", cluster.ListenAddrs(), "call-ended", 500, w) }()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	key, err := fetch.KeyFromValue(fetch.NewSecret(fetchtest.DemoKey))
	if err != nil {
		t.Fatal(err)
	}
	client, err := fetch.NewClient(fetch.ClientConfig{
		BaseURL: regexp.MustCompile(`http://[\d.:]+`).FindString(line), SDKAppID: fetchtest.DemoSDKAppID, Key: key,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()

	cl, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.ConsumeTopics("call-ended"))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	parsed, found := 0, 0
	for n := 0; n < 300 || found == 0; {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		n += fetches.NumRecords()
		fetches.EachRecord(func(r *kgo.Record) {
			e, err := schemas.ParseEvent(r.Value)
			if err != nil || e.IsOtherCallback() {
				return
			}
			parsed++
			if found == 0 && client.Lookup(ctx, e.CallID, nil).Verdict == fetch.Found {
				found++
			}
		})
	}
	if parsed < 200 {
		t.Errorf("only %d of 300 events can be parsed", parsed)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestMissingTopicIsAnError: the error names the topic.
func TestMissingTopicIsAnError(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "other"))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err = simulate(ctx, "127.0.0.1:0", cluster.ListenAddrs(), "call-ended", 100, io.Discard)
	if err == nil || !regexp.MustCompile(`produce an event to call-ended: UNKNOWN_TOPIC`).MatchString(err.Error()) {
		t.Errorf("got %v", err)
	}
}
