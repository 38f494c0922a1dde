package main

import (
	"context"
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
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/fetch/fetchtest"
	"enricher/test/oracle"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"enricher": main})
}

// TestScripts runs testdata/*.txtar: the program from the command line, each
// with a broker and an API of its own where it asks for them.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("ENRICHER_SECRET_KEY", fetchtest.DemoKey)
			e.Setenv("ENRICHER_SDK_APP_ID", strconv.Itoa(fetchtest.DemoSDKAppID))
			return os.WriteFile(e.WorkDir+"/key", []byte(fetchtest.DemoKey+"\n"), 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"api": api, "kafka": kafka, "feed": feed, "outcomes": outcomes, "http": httpGet, "freeport": freePort,
			"letters": letters, "many-letters": manyLetters, "records": records, "topic": topic, "journal": awaitJournal,
		},
	})
}

// api starts a simulated API and sets $ENRICHER_API_URL. Argument: "hang" for
// one that never answers.
func api(ts *testscript.TestScript, _ bool, args []string) {
	sim := fetchtest.New(fetchtest.Config{Rate: 200})
	sim.Never("never")
	if len(args) > 0 {
		sim.SetOutage(fetchtest.Hang())
	}
	server, err := fetchtest.Listen(sim)
	ts.Check(err)
	ts.Defer(func() { _ = server.Close() })
	ts.Setenv("ENRICHER_API_URL", server.URL)
}

// kafka starts a broker and sets $ENRICHER_BROKERS. Arguments: its topics, none
// for the usual three; "secured" first: SASL, with user ops who may do
// everything, and user enricher who may only read.
func kafka(ts *testscript.TestScript, _ bool, args []string) {
	opts := []kfake.Opt{kfake.NumBrokers(1), kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"})}
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

// feed produces one event for each argument, a CallId.
func feed(ts *testscript.TestScript, _ bool, args []string) {
	cl, err := kgo.NewClient(brokers(ts))
	ts.Check(err)
	defer cl.Close()
	for _, id := range args {
		ts.Check(cl.ProduceSync(context.Background(), &kgo.Record{Topic: "call-ended", Value: fmt.Appendf(nil, `{"CallId":%q}`, id)}).FirstErr())
	}
}

// outcomes waits for N outcomes and prints them, key and value a line.
func outcomes(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		records, err := oracle.Read(ctx, []kgo.Opt{brokers(ts)}, "call-enriched", "call-dead-letters")
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

// httpGet waits until a URL answers with a status, and prints the answer.
func httpGet(ts *testscript.TestScript, _ bool, args []string) {
	deadline := time.Now().Add(30 * time.Second)
	for {
		resp, err := http.Get(args[0])
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

// freePort sets a variable to an address nobody listens at.
func freePort(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Check(l.Close())
	ts.Setenv(args[0], l.Addr().String())
}
