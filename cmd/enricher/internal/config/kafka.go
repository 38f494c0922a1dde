package config

import (
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/cmd/enricher/internal/credentials"
)

// KafkaFlags configure the connections to the brokers.
type KafkaFlags struct {
	Brokers          List   `default:"127.0.0.1:9092" help:"Kafka bootstrap servers."`
	TLS              bool   `name:"tls" help:"Use TLS for Kafka."`
	TLSCA            string `name:"tls-ca" placeholder:"FILE" help:"PEM file with CA certificates, instead of the system's."`
	TLSCert          string `name:"tls-cert" placeholder:"FILE" help:"PEM client certificate."`
	TLSKey           string `name:"tls-key" placeholder:"FILE" help:"PEM private key of --tls-cert."`
	SASLMechanism    string `name:"sasl-mechanism" placeholder:"NAME" values:"${mechanisms}" help:"PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER or AWS_MSK_IAM."`
	SASLUser         string `name:"sasl-user" placeholder:"NAME" help:"SASL user name."`
	SASLPasswordFile string `name:"sasl-password-file" placeholder:"FILE" help:"File with the SASL password."`
	SASLExtension    List   `name:"sasl-extension" placeholder:"NAME=VALUE" help:"SASL extensions that are sent with a token (OAUTHBEARER)."`

	OAuthTokenURL         string `name:"oauth-token-url" placeholder:"URL" help:"Token endpoint for the client credentials grant (OAUTHBEARER)."`
	OAuthClientID         string `name:"oauth-client-id" placeholder:"ID" help:"Client id for --oauth-token-url."`
	OAuthClientSecretFile string `name:"oauth-client-secret-file" placeholder:"FILE" help:"File with the client secret for --oauth-token-url."`
	OAuthScope            List   `name:"oauth-scope" placeholder:"SCOPE" help:"Scopes to request from --oauth-token-url."`
	OAuthParam            List   `name:"oauth-param" placeholder:"NAME=VALUE" help:"Further parameters of the token request, such as audience=…"`
	OAuthTokenFile        string `name:"oauth-token-file" placeholder:"FILE" help:"File with a token that another program replaces, instead of --oauth-token-url."`

	Options     []kgo.Opt                `kong:"-"` // reach the brokers; set by Check
	Credentials *credentials.Credentials `kong:"-"` // those that Options use; set by Check
}

// The values of --sasl-mechanism.
var (
	passwordMechanisms = []string{credentials.Plain, credentials.ScramSHA256, credentials.ScramSHA512}
	tokenMechanisms    = []string{credentials.OAuthBearer}
	mechanisms         = slices.Concat(passwordMechanisms, tokenMechanisms, []string{credentials.AWSMSKIAM})
)

// Check implements Checker.
func (f *KafkaFlags) Check(src *Sources) {
	if len(f.Brokers) == 0 {
		src.Problem("brokers", "must be given")
	}
	for _, b := range f.Brokers {
		if err := checkBroker(b); err != nil {
			src.Problem("brokers", "%v", err)
		}
	}
	if (f.TLSCert == "") != (f.TLSKey == "") {
		src.Problem("tls-cert", "requires --tls-key, and the other way round; set both or neither")
	}
	cfg := credentials.Config{
		CA: f.TLSCA, Cert: f.TLSCert, Key: f.TLSKey,
		Mechanism: f.SASLMechanism, User: f.SASLUser, PasswordFile: f.SASLPasswordFile,
		OAuth: credentials.OAuth{
			TokenURL: f.OAuthTokenURL, ClientID: f.OAuthClientID, ClientSecretFile: f.OAuthClientSecretFile,
			Scopes: f.OAuthScope, TokenFile: f.OAuthTokenFile,
		},
	}
	f.checkMechanism(src, cfg.OAuth)
	var err error
	if cfg.OAuth.Params, err = credentials.Pairs(f.OAuthParam); err != nil {
		src.Problem("oauth-param", "%v", err)
	}
	if cfg.OAuth.Extensions, err = credentials.Extensions(f.SASLExtension); err != nil {
		src.Problem("sasl-extension", "%v", err)
	}
	f.Credentials = credentials.New(cfg, func(flag string, err error) { src.Problem(flag, "%v", err) })
	f.Options = append([]kgo.Opt{kgo.SeedBrokers(f.Brokers...)}, f.Credentials.Options(f.UsesTLS())...)
}

