package hint

import (
	"cmp"
	"crypto/tls"
	"errors"
	"net"

	"github.com/twmb/franz-go/pkg/kerr"

	"enricher/cmd/enricher/internal/credentials"
)

// Connection returns the advice for an error of a connection to a broker, or for a
// connection that fails for an unknown reason (nil).
func Connection(err error) string {
	return cmp.Or(forRegistry(err), forLogin(err), "check --brokers and the network")
}

// forLogin returns the advice for an error of TLS, a login or a credential, or "" if
// it is another one.
func forLogin(err error) string {
	var login *credentials.Error
	var certificate *tls.CertificateVerificationError
	var alert *net.OpError
	switch {
	case errors.As(err, &login):
		return forCredential(login)
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return "check the login that --sasl-mechanism uses; its files are read again when they change"
	case errors.Is(err, kerr.UnsupportedSaslMechanism):
		return "check --sasl-mechanism and the broker's sasl.enabled.mechanisms"
	case errors.As(err, &certificate):
		return "put the certificate of the brokers' issuer into the file of --tls-ca; it is read again when it changes"
	case errors.As(err, &alert) && alert.Op == "remote error": // what crypto/tls makes of an alert
		return "put a certificate that the brokers trust into the files of --tls-cert and --tls-key; they are read again when they change"
	}
	return ""
}

// Credentials formats credentials that cannot be used or renewed, with advice.
func Credentials(problems []error) []string {
	var all []string
	for _, p := range problems {
		all = append(all, "credential: "+p.Error()+"; "+Connection(p))
	}
	return all
}

// forCredential returns the advice for a credential that cannot be used.
func forCredential(e *credentials.Error) string {
	if e.Rejected {
		return "check which issuer, audience and scope of tokens the brokers accept"
	}
	switch e.Flag {
	case "oauth-client-secret-file":
		return "check --oauth-client-id and the file of --oauth-client-secret-file; it is read again when it changes"
	case "oauth-token-url":
		return "check --oauth-token-url and the network; its certificate must be trusted by the system or by --tls-ca"
	case "oauth-scope":
		return "check --oauth-scope"
	case "oauth-token-file":
		return "check the program that replaces the token; the file is read again when it changes"
	case "sasl-mechanism":
		return "give this process an AWS role or credentials; with brokers outside amazonaws.com set $AWS_REGION as well"
	}
	return "replace the file; it is read again when it changes"
}
