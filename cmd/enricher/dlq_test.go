package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/producer"
	"enricher/producer/replay"
	"enricher/schemas"
	"enricher/test/oracle"
)

// letters produces what a file describes, a record a line.
func letters(ts *testscript.TestScript, _ bool, args []string) {
	cl, err := kgo.NewClient(brokers(ts), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	ts.Check(err)
	defer cl.Close()
	outputs := producer.Outputs{DeadLetterTopic: "call-dead-letters"}
	for i, text := range strings.Split(strings.TrimSpace(ts.ReadFile(args[0])), "\n") {
		var l struct {
			Partition int32
			Written   time.Time
			Foreign   bool
			Omitted   bool
			Topic     string
			Key       *string
			Value     *string
			Headers   map[string]string
			Reason    schemas.Reason
			Code      int
			Message   string
			Attempts  int
		}
		ts.Check(json.Unmarshal([]byte(text), &l))
		event := &kgo.Record{Topic: l.Topic, Partition: l.Partition, Offset: int64(100 + i), Timestamp: l.Written.Add(-2 * time.Minute)}
		if l.Key != nil {
			event.Key = []byte(*l.Key)
		}
		if l.Value != nil {
			event.Value = []byte(*l.Value)
		}
		for _, name := range slices.Sorted(maps.Keys(l.Headers)) {
			event.Headers = append(event.Headers, kgo.RecordHeader{Key: name, Value: []byte(l.Headers[name])})
		}
		f := &producer.Failure{Reason: l.Reason, Code: l.Code, Message: l.Message, Attempts: l.Attempts}
		if l.Attempts > 0 {
			f.First, f.Last = l.Written.Add(-time.Minute), l.Written
		}
		r := outputs.DeadLetter(event, f)
		if l.Omitted {
			r = outputs.Coordinates(event, f)
		}
		if l.Foreign {
			r = &kgo.Record{Topic: "call-dead-letters", Key: event.Key, Value: event.Value}
		}
		r.Partition, r.Timestamp = l.Partition, l.Written
		ts.Check(cl.ProduceSync(context.Background(), r).FirstErr())
	}
}

// records prints the records of a topic by value; ! records: there is no such topic.
func records(ts *testscript.TestScript, none bool, args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	records, err := oracle.Read(ctx, []kgo.Opt{brokers(ts)}, args[0])
	if none {
		if !errors.Is(err, kerr.UnknownTopicOrPartition) {
			ts.Fatalf("topic %s: %d records, %v", args[0], len(records), err)
		}
		return
	}
	ts.Check(err)
	slices.SortStableFunc(records, func(a, b *kgo.Record) int { return bytes.Compare(a.Value, b.Value) })
	for _, r := range records {
		_, _ = fmt.Fprintf(ts.Stdout(), "%s %s", printable(string(r.Key), 0), printable(string(r.Value), 0))
		for _, h := range r.Headers {
			_, _ = fmt.Fprintf(ts.Stdout(), " %s=%s", h.Key, h.Value)
		}
		_, _ = fmt.Fprintln(ts.Stdout())
	}
}

// manyLetters produces N letters of healthy events.
func manyLetters(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	cl, err := kgo.NewClient(brokers(ts))
	ts.Check(err)
	defer cl.Close()
	outputs := producer.Outputs{DeadLetterTopic: "call-dead-letters"}
	for i := range n {
		event := &kgo.Record{Topic: "call-ended", Offset: int64(i), Timestamp: time.Now(), Value: fmt.Appendf(nil, `{"CallId":"many-%d"}`, i)}
		ts.Check(cl.ProduceSync(context.Background(), outputs.DeadLetter(event, &producer.Failure{Reason: schemas.NotFound, Code: 101050})).FirstErr())
	}
}

// TestDlqView: a bar on a terminal, lines elsewhere, with rate and time left.
func TestDlqView(t *testing.T) {
	var out bytes.Buffer
	v := newDlqView(&out, &replay.Job{Action: replay.Replayed, Rate: 20})
	v.Planned(&replay.Plan{DeadLetters: 1000, Reasons: map[schemas.Reason]int{schemas.NotFound: 1000}, To: map[string]int{"calls": 1000}, Skipped: map[replay.SkipReason]int{replay.TooOld: 3}})
	want := "1000 letters to be replayed\n      1000  not_found\n      1000  to topic calls\n" +
		"left open: 3 letters, older than the API's retention (--include-expired takes them along)\nabout 50s at 20 letters a second\n"
	if out.String() != want {
		t.Errorf("the plan is\n%swant\n%s", &out, want)
	}
	out.Reset()
	v.Committed(10)
	if out.Len() > 0 {
		t.Errorf("after no time: %q", &out)
	}
	v.started, v.said = v.started.Add(-10*time.Second), v.said.Add(-10*time.Second)
	v.Committed(200)
	if got := out.String(); got != "200 of 1000 letters · 20.0 a second · 40s left\n" {
		t.Errorf("line %q", got)
	}
	out.Reset()
	v.terminal, v.said = true, v.said.Add(-time.Second)
	v.Committed(500)
	if got := out.String(); got != "\r\x1b[K["+strings.Repeat("█", 15)+strings.Repeat("·", 15)+"] 500 of 1000 letters · 50.0 a second · 10s left" {
		t.Errorf("bar %q", got)
	}
}

// TestPrintable: nothing that others wrote reaches a terminal as a command.
func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"café 通话": "café 通话", "a\x1b[2Jb": `"a\x1b[2Jb"`, "a\nb": `"a\nb"`, "\xff": `"\xff"`, "": "",
	} {
		if got := printable(in, 0); got != want {
			t.Errorf("printable(%q) = %s, want %s", in, got, want)
		}
	}
	if got := printable("abcdef", 4); got != "abc…" {
		t.Error(got)
	}
	if got := readable([]byte("{\"a\":\"\u202e\"}")); !strings.Contains(got, "|") {
		t.Errorf("direction marks pass as text: %q", got)
	}
}

