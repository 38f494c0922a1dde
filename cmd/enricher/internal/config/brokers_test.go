package config

import (
	"strings"
	"testing"
)

func TestBrokerAddresses(t *testing.T) {
	for _, ok := range []string{
		"kafka-1:9092", "kafka-1", "b-1.msk.eu-west-1.amazonaws.com:9098", "10.0.0.1", "10.0.0.1:9092", "kafka_1.svc:65535",
		"::1", "[::1]", "[::1]:9092", "fe80::1%eth0", "[fe80::1%eth0]:9092", "kafka.example.:9092",
	} {
		if err := checkBroker(ok); err != nil {
			t.Errorf("%s: %v", ok, err)
		}
	}
	for bad, want := range map[string]string{
		"SASL_SSL://pkc-1.example:9092": "write pkc-1.example:9092 and use --tls and --sasl-mechanism",
		"ssl://h:9093":                  "write h:9093 and use --tls",
		"SASL_PLAINTEXT://h:9092":       "write h:9092 and use --sasl-mechanism",
		"kafka://127.0.0.1:9092":        "write 127.0.0.1:9092",
		"http://h:9092/":                "write h:9092",
		"['h:9092']":                    "blanks or quotes",
		`"h:9092"`:                      "blanks or quotes",
		"h:9092 h2:9092":                "separated by commas",
		"h:9092\th2:9092":               "separated by commas",
		"[h:9092]":                      "is not host:port",
		"[10.0.0.1]":                    "is not host:port",
		"h:99999":                       "no port from 1 to 65535",
		"h:0":                           "no port from 1 to 65535",
		"h:":                            "no port from 1 to 65535",
		"h:kafka":                       "no port from 1 to 65535",
		":9092":                         "has no host",
		"h:9092:9093":                   "is not host:port",
		"user@h:9092":                   `has a host with '@'`,
		"h/path:9092":                   `has a host with '/'`,
		"h;h2:9092":                     `has a host with ';'`,
		"[::1]9092":                     "is not host:port",
	} {
		if err := checkBroker(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", bad, err, want)
		}
	}
}
