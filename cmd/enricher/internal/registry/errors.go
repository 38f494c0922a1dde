package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/twmb/franz-go/pkg/sr"

	"enricher/cmd/enricher/internal/credentials"
)

// NotRegisteredError means that the registry does not have the schema.
type NotRegisteredError struct {
	Subject string
	// Other: the subject has schemas, and this one is not among them.
	Other bool
}

// Error returns the fact.
func (e *NotRegisteredError) Error() string {
	if e.Other {
		return fmt.Sprintf("schema registry: subject %s has other schemas than that of this version and output format", e.Subject)
	}
	return fmt.Sprintf("schema registry: subject %s has no schema", e.Subject)
}

// IncompatibleError means that readers of the registered schemas could not read what
// is written with this one, as the registry sees it.
type IncompatibleError struct {
	Subject string
	Text    string // of the registry
}

// Error returns the fact, with what the registry says.
func (e *IncompatibleError) Error() string {
	text := fmt.Sprintf("schema registry: the schema is not compatible with subject %s", e.Subject)
	if e.Text != "" {
		text += ": " + e.Text
	}
	return text
}

// NoGUIDError means that the schema is registered, but that its registry identifies
// schemas by numbers only. No registry says so before it has a schema.
type NoGUIDError struct{ Subject, GUID string }

// Error returns the fact.
func (e *NoGUIDError) Error() string {
	if e.GUID != "" {
		return fmt.Sprintf("schema registry: the schema of subject %s is registered, with the GUID %.40q, which is none", e.Subject, e.GUID)
	}
	return fmt.Sprintf("schema registry: the schema of subject %s is registered, but has no GUID, by which a header would name it", e.Subject)
}

// ResponseError means that a registry did not do what it was asked for.
type ResponseError struct {
	Status int // of HTTP; 0: there was no response
	Text   string
	Err    error // without a response: why
}

// Error returns the fact.
func (e *ResponseError) Error() string { return "schema registry: " + e.Text }

// Unwrap returns why there was no response.
func (e *ResponseError) Unwrap() error { return e.Err }

// Temporary reports whether the same request may succeed later, without a change of
// the configuration: also when the login fails, because its files may be replaced.
func Temporary(err error) bool {
	var login *credentials.Error
	var response *ResponseError
	if errors.As(err, &login) {
		return true
	}
	if !errors.As(err, &response) {
		return false
	}
	switch response.Status {
	case 0, http.StatusUnauthorized, http.StatusForbidden, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return true
	}
	return response.Status >= 500
}

// The codes of Confluent's API that do not mean a failure.
const (
	subjectNotFound = 40401
	versionNotFound = 40402
	schemaNotFound  = 40403
)

func (r *Registry) explain(err error, client *credentials.Client) error {
	var login *credentials.Error
	var response *sr.ResponseError
	var transport *url.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &login):
		return login
	case errors.As(err, &response):
		return r.explainResponse(response, client)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &transport) && transport.Timeout():
		return &ResponseError{Text: fmt.Sprintf("%s: no response within %v", strings.Join(r.URLs, ", "), Timeout), Err: err}
	case errors.As(err, &transport):
		return &ResponseError{Text: client.Clean(transport.URL + ": " + transport.Err.Error()), Err: err}
	}
	return &ResponseError{Status: http.StatusOK, Text: "the response is not that of a schema registry: " + client.Clean(err.Error()), Err: err}
}

func (r *Registry) explainResponse(e *sr.ResponseError, client *credentials.Client) error {
	switch {
	case e.StatusCode == http.StatusNotFound && e.ErrorCode == schemaNotFound:
		return &NotRegisteredError{Subject: r.Subject(), Other: true}
	case e.StatusCode == http.StatusNotFound && (e.ErrorCode == subjectNotFound || e.ErrorCode == versionNotFound):
		return &NotRegisteredError{Subject: r.Subject()}
	case e.StatusCode == http.StatusConflict:
		return &IncompatibleError{Subject: r.Subject(), Text: client.Clean(e.Message)}
	}
	text := fmt.Sprintf("%s: HTTP %d", e.URL, e.StatusCode)
	if e.ErrorCode != 0 && e.ErrorCode != e.StatusCode {
		text += fmt.Sprintf(", code %d", e.ErrorCode)
	}
	if said := client.Clean(e.Error()); said != "" && said != "no response" {
		text += ": " + said
	}
	return &ResponseError{Status: e.StatusCode, Text: text}
}
