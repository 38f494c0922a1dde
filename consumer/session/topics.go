package session

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// topicInterval is how soon a topic that was deleted, re-created, forbidden or
// given more partitions is noticed.
const topicInterval = 5 * time.Second

// TopicChange is a change of an input topic.
type TopicChange struct {
	Topic string
	ID    [16]byte
	Err   error // not nil: the topic cannot be consumed
}

// WatchTopics sends the changes of the input topics to changed until ctx is done.
// The first call of a session sends only topics that cannot be consumed.
func (s *Session) WatchTopics(ctx context.Context, changed func(TopicChange)) {
	ticker := time.NewTicker(topicInterval)
	defer ticker.Stop()
	failed, partitions := make(map[string]bool), make(map[string]int)
	for ctx.Err() == nil {
		s.watchTopics(ctx, failed, partitions, changed)
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
}

// watchTopics looks at the input topics once. failed holds those that could not be
// consumed the last time, partitions how many each had.
func (s *Session) watchTopics(ctx context.Context, failed map[string]bool, partitions map[string]int, changed func(TopicChange)) {
	request, cancel := context.WithTimeout(ctx, topicInterval)
	topics, err := kadm.NewClient(s.admin).ListTopics(request, s.cfg.Topics...)
	cancel()
	if err != nil {
		return // no broker responds, which ends the session by itself
	}
	for _, name := range s.cfg.Topics {
		t, ok := topics[name]
		if !ok {
			t.Err = kerr.UnknownTopicOrPartition
		}
		if kerr.IsRetriable(t.Err) && !errors.Is(t.Err, kerr.UnknownTopicOrPartition) {
			continue
		}
		if n := len(t.Partitions); n > partitions[name] {
			if partitions[name] > 0 {
				s.cl.ForceMetadataRefresh() // the group's leader has to join again, and looks by itself every 5 min
			}
			partitions[name] = n
		}
		if (t.Err != nil) != failed[name] || t.Err == nil && t.ID != s.TopicID(name) {
			failed[name] = t.Err != nil
			changed(TopicChange{name, t.ID, t.Err})
		}
	}
}

// Unsubscribe stops consuming a topic that does not exist. The client would ask
// for it thousands of times a second.
func (s *Session) Unsubscribe(topic string) { s.cl.PurgeTopicsFromConsuming(topic) }

// Resubscribe consumes a topic that exists again, perhaps with another id. Its
// partitions are assigned again.
func (s *Session) Resubscribe(topic string, id [16]byte) {
	s.mu.Lock()
	s.topicIDs[topic] = id
	s.mu.Unlock()
	s.cl.PurgeTopicsFromConsuming(topic)
	s.cl.AddConsumeTopics(topic)
}
