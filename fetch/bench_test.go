package fetch_test

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"

	"enricher/fetch"
	"enricher/fetch/fetchtest"
)

// BenchmarkLookup measures one request, with client and simulator in one process:
// over TCP, and in memory, without the network's share.
func BenchmarkLookup(b *testing.B) {
	b.Run("tcp", func(b *testing.B) {
		server, err := fetchtest.Listen(fetchtest.New(fetchtest.Config{}))
		if err != nil {
			b.Fatal(err)
		}
		defer server.Close()
		benchmarkLookup(b, newClient(b, fetch.ClientConfig{BaseURL: server.URL}))
		b.ReportMetric(float64(server.Connections()), "connections")
	})
	b.Run("memory", func(b *testing.B) {
		benchmarkLookup(b, newClient(b, fetch.ClientConfig{Transport: fetchtest.Transport(fetchtest.New(fetchtest.Config{}))}))
	})
}

func benchmarkLookup(b *testing.B, c *fetch.Client) {
	var n atomic.Int64
	b.ReportAllocs()
	b.SetParallelism(32)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			a := c.Lookup(context.Background(), "call-"+strconv.FormatInt(n.Add(1), 10), nil)
			if a.Verdict != fetch.Found {
				b.Errorf("%v: %s", a.Verdict, a.Message)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lookups/s")
}
