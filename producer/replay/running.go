package replay

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/producer"
)

// A run says in the journal that it is running: at its start, every beatInterval,
// and a last time, with a tombstone, when it ends. A run that finds another one
// which has not ended waits for silence, by its own clock: if the other one says
// nothing meanwhile, it was killed or cut off.
const (
	beatInterval = 2 * time.Second
	silence      = 4 * beatInterval
)

// Running describes a run that has not said that it ended.
type Running struct {
	Action  State     `json:"run"`
	By      string    `json:"by,omitempty"`
	Host    string    `json:"host,omitempty"`
	Started time.Time `json:"started"`
}

func (r *Running) String() string {
	text := fmt.Sprintf("one that began at %s", r.Started.UTC().Format(time.RFC3339))
	if r.By != "" {
		text += " by " + r.By
	}
	if r.Host != "" {
		text += " on " + r.Host
	}
	return text
}

// RunningError reports that another run is processing dead letters of the topic.
type RunningError struct{ Other Running }

func (e *RunningError) Error() string {
	return fmt.Sprintf("another replay is running: %v", &e.Other)
}

const runKeyPart = "run"

// runKey names a run in the journal of a dead-letter topic.
func runKey(topic [16]byte, run string) []byte {
	return fmt.Appendf(nil, "%s:%s:%s", base64.RawURLEncoding.EncodeToString(topic[:]), runKeyPart, run)
}

// parseRunKey returns the run that a key of the journal names; ok is false for a
// key of another kind.
func parseRunKey(key []byte) (topic [16]byte, run string, ok bool) {
	parts := strings.Split(string(key), ":")
	if len(parts) != 3 || parts[1] != runKeyPart {
		return topic, "", false
	}
	id, err := base64.RawURLEncoding.DecodeString(parts[0])
	if err != nil || len(id) != len(topic) {
		return topic, "", false
	}
	return [16]byte(id), parts[2], true
}

// announcement states in the journal that a run is running, for other runs. Its
// records are in no transaction, so those of a fenced run may arrive late; they
// have a key of their own.
type announcement struct {
	cl      *kgo.Client
	journal string
	key     []byte
	cancel  context.CancelFunc
	done    chan struct{}
}

// announce starts to announce the run and ends the announcements of runs that are
// dead.
func (r *runner) announce(ctx context.Context, topic [16]byte, dead map[string]Running) error {
	if r.announced != nil {
		return nil
	}
	value, err := json.Marshal(Running{Action: r.Action, By: r.By, Host: r.Host, Started: r.started.UTC().Truncate(time.Second)})
	if err != nil {
		return err // a time after the year 9999
	}
	cl, err := kgo.NewClient(append(r.Kafka[:len(r.Kafka):len(r.Kafka)],
		kgo.DisableIdempotentWrite(), // needs no permission that the journal does not need anyway
		kgo.ProducerLinger(0),
	)...)
	if err != nil {
		return fmt.Errorf("configure Kafka client: %w", err)
	}
	a := &announcement{cl: cl, journal: r.JournalTopic, key: runKey(topic, r.id), done: make(chan struct{})}
	records := []*kgo.Record{a.record(value)}
	for run := range dead {
		records = append(records, &kgo.Record{Topic: a.journal, Key: runKey(topic, run)})
	}
	produceCtx, stop := context.WithTimeout(ctx, requestTimeout)
	defer stop()
	if err := cl.ProduceSync(produceCtx, records...).FirstErr(); err != nil {
		cl.Close()
		if errors.Is(err, kerr.TopicAuthorizationFailed) {
			err = &producer.NotAuthorizedError{Operations: []string{"Write"}, ResourceType: "topic", Resource: a.journal, Err: err}
		}
		return &clientError{fmt.Errorf("announce the run in topic %q: %w", a.journal, err)}
	}
	ctx, a.cancel = context.WithCancel(context.WithoutCancel(ctx))
	go a.repeat(ctx, value)
	r.announced = a
	return nil
}

func (a *announcement) record(value []byte) *kgo.Record {
	return &kgo.Record{Topic: a.journal, Key: a.key, Value: value}
}

func (a *announcement) repeat(ctx context.Context, value []byte) {
	defer close(a.done)
	ticker := time.NewTicker(beatInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		beat, stop := context.WithTimeout(ctx, beatInterval)
		_ = a.cl.ProduceSync(beat, a.record(value)).FirstErr() // the next one may succeed
		stop()
	}
}

// end says that the run has ended. If that fails, the next run waits for silence.
func (a *announcement) end() {
	if a == nil {
		return
	}
	a.cancel()
	<-a.done
	ctx, cancel := context.WithTimeout(context.Background(), abortTimeout)
	defer cancel()
	_ = a.cl.ProduceSync(ctx, a.record(nil)).FirstErr()
	a.cl.Close()
}

// awaitOthers returns a RunningError if a run other than this one is running. It
// returns nil when all others have ended, or have been silent.
func (s *Snapshot) awaitOthers(ctx context.Context, own string, waiting func(Running)) error {
	delete(s.running, own)
	for _, other := range s.running {
		waiting(other)
	}
	for begin := time.Now(); len(s.running) > 0 && time.Since(begin) < silence; {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(fetchWait):
		}
		before := maps.Clone(s.running)
		clear(s.running)
		if err := s.readJournal(ctx, kadm.NewClient(s.cl).ListCommittedOffsets); err != nil {
			return err
		}
		for run, other := range s.running {
			if run != own {
				return &RunningError{other}
			}
		}
		// None of them was heard; those with a tombstone have ended.
		for run := range s.ended {
			delete(before, run)
		}
		s.running = before
		delete(s.running, own)
	}
	return nil
}

// newRunID returns a name for a run that no other has.
func newRunID() string { return strconv.FormatUint(rand.Uint64(), 36) }
