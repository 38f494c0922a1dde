package credentials

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/consumer"
)

// logins is a broker that accepts every login with a mechanism, and keeps what the
// client sent.
type logins struct {
	*kfake.Cluster
	lifetime time.Duration // of a session; 0: no limit

	mu       sync.Mutex
	sent     []string
	response []byte // in which a broker explains why it rejects a token
}

func newLogins(t *testing.T) *logins {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	l := &logins{Cluster: cluster}
	cluster.ControlKey(int16(kmsg.SASLHandshake), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		return req.ResponseKind(), nil, true
	})
	cluster.ControlKey(int16(kmsg.SASLAuthenticate), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		l.mu.Lock()
		defer l.mu.Unlock()
		l.sent = append(l.sent, string(req.(*kmsg.SASLAuthenticateRequest).SASLAuthBytes))
		resp := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		resp.SASLAuthBytes = l.response
		resp.SessionLifetimeMillis = l.lifetime.Milliseconds()
		return resp, nil, true
	})
	return l
}

func (l *logins) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	sent := l.sent
	l.sent = nil
	return sent
}

func (l *logins) client(t *testing.T, c *Credentials, opts ...kgo.Opt) *kadm.Client {
	t.Helper()
	cl, err := kgo.NewClient(append(append(c.Options(false), kgo.SeedBrokers(l.ListenAddrs()...), kgo.RequestRetries(0)), opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return kadm.NewClient(cl)
}

// A session whose life the broker limits is authenticated again, with the token
// that the file contains then, and on the same connection.
func TestTokenIsReplacedOnALiveSession(t *testing.T) {
	d, broker := newDir(t), newLogins(t)
	broker.lifetime = 1100 * time.Millisecond // the client goes a second below
	c := open(t, Config{Mechanism: OAuthBearer, OAuth: OAuth{TokenFile: d.write("token", "first"), Extensions: map[string]string{"pool": "p"}}})
	var connections int
	adm := broker.client(t, c, kgo.WithHooks(connected(func(error) { connections++ })))
	for _, token := range []string{"first", "second", "third"} {
		d.write("token", token+"\n")
		<-time.After(110 * time.Millisecond)
		if _, err := adm.ListGroups(t.Context()); err != nil { // what the client does not cache
			t.Fatal(err)
		}
		sent := broker.take()
		if want := "n,,\x01auth=Bearer " + token + "\x01pool=p\x01\x01"; len(sent) == 0 || sent[len(sent)-1] != want {
			t.Errorf("%q, want %q", sent, want)
		}
		if token == "first" {
			connections = 0
		}
	}
	if connections > 0 {
		t.Errorf("%d new connections", connections)
	}
}

// connected is called when a connection was opened, or could not be.
type connected func(error)

// OnBrokerConnect implements kgo.HookBrokerConnect.
func (c connected) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	c(err)
}

// A broker says in a challenge why it rejects a token.
func TestRejectedTokenIsExplained(t *testing.T) {
	d, broker := newDir(t), newLogins(t)
	c := open(t, Config{Mechanism: OAuthBearer, OAuth: OAuth{TokenFile: d.write("token", planted)}})
	for response, want := range map[string]string{
		`{"status":"invalid_token"}`:                        "--oauth-token-file: the broker rejected the token: invalid_token",
		`{"status":"insufficient_scope","scope":"calls\n"}`: "--oauth-token-file: the broker rejected the token: insufficient_scope, scope calls",
		"\x00" + planted:                                    "--oauth-token-file: the broker rejected the token",
	} {
		broker.mu.Lock()
		broker.response = []byte(response)
		broker.mu.Unlock()
		_, err := broker.client(t, c).ListTopics(t.Context())
		var e *Error
		if !errors.As(err, &e) || e.Error() != want || !e.Rejected || !errors.Is(err, consumer.ErrCredential) {
			t.Errorf("%v, want %s", err, want)
		} else {
			assertNoLeak(t, err.Error())
		}
	}
}

// An expired token is not sent; a new one is.
func TestExpiredTokenIsNotSent(t *testing.T) {
	d, broker := newDir(t), newLogins(t)
	path := d.write("token", jwt("me", time.Now().Add(time.Hour)))
	c := open(t, Config{Mechanism: OAuthBearer, OAuth: OAuth{TokenFile: path}})
	if got := c.Subject(); got != "me" {
		t.Errorf("subject %q", got)
	}
	d.write("token", jwt("me", time.Now().Add(-time.Hour)))
	_, err := broker.client(t, c).ListTopics(t.Context())
	if err == nil || !strings.Contains(err.Error(), "--oauth-token-file: file "+path+" expired at ") {
		t.Error(err)
	} else {
		assertNoLeak(t, err.Error())
	}
	if sent := broker.take(); len(sent) > 0 {
		t.Error("it was sent")
	}
	d.write("token", jwt("me", time.Now().Add(time.Hour)))
	if _, err := broker.client(t, c).ListTopics(t.Context()); err != nil {
		t.Error(err)
	}
}

// The new connections of a client that is already running use the new password.
func TestPasswordIsReadForEveryLogin(t *testing.T) {
	for _, mechanism := range []string{Plain, ScramSHA256, ScramSHA512} {
		t.Run(mechanism, func(t *testing.T) {
			cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.Superuser(mechanism, "u", planted+"2"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(cluster.Close)
			d := newDir(t)
			c := open(t, Config{Mechanism: mechanism, User: "u", PasswordFile: d.write("password", planted+"1\n")})
			adm := (&logins{Cluster: cluster}).client(t, c)
			if _, err := adm.ListTopics(t.Context()); err == nil {
				t.Error("a wrong password is accepted")
			} else { // this broker closes the connection without a reason
				assertNoLeak(t, err.Error())
			}
			d.write("password", planted+"2\n")
			if _, err := adm.ListTopics(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// The signature of AWS_MSK_IAM is the one that the AWS SDK makes of the same
// request, with the credentials that its chain finds at the time of the login.
func TestIAMSignature(t *testing.T) {
	d, broker := newDir(t), newLogins(t)
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_REGION", "eu-west-1")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CONFIG_FILE", d.file("config"))
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", d.file("credentials"))
	none := open(t, Config{Mechanism: AWSMSKIAM})
	if _, err := broker.client(t, none).ListTopics(t.Context()); err == nil || !strings.Contains(err.Error(), "--sasl-mechanism: no AWS credentials: ") {
		t.Error(err)
	}
	broker.response = []byte("{}")
	for _, id := range []string{"one", "two"} {
		d.write("credentials", "[default]\naws_access_key_id = "+id+"\naws_secret_access_key = "+planted+"\naws_session_token = token-"+id+"\n")
		c := open(t, Config{Mechanism: AWSMSKIAM})
		if _, err := broker.client(t, c).ListTopics(t.Context()); err != nil {
			t.Fatal(err)
		}
		sent := broker.take()
		assertNoLeak(t, sent...)
		var login map[string]string
		if err := json.NewDecoder(bytes.NewReader([]byte(sent[len(sent)-1]))).Decode(&login); err != nil {
			t.Fatal(err)
		}
		at, err := time.Parse("20060102T150405Z", login["x-amz-date"])
		if err != nil {
			t.Fatal(err)
		}
		query := url.Values{"Action": {"kafka-cluster:Connect"}, "X-Amz-Expires": {"300"}}
		req, err := http.NewRequest(http.MethodGet, "https://"+login["host"]+"/?"+query.Encode(), nil)
		if err != nil {
			t.Fatal(err)
		}
		hash := "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" // SHA-256 of nothing
		signed, _, err := v4.NewSigner().PresignHTTP(t.Context(), aws.Credentials{
			AccessKeyID: id, SecretAccessKey: planted, SessionToken: "token-" + id,
		}, req, hash, "kafka-cluster", "eu-west-1", at)
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(signed)
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range u.Query() {
			if got := login[strings.ToLower(name)]; got != want[0] {
				t.Errorf("%s is %s, want %s", name, got, want[0])
			}
		}
		if login["user-agent"] != "enricher" || login["version"] != "2020_10_22" {
			t.Errorf("%v", login)
		}
	}
}
