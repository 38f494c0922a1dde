package hint

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"strings"

	"enricher/cmd/enricher/internal/credentials"
	"enricher/cmd/enricher/internal/registry"
)

// forRegistry returns the advice for an error of a schema registry, or "" if it is
// another one.
func forRegistry(err error) string {
	var (
		login        *credentials.Error
		missing      *registry.NotRegisteredError
		incompatible *registry.IncompatibleError
		noGUID       *registry.NoGUIDError
		response     *registry.ResponseError
	)
	switch {
	case errors.As(err, &login) && strings.HasPrefix(login.Flag, registry.FlagPrefix):
		brokers := *login
		brokers.Flag = strings.TrimPrefix(login.Flag, registry.FlagPrefix)
		return strings.ReplaceAll(forCredential(&brokers), "--", "--"+registry.FlagPrefix)
	case errors.As(err, &missing):
		return "register it with: enricher schema register"
	case errors.As(err, &incompatible):
		return "write to another --enriched-topic, or allow the change in the subject's compatibility level"
	case errors.As(err, &noGUID):
		return "use --schema-id payload, or a registry that has GUIDs"
	case errors.As(err, &response):
		return forRegistryResponse(response)
	}
	return ""
}

func forRegistryResponse(e *registry.ResponseError) string {
	var certificate *tls.CertificateVerificationError
	var alert *net.OpError
	switch {
	case errors.As(e, &certificate):
		return "put the certificate of the registry's issuer into the file of --schema-registry-tls-ca"
	case errors.As(e, &alert) && alert.Op == "remote error": // what crypto/tls makes of an alert
		return "put a certificate that the registry trusts into the files of --schema-registry-tls-cert and --schema-registry-tls-key"
	}
	switch status := e.Status; {
	case status == 0:
		return "check --schema-registry-url and the network"
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return "check the login of the --schema-registry-… flags and its permissions; their files are read again"
	case status == http.StatusTooManyRequests, status >= 500:
		return "wait until the registry works again, or look at its log"
	case status == http.StatusUnprocessableEntity:
		return "check that the registry supports the --output-format"
	}
	return "check that --schema-registry-url is the address of a schema registry, with its path"
}
