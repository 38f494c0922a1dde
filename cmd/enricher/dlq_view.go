package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"enricher/producer/replay"
)

// dlqView shows how a replay goes: a bar on a terminal, a line every few seconds
// elsewhere.
type dlqView struct {
	w        io.Writer
	job      *replay.Job
	terminal bool
	started  time.Time // when the plan was known
	said     time.Time

	total int
	done  int
}

// Between two updates.
const (
	barEvery  = 200 * time.Millisecond
	lineEvery = 5 * time.Second
)

func newDlqView(w io.Writer, j *replay.Job) *dlqView {
	f, ok := w.(*os.File)
	now := time.Now()
	return &dlqView{w: w, job: j, terminal: ok && term.IsTerminal(int(f.Fd())), started: now, said: now}
}

// Planned implements replay.Observer.
func (v *dlqView) Planned(p *replay.Plan) {
	printPlan(v.w, v.job, p, "to be")
	v.total = p.DeadLetters
	v.started = time.Now()
	v.said = v.started
}

// Committed implements replay.Observer.
func (v *dlqView) Committed(letters int) {
	v.done = letters
	every := lineEvery
	if v.terminal {
		every = barEvery
	}
	if now := time.Now(); now.Sub(v.said) >= every {
		v.said = now
		v.say()
	}
}

// Retrying implements replay.Observer.
func (v *dlqView) Retrying(err error) {
	v.clear()
	_, _ = fmt.Fprintf(v.w, "starting over from the journal: %v\n", err)
}

func (v *dlqView) say() {
	text := progress(v.done, v.total, time.Since(v.started))
	if v.terminal {
		_, _ = fmt.Fprintf(v.w, "\r\x1b[K%s %s", bar(v.done, v.total), text)
		return
	}
	_, _ = fmt.Fprintln(v.w, text)
}

// clear takes the bar away.
func (v *dlqView) clear() {
	if v.terminal {
		_, _ = fmt.Fprint(v.w, "\r\x1b[K")
	}
}

func (v *dlqView) since() time.Duration { return time.Since(v.started).Round(100 * time.Millisecond) }

// progress says how far it is, how fast, and how long it will take.
func progress(done, total int, elapsed time.Duration) string {
	rate := float64(done) / max(elapsed.Seconds(), 0.001)
	text := fmt.Sprintf("%d of %d letters · %.1f a second", done, total, rate)
	if rate > 0 && total > done {
		text += fmt.Sprintf(" · %v left", time.Duration(float64(total-done)/rate*float64(time.Second)).Round(time.Second))
	}
	return text
}

// bar is 30 characters wide.
func bar(done, total int) string {
	const width = 30
	full := width
	if total > 0 {
		full = min(width, done*width/total)
	}
	return "[" + strings.Repeat("█", full) + strings.Repeat("·", width-full) + "]"
}
