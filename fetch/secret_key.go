package fetch

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
)

const (
	// keyCheckEvery is how often the file is read, while requests are sent. A
	// change is found within this time; reading costs a few microseconds.
	keyCheckEvery = time.Second
	// minKeyBytes keeps what is no key from being used as one. A text shorter than
	// the pieces that the redactor looks for could not be redacted either.
	minKeyBytes = gramBytes
	// maxKeyBytes bounds the file. The keys that Tencent publishes have 64
	// characters.
	maxKeyBytes = 4096
)

// SecretKey is the app's secret key: a fixed value, or the content of a file
// that is read again when it changes. It always holds a usable key: a file that
// cannot be read, or is empty because it is just being written, replaces nothing.
//
// Changes are found by comparing contents, not the file's times: a Kubernetes
// secret is a chain of symbolic links that is swapped as a whole, and two writes
// within one tick of the file system's clock leave the same timestamp.
type SecretKey struct {
	path string // "" for a fixed value

	nextCheck atomic.Int64 // Unix ns; written with reading held
	current   atomic.Pointer[keyVersion]
	reported  atomic.Uint64         // the last version that Changed reported
	problem   atomic.Pointer[error] // of the last read; nil: none
	reading   sync.Mutex            // held while the file is read
}

// keyVersion is one content of the key. It is immutable.
type keyVersion struct {
	secret Secret
	number uint64 // 1, 2, …
}

// KeyFromValue returns a key that never changes. White space around it is
// removed.
func KeyFromValue(value Secret) (*SecretKey, error) {
	text, err := trimKey(value.reveal())
	if err != nil {
		return nil, fmt.Errorf("secret key: %w", err)
	}
	return newKey("", text), nil
}

// KeyFromFile returns a key that follows the content of a file. The file must
// hold a key now. White space around it is removed.
func KeyFromFile(path string) (*SecretKey, error) {
	text, err := readKey(path)
	if err != nil {
		return nil, fmt.Errorf("secret key: %w", err)
	}
	return newKey(path, text), nil
}

func newKey(path, text string) *SecretKey {
	k := &SecretKey{path: path}
	k.current.Store(&keyVersion{secret: NewSecret(text), number: 1})
	k.reported.Store(1)
	k.nextCheck.Store(time.Now().Add(keyCheckEvery).UnixNano())
	return k
}

// Changed reports, once per change, that the key is another one than at the last
// call. It reads the file at most once a second; now is the caller's clock.
func (k *SecretKey) Changed(now time.Time) bool {
	v := k.at(now).number
	return k.reported.Swap(v) != v
}

// at returns the key as of now.
func (k *SecretKey) at(now time.Time) *keyVersion {
	if k.path != "" {
		// A clock that was set back must not keep the file unread for as long.
		if wait := k.nextCheck.Load() - now.UnixNano(); wait <= 0 || wait > int64(keyCheckEvery) {
			k.check(now)
		}
	}
	return k.current.Load()
}

// check reads the file, unless another goroutine is reading it: a file system
// that hangs then holds up one request, not all of them.
func (k *SecretKey) check(now time.Time) {
	if !k.reading.TryLock() {
		return
	}
	defer k.reading.Unlock()
	k.nextCheck.Store(now.Add(keyCheckEvery).UnixNano())
	text, err := readKey(k.path)
	if err != nil {
		k.problem.Store(&err)
	} else {
		k.problem.Store(nil)
	}
	v := k.current.Load()
	if err == nil && text != v.secret.reveal() {
		k.current.Store(&keyVersion{secret: NewSecret(text), number: v.number + 1})
	}
}

// Err returns why the last read of the file failed; nil if it did not. The key
// that was read before stays in use.
func (k *SecretKey) Err() error {
	if p := k.problem.Load(); p != nil {
		return *p
	}
	return nil
}

// readKey reads and checks a key file. Its errors name the file and never quote
// its content.
func readKey(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxKeyBytes+1))
	if err != nil {
		return "", err
	}
	text, err := trimKey(string(b))
	if err != nil {
		return "", fmt.Errorf("file %s %w", path, err)
	}
	return text, nil
}

func trimKey(text string) (string, error) {
	text = strings.TrimSpace(strings.TrimPrefix(text, "\ufeff"))
	switch {
	case text == "":
		return "", errors.New("is empty")
	case len(text) < minKeyBytes:
		return "", fmt.Errorf("is shorter than %d bytes, so it is no secret key", minKeyBytes)
	case len(text) > maxKeyBytes:
		return "", fmt.Errorf("is longer than %d bytes", maxKeyBytes)
	case strings.ContainsFunc(text, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || r == unicode.ReplacementChar
	}):
		return "", errors.New("contains white space or control characters")
	}
	return text, nil
}
