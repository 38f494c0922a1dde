// Package kafka runs a real Apache Kafka on this machine: one node or three, on
// free loopback ports, with its data in a temporary directory. It needs Java 17
// and, the first time, Maven, which downloads the jars that pom.xml names. It does
// not use a Kafka that is installed or already running.
package kafka

import (
	"bytes"
	"cmp"
	"context"
	crand "crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

//go:embed pom.xml
var pom []byte

// defaultVersion is the Apache Kafka that runs unless KAFKA_VERSION names another
// one. Not 4.3.x: it can lose transaction markers when a broker is killed
// (KAFKA-20734).
const defaultVersion = "4.2.1"

// Version returns the version of Apache Kafka that Start runs: that of the
// environment variable KAFKA_VERSION, or the default.
func Version() string { return cmp.Or(os.Getenv("KAFKA_VERSION"), defaultVersion) }

const transactionVersionVar = "KAFKA_TRANSACTION_VERSION"

// TransactionVersion returns the feature level transaction.version of the clusters
// that Start starts: that of the environment variable KAFKA_TRANSACTION_VERSION, or
// the default of the version of Kafka, which before 4.0 is 0.
func TransactionVersion() int {
	if v, err := strconv.Atoi(os.Getenv(transactionVersionVar)); err == nil {
		return v
	}
	if strings.HasPrefix(Version(), "3.") {
		return 0
	}
	return 2
}

// ErrMissing is returned on a machine without Java or Maven.
var ErrMissing = errors.New("a real Kafka needs java and mvn")

const (
	// startTimeout is several times what three nodes take to start on a busy machine.
	startTimeout = time.Minute
	// shutdownTimeout is for a controlled shutdown, in which a broker hands its
	// partitions over; usually it takes a second or two.
	shutdownTimeout = 20 * time.Second
)

// Config describes the cluster to start.
type Config struct {
	Nodes int // 1 or 3; default 1
	// Properties of all brokers, which override those that Start sets.
	Properties map[string]string
	// Secured adds a listener with TLS and SCRAM to every broker. On it only
	// SuperUser may do what no ACL allows.
	Secured bool
	// JavaOptions are given to the brokers' processes.
	JavaOptions []string
	// Listeners are further plain-text listeners, by name, with the address that
	// each node advertises there instead of its own: that of a proxy.
	Listeners map[string][]string
}

// Cluster is a running Kafka.
type Cluster struct {
	Brokers []string // addresses, by node
	Secured *Secured // nil without Config.Secured
	// Listeners are the addresses of the listeners of Config, by name and node.
	Listeners map[string][]string

	dir     string
	jars    string
	options []string
	nodes   []*node
}

type node struct {
	dir string
	cmd *exec.Cmd // nil: not running
	out *os.File
}

// Jars returns the directory with the broker's jars. It downloads them if they are
// not there.
func Jars(ctx context.Context) (string, error) {
	if _, err := exec.LookPath("java"); err != nil {
		return "", fmt.Errorf("%w: %w", ErrMissing, err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a directory for the jars: %w", err)
	}
	sum := sha256.Sum256(pom)
	dir := filepath.Join(cache, "enricher-kafka", Version()+"-"+hex.EncodeToString(sum[:6]))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if _, err := exec.LookPath("mvn"); err != nil {
		return "", fmt.Errorf("%w: %w", ErrMissing, err)
	}
	// Next to its final place, so that of two processes that download at the same
	// time neither sees half of the jars.
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), "download")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	if err := os.WriteFile(filepath.Join(work, "pom.xml"), pom, 0o644); err != nil {
		return "", err
	}
	libs := filepath.Join(work, "libs")
	cmd := exec.CommandContext(ctx, "mvn", "-q", "-B", "-f", filepath.Join(work, "pom.xml"), "dependency:copy-dependencies",
		"-DoutputDirectory="+libs, "-Dkafka.version="+Version())
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("download the jars: %w\n%s", err, out)
	}
	if err := os.Rename(libs, dir); err != nil {
		if _, there := os.Stat(dir); there == nil {
			return dir, nil // another process was faster
		}
		return "", err
	}
	return dir, nil
}

