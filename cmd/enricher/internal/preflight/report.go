package preflight

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

// Status is how one check came out.
type Status string

// The values of Status.
const (
	OK      Status = "ok"
	Skipped Status = "skipped" // not looked at; the finding says why
	Warning Status = "warning" // the service runs, but not as well or as safely as it could
	Fatal   Status = "fatal"   // the service cannot do its work
)

// Finding is what one check found.
type Finding struct {
	// Check is one of a closed set of names: checks.
	Check string `json:"check"`
	// Subject is what was looked at: a topic, a broker's address, …
	Subject string `json:"subject"`
	Status  Status `json:"status"`
	// Found says in words what is there.
	Found string `json:"found"`
	// Remedy is what to do about it; absent when there is nothing to do.
	Remedy string `json:"remedy,omitempty"`
}

// Report is all findings, in the order in which they were made. As JSON its
// fields and the names of checks and statuses stay; the words may change.
type Report struct {
	Fatal    int       `json:"fatal"`
	Warnings int       `json:"warnings"`
	Skipped  int       `json:"skipped"`
	Checks   []Finding `json:"checks"`
}

func (r *Report) add(check, subject string, s Status, found, remedy string) {
	r.Checks = append(r.Checks, Finding{check, subject, s, found, remedy})
	switch s {
	case Fatal:
		r.Fatal++
	case Warning:
		r.Warnings++
	case Skipped:
		r.Skipped++
	}
}

func (r *Report) ok(check, subject, format string, args ...any) {
	r.add(check, subject, OK, fmt.Sprintf(format, args...), "")
}

func (r *Report) skip(check, subject, format string, args ...any) {
	r.add(check, subject, Skipped, "not looked at: "+fmt.Sprintf(format, args...), "")
}

// untold is for a setting that a broker of this kind or version does not know.
func (r *Report) untold(check, subject string) {
	r.add(check, subject, Skipped, "the broker does not tell", "")
}

// JSON writes the report for a program.
func (r *Report) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false) // it is for a terminal, too
	return e.Encode(r)
}

// Text writes the report for a person: a line for each finding, and under it
// what to do.
func (r *Report) Text(w io.Writer) error {
	var b strings.Builder
	ok := 0
	for _, f := range r.Checks {
		fmt.Fprintf(&b, "%-8s %s %s: %s\n", f.Status, strings.ReplaceAll(f.Check, "_", " "), f.Subject, f.Found)
		if f.Remedy != "" {
			fmt.Fprintf(&b, "         → %s\n", f.Remedy)
		}
		if f.Status == OK {
			ok++
		}
	}
	fmt.Fprintf(&b, "\n%d fatal, %s, %d ok", r.Fatal, count(r.Warnings, "warning"), ok)
	if r.Skipped > 0 {
		fmt.Fprintf(&b, ", %d not looked at", r.Skipped)
	}
	b.WriteByte('\n')
	_, err := io.WriteString(w, b.String())
	return err
}

// count is a number with its noun.
func count[N int | int64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// span is a duration for people: days where it is long, else hours to seconds.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= 2*day {
		return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(d)/float64(day)), ".0") + " days"
	}
	return d.Round(time.Second).String()
}
