package config

import (
	"net/url"
	"testing"
)

// Which proxy the environment names for which API.
func TestProxyOfEnvironment(t *testing.T) {
	for _, c := range []struct{ https, no, api, want string }{
		{"http://proxy:3128", "", "https://example.com", "http://proxy:3128"},
		{"proxy:3128", "", "https://example.com", "http://proxy:3128"},
		{"socks5://proxy:1080", "", "https://example.com", "socks5://proxy:1080"},
		{"http://proxy:3128", "", "http://example.com", ""},
		{"http://proxy:3128", "", "https://127.0.0.1:8443", ""},
		{"http://proxy:3128", "", "https://localhost", ""},
		{"http://proxy:3128", "other.com,.example.com", "https://api.example.com", ""},
		{"http://proxy:3128", "10.0.0.0/8", "https://10.1.2.3", ""},
		{"http://proxy:3128", "*", "https://example.com", ""},
		{"", "", "https://example.com", ""},
		{"ftp://proxy", "", "https://example.com", "error"},
		{"http://%zz", "", "https://example.com", "error"},
		{"http://%zz", "example.com", "https://example.com", ""},
		{"http://proxy/path", "", "https://example.com", "error"},
	} {
		for _, name := range []string{"HTTP_PROXY", "ALL_PROXY"} {
			t.Setenv(name, "http://another")
		}
		t.Setenv("HTTPS_PROXY", c.https)
		t.Setenv("NO_PROXY", c.no)
		api, err := url.Parse(c.api)
		if err != nil {
			t.Fatal(err)
		}
		proxy, err := environmentProxy(api)
		got := ""
		switch {
		case err != nil:
			got = "error"
		case proxy != nil:
			got = proxy.String()
		}
		if got != c.want {
			t.Errorf("%+v: got %q", c, got)
		}
	}
}
