// Package credentials proves the identity of this program to the brokers and to a
// schema registry, and checks theirs: certificates, passwords, tokens and AWS
// credentials. All of them
// are read or requested again while the program runs, so that short-lived ones
// need no restart. A file that cannot be used replaces nothing.
//
// It makes options of the Kafka client and HTTP clients, and gives no advice. Its
// errors and problems name a flag, and never quote a credential.
package credentials

import (
	"context"
	"crypto/tls"
	"strings"
	"time"
	"unicode"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"go.uber.org/zap"

	"enricher/consumer"
)

// Credentials are those of one configuration. All methods may be called by several
// goroutines.
type Credentials struct {
	ca        *file[trust] // nil: the system's
	pair      *file[*tls.Certificate]
	mechanism sasl.Mechanism // nil: no login
	authorize authorize      // an HTTP request; nil: no login
	watched   []watched
	subject   func() string // of the token that was obtained last; nil: there are no tokens
}

// watched is a credential that may become unusable while the program runs.
type watched interface {
	// renew reads or requests it again if that is due.
	renew(ctx context.Context)
	// problem returns why it cannot be used or renewed; nil: it can.
	problem(now time.Time) *Error
}

// Error means that a credential cannot be used. It hides the error that it stems
// from: the Kafka client would take a token endpoint that cannot be reached for a
// broker that cannot.
type Error struct {
	Flag string // that names the credential, or the place that it comes from
	Text string
	// Rejected: the credential was obtained, and the broker rejected it.
	Rejected bool
	// Transient: what failed may succeed within seconds.
	Transient bool
}

// Error returns the flag and the facts.
func (e *Error) Error() string { return "--" + e.Flag + ": " + e.Text }

// Is makes the pipeline count the error as one of authentication.
func (*Error) Is(target error) bool { return target == consumer.ErrCredential }

// Temporary makes the Kafka client repeat a request that failed for a transient
// lack of a credential.
func (e *Error) Temporary() bool { return e.Transient }

// Options returns the options for a Kafka client.
func (c *Credentials) Options(useTLS bool) []kgo.Opt {
	var opts []kgo.Opt
	if useTLS {
		opts = append(opts, kgo.Dialer(c.dial))
	}
	if c.mechanism != nil {
		opts = append(opts, kgo.SASL(c.mechanism))
	}
	return opts
}

// Subject returns who the brokers take the owner of the last token for, or "" if
// that is not known.
func (c *Credentials) Subject() string {
	if c.subject == nil {
		return ""
	}
	return c.subject()
}

// watchInterval is how often everything is looked at, also while no connection is
// opened. Reading a few small files takes microseconds.
const watchInterval = time.Second

// Watch renews what is due and logs what cannot be used, until ctx is done.
func (c *Credentials) Watch(ctx context.Context, log *zap.Logger) {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	reported := make([]string, len(c.watched))
	for {
		for i, w := range c.watched {
			w.renew(ctx)
			if ctx.Err() != nil {
				return
			}
			text, p := "", w.problem(time.Now())
			if p != nil {
				text = p.Text
			}
			switch {
			case text == reported[i]:
			case p != nil:
				log.Warn("credential cannot be used or renewed", zap.Error(p))
			default:
				log.Info("credential can be used again")
			}
			reported[i] = text
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Problems returns what cannot be used or renewed at the moment, as found when it
// was last looked at.
func (c *Credentials) Problems() []error {
	var all []error
	for _, w := range c.watched {
		if p := w.problem(time.Now()); p != nil {
			all = append(all, p)
		}
	}
	return all
}

// maxText bounds texts that come from elsewhere.
const maxText = 300

// clean returns a text from elsewhere on one line, without a secret that it may
// repeat.
func clean(text string, secrets ...string) string {
	for _, s := range secrets {
		if s != "" {
			text = strings.ReplaceAll(text, s, "[redacted]")
		}
	}
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }), " ")
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "…"
	}
	return text
}
