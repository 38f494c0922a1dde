package hint

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"enricher/consumer"
	"enricher/consumer/session"
	"enricher/producer"
)

func TestHintSurvivesWrappingAndJoining(t *testing.T) {
	fact := errors.New("no topic")
	err := errors.Join(fmt.Errorf("start: %w", With(fact, "create %s", "it")), errors.Join(errors.New("no hint")))
	all := Split(err)
	if len(all) != 2 || For(all[0]) != "create it" || For(all[1]) != "" {
		t.Errorf("split into %v", all)
	}
	if all[0].Error() != "start: no topic" || !errors.Is(all[0], fact) {
		t.Errorf("the error became %v", all[0])
	}
}

func TestEveryReasonButADrainHasAHint(t *testing.T) {
	for _, reason := range consumer.Reasons() {
		want := reason != consumer.ReasonDraining
		got := Conditions([]consumer.Condition{{Reason: reason, Detail: "detail"}})
		if len(got) != 1 || !strings.HasPrefix(got[0], reason+": detail") || strings.Contains(got[0], "; ") != want {
			t.Errorf("%s: %q", reason, got)
		}
	}
}

func TestErrorsOfThePipelineAreExplained(t *testing.T) {
	for want, err := range map[string]error{
		ACL("User:a", "group", "g", "Read"):                                       &producer.NotAuthorizedError{Operations: []string{"Read"}, ResourceType: "group", Resource: "g", Err: errors.New("denied")},
		"give every running process its own --instance":                           &consumer.DuplicateInstanceError{Instance: "a", Err: errors.New("fenced")},
		"use another --compression: all brokers accept none, and nearly all gzip": &session.RefusedError{Err: kerr.UnsupportedCompressionType, Records: []*kgo.Record{{}}},
		"lower --batch-max-bytes, or raise the topic's max.message.bytes":         &session.RefusedError{Err: kerr.MessageTooLarge, Records: []*kgo.Record{{}}},
		"": errors.New("another error"),
	} {
		got := Explain(fmt.Errorf("run: %w", err), "User:a")
		if For(got) != want || !errors.Is(got, err) {
			t.Errorf("%v has the hint %q, want %q", err, For(got), want)
		}
	}
}

// TestRefusedOutputNamesItsFlag in the log and in readiness.
func TestRefusedOutputNamesItsFlag(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	log := zap.New(Core(core)).With(zap.Int("n", 1))
	log.Info("refused", zap.Error(fmt.Errorf("topic x: %w", kerr.UnsupportedCompressionType)))
	log.Info("another", zap.Error(errors.New("no hint")))
	log.Info("has its own", zap.Error(kerr.MessageTooLarge), zap.String("hint", "mine"))
	for i, want := range []string{"--compression", "<nil>", "mine"} {
		if got := fmt.Sprint(logs.All()[i].ContextMap()["hint"]); !strings.Contains(got, want) {
			t.Errorf("log line %d: hint %q, want %q", i, got, want)
		}
	}
	all := Conditions([]consumer.Condition{
		{Reason: string(consumer.OutputRefused), Detail: "x", Err: kerr.UnsupportedCompressionType},
		{Reason: string(consumer.OutputRefused), Detail: "x", Err: kerr.InvalidRecord},
	})
	if !strings.Contains(all[0], "--compression") || !strings.Contains(all[1], "settings and permissions") {
		t.Errorf("readiness: %q", all)
	}
}

func ExampleACL() {
	fmt.Println(ACL("User:enricher", "topic", "call-enriched", "Describe", "Write"))
	fmt.Println(ACL("", "group", "call-enricher", "Read"))
	// Output:
	// grant access with: kafka-acls --add --allow-principal User:enricher --operation Describe --operation Write --topic call-enriched
	// grant access with: kafka-acls --add --allow-principal User:… --operation Read --group call-enricher
}
