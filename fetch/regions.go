package fetch

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
)

// apiPath is the path of the one command that enricher uses, in every region.
const apiPath = "/v4/call_record_http_srv/get_record_by_callid"

// regions are the published API hosts by region. An app exists in one region
// only: another region returns that it has no such app, or no such record.
// Source: the command's page in the Tencent RTC documentation; Tokyo and Riyadh:
// the REST API's list of domain names.
var regions = map[string]string{
	"china":          "https://console.tim.qq.com",
	"frankfurt":      "https://adminapiger.im.qcloud.com",
	"jakarta":        "https://adminapiidn.im.qcloud.com",
	"riyadh":         "https://adminapiksa.im.qcloud.com",
	"seoul":          "https://adminapikr.im.qcloud.com",
	"silicon-valley": "https://adminapiusa.im.qcloud.com",
	"singapore":      "https://adminapisgp.im.qcloud.com",
	"tokyo":          "https://adminapijpn.im.qcloud.com",
}

// Regions returns the names of the regions, sorted.
func Regions() []string { return slices.Sorted(maps.Keys(regions)) }

// RegionURL returns the base URL of a region. The error for an unknown name lists
// the known ones.
func RegionURL(name string) (string, error) {
	if u, ok := regions[name]; ok {
		return u, nil
	}
	return "", fmt.Errorf("unknown region %q; known: %s", name, strings.Join(Regions(), ", "))
}

// parseBaseURL checks the URL that requests, and with them UserSigs, are sent to.
// Its errors never quote the URL: it may have been pasted with a UserSig in it.
func parseBaseURL(base string, insecure bool) (*url.URL, error) {
	if base == "" {
		return nil, errors.New("base URL: not set")
	}
	u, err := url.Parse(base)
	if err != nil {
		return nil, errors.New("base URL: not a URL")
	}
	var problems []error
	problem := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf("base URL: "+format, args...))
	}
	if u.Hostname() == "" {
		problem("has no host; expected a URL such as https://host")
	}
	switch {
	case u.Scheme == "https":
	case u.Scheme == "http" && (insecure || isLoopback(u.Hostname())):
	case u.Scheme == "http":
		problem("plain HTTP would expose the UserSig in transit to %s", u.Host)
	default:
		problem("scheme %q is not https", u.Scheme)
	}
	if u.User != nil {
		problem("contains a user name or password")
	}
	if u.RawQuery != "" || u.ForceQuery {
		problem("contains a query")
	}
	if u.Fragment != "" {
		problem("contains a fragment")
	}
	if strings.HasSuffix(strings.TrimRight(u.Path, "/"), apiPath) {
		problem("ends with the path of the command, which is added to it")
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host, Path: strings.TrimRight(u.Path, "/") + apiPath}, nil
}

// isLoopback reports whether requests to host stay on this machine. Names other
// than localhost are not resolved.
func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
