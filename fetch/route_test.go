package fetch_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"enricher/fetch"
	"enricher/fetch/fetchtest"
)

// overTLS serves a simulator over TLS, and returns the file of its CA certificate.
func overTLS(t *testing.T) (*fetchtest.API, *httptest.Server, string) {
	t.Helper()
	api := fetchtest.New(fetchtest.Config{})
	server := httptest.NewTLSServer(api)
	t.Cleanup(server.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	writeCertificate(t, ca, server.Certificate().Raw)
	return api, server, ca
}

func writeCertificate(t *testing.T, file string, der []byte) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// otherCertificate returns a certificate that has signed no other.
func otherCertificate(t *testing.T, expires time.Time) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: expires, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// A network drops what is larger than one packet. Go's usual hello is; the small one
// passes.
func TestSmallHello(t *testing.T) {
	certificates, file := func() ([]tls.Certificate, string) {
		_, server, file := overTLS(t)
		return server.TLS.Certificates, file
	}()
	for name, c := range map[string]struct {
		small      bool
		segment    int
		ca         string
		found      bool
		unanswered bool
		message    string
	}{
		"large hello":                 {segment: 1460, ca: file, unanswered: true, message: "request timed out after 5s: TLS handshake"},
		"small hello":                 {segment: 1460, ca: file, small: true, found: true},
		"small hello, nothing passes": {segment: 100, ca: file, small: true, message: "request timed out after 5s: TLS handshake"},
		"good network":                {ca: file, found: true},
		"wrong certificate":           {message: "certificate signed by unknown authority"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				api := fetchtest.New(fetchtest.Config{})
				network := fetchtest.Network{TLS: &tls.Config{Certificates: certificates}, Segment: c.segment}
				network.Serve("api", api)
				t.Cleanup(network.Close)
				client := newClient(t, fetch.ClientConfig{BaseURL: "https://example.com", Dial: network.Dial, CAFile: c.ca, SmallHello: c.small})
				a := send(t, client, api, "id")
				if (a.Verdict == fetch.Found) != c.found || a.HelloUnanswered != c.unanswered || a.Untrusted != (name == "wrong certificate") || !strings.Contains(a.Message, c.message) {
					t.Errorf("%+v", a)
				}
			})
		})
	}
}

// A probe whose large hello gets no response tries the small one, once, and reports both
// results. It does not with a client whose hello is small, or that gets a response.
func TestProbeTriesTheSmallHello(t *testing.T) {
	_, server, file := overTLS(t)
	certificates := server.TLS.Certificates
	for name, c := range map[string]struct {
		segment          int
		small            bool // the client's own hello
		responded        bool
		tried, withSmall bool // the small hello was tried, and brought a response
		dials            int
	}{
		"large hello is dropped":  {segment: 1460, tried: true, withSmall: true, dials: 2},
		"every hello is dropped":  {segment: 100, tried: true, dials: 2},
		"small hello is dropped":  {segment: 100, small: true, dials: 1},
		"small hello passes":      {segment: 1460, small: true, responded: true, dials: 1},
		"network drops no packet": {responded: true, dials: 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				api := fetchtest.New(fetchtest.Config{})
				network := fetchtest.Network{TLS: &tls.Config{Certificates: certificates}, Segment: c.segment}
				network.Serve("api", api)
				t.Cleanup(network.Close)
				client := newClient(t, fetch.ClientConfig{BaseURL: "https://example.com", Dial: network.Dial, CAFile: file, SmallHello: c.small})
				begin := time.Now()
				p := client.Probe(t.Context())
				if p.Responded != c.responded || (p.SmallHello != nil) != c.tried || c.tried && (p.SmallHello.Responded != c.withSmall || p.SmallHello.SmallHello != nil) {
					t.Errorf("%+v, with a small hello %+v", p, p.SmallHello)
				}
				if c.withSmall && (!p.SmallHello.Accepted || p.SmallHello.TLS != "TLS 1.3" || p.SmallHello.Clock.IsZero()) {
					t.Errorf("with a small hello: %+v", p.SmallHello)
				}
				if n := network.Dials("api"); n != c.dials {
					t.Errorf("%d connections, want %d", n, c.dials)
				}
				if took, most := time.Since(begin), time.Duration(c.dials)*client.Timeout(); took > most {
					t.Errorf("took %v, more than %v", took, most)
				}
				time.Sleep(2 * time.Second) // virtual: the transport gives up a handshake later than its request
				if n := network.Open("api"); c.tried && n != 0 {
					t.Errorf("%d connections stay open", n)
				}
				checkResponse(t, api, p.Response)
			})
		})
	}
}

