// Package readers_test has Kafka clients that others have written produce events and
// read what enricher makes of them, on a real Kafka and with packages from PyPI and
// npm: set KAFKA_TESTS=1.
package readers_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"enricher/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m, nil) }

// readTimeout is for one client to read all topics, and to be installed the first time.
const readTimeout = 5 * time.Minute

// TestKafkaOtherClients has confluent-kafka produce events in each compression, also
// in transactions, one of which is aborted. Enricher writes their outcomes in each
// compression, and another producer aborts a transaction in the same topics. Then each
// client reads them: all that is committed, with every key, value and header, and what
// was aborted only if that is the client's default.
func TestKafkaOtherClients(t *testing.T) {
	b := harness.SharedKafka(t)
	outputs := writeOutputs(t, b)
	committed := "read_committed"
	var reads []read
	var topics []output
	for _, o := range outputs {
		reads = append(reads, read{o.topic, &committed})
		topics = append(topics, o)
		if len(o.aborted) > 0 {
			reads = append(reads, read{o.topic, nil})
			topics = append(topics, o)
		}
	}
	for _, c := range clients() {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), readTimeout)
			defer cancel()
			version, results, err := c.run(ctx, strings.Join(b.Addrs, ","), reads)
			if errors.Is(err, errMissing) {
				t.Skipf("%s is not tested: %v", c.name, err)
			} else if err != nil {
				t.Fatal(err)
			}
			byDefault := "read_committed"
			if c.uncommitted {
				byDefault = "read_uncommitted"
			}
			summary := fmt.Sprintf("%s %s: default %s, as expected", c.name, version, byDefault)
			for i, r := range results {
				want := topics[i].committed
				if c.phantoms || reads[i].Isolation == nil && c.uncommitted {
					want = slices.Concat(want, topics[i].aborted)
				}
				if c.phantoms {
					all := len(r.records)
					if r.records = slices.DeleteFunc(r.records, isMarker); len(r.records) == all {
						t.Errorf("%s: returns no transaction markers, which the contract says it does", topics[i].topic)
					}
				}
				if readable := topics[i].codec == "none" || topics[i].codec == "gzip" || slices.Contains(c.codecs, topics[i].codec); !readable {
					if r.err == "" {
						t.Errorf("reads %s, which the contract says it does not", topics[i].codec)
					}
					summary += fmt.Sprintf("; %s: %.60s", topics[i].codec, r.err)
					continue
				}
				if r.err != "" {
					t.Errorf("%s: %s", topics[i].topic, r.err)
				}
				if c.emptyAsNull {
					want = withEmptyAsNull(want)
				}
				compare(t, topics[i].topic, r.records, want)
				if reads[i].Isolation != nil {
					summary += fmt.Sprintf("; %s of %s: %d records", topics[i].codec, topics[i].what, len(r.records))
				}
			}
			if !t.Failed() {
				t.Log(summary)
			}
		})
	}
}

// isMarker reports whether a record is a transaction marker: an end, aborted or
// committed, of version 0.
func isMarker(record string) bool {
	return strings.Contains(record, ` "\x00\x00\x00\x00": "\x00`) || strings.Contains(record, ` "\x00\x00\x00\x01": "\x00`)
}

// withEmptyAsNull returns records as a client returns them that does not distinguish
// the two.
func withEmptyAsNull(records []string) []string {
	records = slices.Clone(records)
	for i, r := range records {
		records[i] = strings.ReplaceAll(r, `""`, "null")
	}
	return records
}

// compare compares the records that a client returned with those that it must return.
func compare(t *testing.T, topic string, got, want []string) {
	t.Helper()
	got, want = slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
	if slices.Equal(got, want) {
		return
	}
	t.Errorf("%s: %d records, want %d", topic, len(got), len(want))
	shown := 0
	for _, r := range append(got, want...) {
		if shown < 10 && slices.Contains(got, r) != slices.Contains(want, r) {
			t.Logf("returned: %v, expected: %v: %.500s", slices.Contains(got, r), slices.Contains(want, r), r)
			shown++
		}
	}
}

// TestAsyncAPI checks the AsyncAPI document with AsyncAPI's own parser.
func TestAsyncAPI(t *testing.T) {
	harness.WantKafka(t)
	ctx, cancel := context.WithTimeout(t.Context(), readTimeout)
	defer cancel()
	dir, err := installNode(ctx)
	if errors.Is(err, errMissing) {
		t.Skipf("the AsyncAPI document is not checked: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	out, err := runWith(nodeCommand(ctx, dir, "asyncapi.js", "../../schemas/asyncapi.yaml"), nil)
	if err != nil || strings.Contains(string(out), "error: ") {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, message := range []string{"event", "enriched", "deadLetter"} {
		if !strings.Contains(string(out), "message: "+message+"\n") {
			t.Errorf("there is no message %s:\n%s", message, out)
		}
	}
}
