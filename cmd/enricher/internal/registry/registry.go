// Package registry finds the schema of enriched records in a schema registry, and
// registers it there. It uses the API of Confluent's registry, which others have,
// too.
//
// It retries nothing and caches nothing, and gives no advice.
package registry

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/sr"

	"enricher/cmd/enricher/internal/credentials"
	"enricher/schemas"
)

// Registry is where the schema of a topic's values is.
type Registry struct {
	URLs        []string // of one registry
	Headers     url.Values
	Credentials *credentials.Credentials
	UserAgent   string
	Topic       string
	Format      schemas.Format
}

// FlagPrefix is what the names of the flags begin with that say how to log in.
const FlagPrefix = "schema-registry-"

// Timeout is how long a registry may take for one response.
const Timeout = 5 * time.Second

// Schema is a schema that is registered.
type Schema struct {
	Subject string
	Version int
	ID      int
	GUID    string // "": the registry has none
	format  schemas.Format
}

// Subject returns where the schema of the topic's values is registered: by the
// convention that is the default of readers (TopicNameStrategy).
func (r *Registry) Subject() string { return r.Topic + "-value" }

// Find returns the schema as it is registered.
func (r *Registry) Find(ctx context.Context) (Schema, error) {
	var found sr.SubjectSchema
	err := r.do(func(cl *sr.Client) (err error) {
		found, err = cl.LookupSchema(ctx, r.Subject(), r.schema())
		return err
	})
	return r.result(found), err
}

// Check reports whether the schema is compatible with those that are registered, as
// the registry defines it. A subject without a schema accepts any.
func (r *Registry) Check(ctx context.Context) error {
	const latest = -1
	var got sr.CheckCompatibilityResult
	err := r.do(func(cl *sr.Client) (err error) {
		got, err = cl.CheckCompatibility(sr.WithParams(ctx, sr.Verbose), r.Subject(), latest, r.schema())
		return err
	})
	var missing *NotRegisteredError
	switch {
	case errors.As(err, &missing):
		return nil
	case err == nil && !got.Is:
		return &IncompatibleError{Subject: r.Subject(), Text: strings.Join(got.Messages, "; ")}
	}
	return err
}

// Register registers the schema, unless it is already.
func (r *Registry) Register(ctx context.Context) (Schema, error) {
	var created sr.SubjectSchema
	err := r.do(func(cl *sr.Client) (err error) {
		created, err = cl.CreateSchema(ctx, r.Subject(), r.schema())
		return err
	})
	return r.result(created), err
}

func (r *Registry) result(s sr.SubjectSchema) Schema {
	return Schema{Subject: r.Subject(), Version: s.Version, ID: s.ID, GUID: s.GUID, format: r.Format}
}

func (r *Registry) schema() sr.Schema {
	s := sr.Schema{Schema: r.Format.Schema()}
	switch r.Format {
	case schemas.Avro:
		s.Type = sr.TypeAvro
	case schemas.Protobuf:
		s.Type = sr.TypeProtobuf
	default:
		s.Type = sr.TypeJSON
	}
	return s
}

// do makes requests with a client of their own: they are few and far between, and
// the credentials may have changed.
func (r *Registry) do(request func(*sr.Client) error) error {
	client := r.Credentials.Client(Timeout)
	defer client.Close()
	cl, err := sr.NewClient(sr.URLs(r.URLs...), sr.HTTPClient(&client.Client), sr.UserAgent(r.UserAgent), sr.PreReq(func(req *http.Request) error {
		for name, values := range r.Headers {
			req.Header[http.CanonicalHeaderKey(name)] = values
		}
		return client.Authorize(req)
	}))
	if err != nil {
		return err
	}
	return r.explain(request(cl), client)
}

// Frame returns what precedes each value, so that readers find the schema by its id.
func (s Schema) Frame() []byte {
	b, _ := new(sr.ConfluentHeader).AppendEncode(nil, s.ID, s.messageIndex()) // returns no error
	return b
}

// HeaderValue returns the value of schemas.HeaderValueSchemaID, by which readers find
// the schema without a frame.
func (s Schema) HeaderValue() ([]byte, error) {
	guid, err := hex.DecodeString(strings.ReplaceAll(s.GUID, "-", ""))
	if err != nil || len(guid) != 16 {
		return nil, &NoGUIDError{Subject: s.Subject, GUID: s.GUID}
	}
	b := append([]byte{1}, guid...)
	if s.messageIndex() != nil {
		b = append(b, 0) // the first message, as in a frame
	}
	return b, nil
}

// messageIndex is where the message is in the file of a Protocol Buffers schema.
func (s Schema) messageIndex() []int {
	if s.format == schemas.Protobuf {
		return []int{0}
	}
	return nil
}

// String describes the schema.
func (s Schema) String() string {
	text := fmt.Sprintf("subject %s, version %d, id %d", s.Subject, s.Version, s.ID)
	if s.GUID != "" {
		text += ", GUID " + s.GUID
	}
	return text
}
