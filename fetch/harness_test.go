package fetch_test

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"

	"enricher/fetch"
	"enricher/fetch/fetchtest"
)

// newClient returns a client for the simulator's Demo constants, unless cfg says otherwise.
func newClient(tb testing.TB, cfg fetch.ClientConfig) *fetch.Client {
	tb.Helper()
	if cfg.Key == nil {
		cfg.Key = demoKey(tb)
	}
	if cfg.BaseURL == "" {
		cfg.BaseURL = "http://127.0.0.1"
	}
	if cfg.SDKAppID == 0 {
		cfg.SDKAppID = fetchtest.DemoSDKAppID
	}
	c, err := fetch.NewClient(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.Close)
	return c
}

func demoKey(tb testing.TB) *fetch.SecretKey {
	tb.Helper()
	k, err := fetch.KeyFromValue(fetch.NewSecret(fetchtest.DemoKey))
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

// listen serves a new simulator over TCP.
func listen(tb testing.TB, cfg fetchtest.Config) (*fetchtest.API, *fetchtest.Server) {
	tb.Helper()
	api := fetchtest.New(cfg)
	server, err := fetchtest.Listen(api)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = server.Close() })
	return api, server
}

// follower is an observer that notes how far a request came, and lets it begin
// unless forbidden.
type follower struct {
	forbidden bool

	mu    sync.Mutex
	steps []string
}

func (o *follower) Begin() bool { o.note("begin"); return !o.forbidden }
func (o *follower) Connected()  { o.note("connected") }
func (o *follower) Written()    { o.note("written") }

func (o *follower) note(step string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.steps = append(o.steps, step)
}

func (o *follower) saw() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Join(o.steps, " ")
}

// observed matches what an observer may see: a connection that turns out to be
// dead may be followed by another one.
var observed = regexp.MustCompile(`^(begin( connected( written)?)*)?$`)

// send sends one request and checks what holds for every response: its labels are of
// the closed set, its texts are bounded and contain no secret, and the observer saw
// the request begin at most once, and in order.
func send(tb testing.TB, c *fetch.Client, api *fetchtest.API, callID string) fetch.Response {
	tb.Helper()
	return sendContext(tb, context.Background(), c, api, callID)
}

func sendContext(tb testing.TB, ctx context.Context, c *fetch.Client, api *fetchtest.API, callID string) fetch.Response {
	tb.Helper()
	var o follower
	a := c.Lookup(ctx, callID, &o)
	if saw := o.saw(); !observed.MatchString(saw) || a.Verdict == fetch.Found && !strings.HasSuffix(saw, "connected written") {
		tb.Errorf("%v: the observer saw %q", a.Verdict, saw)
	}
	checkResponse(tb, api, a)
	return a
}

func checkResponse(tb testing.TB, api *fetchtest.API, a fetch.Response) {
	tb.Helper()
	if !knownLabels[label{a.Verdict, a.Label}] {
		tb.Errorf("(%v, %s) is not among ResponseLabels", a.Verdict, a.Label)
	}
	if len(a.Message) > 1024 || len(a.RequestID) > 128 {
		tb.Errorf("message of %d, request id of %d bytes", len(a.Message), len(a.RequestID))
	}
	if (a.Verdict == fetch.Found) != (a.Record != nil) || (a.Verdict == fetch.Found) != (a.Message == "") {
		tb.Errorf("%v with record %v and message %q", a.Verdict, a.Record, a.Message)
	}
	if a.Verdict != fetch.AccountRejected && a.Lockout > 0 {
		tb.Errorf("%v with a lockout of %v", a.Verdict, a.Lockout)
	}
	if api != nil {
		text := fmt.Sprintf("%v\n%+v\n%#v", a, a, a)
		api.Secrets().AssertAbsent(tb, "the response "+a.Verdict.String()+" "+a.Label, []byte(text))
	}
}

// label is a pair of values of the metric's labels.
type label struct {
	verdict fetch.Verdict
	code    string
}

var knownLabels = func() map[label]bool {
	m := map[label]bool{}
	for _, r := range fetch.ResponseLabels() {
		l := label{r.Verdict, r.Code}
		if m[l] {
			panic(fmt.Sprintf("ResponseLabels lists %v twice", l))
		}
		m[l] = true
	}
	return m
}()
