package fetch_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"enricher/fetch"
	"enricher/fetch/fetchtest"
	"enricher/fetch/lookup"
)

var update = flag.Bool("update", false, "write docs/errors.md")

// effect returns what enricher does on a verdict. The code knows no flags, the
// documents name them.
func effect(v fetch.Verdict) string {
	return strings.NewReplacer("the not-found window", "`--not-found-window`", "the retry window", "`--retry-window`").Replace(v.Effect())
}

// docs/errors.md is generated from the tables of the code, and the statuses in it
// from the responses of a client.
func TestErrorsDocument(t *testing.T) {
	const name = "../docs/errors.md"
	want := errorsDocument(t)
	if *update {
		if err := os.WriteFile(name, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("docs/errors.md differs from the code: run go test ./fetch -run TestErrorsDocument -update")
	}
}

// The README's table of verdicts says what the code says.
func TestREADMEListsVerdicts(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for v := fetch.NotYet; v <= fetch.Unknown; v++ {
		row := regexp.MustCompile("(?m)^\\| `" + v.String() + "` \\| .* \\| " + regexp.QuoteMeta(effect(v)) + " \\|$")
		if !row.Match(readme) {
			t.Errorf("README.md has no row for %v with the effect: %s", v, effect(v))
		}
	}
}

func errorsDocument(t *testing.T) []byte {
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line(`# Errors

Generated from the code: ` + "`go test ./fetch -run TestErrorsDocument -update`" + `. Do not edit.

The API returns HTTP 200 for almost everything; the actual result is the ` + "`ErrorCode`" + ` in the body. Every response has one of seven
verdicts. Verdict and code are labels of the metric ` + "`enricher_api_responses_total`" + `; a dead letter has the code in the header
` + "`enricher.code`" + `, and the meaning in ` + "`enricher.message`" + `.

## Verdicts

| verdict | counts as an attempt | what enricher does |
| --- | --- | --- |`)
	for v := fetch.Found; v <= fetch.Unknown; v++ {
		attempt := "no"
		if v.CountsAsAttempt() {
			attempt = "yes"
		}
		line("| `%v` | %s | %s |", v, attempt, effect(v))
	}
	line(`
## Codes of the API

| code | name | meaning | verdict | source |
| --- | --- | --- | --- | --- |`)
	rows := fetch.Codes()
	slices.SortFunc(rows, func(a, b fetch.CodeRow) int { return a.Code - b.Code })
	var sources []string
	for _, row := range rows {
		if !slices.Contains(sources, row.Source) {
			sources = append(sources, row.Source)
		}
		verdict := fmt.Sprintf("`%v`", row.Verdict)
		switch {
		case row.Resign:
			verdict = fmt.Sprintf("`%v` with a new UserSig; if that is refused, too, %s", fetch.Retry, verdict)
		case row.Lockout > 0:
			verdict += fmt.Sprintf(", without a probe for %v s", row.Lockout.Seconds())
		}
		line("| %d | `%s` | %s | %s | %d |", row.Code, row.Name, row.Meaning, verdict, slices.Index(sources, row.Source)+1)
	}
	line("\nSources:\n")
	for i, s := range sources {
		line("%d. %s", i+1, s)
	}
	line(`
## HTTP statuses

The status decides, whatever the body is: something in front of the API wrote it. The code in the dead letter is the status.

| status | label | verdict | meaning |
| --- | --- | --- | --- |`)
	statuses := statusesByLabel(t)
	var other []string
	for _, l := range fetch.ResponseLabels() {
		if s, ok := statuses[l.Code]; ok {
			line("| %s | `%s` | `%v` | %s |", s, l.Code, l.Verdict, l.Meaning)
		} else if code, _ := strconv.Atoi(l.Code); code == 0 { // not a row of the codes above
			other = append(other, fmt.Sprintf("| `%s` | `%v` | %s |", l.Code, l.Verdict, l.Meaning))
		}
	}
	line(`
## Everything else

| label | verdict | meaning |
| --- | --- | --- |
%s`, strings.Join(other, "\n"))
	return b.Bytes()
}

// statusesByLabel sends a request for each status outside 200–299, and returns
// the ranges of statuses that got each label.
func statusesByLabel(t *testing.T) map[string]string {
	status := 0
	c := newClient(t, fetch.ClientConfig{Transport: fetchtest.Transport(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))})
	type span struct{ first, last int }
	spans := map[string][]span{}
	for status = 100; status < 1000; status++ {
		if status/100 == 2 {
			continue
		}
		l := send(t, c, nil, "id").Label
		if s := spans[l]; len(s) > 0 && s[len(s)-1].last == status-1 {
			s[len(s)-1].last = status
		} else {
			spans[l] = append(s, span{status, status})
		}
	}
	text := map[string]string{}
	for l, all := range spans {
		var parts []string
		if len(all) > 3 {
			parts = []string{fmt.Sprintf("other %d–%d", all[0].first, all[len(all)-1].last)}
		} else {
			for _, s := range all {
				if s.first == s.last {
					parts = append(parts, strconv.Itoa(s.first))
				} else {
					parts = append(parts, fmt.Sprintf("%d–%d", s.first, s.last))
				}
			}
		}
		text[l] = strings.Join(parts, ", ")
	}
	return text
}

