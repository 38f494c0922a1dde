package config

import (
	"errors"
	"math"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"

	"enricher/cmd/enricher/internal/hint"
	"enricher/fetch"
)

// APIFlags configure the client of the call-record API.
type APIFlags struct {
	Region         string        `placeholder:"NAME" values:"${regions}" help:"Region of the app: ${regions}."`
	APIURL         string        `name:"api-url" placeholder:"URL" help:"Base URL of the API, instead of --region."`
	APIInsecure    bool          `name:"api-insecure" help:"Allow plain HTTP to hosts other than localhost."`
	SDKAppID       int           `name:"sdk-app-id" placeholder:"N" help:"SDKAppID of the app."`
	Identifier     string        `default:"administrator" help:"Administrator account used to sign requests (UserSig identifier)."`
	SecretKeyFile  string        `placeholder:"FILE" help:"File with the app's secret key, read again when it changes; or set $$ENRICHER_SECRET_KEY."`
	APIProxy       string        `name:"api-proxy" placeholder:"URL" help:"Proxy for an https API, instead of $$HTTPS_PROXY."`
	APICAFile      string        `name:"api-ca-file" placeholder:"FILE" help:"PEM file with CA certificates for the API, instead of the system's; read again when it changes."`
	APISmallHello  bool          `name:"api-tls-small-hello" help:"Offer the API no post-quantum key exchange, for networks that drop the large TLS hello."`
	APITimeout     time.Duration `name:"api-timeout" default:"5s" help:"Timeout of one API request; must exceed 3s."`
	APIConcurrency int           `name:"api-concurrency" default:"256" help:"Maximum number of concurrent API requests."`

	Client *fetch.Client `kong:"-"` // set by Check
}

// Check implements Checker. It makes the client if no problem is known, neither
// with these flags nor with any checked before.
func (f *APIFlags) Check(src *Sources) {
	base := f.APIURL
	switch region, url := src.rank("region"), src.rank("api-url"); {
	case f.Region == "" || f.APIURL == "": // nothing to choose
	case region > url:
		f.APIURL = ""
	case url > region:
		f.Region, base = "", f.APIURL
	}
	switch {
	case f.Region != "" && f.APIURL != "":
		src.Problem("region", "conflicts with --api-url; set only one")
	case f.Region != "":
		var err error
		if base, err = fetch.RegionURL(f.Region); err != nil {
			src.Problem("region", "%v", err)
		}
	case f.APIURL == "":
		src.Problem("region", "must be given (%s), or use --api-url", strings.Join(fetch.Regions(), ", "))
	}
	if f.SDKAppID < 1 || f.SDKAppID > math.MaxUint32 {
		src.Problem("sdk-app-id", "must be given: a number from 1 to %d", uint32(math.MaxUint32))
	}
	src.Required("identifier", f.Identifier)
	if f.APITimeout <= 3*time.Second {
		src.Problem("api-timeout", "%v is too short: the API itself gives up after 3s, so the timeout must be longer", f.APITimeout)
	}
	if f.APIConcurrency < 1 {
		src.Problem("api-concurrency", "must be at least 1")
	}
	key := f.key(src)
	proxy := f.proxy(src, base)
	if src.problems != nil {
		return
	}
	var err error
	f.Client, err = fetch.NewClient(fetch.ClientConfig{
		BaseURL: base, Insecure: f.APIInsecure, SDKAppID: f.SDKAppID, Identifier: f.Identifier,
		Key: key, Timeout: f.APITimeout, Concurrency: f.APIConcurrency, UserAgent: src.userAgent,
		Proxy: proxy, CAFile: f.APICAFile, SmallHello: f.APISmallHello,
	})
	if err != nil { // everything but the URL and the CA file has been checked
		for _, e := range hint.Split(err) {
			if text, ok := strings.CutPrefix(e.Error(), "CA file: "); ok {
				src.Problem("api-ca-file", "%s", text)
				continue
			}
			src.problems = append(src.problems, problem{"api-url", strings.TrimPrefix(e.Error(), "base URL: ")})
		}
	}
}

// proxy returns the proxy for the API, or nil for none. What it reports as a problem
// has no part of the proxy's URL, which may contain a password.
func (f *APIFlags) proxy(src *Sources, base string) *url.URL {
	api, err := url.Parse(base)
	if err != nil || base == "" {
		return nil // reported elsewhere
	}
	if f.APIProxy == "" {
		proxy, err := environmentProxy(api)
		if err != nil {
			src.Problem("", "$HTTPS_PROXY: %v; or add the host of the API to $NO_PROXY", err)
		}
		return proxy
	}
	proxy, err := parseProxy(f.APIProxy)
	switch {
	case err != nil:
		src.Problem("api-proxy", "%v", err)
	case api.Scheme != "https":
		src.Problem("api-proxy", "is for an https API only: over plain HTTP, the proxy would read the UserSig; remove it, or use an https URL")
	}
	return proxy
}

// environmentProxy returns the proxy that the environment names for an https API.
func environmentProxy(api *url.URL) (*url.URL, error) {
	env := httpproxy.FromEnvironment()
	if api.Scheme != "https" || env.HTTPSProxy == "" {
		return nil, nil
	}
	text := env.HTTPSProxy
	env.HTTPSProxy = "http://proxy" // the package ignores one that it cannot parse
	if used, err := env.ProxyFunc()(api); used == nil {
		return nil, err
	}
	return parseProxy(text)
}

// parseProxy parses the URL of a proxy. As in other programs, http:// may be left out.
func parseProxy(text string) (*url.URL, error) {
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	if err != nil || !slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme) ||
		u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("is not the URL of a proxy; use for example http://proxy:3128, with user:password@ before the host if it requires them")
	}
	return u, nil
}

func (f *APIFlags) key(src *Sources) *fetch.SecretKey {
	var key *fetch.SecretKey
	var err error
	switch {
	case f.SecretKeyFile != "" && src.secretKey != "":
		err = errors.New("conflicts with $" + envSecretKey + "; set only one")
	case f.SecretKeyFile != "":
		key, err = fetch.KeyFromFile(f.SecretKeyFile)
	case src.secretKey != "":
		key, err = fetch.KeyFromValue(fetch.NewSecret(src.secretKey))
	default:
		err = errors.New("must be given, or set $" + envSecretKey)
	}
	if err != nil {
		src.Problem("secret-key-file", "%s", strings.TrimPrefix(err.Error(), "secret key: "))
	}
	return key
}
