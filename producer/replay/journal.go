package replay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/producer"
)

// createTimeout bounds how long a new topic takes to appear in the metadata of
// the brokers; usually it takes well under a second.
const createTimeout = 10 * time.Second

// The journal must be compacted: with any other policy brokers delete markers by
// age or size, and their dead letters would be replayed twice.
const policyKey, journalPolicy = "cleanup.policy", "compact"

// ensureJournal creates the journal if it is missing, and rejects one that is not
// compacted.
func ensureJournal(ctx context.Context, topics Topics) error {
	cl, err := kgo.NewClient(topics.Kafka...)
	if err != nil {
		return fmt.Errorf("configure Kafka client: %w", err)
	}
	defer cl.Close()
	if _, err := findTopic(ctx, cl, topics.DeadLetterTopic); err != nil {
		return err // without dead letters there is no need for a journal
	}
	_, err = findTopic(ctx, cl, topics.JournalTopic)
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		return createJournal(ctx, cl, topics.JournalTopic)
	}
	if err != nil {
		return err
	}
	return checkPolicy(ctx, cl, topics.JournalTopic)
}

// checkPolicy returns an error if the policy is wrong, and also if it cannot be
// read.
func checkPolicy(ctx context.Context, cl *kgo.Client, journal string) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	configs, err := kadm.NewClient(cl).DescribeTopicConfigs(ctx, journal)
	var config kadm.ResourceConfig
	if err == nil {
		config, err = configs.On(journal, nil)
	}
	if err == nil {
		err = config.Err
	}
	if errors.Is(err, kerr.TopicAuthorizationFailed) {
		err = &producer.NotAuthorizedError{Operations: []string{"DescribeConfigs"}, ResourceType: "topic", Resource: journal, Err: err}
	}
	if err != nil {
		return fmt.Errorf("read the configuration of journal %q: %w", journal, err)
	}
	for _, c := range config.Configs {
		if c.Key == policyKey && c.MaybeValue() != journalPolicy {
			return &JournalConfigError{Topic: journal, Key: c.Key, Value: c.MaybeValue(), Want: journalPolicy}
		}
	}
	return nil
}

func createJournal(ctx context.Context, cl *kgo.Client, name string) error {
	ctx, cancel := context.WithTimeout(ctx, createTimeout)
	defer cancel()
	_, err := kadm.NewClient(cl).CreateTopic(ctx, 1, -1, map[string]*string{policyKey: kadm.StringPtr(journalPolicy)}, name)
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return &JournalCreateError{Topic: name, Key: policyKey, Want: journalPolicy, Err: err}
	}
	for {
		_, err := findTopic(ctx, cl, name)
		if err == nil || ctx.Err() != nil || !errors.Is(err, kerr.UnknownTopicOrPartition) {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryPause):
		}
	}
}
