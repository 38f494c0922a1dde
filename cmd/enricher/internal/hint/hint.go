// Package hint says what to do about an error.
//
// Libraries return errors with the facts. The commands, which know the flags, add
// the advice here, and main prints it on a line of its own. Nothing else composes
// advice or names commands of Kafka's tools.
package hint

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"

	"enricher/consumer"
	"enricher/consumer/session"
	"enricher/consumer/skip"
	"enricher/fetch/lookup"
	"enricher/producer"
	"enricher/producer/replay"
)

// Error is an error with advice on what to do about it.
type Error struct {
	Err  error
	Hint string
}

// Error returns the error without the advice.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the error that the advice is about.
func (e *Error) Unwrap() error { return e.Err }

// With adds advice to an error.
func With(err error, format string, args ...any) error {
	return &Error{err, fmt.Sprintf(format, args...)}
}

// For returns the advice for an error, or "" if there is none.
func For(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Hint
	}
	return ""
}

// Explain adds advice to an error of the libraries, if there is any. principal is the
// Kafka principal of this process, or "" if it is not known.
func Explain(err error, principal string) error {
	var (
		denied    *producer.NotAuthorizedError
		duplicate *consumer.DuplicateInstanceError
		config    *replay.JournalConfigError
		create    *replay.JournalCreateError
		target    *replay.MissingTargetError
		open      *replay.OpenTransactionError
		running   *skip.RunningError
		inside    *skip.InsideBatchError
		tooMany   *skip.TooManyError
	)
	switch {
	case For(err) != "":
		return err
	case errors.As(err, &denied):
		return With(err, "%s", ACL(principal, denied.ResourceType, denied.Resource, denied.Operations...))
	case errors.As(err, &duplicate):
		return With(err, "give every running process its own --instance")
	case errors.As(err, &config):
		return With(err, "fix it with: kafka-configs --alter --entity-type topics --entity-name %s --add-config %s=%s", config.Topic, config.Key, config.Want)
	case errors.As(err, &create):
		return With(err, "create it with: kafka-topics --create --topic %s --partitions 1 --config %s=%s", create.Topic, create.Key, create.Want)
	case errors.As(err, &target):
		return With(err, "create it, or use another topic with --to")
	case errors.As(err, &open):
		return With(err, "find it with: kafka-transactions find-hanging --topic %s", open.Topic)
	case errors.As(err, &running):
		return With(err, "stop all instances first; one that was killed remains a member until its session times out")
	case errors.As(err, &inside):
		return With(err, "use --to %d", inside.End)
	case errors.As(err, &tooMany):
		return With(err, "use --to %d, then repeat the command", tooMany.Reached)
	case errors.Is(err, session.ErrNoCommittedOffset):
		return With(err, "%s", forReason(string(consumer.NoCommittedOffset)))
	case errors.Is(err, kerr.UnsupportedCompressionType), errors.Is(err, kerr.UnsupportedForMessageFormat):
		return With(err, "use another --compression: all brokers accept none, and nearly all gzip")
	case errors.Is(err, kerr.MessageTooLarge), errors.Is(err, kerr.RecordListTooLarge):
		return With(err, "lower --batch-max-bytes, or raise the topic's max.message.bytes")
	case forRegistry(err) != "":
		return With(err, "%s", forRegistry(err))
	case forLogin(err) != "":
		return With(err, "%s", forLogin(err))
	}
	return err
}

// Conditions formats the conditions that keep an instance from being ready, with
// advice.
func Conditions(conditions []consumer.Condition) []string {
	var all []string
	for _, c := range conditions {
		text := c.String()
		if advice := cmp.Or(For(Explain(c.Err, "")), forReason(c.Reason)); advice != "" {
			text += "; " + advice
		}
		all = append(all, text)
	}
	return all
}

// forReason returns the advice for a reason of a consumer.Condition, or "" if there
// is none.
func forReason(reason string) string {
	switch reason {
	case consumer.ReasonKafka, consumer.ReasonNotInGroup:
		return Connection(nil)
	case string(consumer.IncompatibleMetadata):
		return "run the version of enricher that wrote the offset metadata, or a later one"
	case string(consumer.NoCommittedOffset):
		return "set one with kafka-consumer-groups --reset-offsets, or use another --auto-offset-reset"
	case string(consumer.UnreadableBatch):
		return "restore the partition, or skip the batch with enricher skip"
	case string(consumer.OffsetUnavailable):
		return "look for a hanging transaction, a partition without a leader or a missing permission"
	case string(consumer.FetchFailed):
		return "check the partition and the permission to read it"
	case string(consumer.TopicUnavailable):
		return "create the topic again, or remove it from --input-topics"
	case string(consumer.Stalled):
		return "check that the partition has a leader, and that another consumer can read it there"
	case string(consumer.OpenTransaction):
		return "find its producer with kafka-transactions.sh describe-producers"
	case string(consumer.UnreadableEvents):
		return "fix the producer, or skip the events with enricher skip"
	case string(consumer.OutputRefused):
		return "check the settings and permissions of the output topic"
	case lookup.AccountRejected.String():
		return "check the secret key, --sdk-app-id, --identifier, --region and the account's package"
	case lookup.APIDown.String():
		return "lookups resume when the API recovers"
	case lookup.NothingFound.String():
		return "check --region and --sdk-app-id: the calls may belong to another region or app"
	case lookup.ClockWrong.String():
		return "set the clock of this machine, or start its time synchronisation"
	case lookup.KeyUnreadable.String():
		return "put the key into --secret-key-file again: a restart would fail"
	case lookup.Throttled.String():
		return "lower --api-rate, or find out which other clients use the app's quota"
	}
	return ""
}

// Split takes joined errors apart, so that each can be printed with its advice.
func Split(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, Split(e)...)
	}
	return all
}

// ACL returns the advice to grant operations on a Kafka resource. resource is the
// option of kafka-acls that names it: topic, group or transactional-id. principal
// is who needs them, such as User:enricher, or "" if it is not known.
func ACL(principal, resource, name string, operations ...string) string {
	if principal == "" {
		principal = "User:…"
	}
	return fmt.Sprintf("grant access with: kafka-acls --add --allow-principal %s --operation %s --%s %s",
		principal, strings.Join(operations, " --operation "), resource, name)
}
