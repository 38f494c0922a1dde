package hint

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"testing"

	"enricher/cmd/enricher/internal/credentials"
	"enricher/cmd/enricher/internal/registry"
)

// Every error of a registry has advice of its own, which names no flag of the
// brokers.
func TestErrorsOfTheRegistryAreExplained(t *testing.T) {
	login := func(flag string) error {
		return &credentials.Error{Flag: registry.FlagPrefix + flag, Text: "it is wrong"}
	}
	for _, c := range []struct {
		err  error
		want string
	}{
		{&registry.NotRegisteredError{Subject: "s"}, "enricher schema register"},
		{&registry.NotRegisteredError{Subject: "s", Other: true}, "enricher schema register"},
		{&registry.IncompatibleError{Subject: "s"}, "--enriched-topic"},
		{&registry.NoGUIDError{Subject: "s"}, "--schema-id payload"},
		{&registry.ResponseError{Err: errors.New("connection refused")}, "--schema-registry-url and the network"},
		{&registry.ResponseError{Err: &tls.CertificateVerificationError{Err: errors.New("unknown authority")}}, "--schema-registry-tls-ca"},
		{&registry.ResponseError{Err: &net.OpError{Op: "remote error", Err: errors.New("bad certificate")}}, "--schema-registry-tls-cert"},
		{&registry.ResponseError{Status: 200}, "is the address of a schema registry"},
		{&registry.ResponseError{Status: 302}, "is the address of a schema registry"},
		{&registry.ResponseError{Status: 401}, "check the login"},
		{&registry.ResponseError{Status: 403}, "check the login"},
		{&registry.ResponseError{Status: 404}, "is the address of a schema registry"},
		{&registry.ResponseError{Status: 422}, "--output-format"},
		{&registry.ResponseError{Status: 429}, "wait"},
		{&registry.ResponseError{Status: 500}, "wait"},
		{login("oauth-client-secret-file"), "--schema-registry-oauth-client-id and the file of --schema-registry-oauth-client-secret-file"},
		{login("oauth-token-url"), "--schema-registry-tls-ca"},
		{login("oauth-scope"), "--schema-registry-oauth-scope"},
		{login("oauth-token-file"), "read again"},
		{login("password-file"), "replace the file"},
	} {
		err := fmt.Errorf("start: %w", c.err)
		for _, got := range []string{For(Explain(err, "User:a")), Connection(err)} {
			if !strings.Contains(got, c.want) {
				t.Errorf("%v: %q, want %q", c.err, got, c.want)
			}
			for _, flag := range regexp.MustCompile(`--[a-z-]+`).FindAllString(got, -1) {
				if !strings.HasPrefix(flag, "--schema-") && flag != "--enriched-topic" && flag != "--output-format" {
					t.Errorf("%v: %q names %s", c.err, got, flag)
				}
			}
		}
	}
}