// Through a proxy the API is reached with TLS from end to end: the proxy learns host
// and port. What goes wrong names the proxy and never its credentials.
func TestProxy(t *testing.T) {
	const user, password = "proxy-user-to-plant", "proxy-password-to-plant"
	planted := []string{user, password, base64.StdEncoding.EncodeToString([]byte(user + ":" + password))}
	api, server, ca := overTLS(t)
	proxy := &fetchtest.Proxy{User: user, Password: password}
	listener, err := fetchtest.Listen(proxy)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	address := strings.TrimPrefix(listener.URL, "http://")
	through := func(user *url.Userinfo, host, base string) fetch.Response {
		client := newClient(t, fetch.ClientConfig{BaseURL: base, CAFile: ca, Proxy: &url.URL{Scheme: "http", Host: host, User: user}})
		return send(t, client, api, "id")
	}

	if a := through(url.UserPassword(user, password), address, server.URL); a.Verdict != fetch.Found {
		t.Fatalf("%+v", a)
	}
	api.Secrets().AssertAbsent(t, "what the proxy sees", []byte(proxy.Seen()))
	if seen := proxy.Seen(); !strings.HasPrefix(seen, "CONNECT "+strings.TrimPrefix(server.URL, "https://")) || !strings.Contains(seen, planted[2]) {
		t.Errorf("the proxy saw %s", seen)
	}
	for name, c := range map[string]struct {
		user       *url.Userinfo
		host, base string
		message    string
	}{
		"no credentials":    {nil, address, server.URL, "connecting through the proxy http://" + address + ": the proxy responds HTTP 407 Proxy Authentication Required"},
		"wrong credentials": {url.UserPassword(user, password+"x"), address, server.URL, "407 Proxy Authentication Required"},
		"refused":           {url.UserPassword(user, password), address, "https://127.0.0.1:1", "HTTP 502 Bad Gateway"},
		"no proxy there":    {url.UserPassword(user, password), "127.0.0.1:1", server.URL, "connecting through the proxy http://127.0.0.1:1: "},
		"no such proxy":     {url.UserPassword(user, password), "proxy.invalid:1", server.URL, "through the proxy http://proxy.invalid:1: "},
	} {
		a := through(c.user, c.host, c.base)
		if a.Verdict != fetch.Retry || !strings.Contains(a.Message, c.message) {
			t.Errorf("%s: %+v", name, a)
		}
		for _, secret := range planted {
			if strings.Contains(a.Message, secret) {
				t.Errorf("%s: the message has the credentials: %s", name, a.Message)
			}
		}
	}
}

// Over plain HTTP a proxy would read the UserSig.
func TestNoProxyForPlainHTTP(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	api, server := listen(t, fetchtest.Config{})
	if a := send(t, newClient(t, fetch.ClientConfig{BaseURL: server.URL}), api, "id"); a.Verdict != fetch.Found {
		t.Errorf("%+v", a)
	}
	_, err := fetch.NewClient(fetch.ClientConfig{
		BaseURL: server.URL, SDKAppID: fetchtest.DemoSDKAppID, Key: demoKey(t), Proxy: &url.URL{Scheme: "http", Host: "proxy", User: url.UserPassword("name", "word")},
	})
	if err == nil || err.Error() != "proxy: would read the UserSig over plain HTTP" {
		t.Errorf("%v", err)
	}
}

// A CA file that is replaced is used by the next connection. While it cannot be used,
// the certificates read before are.
func TestCAFile(t *testing.T) {
	_, server, ca := overTLS(t)
	certificates := server.TLS.Certificates
	good, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	write := func(text []byte) {
		if err := os.WriteFile(ca, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		api := fetchtest.New(fetchtest.Config{})
		network := fetchtest.Network{TLS: &tls.Config{Certificates: certificates}}
		network.Serve("api", api)
		t.Cleanup(network.Close)
		writeCertificate(t, ca, otherCertificate(t, time.Now().Add(time.Hour)))
		client := newClient(t, fetch.ClientConfig{BaseURL: "https://example.com", Dial: network.Dial, CAFile: ca})
		if a := send(t, client, api, "id"); a.Verdict != fetch.Retry || !strings.Contains(a.Message, "unknown authority") || strings.Contains(a.Message, "besides") {
			t.Errorf("another CA: %+v", a)
		}
		write([]byte("none"))
		if a := send(t, client, api, "id"); !strings.Contains(a.Message, "unknown authority; besides, CA file: "+ca+": contains no PEM certificate") {
			t.Errorf("no certificate: %+v", a)
		}
		write(good)
		if a := send(t, client, api, "id"); a.Verdict != fetch.Found {
			t.Errorf("the right CA: %+v", a)
		}
		write([]byte("none"))
		time.Sleep(maxAge)
		if a := send(t, client, api, "id"); a.Verdict != fetch.Found || network.Dials("api") != 4 {
			t.Errorf("the certificates read before, %d connections: %+v", network.Dials("api"), a)
		}
	})
	for text, problem := range map[string]string{
		"":     "contains no PEM certificate",
		"text": "contains no PEM certificate",
		"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n":                                                                     "contains a certificate that cannot be read: ",
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: otherCertificate(t, time.Date(2020, 5, 6, 7, 0, 0, 0, time.UTC))})): "its certificate expired on 2020-05-06",
	} {
		write([]byte(text))
		_, err := fetch.NewClient(fetch.ClientConfig{BaseURL: "https://example.com", SDKAppID: fetchtest.DemoSDKAppID, Key: demoKey(t), CAFile: ca})
		if err == nil || !strings.HasPrefix(err.Error(), "CA file: "+ca+": "+problem) {
			t.Errorf("%.30q: %v", text, err)
		}
	}
}
