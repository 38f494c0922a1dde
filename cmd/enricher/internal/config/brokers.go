package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
)

// checkBroker returns what is wrong with the address of a broker, and how to write
// it. The Kafka client would look up most mistakes as host names, for ever.
func checkBroker(address string) error {
	if scheme, rest, ok := strings.Cut(address, "://"); ok {
		advice := ""
		switch strings.ToUpper(scheme) {
		case "SSL":
			advice = " and use --tls"
		case "SASL_SSL":
			advice = " and use --tls and --sasl-mechanism"
		case "SASL_PLAINTEXT":
			advice = " and use --sasl-mechanism"
		}
		return fmt.Errorf("%q has a scheme; write %s%s", address, strings.TrimRight(rest, "/"), advice)
	}
	if strings.ContainsFunc(address, func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune(`'"`, r) }) {
		return fmt.Errorf("%q contains blanks or quotes; write host:port, several separated by commas", address)
	}
	if ip, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(address, "["), "]")); err == nil {
		if ip.Is6() || !strings.Contains(address, "[") {
			return nil // without a port
		}
	}
	host := address
	if strings.Contains(address, ":") || strings.ContainsAny(address, "[]") {
		h, port, err := net.SplitHostPort(address)
		if err != nil {
			return fmt.Errorf("%q is not host:port", address)
		}
		host = h
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return fmt.Errorf("%q has no port from 1 to 65535", address)
		}
	}
	if err := checkHost(host); err != nil {
		return fmt.Errorf("%q %w", address, err)
	}
	return nil
}

func checkHost(host string) error {
	if host == "" {
		return errors.New("has no host")
	}
	if strings.Contains(host, ":") {
		if _, err := netip.ParseAddr(host); err != nil {
			return errors.New("is not host:port")
		}
		return nil
	}
	for _, r := range host {
		if strings.ContainsRune("!#$%&()*+,/;<=>?@[\\]^`{|}~", r) {
			return fmt.Errorf("has a host with %q; write host:port", r)
		}
	}
	return nil
}
