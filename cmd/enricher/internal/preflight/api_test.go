package preflight

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"enricher/fetch"
	"enricher/fetch/fetchtest"
)

// TestAPI: each way in which the API does not take us for who we are.
func TestAPI(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*world)
		want   []string // HOST stands for its address
	}{
		"wrong key":  {func(w *world) { w.api.SetKey(strings.Repeat("0", 64)) }, []string{"fatal usersig HOST: 70009 usersig_wrong_key: "}},
		"wrong app":  {func(w *world) { w.api.SetOutage(fetchtest.Named("bad_app")) }, []string{"fatal usersig HOST: --sdk-app-id"}},
		"no account": {func(w *world) { w.api.SetOutage(fetchtest.Named("not_administrator")) }, []string{"fatal usersig HOST: not_administrator"}},
		// One answer of that kind is mended by a new UserSig; all of them are not.
		"expired once":       {func(w *world) { w.api.Fail(1, fetchtest.Named("usersig_expired")) }, nil},
		"expired":            {func(w *world) { w.api.SetOutage(fetchtest.Named("usersig_expired")) }, []string{"fatal usersig HOST: this machine's clock is wrong"}},
		"redirects":          {func(w *world) { w.api.SetOutage(fetchtest.Redirect("http://127.0.0.1:1/")) }, []string{"fatal usersig HOST: the API redirects"}},
		"no such page":       {func(w *world) { w.api.SetOutage(fetchtest.Status(404)) }, []string{"fatal usersig HOST: HTTP 404 Not Found"}},
		"bad gateway":        {func(w *world) { w.api.SetOutage(fetchtest.BadGateway()) }, []string{"fatal usersig HOST: HTTP 502 Bad Gateway → the API fails at the moment: try again"}},
		"no JSON":            {func(w *world) { w.api.SetOutage(fetchtest.HTML()) }, []string{"fatal usersig HOST: HTML"}},
		"out of quota":       {func(w *world) { w.api.SetOutage(fetchtest.TooManyRequests("")) }, []string{"warning usersig HOST: HTTP 429"}},
		"refuses the CallId": {func(w *world) { w.api.SetOutage(fetchtest.Named("bad_call_id")) }, []string{"fatal usersig HOST: bad_call_id"}},
		"unheard-of code":    {func(w *world) { w.api.SetOutage(fetchtest.Code(424242)) }, []string{"fatal usersig HOST: 424242"}},
		"knows every call":   {func(w *world) { w.api.SetOutage(fetchtest.Fault{}) }, []string{"fatal usersig HOST: a record of a call that cannot exist"}},
		"never ends":         {func(w *world) { w.api.SetOutage(fetchtest.NotEnded()) }, []string{"fatal usersig HOST: a record of a call that cannot exist"}},
		"echoes":             {func(w *world) { w.api.SetOutage(fetchtest.Echo(60010)) }, []string{"fatal usersig HOST: not_administrator"}},
		"breaks off": {
			func(w *world) { w.api.SetOutage(fetchtest.Reset()) },
			[]string{"fatal api HOST: no answer: ", "skipped clock HOST: ", "skipped usersig HOST: "},
		},
		"is away": {
			func(w *world) { _ = w.server.Close() },
			[]string{"fatal api HOST: connection refused", "skipped clock HOST: ", "skipped usersig HOST: "},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c.change(w)
			var want []string
			for _, line := range c.want {
				want = append(want, strings.Replace(line, "HOST", strings.TrimPrefix(w.server.URL, "http://"), 1))
			}
			w.look(want...)
		})
	}
}

// transport answers for the API.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestClockAndCertificate: what the answer's envelope tells.
func TestClockAndCertificate(t *testing.T) {
	w := newWorld(t)
	simulator := fetchtest.Transport(w.api)
	const host = "api.example"
	for _, c := range []struct {
		date  string
		valid time.Duration // the certificate; 0: plain http
		want  []string
	}{
		{time.Now().UTC().Format(http.TimeFormat), 0, nil},
		{time.Now().Add(-55 * time.Second).UTC().Format(http.TimeFormat), 0, nil},
		{time.Now().Add(-75 * time.Second).UTC().Format(http.TimeFormat), 0, []string{"warning clock api.example: ahead"}},
		{time.Now().Add(75 * time.Second).UTC().Format(http.TimeFormat), 0, []string{"warning clock api.example: behind"}},
		{"yesterday", 0, []string{"skipped clock api.example: not looked at: its answer has no readable Date"}},
		{"", 0, []string{"skipped clock api.example: not looked at: its answer has no readable Date"}},
		{time.Now().UTC().Format(http.TimeFormat), 15 * 24 * time.Hour, nil},
		{time.Now().UTC().Format(http.TimeFormat), 13 * 24 * time.Hour, []string{"warning api api.example: answers, over TLS 1.3; its certificate ends on"}},
	} {
		t.Run(fmt.Sprint(c.date, c.valid), func(t *testing.T) {
			w.t = t
			w.ask(fetch.ClientConfig{BaseURL: "https://" + host, Transport: transport(func(r *http.Request) (*http.Response, error) {
				resp, err := simulator.RoundTrip(r)
				if err != nil {
					return nil, err
				}
				resp.Header.Set("Date", c.date)
				if c.valid > 0 {
					resp.TLS = &tls.ConnectionState{Version: tls.VersionTLS13, PeerCertificates: []*x509.Certificate{{NotAfter: time.Now().Add(c.valid)}}}
				}
				return resp, nil
			})})
			w.look(c.want...)
		})
	}
}
