package credentials

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// maxFileBytes bounds a file. The largest are bundles of CA certificates.
const maxFileBytes = 1 << 20

// file is what one or more files of a flag contain. They are read whenever the
// credential is needed, and compared by content: a Kubernetes secret is a chain of
// symbolic links that is replaced as a whole. Files that cannot be used replace
// nothing, because they may just be being written.
type file[T any] struct {
	flag    string
	paths   []string
	parse   func(contents ...[]byte) (T, error)
	expires func(T) time.Time // nil: it does not; zero: it does not say when

	reading sync.Mutex // held while the files are read
	state   atomic.Pointer[fileState[T]]
}

// fileState is immutable.
type fileState[T any] struct {
	contents [][]byte
	value    T
	err      error // of the last reading; nil: value is what the files contain
}

// openFile reads files, which must be usable now.
func openFile[T any](flag string, paths []string, expires func(T) time.Time, parse func(...[]byte) (T, error)) (*file[T], error) {
	f := &file[T]{flag: flag, paths: paths, parse: parse, expires: expires}
	contents, err := f.read()
	if err != nil {
		return nil, err
	}
	value, err := parse(contents...)
	if err != nil {
		return nil, err
	}
	f.state.Store(&fileState[T]{contents: contents, value: value})
	if at, expired := f.expired(value, time.Now()); expired {
		return nil, fmt.Errorf("file %s expired at %s", paths[0], formatTime(at))
	}
	return f, nil
}

// get reads the files and returns what they contain, or contained when they were
// last usable.
func (f *file[T]) get() T {
	f.renew(context.Background())
	return f.state.Load().value
}

// renew reads the files, unless another goroutine is reading them: a file system
// that hangs then holds up one connection, not all of them.
func (f *file[T]) renew(context.Context) {
	if !f.reading.TryLock() {
		return
	}
	defer f.reading.Unlock()
	s := *f.state.Load()
	contents, err := f.read()
	if err != nil {
		s.err = err
	} else if s.err != nil || !slices.EqualFunc(contents, s.contents, bytes.Equal) {
		value, err := f.parse(contents...)
		s.err = err
		if err == nil {
			s.contents, s.value = contents, value
		}
	}
	f.state.Store(&s)
}

func (f *file[T]) problem(now time.Time) *Error {
	s := f.state.Load()
	at, expired := f.expired(s.value, now)
	switch {
	case expired && s.err != nil:
		return &Error{Flag: f.flag, Text: fmt.Sprintf("what was read before expired at %s: %v", formatTime(at), s.err)}
	case expired:
		return &Error{Flag: f.flag, Text: fmt.Sprintf("file %s expired at %s", f.paths[0], formatTime(at))}
	case s.err != nil:
		return &Error{Flag: f.flag, Text: fmt.Sprintf("what was read before is still in use: %v", s.err)}
	}
	return nil
}

func (f *file[T]) expired(value T, now time.Time) (time.Time, bool) {
	if f.expires == nil {
		return time.Time{}, false
	}
	at := f.expires(value)
	return at, !at.IsZero() && !now.Before(at)
}

// read returns the contents of the files. Its errors name the file.
func (f *file[T]) read() ([][]byte, error) {
	contents := make([][]byte, len(f.paths))
	for i, path := range f.paths {
		var err error
		if contents[i], err = readFile(path); err != nil {
			return nil, err
		}
	}
	return contents, nil
}

func readFile(path string) ([]byte, error) {
	r, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	content, err := io.ReadAll(io.LimitReader(r, maxFileBytes+1))
	switch {
	case err != nil:
		return nil, err
	case len(content) > maxFileBytes:
		return nil, fmt.Errorf("file %s is longer than %d bytes", path, maxFileBytes)
	case len(bytes.TrimSpace(content)) == 0:
		return nil, fmt.Errorf("file %s is empty", path)
	}
	return content, nil
}

// openText reads a file with a password or secret: its content without line breaks
// at its end.
func openText(flag, path string) (*file[string], error) {
	return openFile(flag, []string{path}, nil, func(contents ...[]byte) (string, error) {
		text := bytes.TrimRight(contents[0], "\r\n")
		if bytes.ContainsAny(text, "\x00\r\n") {
			return "", errors.New("file " + path + " contains more than one line")
		}
		return string(text), nil
	})
}

func formatTime(t time.Time) string { return t.UTC().Format(time.RFC3339) }
