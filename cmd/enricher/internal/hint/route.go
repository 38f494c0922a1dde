package hint

import "enricher/fetch"

// NoResponse returns the advice for a request to the API that brought no response.
// proxy is the one that was used, or "" for none.
func NoResponse(r *fetch.Response, proxy string) string {
	switch {
	case r.HelloUnanswered:
		return "try --api-tls-small-hello: some networks drop the first message of TLS, which is larger than one packet without it"
	case r.Untrusted:
		return "put the certificate of the API's issuer, or of the proxy's, into the file of --api-ca-file"
	case proxy != "":
		return "check the proxy, which --api-proxy or $HTTPS_PROXY names; hosts in $NO_PROXY are reached without the latter"
	}
	return "check --region or --api-url, DNS, and firewalls on the path; where only a proxy reaches the API, set --api-proxy"
}
