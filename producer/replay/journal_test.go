package replay_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/producer/replay"
)

// TestReplayRejectsUnsafeJournal tries a journal whose markers retention would
// delete, and one with a record that is not a marker.
func TestReplayRejectsUnsafeJournal(t *testing.T) {
	e := newEnv(t)
	e.feed(10)
	ctx := context.Background()
	policy := "compact,delete"
	if _, err := e.admin().CreateTopic(ctx, 1, 1, map[string]*string{"cleanup.policy": &policy}, journal); err != nil {
		t.Fatal(err)
	}
	_, err := replay.Run(ctx, e.job(), quiet{})
	want := replay.JournalConfigError{Topic: journal, Key: "cleanup.policy", Value: policy, Want: "compact"}
	var got *replay.JournalConfigError
	if !errors.As(err, &got) || *got != want || !strings.Contains(err.Error(), "cleanup.policy=compact,delete") {
		t.Errorf("with policy %s: %v", policy, err)
	}
	set := []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "cleanup.policy", Value: kadm.StringPtr("compact")}}
	if _, err := e.admin().AlterTopicConfigs(ctx, set, journal); err != nil {
		t.Fatal(err)
	}
	e.produce(&kgo.Record{Topic: journal, Key: []byte("not a marker")})
	if _, err := replay.Run(ctx, e.job(), quiet{}); err == nil || !strings.Contains(err.Error(), "is not a journal entry") {
		t.Errorf("with a foreign record: %v", err)
	}
	if n := len(e.read(inTopic)); n > 0 {
		t.Errorf("%d dead letters replayed", n)
	}
}
