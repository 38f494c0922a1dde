package fetchtest

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/tencentyun/tls-sig-api-v2-golang/tencentyun"
)

// maxRemembered bounds the number of UserSigs and of URLs that are remembered.
const maxRemembered = 64

// verdict is the result of verifying a UserSig. A valid one is verified again
// after a while, so that it can expire.
type verdict struct {
	err   error
	again time.Time
}

// SetKey changes the app's key, as rotating it in the console would: UserSigs of
// the old key are refused from now on.
func (a *API) SetKey(key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.key = key
	clear(a.verified)
}

// Revoke makes every UserSig seen so far an expired one.
func (a *API) Revoke() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range a.sigs {
		a.revoked[s] = true
	}
}

// authenticate checks the query as the API does; nil means that it is valid. It
// remembers the UserSig for Secrets.
func (a *API) authenticate(r *http.Request, now time.Time) *Fault {
	refuse := func(name string) *Fault {
		f := Named(name)
		return &f
	}
	q := r.URL.Query()
	sig := q.Get("usersig")
	a.remember(sig, r)
	if r.Method != http.MethodPost || q.Get("contenttype") != "json" {
		return refuse("bad_url")
	}
	if _, err := strconv.ParseUint(q.Get("random"), 10, 32); err != nil {
		return refuse("bad_url")
	}
	switch {
	case !q.Has("sdkappid"):
		return refuse("no_app")
	case q.Get("sdkappid") != strconv.Itoa(a.cfg.SDKAppID):
		return refuse("bad_app")
	case q.Get("identifier") != a.cfg.Identifier:
		return refuse("not_administrator")
	case a.revoked[sig]:
		return refuse("usersig_expired")
	}
	switch err := a.verify(sig, now); {
	case err == nil:
		return nil
	case errors.Is(err, tencentyun.ErrExpired):
		return refuse("usersig_expired")
	case errors.Is(err, tencentyun.ErrSigNotMatch):
		return refuse("usersig_wrong_key")
	case errors.Is(err, tencentyun.ErrIdentifierNotMatch):
		return refuse("usersig_wrong_identifier")
	case errors.Is(err, tencentyun.ErrSdkAppIDNotMatch):
		return refuse("usersig_wrong_app")
	default:
		return refuse("usersig_unreadable")
	}
}

// verify verifies sig with the vendor's module. A result is valid for a minute.
func (a *API) verify(sig string, now time.Time) error {
	if v, ok := a.verified[sig]; ok && now.Before(v.again) {
		return v.err
	}
	err := tencentyun.VerifyUserSig(uint64(a.cfg.SDKAppID), a.key, a.cfg.Identifier, sig, now)
	if len(a.verified) >= maxRemembered {
		clear(a.verified)
	}
	a.verified[sig] = verdict{err: err, again: now.Add(time.Minute)}
	return err
}

func (a *API) remember(sig string, r *http.Request) {
	if len(a.urls) < maxRemembered {
		a.urls = append(a.urls, "http://"+r.Host+r.URL.RequestURI())
	}
	if sig == "" || len(a.sigs) > 0 && a.sigs[len(a.sigs)-1] == sig || slices.Contains(a.sigs, sig) {
		return
	}
	if len(a.sigs) == maxRemembered {
		a.sigs = a.sigs[1:]
	}
	a.sigs = append(a.sigs, sig)
}

// readCallID reads the request's whole body: only then does a server notice that
// its client has gone.
func readCallID(r *http.Request) (string, *Fault) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 64<<10))
	if err != nil {
		f := Named("bad_json")
		return "", &f
	}
	var request struct {
		CallID *string `json:"CallId"`
	}
	if err := json.Unmarshal(body, &request); err != nil {
		f := Named("bad_json")
		return "", &f
	}
	if request.CallID == nil || *request.CallID == "" {
		f := Named("bad_call_id")
		return "", &f
	}
	return *request.CallID, nil
}
