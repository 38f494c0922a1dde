package harness

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/fetch/fetchtest"
)

// TestProgressWatch: a member that says it is ready and completes nothing is found;
// not so one that completes events, is not ready, or has nothing to read.
func TestProgressWatch(t *testing.T) {
	for name, c := range map[string]struct {
		commits, ready bool
		events         int
		broken         int // partitions
	}{
		"stands still":    {ready: true, events: 2, broken: 2},
		"makes progress":  {ready: true, events: 2, commits: true},
		"is not ready":    {events: 2},
		"nothing to read": {ready: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := NewEnv(InMemory(t, SeedTopics()), DefaultTopics, fetchtest.Config{})
				for n := range c.events {
					e.FeedCall(int32(n), strconv.Itoa(n))
				}
				opts := []kgo.Opt{kgo.ClientID("a@1"), kgo.ConsumerGroup(e.Group), kgo.ConsumeTopics(e.In), kgo.DisableAutoCommit()}
				if c.commits {
					opts = []kgo.Opt{kgo.ClientID("a@1"), kgo.ConsumerGroup(e.Group), kgo.ConsumeTopics(e.In)}
				}
				member := e.NewClient(opts...)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go func() {
					for ctx.Err() == nil {
						member.PollFetches(ctx)
					}
				}()
				w := &ProgressWatch{Admin: e.Admin(), Topics: e.Topics, Bound: time.Minute,
					Ready: func(instance string) bool { return instance == "a" && c.ready }}
				var broken []string
				for range 9 {
					<-time.After(10 * time.Second)
					b, err := w.Look(ctx, time.Now())
					if err != nil {
						t.Log(err) // before the group is stable
					}
					broken = append(broken, b...)
				}
				if len(broken) != c.broken {
					t.Errorf("%d partitions found to stand still, want %d: %s", len(broken), c.broken, strings.Join(broken, "; "))
				}
			})
		})
	}
}
