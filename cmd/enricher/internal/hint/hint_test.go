package hint

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"enricher/consumer"
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
		ACL("User:a", "group", "g", "Read"):             &producer.NotAuthorizedError{Operations: []string{"Read"}, ResourceType: "group", Resource: "g", Err: errors.New("denied")},
		"give every running process its own --instance": &consumer.DuplicateInstanceError{Instance: "a", Err: errors.New("fenced")},
		"": errors.New("another error"),
	} {
		got := Explain(fmt.Errorf("run: %w", err), "User:a")
		if For(got) != want || !errors.Is(got, err) {
			t.Errorf("%v has the hint %q, want %q", err, For(got), want)
		}
	}
}

func ExampleACL() {
	fmt.Println(ACL("User:enricher", "topic", "call-enriched", "Describe", "Write"))
	fmt.Println(ACL("", "group", "call-enricher", "Read"))
	// Output:
	// grant access with: kafka-acls --add --allow-principal User:enricher --operation Describe --operation Write --topic call-enriched
	// grant access with: kafka-acls --add --allow-principal User:… --operation Read --group call-enricher
}