// topic creates a topic, with configuration: NAME [KEY=VALUE…].
func topic(ts *testscript.TestScript, _ bool, args []string) {
	cl, err := kgo.NewClient(brokers(ts))
	ts.Check(err)
	defer cl.Close()
	config := map[string]*string{}
	for _, c := range args[1:] {
		key, value, _ := strings.Cut(c, "=")
		config[key] = &value
	}
	_, err = kadm.NewClient(cl).CreateTopic(context.Background(), 1, 1, config, args[0])
	ts.Check(err)
}

// awaitJournal waits until the journal has N markers more than now.
func awaitJournal(ts *testscript.TestScript, _ bool, args []string) {
	more, err := strconv.Atoi(args[0])
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for first := -1; ; {
		records, err := oracle.Read(ctx, []kgo.Opt{brokers(ts)}, "call-dead-letters-journal")
		if !errors.Is(err, kerr.UnknownTopicOrPartition) {
			ts.Check(err)
		}
		if first < 0 {
			first = len(records)
		}
		if len(records) >= first+more {
			return
		}
		<-time.After(20 * time.Millisecond)
	}
}

func TestParseInstant(t *testing.T) {
	now := time.Now()
	for in, want := range map[string]time.Time{
		"2026-01-31T15:04:05Z":      time.Date(2026, 1, 31, 15, 4, 5, 0, time.UTC),
		"2026-01-31T15:04:05+08:00": time.Date(2026, 1, 31, 7, 4, 5, 0, time.UTC),
		"2026-01-31":                time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC),
		"90m":                       now.Add(-90 * time.Minute),
		"3d":                        now.Add(-72 * time.Hour),
	} {
		got, err := parseInstant(in)
		if d := got.Sub(want); err != nil || d < 0 || d > time.Minute {
			t.Errorf("%s is %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "yesterday", "-1h", "-3d", "3 d", "2026-13-01", "99999999d"} {
		if got, err := parseInstant(in); err == nil {
			t.Errorf("%q is %v, want an error", in, got)
		}
	}
}
