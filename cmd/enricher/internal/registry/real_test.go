package registry_test

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/sr"

	"enricher/cmd/enricher/internal/credentials"
	"enricher/cmd/enricher/internal/registry"
	"enricher/schemas"
	"enricher/test/apicurio"
)

// On a real registry, in memory: a schema is registered and found, one that readers
// could not follow is refused, and one with another optional field is accepted under
// BACKWARD, the level that registries begin with. KAFKA_TESTS=1 starts it (needs Java
// and mvn).
func TestRealRegistry(t *testing.T) {
	if os.Getenv("KAFKA_TESTS") == "" {
		t.Skip("not on a real registry: set KAFKA_TESTS=1 (needs Java 21 and mvn)")
	}
	address := startApicurio(t)
	cl, err := sr.NewClient(sr.URLs(address))
	if err != nil {
		t.Fatal(err)
	}
	later := map[schemas.Format]*strings.Replacer{
		schemas.JSON:     strings.NewReplacer(`"call_id": {`, `"tariff": { "type": "string" }, "call_id": {`),
		schemas.Avro:     strings.NewReplacer(`{ "name": "call_id"`, `{ "name": "tariff", "type": ["null", "string"], "default": null }, { "name": "call_id"`),
		schemas.Protobuf: strings.NewReplacer(`string call_id = 2;`, `string call_id = 2; optional string tariff = 19;`),
	}
	other := map[schemas.Format]*strings.Replacer{
		schemas.JSON:     strings.NewReplacer(`"caller": { "type": "string" }`, `"caller": { "type": "boolean" }`),
		schemas.Avro:     strings.NewReplacer(`"name": "call_id", "type": "string"`, `"name": "call_id", "type": "boolean"`),
		schemas.Protobuf: strings.NewReplacer(`string call_id = 2;`, `bool call_id = 2;`),
	}
	types := map[schemas.Format]sr.SchemaType{schemas.JSON: sr.TypeJSON, schemas.Avro: sr.TypeAvro, schemas.Protobuf: sr.TypeProtobuf}
	for _, f := range schemas.Formats() {
		t.Run(string(f), func(t *testing.T) {
			r := &registry.Registry{URLs: []string{address}, Credentials: credentials.New(credentials.Config{}, nil), Topic: "calls-" + string(f), Format: f}
			ctx := t.Context()
			var missing *registry.NotRegisteredError
			if _, err := r.Find(ctx); !errors.As(err, &missing) {
				t.Fatalf("before it was registered: %v", err)
			}
			if err := r.Check(ctx); err != nil {
				t.Fatal(err)
			}
			created, err := r.Register(ctx)
			if err != nil {
				t.Fatal(err)
			}
			found, err := r.Find(ctx)
			if err != nil || found != created || !bytes.HasPrefix(found.Frame(), []byte{0}) {
				t.Errorf("found %+v, %v; want %+v", found, err, created)
			}
			if _, err := found.HeaderValue(); !errors.As(err, new(*registry.NoGUIDError)) {
				t.Errorf("it has GUIDs now: %+v, %v", found, err)
			}

			backward := sr.SetCompatibility{Level: sr.CompatBackward}
			for _, res := range cl.SetCompatibility(ctx, backward, r.Subject()) {
				if res.Err != nil {
					t.Fatal(res.Err)
				}
			}
			got, err := cl.CheckCompatibility(ctx, r.Subject(), -1, sr.Schema{Schema: later[f].Replace(f.Schema()), Type: types[f]})
			if err != nil || !got.Is || later[f].Replace(f.Schema()) == f.Schema() {
				t.Errorf("a schema with another field: %+v, %v", got, err)
			}

			r.Topic += "-other"
			if _, err := cl.CreateSchema(ctx, r.Subject(), sr.Schema{Schema: other[f].Replace(f.Schema()), Type: types[f]}); err != nil {
				t.Fatal(err)
			}
			for _, res := range cl.SetCompatibility(ctx, backward, r.Subject()) {
				if res.Err != nil {
					t.Fatal(res.Err)
				}
			}
			if err := r.Check(ctx); !errors.As(err, new(*registry.IncompatibleError)) {
				t.Errorf("checked against one with another type: %v", err)
			}
			if _, err := r.Register(ctx); !errors.As(err, new(*registry.IncompatibleError)) {
				t.Errorf("registered beside one with another type: %v", err)
			}
			if _, err := r.Find(ctx); !errors.As(err, &missing) || !missing.Other {
				t.Errorf("found beside one with another type: %v", err)
			}
		})
	}
}

// startApicurio starts the registry, and returns its address with Confluent's API.
func startApicurio(t *testing.T) string {
	t.Helper()
	r, err := apicurio.Start(t.Context())
	if errors.Is(err, apicurio.ErrMissing) {
		t.Skipf("not on a real registry: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if log := r.Stop(); t.Failed() {
			t.Logf("the registry's log ends with: %s", log)
		}
	})
	return r.Confluent()
}
