package fetch_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"enricher/fetch"
	"enricher/fetch/fetchtest"
)

// A probe is accepted only by an API that accepts the account and has no record
// of ProbeCallID.
func TestProbe(t *testing.T) {
	for name, c := range map[string]struct {
		faults   []fetchtest.Fault
		accepted bool
		requests int
	}{
		"sound":          {nil, true, 1},
		"expired once":   {[]fetchtest.Fault{fetchtest.Named("usersig_expired")}, true, 2},
		"expired twice":  {[]fetchtest.Fault{fetchtest.Named("usersig_expired"), fetchtest.Named("usersig_expired")}, false, 2},
		"wrong key":      {[]fetchtest.Fault{fetchtest.Named("usersig_wrong_key")}, false, 1},
		"busy":           {[]fetchtest.Fault{fetchtest.Named("call_backend_busy")}, false, 1},
		"a record":       {[]fetchtest.Fault{{}}, false, 1},
		"not ended":      {[]fetchtest.Fault{fetchtest.NotEnded()}, false, 1},
		"bad gateway":    {[]fetchtest.Fault{fetchtest.BadGateway()}, false, 1},
		"echoes secrets": {[]fetchtest.Fault{fetchtest.Echo(60010)}, false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			api, server := listen(t, fetchtest.Config{})
			api.Script(fetch.ProbeCallID, c.faults...)
			p := newClient(t, fetch.ClientConfig{BaseURL: server.URL}).Probe(t.Context())
			if p.Accepted != c.accepted || api.RequestsFor(fetch.ProbeCallID) != c.requests {
				t.Errorf("accepted %v after %d requests: %+v", p.Accepted, api.RequestsFor(fetch.ProbeCallID), p)
			}
			if !p.Responded || "http://"+p.Host != server.URL || p.TLS != "" || !p.CertificateEnds.IsZero() {
				t.Errorf("%+v", p)
			}
			if p.Clock.IsZero() || p.ClockAhead.Abs() > time.Minute {
				t.Errorf("clock %v, ahead by %v", p.Clock, p.ClockAhead)
			}
			checkResponse(t, api, p.Response)
		})
	}
	t.Run("away", func(t *testing.T) {
		_, server := listen(t, fetchtest.Config{})
		if err := server.Close(); err != nil {
			t.Fatal(err)
		}
		p := newClient(t, fetch.ClientConfig{BaseURL: server.URL}).Probe(t.Context())
		if p.Accepted || p.Responded || !p.Clock.IsZero() || p.Response.Verdict != fetch.Retry {
			t.Errorf("%+v", p)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if p := newClient(t, fetch.ClientConfig{}).Probe(ctx); p.Accepted || p.Responded {
			t.Errorf("%+v", p)
		}
	})
	t.Run("no Date", func(t *testing.T) {
		c := newClient(t, fetch.ClientConfig{Transport: fetchtest.Transport(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"ErrorCode":101001}`))
		}))})
		if p := c.Probe(t.Context()); !p.Responded || !p.Clock.IsZero() || p.ClockAhead != 0 {
			t.Errorf("%+v", p)
		}
	})
}