// checkMechanism records flags that are missing for the mechanism, and those that
// have no meaning for it.
func (f *KafkaFlags) checkMechanism(src *Sources, tokens credentials.OAuth) {
	if f.SASLMechanism != "" && !src.OneOf("sasl-mechanism", f.SASLMechanism) {
		return
	}
	for _, flag := range []struct {
		name, value string
		mechanisms  []string // that use it
	}{
		{"sasl-user", f.SASLUser, passwordMechanisms},
		{"sasl-password-file", f.SASLPasswordFile, passwordMechanisms},
		{"sasl-extension", strings.Join(f.SASLExtension, ","), tokenMechanisms},
		{"oauth-token-url", f.OAuthTokenURL, tokenMechanisms},
		{"oauth-client-id", f.OAuthClientID, tokenMechanisms},
		{"oauth-client-secret-file", f.OAuthClientSecretFile, tokenMechanisms},
		{"oauth-scope", strings.Join(f.OAuthScope, ","), tokenMechanisms},
		{"oauth-param", strings.Join(f.OAuthParam, ","), tokenMechanisms},
		{"oauth-token-file", f.OAuthTokenFile, tokenMechanisms},
	} {
		if flag.value != "" && !slices.Contains(flag.mechanisms, f.SASLMechanism) {
			src.Problem(flag.name, "requires --sasl-mechanism %s", strings.Join(flag.mechanisms, ", "))
		}
	}
	switch {
	case slices.Contains(passwordMechanisms, f.SASLMechanism):
		src.Required("sasl-user", f.SASLUser)
		src.Required("sasl-password-file", f.SASLPasswordFile)
	case f.SASLMechanism == credentials.OAuthBearer:
		checkTokens(src, "", credentials.OAuthBearer, tokens, len(f.OAuthParam) > 0)
	case f.SASLMechanism == credentials.AWSMSKIAM && !f.UsesTLS():
		src.Problem("sasl-mechanism", "%s requires --tls", f.SASLMechanism)
	}
}

// checkTokens records what is wrong with where tokens come from. prefix is that of the
// flags' names, and purpose says what the tokens are for.
func checkTokens(src *Sources, prefix, purpose string, o credentials.OAuth, hasParams bool) {
	const file, endpoint, id, secret = "oauth-token-file", "oauth-token-url", "oauth-client-id", "oauth-client-secret-file"
	switch {
	case o.TokenFile != "":
		for _, flag := range []struct {
			name  string
			given bool
		}{
			{endpoint, o.TokenURL != ""},
			{id, o.ClientID != ""},
			{secret, o.ClientSecretFile != ""},
			{"oauth-scope", len(o.Scopes) > 0},
			{"oauth-param", hasParams},
		} {
			if flag.given {
				src.Problem(prefix+flag.name, "conflicts with --%s; remove one of them", prefix+file)
			}
		}
		return
	case o.TokenURL == "":
		src.Problem(prefix+endpoint, "must be given for %s, or use --%s", purpose, prefix+file)
		return
	}
	src.Required(prefix+id, o.ClientID)
	src.Required(prefix+secret, o.ClientSecretFile)
	u, err := url.Parse(o.TokenURL)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		src.Problem(prefix+endpoint, "must be a URL such as https://login.example.com/oauth2/token")
	case u.User != nil:
		src.Problem(prefix+endpoint, "must not contain credentials; use --%s and --%s", prefix+id, prefix+secret)
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		src.Problem(prefix+endpoint, "would send the client secret in plain text; use https")
	}
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// UsesTLS reports whether connections to the brokers use TLS.
func (f *KafkaFlags) UsesTLS() bool {
	return f.TLS || f.TLSCA != "" || f.TLSCert != "" || f.TLSKey != ""
}

// Principal returns the Kafka principal of this process, such as User:enricher, or
// "" if it is not known.
func (f *KafkaFlags) Principal() string {
	user := f.SASLUser
	if user == "" && f.Credentials != nil {
		user = f.Credentials.Subject()
	}
	if user == "" {
		return ""
	}
	return "User:" + user
}
