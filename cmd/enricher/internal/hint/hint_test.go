package hint

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"enricher/cmd/enricher/internal/credentials"
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

// TestFailedLoginNamesItsRemedy wherever the error appears.
func TestFailedLoginNamesItsRemedy(t *testing.T) {
	credential := func(flag string) error { return &credentials.Error{Flag: flag, Text: "x"} }
	for want, err := range map[string]error{
		"check --oauth-client-id and the file of --oauth-client-secret-file": credential("oauth-client-secret-file"),
		"check --oauth-token-url and the network":                            credential("oauth-token-url"),
		"check --oauth-scope":                                                   credential("oauth-scope"),
		"check the program that replaces the token":                             credential("oauth-token-file"),
		"give this process an AWS role or credentials":                          credential("sasl-mechanism"),
		"replace the file":                                                      credential("sasl-password-file"),
		"check which issuer, audience and scope":                                &credentials.Error{Flag: "oauth-token-url", Rejected: true},
		"check the login that --sasl-mechanism uses":                            kerr.SaslAuthenticationFailed,
		"check --sasl-mechanism and the broker's":                               kerr.UnsupportedSaslMechanism,
		"put the certificate of the brokers' issuer into the file of --tls-ca":  &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}},
		"put a certificate that the brokers trust into the files of --tls-cert": &net.OpError{Op: "remote error", Err: errors.New("tls: expired certificate")},
		"check --brokers and the network":                                       errors.New("no route"),
	} {
		for _, reason := range []string{consumer.ReasonKafka, consumer.ReasonNotInGroup} {
			got := Conditions([]consumer.Condition{{Reason: reason, Detail: "x", Err: fmt.Errorf("broker 1: %w", err)}})
			if !strings.Contains(got[0], "; "+want) {
				t.Errorf("%v: readiness says %q, want %q", err, got[0], want)
			}
		}
		if got := Connection(err); !strings.Contains(got, want) {
			t.Errorf("%v has the hint %q, want %q", err, got, want)
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
