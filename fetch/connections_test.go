package fetch_test

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"enricher/fetch"
	"enricher/fetch/fetchtest"
)

// maxAge is the default of ClientConfig.ConnectionAge.
const maxAge = 30 * time.Second

// counted is a server that counts its requests and notes the oldest connection that
// one came over.
type counted struct {
	http.Handler
	requests atomic.Int64
	oldest   atomic.Int64 // a time.Duration
}

func (c *counted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.requests.Add(1)
	for age := int64(fetchtest.ConnectionAge(r)); ; {
		oldest := c.oldest.Load()
		if age <= oldest || c.oldest.CompareAndSwap(oldest, age) {
			break
		}
	}
	c.Handler.ServeHTTP(w, r)
}

// route is a client of an API whose name leads to server a, and may be changed to
// lead to server b.
type route struct {
	fetchtest.Network
	a, b   counted
	api    *fetchtest.API
	client *fetch.Client
}

// onRoute runs a test in virtual time.
func onRoute(t *testing.T, test func(*testing.T, *route)) {
	synctest.Test(t, func(t *testing.T) {
		api := fetchtest.New(fetchtest.Config{Latency: func(string) time.Duration { return 500 * time.Millisecond }})
		r := &route{api: api, a: counted{Handler: api}, b: counted{Handler: api}}
		r.Serve("a", &r.a)
		r.Serve("b", &r.b)
		t.Cleanup(r.Close)
		r.client = newClient(t, fetch.ClientConfig{BaseURL: "http://127.0.0.1", Dial: r.Dial})
		test(t, r)
	})
}

// work sends requests from a few goroutines for a time, and fails the test unless
// every one finds its record.
func (r *route) work(t *testing.T, length time.Duration) {
	t.Helper()
	end := time.Now().Add(length)
	var workers sync.WaitGroup
	for n := range 3 {
		workers.Go(func() {
			for i := 0; time.Now().Before(end); i++ {
				if resp := r.client.Lookup(t.Context(), fmt.Sprintf("%d-%d", n, i), nil); resp.Verdict != fetch.Found {
					t.Errorf("after %v: %v: %s", length-time.Until(end), resp.Verdict, resp.Message)
				}
			}
		})
	}
	workers.Wait()
}

// recover sends a request a second, as probes are, and returns how long it takes
// until one finds its record.
func (r *route) recover(t *testing.T) time.Duration {
	t.Helper()
	start := time.Now()
	for i := range 60 {
		if send(t, r.client, r.api, fmt.Sprintf("again-%d", i)).Verdict == fetch.Found {
			return time.Since(start)
		}
		time.Sleep(time.Second)
	}
	t.Fatal("the API is not reached any more")
	return 0
}

// A connection is given no request after its age, however busy it is, so a new
// address is used although the old one still responds. No request fails for it.
func TestBusyConnectionsEnd(t *testing.T) {
	onRoute(t, func(t *testing.T, r *route) {
		r.work(t, 2*maxAge)
		r.SetAddress("b")
		r.work(t, maxAge)
		before := r.a.requests.Load()
		r.work(t, 2*maxAge)
		if late := r.a.requests.Load() - before; late > 0 || r.b.requests.Load() == 0 {
			t.Errorf("%d requests to the old address, later than %v after the change; %d to the new one", late, maxAge, r.b.requests.Load())
		}
		for name, s := range map[string]*counted{"a": &r.a, "b": &r.b} {
			if oldest := time.Duration(s.oldest.Load()); oldest > maxAge || oldest < maxAge/2 {
				t.Errorf("%s: a request came over a connection of %v, want up to %v", name, oldest, maxAge)
			}
		}
		// Three workers and six generations; connections are not made for each request.
		if n := r.Dials("a") + r.Dials("b"); n > 3*7 {
			t.Errorf("%d connections for %d requests", n, r.a.requests.Load()+r.b.requests.Load())
		}
	})
}

// A request in flight outlives the age of its connection.
func TestRequestOutlivesGeneration(t *testing.T) {
	onRoute(t, func(t *testing.T, r *route) {
		r.a.Handler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			time.Sleep(4 * time.Second)
			r.api.ServeHTTP(w, req)
		})
		slow := make(chan fetch.Response)
		send(t, r.client, r.api, "first")
		time.Sleep(maxAge - 5*time.Second)
		go func() { slow <- send(t, r.client, r.api, "slow") }()
		time.Sleep(2 * time.Second)
		r.SetAddress("b")
		send(t, r.client, r.api, "new generation")
		if resp := <-slow; resp.Verdict != fetch.Found {
			t.Errorf("%v: %s", resp.Verdict, resp.Message)
		}
	})
}

// While the API fails, connections last a second.
func TestFailingAddressIsLeft(t *testing.T) {
	for name, fail := range map[string]func(*route){
		"responds with 502":    func(r *route) { r.a.Handler = serve(fetchtest.BadGateway()) },
		"responds with 101001": func(r *route) { r.a.Handler = serve(fetchtest.Code(101001)) },
		"responds with 403":    func(r *route) { r.a.Handler = serve(fetchtest.Status(http.StatusForbidden)) },
		"drops every packet":   func(r *route) { r.Drop("a") },
	} {
		t.Run(name, func(t *testing.T) {
			onRoute(t, func(t *testing.T, r *route) {
				var warm sync.WaitGroup
				for i := range 20 { // that many connections
					warm.Go(func() { send(t, r.client, r.api, fmt.Sprintf("warm-%d", i)) })
				}
				warm.Wait()
				fail(r)
				time.Sleep(time.Second) // see recentlyGood
				for range 2 {
					send(t, r.client, r.api, "probe")
					time.Sleep(time.Second)
				}
				r.SetAddress("b")
				before := r.a.requests.Load()
				if d := r.recover(t); d > 2*time.Second {
					t.Errorf("recovered after %v", d)
				}
				if late := r.a.requests.Load() - before; late > 3 {
					t.Errorf("%d requests to the old address after the change", late)
				}
				if n := r.Open("a"); n > 0 {
					t.Errorf("%d connections to the old address are still open", n)
				}
				r.work(t, time.Second)
			})
		})
	}
}

// Calls that fail while others succeed do not end connections.
func TestSingleFailuresKeepConnections(t *testing.T) {
	onRoute(t, func(t *testing.T, r *route) {
		r.work(t, time.Second)
		before := r.Dials("a")
		var failing sync.WaitGroup
		failing.Go(func() {
			for range 18 {
				r.api.Script("bad", fetchtest.Code(101001))
				send(t, r.client, r.api, "bad")
			}
		})
		r.work(t, 10*time.Second)
		failing.Wait()
		if n := r.Dials("a") - before; n > 2 {
			t.Errorf("%d connections were opened", n)
		}
	})
}

// serve returns a server that always fails.
func serve(f fetchtest.Fault) http.Handler {
	api := fetchtest.New(fetchtest.Config{})
	api.SetOutage(f)
	return api
}
