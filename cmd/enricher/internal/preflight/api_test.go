package preflight

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"strings"
	"testing"
	"time"

	"enricher/fetch"
	"enricher/fetch/fetchtest"
)

// TestAPIProblems covers each way in which the API does not accept the credentials.
func TestAPIProblems(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*env)
		want   []string // HOST stands for its address
	}{
		"wrong key":  {func(w *env) { w.api.SetKey(strings.Repeat("0", 64)) }, []string{"fatal usersig HOST: 70009 usersig_wrong_key: "}},
		"wrong app":  {func(w *env) { w.api.SetOutage(fetchtest.Named("bad_app")) }, []string{"fatal usersig HOST: --sdk-app-id"}},
		"no account": {func(w *env) { w.api.SetOutage(fetchtest.Named("not_administrator")) }, []string{"fatal usersig HOST: not_administrator"}},
		// A new UserSig fixes one such response, but not all of them.
		"expired once":       {func(w *env) { w.api.Fail(1, fetchtest.Named("usersig_expired")) }, nil},
		"expired":            {func(w *env) { w.api.SetOutage(fetchtest.Named("usersig_expired")) }, []string{"fatal usersig HOST: this machine's clock is wrong"}},
		"redirects":          {func(w *env) { w.api.SetOutage(fetchtest.Redirect("http://127.0.0.1:1/")) }, []string{"fatal usersig HOST: the API redirects"}},
		"no such page":       {func(w *env) { w.api.SetOutage(fetchtest.Status(404)) }, []string{"fatal usersig HOST: HTTP 404 Not Found"}},
		"bad gateway":        {func(w *env) { w.api.SetOutage(fetchtest.BadGateway()) }, []string{"fatal usersig HOST: HTTP 502 Bad Gateway → the API is failing at the moment: try again"}},
		"no JSON":            {func(w *env) { w.api.SetOutage(fetchtest.HTML()) }, []string{"fatal usersig HOST: HTML"}},
		"throttled":          {func(w *env) { w.api.SetOutage(fetchtest.TooManyRequests("")) }, []string{"warning usersig HOST: HTTP 429"}},
		"refuses the CallId": {func(w *env) { w.api.SetOutage(fetchtest.Named("bad_call_id")) }, []string{"fatal usersig HOST: bad_call_id"}},
		"unknown code":       {func(w *env) { w.api.SetOutage(fetchtest.Code(424242)) }, []string{"fatal usersig HOST: 424242"}},
		"has every record":   {func(w *env) { w.api.SetOutage(fetchtest.Fault{}) }, []string{"fatal usersig HOST: a record of a call that cannot exist"}},
		"never ends":         {func(w *env) { w.api.SetOutage(fetchtest.NotEnded()) }, []string{"fatal usersig HOST: a record of a call that cannot exist"}},
		"echoes the request": {func(w *env) { w.api.SetOutage(fetchtest.Echo(60010)) }, []string{"fatal usersig HOST: not_administrator"}},
		"resets the connection": {
			func(w *env) { w.api.SetOutage(fetchtest.Reset()) },
			[]string{"fatal api HOST: no response: ", "skipped clock HOST: ", "skipped usersig HOST: "},
		},
		"unavailable": {
			func(w *env) { _ = w.server.Close() },
			[]string{"fatal api HOST: connection refused", "skipped clock HOST: ", "skipped usersig HOST: "},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newEnv(t)
			c.change(w)
			var want []string
			for _, line := range c.want {
				want = append(want, strings.Replace(line, "HOST", strings.TrimPrefix(w.server.URL, "http://"), 1))
			}
			w.check(want...)
		})
	}
}

// transport responds in place of the API.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestClockAndCertificate(t *testing.T) {
	w := newEnv(t)
	simulator := fetchtest.Transport(w.api)
	const host = "api.example"
	const day = 24 * time.Hour
	date := func(ahead time.Duration) string { return time.Now().Add(ahead).UTC().Format(http.TimeFormat) }
	for name, c := range map[string]struct {
		date        string        // of the response
		certificate time.Duration // until it expires; 0: plain HTTP
		want        []string
	}{
		"same clock":              {date: date(0)},
		"clock within tolerance":  {date: date(-55 * time.Second)},
		"clock ahead":             {date: date(-75 * time.Second), want: []string{"warning clock api.example: ahead"}},
		"clock behind":            {date: date(75 * time.Second), want: []string{"warning clock api.example: behind"}},
		"invalid date":            {date: "yesterday", want: []string{"skipped clock api.example: its response has no valid Date header"}},
		"no date":                 {date: "", want: []string{"skipped clock api.example: its response has no valid Date header"}},
		"certificate for 15 days": {date: date(0), certificate: 15 * day},
		"certificate for 13 days": {date: date(0), certificate: 13 * day, want: []string{"warning api api.example: responds over TLS 1.3; its certificate expires on"}},
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			w.useAPI(fetch.ClientConfig{BaseURL: "https://" + host, Transport: transport(func(r *http.Request) (*http.Response, error) {
				resp, err := simulator.RoundTrip(r)
				if err != nil {
					return nil, err
				}
				resp.Header.Set("Date", c.date)
				if c.certificate > 0 {
					resp.TLS = &tls.ConnectionState{Version: tls.VersionTLS13, PeerCertificates: []*x509.Certificate{{NotAfter: time.Now().Add(c.certificate)}}}
				}
				return resp, nil
			})})
			w.check(c.want...)
		})
	}
}
