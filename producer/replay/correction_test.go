package replay_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"enricher/producer"
	"enricher/producer/replay"
	"enricher/schemas"
)

// deadLetter produces the dead letter of an event with a value, and returns it.
func (e *env) deadLetter(reason schemas.Reason, value []byte) *replay.Record {
	e.t.Helper()
	outputs := producer.RecordBuilder{DeadLetterTopic: deadTopic}
	r := outputs.DeadLetter(&kgo.Record{
		Topic: inTopic, Partition: 1, Offset: 7, Timestamp: time.Now(), Key: []byte("k"), Value: value,
		Headers: []kgo.RecordHeader{{Key: "trace", Value: []byte("1")}},
	}, &schemas.Failure{Reason: reason})
	e.produce(r)
	return e.find(replay.Position{Partition: r.Partition, Offset: r.Offset})
}

func (e *env) find(pos replay.Position) *replay.Record {
	e.t.Helper()
	s, err := replay.OpenSnapshot(context.Background(), e.topics())
	if err != nil {
		e.t.Fatal(err)
	}
	defer s.Close()
	r, err := s.Find(context.Background(), pos)
	if err != nil {
		e.t.Fatal(err)
	}
	return r.Clone()
}

// correct returns the job that sends a corrected event.
func (e *env) correct(r *replay.Record, value string) replay.Job {
	e.t.Helper()
	c, err := replay.Correct(r, []byte(value))
	if err != nil {
		e.t.Fatal(err)
	}
	j := e.job()
	j.Positions, j.Correction = []replay.Position{r.Position}, c
	return j
}

// checkCorrected checks that the corrected event was sent once, with key and headers
// of the original, and that the journal has the original value.
func (e *env) checkCorrected(r *replay.Record, value string) {
	e.t.Helper()
	sent := 0
	for _, event := range e.read(inTopic) {
		if string(event.Value) != value {
			continue
		}
		sent++
		if string(event.Key) != "k" || len(event.Headers) != 3 || event.Headers[0].Key != "trace" {
			e.t.Errorf("%s: key %q, headers %v", value, event.Key, event.Headers)
		}
	}
	if sent != 1 {
		e.t.Errorf("%s was sent %d times", value, sent)
	}
	if state := e.find(r.Position).State; state != replay.Replayed {
		e.t.Errorf("dead letter %v is %s", r.Position, state)
	}
	s, err := replay.OpenSnapshot(context.Background(), e.topics())
	if err != nil {
		e.t.Fatal(err)
	}
	defer s.Close()
	history, err := s.History(context.Background(), []replay.Position{r.Position})
	if err != nil {
		e.t.Fatal(err)
	}
	if h := history[r.Position]; len(h) != 1 || !h[0].Corrected || !bytes.Equal(h[0].Original, r.DeadLetter.Value) || (h[0].Original == nil) != (r.DeadLetter.Value == nil) {
		e.t.Errorf("the journal has %+v, want %q", h, r.DeadLetter.Value)
	}
}

// TestCorrectedEventIsSentOnce corrects events that have no value, an empty one, and
// one of nearly the largest size, beside dead letters that stay as they are.
func TestCorrectedEventIsSentOnce(t *testing.T) {
	e := newEnv(t)
	e.feed(20)
	for n, original := range [][]byte{nil, {}, []byte("junk"), bytes.Repeat([]byte{0x1b, 0xff}, 499_000)} {
		r := e.deadLetter(schemas.Malformed, original)
		j := e.correct(r, fmt.Sprintf(`{"CallId":"corrected-%d"}`, n))
		if result := e.run(j); result.Completed != 1 {
			t.Errorf("%d sent", result.Completed)
		}
		if result := e.run(j); result.Completed != 0 {
			t.Errorf("%d sent again", result.Completed)
		}
		e.checkCorrected(r, string(j.Correction.Value))
	}
	open := 0
	for _, state := range e.states() {
		if state == replay.Open {
			open++
		}
	}
	if events := len(e.read(inTopic)); events != 4 || open != 20 {
		t.Errorf("%d events were sent and %d dead letters are open, want 4 and 20", events, open)
	}
}