// Start starts a cluster and waits until all brokers respond. After an error no
// node is left running.
func Start(ctx context.Context, cfg Config) (_ *Cluster, err error) {
	cfg.Nodes = max(cfg.Nodes, 1)
	jars, err := Jars(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "kafka")
	if err != nil {
		return nil, err
	}
	c := &Cluster{dir: dir, jars: jars, options: cfg.JavaOptions}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Stop())
		}
	}()
	if cfg.Secured {
		if c.Secured, err = secure(dir); err != nil {
			return nil, err
		}
	}
	ports, err := FreePorts((3 + len(cfg.Listeners)) * cfg.Nodes)
	if err != nil {
		return nil, err
	}
	next := func() string {
		address := fmt.Sprintf("127.0.0.1:%d", ports[0])
		ports = ports[1:]
		return address
	}
	c.Listeners = make(map[string][]string)
	for name := range cfg.Listeners {
		for range cfg.Nodes {
			c.Listeners[name] = append(c.Listeners[name], next())
		}
	}
	var controllers, voters []string
	for i := range cfg.Nodes {
		c.Brokers = append(c.Brokers, next())
		controllers = append(controllers, next())
		voters = append(voters, fmt.Sprintf("%d@%s", i+1, controllers[i]))
		if cfg.Secured {
			c.Secured.Brokers = append(c.Secured.Brokers, next())
		}
	}
	clusterID := newClusterID()
	for i := range cfg.Nodes {
		n := &node{dir: filepath.Join(dir, fmt.Sprint("node", i+1))}
		c.nodes = append(c.nodes, n)
		if err := os.MkdirAll(n.dir, 0o755); err != nil {
			return nil, err
		}
		properties := cfg.properties(c, i, controllers[i], strings.Join(voters, ","))
		if err := os.WriteFile(n.properties(), []byte(properties), 0o644); err != nil {
			return nil, err
		}
		format := []string{"kafka.tools.StorageTool", "format", "-t", clusterID, "-c", n.properties()}
		if v, set := os.LookupEnv(transactionVersionVar); set {
			format = append(format, "--feature", "transaction.version="+v)
		}
		if cfg.Secured {
			format = append(format, "--add-scram", fmt.Sprintf("SCRAM-SHA-256=[name=%s,password=%s]", SuperUser, SuperPassword))
		}
		if out, err := c.java(ctx, format...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("format node %d: %w\n%s", i+1, err, out)
		}
		if err := c.Run(i); err != nil {
			return nil, err
		}
	}
	return c, c.Await(ctx, cfg.Nodes)
}

// newClusterID returns a random UUID as Kafka writes it.
func newClusterID() string {
	id := make([]byte, 16)
	_, _ = crand.Read(id) // never fails
	id[0] &= 0x7f         // a text that began with a dash would be taken for a flag
	return base64.RawURLEncoding.EncodeToString(id)
}

// properties returns those of node i, which is both a broker and a controller.
func (cfg *Config) properties(c *Cluster, i int, controller, voters string) string {
	replicas, minISR := "1", "1"
	if cfg.Nodes >= 3 {
		replicas, minISR = "3", "2"
	}
	p := map[string]string{
		"process.roles": "broker,controller", "node.id": fmt.Sprint(i + 1),
		"listeners":                      "PLAINTEXT://" + c.Brokers[i] + ",CONTROLLER://" + controller,
		"advertised.listeners":           "PLAINTEXT://" + c.Brokers[i],
		"controller.listener.names":      "CONTROLLER",
		"listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"controller.quorum.voters":       voters,
		"log.dirs":                       c.Data(i),
		"auto.create.topics.enable":      "false",

		"default.replication.factor": replicas, "min.insync.replicas": minISR,
		"offsets.topic.replication.factor": replicas, "offsets.topic.num.partitions": "6",
		"transaction.state.log.replication.factor": replicas, "transaction.state.log.min.isr": minISR, "transaction.state.log.num.partitions": "6",
		"group.initial.rebalance.delay.ms": "0", "group.min.session.timeout.ms": "1000",
	}
	if c.Secured != nil {
		maps.Copy(p, c.Secured.properties(c.Brokers[i], c.Secured.Brokers[i], controller))
	}
	for name, addrs := range c.Listeners {
		p["listeners"] += fmt.Sprintf(",%s://%s", name, addrs[i])
		p["advertised.listeners"] += fmt.Sprintf(",%s://%s", name, cfg.Listeners[name][i])
		p["listener.security.protocol.map"] += fmt.Sprintf(",%s:PLAINTEXT", name)
	}
	maps.Copy(p, cfg.Properties)
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(p)) {
		fmt.Fprintf(&b, "%s=%s\n", k, p[k])
	}
	return b.String()
}

