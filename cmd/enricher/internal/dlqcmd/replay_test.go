package dlqcmd

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"

	"enricher/cmd/enricher/internal/hint"
	"enricher/producer"
	"enricher/producer/replay"
)

// A run that ends for lack of a permission says how far it came and which command
// grants the permission, not that running it again would help.
func TestReplayWithoutPermissionSaysHowToGrantIt(t *testing.T) {
	f := topicFlags{}
	f.SASLUser = "ops"
	denied := &producer.NotAuthorizedError{Operations: []string{"Write"}, ResourceType: "topic", Resource: "calls", Err: kerr.TopicAuthorizationFailed}
	err := f.explainRun(t.Context(), replay.Result{Plan: &replay.Plan{DeadLetters: 3}, Completed: 2}, 3, fmt.Errorf("produce: %w", denied))
	if text := err.Error(); !strings.HasPrefix(text, `stopped after 2 of 3 dead letters: produce: missing permission Write on topic "calls"`) {
		t.Error(text)
	}
	if got, want := hint.For(err), "grant access with: kafka-acls --add --allow-principal User:ops --operation Write --topic calls"; got != want {
		t.Errorf("hint %q, want %q", got, want)
	}
}