// Each response that the document lists has the effect that it promises: a call
// that alone draws it, while other calls are found, ends with a reason which the
// verdict's effect names, and pauses nothing.
func TestResponsesHaveTheDocumentedEffect(t *testing.T) {
	faults := map[string]fetchtest.Fault{
		"0":             {},
		"not_ended":     fetchtest.NotEnded(),
		"no_record":     fetchtest.NoRecord(),
		"wrong_call_id": fetchtest.WrongCallID(),
		"bad_body":      fetchtest.HTML(),
		"other":         fetchtest.Code(424242),
		"network":       fetchtest.Reset(),
		"timeout":       fetchtest.Hang(),
		"http_3xx":      fetchtest.Redirect("/elsewhere"),
		"http_4xx":      fetchtest.Status(http.StatusTeapot),
		"http_5xx":      fetchtest.BadGateway(),
		"http_other":    fetchtest.Status(999),
	}
	seen := map[fetch.Verdict]map[string]bool{}
	for _, l := range fetch.ResponseLabels() {
		if l.Code == "cancelled" || l.Code == "no_signature" { // the process ends; nothing known makes signing fail
			continue
		}
		fault, ok := faults[l.Code]
		if status, isStatus := strings.CutPrefix(l.Code, "http_"); isStatus && !ok {
			n, _ := strconv.Atoi(status)
			fault, ok = fetchtest.Status(n), true
		}
		if code, _ := strconv.Atoi(l.Code); code != 0 {
			fault, ok = fetchtest.Code(code), true
		}
		if !ok {
			t.Errorf("no fault draws the label %s", l.Code)
		}
		if seen[l.Verdict] == nil {
			seen[l.Verdict] = map[string]bool{}
		}
		ages := []time.Duration{0}
		if l.Verdict == fetch.NotYet {
			ages = append(ages, 8*24*time.Hour)
		}
		for _, age := range ages {
			t.Run(fmt.Sprintf("%s %v %v", l.Code, l.Verdict, age), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					times := 500
					if l.Verdict == fetch.Throttled {
						times = 3 // it never ends in a dead letter: the record comes then
					}
					first, reason, pauses := soleBadCall(t, slices.Repeat([]fetchtest.Fault{fault}, times), age)
					if first.Label != l.Code || !slices.Contains([]fetch.Verdict{first.Verdict, final(first)}, l.Verdict) {
						t.Fatalf("verdict %v with label %s", first.Verdict, first.Label)
					}
					promise := final(first).Effect()
					if (reason != "") != strings.Contains(promise, "dead-letter") || !strings.Contains(promise, reason) {
						t.Errorf("ended with %q, but the effect is: %s", reason, promise)
					}
					if len(pauses) > 0 {
						t.Errorf("lookups were paused for %v, though other calls succeed", pauses)
					}
					seen[final(first)][reason] = true
				})
			})
		}
	}
	for v, reasons := range seen {
		for _, m := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(v.Effect(), -1) {
			if !reasons[m[1]] {
				t.Errorf("no response with the verdict %v ended with %s, only with %v", v, m[1], slices.Sorted(maps.Keys(reasons)))
			}
		}
	}
}

// final returns the verdict that a call gets if all its responses are like r.
func final(r fetch.Response) fetch.Verdict {
	for _, row := range fetch.Codes() {
		if row.Code == r.Code && row.Resign {
			return row.Verdict
		}
	}
	return r.Verdict
}

// soleBadCall looks up one call, to whose requests the API responds with the
// faults, and meanwhile others that are found. It returns the first response to
// that call, the reason of its dead letter ("": enriched), and why lookups were
// paused.
func soleBadCall(t *testing.T, faults []fetchtest.Fault, age time.Duration) (first fetch.Response, reason string, pauses map[string]bool) {
	const bad = "bad"
	api := fetchtest.New(fetchtest.Config{})
	recorder := &firstResponse{Client: newClient(t, fetch.ClientConfig{Transport: fetchtest.Transport(api)}), callID: bad}
	core, logs := observer.New(zap.WarnLevel)
	s := lookup.NewScheduler(lookup.Config{
		API: recorder, Lease: valid{}, Limiter: lookup.NewLimiter(false), Cache: lookup.NewCache(0, 0, 0),
		Retry:       lookup.RetryPolicy{NotFoundWindow: time.Minute, RetryWindow: time.Minute},
		Concurrency: 16, Metrics: lookup.NewMetrics(prometheus.NewRegistry()), Log: zap.New(core),
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go s.Run(ctx)
	api.Script(bad, faults...)
	s.Add([]*lookup.Event{{CallID: bad, Time: time.Now().Add(-age)}})
	for n := range 20 * 60 {
		<-time.After(time.Second)
		for _, o := range s.Outcomes().Take() {
			if o.Event.CallID != bad {
				if o.Failure != nil {
					t.Fatalf("%s: %+v", o.Event.CallID, o.Failure)
				}
				continue
			}
			if o.Failure != nil {
				reason = string(o.Failure.Reason)
			}
			pauses = map[string]bool{}
			for _, e := range logs.FilterMessage("lookups paused").All() {
				pauses[fmt.Sprint(e.ContextMap()["reason"])] = true
			}
			return *recorder.first.Load(), reason, pauses
		}
		s.Add([]*lookup.Event{{CallID: "good-" + strconv.Itoa(n), Time: time.Now()}})
	}
	t.Fatal("the bad call has no outcome after 20 minutes")
	return first, "", nil
}

// firstResponse is a client that records its first response to a call.
type firstResponse struct {
	*fetch.Client
	callID string
	first  atomic.Pointer[fetch.Response]
}

func (f *firstResponse) Lookup(ctx context.Context, callID string, o fetch.Observer) fetch.Response {
	r := f.Client.Lookup(ctx, callID, o)
	if callID == f.callID {
		f.first.CompareAndSwap(nil, &r)
	}
	return r
}

type valid struct{}

func (valid) Valid(time.Time) bool { return true }
