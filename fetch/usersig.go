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
	// userSigLife is how long a UserSig is valid. The API rejects lifetimes under
	// 24 h.
	userSigLife = 7 * 24 * time.Hour
	// userSigRenew is the age at which a UserSig is replaced: early enough for a
	// machine that was suspended over a weekend to resume with a valid one.
	userSigRenew = userSigLife / 2
	// clockBack is how far the clock may be set back behind a UserSig's time before
	// it is replaced: to the API it would come from the future.
	clockBack = time.Minute
	// minUserSigAge is the age at which a UserSig that the API may have rejected
	// is replaced.
	minUserSigAge = time.Minute
)

// signature is a UserSig and what the API said about it.
type signature struct {
	query    string // the whole query except the value of random, which comes last
	signedAt int64  // Unix s; wall clock, because a monotonic one stops while a machine is suspended
	key      uint64 // version of the key that signed it

	// resigned reports that it replaced a UserSig that the API called expired, and
	// that no UserSig had been accepted since.
	resigned bool
	// accepted reports that the API accepted it. Any request sets it.
	accepted atomic.Bool
}

// signer makes UserSigs and keeps the current one. All requests share it; one at
// a time signs.
type signer struct {
	appID      int
	identifier string
	key        *SecretKey
	red        *redactor

	// current is the UserSig in use; nil: the next request signs. A new one is
	// stored with mu held; renew and expired clear it by compare-and-swap.
	current atomic.Pointer[signature]

	mu     sync.Mutex
	resign bool // the next signature replaces an expired one; guarded by mu
}

// get returns the UserSig to use now, and signs one if necessary.
func (s *signer) get(now time.Time) (*signature, error) {
	key := s.key.at(now)
	if sig := s.current.Load(); sig.usable(key, now) {
		return sig, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if sig := s.current.Load(); sig.usable(key, now) {
		return sig, nil // another request signed while this one waited for mu
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

// sign returns a new UserSig, which the redactor has learnt already.
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

// accepted records that the API accepted sig.
func (s *signer) accepted(sig *signature) {
	if sig.accepted.Load() {
		return
	}
	sig.accepted.Store(true)
	if !sig.resigned {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resign = false
}

// renew makes the next request sign again, unless one has done so already or sig
// is new: a call that alone draws rejections must not make every request sign.
func (s *signer) renew(sig *signature, now time.Time) {
	if now.Unix()-sig.signedAt >= int64(minUserSigAge/time.Second) {
		s.current.CompareAndSwap(sig, nil)
	}
}

// expired records that the API called sig expired, and reports whether that is
// final. It is not if a new UserSig may help: the first time, and for requests
// that were in flight with the old one. It is if the new one is called expired,
// too, before it was ever accepted.
func (s *signer) expired(sig *signature) (final bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	final = sig.resigned && !sig.accepted.Load()
	if s.current.CompareAndSwap(sig, nil) {
		s.resign = true
	}
	return final
}
