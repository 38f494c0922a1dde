package dlqcmd

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"enricher/cmd/enricher/internal/terminal"
	"enricher/producer/replay"
	"enricher/schemas"
)

// startProgress returns the progress of a replay of 1,000 dead letters that began
// ten seconds ago, and what it prints.
func startProgress() (*progress, *bytes.Buffer) {
	var out bytes.Buffer
	p := newProgress(&out, &replay.Job{Action: replay.Replayed, Rate: 20})
	p.Planned(&replay.Plan{
		DeadLetters: 1000,
		Reasons:     map[schemas.Reason]int{schemas.NotFound: 1000},
		To:          map[string]int{"calls": 1000},
		Skipped:     map[replay.SkipReason]int{replay.TooOld: 3},
	})
	p.started, p.shown = p.started.Add(-10*time.Second), p.shown.Add(-10*time.Second)
	return p, &out
}

func TestReplayStartsWithPlan(t *testing.T) {
	_, out := startProgress()
	want := "1000 dead letters to be replayed\n      1000  not_found\n      1000  to topic calls\n" +
		"left open: 3 dead letters, older than the API's retention (use --include-expired to replay them)\nabout 50s at 20 dead letters per second\n"
	if out.String() != want {
		t.Errorf("the plan is\n%swant\n%s", out, want)
	}
}

func TestProgressIsPrintedAtIntervals(t *testing.T) {
	p, out := startProgress()
	out.Reset()
	p.Committed(200)
	if got := out.String(); got != "200 of 1000 dead letters · 20.0/s · 40s left\n" {
		t.Errorf("line %q", got)
	}
	out.Reset()
	p.Committed(210)
	if out.Len() > 0 {
		t.Errorf("too early: %q", out)
	}
}

func TestProgressIsABarOnATerminal(t *testing.T) {
	p, out := startProgress()
	out.Reset()
	p.out = terminal.NewTerminal(out, func() int { return 100 })
	p.Committed(500)
	want := "\r\x1b[K[" + strings.Repeat("█", 15) + strings.Repeat("·", 15) + "] 500 of 1000 dead letters · 50.0/s · 10s left"
	if got := out.String(); got != want {
		t.Errorf("bar %q", got)
	}
}

// TestProgressFitsTheTerminal: a line that is as wide as the terminal would wrap, and
// every redraw would leave one behind.
func TestProgressFitsTheTerminal(t *testing.T) {
	for width := 10; width < 120; width++ {
		p, out := startProgress()
		out.Reset()
		p.out = terminal.NewTerminal(out, func() int { return width })
		p.Committed(500)
		text := strings.TrimPrefix(out.String(), "\r\x1b[K")
		if n := utf8.RuneCountInString(text); n >= width {
			t.Errorf("%d columns on a terminal of %d: %q", n, width, text)
		}
		if !strings.Contains(text, "500 of 10"[:min(9, width-2)]) {
			t.Errorf("no figures on a terminal of %d: %q", width, text)
		}
	}
}

// TestRefusedDeadLettersAreNamed names the first ones and counts the others.
func TestRefusedDeadLettersAreNamed(t *testing.T) {
	p, out := startProgress()
	out.Reset()
	for n := range 50 {
		p.Refused(replay.Position{Partition: 2, Offset: int64(n)}, errors.New("topic \"calls\": INVALID_RECORD"))
	}
	if got := out.String(); !strings.HasPrefix(got, "left open: 2:0, refused: topic \"calls\": INVALID_RECORD\n") || strings.Count(got, "\n") != maxNamed+1 {
		t.Errorf("printed\n%s", got)
	}
}

func TestTableFitsTheTerminal(t *testing.T) {
	var out bytes.Buffer
	table{&out, 20}.row("%-10s %s", "0:17", "a message that is too long for it")
	if got := out.String(); utf8.RuneCountInString(strings.TrimSuffix(got, "\n")) != 20 {
		t.Errorf("printed %q", got)
	}
}

func TestShowWritesOnlyTextToTheTerminal(t *testing.T) {
	for name, value := range map[string]string{
		"a direction mark in JSON": "{\"a\":\"\u202e\"}",
		"an escape sequence":       "\x1b[2J",
	} {
		if got := readable([]byte(value)); !strings.Contains(got, "|") {
			t.Errorf("%s is printed as text: %q", name, got)
		}
	}
}
