// Package terminal writes the output of commands that keep a person informed:
// lines that fit the terminal, a status line that is kept up to date, and text
// of others that must not act on the terminal.
package terminal

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"
)

// defaultWidth is the width of an output that is not a terminal.
const defaultWidth = 80

// Writer prints lines above a status line. On a terminal it redraws the status
// line in place; elsewhere it prints each status as a line. A Writer may be used
// by several goroutines.
type Writer struct {
	w     io.Writer
	width func() int // nil if w is not a terminal

	mu     sync.Mutex
	status string // as shown on the terminal
}

// NewWriter returns a Writer to w and finds out whether w is a terminal.
func NewWriter(w io.Writer) *Writer {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return &Writer{w: w}
	}
	return NewTerminal(w, func() int {
		width, _, err := term.GetSize(int(f.Fd()))
		if err != nil || width <= 0 {
			return defaultWidth
		}
		return width
	})
}

// NewTerminal returns a Writer to a terminal with a number of columns.
func NewTerminal(w io.Writer, width func() int) *Writer { return &Writer{w: w, width: width} }

// IsTerminal reports whether the output is a terminal.
func (w *Writer) IsTerminal() bool { return w.width != nil }

// Width returns the number of columns, which is 80 if the output is not a
// terminal.
func (w *Writer) Width() int {
	if w.width == nil {
		return defaultWidth
	}
	return w.width()
}

// Print prints a line above the status line.
func (w *Writer) Print(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	if w.IsTerminal() {
		_, _ = fmt.Fprintf(w.w, "\r\x1b[K%s\n%s", text, w.status)
		return
	}
	_, _ = fmt.Fprintln(w.w, text)
}

// Status replaces the status line, cut to the width. On a terminal one column
// stays free, so that the cursor does not wrap.
func (w *Writer) Status(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	if !w.IsTerminal() {
		_, _ = fmt.Fprintln(w.w, Cut(text, w.Width()))
		return
	}
	w.status = Cut(text, w.Width()-1)
	_, _ = fmt.Fprintf(w.w, "\r\x1b[K%s", w.status)
}

// Clear removes the status line from a terminal.
func (w *Writer) Clear() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.status != "" {
		w.status = ""
		_, _ = fmt.Fprint(w.w, "\r\x1b[K")
	}
}

// Keep leaves the status line on the terminal and moves to the next line.
func (w *Writer) Keep() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.status != "" {
		w.status = ""
		_, _ = fmt.Fprintln(w.w)
	}
}

// Printable returns text of others as it may be written to a terminal: control
// characters are shown and not obeyed. Text longer than limit characters is cut;
// a limit of 0 cuts nothing.
func Printable(s string, limit int) string {
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsGraphic(r) }) {
		s = strconv.QuoteToGraphic(s)
	}
	if limit > 0 {
		return Cut(s, limit)
	}
	return s
}

// Cut shortens text to at most width characters and marks where it was cut.
func Cut(s string, width int) string {
	if r := []rune(s); len(r) > width {
		return string(r[:max(width-1, 0)]) + "…"
	}
	return s
}
