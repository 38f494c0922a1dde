package consumer_test

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"enricher/consumer"
	"enricher/fetch/fetchtest"
	"enricher/schemas"
)

// TestSmallBatches: topics that take less than the client's batches. What fits
// by itself is no dead letter for the company it came in.
func TestSmallBatches(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w := newWorld(t, fetchtest.Config{})
		small := "2000"
		_, err := kadm.NewClient(w.feeder).AlterTopicConfigs(context.Background(),
			[]kadm.AlterConfig{{Name: "max.message.bytes", Value: &small}}, w.Out, w.Dead)
		if err != nil {
			t.Fatal(err)
		}
		w.calls("c", 400)
		// Incompressible, for the broker measures what it is sent.
		w.letter(3, []byte(noise(4000)), schemas.Malformed)
		i := w.start("a", func(c *consumer.Config) { c.APIRate = 0 })
		for n := range 4 {
			w.calls(strconv.Itoa(n)+"-", 100)
			<-time.After(5 * time.Second)
		}
		w.await(5 * time.Minute)
		w.check()
		if i.logs.FilterMessageSnippet("max.message.bytes").Len() == 0 {
			t.Error("no batch was refused, or nobody was told what to do")
		}
		for _, l := range w.letters() {
			if l.OmittedBytes < 4000 {
				t.Errorf("a letter of %d bytes in a topic that takes 2000", len(l.Value))
			}
		}
	})
}

// noise is text that does not compress to less than three quarters.
func noise(n int) string {
	var b strings.Builder
	for x := uint64(1); b.Len() < n; x = x*6364136223846793005 + 1442695040888963407 {
		b.WriteByte('!' + byte(x>>33%90))
	}
	return b.String()
}