// TestCorrectRefuses: a value that is not an event, or that of another call, is not
// sent.
func TestCorrectRefuses(t *testing.T) {
	e := newEnv(t)
	good := `{"CallId":"c"}`
	for name, c := range map[string]struct {
		reason          schemas.Reason
		original, value string
		want            string // "": accepted
	}{
		"junk":                           {schemas.Malformed, "junk", good, ""},
		"no CallId":                      {schemas.Malformed, `{"callId":"c"}`, good, ""},
		"conflicting CallIds":            {schemas.Malformed, `{"CallId":"b","CallRecord":{"CallId":"c"}}`, good, ""},
		"rejected CallId":                {schemas.Rejected, `{"CallId":"c "}`, good, ""},
		"same call, other fields":        {schemas.NotFound, `{"CallId":"c","EventTime":1}`, good, ""},
		"wrong command":                  {schemas.Malformed, `{"CallbackCommand":"call.callbackafterendcall","CallId":"c"}`, good, ""},
		"still malformed":                {schemas.Malformed, "junk", "junk!", "still malformed: the event is not JSON"},
		"still without CallId":           {schemas.Malformed, "junk", `{"CallID":"c"}`, "still malformed: the event has no CallId"},
		"empty":                          {schemas.Malformed, "junk", "", "still malformed: the event is empty"},
		"unchanged":                      {schemas.NotFound, good, good, "unchanged"},
		"another callback":               {schemas.Malformed, "junk", `{"CallbackCommand":"Call.CallbackAfterCreateCall","CallId":"c"}`, "another type"},
		"another call":                   {schemas.NotFound, `{"CallId":"b"}`, good, `another CallId, "c" instead of "b"`},
		"wrong command and another call": {schemas.Malformed, `{"CallbackCommand":"call.callbackafterendcall","CallId":"b"}`, good, "another CallId"},
	} {
		r := e.deadLetter(c.reason, []byte(c.original))
		correction, err := replay.Correct(r, []byte(c.value))
		switch {
		case c.want == "" && (err != nil || string(correction.Original) != c.original || string(correction.Value) != c.value):
			t.Errorf("%s: %+v, %v", name, correction, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	r := e.deadLetter(schemas.Malformed, []byte("junk"))
	e.run(e.correct(r, good))
	if _, err := replay.Correct(e.find(r.Position), []byte(`{"CallId":"d"}`)); err == nil || err.Error() != "it is replayed" {
		t.Errorf("a second correction: %v", err)
	}
}

// TestCorrectionOfAnotherEvent: the topic is re-created between reading the event and
// sending the corrected one. The event that is there now is left alone.
func TestCorrectionOfAnotherEvent(t *testing.T) {
	e := newEnv(t)
	j := e.correct(e.deadLetter(schemas.Malformed, []byte("junk")), `{"CallId":"c"}`)
	j.Correction.Original = []byte("another")
	result := e.run(j)
	if result.Completed != 0 || result.Plan.Skipped[replay.Uncorrected] != 1 || len(e.read(inTopic)) != 0 {
		t.Errorf("%d completed, %v skipped", result.Completed, result.Plan.Skipped)
	}
}

// TestOneOfTwoCorrectionsIsSent: a second run corrects the same event, in another
// way, just before this correction gets the transactional id, or while a request of
// its transaction is in flight.
func TestOneOfTwoCorrectionsIsSent(t *testing.T) {
	for _, key := range []kmsg.Key{kmsg.InitProducerID, kmsg.Produce, kmsg.EndTxn} {
		t.Run(key.Name(), func(t *testing.T) {
			e := newEnv(t)
			r := e.deadLetter(schemas.Malformed, []byte("junk"))
			first, second := e.correct(r, `{"CallId":"c"}`), e.correct(r, `{"CallId":"d"}`)
			var started atomic.Bool
			e.cluster.ControlKey(int16(key), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
				e.cluster.KeepControl()
				if produce, ok := kreq.(*kmsg.ProduceRequest); ok && produce.TransactionID == nil {
					return nil, nil, false // a run says that it is running
				}
				if !started.Swap(true) {
					e.cluster.SleepControl(func() { e.run(second) })
				}
				return nil, nil, false
			})
			result, err := replay.Run(context.Background(), first, &watch{t: t})
			if key == kmsg.InitProducerID && err != nil || key != kmsg.InitProducerID && !errors.Is(err, replay.ErrFenced) || result.Completed != 0 {
				t.Errorf("%d sent, %v", result.Completed, err)
			}
			if n := len(e.read(inTopic)); n != 1 {
				t.Errorf("%d events were sent", n)
			}
			e.checkCorrected(r, `{"CallId":"d"}`)
		})
	}
}

// TestCorrectionSurvivesKill kills the process at each request of a transaction,
// before and after the broker processes that request, and runs the same correction
// again.
func TestCorrectionSurvivesKill(t *testing.T) {
	e := newEnv(t)
	var (
		mu       sync.Mutex     // guards the variables below
		armed    *childInstance // to be killed
		requests int            // until it is killed
		applied  bool           // the broker processes the last request
	)
	for _, key := range []kmsg.Key{kmsg.InitProducerID, kmsg.Produce, kmsg.EndTxn} {
		e.cluster.ControlKey(int16(key), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
			e.cluster.KeepControl()
			mu.Lock()
			defer mu.Unlock()
			if produce, ok := kreq.(*kmsg.ProduceRequest); ok && produce.TransactionID == nil || armed == nil {
				return nil, nil, false
			}
			if requests--; requests > 0 {
				return nil, nil, false
			}
			armed.kill()
			armed = nil
			if applied {
				return nil, nil, false
			}
			return nil, errors.New("the client was killed"), true
		})
	}
	kills := 0
	for n, killed := 1, true; killed; n++ {
		killed = false
		for _, processed := range []bool{false, true} {
			r := e.deadLetter(schemas.Malformed, fmt.Appendf(nil, "junk %d %v", n, processed))
			value := fmt.Sprintf(`{"CallId":"%d-%v"}`, n, processed)
			j := e.correct(r, value)
			job := childJob{Positions: j.Positions, Correction: j.Correction}
			mu.Lock()
			c := e.spawnJob(job)
			armed, requests, applied = c, n, processed
			mu.Unlock()
			if c.wait(t) {
				killed = true
				kills++
			}
			mu.Lock()
			armed = nil
			mu.Unlock()
			if e.spawnJob(job).wait(t) {
				t.Fatal("the second run was killed")
			}
			e.checkCorrected(r, value)
		}
	}
	t.Logf("%d kills", kills)
	if kills < 6 { // at InitProducerID, at one Produce at least, and at EndTxn
		t.Errorf("only %d kills, too few for this test to show anything", kills)
	}
}
