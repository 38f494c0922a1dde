package credentials

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// issuer issues numbered credentials.
type issuer struct {
	life   time.Duration // 0: not known
	err    error
	hangs  bool
	issued int
}

func (i *issuer) fetch(ctx context.Context) (int, time.Time, error) {
	if i.hangs {
		<-ctx.Done()
		return 0, time.Time{}, ctx.Err()
	}
	if i.err != nil {
		return 0, time.Time{}, i.err
	}
	i.issued++
	var expires time.Time
	if i.life != 0 {
		expires = time.Now().Add(i.life)
	}
	return i.issued, expires, nil
}

// An hour of use with an issuer whose credentials live for ten minutes: each is
// renewed at 80 % of its life, and a used one never expires. While the issuer fails,
// the credential is used as long as it is valid; then the error says why there is none.
func TestCredentialIsRenewedBeforeItExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{life: 10 * time.Minute}
		r := &renewed[int]{flag: "f", fetch: i.fetch}
		if p := r.problem(time.Now()); p != nil {
			t.Errorf("a problem before the first request: %v", p)
		}
		start := time.Now()
		for ; time.Since(start) < time.Hour; <-time.After(time.Second) {
			got, err := r.get(t.Context())
			if want := 1 + int(time.Since(start)/(8*time.Minute)); err != nil || got != want {
				t.Fatalf("after %v: credential %d, want %d, error %v", time.Since(start), got, want, err)
			}
		}
		i.err = &Error{Flag: "oauth-client-secret-file", Text: "wrong"}
		last := i.issued
		outage := time.Now()
		var failing bool
		for ; time.Since(outage) < 20*time.Minute; <-time.After(time.Second) {
			got, err := r.get(t.Context())
			switch {
			case err == nil && failing:
				t.Fatal("an expired credential is used")
			case err == nil && got != last:
				t.Fatalf("credential %d, want %d", got, last)
			case err != nil:
				failing = true
				var e *Error
				if !errors.As(err, &e) || e.Flag != "oauth-client-secret-file" || e.Text != "wrong" {
					t.Fatal(err)
				}
			}
			if p := r.problem(time.Now()); time.Since(outage) > 9*time.Minute && !failing && (p == nil || !strings.Contains(p.Text, "cannot be renewed, and expires at")) {
				t.Fatalf("problem: %v", p)
			}
		}
		if !failing {
			t.Error("the credential never expired")
		}
		i.err = nil
		<-time.After(retryRenewal)
		if got, err := r.get(t.Context()); err != nil || got != last+1 || r.problem(time.Now()) != nil {
			t.Errorf("after the outage: %d, %v, %v", got, err, r.problem(time.Now()))
		}
	})
}

// While a request for a new credential hangs, one caller waits for it and the others
// use the one that is valid.
func TestHangingRenewalHoldsUpOneCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{life: 10 * time.Minute}
		r := &renewed[int]{flag: "f", fetch: i.fetch}
		if _, err := r.get(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-time.After(9 * time.Minute)
		i.hangs = true
		start := time.Now()
		var waited sync.Map
		var callers sync.WaitGroup
		for n := range 20 {
			callers.Go(func() {
				if _, err := r.get(t.Context()); err != nil {
					t.Error(err)
				}
				if time.Since(start) > 0 {
					waited.Store(n, true)
				}
			})
		}
		callers.Wait()
		n := 0
		waited.Range(func(any, any) bool { n++; return true })
		if took := time.Since(start); n != 1 || took != renewTimeout {
			t.Errorf("%d callers waited for up to %v, want one for %v", n, took, renewTimeout)
		}
	})
}

// A client that is closed while it waits must not keep the next one from trying.
func TestCancelledRequestIsRepeatedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := &issuer{hangs: true}
		r := &renewed[int]{flag: "f", fetch: i.fetch}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := r.get(ctx); err == nil {
			t.Fatal("no error")
		}
		i.hangs = false
		if got, err := r.get(t.Context()); err != nil || got != 1 {
			t.Errorf("%d, %v", got, err)
		}
		<-time.After(unknownLife - time.Millisecond)
		if got, _ := r.get(t.Context()); got != 1 {
			t.Errorf("credential %d, want the first", got)
		}
		<-time.After(time.Millisecond)
		if got, _ := r.get(t.Context()); got != 2 {
			t.Errorf("credential %d, want a new one: nothing says how long the first is valid", got)
		}
		i.err = errors.New("none")
		<-time.After(time.Hour)
		if got, err := r.get(t.Context()); err != nil || got != 2 {
			t.Errorf("%d, %v", got, err)
		}
		if p := r.problem(time.Now()); p == nil || p.Error() != "--f: cannot be renewed: none" {
			t.Errorf("%v", p)
		}
	})
}

// An expired credential is not one.
func TestExpiredCredentialIsRefused(t *testing.T) {
	i := &issuer{life: -time.Second}
	r := &renewed[int]{flag: "f", fetch: i.fetch}
	if _, err := r.get(t.Context()); err == nil || !strings.Contains(err.Error(), "--f: what was received expired at") {
		t.Error(err)
	}
}
