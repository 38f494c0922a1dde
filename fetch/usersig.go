package fetch

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tencentyun/tls-sig-api-v2-golang/tencentyun"
)

const (
	// userSigLife is how long a UserSig is valid. The API refuses to work with
	// lives under 24 h.
	userSigLife = 7 * 24 * time.Hour
	// userSigRenew is the age at which a new one is made: so early that a
	// machine which sleeps through a weekend still wakes up with a valid one.
	userSigRenew = userSigLife / 2
	// clockBack is how far the clock may be behind a UserSig's own time before
	// a new one is made: the API would see one from the future.
	clockBack = time.Minute
)

// signature is a UserSig and what became of it.
type signature struct {
	query    string // all of the query but the value of random, which comes last
	signedAt int64  // Unix s; wall clock, because a monotonic one stands still while a machine sleeps
	key      uint64 // version of the key that signed it

	// resigned: made because the API called the one before expired, and nothing
	// was answered well since.
	resigned bool
	// good: the API answered a request that carried it. Written by every
	// lookup, read by refused.
	good atomic.Bool
}

// signer makes UserSigs and keeps the current one. Any number of lookups share
// it; one at a time signs.
type signer struct {
	appID      int
	identifier string
	key        *SecretKey
	red        *redactor

	current atomic.Pointer[signature] // nil: the next request signs. Stored under mu.

	mu     sync.Mutex
	resign bool // the next signature is a resigned one; guarded by mu
}

// get is the UserSig to use now.
func (s *signer) get(now time.Time) (*signature, error) {
	key := s.key.at(now)
	if sig := s.current.Load(); sig.usable(key, now) {
		return sig, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if sig := s.current.Load(); sig.usable(key, now) {
		return sig, nil // somebody else signed while this lookup waited
	}
	text, err := s.sign(key)
	if err != nil {
		return nil, err
	}
	sig := &signature{
		query: "sdkappid=" + strconv.Itoa(s.appID) +
			"&identifier=" + url.QueryEscape(s.identifier) +
			"&usersig=" + url.QueryEscape(text) +
			"&contenttype=json&random=",
		signedAt: now.Unix(),
		key:      key.number,
		resigned: s.resign,
	}
	s.current.Store(sig)
	return sig, nil
}

// sign makes a UserSig. The redactor knows it before anybody else does.
func (s *signer) sign(key *keyVersion) (string, error) {
	secret := key.secret.reveal()
	s.red.add(secret)
	text, err := tencentyun.GenUserSig(s.appID, secret, s.identifier, int(userSigLife/time.Second))
	if err == nil && text == "" {
		err = errors.New("empty result")
	}
	if err != nil {
		return "", fmt.Errorf("signing a UserSig: %w", err)
	}
	s.red.add(text)
	return text, nil
}

func (sig *signature) usable(key *keyVersion, now time.Time) bool {
	if sig == nil || sig.key != key.number {
		return false
	}
	age := now.Unix() - sig.signedAt
	return age < int64(userSigRenew/time.Second) && age >= -int64(clockBack/time.Second)
}

// accepted notes that the API took sig for valid.
func (s *signer) accepted(sig *signature) {
	if sig.good.Load() {
		return
	}
	sig.good.Store(true)
	if !sig.resigned {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resign = false
}

// drop makes the next request sign anew, unless one has done so already.
func (s *signer) drop(sig *signature) {
	s.current.CompareAndSwap(sig, nil)
}

// expired takes in that the API called sig expired, and says whether that is
// final. It is not when a new UserSig may mend it: the first time, and for
// requests that were on their way with the old one. It is when the new one, too,
// was called expired before it was ever accepted.
func (s *signer) expired(sig *signature) (final bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	final = sig.resigned && !sig.good.Load()
	if s.current.CompareAndSwap(sig, nil) {
		s.resign = true
	}
	return final
}
