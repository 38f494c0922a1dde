package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"enricher/consumer/audit"
	"enricher/fetch/fetchtest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"enricher": main})
}

// TestScripts runs the command lines in testdata/*.txtar. A script gets a broker and
// an API of its own if it starts them.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Values[simulator{}] = new(*fetchtest.API)
			e.Values[fakeRegistry{}] = new(*fakeRegistry)
			e.Setenv("ENRICHER_SECRET_KEY", fetchtest.DemoKey)
			e.Setenv("ENRICHER_SDK_APP_ID", strconv.Itoa(fetchtest.DemoSDKAppID))
			return os.WriteFile(e.WorkDir+"/key", []byte(fetchtest.DemoKey+"\n"), 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"api": api, "kafka": kafka, "feed": feed, "outcomes": outcomes, "http": httpGet, "nosecrets": noSecrets, "freeport": freePort,
			"secure-api": secureAPI, "proxy": startProxy, "alter": alterTopic, "clusterstate": clusterState,
			"dead-letters": deadLetters, "many-dead-letters": manyDeadLetters, "records": records, "topic": topic, "journal": awaitJournal,
			"registry": schemaRegistry, "enriched": enrichedValues,
		},
	})
}

// simulator is the key of a script's API among its values.
type simulator struct{}

// api starts a simulated API and sets $ENRICHER_API_URL. With the argument "hang" it
// never responds.
func api(ts *testscript.TestScript, _ bool, args []string) {
	sim := fetchtest.New(fetchtest.Config{Rate: 200})
	*ts.Value(simulator{}).(**fetchtest.API) = sim
	sim.Never("never")
	if len(args) > 0 {
		sim.SetOutage(fetchtest.Hang())
	}
	server, err := fetchtest.Listen(sim)
	ts.Check(err)
	ts.Defer(func() { _ = server.Close() })
	ts.Setenv("ENRICHER_API_URL", server.URL)
	ts.Setenv("API_HOST", strings.TrimPrefix(server.URL, "http://"))
}

// kafka starts a broker and sets $ENRICHER_BROKERS. Arguments: its topics, none
// for the usual three; before them "three", for as many brokers, and "secured":
// SASL, with user ops, who may do everything, and user enricher, who may only read.
func kafka(ts *testscript.TestScript, _ bool, args []string) {
	opts := []kfake.Opt{kfake.NumBrokers(1), kfake.MaxVersions(kversion.V4_2_0()), kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"})}
	if len(args) > 0 && args[0] == "three" {
		args = args[1:]
		opts = append(opts, kfake.NumBrokers(3))
	}
	if len(args) > 0 && args[0] == "secured" {
		args = args[1:]
		allow := func(r kmsg.ACLResourceType, name string, op kmsg.ACLOperation) kfake.ACL {
			return kfake.ACL{Resource: r, Name: name, Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: op, Allow: true}
		}
		opts = append(opts, kfake.EnableSASL(), kfake.EnableACLs(), kfake.Superuser("SCRAM-SHA-256", "ops", "pw"),
			kfake.User("SCRAM-SHA-256", "enricher", "pw",
				allow(kmsg.ACLResourceTypeTopic, "call-ended", kmsg.ACLOperationRead),
				allow(kmsg.ACLResourceTypeTopic, "call-enriched", kmsg.ACLOperationDescribe)),
			kfake.User("SCRAM-SHA-256", "replayer", "pw",
				allow(kmsg.ACLResourceTypeTopic, "call-dead-letters", kmsg.ACLOperationRead),
				allow(kmsg.ACLResourceTypeTopic, "call-dead-letters-journal", kmsg.ACLOperationRead),
				allow(kmsg.ACLResourceTypeTopic, "given-journal", kmsg.ACLOperationRead),
				allow(kmsg.ACLResourceTypeTopic, "given-journal", kmsg.ACLOperationDescribeConfigs)),
			kfake.User("SCRAM-SHA-256", "writer", "pw",
				allow(kmsg.ACLResourceTypeTopic, "call-dead-letters", kmsg.ACLOperationRead),
				allow(kmsg.ACLResourceTypeTopic, "given-journal", kmsg.ACLOperationRead),
				allow(kmsg.ACLResourceTypeTopic, "given-journal", kmsg.ACLOperationWrite),
				allow(kmsg.ACLResourceTypeTopic, "given-journal", kmsg.ACLOperationDescribeConfigs)))
	}
	if len(args) == 0 {
		args = []string{"call-ended", "call-enriched", "call-dead-letters"}
	}
	cluster, err := kfake.NewCluster(append(opts, kfake.SeedTopics(3, args...))...)
	ts.Check(err)
	ts.Defer(cluster.Close)
	ts.Setenv("ENRICHER_BROKERS", strings.Join(cluster.ListenAddrs(), ","))
}

func brokers(ts *testscript.TestScript) kgo.Opt {
	return kgo.SeedBrokers(strings.Split(ts.Getenv("ENRICHER_BROKERS"), ",")...)
}

// feed produces one event for each argument, a CallId, to $ENRICHER_INPUT_TOPICS or
// call-ended.
func feed(ts *testscript.TestScript, _ bool, args []string) {
	cl, err := kgo.NewClient(brokers(ts))
	ts.Check(err)
	defer cl.Close()
	topic := cmp.Or(ts.Getenv("ENRICHER_INPUT_TOPICS"), "call-ended")
	for _, id := range args {
		ts.Check(cl.ProduceSync(context.Background(), &kgo.Record{Topic: topic, Value: fmt.Appendf(nil, `{"CallId":%q}`, id)}).FirstErr())
	}
}

// outcomes waits for N outcomes and prints them, one per line.
func outcomes(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		records, err := audit.Read(ctx, []kgo.Opt{brokers(ts)}, "call-enriched", "call-dead-letters")
		ts.Check(err)
		if len(records) == want {
			for _, r := range records {
				_, _ = fmt.Fprintf(ts.Stdout(), "%s %s %s\n", r.Topic, r.Key, r.Value)
			}
			return
		}
		if len(records) > want {
			ts.Fatalf("%d outcomes, want %d", len(records), want)
		}
		<-time.After(100 * time.Millisecond)
	}
}