// Data returns the directory of node i's logs.
func (c *Cluster) Data(i int) string { return filepath.Join(c.nodes[i].dir, "data") }

func (n *node) properties() string { return filepath.Join(n.dir, "server.properties") }

func (c *Cluster) java(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "java", slices.Concat([]string{"-Xms256m", "-Xmx1g"}, c.options, []string{"-cp", filepath.Join(c.jars, "*")}, args)...)
}

// Run starts node i, which must not be running.
func (c *Cluster) Run(i int) error {
	n := c.nodes[i]
	out, err := os.OpenFile(filepath.Join(n.dir, "out"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	n.out = out
	n.cmd = c.java(context.Background(), "kafka.Kafka", n.properties())
	n.cmd.Stdout, n.cmd.Stderr = out, out
	if err := n.cmd.Start(); err != nil {
		return fmt.Errorf("start node %d: %w", i+1, errors.Join(err, out.Close()))
	}
	return nil
}

// Kill ends node i with SIGKILL.
func (c *Cluster) Kill(i int) error { return c.end(i, os.Kill) }

// Shutdown ends node i with SIGINT, upon which it hands its partitions over first.
func (c *Cluster) Shutdown(i int) error { return c.end(i, os.Interrupt) }

func (c *Cluster) end(i int, s os.Signal) error {
	n := c.nodes[i]
	if n.cmd == nil {
		return nil
	}
	err := n.cmd.Process.Signal(s)
	if s != os.Kill {
		late := time.AfterFunc(shutdownTimeout, func() { _ = n.cmd.Process.Kill() })
		defer late.Stop()
	}
	var exit *exec.ExitError
	if waitErr := n.cmd.Wait(); waitErr != nil && !errors.As(waitErr, &exit) {
		err = errors.Join(err, waitErr)
	}
	n.cmd = nil
	return errors.Join(err, n.out.Close())
}

// Await waits until that many brokers are up.
func (c *Cluster) Await(ctx context.Context, brokers int) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.Brokers...), kgo.MetadataMinAge(100*time.Millisecond))
	if err != nil {
		return err
	}
	defer cl.Close()
	for {
		attempt, done := context.WithTimeout(ctx, 2*time.Second)
		// Not with kadm, which repeats what the client cached when not all brokers were
		// up.
		req := kmsg.NewPtrMetadataRequest()
		req.Topics = []kmsg.MetadataRequestTopic{} // none
		m, err := req.RequestWith(attempt, cl)
		done()
		if err == nil && len(m.Brokers) >= brokers {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d brokers did not start within %v: %w\n%s", brokers, startTimeout, errors.Join(err, ctx.Err()), c.output())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// output returns the last lines that each node printed.
func (c *Cluster) output() string {
	const lastLines = 15
	var b strings.Builder
	for i, n := range c.nodes {
		out, _ := os.ReadFile(filepath.Join(n.dir, "out")) // best effort: it explains another error
		if lines := bytes.Split(bytes.TrimSpace(out), []byte("\n")); len(lines) > lastLines {
			out = bytes.Join(lines[len(lines)-lastLines:], []byte("\n"))
		}
		fmt.Fprintf(&b, "node %d:\n%s\n", i+1, out)
	}
	return b.String()
}

// Stop ends all nodes and deletes their data.
func (c *Cluster) Stop() error {
	var errs []error
	for i := range c.nodes {
		errs = append(errs, c.Kill(i))
	}
	return errors.Join(append(errs, os.RemoveAll(c.dir))...)
}

// FreePorts returns ports that are free now, below the range from which systems
// take ports for outgoing connections: so a server that ends and starts again
// finds its port still free.
func FreePorts(n int) ([]int, error) {
	const low, high, tries = 10000, 32000, 1000
	var ports []int
	for range tries {
		if len(ports) == n {
			return ports, nil
		}
		port := low + rand.IntN(high-low)
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			continue
		}
		defer l.Close()
		ports = append(ports, port)
	}
	return nil, fmt.Errorf("found %d free ports of %d", len(ports), n)
}
