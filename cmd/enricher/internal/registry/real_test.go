package registry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/sr"

	"enricher/cmd/enricher/internal/credentials"
	"enricher/cmd/enricher/internal/registry"
	"enricher/schemas"
)

// apicurio is the version of Apicurio Registry that the test runs. It needs Java 21.
const (
	apicurio  = "3.3.3"
	leastJava = 21
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
	java := findJava(t)
	dir := installApicurio(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.Command(java, "-Xmx512m", fmt.Sprintf("-Dquarkus.http.port=%d", port), "-Dquarkus.http.host=127.0.0.1", "-jar", "quarkus-run.jar")
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the registry's log ends with: %s", out.Bytes()[max(0, out.Len()-2000):])
		}
	})
	address := fmt.Sprintf("http://127.0.0.1:%d/apis/ccompat/v7", port)
	for deadline := time.Now().Add(time.Minute); ; {
		resp, err := http.Get(address + "/subjects")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return address
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("it does not respond: %v", err)
		}
		<-time.After(100 * time.Millisecond)
	}
}

// findJava returns a Java that is new enough.
func findJava(t *testing.T) string {
	t.Helper()
	candidates, _ := filepath.Glob("/usr/lib/jvm/*/bin/java")
	if path, err := exec.LookPath("java"); err == nil {
		candidates = append(candidates, path)
	}
	if home := os.Getenv("JAVA_HOME"); home != "" {
		candidates = append([]string{filepath.Join(home, "bin", "java")}, candidates...)
	}
	for _, path := range candidates {
		out, _ := exec.Command(path, "-version").CombinedOutput()
		if m := regexp.MustCompile(`version "(\d+)`).FindSubmatch(out); m != nil {
			if n, _ := strconv.Atoi(string(m[1])); n >= leastJava {
				return path
			}
		}
	}
	t.Skipf("not on a real registry: there is no Java %d", leastJava)
	return ""
}

// installApicurio returns the directory of the program, which it downloads the first
// time.
func installApicurio(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "enricher-apicurio", apicurio)
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	part, err := os.MkdirTemp(filepath.Dir(dir), "part")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(part)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	coordinates := "io.apicurio:apicurio-registry-app:" + apicurio + ":tar.gz:all"
	for _, args := range [][]string{
		{"mvn", "-q", "-B", "dependency:copy", "-Dartifact=" + coordinates, "-DoutputDirectory=" + part},
		{"tar", "-xzf", filepath.Join(part, "apicurio-registry-app-"+apicurio+"-all.tar.gz"), "-C", part},
	} {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Dir = part
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Skipf("not on a real registry: it cannot be installed: %v: %.500s", err, out)
		}
	}
	if err := os.Rename(part, dir); err != nil {
		t.Fatal(err)
	}
	return dir
}
