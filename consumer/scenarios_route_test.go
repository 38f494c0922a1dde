package consumer_test

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"enricher/consumer"
	"enricher/fetch"
	"enricher/fetch/fetchtest"
)

// The API's name changes its address. Whatever becomes of the old one, instances
// use the new one within seconds if the old one fails, and within half a minute if
// it does not. Nothing is lost or repeated, and as long as no request fails the
// instance stays ready.
func TestAPIAddressChanges(t *testing.T) {
	for name, c := range map[string]struct {
		fault    *fetchtest.Fault // of the old address
		dropped  bool
		reported bool // as a reason not to be ready, before the change
		within   time.Duration
	}{
		"old address works":     {within: 30 * time.Second},
		"old address fails":     {fault: new(fetchtest.BadGateway()), reported: true, within: 6 * time.Second},
		"old address is silent": {dropped: true, reported: true, within: 11 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			inVirtualTime(t, fetchtest.Config{}, func(t *testing.T, e *env) {
				var failing atomic.Bool
				var old atomic.Int64
				faulty := fetchtest.New(fetchtest.Config{})
				if c.fault != nil {
					faulty.SetOutage(*c.fault)
				}
				var network fetchtest.Network
				t.Cleanup(network.Close)
				network.Serve("old", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					old.Add(1)
					if failing.Load() {
						faulty.ServeHTTP(w, r)
						return
					}
					e.API.ServeHTTP(w, r)
				}))
				network.Serve("new", e.API)
				i := e.Start("a", quick, func(cfg *consumer.Config) {
					key, err := fetch.KeyFromValue(fetch.NewSecret(fetchtest.DemoKey))
					if err != nil {
						t.Fatal(err)
					}
					cfg.Client, err = fetch.NewClient(fetch.ClientConfig{BaseURL: "http://127.0.0.1", SDKAppID: fetchtest.DemoSDKAppID, Key: key, Dial: network.Dial})
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(cfg.Client.Close)
				})
				e.FeedCalls("warm", 120)
				e.Await(time.Minute)

				failing.Store(c.fault != nil)
				if c.dropped {
					network.Drop("old")
				}
				e.FeedCalls("before", 120)
				<-time.After(time.Minute)
				if why := i.NotReady(); (why != "") != c.reported {
					t.Errorf("a minute before the change: not ready %q", why)
				}
				network.SetAddress("new")
				e.FeedCalls("changed", 120)
				<-time.After(c.within)
				if n := len(e.Outputs()); n != 360 {
					t.Errorf("%d outputs of 360 %v after the change", n, c.within)
				}
				before := old.Load()
				for n := range 60 { // busy connections
					e.FeedCalls(fmt.Sprintf("after%d-", n), 12)
					<-time.After(time.Second)
				}
				if n := old.Load() - before; n > 0 {
					t.Errorf("%d requests to the old address, more than %v after the change", n, c.within)
				}
				if why := i.NotReady(); why != "" {
					t.Errorf("not ready: %s", why)
				}
				e.Await(time.Minute)
				e.Check()
			})
		})
	}
}
