// Package logsink writes a log without ever waiting for its reader: a pipe that is
// full or closed, or a full disk, costs lines and nothing else.
package logsink

import (
	"bytes"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxBuffered bounds the lines that wait, in bytes: about a thousand lines.
	maxBuffered = 256 << 10
	// flushTimeout is how long Sync waits for a reader that may never come.
	flushTimeout = time.Second
)

// Sink is a log's destination. Lines that do not fit into its buffer, and lines that
// cannot be written, are dropped and counted. It implements zapcore.WriteSyncer.
type Sink struct {
	out     io.Writer
	report  func(dropped uint64) []byte
	dropped atomic.Uint64

	mu      sync.Mutex
	waiting []byte        // whole lines
	idle    chan struct{} // closed when the goroutine that writes has ended; nil: there is none

	// Only the goroutine that writes uses these.
	reported uint64 // of dropped
	cut      bool   // the output ends within a line
}

// New returns a sink that writes to out. report returns the line that says how many
// lines were dropped; it is written once out takes lines again. Nil: there is none.
func New(out io.Writer, report func(dropped uint64) []byte) *Sink {
	return &Sink{out: out, report: report}
}

// Dropped returns the number of lines that were dropped so far.
func (s *Sink) Dropped() uint64 { return s.dropped.Load() }

// Write takes one line. It never fails and never waits for the output.
func (s *Sink) Write(line []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting)+len(line) > maxBuffered {
		s.dropped.Add(1)
		return len(line), nil
	}
	s.waiting = append(s.waiting, line...)
	if s.idle == nil {
		s.idle = make(chan struct{})
		go s.write() // left behind if the output never takes what it is given
	}
	return len(line), nil
}

// write writes until nothing waits.
func (s *Sink) write() {
	var lines []byte
	for {
		s.mu.Lock()
		lines, s.waiting = s.waiting, lines[:0]
		if len(lines) == 0 {
			close(s.idle)
			s.idle = nil
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		if !s.writeLines(lines) {
			continue
		}
		if dropped := s.dropped.Load(); s.report != nil && dropped > s.reported && s.writeLines(s.report(dropped-s.reported)) {
			s.reported = dropped
		}
	}
}

// writeLines writes whole lines. Those that are not written are dropped.
func (s *Sink) writeLines(lines []byte) (ok bool) {
	if s.cut {
		if _, err := s.out.Write([]byte("\n")); err != nil {
			s.drop(lines)
			return false
		}
		s.cut = false
	}
	n, err := s.out.Write(lines)
	if err == nil {
		return true
	}
	s.cut = n > 0 && lines[n-1] != '\n'
	s.drop(lines[n:])
	return false
}

func (s *Sink) drop(lines []byte) {
	s.dropped.Add(uint64(bytes.Count(lines, []byte("\n"))))
}

// Sync waits until everything is written, for a second at most.
func (s *Sink) Sync() error {
	s.mu.Lock()
	idle := s.idle
	s.mu.Unlock()
	if idle == nil {
		return nil
	}
	timeout := time.NewTimer(flushTimeout)
	defer timeout.Stop()
	select {
	case <-idle:
	case <-timeout.C:
	}
	return nil
}
