package dlqcmd

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"enricher/cmd/enricher/internal/terminal"
	"enricher/producer/replay"
)

// progress shows how far a replay is: a bar on a terminal, a line every few
// seconds elsewhere.
type progress struct {
	w       io.Writer // of the plan
	out     *terminal.Writer
	job     *replay.Job
	started time.Time // when the plan was known
	shown   time.Time

	total   int
	done    int
	refused int
}

// The intervals between two updates.
const (
	barEvery  = 200 * time.Millisecond
	lineEvery = 5 * time.Second
)

func newProgress(w io.Writer, j *replay.Job) *progress {
	now := time.Now()
	return &progress{w: w, out: terminal.NewWriter(w), job: j, started: now, shown: now}
}

// Planned implements replay.Observer.
func (p *progress) Planned(plan *replay.Plan) {
	printPlan(p.w, p.job, plan, "to be")
	p.total = plan.DeadLetters
	p.started = time.Now()
	p.shown = p.started
}

// Committed implements replay.Observer.
func (p *progress) Committed(done int) {
	p.done = done
	every := lineEvery
	if p.out.IsTerminal() {
		every = barEvery
	}
	if now := time.Now(); now.Sub(p.shown) >= every {
		p.shown = now
		p.show()
	}
}

// maxNamed is the number of refused dead letters that are named one by one.
const maxNamed = 20

// Refused implements replay.Observer.
func (p *progress) Refused(pos replay.Position, err error) {
	switch p.refused++; {
	case p.refused <= maxNamed:
		p.out.Print("left open: %v, refused: %v", pos, err)
	case p.refused == maxNamed+1:
		p.out.Print("further dead letters that are refused are only counted")
	}
}

// Waiting implements replay.Observer.
func (p *progress) Waiting(other replay.Running) {
	p.out.Print("found %s, which did not say that it ended; waiting to see whether it is running", terminal.Printable(other.String(), 0))
}

// Retrying implements replay.Observer.
func (p *progress) Retrying(err error) {
	p.out.Print("starting over from the journal: %v", err)
}

func (p *progress) show() {
	text := progressText(p.done, p.total, p.elapsed())
	if p.out.IsTerminal() {
		// The figures come first when there is no room for both.
		if withBar := bar(p.done, p.total) + " " + text; utf8.RuneCountInString(withBar) < p.out.Width() {
			text = withBar
		}
	}
	p.out.Status("%s", text)
}

func (p *progress) elapsed() time.Duration { return time.Since(p.started) }

// progressText returns how far a replay is, how fast, and how long it will still
// take.
func progressText(done, total int, elapsed time.Duration) string {
	rate := float64(done) / max(elapsed.Seconds(), 0.001)
	text := fmt.Sprintf("%d of %s · %.1f/s", done, count(total), rate)
	if rate > 0 && total > done {
		text += fmt.Sprintf(" · %v left", time.Duration(float64(total-done)/rate*float64(time.Second)).Round(time.Second))
	}
	return text
}

// bar returns a bar of 30 characters.
func bar(done, total int) string {
	const width = 30
	full := width
	if total > 0 {
		full = min(width, done*width/total)
	}
	return "[" + strings.Repeat("█", full) + strings.Repeat("·", width-full) + "]"
}
