package config

import (
	"net/url"
	"strings"

	"enricher/cmd/enricher/internal/credentials"
	"enricher/cmd/enricher/internal/registry"
	"enricher/schemas"
)

// RegistryFlags say where the schema of enriched records is registered, and how
// records name it.
type RegistryFlags struct {
	SchemaRegistryURL List   `name:"schema-registry-url" placeholder:"URL" help:"Schema registry in which the schema of enriched records is registered; several addresses of one registry."`
	SchemaID          string `name:"schema-id" placeholder:"PLACE" values:"header,payload" help:"How enriched records name their schema: header (the default with a registry), or payload, which puts a frame before the value."`

	SchemaRegistryUser         string `placeholder:"NAME" help:"User name, or API key, for the schema registry."`
	SchemaRegistryPasswordFile string `placeholder:"FILE" help:"File with the password, or API secret."`
	SchemaRegistryHeader       List   `placeholder:"NAME=VALUE" help:"Headers of the requests, such as target-sr-cluster=…"`

	SchemaRegistryOAuthTokenURL         string `name:"schema-registry-oauth-token-url" placeholder:"URL" help:"Token endpoint for the client credentials grant."`
	SchemaRegistryOAuthClientID         string `name:"schema-registry-oauth-client-id" placeholder:"ID" help:"Client id for the token endpoint."`
	SchemaRegistryOAuthClientSecretFile string `name:"schema-registry-oauth-client-secret-file" placeholder:"FILE" help:"File with the client secret for the token endpoint."`
	SchemaRegistryOAuthScope            List   `name:"schema-registry-oauth-scope" placeholder:"SCOPE" help:"Scopes to request from the token endpoint."`
	SchemaRegistryOAuthParam            List   `name:"schema-registry-oauth-param" placeholder:"NAME=VALUE" help:"Further parameters of the token request."`
	SchemaRegistryOAuthTokenFile        string `name:"schema-registry-oauth-token-file" placeholder:"FILE" help:"File with a bearer token, instead of a token endpoint."`

	SchemaRegistryTLSCA   string `name:"schema-registry-tls-ca" placeholder:"FILE" help:"PEM file with CA certificates for the schema registry, instead of the system's."`
	SchemaRegistryTLSCert string `name:"schema-registry-tls-cert" placeholder:"FILE" help:"PEM client certificate."`
	SchemaRegistryTLSKey  string `name:"schema-registry-tls-key" placeholder:"FILE" help:"PEM private key of the client certificate."`

	Registry *registry.Registry `kong:"-"` // set by Check; nil: none
}

// Check records what is wrong with the values, given the topic of the records and
// their format.
func (f *RegistryFlags) Check(src *Sources, topic string, format schemas.Format) {
	if f.SchemaID != "" {
		src.OneOf("schema-id", f.SchemaID)
	}
	if len(f.SchemaRegistryURL) == 0 {
		for flag, value := range map[string]string{
			"schema-id": f.SchemaID, "schema-registry-user": f.SchemaRegistryUser, "schema-registry-password-file": f.SchemaRegistryPasswordFile,
			"schema-registry-header":          strings.Join(f.SchemaRegistryHeader, ","),
			"schema-registry-oauth-token-url": f.SchemaRegistryOAuthTokenURL, "schema-registry-oauth-token-file": f.SchemaRegistryOAuthTokenFile,
			"schema-registry-tls-ca": f.SchemaRegistryTLSCA, "schema-registry-tls-cert": f.SchemaRegistryTLSCert,
		} {
			if value != "" {
				src.Problem(flag, "requires --schema-registry-url")
			}
		}
		return
	}
	headers, err := credentials.Pairs(f.SchemaRegistryHeader)
	if err != nil {
		src.Problem("schema-registry-header", "%v", err)
	}
	f.Registry = &registry.Registry{
		URLs: f.SchemaRegistryURL, Headers: headers, Credentials: f.login(src), UserAgent: src.userAgent, Topic: topic, Format: format,
	}
	for _, address := range f.SchemaRegistryURL {
		f.checkAddress(src, address)
	}
}

func (f *RegistryFlags) login(src *Sources) *credentials.Credentials {
	cfg := credentials.Config{
		Prefix: registry.FlagPrefix,
		CA:     f.SchemaRegistryTLSCA, Cert: f.SchemaRegistryTLSCert, Key: f.SchemaRegistryTLSKey,
		User: f.SchemaRegistryUser, PasswordFile: f.SchemaRegistryPasswordFile,
		OAuth: credentials.OAuth{
			TokenURL: f.SchemaRegistryOAuthTokenURL, ClientID: f.SchemaRegistryOAuthClientID, ClientSecretFile: f.SchemaRegistryOAuthClientSecretFile,
			Scopes: f.SchemaRegistryOAuthScope, TokenFile: f.SchemaRegistryOAuthTokenFile,
		},
	}
	var err error
	if cfg.OAuth.Params, err = credentials.Pairs(f.SchemaRegistryOAuthParam); err != nil {
		src.Problem("schema-registry-oauth-param", "%v", err)
	}
	if (cfg.Cert == "") != (cfg.Key == "") {
		src.Problem("schema-registry-tls-cert", "requires --schema-registry-tls-key, and the other way round; set both or neither")
	}
	password := cfg.User != "" || cfg.PasswordFile != ""
	token := cfg.OAuth.TokenURL != "" || cfg.OAuth.TokenFile != "" || cfg.OAuth.ClientID != "" || cfg.OAuth.ClientSecretFile != "" ||
		len(cfg.OAuth.Scopes) > 0 || len(cfg.OAuth.Params) > 0
	switch {
	case password && token:
		src.Problem("schema-registry-user", "conflicts with --schema-registry-oauth-…: use a password or a token")
	case password:
		cfg.Mechanism = credentials.Basic
		src.Required("schema-registry-user", cfg.User)
		src.Required("schema-registry-password-file", cfg.PasswordFile)
	case token:
		cfg.Mechanism = credentials.Bearer
		checkTokens(src, registry.FlagPrefix, "a token", cfg.OAuth, len(cfg.OAuth.Params) > 0)
	}
	return credentials.New(cfg, func(flag string, err error) { src.Problem(flag, "%v", err) })
}

func (f *RegistryFlags) checkAddress(src *Sources, address string) {
	const flag = "schema-registry-url"
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http" || u.RawQuery != "" || u.Fragment != "":
		src.Problem(flag, "must be a URL such as https://registry.example.com:8081")
	case u.User != nil:
		src.Problem(flag, "must not contain credentials; use --schema-registry-user and --schema-registry-password-file")
	case u.Scheme == "http" && f.Registry.Credentials.SendsSecret() && !isLoopback(u.Hostname()):
		src.Problem(flag, "would send the password or token in plain text; use https")
	}
}

// Identify makes an encoder write how readers find the schema of its values.
func (f *RegistryFlags) Identify(e *schemas.Encoder, s registry.Schema) (err error) {
	if f.SchemaID == "payload" {
		e.Frame = s.Frame()
		return nil
	}
	e.SchemaID, err = s.HeaderValue()
	return err
}
