package credentials

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"

	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/aws"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	"golang.org/x/oauth2/clientcredentials"
)

// Mechanisms of a login to a broker, by the names of --sasl-mechanism.
const (
	Plain       = "PLAIN"
	ScramSHA256 = "SCRAM-SHA-256"
	ScramSHA512 = "SCRAM-SHA-512"
	OAuthBearer = "OAUTHBEARER"
	AWSMSKIAM   = "AWS_MSK_IAM"
)

// Mechanisms of a login to a server that is reached by HTTP.
const (
	Basic  = "Basic"  // with User and PasswordFile
	Bearer = "Bearer" // with a token of OAuth
)

// Config says which credentials to use. Files are paths; "" means none.
type Config struct {
	// Prefix is what the names of the flags begin with that the values come from,
	// unless they are those of the brokers.
	Prefix             string
	CA, Cert, Key      string
	Mechanism          string // "": no login
	User, PasswordFile string
	OAuth              OAuth
}

// OAuth says where tokens come from: an endpoint or a file.
type OAuth struct {
	TokenURL, ClientID, ClientSecretFile string
	Scopes                               []string
	Params                               url.Values
	TokenFile                            string
	Extensions                           map[string]string
}

// New reads all files. bad is called for each flag whose value cannot be used; the
// result is of no use then.
func New(cfg Config, bad func(flag string, err error)) *Credentials {
	c := &Credentials{}
	if cfg.CA != "" {
		flag := cfg.Prefix + "tls-ca"
		ca, err := openCA(flag, cfg.CA)
		if err != nil {
			bad(flag, err)
		} else {
			c.ca = ca
			c.watched = append(c.watched, ca)
		}
	}
	if cfg.Cert != "" && cfg.Key != "" {
		flag := cfg.Prefix + "tls-cert"
		pair, err := openPair(flag, cfg.Cert, cfg.Key)
		if err != nil {
			bad(flag, err)
		} else {
			c.pair = pair
			c.watched = append(c.watched, pair)
		}
	}
	switch cfg.Mechanism {
	case Plain, ScramSHA256, ScramSHA512:
		if f := c.password("sasl-password-file", cfg, bad); f != nil {
			c.mechanism = passwordMechanism(cfg.Mechanism, cfg.User, f)
		}
	case Basic:
		if f := c.password(cfg.Prefix+"password-file", cfg, bad); f != nil {
			c.authorize = basic(cfg.User, f)
		}
	case OAuthBearer:
		if flag, get := c.tokens(cfg, bad); get != nil {
			c.mechanism = bearer(flag, get, cfg.OAuth.Extensions)
		}
	case Bearer:
		if _, get := c.tokens(cfg, bad); get != nil {
			c.authorize = withToken(get)
		}
	case AWSMSKIAM:
		r := &renewed[aws.Auth]{flag: "sasl-mechanism", fetch: awsCredentials}
		c.mechanism = iam(r)
		c.watched = append(c.watched, r)
	}
	return c
}

func (c *Credentials) password(flag string, cfg Config, bad func(string, error)) *file[string] {
	if cfg.PasswordFile == "" {
		return nil // reported already
	}
	f, err := openText(flag, cfg.PasswordFile)
	if err != nil {
		bad(flag, err)
		return nil
	}
	c.watched = append(c.watched, f)
	return f
}

func passwordMechanism(name, user string, f *file[string]) sasl.Mechanism {
	if name == Plain {
		return plain.Plain(func(context.Context) (plain.Auth, error) { return plain.Auth{User: user, Pass: f.get()}, nil })
	}
	auth := func(context.Context) (scram.Auth, error) { return scram.Auth{User: user, Pass: f.get()}, nil }
	if name == ScramSHA256 {
		return scram.Sha256(auth)
	}
	return scram.Sha512(auth)
}

// tokens returns what obtains a token that is valid now, and the flag that says where
// from; or nil.
func (c *Credentials) tokens(cfg Config, bad func(string, error)) (string, func(context.Context) (token, error)) {
	if cfg.OAuth.TokenFile != "" {
		return c.tokenFile(cfg, bad)
	}
	return c.tokenEndpoint(cfg, bad)
}

func (c *Credentials) tokenFile(cfg Config, bad func(string, error)) (string, func(context.Context) (token, error)) {
	flag := cfg.Prefix + "oauth-token-file"
	f, err := openToken(flag, cfg.OAuth.TokenFile)
	if err != nil {
		bad(flag, err)
		return "", nil
	}
	c.watched = append(c.watched, f)
	c.subject = func() string { return f.state.Load().value.subject }
	return flag, fileTokens(f)
}

func (c *Credentials) tokenEndpoint(cfg Config, bad func(string, error)) (string, func(context.Context) (token, error)) {
	if cfg.OAuth.ClientSecretFile == "" {
		return "", nil // reported already
	}
	flag := cfg.Prefix + "oauth-client-secret-file"
	secret, err := openText(flag, cfg.OAuth.ClientSecretFile)
	if err != nil {
		bad(flag, err)
		return "", nil
	}
	e := &endpoint{
		config: clientcredentials.Config{
			ClientID: cfg.OAuth.ClientID, TokenURL: cfg.OAuth.TokenURL, Scopes: cfg.OAuth.Scopes, EndpointParams: cfg.OAuth.Params,
		},
		prefix: cfg.Prefix, secret: secret, ca: c.ca,
	}
	r := &renewed[token]{flag: cfg.Prefix + "oauth-token-url", fetch: e.fetch}
	c.watched = append(c.watched, secret, r)
	c.subject = func() string {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.value.subject
	}
	return r.flag, r.get
}

// extensionName and extensionValue are what RFC 7628, section 3.1, allows.
var (
	extensionName  = regexp.MustCompile(`^[A-Za-z]+$`)
	extensionValue = regexp.MustCompile(`^[\x20-\x7e\t\r\n]*$`)
)

// Extensions reads SASL extensions of the form name=value.
func Extensions(values []string) (map[string]string, error) {
	pairs, err := Pairs(values)
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for name, v := range pairs {
		switch {
		case name == "auth":
			return nil, errors.New(`"auth" is the token itself`)
		case len(v) > 1:
			return nil, fmt.Errorf("%q is given twice", name)
		case !extensionName.MatchString(name):
			return nil, fmt.Errorf("%q must consist of characters from A to Z and a to z", name)
		case !extensionValue.MatchString(v[0]):
			return nil, fmt.Errorf("the value of %q must consist of printable ASCII characters", name)
		}
		all[name] = v[0]
	}
	return all, nil
}
