package replay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// createTimeout is how long a new topic may take to be known everywhere.
const createTimeout = 10 * time.Second

// ensureJournal creates the journal if it is missing, and refuses one that
// forgets: with any other policy than compaction the brokers delete markers, and
// the letters would be replayed twice.
func ensureJournal(ctx context.Context, topics Topics) error {
	cl, err := kgo.NewClient(topics.Kafka...)
	if err != nil {
		return fmt.Errorf("configure Kafka client: %w", err)
	}
	defer cl.Close()
	if _, err := findTopic(ctx, cl, topics.DeadLetterTopic); err != nil {
		return err // nothing to keep a journal of
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

// checkPolicy must see the policy: not to know it is no better than a wrong one.
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
		return fmt.Errorf("no right to see the configuration of journal %q; grant it: "+
			"kafka-acls --add --allow-principal User:… --operation DescribeConfigs --topic %s", journal, journal)
	}
	if err != nil {
		return fmt.Errorf("read the configuration of journal %q: %w", journal, err)
	}
	for _, c := range config.Configs {
		if c.Key == "cleanup.policy" && c.MaybeValue() != "compact" {
			return fmt.Errorf("journal %q has cleanup.policy=%s, so the brokers forget what was replayed; mend it: "+
				"kafka-configs --alter --entity-type topics --entity-name %s --add-config cleanup.policy=compact", journal, c.MaybeValue(), journal)
		}
	}
	return nil
}

func createJournal(ctx context.Context, cl *kgo.Client, name string) error {
	ctx, cancel := context.WithTimeout(ctx, createTimeout)
	defer cancel()
	_, err := kadm.NewClient(cl).CreateTopic(ctx, 1, -1, map[string]*string{"cleanup.policy": kadm.StringPtr("compact")}, name)
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("journal %q does not exist and cannot be created: %w; create it: "+
			"kafka-topics --create --topic %s --partitions 1 --config cleanup.policy=compact", name, err, name)
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