// httpGet waits until a URL responds with a status, and prints the response.
func httpGet(ts *testscript.TestScript, _ bool, args []string) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	deadline := time.Now().Add(30 * time.Second)
	for {
		resp, err := client.Get(args[0])
		got := ""
		if err == nil {
			body, readErr := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			ts.Check(readErr)
			if strconv.Itoa(resp.StatusCode) == args[1] && (len(args) < 3 || strings.Contains(string(body), args[2])) {
				_, _ = ts.Stdout().Write(body)
				return
			}
			got = resp.Status + ": " + string(body)
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%s: %s, %v", args[0], got, err)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// noSecrets looks for secrets in all pages of an admin address.
func noSecrets(ts *testscript.TestScript, _ bool, args []string) {
	secrets := (*ts.Value(simulator{}).(**fetchtest.API)).Secrets()
	if len(secrets.UserSigs) == 0 {
		ts.Fatalf("the API received no request, so there is nothing to find")
	}
	for _, path := range []string{
		"/", "/livez", "/readyz", "/metrics", "/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/goroutine?debug=2",
		"/debug/pprof/heap?debug=1", "/debug/pprof/allocs", "/debug/pprof/trace?seconds=0.1",
	} {
		resp, err := http.Get(args[0] + path)
		ts.Check(err)
		page, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		ts.Check(err)
		if found := secrets.Find(page); len(found) > 0 {
			ts.Fatalf("%s contains %v", path, found)
		}
		if len(secrets.Find(append(page, secrets.URLs[0]...))) == 0 {
			ts.Fatalf("a secret planted in %s is not found", path)
		}
	}
}

// freePort sets a variable to an address that refuses connections.
func freePort(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Check(l.Close())
	ts.Setenv(args[0], l.Addr().String())
}

// alterTopic sets settings of a topic, name=value.
func alterTopic(ts *testscript.TestScript, _ bool, args []string) {
	cl, err := kgo.NewClient(brokers(ts))
	ts.Check(err)
	defer cl.Close()
	var settings []kadm.AlterConfig
	for _, arg := range args[1:] {
		name, value, _ := strings.Cut(arg, "=")
		settings = append(settings, kadm.AlterConfig{Name: name, Value: &value})
	}
	_, err = kadm.NewClient(cl).AlterTopicConfigs(context.Background(), settings, args[0])
	ts.Check(err)
}

// clusterState prints what a command could have created: topics, groups and
// transactional ids.
func clusterState(ts *testscript.TestScript, _ bool, _ []string) {
	cl, err := kgo.NewClient(brokers(ts))
	ts.Check(err)
	defer cl.Close()
	adm := kadm.NewClient(cl)
	topics, err := adm.ListTopicsWithInternal(context.Background())
	ts.Check(err)
	groups, err := adm.ListGroups(context.Background())
	ts.Check(err)
	ids, err := adm.ListTransactions(context.Background(), nil, nil)
	ts.Check(err)
	_, _ = fmt.Fprintf(ts.Stdout(), "topics %v\ngroups %v\ntransactional ids %v\n", topics.Names(), groups.Groups(), ids.TransactionalIDs())
}
