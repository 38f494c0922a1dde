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

// permission is one that the program needs.
type permission struct {
	resource, name string // as kafka-acls names them
	operation      kadm.ACLOperation
}

func (p permission) acl() *kadm.ACLBuilder { return p.allow(p.operation) }

func (p permission) allow(op kadm.ACLOperation) *kadm.ACLBuilder {
	b := kadm.NewACLs().Allow("User:enricher").AllowHosts("*").Operations(op).ResourcePatternType(kadm.ACLPatternLiteral)
	switch p.resource {
	case "topic":
		return b.Topics(p.name)
	case "group":
		return b.Groups(p.name)
	}
	return b.TransactionalIDs(p.name)
}

// TestKafkaPermissions runs the command through TLS, with certificates on both sides,
// SCRAM and ACLs, and without each permission that it needs.
func TestKafkaPermissions(t *testing.T) {
	t.Parallel()
	e, c := ownKafkaEnv(t, kafka.Config{Secured: true})
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
	p := program{
		binary: build(t),
		args: []string{
			"run", "--brokers", strings.Join(c.Secured.Brokers, ","),
			"--tls-ca", c.Secured.CA, "--tls-cert", c.Secured.Cert, "--tls-key", c.Secured.Key,
			"--sasl-mechanism", "SCRAM-SHA-256", "--sasl-user", "enricher", "--sasl-password-file", password,
			"--group", e.Group, "--instance", "a", "--input-topics", e.In, "--enriched-topic", e.Enriched, "--dead-letter-topic", e.Dead,
			"--api-url", e.serveAPI(), "--sdk-app-id", strconv.Itoa(fetchtest.DemoSDKAppID), "--lookup-delay", "0s", "--admin-addr", "127.0.0.1:0",
		},
	}
	needed := []permission{
		{resource: "topic", name: e.In, operation: kadm.OpRead},
		{resource: "topic", name: e.Enriched, operation: kadm.OpWrite},
		{resource: "topic", name: e.Dead, operation: kadm.OpWrite},
		{resource: "group", name: e.Group, operation: kadm.OpRead},
		{resource: "transactional-id", name: session.TransactionalID(e.Group, "a"), operation: kadm.OpWrite},
	}
	e.FeedCalls("c", 5*partitions)

	t.Run("no permission", func(t *testing.T) {
		out := p.fails(t)
		for _, need := range needed {
			if !strings.Contains(out, "--"+need.resource+" "+need.name) {
				t.Errorf("%s %s is not named in\n%s", need.resource, need.name, out)
			}
		}
	})
	for _, need := range needed {
		alter(t, adm, need.acl(), nil)
	}
	for _, need := range needed {
		for _, described := range []bool{false, true} {
			name := "no " + need.operation.String() + " of " + need.resource + " " + need.name
			if described {
				name += ", but Describe"
			}
			t.Run(name, func(t *testing.T) {
				alter(t, adm, nil, need.acl())
				defer alter(t, adm, need.acl(), nil)
				if described {
					alter(t, adm, need.allow(kadm.OpDescribe), nil)
					defer alter(t, adm, nil, need.allow(kadm.OpDescribe))
				}
				out := p.fails(t)
				operation := map[kadm.ACLOperation]string{kadm.OpRead: "--operation Read", kadm.OpWrite: "--operation Write"}[need.operation]
				if !strings.Contains(out, "kafka-acls --add") || !strings.Contains(out, operation) || !strings.Contains(out, "--"+need.resource+" "+need.name) {
					t.Errorf("no remedy for what is missing in\n%s", out)
				}
				for _, other := range needed {
					if other != need && strings.Contains(out, "--"+other.resource+" "+other.name+"\n") {
						t.Errorf("%s %s is named too in\n%s", other.resource, other.name, out)
					}
				}
			})
		}
	}
	if n := len(e.Outputs()); n > 0 {
		t.Fatalf("%d outputs without permissions", n)
	}
	t.Run("every permission", func(t *testing.T) {
		cmd, out := p.start(t)
		e.Await(time.Minute)
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		e.Check()
	})
	t.Run("wrong password", func(t *testing.T) {
		if err := os.WriteFile(password, []byte("wrong\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd, out := p.start(t)
		for deadline := time.Now().Add(20 * time.Second); !strings.Contains(out.String(), "SASL_AUTHENTICATION_FAILED"); <-time.After(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the failed login is not reported:\n%s", out)
			}
		}
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
}

// superUser is an administrator's client with every permission.
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

// alter adds and removes permissions. They apply from the broker's response on.
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
				t.Fatal("there is no such permission")
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

// program is the command with arguments.
type program struct {
	binary string
	args   []string
}

// output is what a process printed so far.
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
			_ = cmd.Process.Kill() // it may have ended already
			_ = cmd.Wait()         // says that it was killed
		}
	})
	return cmd, out
}

// fails runs the program until it exits with 1 and returns its output.
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
