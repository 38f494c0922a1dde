package consumer_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"enricher/consumer/session"
	"enricher/fetch/fetchtest"
	"enricher/test/kafka"
)

// right is one that the program needs.
type right struct {
	resource, name string // as kafka-acls names them
	operation      kadm.ACLOperation
}

func (r right) acl() *kadm.ACLBuilder { return r.allow(r.operation) }

func (r right) allow(op kadm.ACLOperation) *kadm.ACLBuilder {
	b := kadm.NewACLs().Allow("User:enricher").AllowHosts("*").Operations(op).ResourcePatternType(kadm.ACLPatternLiteral)
	switch r.resource {
	case "topic":
		return b.Topics(r.name)
	case "group":
		return b.Groups(r.name)
	}
	return b.TransactionalIDs(r.name)
}

// TestKafkaSecured: the real program through TLS, with certificates on both
// sides, SCRAM and access control lists; and without each right that it needs.
func TestKafkaSecured(t *testing.T) {
	t.Parallel()
	w, c := onOwnKafka(t, fetchtest.Config{}, kafka.Config{Secured: true})
	adm := superUser(t, c.Secured)
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("enricher-password\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := adm.AlterUserSCRAMs(t.Context(), nil, []kadm.UpsertSCRAM{{
		User: "enricher", Mechanism: kadm.ScramSha256, Iterations: 4096, Password: "enricher-password",
	}}); err != nil {
		t.Fatal(err)
	}
	api, err := fetchtest.Listen(w.api)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = api.Close() })
	p := program{
		binary: build(t),
		args: []string{
			"run", "--brokers", strings.Join(c.Secured.Brokers, ","),
			"--tls-ca", c.Secured.CA, "--tls-cert", c.Secured.Cert, "--tls-key", c.Secured.Key,
			"--sasl-mechanism", "SCRAM-SHA-256", "--sasl-user", "enricher", "--sasl-password-file", password,
			"--group", w.Group, "--instance", "a", "--input-topics", w.In, "--enriched-topic", w.Out, "--dead-letter-topic", w.Dead,
			"--api-url", api.URL, "--sdk-app-id", strconv.Itoa(fetchtest.DemoSDKAppID), "--settle-delay", "0s", "--admin-addr", "127.0.0.1:0",
		},
	}
	rights := []right{
		{"topic", w.In, kadm.OpRead},
		{"topic", w.Out, kadm.OpWrite},
		{"topic", w.Dead, kadm.OpWrite},
		{"group", w.Group, kadm.OpRead},
		{"transactional-id", session.TransactionalID(w.Group, "a"), kadm.OpWrite},
	}
	w.calls("c", 5*partitions)

	t.Run("none at all", func(t *testing.T) {
		out := p.fails(t)
		for _, r := range rights {
			if !strings.Contains(out, "--"+r.resource+" "+r.name) {
				t.Errorf("%s %s is not named in\n%s", r.resource, r.name, out)
			}
		}
	})
	for _, r := range rights {
		alter(t, adm, r.acl(), nil)
	}
	for _, r := range rights {
		for _, seen := range []bool{false, true} {
			name := "no " + r.operation.String() + " of " + r.resource + " " + r.name
			if seen {
				name += ", which may be described"
			}
			t.Run(name, func(t *testing.T) {
				alter(t, adm, nil, r.acl())
				defer alter(t, adm, r.acl(), nil)
				if seen {
					alter(t, adm, r.allow(kadm.OpDescribe), nil)
					defer alter(t, adm, nil, r.allow(kadm.OpDescribe))
				}
				out := p.fails(t)
				operation := map[kadm.ACLOperation]string{kadm.OpRead: "--operation Read", kadm.OpWrite: "--operation Write"}[r.operation]
				if !strings.Contains(out, "kafka-acls --add") || !strings.Contains(out, operation) || !strings.Contains(out, "--"+r.resource+" "+r.name) {
					t.Errorf("no remedy for what is missing in\n%s", out)
				}
				for _, other := range rights {
					if other != r && strings.Contains(out, "--"+other.resource+" "+other.name+"\n") {
						t.Errorf("%s %s is named too in\n%s", other.resource, other.name, out)
					}
				}
			})
		}
	}
	if n := len(w.outputs()); n > 0 {
		t.Fatalf("%d outputs without rights", n)
	}
	t.Run("all of them", func(t *testing.T) {
		cmd, out := p.start(t)
		w.await(time.Minute)
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		w.check()
	})
	t.Run("another password", func(t *testing.T) {
		if err := os.WriteFile(password, []byte("wrong\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd, out := p.start(t)
		for deadline := time.Now().Add(20 * time.Second); !strings.Contains(out.String(), "SASL_AUTHENTICATION_FAILED"); <-time.After(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("nothing says that the login failed:\n%s", out)
			}
		}
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
}

// superUser is a client that may do everything.
func superUser(t *testing.T, s *kafka.Secured) *kadm.Client {
	t.Helper()
	ca, err := os.ReadFile(s.CA)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.LoadX509KeyPair(s.Cert, s.Key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.Brokers...),
		kgo.DialTLSConfig(&tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}}),
		kgo.SASL(scram.Auth{User: kafka.SuperUser, Pass: kafka.SuperPassword}.AsSha256Mechanism()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return kadm.NewClient(cl)
}

// alter adds and takes away rights. The broker's answer means that it knows.
func alter(t *testing.T, adm *kadm.Client, add, remove *kadm.ACLBuilder) {
	t.Helper()
	if add != nil {
		results, err := adm.CreateACLs(context.Background(), add)
		for _, r := range results {
			if err == nil {
				err = r.Err
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if remove != nil {
		results, err := adm.DeleteACLs(context.Background(), remove)
		for _, r := range results {
			if err == nil {
				err = r.Err
			}
			if err == nil && len(r.Deleted) == 0 {
				t.Fatal("no such right")
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func build(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "enricher")
	if out, err := exec.Command("go", "build", "-o", binary, "enricher/cmd/enricher").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return binary
}

// program is the real one.
type program struct {
	binary string
	args   []string
}

// output is what a process prints, readable while it runs.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func (p program) start(t *testing.T) (*exec.Cmd, *output) {
	t.Helper()
	out := &output{}
	cmd := exec.Command(p.binary, p.args...)
	cmd.Env = append(os.Environ(), "ENRICHER_SECRET_KEY="+fetchtest.DemoKey)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill() // gone already, at worst
			_ = cmd.Wait()         // says that it was killed
		}
	})
	return cmd, out
}

// fails runs the program until it gives up and returns what it printed.
func (p program) fails(t *testing.T) string {
	t.Helper()
	cmd, out := p.start(t)
	late := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	err := cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 1 {
		t.Fatalf("exit code %d, want 1: %v\n%s", code, err, out)
	}
	return out.String()
}
