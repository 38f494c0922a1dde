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
	// keyCheckEvery is how long a key read from a file is believed. A change is
	// found within this time; looking costs one read of a few bytes.
	keyCheckEvery = time.Second
	// maxKeyBytes bounds the file; published keys have 64 characters.
	maxKeyBytes = 4096
)

// SecretKey is where the app's secret key comes from: a fixed value, or a file that is
// read again as it changes. It always holds a usable key: what cannot be read,
// or is empty because somebody is just writing it, does not replace what was
// there.
//
// Changes are found by comparing contents, not the file's times: a Kubernetes
// secret is a chain of symbolic links that is swapped as a whole, and two writes
// within one tick of the file system's clock leave the same time stamp.
type SecretKey struct {
	path string // "" for a fixed value

	nextCheck atomic.Int64 // Unix ns; written by whoever holds reading
	current   atomic.Pointer[keyVersion]
	told      atomic.Uint64         // last version that Changed told of
	problem   atomic.Pointer[error] // of the last reading; nil: none
	reading   sync.Mutex            // one reader of the file at a time
}

// keyVersion is one content of the key; never changed once made.
type keyVersion struct {
	secret Secret
	number uint64 // 1, 2, …
}

// KeyFromValue is a key that never changes. White space around it is dropped.
func KeyFromValue(value Secret) (*SecretKey, error) {
	text, err := trimKey(value.reveal())
	if err != nil {
		return nil, fmt.Errorf("secret key: %w", err)
	}
	return newKey("", text), nil
}

// KeyFromFile is a key that follows the content of a file. The file must hold a
// key now; white space around it is dropped.
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
	k.told.Store(1)
	k.nextCheck.Store(time.Now().Add(keyCheckEvery).UnixNano())
	return k
}

// Changed reports, once per change, that the key is another one than when it was
// last asked. It reads the file at most once a second; now is the caller's
// clock.
func (k *SecretKey) Changed(now time.Time) bool {
	v := k.at(now).number
	return k.told.Swap(v) != v
}

// at is the key as of now.
func (k *SecretKey) at(now time.Time) *keyVersion {
	if k.path != "" {
		// A clock that was set back must not keep the file unread for as long.
		if wait := k.nextCheck.Load() - now.UnixNano(); wait <= 0 || wait > int64(keyCheckEvery) {
			k.check(now)
		}
	}
	return k.current.Load()
}

// check reads the file unless somebody else is reading it already: a file
// system that hangs holds up one lookup, not all of them.
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

// Err is why the file could not be read when it was last looked at; nil when it
// could. The key read before stays in use.
func (k *SecretKey) Err() error {
	if p := k.problem.Load(); p != nil {
		return *p
	}
	return nil
}

// readKey reads and checks a key file. Its errors name the file, never its
// content.
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
	case len(text) > maxKeyBytes:
		return "", fmt.Errorf("is over %d bytes long", maxKeyBytes)
	case strings.ContainsFunc(text, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || r == unicode.ReplacementChar
	}):
		return "", errors.New("holds white space or control characters inside")
	}
	return text, nil
}
