package demo

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"enricher/cmd/enricher/internal/terminal"
	"enricher/fetch/fetchtest"
	"enricher/producer"
	"enricher/schemas"
)

// cancelled and answered are two calls as the API has them.
var (
	cancelled = schemas.CallRecord{CallID: "call-cancelled", Caller: "a", Callees: []string{"b"}, MediaType: "Audio", CallType: "SingleCall", Start: 1764000000, End: 1764000001, Result: "Cancel"}
	answered  = schemas.CallRecord{CallID: "call-answered", Caller: "a", Callees: []string{"b"}, MediaType: "Video", CallType: "SingleCall", Start: 1764000000, Accept: 1764000007, End: 1764000067, Result: "NormalEnd"}
)

func enrichedRecord(r *schemas.CallRecord) *kgo.Record {
	return &kgo.Record{Value: schemas.Enrich(r).Encode()}
}

func TestFirstSampleIsAnAnsweredCall(t *testing.T) {
	var out bytes.Buffer
	v := newView(terminal.NewWriter(&out), 10)
	v.see(enrichedRecord(&cancelled))
	if out.Len() > 0 {
		t.Errorf("before an answered call: %s", &out)
	}
	v.see(enrichedRecord(&answered))
	if got := out.String(); !strings.Contains(got, `"talk_seconds":60`) {
		t.Errorf("an answered call is shown as %s", got)
	}
	out.Reset()
	v.see(enrichedRecord(&cancelled))
	if got, want := out.String(), "  enriched     Audio SingleCall Cancel: ring 1s, talk 0s; call-cancelled\n"; got != want {
		t.Errorf("a cancelled call is shown as %s, want %s", got, want)
	}
	out.Reset()
	v.see(enrichedRecord(&cancelled))
	v.see(enrichedRecord(&answered))
	if out.Len() > 0 {
		t.Errorf("a kind that was shown before: %s", &out)
	}
	if v.outcomes() != 5 {
		t.Errorf("%d outcomes counted, want 5", v.outcomes())
	}
}

func TestSamplesAreVaried(t *testing.T) {
	var out bytes.Buffer
	v := newView(terminal.NewWriter(&out), 1000)
	for i := range 1000 {
		r := fetchtest.RecordFor(1, strconv.Itoa(i))
		v.see(enrichedRecord(&r))
	}
	for _, want := range []string{`"talk_seconds":`, "MultiCall NormalEnd", " Cancel:", " Reject:", " NotAnswer:", " CallBusy:"} {
		if strings.Count(out.String(), want) != 1 {
			t.Errorf("%q is not in one sample of\n%s", want, &out)
		}
	}
}

func TestSamplesFitTheTerminal(t *testing.T) {
	long := answered
	long.CallID = strings.Repeat("x", 60)
	multi := long
	multi.CallType = "MultiCall"
	dead := (&producer.RecordBuilder{DeadLetterTopic: "dead"}).DeadLetter(&kgo.Record{Topic: "call-ended"},
		&schemas.Failure{Reason: schemas.Malformed, Message: strings.Repeat("wrong ", 30)})
	records := []*kgo.Record{enrichedRecord(&long), enrichedRecord(&multi), dead}
	for _, width := range []int{40, 80, 132} {
		t.Run(fmt.Sprint(width), func(t *testing.T) {
			var out bytes.Buffer
			w := terminal.NewTerminal(&out, func() int { return width })
			v := newView(w, 10)
			for _, r := range records {
				v.see(r)
			}
			lines := strings.Split(strings.TrimSpace(strings.ReplaceAll(out.String(), "\r\x1b[K", "")), "\n")
			if len(lines) < len(records) {
				t.Errorf("%d lines for %d records", len(lines), len(records))
			}
			for _, line := range lines {
				if n := len([]rune(line)); n > width {
					t.Errorf("%d columns: %s", n, line)
				}
			}
		})
	}
}
