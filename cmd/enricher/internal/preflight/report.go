package preflight

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

// Status is the result of one check.
type Status string

// The values of Status.
const (
	OK      Status = "ok"
	Skipped Status = "skipped" // not checked; the finding says why
	Warning Status = "warning" // the service runs, but not as well or as safely as it could
	Fatal   Status = "fatal"   // the service cannot run
)

// Finding is what a check found.
type Finding struct {
	// Check is the name of the check, from a closed set.
	Check string `json:"check"`
	// Subject is what was checked: a topic, a broker's address, …
	Subject string `json:"subject"`
	Status  Status `json:"status"`
	// Found describes what was found.
	Found string `json:"found"`
	// Remedy says what to do about it; it is absent when there is nothing to do.
	Remedy string `json:"remedy,omitempty"`
}

// Report lists all findings, in the order in which they were made. In its JSON form
// the fields and the names of checks and statuses are stable; texts may change.
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
	r.add(check, subject, Skipped, fmt.Sprintf(format, args...), "")
}

// notReported adds a setting that a broker of this kind or version does not know.
func (r *Report) notReported(check, subject string) {
	r.add(check, subject, Skipped, "not reported by the broker", "")
}

// JSON writes the report as JSON.
func (r *Report) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false) // it is for a terminal, too
	return e.Encode(r)
}

// Text writes the report for people: one line per finding, and below it what to
// do.
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
		fmt.Fprintf(&b, ", %d skipped", r.Skipped)
	}
	b.WriteByte('\n')
	_, err := io.WriteString(w, b.String())
	return err
}

// count returns a number with its noun.
func count[N int | int64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// formatDuration formats a duration for people: in days if it is long, otherwise in
// hours, minutes and seconds.
func formatDuration(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= 2*day {
		return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(d)/float64(day)), ".0") + " days"
	}
	return d.Round(time.Second).String()
}
